//! Certificates of recovery by shares, for stores that keep them for all users: who is shown which.
//!
//! Like everything about certificates here this is bookkeeping; that a setup is allowed is for
//! [`Trust`](parsecfs_core::trust::Trust) to say.

use std::collections::{BTreeMap, BTreeSet};

use parsecfs_core::{
    certificate::{Certificate, ShamirRecoveryBriefCertificate},
    id::UserId,
    storage::{Bytes, Error, ErrorKind, Result},
    time::Timestamp,
};

use crate::statement::claim_of;

/// A setup or a deletion.
#[derive(Clone)]
pub(crate) struct RecoveryCertificate {
    pub(crate) timestamp: Timestamp,
    /// Who can be recovered, or no longer.
    pub(crate) user: UserId,
    pub(crate) recipients: BTreeSet<UserId>,
    certificate: Bytes,
    shares: BTreeMap<UserId, Bytes>,
}

impl RecoveryCertificate {
    /// Of a setup. `Internal` when these are no brief and no shares.
    pub(crate) fn setup(brief: &Bytes, shares: &[Bytes]) -> Result<Self> {
        let Certificate::ShamirRecoveryBrief(claim) = claim_of(brief)? else {
            return Err(misuse("a brief of a recovery is needed"));
        };
        let share = |share: &Bytes| match claim_of(share)? {
            Certificate::ShamirRecoveryShare(claim) => Ok((claim.recipient, share.clone())),
            _ => Err(misuse("a share of a recovery is needed")),
        };
        Ok(Self {
            timestamp: claim.timestamp,
            user: claim.user_id,
            recipients: claim.per_recipient_shares.into_keys().collect(),
            certificate: brief.clone(),
            shares: shares.iter().map(share).collect::<Result<_>>()?,
        })
    }

    /// Of a deletion. `Internal` when this is none.
    pub(crate) fn deletion(certificate: &Bytes) -> Result<Self> {
        let Certificate::ShamirRecoveryDeletion(claim) = claim_of(certificate)? else {
            return Err(misuse("a deletion of a recovery is needed"));
        };
        Ok(Self {
            timestamp: claim.timestamp,
            user: claim.setup_to_delete_user_id,
            recipients: claim.share_recipients,
            certificate: certificate.clone(),
            shares: BTreeMap::new(),
        })
    }

    /// What a setup says; `None` of a deletion.
    pub(crate) fn brief(&self) -> Option<ShamirRecoveryBriefCertificate> {
        match claim_of(&self.certificate) {
            Ok(Certificate::ShamirRecoveryBrief(brief)) => Some(brief),
            _ => None,
        }
    }

    /// What this reader is shown: the certificate and behind it the reader's own share, or nothing.
    pub(crate) fn shown_to(&self, reader: UserId) -> impl Iterator<Item = Bytes> + '_ {
        let concerns = reader == self.user || self.recipients.contains(&reader);
        let shown = concerns.then_some(&self.certificate).into_iter().chain(self.shares.get(&reader));
        shown.cloned()
    }
}

fn misuse(why: &str) -> Error {
    Error::new(ErrorKind::Internal, why)
}
