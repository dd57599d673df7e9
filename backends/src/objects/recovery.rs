//! Recovery by shares, where no server hands out what a token opens.
//!
//! The certificates lie in the organization's log. Whoever lost everything has no key to read that, so the sealed device
//! is an object of its own, named for a digest of the token: who knows the token finds it, and a list of names leads to
//! no token. Who has the whole directory has the object anyway, and no more than its length of it: the key comes out of
//! the same shares as the token.
//!
//! The object is there before the entry that speaks of it, and goes after the entry that ends it. A crash in between
//! leaves an object that nobody is led to, or one that the next setup or deletion of that user takes away.

use std::collections::BTreeSet;

use parsecfs_core::{
    id::{RevealToken, UserId},
    storage::{Bytes, Error, ErrorKind, Result, Statement},
    time::Timestamp,
    verify::{Damaged, Part, Verified},
};
use parsecfs_crypto::sha256;

use super::{
    Shared,
    entry::{Change, Hash, digest_of},
    key, misuse,
    verbs::{Created, Verbs},
};
use crate::recovery::RecoveryCertificate;

/// What the token is hashed with, so that the name is of no use elsewhere.
const NAME_CONTEXT: &[u8] = b"parsecfs recovery";

/// Name of the object with a sealed device.
pub(super) type RecoveryName = [u8; 32];

fn name_of(token: RevealToken) -> RecoveryName {
    *sha256(&[NAME_CONTEXT, token.as_bytes()].concat()).as_bytes()
}

/// A setup as the log keeps it: the token itself is in no log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecoverySetup {
    pub(super) brief: Bytes,
    pub(super) shares: Vec<Bytes>,
    pub(super) object: RecoveryObject,
}

/// Where the sealed device of a setup lies, and what it is: so damage shows before the day it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecoveryObject {
    pub(super) name: RecoveryName,
    pub(super) digest: Hash,
}

impl Change {
    /// How a statement stands in a log.
    pub(super) fn of(statement: Statement) -> Self {
        match statement {
            Statement::SetUpRecovery { brief, shares, reveal_token, sealed_device } => {
                let object = RecoveryObject { name: name_of(reveal_token), digest: digest_of(&sealed_device) };
                Self::Recovery(Box::new(RecoverySetup { brief, shares, object }))
            }
            statement => Self::Statement(Box::new(statement)),
        }
    }
}

/// All setups and deletions of an organization, in order.
#[derive(Clone, Default)]
pub(super) struct Recoveries {
    certificates: Vec<(RecoveryCertificate, Option<RecoveryObject>)>,
}

impl Recoveries {
    pub(super) fn push(&mut self, certificate: RecoveryCertificate, object: Option<RecoveryObject>) {
        self.certificates.push((certificate, object));
    }

    pub(super) fn last(&self) -> Option<Timestamp> {
        self.certificates.last().map(|(last, _)| last.timestamp)
    }

    /// The setup that holds for a user.
    pub(super) fn setup(&self, user: UserId) -> Option<&RecoveryCertificate> {
        let last = self.certificates.iter().rfind(|(one, _)| one.user == user);
        last.and_then(|(one, object)| object.map(|_| one))
    }

    /// What a reader is shown after a time.
    pub(super) fn shown_to(&self, reader: UserId, after: Option<Timestamp>) -> Vec<Bytes> {
        let new = self.certificates.iter().filter(|(one, _)| after.is_none_or(|after| one.timestamp > after));
        new.flat_map(|(one, _)| one.shown_to(reader)).collect()
    }

    /// Objects of setups of this user that have ended.
    fn ended(&self, user: UserId) -> Vec<RecoveryName> {
        let own = || self.certificates.iter().filter(|(one, _)| one.user == user);
        let holds = own().next_back().and_then(|(_, object)| *object);
        let ended = own().filter_map(|(_, object)| *object).filter(|object| Some(*object) != holds);
        ended.map(|object| object.name).collect()
    }

    /// Objects of all setups that hold.
    fn held(&self) -> Vec<RecoveryObject> {
        let users: BTreeSet<_> = self.certificates.iter().map(|(one, _)| one.user).collect();
        let last = |user| self.certificates.iter().rfind(|(one, _)| one.user == user).and_then(|(_, object)| *object);
        users.into_iter().filter_map(last).collect()
    }
}

impl Shared {
    /// Appends a setup, a statement of that kind.
    pub(super) async fn set_up_recovery(&self, statement: Statement) -> Result<()> {
        let Statement::SetUpRecovery { reveal_token, sealed_device, .. } = &statement else {
            return Err(misuse("this sets up no recovery"));
        };
        let object = name_of(*reveal_token);
        self.keep_recovery(&object, sealed_device.clone()).await?;
        let appended = self.append_to_organization(Change::of(statement)).await;
        // Refused for good: nothing of it is in the log, nor will be.
        if appended.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::VersionConflict | ErrorKind::Denied))
        {
            self.verbs.delete(&key::recovery(&object)).await?;
        }
        appended?;
        self.sweep_recoveries().await
    }

    async fn keep_recovery(&self, name: &RecoveryName, sealed_device: Bytes) -> Result<()> {
        let object = [(key::recovery(name), sealed_device.clone())];
        if self.verbs.create(&object).await?.outcomes == [Created::Won] {
            return Ok(());
        }
        match self.verbs.get(&object[0].0).await?.bytes {
            Some(there) if there == sealed_device => Ok(()),
            _ => Err(Error::new(ErrorKind::Corrupt, "something else lies where a recovery is to be kept")),
        }
    }

    /// Takes away what setups of this device's user left that have ended.
    pub(super) async fn sweep_recoveries(&self) -> Result<()> {
        let ended = self.organization.lock().await.state.recoveries.ended(self.options.signer.user_id());
        for name in ended {
            self.verbs.delete(&key::recovery(&name)).await?;
        }
        Ok(())
    }
}

impl Shared {
    /// Names sealed devices that are damaged or missing.
    pub(super) async fn verify_recoveries(&self, recoveries: &Recoveries, found: &mut Verified) -> Result<()> {
        for object in recoveries.held() {
            let key = key::recovery(&object.name);
            let why = match self.verbs.get(&key).await?.bytes {
                Some(bytes) if digest_of(&bytes) == object.digest => continue,
                Some(_) => "damaged",
                None => "missing",
            };
            found.damaged.push(Damaged { key, realm: None, part: Part::Recovery, why: why.to_owned() });
        }
        Ok(())
    }
}

/// The sealed device that a token opens, for somebody who has nothing but the place of the organization.
pub(super) async fn reveal(verbs: &dyn Verbs, token: RevealToken) -> Result<Bytes> {
    let object = verbs.get(&key::recovery(&name_of(token))).await?.bytes;
    object.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such recovery, or it was deleted"))
}
