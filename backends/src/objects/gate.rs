//! The certificate rules of `core::trust`, applied to a log.
//!
//! Each log has a gate of its own, which knows the organization exactly as far as entries of that log quote it. So
//! the verdict on a certificate is the same on every client, however far each has read the organization's log.

use parsecfs_core::{
    id::UserId,
    storage::{Bytes, CertificateBatch, Error, Result},
    trust::Trust,
};
use parsecfs_crypto::VerifyKey;

use super::organization::denied;

fn refused(error: parsecfs_core::error::Error) -> Error {
    denied("the certificate is not allowed").caused_by(error)
}

/// What certificates were admitted so far.
#[derive(Clone)]
pub(super) struct Gate(Trust);

impl Gate {
    pub(super) fn new(root: [u8; 32]) -> Self {
        // No reader: what only one reader may see is in no log.
        Self(Trust::new(VerifyKey::from_bytes(root), UserId::from_bytes([0; 16])))
    }

    /// Takes all of a batch or nothing.
    pub(super) fn admit(&mut self, batch: &CertificateBatch) -> Result<()> {
        self.0 = self.0.apply(batch).map_err(refused)?;
        Ok(())
    }

    /// Takes a recovery by shares that everybody whom it concerns will accept.
    pub(super) fn admit_recovery(&mut self, brief: &Bytes, shares: &[Bytes]) -> Result<()> {
        self.0 = self.0.apply_recovery(brief, shares).map_err(refused)?;
        Ok(())
    }
}
