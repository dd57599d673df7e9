//! Puts statements together: the certificates with the documents that belong to them, ready for
//! [`CertificateStore::append`](crate::storage::CertificateStore::append).
//!
//! Says what it is told to; whether readers will accept it is for [`Trust`](crate::trust::Trust) to know.

use std::collections::BTreeMap;

use parsecfs_crypto::{PublicKey, SecretKey, SigningKey, VerifyKey, sequester::EncryptionKey};

use crate::{
    certificate::{
        ArchivingConfiguration, DeviceCertificate, DevicePurpose, RealmArchivingCertificate,
        RealmKeyRotationCertificate, RealmNameCertificate, RealmRole, RealmRoleCertificate, RevokedUserCertificate,
        SequesterServiceCertificate, ShamirRecoveryBriefCertificate, ShamirRecoveryDeletionCertificate,
        ShamirRecoveryShareCertificate, UserCertificate, UserProfile, UserUpdateCertificate, seal_canary,
        seal_realm_name,
    },
    error::{Error, ErrorKind, Result},
    id::{DeviceId, RealmId, SequesterServiceId, UserId},
    keys_bundle::{KeysBundle, KeysBundleAccess},
    local_device::LocalDevice,
    name::{DeviceLabel, EntryName, HumanHandle},
    shamir::{ShamirRecoverySecret, ShamirRecoveryShareData, SharePlan},
    storage::{Bytes, Statement},
    time::Timestamp,
    trust::SequesterTrust,
};

/// A device that signs a statement, and when.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    /// Which.
    pub device: DeviceId,
    /// Its key.
    pub key: &'a SigningKey,
    /// After the last certificate of the topic.
    pub timestamp: Timestamp,
}

/// A device to be.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Which.
    pub id: DeviceId,
    /// Whose.
    pub user: UserId,
    /// What its person calls it.
    pub label: DeviceLabel,
    /// Key of its signatures.
    pub verify_key: VerifyKey,
    /// What for.
    pub purpose: DevicePurpose,
}

impl NewDevice {
    /// What others are told of a device.
    #[must_use]
    pub fn of(device: &LocalDevice, purpose: DevicePurpose) -> Self {
        Self {
            id: device.device_id,
            user: device.user_id,
            label: device.device_label.clone(),
            verify_key: device.signing_key.verify_key(),
            purpose,
        }
    }
}

/// A user to be, with the first device.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Name and address.
    pub human_handle: HumanHandle,
    /// Key that others seal for.
    pub public_key: PublicKey,
    /// First profile.
    pub profile: UserProfile,
    /// First device.
    pub device: NewDevice,
}

impl NewUser {
    /// What others are told of a user, by the first device.
    #[must_use]
    pub fn of(device: &LocalDevice) -> Self {
        Self {
            human_handle: device.human_handle.clone(),
            public_key: device.private_key.public_key(),
            profile: device.initial_profile,
            device: NewDevice::of(device, DevicePurpose::Standard),
        }
    }
}

/// The pair that a new device needs: in full and for outsiders.
fn device_pair(device: &NewDevice, author: Option<DeviceId>, key: &SigningKey, timestamp: Timestamp) -> (Bytes, Bytes) {
    let certificate = DeviceCertificate {
        purpose: device.purpose,
        author,
        timestamp,
        user_id: device.user,
        device_id: device.id,
        device_label: Some(device.label.clone()),
        verify_key: device.verify_key,
        algorithm: Default::default(),
    };
    (certificate.sign(key).into(), certificate.redacted().sign(key).into())
}

/// The pair that a new user needs: in full and for outsiders.
fn user_pair(user: &NewUser, author: Option<DeviceId>, key: &SigningKey, timestamp: Timestamp) -> (Bytes, Bytes) {
    let certificate = UserCertificate {
        author,
        timestamp,
        user_id: user.device.user,
        human_handle: Some(user.human_handle.clone()),
        public_key: user.public_key,
        algorithm: Default::default(),
        profile: user.profile,
    };
    (certificate.sign(key).into(), certificate.redacted().sign(key).into())
}

