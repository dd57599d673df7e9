//! Recovery by shares: a way back for a person, held by several others together (formats.md 3.6).
//!
//! Setting it up makes a device that nobody has, seals it with a fresh key, and splits that key, with the token that makes
//! the storage hand the device out, among the recipients; key and token are then forgotten. Rules are asked before the
//! device is made, so a refusal leaves nothing behind; a crash after it leaves a device whose keys nobody has.
//!
//! What could go wrong: recipients are revoked until too few are left, which nobody notices before the day it is needed,
//! hence [`SharedRecovery::is_possible`] for whoever looks.

use std::{collections::BTreeMap, num::NonZeroU8};

use parking_lot::Mutex;
use parsecfs_core::{
    certificate::DevicePurpose,
    id::{RevealToken, UserId},
    name::DeviceLabel,
    shamir::{ShamirRecoverySecret, ShamirRecoveryShareData, SharePlan, WeightedShare},
    statement::{self, Author},
    storage::{Bytes, Statement},
    time::Timestamp,
    trust::Trust,
};
use parsecfs_crypto::{SecretKey, random_bytes};

use super::{Organization, UserSummary, refused};
use crate::error::{Error, ErrorKind, Result};

/// A way back that several people hold together.
#[derive(Clone, Debug)]
pub struct SharedRecovery {
    /// Who can be recovered.
    pub user: UserSummary,
    /// Shares that are needed.
    pub threshold: NonZeroU8,
    /// Who holds how many.
    pub holders: Vec<(UserSummary, NonZeroU8)>,
    /// Since when.
    pub since: Timestamp,
}

impl SharedRecovery {
    /// Shares of those who are not revoked.
    #[must_use]
    pub fn shares_left(&self) -> u8 {
        let left = self.holders.iter().filter(|(holder, _)| holder.revoked.is_none());
        left.map(|(_, shares)| shares.get()).sum()
    }

    /// Whether enough shares are left.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.shares_left() >= self.threshold.get()
    }
}

impl Organization {
    /// The way back of somebody, if there is one and this user is that person or holds a share.
    #[must_use]
    pub fn recovery_of(&self, user: UserId) -> Option<SharedRecovery> {
        let (trust, users) = (self.trust(), self.users());
        let brief = &trust.shamir().setup(user)?.brief;
        let find = |id: UserId| users.iter().find(|user| user.id == id).cloned();
        let holders = brief.per_recipient_shares.iter();
        Some(SharedRecovery {
            user: find(user)?,
            threshold: brief.threshold,
            holders: holders.filter_map(|(holder, shares)| Some((find(*holder)?, *shares))).collect(),
            since: brief.timestamp,
        })
    }

    /// Ways back of others, of which this user holds shares.
    #[must_use]
    pub fn recoveries_held(&self) -> Vec<SharedRecovery> {
        let others = self.users().into_iter().filter(|user| !user.own);
        others.filter_map(|user| self.recovery_of(user.id)).collect()
    }

    /// Whether somebody can hold shares of this user's way back; the refusal names the rule.
    pub fn may_hold_shares(&self, recipient: UserId) -> Result<()> {
        let trust = self.trust();
        self.allowed(trust.may_hold_shares(self.user_id(), recipient, self.recovery_time(&trust)))
    }

