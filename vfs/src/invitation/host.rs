//! The member who lets somebody in: a new user, or a further device of the same person.

use std::sync::Arc;

use parsecfs_core::{
    certificate::{DeviceCertificate, DevicePurpose, UserProfile},
    id::{DeviceId, InvitationToken, UserId},
    invite::{
        CancelReason, InviteDeviceConfirmation, InviteDeviceData, InviteShamirRecoveryConfirmation,
        InviteShamirRecoveryData, InviteUserConfirmation, InviteUserData,
    },
    name::{DeviceLabel, Email, HumanHandle},
    statement::{NewDevice, NewUser},
    storage::{Invitation, InvitationStatus, Invitee, Notice},
    trust::UserTrust,
    url::{InvitationLink, LinkKind, ServerAddr},
};
use parsecfs_crypto::{PublicKey, SecretKey, VerifyKey, sas::SasCode};

use super::{Dialog, Ended, Line, Turn, broken_dialog, person, undecipherable};
use crate::{
    error::{Error, ErrorKind, Result},
    organization::{Organization, random_id},
};

/// Who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcomed {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Name of the device.
    pub label: DeviceLabel,
    /// The person.
    pub human_handle: HumanHandle,
}

/// What the host's person has to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostTurn {
    /// Read this code to the guest, then [`Person::told`](super::Person::told).
    Tell(SasCode),
    /// Find the code that the guest reads, then [`Person::choose`](super::Person::choose).
    Choose(Vec<SasCode>),
    /// Nothing: the guest is in.
    Welcomed(Welcomed),
    /// Nothing: this user, who lost every device, has the shares that one held.
    ShareGiven(UserId),
    /// Nothing: it ended without success.
    Ended(Ended),
}

/// The host's side of one greeting.
pub struct Host {
    organization: Arc<Organization>,
    invitation: Invitation,
    profile: UserProfile,
    dialog: Dialog,
    /// Ids of the newcomer, chosen once, so that a repeat makes nobody twice.
    ids: (UserId, DeviceId),
    welcomed: Option<Welcomed>,
}

impl Organization {
    /// Invites somebody to become a user, or a further device of this user. With `write`, the storage tells the guest if
    /// it can.
    pub async fn invite(&self, invitee: &Invitee, write: bool) -> Result<(InvitationLink, Notice)> {
        match invitee {
            Invitee::User { email } => {
                self.may_add_users().await?;
                self.require_free(email)?;
            }
            Invitee::Device => {}
            Invitee::Recovery { user } => self.require_shares(*user).await?,
        }
        let (token, notice) = self.storage().invite(invitee, write).await?;
        let kind = match invitee {
            Invitee::User { .. } => LinkKind::User,
            Invitee::Device => LinkKind::Device,
            Invitee::Recovery { .. } => LinkKind::Recovery,
        };
        Ok((self.link(kind, token), notice))
    }

    /// The link of an invitation to this organization.
    #[must_use]
    pub fn link(&self, kind: LinkKind, token: InvitationToken) -> InvitationLink {
        let storage = self.device().server_url.clone();
        let organization = ServerAddr::from_http(&storage).is_ok().then(|| self.organization_id().clone());
        InvitationLink { storage, organization, kind, token }
    }

    async fn may_add_users(&self) -> Result<()> {
        self.poll().await?;
        self.allowed(self.trust().may_administrate(self.user_id(), self.clock().now()))
    }

    /// Whoever holds no shares has nothing to give; whoever is revoked cannot come back.
    async fn require_shares(&self, user: UserId) -> Result<()> {
        self.poll().await?;
        if self.trust().user(user).is_some_and(|user| user.revoked().is_some()) {
            return Err(Error::new(ErrorKind::Denied, "this user is revoked and cannot be recovered"));
        }
        self.open_shares(user).map(drop)
    }

    /// `Exists` when somebody who is not revoked has this address.
    pub(crate) fn require_free(&self, email: &Email) -> Result<()> {
        match self.holder(email) {
            Some(_) => Err(Error::new(ErrorKind::Exists, "somebody with this address is in the organization already")),
            None => Ok(()),
        }
    }

