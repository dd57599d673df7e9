//! Whoever lost every device collects shares, one recipient after the other, until they make a device again.
//!
//! How a secret travels: each recipient gives shares over an exchange of its own, after codes were compared; enough of
//! them make a token and a key; for the token the storage hands out a sealed device; the key opens it. With that device
//! the caller makes a new one, and forgets it.
//!
//! What could go wrong: a recipient is not there, or gives up, or codes do not fit: what others gave is kept in memory and
//! the next one is asked, or the same one again. A recipient gives a wrong share: more of them find out who. The recovery
//! was deleted: the storage hands nothing out. This process ends: shares that were given are gone with it, and are asked
//! for again.

use std::{num::NonZeroU8, sync::Arc};

use parsecfs_core::{
    certificate::DevicePurpose,
    id::UserId,
    invite::{CancelReason, InviteShamirRecoveryConfirmation, InviteShamirRecoveryData},
    local_device::LocalDevice,
    name::DeviceLabel,
    shamir::{ShamirRecoverySecret, ShareCollection},
    storage::{self, Greeter, InvitationInfo, Invited, Invitee},
    url::{InvitationLink, ServerAddr},
};
use parsecfs_crypto::sas::SasCode;

use super::{Dialogs, Ended, Turn, broken_dialog, person, undecipherable};
use crate::{
    error::{Error, ErrorKind, Result},
    organization::{Organization, refused},
};

/// What the person has to do now.
pub enum RecoveryTurn {
    /// Read this code to the recipient, then [`Person::told`](super::Person::told).
    Tell(SasCode),
    /// Find the code that the recipient reads, then [`Person::choose`](super::Person::choose).
    Choose(Vec<SasCode>),
    /// Nothing: this recipient gave shares, and so many more are needed.
    Given {
        /// Who.
        by: Greeter,
        /// How many.
        missing: u8,
    },
    /// Nothing: what this recipient gave is not of this recovery, which the others' shares showed.
    Misled(Greeter),
    /// Nothing: the caller makes a device with this one, by [`Organization::return_by_shares`].
    Recovered(Box<LocalDevice>),
    /// Nothing: this exchange ended without success. What others gave is kept, and the next call begins another one.
    Ended(Ended),
}

/// The side of whoever lost every device.
pub struct RecoveryGuest {
    link: InvitationLink,
    door: Arc<dyn Invited>,
    info: InvitationInfo,
    user: UserId,
    collection: ShareCollection,
    /// With recipients who may still give; none while nobody is asked.
    dialogs: Dialogs,
    /// Whoever gave wrong shares, once the person knows.
    misled_by: Option<UserId>,
}

person!(RecoveryGuest by dialogs);

impl RecoveryGuest {
    /// Begins to use an invitation. `InvalidArgument` when it is of another kind, `Corrupt` when it makes no sense.
    pub fn new(link: InvitationLink, door: Arc<dyn Invited>, info: InvitationInfo) -> Result<Self> {
        let Invitee::Recovery { user } = info.invitee else {
            return Err(Error::new(ErrorKind::InvalidArgument, "the invitation is for no recovery"));
        };
        let threshold = NonZeroU8::new(info.threshold);
        let threshold = threshold.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the invitation makes no sense"))?;
        let holders = info.greeters.iter().filter_map(|greeter| Some((greeter.user, NonZeroU8::new(greeter.shares)?)));
        let collection = ShareCollection::new(threshold, holders.collect());
        Ok(Self { link, door, info, user, collection, dialogs: Dialogs::default(), misled_by: None })
    }

    /// Recipients who gave already.
    pub fn givers(&self) -> impl Iterator<Item = &Greeter> {
        self.info.greeters.iter().filter(|greeter| self.collection.has(greeter.user))
    }

    /// Recipients who may still give.
    pub fn others(&self) -> impl Iterator<Item = &Greeter> {
        self.info.greeters.iter().filter(|greeter| greeter.shares > 0 && !self.collection.has(greeter.user))
    }

    /// Shares that are still needed: at least one while those that are there make no secret.
    #[must_use]
    pub fn missing(&self) -> u8 {
        match self.collection.missing() {
            0 => u8::from(self.collection.recover().is_err()),
            missing => missing,
        }
    }

