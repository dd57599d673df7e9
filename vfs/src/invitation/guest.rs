//! Whoever is let in: becomes a user, or a further device of the same person.

use std::sync::Arc;

use parsecfs_core::{
    certificate::UserProfile,
    id::{DeviceId, RealmId, UserId},
    invite::{CancelReason, InviteDeviceConfirmation, InviteDeviceData, InviteUserConfirmation, InviteUserData},
    local_device::LocalDevice,
    name::{DeviceLabel, HumanHandle},
    storage::{InvitationInfo, Invited, Invitee},
    url::{InvitationLink, ServerAddr},
};
use parsecfs_crypto::{PrivateKey, SecretKey, SigningKey, VerifyKey, sas::SasCode};

use super::{Dialogs, Ended, Turn, broken_dialog, person, undecipherable};
use crate::{
    error::{Error, ErrorKind, Result},
    organization::random_id,
};

/// What the guest's person has to do now.
pub enum GuestTurn {
    /// Read this code to the host, then [`Person::told`](super::Person::told).
    Tell(SasCode),
    /// Find the code that the host reads, then [`Person::choose`](super::Person::choose).
    Choose(Vec<SasCode>),
    /// Nothing; the caller saves this device, then says [`Guest::saved`].
    Save(Box<LocalDevice>),
    /// Nothing: it is in.
    Joined,
    /// Nothing: it ended without success.
    Ended(Ended),
}

/// What the guest wishes to be called.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// Name of the device.
    pub label: DeviceLabel,
    /// The person, for an invitation to become a user.
    pub human_handle: Option<HumanHandle>,
}

/// The guest's side of one invitation.
pub struct Guest {
    link: InvitationLink,
    info: InvitationInfo,
    wishes: Wishes,
    signing_key: SigningKey,
    private_key: PrivateKey,
    dialogs: Dialogs,
    is_introduced: bool,
    device: Option<Box<LocalDevice>>,
}

person!(Guest by dialogs);

impl Guest {
    /// Begins to use an invitation. `InvalidArgument` when the wishes do not fit it, or when it is for a
    /// [`RecoveryGuest`](super::recovery::RecoveryGuest).
    pub fn new(link: InvitationLink, door: &Arc<dyn Invited>, info: InvitationInfo, wishes: Wishes) -> Result<Self> {
        match (&info.invitee, &wishes.human_handle) {
            (Invitee::User { email }, Some(handle)) if handle.email() == email => {}
            (Invitee::User { .. }, _) => {
                return Err(Error::new(ErrorKind::InvalidArgument, "the invitation is for another address"));
            }
            (Invitee::Device, _) => {}
            (Invitee::Recovery { .. }, _) => {
                return Err(Error::new(ErrorKind::InvalidArgument, "the invitation is for a recovery"));
            }
        }
        let dialogs = dialogs(door, &info)?;
        Ok(Self {
            link,
            info,
            wishes,
            signing_key: SigningKey::generate(),
            private_key: PrivateKey::generate(),
            dialogs,
            is_introduced: false,
            device: None,
        })
    }

    /// Whether a host got this guest's keys, and may have made certificates for them.
    #[must_use]
    pub fn is_introduced(&self) -> bool {
        self.is_introduced
    }

    /// After it ended: the same guest, with the same keys, as the invitation is now. A host that let it in before
    /// recognizes it.
    pub fn again(&mut self, door: &Arc<dyn Invited>, info: InvitationInfo) -> Result<()> {
        self.dialogs = dialogs(door, &info)?;
        self.info = info;
        Ok(())
    }

