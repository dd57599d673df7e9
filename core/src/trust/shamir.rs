//! Recovery by shares (formats.md 3.6).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Trust, refuse, require, require_after};
use crate::{
    certificate::{
        Certificate, DeviceCertificate, ShamirRecoveryBriefCertificate, ShamirRecoveryDeletionCertificate,
        ShamirRecoveryShareCertificate,
    },
    document::malformed,
    error::Result,
    id::UserId,
    storage::Bytes,
    time::Timestamp,
};

/// A way to recover a user, known to that user and to those who hold shares.
#[derive(Clone, Debug)]
pub struct ShamirSetup {
    /// The way.
    pub brief: ShamirRecoveryBriefCertificate,
    /// The reader's own shares, if any.
    pub share: Option<ShamirRecoveryShareCertificate>,
}

/// What is known of recovery by shares.
#[derive(Clone, Debug, Default)]
pub struct ShamirTrust {
    setups: BTreeMap<UserId, ShamirSetup>,
    last: Option<Timestamp>,
}

impl ShamirTrust {
    /// The setup that holds for a user.
    #[must_use]
    pub fn setup(&self, user: UserId) -> Option<&ShamirSetup> {
        self.setups.get(&user)
    }

    /// Time of the last certificate.
    #[must_use]
    pub fn last(&self) -> Option<Timestamp> {
        self.last
    }
}

impl Trust {
    /// The trust after a setup with the shares of all recipients, if its author and every recipient will accept what they
    /// are shown of it. For whoever keeps certificates for all readers.
    pub fn apply_recovery(&self, brief: &Bytes, shares: &[Bytes]) -> Result<Self> {
        let Certificate::ShamirRecoveryBrief(setup) = Certificate::read_without_trust(brief)? else {
            return Err(malformed("not a brief of a recovery by shares"));
        };
        require(shares.len() == setup.per_recipient_shares.len(), "a share for each recipient is needed")?;
        for recipient in setup.per_recipient_shares.keys() {
            self.may_hold_shares(setup.user_id, *recipient, setup.timestamp)?;
        }
        let mut holders = BTreeSet::new();
        for share in shares {
            let Certificate::ShamirRecoveryShare(claimed) = Certificate::read_without_trust(share)? else {
                return Err(malformed("not a share of a recovery"));
            };
            require(holders.insert(claimed.recipient), "two shares for one recipient")?;
            let mut shown = Self { reader: claimed.recipient, ..self.clone() };
            shown.apply_shamir(&[brief.clone(), share.clone()])?;
        }
        let mut after = Self { reader: setup.user_id, ..self.clone() };
        after.apply_shamir(std::slice::from_ref(brief))?;
        Ok(Self { reader: self.reader, ..after })
    }

    pub(super) fn apply_shamir(&mut self, batch: &[Bytes]) -> Result<()> {
        let mut awaited = None;
        for signed in batch {
            let (certificate, author) = self.open_by_device(signed)?;
            let timestamp = certificate.timestamp();
            self.require_not_revoked(&author, timestamp)?;
            match (awaited.take(), certificate) {
                (Some(brief), Certificate::ShamirRecoveryShare(share)) => self.add_share(&brief, share)?,
                (Some(_), _) => return Err(refuse("brief is not followed by the reader's share")),
                (None, certificate) => {
                    require_after(timestamp, self.shamir.last)?;
                    match certificate {
                        Certificate::ShamirRecoveryBrief(brief) => awaited = self.add_setup(brief, &author)?,
                        Certificate::ShamirRecoveryDeletion(deletion) => self.delete_setup(&deletion, &author)?,
                        Certificate::ShamirRecoveryShare(_) => return Err(refuse("share does not follow its brief")),
                        _ => return Err(malformed("certificate does not belong to the shamir topic")),
                    }
                }
            }
            Arc::make_mut(&mut self.shamir).last = Some(timestamp);
        }
        require(awaited.is_none(), "brief is not followed by the reader's share")
    }

    /// Adds a setup; returns it when the reader's share must follow.
    fn add_setup(
        &mut self,
        brief: ShamirRecoveryBriefCertificate,
        author: &DeviceCertificate,
    ) -> Result<Option<ShamirRecoveryBriefCertificate>> {
        require(brief.user_id == author.user_id, "setup about another user than its author")?;
        let holds_share = brief.per_recipient_shares.contains_key(&self.reader);
        require(holds_share || brief.user_id == self.reader, "setup is not for this reader")?;
        require(self.shamir.setup(brief.user_id).is_none(), "user has a setup already")?;
        for recipient in brief.per_recipient_shares.keys() {
            require(*recipient != brief.user_id, "user holds own shares")?;
            let user = self.user(*recipient).ok_or(refuse("recipient is not known"))?;
            // Not whether the recipient is revoked: a server takes a revocation that is signed earlier than a setup that it
            // has, by a clock that is late, and nobody new could then take in the two together. No such setup is harder to
            // get around than one whose recipient is revoked later.
            require(user.existed_at(brief.timestamp), "recipient did not exist yet")?;
        }
        let setup = ShamirSetup { brief: brief.clone(), share: None };
        Arc::make_mut(&mut self.shamir).setups.insert(brief.user_id, setup);
        Ok(holds_share.then_some(brief))
    }

    fn add_share(
        &mut self,
        brief: &ShamirRecoveryBriefCertificate,
        share: ShamirRecoveryShareCertificate,
    ) -> Result<()> {
        require(share.recipient == self.reader, "share of another recipient")?;
        require(share.user_id == brief.user_id, "share about another user than its brief")?;
        require(share.author == brief.author, "share by another author than its brief")?;
        require(share.timestamp == brief.timestamp, "share of another time than its brief")?;
        let setups = &mut Arc::make_mut(&mut self.shamir).setups;
        let setup = setups.get_mut(&share.user_id).ok_or(refuse("share does not follow its brief"))?;
        setup.share = Some(share);
        Ok(())
    }

    fn delete_setup(&mut self, deletion: &ShamirRecoveryDeletionCertificate, author: &DeviceCertificate) -> Result<()> {
        let user = deletion.setup_to_delete_user_id;
        require(user == author.user_id, "deletion of another user's setup")?;
        let setup = self.shamir.setup(user).ok_or(refuse("setup is not known"))?;
        require(setup.brief.timestamp == deletion.setup_to_delete_timestamp, "deletion of another setup")?;
        let recipients: BTreeSet<_> = setup.brief.per_recipient_shares.keys().copied().collect();
        require(recipients == deletion.share_recipients, "deletion names other recipients")?;
        Arc::make_mut(&mut self.shamir).setups.remove(&user);
        Ok(())
    }
}