    /// Sets up a way back for this user. `Exists` when there is one, `Denied` when somebody cannot hold shares.
    pub async fn set_up_recovery(&self, plan: &SharePlan) -> Result<()> {
        self.poll().await?;
        if self.trust().shamir().setup(self.user_id()).is_some() {
            return Err(exists());
        }
        plan.recipients().keys().try_for_each(|recipient| self.may_hold_shares(*recipient))?;
        let label = DeviceLabel::new("recovery by shares").expect("a few short words are a label");
        let lost = self.create_device(label, DevicePurpose::ShamirRecovery).await?;
        let secret = ShamirRecoverySecret {
            data_key: SecretKey::generate(),
            reveal_token: RevealToken::from_bytes(random_bytes()),
        };
        let sealed: Bytes = lost.seal(&secret.data_key).into();
        // Times of what was sent: the answer to one of them may have been lost.
        let sent = Mutex::new(Vec::new());
        self.append(|trust| {
            if let Some(setup) = trust.shamir().setup(self.user_id()) {
                return if sent.lock().contains(&setup.brief.timestamp) { Ok(None) } else { Err(exists()) };
            }
            let author = self.recovery_author(trust);
            sent.lock().push(author.timestamp);
            self.setup_statement(trust, plan, (&secret, sealed.clone()), &author).map(Some)
        })
        .await
    }

    fn setup_statement(
        &self,
        trust: &Trust,
        plan: &SharePlan,
        sealed: (&ShamirRecoverySecret, Bytes),
        author: &Author<'_>,
    ) -> Result<Statement> {
        for recipient in plan.recipients().keys() {
            self.allowed(trust.may_hold_shares(self.user_id(), *recipient, author.timestamp))?;
        }
        let key_of = |user| trust.user(user).map(|user| user.certificate().public_key);
        statement::set_up_recovery(self.user_id(), plan, sealed, key_of, author)
            .map_err(|error| refused("the key of a recipient".to_owned(), error))
    }

    /// Ends this user's way back: shares that are out there then lead nowhere. `NotFound` when there is none.
    pub async fn delete_recovery(&self) -> Result<()> {
        self.poll().await?;
        let trust = self.trust();
        let setup = trust.shamir().setup(self.user_id());
        let ended =
            setup.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no recovery by shares"))?.brief.timestamp;
        self.append(|trust| {
            let setup = trust.shamir().setup(self.user_id()).filter(|setup| setup.brief.timestamp == ended);
            Ok(setup.map(|setup| statement::delete_recovery(&setup.brief, &self.recovery_author(trust))))
        })
        .await
    }

    /// The shares that this user holds of somebody's way back, opened. `NotFound` when there are none.
    pub fn open_shares(&self, user: UserId) -> Result<WeightedShare> {
        let trust = self.trust();
        let none = || Error::new(ErrorKind::NotFound, format!("this user holds no share of a recovery of user {user}"));
        let setup = trust.shamir().setup(user).ok_or_else(none)?;
        let share = setup.share.as_ref().ok_or_else(none)?;
        let author = trust.device(share.author).expect("trust took the certificate by this device's key");
        let opened = ShamirRecoveryShareData::open(
            &share.ciphered_share,
            &self.device.private_key,
            &author.verify_key,
            share.author,
            share.timestamp,
        );
        let opened = opened.map_err(|error| refused(format!("the share of a recovery of user {user}"), error))?;
        let expected = setup.brief.per_recipient_shares.get(&self.user_id()).map_or(0, |shares| shares.get());
        if opened.weighted_share.shares().len() != usize::from(expected) {
            return Err(Error::new(ErrorKind::Corrupt, format!("the share of a recovery of user {user} is not whole")));
        }
        Ok(opened.weighted_share)
    }

    fn recovery_author(&self, trust: &Trust) -> Author<'_> {
        Author { timestamp: self.recovery_time(trust), ..self.author(trust, None) }
    }

    /// After everything that is known about people and recovery.
    fn recovery_time(&self, trust: &Trust) -> Timestamp {
        let people = self.statement_time(trust, None);
        trust.shamir().last().map_or(people, |last| people.max(last.next()))
    }
}

/// Who is to hold how many shares of how many. `InvalidArgument` says what does not fit.
pub fn plan_shares(threshold: NonZeroU8, recipients: BTreeMap<UserId, NonZeroU8>) -> Result<SharePlan> {
    SharePlan::new(threshold, recipients).map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()))
}

fn exists() -> Error {
    Error::new(ErrorKind::Exists, "there is a recovery by shares already")
}
