//! What is common to all statements.

use parsecfs_core::storage::{Bytes, Statement};

/// The certificate that identifies a statement.
pub(crate) fn main_certificate(statement: &Statement) -> &Bytes {
    match statement {
        Statement::Bootstrap { user, .. } | Statement::CreateUser { user, .. } => user,
        Statement::CreateDevice { device, .. } => device,
        Statement::UpdateUser { certificate }
        | Statement::RevokeUser { certificate }
        | Statement::CreateRealm { certificate, .. }
        | Statement::Share { certificate, .. }
        | Statement::Unshare { certificate, .. }
        | Statement::RotateKey { certificate, .. }
        | Statement::RenameRealm { certificate, .. }
        | Statement::ArchiveRealm { certificate, .. } => certificate,
    }
}
