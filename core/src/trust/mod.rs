//! Who may do what, as of when: what follows from the organization's certificates (formats.md 3.2 to 3.6).
//!
//! A [`Trust`] is a value. [`Trust::apply`] checks a whole batch and returns the trust after it, or refuses all of it
//! and changes nothing. Copies share what did not change, so that one can be kept behind an `Arc` and replaced.
//!
//! Stricter than official clients, where an honest server never stores such certificates: the first user is an admin,
//! every user is followed by a first device, a role is not given by a revoked user, key indexes
//! count up without gaps, and a name is sealed with a key that exists.

mod common;
mod realm;
mod rules;
mod sequester;
mod shamir;

use std::{collections::BTreeMap, sync::Arc};

use parsecfs_crypto::VerifyKey;

pub use realm::RealmTrust;
pub use rules::Refusal;
pub use sequester::SequesterTrust;
pub use shamir::{ShamirSetup, ShamirTrust};

use crate::{
    certificate::{Certificate, DeviceCertificate, RealmRole, UserCertificate, UserProfile},
    error::{Error, ErrorKind, Result},
    id::{DeviceId, RealmId, UserId},
    storage::{CertificateBatch, CertificateCursor},
    time::Timestamp,
};

/// A refusal by the rules.
const fn refuse(context: &'static str) -> Error {
    Error::new(ErrorKind::Untrusted, context)
}

/// Refuses unless `condition` holds.
fn require(condition: bool, context: &'static str) -> Result<()> {
    if condition { Ok(()) } else { Err(refuse(context)) }
}

/// Refuses a time that does not come after the last one of its topic.
fn require_after(timestamp: Timestamp, last: Option<Timestamp>) -> Result<()> {
    require(last.is_none_or(|last| timestamp > last), "certificate is not after the one before it")
}

/// A user, as certificates tell.
#[derive(Clone, Debug)]
pub struct UserTrust {
    certificate: UserCertificate,
    profiles: Vec<(Timestamp, UserProfile)>,
    revoked: Option<Timestamp>,
}

impl UserTrust {
    /// How the user came to be.
    #[must_use]
    pub fn certificate(&self) -> &UserCertificate {
        &self.certificate
    }

    /// Present profile.
    #[must_use]
    pub fn profile(&self) -> UserProfile {
        self.profiles.last().map_or(self.certificate.profile, |(_, profile)| *profile)
    }

    /// UserProfile at a time at which the user existed.
    #[must_use]
    pub fn profile_at(&self, at: Timestamp) -> UserProfile {
        let latest = self.profiles.iter().rev().find(|(since, _)| *since <= at);
        latest.map_or(self.certificate.profile, |(_, profile)| *profile)
    }

    /// Since when the user no longer is one.
    #[must_use]
    pub fn revoked(&self) -> Option<Timestamp> {
        self.revoked
    }

    /// Whether the user no longer was one.
    #[must_use]
    pub fn revoked_at(&self, at: Timestamp) -> bool {
        self.revoked.is_some_and(|since| since <= at)
    }

    fn existed_at(&self, at: Timestamp) -> bool {
        self.certificate.timestamp <= at
    }
}

/// Everything that certificates say.
#[derive(Clone, Debug)]
pub struct Trust {
    root: VerifyKey,
    reader: UserId,
    users: BTreeMap<UserId, Arc<UserTrust>>,
    devices: BTreeMap<DeviceId, Arc<DeviceCertificate>>,
    last_common: Option<Timestamp>,
    sequester: Arc<SequesterTrust>,
    realms: BTreeMap<RealmId, Arc<RealmTrust>>,
    shamir: Arc<ShamirTrust>,
}

impl Trust {
    /// Trust in nothing but the organization's root key, as seen by the user `reader`.
    #[must_use]
    pub fn new(root: VerifyKey, reader: UserId) -> Self {
        Self {
            root,
            reader,
            users: BTreeMap::new(),
            devices: BTreeMap::new(),
            last_common: None,
            sequester: Arc::default(),
            realms: BTreeMap::new(),
            shamir: Arc::default(),
        }
    }

    /// The same organization and reader before anything is known.
    #[must_use]
    pub fn without_certificates(&self) -> Self {
        Self::new(self.root, self.reader)
    }

    /// Whether the reader is shown nobody's name or label: that of an outsider.
    #[must_use]
    pub fn hides_names(&self) -> bool {
        self.user(self.reader).is_some_and(|user| user.profile() == UserProfile::Outsider)
    }

    /// Whether everything up to `cursor` is known, as far as times tell.
    #[must_use]
    pub fn reaches(&self, cursor: &CertificateCursor) -> bool {
        let own = self.cursor();
        let realm = |(id, last): (&RealmId, &Timestamp)| own.realm.get(id).is_some_and(|own| own >= last);
        own.common >= cursor.common
            && own.sequester >= cursor.sequester
            && own.shamir >= cursor.shamir
            && cursor.realm.iter().all(realm)
    }

