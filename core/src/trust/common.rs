//! Users and devices (formats.md 3.3).

use std::sync::Arc;

use super::{Trust, UserTrust, refuse, require, require_after};
use crate::{
    certificate::{
        Certificate, DeviceCertificate, RevokedUserCertificate, UserCertificate, UserProfile, UserUpdateCertificate,
    },
    document::malformed,
    error::Result,
    id::UserId,
    storage::Bytes,
};

impl Trust {
    pub(super) fn apply_common(&mut self, batch: &[Bytes]) -> Result<()> {
        let mut awaited = None;
        for signed in batch {
            let (certificate, author) = self.open(signed)?;
            let author = author.cloned();
            let timestamp = certificate.timestamp();
            match (awaited.take(), certificate) {
                (Some(user), Certificate::Device(device)) => self.first_device(&user, device)?,
                (Some(_), _) => return Err(refuse("user is not followed by a first device")),
                (None, certificate) => {
                    require_after(timestamp, self.last_common)?;
                    match (certificate, author) {
                        (Certificate::User(user), author) => awaited = Some(self.new_user(user, author)?),
                        (Certificate::Device(device), Some(author)) => self.further_device(device, &author)?,
                        (Certificate::UserUpdate(update), Some(author)) => self.update_user(&update, &author)?,
                        (Certificate::RevokedUser(revoked), Some(author)) => self.revoke_user(&revoked, &author)?,
                        _ => return Err(malformed("certificate does not belong to the common topic")),
                    }
                }
            }
            self.last_common = Some(timestamp);
        }
        require(awaited.is_none(), "user is not followed by a first device")
    }

    fn new_user(&mut self, user: UserCertificate, author: Option<DeviceCertificate>) -> Result<UserCertificate> {
        match author {
            Some(author) => {
                self.may_administrate(author.user_id, user.timestamp)?;
                require(!self.users.contains_key(&user.user_id), "user exists already")?;
            }
            None => {
                require(self.users.is_empty(), "the root key signs the first user only")?;
                require(user.profile == UserProfile::Admin, "the first user is not an admin")?;
                let authority = self.sequester.authority().map(|authority| authority.timestamp);
                require(authority.is_none_or(|at| at == user.timestamp), "authority and first user differ in time")?;
            }
        }
        let trust = UserTrust { certificate: user.clone(), profiles: Vec::new(), revoked: None };
        self.users.insert(user.user_id, Arc::new(trust));
        Ok(user)
    }

    /// The device that comes with a user: same author, same time, which were checked with the user.
    fn first_device(&mut self, user: &UserCertificate, device: DeviceCertificate) -> Result<()> {
        require(device.user_id == user.user_id, "first device of another user")?;
        require(device.author == user.author, "first device by another author than its user")?;
        require(device.timestamp == user.timestamp, "first device of another time than its user")?;
        self.add_device(device)
    }

    fn further_device(&mut self, device: DeviceCertificate, author: &DeviceCertificate) -> Result<()> {
        require(author.user_id == device.user_id, "device added by another user")?;
        self.require_not_revoked(author, device.timestamp)?;
        self.add_device(device)
    }

    fn add_device(&mut self, device: DeviceCertificate) -> Result<()> {
        require(!self.devices.contains_key(&device.device_id), "device exists already")?;
        self.devices.insert(device.device_id, Arc::new(device));
        Ok(())
    }

    fn update_user(&mut self, update: &UserUpdateCertificate, author: &DeviceCertificate) -> Result<()> {
        self.may_change_profile(author.user_id, update.user_id, update.new_profile, update.timestamp)?;
        self.user_mut(update.user_id)?.profiles.push((update.timestamp, update.new_profile));
        Ok(())
    }

    fn revoke_user(&mut self, revoked: &RevokedUserCertificate, author: &DeviceCertificate) -> Result<()> {
        self.may_revoke(author.user_id, revoked.user_id, revoked.timestamp)?;
        self.user_mut(revoked.user_id)?.revoked = Some(revoked.timestamp);
        Ok(())
    }

    fn user_mut(&mut self, id: UserId) -> Result<&mut UserTrust> {
        Ok(Arc::make_mut(self.users.get_mut(&id).ok_or(refuse("user is not known"))?))
    }
}
