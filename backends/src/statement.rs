//! What is common to all statements, and what their certificates claim.
//!
//! Certificates are read here for bookkeeping only, whoever signed them: topic order, roles, key indexes. Nothing here
//! makes a certificate trusted.

use parsecfs_core::{
    certificate::{ArchivingConfiguration, Certificate},
    id::RealmId,
    storage::{Bytes, Error, ErrorKind, Result, Statement},
};

/// The certificate that identifies a statement.
pub(crate) fn main_certificate(statement: &Statement) -> &Bytes {
    match statement {
        Statement::Bootstrap { user, .. } | Statement::CreateUser { user, .. } => user,
        Statement::CreateDevice { device, .. } => device,
        Statement::SetUpRecovery { brief, .. } => brief,
        Statement::UpdateUser { certificate }
        | Statement::RevokeUser { certificate }
        | Statement::CreateRealm { certificate, .. }
        | Statement::Share { certificate, .. }
        | Statement::Unshare { certificate, .. }
        | Statement::RotateKey { certificate, .. }
        | Statement::RenameRealm { certificate, .. }
        | Statement::ArchiveRealm { certificate, .. }
        | Statement::DeleteRecovery { certificate } => certificate,
    }
}

/// The realm that a statement is about; `None` when it is about users, devices and their recovery.
pub(crate) fn realm_of(statement: &Statement) -> Option<RealmId> {
    match statement {
        Statement::Bootstrap { .. }
        | Statement::CreateUser { .. }
        | Statement::CreateDevice { .. }
        | Statement::UpdateUser { .. }
        | Statement::RevokeUser { .. }
        | Statement::SetUpRecovery { .. }
        | Statement::DeleteRecovery { .. } => None,
        Statement::CreateRealm { realm, .. }
        | Statement::Share { realm, .. }
        | Statement::Unshare { realm, .. }
        | Statement::RotateKey { realm, .. }
        | Statement::RenameRealm { realm, .. }
        | Statement::ArchiveRealm { realm, .. } => Some(*realm),
    }
}

/// What a certificate claims; `Corrupt` when it is none.
pub(crate) fn claim_of(certificate: &[u8]) -> Result<Certificate> {
    Certificate::read_without_trust(certificate)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "a certificate cannot be read").caused_by(error))
}

/// Whether a realm is closed for writing by this configuration.
pub(crate) fn is_read_only(configuration: ArchivingConfiguration) -> bool {
    configuration != ArchivingConfiguration::Available
}