    /// Who has this address and is not revoked.
    fn holder(&self, email: &Email) -> Option<UserId> {
        let has_it = |handle: &HumanHandle| handle.email().as_str().eq_ignore_ascii_case(email.as_str());
        let mut users = self.users().into_iter().filter(|user| user.revoked.is_none());
        users.find(|user| user.human_handle.as_ref().is_some_and(has_it)).map(|user| user.id)
    }

    /// Begins to let somebody in; `profile` is what a new user may do. `NotFound` tells, in words, whether the invitation
    /// was used, taken back, or never was.
    pub async fn greet(self: Arc<Self>, token: InvitationToken, profile: UserProfile) -> Result<Host> {
        let invitations = self.storage().invitations().await?;
        let unknown = || Error::new(ErrorKind::NotFound, "there is no such invitation that you may greet");
        let invitation = invitations.into_iter().find(|known| known.token == token).ok_or_else(unknown)?;
        match invitation.status {
            InvitationStatus::Pending => {}
            InvitationStatus::Finished => {
                return Err(Error::new(ErrorKind::NotFound, "the invitation was used already"));
            }
            InvitationStatus::Cancelled => return Err(Error::new(ErrorKind::NotFound, "the invitation was cancelled")),
        }
        if let Invitee::User { .. } = &invitation.invitee {
            // The address may be taken by this very guest: see `Host::made_before`.
            self.may_add_users().await?;
        }
        let user = match invitation.invitee {
            Invitee::User { .. } => UserId::from_bytes(random_id()),
            Invitee::Device => self.user_id(),
            Invitee::Recovery { user } => {
                self.require_shares(user).await?;
                user
            }
        };
        let dialog = Dialog::new(Line::Host { storage: Arc::clone(self.storage()), token });
        let ids = (user, DeviceId::from_bytes(random_id()));
        Ok(Host { organization: self, invitation, profile, dialog, ids, welcomed: None })
    }
}

person!(Host by dialog);

impl Host {
    /// What the guest may do, if it is a new user that is not made yet.
    pub fn set_profile(&mut self, profile: UserProfile) {
        self.profile = profile;
    }

    /// Goes on until the person has something to do. After an error the next call tries again.
    pub async fn advance(&mut self) -> Result<HostTurn> {
        loop {
            match self.dialog.advance().await? {
                Turn::Tell(code) => return Ok(HostTurn::Tell(code)),
                Turn::Choose(codes) => return Ok(HostTurn::Choose(codes)),
                Turn::Ended(ended) => return Ok(HostTurn::Ended(ended)),
                Turn::HandOver => self.welcome().await?,
                Turn::Accept => self.dialog.accepted(),
                // The guest says itself that it is back; others may still have to give shares.
                Turn::Done if self.is_share() => return Ok(HostTurn::ShareGiven(self.ids.0)),
                Turn::Done => {
                    self.organization.storage().complete_invitation(self.invitation.token).await?;
                    return self.welcomed.clone().map(HostTurn::Welcomed).ok_or_else(broken_dialog);
                }
            }
        }
    }

    /// The ids of a guest with these keys: those that it has, when a host let it in before and its process ended before
    /// the guest heard of it; else new ones. A user is the same only with both keys.
    async fn ids_of(&self, verify_key: VerifyKey, public_key: Option<PublicKey>) -> Result<(UserId, DeviceId)> {
        self.organization.poll().await?;
        let trust = self.organization.trust();
        let user = match &self.invitation.invitee {
            Invitee::User { email } => self.organization.holder(email),
            _ => Some(self.ids.0),
        };
        let user = user.and_then(|user| trust.user(user)).map(UserTrust::certificate);
        let user = user.filter(|user| public_key.is_none_or(|key| key == user.public_key)).map(|user| user.user_id);
        let is_same = |device: &&DeviceCertificate| Some(device.user_id) == user && device.verify_key == verify_key;
        Ok(trust.devices().find(is_same).map_or(self.ids, |device| (device.user_id, device.device_id)))
    }