    /// Goes on until the person, or the caller, has something to do. After an error the next call tries again.
    pub async fn advance(&mut self) -> Result<RecoveryTurn> {
        if self.collection.missing() == 0
            && let Ok(recovered) = self.collection.recover()
        {
            if let Some(giver) = recovered.misled_by.filter(|giver| self.misled_by != Some(*giver)) {
                self.misled_by = Some(giver);
                return Ok(RecoveryTurn::Misled(self.greeter(giver)?));
            }
            return self.reveal(&recovered.secret).await;
        }
        if self.dialogs.0.is_empty() {
            self.dialogs = Dialogs::with(&self.door, self.others().map(|other| other.user));
        }
        if self.dialogs.0.is_empty() {
            let why = match self.collection.missing() {
                0 => "everybody gave and the shares do not fit each other: somebody gave a wrong one",
                _ => "nobody is left who could give more shares",
            };
            return Err(Error::new(ErrorKind::NotFound, why));
        }
        self.dialogs.meet_one().await?;
        loop {
            let dialog = self.dialogs.one()?;
            match dialog.advance().await? {
                Turn::Tell(code) => return Ok(RecoveryTurn::Tell(code)),
                Turn::Choose(codes) => return Ok(RecoveryTurn::Choose(codes)),
                Turn::HandOver => {
                    let key = dialog.exchange.shared_key().ok_or_else(broken_dialog)?;
                    let asked = InviteShamirRecoveryData.seal(key);
                    dialog.hand_over(asked);
                }
                Turn::Accept => self.take()?,
                Turn::Done => {
                    let giver = dialog.greeter().ok_or_else(broken_dialog)?;
                    self.dialogs = Dialogs::default();
                    return Ok(RecoveryTurn::Given { by: self.greeter(giver)?, missing: self.missing() });
                }
                Turn::Ended(ended) => {
                    self.dialogs = Dialogs::default();
                    return Ok(RecoveryTurn::Ended(ended));
                }
            }
        }
    }

    fn greeter(&self, user: UserId) -> Result<Greeter> {
        self.info.greeters.iter().find(|greeter| greeter.user == user).cloned().ok_or_else(broken_dialog)
    }

    /// Takes the shares that the recipient handed over; what cannot be that person's ends the exchange.
    fn take(&mut self) -> Result<()> {
        let dialog = self.dialogs.one()?;
        let giver = dialog.greeter().ok_or_else(broken_dialog)?;
        let key = dialog.exchange.shared_key().ok_or_else(broken_dialog)?;
        let received = dialog.exchange.received().ok_or_else(broken_dialog)?;
        match InviteShamirRecoveryConfirmation::open(received, key) {
            Ok(given) => match self.collection.add(giver, given.weighted_share) {
                Ok(()) => dialog.accepted(),
                Err(_) => dialog.end(CancelReason::InconsistentPayload),
            },
            Err(error) => dialog.end(undecipherable(&error)),
        }
        Ok(())
    }

    /// Has the storage hand out the sealed device, and opens it.
    async fn reveal(&self, secret: &ShamirRecoverySecret) -> Result<RecoveryTurn> {
        // A server (3.9.3) hands out what was deleted all the same.
        self.door.info().await?;
        let sealed = self.door.reveal(secret.reveal_token).await.map_err(|error| match error.kind() {
            storage::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, "the recovery was deleted: these shares lead nowhere").caused_by(error)
            }
            _ => error.into(),
        })?;
        let device = LocalDevice::open(&sealed, &secret.data_key)
            .map_err(|error| refused("the device of the recovery".to_owned(), error))?;
        let has_logs = ServerAddr::from_http(&self.link.storage).is_err();
        if device.organization_id != self.info.organization
            || device.user_id != self.user
            || (has_logs && device.organization_key.is_none())
        {
            return Err(Error::new(ErrorKind::Untrusted, "the shares are of another recovery than the invitation"));
        }
        // The storage may have moved since; the link tells where it is now.
        let device = LocalDevice { server_url: self.link.storage.clone(), ..device };
        Ok(RecoveryTurn::Recovered(Box::new(device)))
    }
}

impl Organization {
    /// Makes a new device with this one, which shares made. `Denied` when the recovery does not hold any more.
    pub async fn return_by_shares(&self, label: DeviceLabel) -> Result<LocalDevice> {
        self.poll().await?;
        if self.recovery_of(self.user_id()).is_none() {
            return Err(Error::new(ErrorKind::Denied, "this recovery was deleted"));
        }
        self.create_device(label, DevicePurpose::Standard).await
    }
}
