//! Recovery by shares on the strict server.

use std::collections::HashMap;

use parsecfs_core::{
    certificate::{Certificate, ShamirRecoveryDeletionCertificate},
    id::{DeviceId, UserId},
    storage::{Bytes, Error, Result},
    time::Timestamp,
};

use super::{State, conflict, denied, misuse, not_found, require};
use crate::{recovery::RecoveryCertificate, statement::claim_of};

/// All setups that were, and those that hold.
#[derive(Default)]
pub(super) struct Recoveries {
    certificates: Vec<RecoveryCertificate>,
    active: HashMap<UserId, RecoveryCertificate>,
}

impl Recoveries {
    /// What a reader is shown after a time.
    pub(super) fn shown_to(&self, reader: UserId, after: Option<Timestamp>) -> Vec<Bytes> {
        let new = self.certificates.iter().filter(|one| after.is_none_or(|after| one.timestamp > after));
        new.flat_map(|one| one.shown_to(reader)).collect()
    }
}

impl State {
    pub(super) fn set_up_recovery(
        &mut self,
        author: DeviceId,
        caller: UserId,
        (brief, shares): (&Bytes, &[Bytes]),
    ) -> Result<()> {
        let setup = RecoveryCertificate::setup(brief, shares)?;
        require(setup.user == caller, || denied("a recovery is set up by its own user"))?;
        require(!setup.recipients.contains(&caller), || misuse("nobody holds shares of himself"))?;
        require(shares.len() == setup.recipients.len(), || misuse("a share for each recipient is needed"))?;
        for share in shares {
            let Certificate::ShamirRecoveryShare(share) = claim_of(share)? else {
                return Err(misuse("a share of a recovery is needed"));
            };
            require(setup.recipients.contains(&share.recipient), || misuse("a share of somebody else"))?;
            require(share.author == author && share.user_id == caller, || misuse("a share of another recovery"))?;
            require(share.timestamp == setup.timestamp, || misuse("a share of another time than its brief"))?;
        }
        let distinct = setup.recipients.iter().all(|user| setup.shown_to(*user).count() == 2);
        require(distinct, || misuse("two shares for one recipient"))?;
        for recipient in &setup.recipients {
            let user = self.users.get(recipient).ok_or_else(|| not_found("no such user"))?;
            require(!user.revoked, || conflict("a recipient is revoked"))?;
        }
        require(!self.recoveries.active.contains_key(&caller), || conflict("there is a recovery already"))?;
        self.recovery_is_next(author, brief, setup.timestamp)?;
        self.recoveries.active.insert(caller, setup.clone());
        self.recoveries.certificates.push(setup);
        Ok(())
    }

    pub(super) fn delete_recovery(&mut self, author: DeviceId, caller: UserId, certificate: &Bytes) -> Result<()> {
        let Certificate::ShamirRecoveryDeletion(said) = claim_of(certificate)? else {
            return Err(misuse("a deletion of a recovery is needed"));
        };
        let ShamirRecoveryDeletionCertificate { setup_to_delete_user_id, setup_to_delete_timestamp, .. } = said;
        require(setup_to_delete_user_id == caller, || denied("a recovery is deleted by its own user"))?;
        let active = self.recoveries.active.get(&caller);
        let active = active.filter(|active| active.timestamp == setup_to_delete_timestamp);
        let active = active.ok_or_else(|| conflict("there is no such recovery any more"))?;
        require(active.recipients == said.share_recipients, || misuse("the recipients are others"))?;
        self.recovery_is_next(author, certificate, said.timestamp)?;
        self.recoveries.active.remove(&caller);
        self.recoveries.certificates.push(RecoveryCertificate::deletion(certificate)?);
        Ok(())
    }

    /// Stricter than a server: certificates about people and about recovery are one sequence.
    fn recovery_is_next(&self, author: DeviceId, certificate: &Bytes, timestamp: Timestamp) -> Result<()> {
        require(claim_of(certificate)?.author() == Some(author), || misuse("signed by somebody else"))?;
        self.common_is_after_last(timestamp)
    }

    /// Time of the last certificate about recovery.
    pub(super) fn last_recovery(&self) -> Option<Timestamp> {
        self.recoveries.certificates.last().map(|last| last.timestamp)
    }
}

/// A time that is too early, with the one that it must follow.
pub(super) fn too_early(last: Timestamp) -> Error {
    conflict("the timestamp is not after the last one").only_after(last)
}