    /// Whether this attempt ended without success.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.dialogs.is_over()
    }

    /// The link that it came by.
    #[must_use]
    pub fn link(&self) -> &InvitationLink {
        &self.link
    }

    /// The device that this guest became.
    #[must_use]
    pub fn device(&self) -> Option<&LocalDevice> {
        self.device.as_deref()
    }

    /// The device is saved.
    pub fn saved(&mut self) {
        if let (Ok(dialog), Some(_)) = (self.dialogs.one(), &self.device) {
            dialog.accepted();
        }
    }

    /// Goes on until the person, or the caller, has something to do. After an error the next call tries again.
    pub async fn advance(&mut self) -> Result<GuestTurn> {
        self.dialogs.meet_one().await?;
        loop {
            match self.dialogs.one()?.advance().await? {
                Turn::Tell(code) => return Ok(GuestTurn::Tell(code)),
                Turn::Choose(codes) => return Ok(GuestTurn::Choose(codes)),
                Turn::Ended(ended) => return Ok(GuestTurn::Ended(ended)),
                Turn::Done => return Ok(GuestTurn::Joined),
                Turn::HandOver => self.introduce()?,
                Turn::Accept => match self.become_device() {
                    Ok(device) => return Ok(GuestTurn::Save(device)),
                    Err(reason) => self.dialogs.one()?.end(reason),
                },
            }
        }
    }

    fn introduce(&mut self) -> Result<()> {
        let dialog = self.dialogs.one()?;
        let key = dialog.exchange.shared_key().ok_or_else(broken_dialog)?;
        let Wishes { label, human_handle } = self.wishes.clone();
        let verify_key = self.signing_key.verify_key();
        let sealed = match human_handle {
            Some(requested_human_handle) => InviteUserData {
                requested_device_label: label,
                requested_human_handle,
                public_key: self.private_key.public_key(),
                verify_key,
            }
            .seal(key),
            None => InviteDeviceData { requested_device_label: label, verify_key }.seal(key),
        };
        dialog.hand_over(sealed);
        self.is_introduced = true;
        Ok(())
    }

    /// The device that the host made this guest. The same one again if it was not saved yet.
    fn become_device(&mut self) -> std::result::Result<Box<LocalDevice>, CancelReason> {
        if let Some(device) = &self.device {
            return Ok(device.clone());
        }
        let exchange = &self.dialogs.one().map_err(|_| CancelReason::Manually)?.exchange;
        let key = exchange.shared_key().ok_or(CancelReason::Manually)?;
        let received = exchange.received().ok_or(CancelReason::Manually)?;
        let identity = match &self.info.invitee {
            Invitee::User { .. } => {
                let said = InviteUserConfirmation::open(received, key).map_err(|error| undecipherable(&error))?;
                Identity::of_user(said, self.private_key.clone())
            }
            _ => {
                let said = InviteDeviceConfirmation::open(received, key).map_err(|error| undecipherable(&error))?;
                Identity::of_device(said)
            }
        };
        let has_logs = ServerAddr::from_http(&self.link.storage).is_err();
        if has_logs && identity.organization_key.is_none() {
            return Err(CancelReason::InconsistentPayload);
        }
        let device = Box::new(LocalDevice {
            server_url: self.link.storage.clone(),
            organization_id: self.info.organization.clone(),
            root_verify_key: identity.root_verify_key,
            user_id: identity.user,
            device_id: identity.device,
            device_label: identity.label,
            human_handle: identity.human_handle,
            signing_key: self.signing_key.clone(),
            private_key: identity.private_key,
            initial_profile: identity.profile,
            user_realm_id: identity.user_realm.0,
            user_realm_key: identity.user_realm.1,
            local_symkey: SecretKey::generate(),
            organization_key: identity.organization_key.filter(|_| has_logs),
        });
        self.device = Some(device.clone());
        Ok(device)
    }
}

/// With each who may greet.
fn dialogs(door: &Arc<dyn Invited>, info: &InvitationInfo) -> Result<Dialogs> {
    if info.greeters.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "nobody is left who may greet this invitation"));
    }
    Ok(Dialogs::with(door, info.greeters.iter().map(|greeter| greeter.user)))
}

/// What the host says that this guest is.
struct Identity {
    user: UserId,
    device: DeviceId,
    label: DeviceLabel,
    human_handle: HumanHandle,
    profile: UserProfile,
    private_key: PrivateKey,
    user_realm: (RealmId, SecretKey),
    root_verify_key: VerifyKey,
    organization_key: Option<SecretKey>,
}

impl Identity {
    fn of_user(said: InviteUserConfirmation, private_key: PrivateKey) -> Self {
        Self {
            user: said.user_id,
            device: said.device_id,
            label: said.device_label,
            human_handle: said.human_handle,
            profile: said.profile,
            private_key,
            user_realm: (RealmId::from_bytes(random_id()), SecretKey::generate()),
            root_verify_key: said.root_verify_key,
            organization_key: said.organization_key,
        }
    }

    fn of_device(said: InviteDeviceConfirmation) -> Self {
        Self {
            user: said.user_id,
            device: said.device_id,
            label: said.device_label,
            human_handle: said.human_handle,
            profile: said.profile,
            private_key: said.private_key,
            user_realm: (said.user_realm_id, said.user_realm_key),
            root_verify_key: said.root_verify_key,
            organization_key: said.organization_key,
        }
    }
}