/// The first user and device of an organization.
#[must_use]
pub fn bootstrap(founder: &NewUser, root: &SigningKey, timestamp: Timestamp) -> Statement {
    let (user, redacted_user) = user_pair(founder, None, root, timestamp);
    let (device, redacted_device) = device_pair(&founder.device, None, root, timestamp);
    Statement::Bootstrap { user, device, redacted_user, redacted_device }
}

/// A further user.
#[must_use]
pub fn create_user(new: &NewUser, author: &Author<'_>) -> Statement {
    let (user, redacted_user) = user_pair(new, Some(author.device), author.key, author.timestamp);
    let (device, redacted_device) = device_pair(&new.device, Some(author.device), author.key, author.timestamp);
    Statement::CreateUser { user, device, redacted_user, redacted_device }
}

/// A further device of the author's user.
#[must_use]
pub fn create_device(new: &NewDevice, author: &Author<'_>) -> Statement {
    let (device, redacted_device) = device_pair(new, Some(author.device), author.key, author.timestamp);
    Statement::CreateDevice { device, redacted_device }
}

/// Another profile for a user.
#[must_use]
pub fn update_user(user: UserId, new_profile: UserProfile, author: &Author<'_>) -> Statement {
    let certificate =
        UserUpdateCertificate { author: author.device, timestamp: author.timestamp, user_id: user, new_profile };
    Statement::UpdateUser { certificate: certificate.sign(author.key).into() }
}

/// The end of a user.
#[must_use]
pub fn revoke_user(user: UserId, author: &Author<'_>) -> Statement {
    let certificate = RevokedUserCertificate { author: author.device, timestamp: author.timestamp, user_id: user };
    Statement::RevokeUser { certificate: certificate.sign(author.key).into() }
}

fn role(realm: RealmId, user: UserId, role: Option<RealmRole>, author: &Author<'_>) -> Bytes {
    let certificate = RealmRoleCertificate {
        author: author.device,
        timestamp: author.timestamp,
        realm_id: realm,
        user_id: user,
        role,
    };
    certificate.sign(author.key).into()
}

/// A new realm, owned by the author's user.
#[must_use]
pub fn create_realm(realm: RealmId, owner: UserId, author: &Author<'_>) -> Statement {
    Statement::CreateRealm { realm, certificate: role(realm, owner, Some(RealmRole::Owner), author) }
}

/// A role for a user, with access to the bundle of `key_index`. Fails when the user's key cannot be sealed for.
pub fn share(
    realm: RealmId,
    (recipient, recipient_key): (UserId, &PublicKey),
    new_role: RealmRole,
    (key_index, access): (u64, &KeysBundleAccess),
    author: &Author<'_>,
) -> Result<Statement> {
    Ok(Statement::Share {
        realm,
        certificate: role(realm, recipient, Some(new_role), author),
        recipient,
        key_index,
        access: access.seal(recipient_key)?.into(),
    })
}

/// The end of a role.
#[must_use]
pub fn unshare(realm: RealmId, user: UserId, author: &Author<'_>) -> Statement {
    Statement::Unshare { realm, certificate: role(realm, user, None, author) }
}

/// A new key behind all previous ones, with an access for every member, and for every service of a sequestered
/// organization. Fails when a member's or a service's key cannot be sealed for.
pub fn rotate_key(
    realm: RealmId,
    previous: Vec<SecretKey>,
    new_key: SecretKey,
    access: &KeysBundleAccess,
    members: impl IntoIterator<Item = (UserId, PublicKey)>,
    sequester: &SequesterTrust,
    author: &Author<'_>,
) -> Result<Statement> {
    let key_index = previous.len() as u64 + 1;
    let certificate = RealmKeyRotationCertificate {
        author: author.device,
        timestamp: author.timestamp,
        realm_id: realm,
        key_index,
        encryption_algorithm: Default::default(),
        hash_algorithm: Default::default(),
        key_canary: seal_canary(&new_key),
    };
    let mut keys = previous;
    keys.push(new_key);
    let bundle = KeysBundle { author: author.device, timestamp: author.timestamp, realm_id: realm, keys };
    let accesses = members.into_iter().map(|(member, key)| Ok((member, access.seal(&key)?.into())));
    Ok(Statement::RotateKey {
        realm,
        certificate: certificate.sign(author.key).into(),
        key_index,
        bundle: bundle.seal(author.key, access).into(),
        accesses: accesses.collect::<Result<_>>()?,
        services: sequester.authority().map(|_| service_accesses(access, sequester)).transpose()?,
    })
}

