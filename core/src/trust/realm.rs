//! One realm: its members, keys, name and archiving (formats.md 3.5).

use std::{collections::BTreeMap, sync::Arc};

use super::{Trust, refuse, require, require_after};
use crate::{
    certificate::{
        ArchivingConfiguration, Certificate, DeviceCertificate, RealmKeyRotationCertificate, RealmNameCertificate,
        RealmRole, RealmRoleCertificate,
    },
    document::malformed,
    error::{Error, ErrorKind, Result},
    id::{RealmId, UserId},
    storage::Bytes,
    time::Timestamp,
};

/// What certificates say about a realm.
#[derive(Clone, Debug)]
pub struct RealmTrust {
    id: RealmId,
    last: Timestamp,
    /// Every role that a user had, and since when.
    roles: BTreeMap<UserId, Vec<(Timestamp, Option<RealmRole>)>>,
    /// When a member last lost the role.
    last_removal: Option<Timestamp>,
    /// Key index i is element i - 1.
    rotations: Vec<RealmKeyRotationCertificate>,
    name: Option<RealmNameCertificate>,
    archiving: ArchivingConfiguration,
}

impl RealmTrust {
    fn new(id: RealmId, first: &RealmRoleCertificate) -> Self {
        Self {
            id,
            last: first.timestamp,
            roles: BTreeMap::from([(first.user_id, vec![(first.timestamp, first.role)])]),
            last_removal: None,
            rotations: Vec::new(),
            name: None,
            archiving: ArchivingConfiguration::Available,
        }
    }

    /// Which.
    #[must_use]
    pub fn id(&self) -> RealmId {
        self.id
    }

    /// Time of the last certificate.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        self.last
    }

    /// Present role of a user.
    #[must_use]
    pub fn role(&self, user: UserId) -> Option<RealmRole> {
        self.roles.get(&user)?.last()?.1
    }

    /// Role of a user at a time.
    #[must_use]
    pub fn role_at(&self, user: UserId, at: Timestamp) -> Option<RealmRole> {
        self.roles.get(&user)?.iter().rev().find(|(since, _)| *since <= at)?.1
    }

    /// Present members, revoked users too.
    pub fn members(&self) -> impl Iterator<Item = (UserId, RealmRole)> {
        self.roles.keys().filter_map(|user| Some((*user, self.role(*user)?)))
    }

    /// All rotations; key index i is element i - 1.
    #[must_use]
    pub fn rotations(&self) -> &[RealmKeyRotationCertificate] {
        &self.rotations
    }

    /// Index of the newest key; 0 before the first.
    #[must_use]
    pub fn key_index(&self) -> u64 {
        self.rotations.len() as u64
    }

    /// The present name, sealed.
    #[must_use]
    pub fn name(&self) -> Option<&RealmNameCertificate> {
        self.name.as_ref()
    }

    /// Whether it can be changed.
    #[must_use]
    pub fn archiving(&self) -> ArchivingConfiguration {
        self.archiving
    }

    /// When a member last lost the role: a rotation before it is out of date.
    #[must_use]
    pub fn last_removal(&self) -> Option<Timestamp> {
        self.last_removal
    }

    fn set_role(&mut self, certificate: &RealmRoleCertificate) {
        if certificate.role.is_none() {
            self.last_removal = Some(certificate.timestamp);
        }
        self.roles.entry(certificate.user_id).or_default().push((certificate.timestamp, certificate.role));
    }
}

impl Trust {
    pub(super) fn apply_realm(&mut self, id: RealmId, batch: &[Bytes]) -> Result<()> {
        for signed in batch {
            let (certificate, author) = self.open_by_device(signed)?;
            if certificate.realm().is_some_and(|realm| realm != id) {
                return Err(Error::new(ErrorKind::RealmId, "certificate of another realm"));
            }
            let realm = match self.realms.get(&id) {
                Some(realm) => self.after(realm, certificate, &author)?,
                None => self.new_realm(id, &certificate, &author)?,
            };
            self.realms.insert(id, Arc::new(realm));
        }
        Ok(())
    }

    fn new_realm(&self, id: RealmId, certificate: &Certificate, author: &DeviceCertificate) -> Result<RealmTrust> {
        let Certificate::RealmRole(first) = certificate else {
            return Err(refuse("a realm begins with a role"));
        };
        require(first.user_id == author.user_id, "a realm begins with the author's own role")?;
        require(first.role == Some(RealmRole::Owner), "a realm begins with an owner")?;
        self.may_create_realm(author.user_id, first.timestamp)?;
        Ok(RealmTrust::new(id, first))
    }

    /// The realm after one more certificate.
    fn after(&self, realm: &RealmTrust, certificate: Certificate, author: &DeviceCertificate) -> Result<RealmTrust> {
        let timestamp = certificate.timestamp();
        require_after(timestamp, Some(realm.last))?;
        let mut after = realm.clone();
        after.last = timestamp;
        match certificate {
            Certificate::RealmRole(role) => {
                self.may_have_changed_role(author.user_id, realm, (role.user_id, role.role), timestamp)?;
                after.set_role(&role);
            }
            Certificate::RealmName(name) => {
                self.may_govern(author.user_id, realm, timestamp)?;
                require((1..=realm.key_index()).contains(&name.key_index), "realm name with an unknown key")?;
                after.name = Some(name);
            }
            Certificate::RealmKeyRotation(rotation) => {
                self.may_govern(author.user_id, realm, timestamp)?;
                require(rotation.key_index == realm.key_index() + 1, "rotation skips or repeats a key")?;
                after.rotations.push(rotation);
            }
            Certificate::RealmArchiving(archiving) => {
                self.may_govern(author.user_id, realm, timestamp)?;
                after.archiving = archiving.configuration;
            }
            _ => return Err(malformed("certificate does not belong to a realm")),
        }
        Ok(after)
    }

    /// What an owner has to do about a realm, as far as certificates tell (formats.md 3.7): revoked members to
    /// remove, and whether a rotation is due.
    #[must_use]
    pub fn owner_duties(&self, realm: &RealmTrust) -> (Vec<UserId>, bool) {
        let revoked = |user: UserId| self.user(user).is_some_and(|user| user.revoked().is_some());
        let remove: Vec<_> = realm.members().map(|(user, _)| user).filter(|user| revoked(*user)).collect();
        let due_since = realm.last_removal.max(self.sequester.services_changed());
        let rotated = realm.rotations.last().map(|rotation| rotation.timestamp);
        let rotate = !remove.is_empty() || rotated.is_none() || due_since > rotated;
        (remove, rotate)
    }
}