    /// Makes the guest what it was invited to be, and hands over what it needs to know.
    async fn welcome(&mut self) -> Result<()> {
        let key = self.dialog.exchange.shared_key().ok_or_else(broken_dialog)?;
        let received = self.dialog.exchange.received().ok_or_else(broken_dialog)?;
        let made = match &self.invitation.invitee {
            Invitee::User { email } => match InviteUserData::open(received, key) {
                Ok(data) if data.requested_human_handle.email() == email => self.new_user(data, key).await,
                Ok(_) => Err(Refused::Guest(CancelReason::InconsistentPayload)),
                Err(error) => Err(Refused::Guest(undecipherable(&error))),
            },
            Invitee::Device => match InviteDeviceData::open(received, key) {
                Ok(data) => self.new_device(data, key).await,
                Err(error) => Err(Refused::Guest(undecipherable(&error))),
            },
            Invitee::Recovery { user } => return self.give_shares(*user),
        };
        match made {
            Ok((welcomed, sealed)) => {
                self.welcomed = Some(welcomed);
                self.dialog.hand_over(sealed);
                Ok(())
            }
            Err(Refused::Guest(reason)) => {
                self.dialog.end(reason);
                Ok(())
            }
            Err(Refused::Host(error)) => {
                // What may pass is tried again with the next call; the guest waits so long.
                if !matches!(error.kind(), ErrorKind::Offline | ErrorKind::Busy | ErrorKind::Stale) {
                    self.dialog.end(CancelReason::Manually);
                    self.dialog.tell_the_other(CancelReason::Manually).await;
                }
                Err(error)
            }
        }
    }

    fn is_share(&self) -> bool {
        matches!(self.invitation.invitee, Invitee::Recovery { .. })
    }

    /// Hands over what this user holds.
    fn give_shares(&mut self, user: UserId) -> Result<()> {
        let key = self.dialog.exchange.shared_key().ok_or_else(broken_dialog)?;
        let received = self.dialog.exchange.received().ok_or_else(broken_dialog)?;
        match InviteShamirRecoveryData::open(received, key) {
            Ok(InviteShamirRecoveryData) => {
                let weighted_share = self.organization.open_shares(user)?;
                let sealed = InviteShamirRecoveryConfirmation { weighted_share }.seal(key);
                self.dialog.hand_over(sealed);
            }
            Err(error) => self.dialog.end(undecipherable(&error)),
        }
        Ok(())
    }

    async fn new_user(&self, data: InviteUserData, key: &SecretKey) -> Made {
        let (user, device) = self.ids_of(data.verify_key, Some(data.public_key)).await?;
        let InviteUserData { requested_device_label: label, requested_human_handle: human_handle, .. } = data;
        let new = NewUser {
            human_handle: human_handle.clone(),
            public_key: data.public_key,
            profile: self.profile,
            device: NewDevice {
                id: device,
                user,
                label: label.clone(),
                verify_key: data.verify_key,
                purpose: DevicePurpose::Standard,
            },
        };
        self.organization.add_user(&new).await?;
        let own = self.organization.device();
        let profile = self.organization.trust().user(user).map_or(self.profile, UserTrust::profile);
        let confirmation = InviteUserConfirmation {
            user_id: user,
            device_id: device,
            device_label: label.clone(),
            human_handle: human_handle.clone(),
            profile,
            root_verify_key: own.root_verify_key,
            organization_key: own.organization_key.clone(),
        };
        Ok((Welcomed { user, device, label, human_handle }, confirmation.seal(key)))
    }

    async fn new_device(&self, data: InviteDeviceData, key: &SecretKey) -> Made {
        let (user, device) = self.ids_of(data.verify_key, None).await?;
        let label = data.requested_device_label;
        let new = NewDevice {
            id: device,
            user,
            label: label.clone(),
            verify_key: data.verify_key,
            purpose: DevicePurpose::Standard,
        };
        self.organization.add_device(&new).await?;
        let own = self.organization.device();
        let confirmation = InviteDeviceConfirmation {
            user_id: user,
            device_id: device,
            device_label: label.clone(),
            human_handle: own.human_handle.clone(),
            profile: own.initial_profile,
            private_key: own.private_key.clone(),
            user_realm_id: own.user_realm_id,
            user_realm_key: own.user_realm_key.clone(),
            root_verify_key: own.root_verify_key,
            organization_key: own.organization_key.clone(),
        };
        Ok((Welcomed { user, device, label, human_handle: own.human_handle.clone() }, confirmation.seal(key)))
    }
}

type Made = std::result::Result<(Welcomed, Vec<u8>), Refused>;

/// Why nobody was let in.
enum Refused {
    /// The guest said something that does not do.
    Guest(CancelReason),
    /// It could not be done here.
    Host(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Host(error)
    }
}