fn service_accesses(
    access: &KeysBundleAccess,
    sequester: &SequesterTrust,
) -> Result<BTreeMap<SequesterServiceId, Bytes>> {
    let frame = access.to_service_frame();
    let seal = |service: &SequesterServiceCertificate| {
        let sealed = EncryptionKey::from_der(&service.encryption_key_der).and_then(|key| key.seal(&frame));
        let unusable = |_| Error::new(ErrorKind::Invalid, "cannot seal for the key of a sequester service");
        Ok((service.service_id, sealed.map_err(unusable)?.into()))
    };
    sequester.active_services().map(seal).collect()
}

/// A name for the workspace, sealed with the key of `key_index`.
#[must_use]
pub fn rename_realm(
    realm: RealmId,
    name: &EntryName,
    (key_index, key): (u64, &SecretKey),
    author: &Author<'_>,
) -> Statement {
    let certificate = RealmNameCertificate {
        author: author.device,
        timestamp: author.timestamp,
        realm_id: realm,
        key_index,
        encrypted_name: seal_realm_name(name, key),
    };
    Statement::RenameRealm { realm, certificate: certificate.sign(author.key).into() }
}

/// Archived, planned for deletion, or available again.
#[must_use]
pub fn archive_realm(realm: RealmId, configuration: ArchivingConfiguration, author: &Author<'_>) -> Statement {
    let certificate = RealmArchivingCertificate {
        author: author.device,
        timestamp: author.timestamp,
        realm_id: realm,
        configuration,
    };
    Statement::ArchiveRealm { realm, certificate: certificate.sign(author.key).into() }
}

/// A way to get `user` back by shares that make `secret`, which seals a device of that user. Fails when a recipient's key
/// is missing, or cannot be sealed for.
pub fn set_up_recovery(
    user: UserId,
    plan: &SharePlan,
    (secret, sealed_device): (&ShamirRecoverySecret, Bytes),
    key_of: impl Fn(UserId) -> Option<PublicKey>,
    author: &Author<'_>,
) -> Result<Statement> {
    let brief = ShamirRecoveryBriefCertificate {
        author: author.device,
        timestamp: author.timestamp,
        user_id: user,
        threshold: plan.threshold(),
        per_recipient_shares: plan.recipients().clone(),
    };
    let unknown = Error::new(ErrorKind::UserId, "the key of a recipient is not known");
    let share = |(recipient, weighted_share)| {
        let data = ShamirRecoveryShareData { author: author.device, timestamp: author.timestamp, weighted_share };
        let certificate = ShamirRecoveryShareCertificate {
            author: author.device,
            timestamp: author.timestamp,
            user_id: user,
            recipient,
            ciphered_share: data.seal(author.key, &key_of(recipient).ok_or(unknown)?)?,
        };
        Ok(certificate.sign(author.key).into())
    };
    Ok(Statement::SetUpRecovery {
        brief: brief.sign(author.key).into(),
        shares: plan.share_out(secret)?.into_iter().map(share).collect::<Result<_>>()?,
        reveal_token: secret.reveal_token,
        sealed_device,
    })
}

/// The end of the way that `setup` is.
#[must_use]
pub fn delete_recovery(setup: &ShamirRecoveryBriefCertificate, author: &Author<'_>) -> Statement {
    let certificate = ShamirRecoveryDeletionCertificate {
        author: author.device,
        timestamp: author.timestamp,
        setup_to_delete_timestamp: setup.timestamp,
        setup_to_delete_user_id: setup.user_id,
        share_recipients: setup.per_recipient_shares.keys().copied().collect(),
    };
    Statement::DeleteRecovery { certificate: certificate.sign(author.key).into() }
}