    /// The trust after a batch, if every certificate in it is allowed.
    pub fn apply(&self, batch: &CertificateBatch) -> Result<Self> {
        let mut after = self.clone();
        after.apply_sequester(&batch.sequester)?;
        after.apply_common(&batch.common)?;
        for (realm, certificates) in &batch.realm {
            after.apply_realm(*realm, certificates)?;
        }
        after.apply_shamir(&batch.shamir)?;
        Ok(after)
    }

    /// How far this trust reaches: what to ask the storage to go on from.
    #[must_use]
    pub fn cursor(&self) -> CertificateCursor {
        CertificateCursor {
            common: self.last_common,
            sequester: self.sequester.last(),
            shamir: self.shamir.last(),
            realm: self.realms.iter().map(|(id, realm)| (*id, realm.last())).collect(),
        }
    }

    /// The organization's root key.
    #[must_use]
    pub fn root_verify_key(&self) -> &VerifyKey {
        &self.root
    }

    /// All users, revoked ones too.
    pub fn users(&self) -> impl Iterator<Item = &UserTrust> {
        self.users.values().map(|user| &**user)
    }

    /// One user.
    #[must_use]
    pub fn user(&self, id: UserId) -> Option<&UserTrust> {
        self.users.get(&id).map(|user| &**user)
    }

    /// All devices, those of revoked users too.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceCertificate> {
        self.devices.values().map(|device| &**device)
    }

    /// One device, if it existed at that time.
    #[must_use]
    pub fn device_at(&self, id: DeviceId, at: Timestamp) -> Option<&DeviceCertificate> {
        self.device(id).filter(|device| device.timestamp <= at)
    }

    /// One device.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&DeviceCertificate> {
        self.devices.get(&id).map(|device| &**device)
    }

    /// UserProfile of a user at a time, if the user existed then.
    #[must_use]
    pub fn profile(&self, user: UserId, at: Timestamp) -> Option<UserProfile> {
        self.user(user).filter(|user| user.existed_at(at)).map(|user| user.profile_at(at))
    }

    /// Whether a user was revoked at a time.
    #[must_use]
    pub fn is_revoked(&self, user: UserId, at: Timestamp) -> bool {
        self.user(user).is_some_and(|user| user.revoked_at(at))
    }

    /// Realms of which this user knows certificates.
    pub fn realms(&self) -> impl Iterator<Item = &RealmTrust> {
        self.realms.values().map(|realm| &**realm)
    }

    /// One realm.
    #[must_use]
    pub fn realm(&self, id: RealmId) -> Option<&RealmTrust> {
        self.realms.get(&id).map(|realm| &**realm)
    }

    /// Role of a user in a realm at a time.
    #[must_use]
    pub fn role(&self, user: UserId, realm: RealmId, at: Timestamp) -> Option<RealmRole> {
        self.realm(realm)?.role_at(user, at)
    }

    /// What is known of the sequester authority and its services.
    #[must_use]
    pub fn sequester(&self) -> &SequesterTrust {
        &self.sequester
    }

    /// What is known of recovery by shares.
    #[must_use]
    pub fn shamir(&self) -> &ShamirTrust {
        &self.shamir
    }

    /// Key to verify what a device signed for a realm, if it was allowed to write there at that time
    /// (formats.md 4.3, steps 2 and 7).
    pub fn writer(&self, device: DeviceId, realm: RealmId, at: Timestamp) -> Result<&VerifyKey> {
        let author = self.author(device, at)?;
        self.require_not_revoked(author, at)?;
        let role = self.role(author.user_id, realm, at);
        require(role.is_some_and(RealmRole::can_write), "author had no role to write")?;
        Ok(&author.verify_key)
    }

    /// The device that claims to have signed something, if it existed then.
    fn author(&self, id: DeviceId, at: Timestamp) -> Result<&DeviceCertificate> {
        let device = self.device(id).ok_or(refuse("author is not known"))?;
        require(device.timestamp <= at, "author did not exist yet")?;
        Ok(device)
    }

    fn require_not_revoked(&self, author: &DeviceCertificate, at: Timestamp) -> Result<()> {
        require(!self.is_revoked(author.user_id, at), "author was revoked")
    }

    /// Opens a certificate with the key of whoever it names as its author: a device that existed, or the root key.
    fn open(&self, signed: &[u8]) -> Result<(Certificate, Option<&DeviceCertificate>)> {
        let claimed = Certificate::read_without_trust(signed)?;
        let author = match claimed.author() {
            Some(author) => Some(self.author(author, claimed.timestamp())?),
            None => None,
        };
        let key = author.map_or(&self.root, |author| &author.verify_key);
        Ok((Certificate::open(signed, key, &Default::default())?, author))
    }

    /// The same for certificates that only devices sign.
    fn open_by_device(&self, signed: &[u8]) -> Result<(Certificate, DeviceCertificate)> {
        let (certificate, author) = self.open(signed)?;
        let author = author.ok_or(refuse("certificate is not signed by a device"))?;
        Ok((certificate, author.clone()))
    }
}

#[cfg(test)]
mod tests;
