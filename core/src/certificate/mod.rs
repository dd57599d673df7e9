//! Certificates: signed statements about users, devices, realms, sequester services and recovery by shares
//! (formats.md 3.1).
//!
//! Opening one proves who signed it and nothing else; whether that device was entitled to is for
//! [`Trust`](crate::trust::Trust) to decide.

mod any;
mod realm_secret;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU8,
};

use parsecfs_crypto::{PublicKey, VerifyKey};
use rmpv::Value;

pub use any::{Certificate, Expected};
pub use realm_secret::{canary_holds, open_realm_name, seal_canary, seal_realm_name};

use crate::{
    document::{Field, Fields, Writer, documents, field_enum, malformed, take_type},
    error::{Error, ErrorKind, Result},
    id::{DeviceId, RealmId, SequesterServiceId, UserId},
    name::{DeviceLabel, HumanHandle},
    time::Timestamp,
};

/// What a user may do in the organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserProfile {
    /// Manages users.
    Admin,
    /// Creates workspaces.
    Standard,
    /// Guest: creates none, owns none, and is not told who the others are.
    Outsider,
}

field_enum!(UserProfile { Admin = "ADMIN", Standard = "STANDARD", Outsider = "OUTSIDER" });

/// What a user may do in a realm; each role includes those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RealmRole {
    /// Reads.
    Reader,
    /// Writes.
    Contributor,
    /// Shares with readers and contributors.
    Manager,
    /// Does everything.
    Owner,
}

field_enum!(RealmRole { Reader = "READER", Contributor = "CONTRIBUTOR", Manager = "MANAGER", Owner = "OWNER" });

impl RealmRole {
    /// Whether it may change files and folders.
    #[must_use]
    pub fn can_write(self) -> bool {
        self >= Self::Contributor
    }
}

/// What a device is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DevicePurpose {
    /// Daily use.
    #[default]
    Standard,
    /// Its key is spread in shares.
    ShamirRecovery,
    /// Its key is a recovery passphrase.
    PassphraseRecovery,
    /// Made by an account to register others.
    Registration,
}

field_enum!(DevicePurpose {
    Standard = "STANDARD",
    ShamirRecovery = "SHAMIR_RECOVERY",
    PassphraseRecovery = "PASSPHRASE_RECOVERY",
    Registration = "REGISTRATION",
});

macro_rules! algorithms {
    ($($(#[$doc:meta])* $name:ident { $variant:ident = $text:literal })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name {
            /// The only one.
            #[default]
            $variant,
        }

        field_enum!($name { $variant = $text });
    )*};
}

algorithms! {
    /// Of a user's key pair.
    UserAlgorithm { X25519XSalsa20Poly1305 = "X25519_XSALSA20_POLY1305" }
    /// Of a device's signatures.
    DeviceAlgorithm { Ed25519 = "ED25519" }
    /// Of a realm's seals.
    EncryptionAlgorithm { Blake2XSalsa20Poly1305 = "BLAKE2_XSALSA20_POLY1305" }
    /// Of a realm's digests.
    HashAlgorithm { Sha256 = "SHA256" }
}

/// Whether a realm can be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ArchivingConfiguration {
    /// As usual.
    #[default]
    Available,
    /// Read only.
    Archived,
    /// Read only, and may be gone after the date.
    DeletionPlanned {
        /// When the storage may destroy it.
        deletion_date: Timestamp,
    },
}

impl Field for ArchivingConfiguration {
    fn read(value: Value) -> Result<Self> {
        let (kind, fields) = match value {
            Value::Map(entries) => take_type(entries)?,
            Value::Array(mut values) if !values.is_empty() => (values.remove(0), Value::Array(values)),
            _ => return Err(malformed("not an archiving configuration")),
        };
        match kind.as_str() {
            Some("AVAILABLE") => Ok(Self::Available),
            Some("ARCHIVED") => Ok(Self::Archived),
            Some("DELETION_PLANNED") => {
                let mut fields = Fields::structure(fields, &["deletion_date"])?;
                Ok(Self::DeletionPlanned { deletion_date: fields.get("deletion_date")? })
            }
            _ => Err(malformed("unknown archiving configuration")),
        }
    }

    fn write(&self) -> Value {
        match self {
            Self::Available => Writer::document("AVAILABLE"),
            Self::Archived => Writer::document("ARCHIVED"),
            Self::DeletionPlanned { deletion_date } => {
                Writer::document("DELETION_PLANNED").field("deletion_date", deletion_date)
            }
        }
        .finish()
    }
}

documents! {
    /// A user exists. Two variants are made: one in full, one without `human_handle` for outsiders.
    #[derive(Clone, Debug, PartialEq, Eq)]
    UserCertificate = "user_certificate" {
        /// Device that signed; `None`: the organization's root key.
        author: Option<DeviceId> [default],
        /// When.
        timestamp: Timestamp,
        /// Who.
        user_id: UserId,
        /// Name and address, or withheld.
        human_handle: Option<HumanHandle>,
        /// Key that others seal for.
        public_key: PublicKey,
        /// Of `public_key`.
        algorithm: UserAlgorithm,
        /// First profile.
        profile: UserProfile,
    }

    /// A device exists. Two variants are made: one in full, one without `device_label` for outsiders.
    #[derive(Clone, Debug, PartialEq, Eq)]
    DeviceCertificate = "device_certificate" {
        /// What for.
        purpose: DevicePurpose [default],
        /// Device that signed; `None`: the organization's root key.
        author: Option<DeviceId> [default],
        /// When.
        timestamp: Timestamp,
        /// Whose.
        user_id: UserId,
        /// Which.
        device_id: DeviceId,
        /// What its person calls it, or withheld.
        device_label: Option<DeviceLabel>,
        /// Key of its signatures.
        verify_key: VerifyKey,
        /// Of `verify_key`.
        algorithm: DeviceAlgorithm,
    }

    /// A user has another profile.
    #[derive(Clone, Debug, PartialEq, Eq)]
    UserUpdateCertificate = "user_update_certificate" {
        /// Device that signed.
        author: DeviceId,
        /// When.
        timestamp: Timestamp,
        /// Who.
        user_id: UserId,
        /// From now on.
        new_profile: UserProfile,
    }

    /// A user is no longer one.
    #[derive(Clone, Debug, PartialEq, Eq)]
    RevokedUserCertificate = "revoked_user_certificate" {
        /// Device that signed.
        author: DeviceId,
        /// When.
        timestamp: Timestamp,
        /// Who.
        user_id: UserId,
    }

    /// A user has another role in a realm.
    #[derive(Clone, Debug, PartialEq, Eq)]
    RealmRoleCertificate = "realm_role_certificate" {
        /// Device that signed.
        author: DeviceId,
        /// When.
        timestamp: Timestamp,
        /// Where.
        realm_id: RealmId,
        /// Who.
        user_id: UserId,
        /// From now on; `None`: no longer a member.
        role: Option<RealmRole>,
    }

    /// A realm has another name.
    #[derive(Clone, Debug, PartialEq, Eq)]
    RealmNameCertificate = "realm_name_certificate" {
        /// Device that signed.
        author: DeviceId,
        /// When.
        timestamp: Timestamp,
        /// Which.
        realm_id: RealmId,
        /// Key that seals the name.
        key_index: u64,
        /// See [`open_realm_name`].
        encrypted_name: Vec<u8>,
    }

    /// A realm has another key.
    #[derive(Clone, Debug, PartialEq, Eq)]
    RealmKeyRotationCertificate = "realm_key_rotation_certificate" {
        /// Device that signed.
        author: DeviceId,
        /// When.
        timestamp: Timestamp,
        /// Which.
        realm_id: RealmId,
        /// Of the new key, from 1.
        key_index: u64,
        /// How it seals.
        encryption_algorithm: EncryptionAlgorithm,
        /// How blocks are proved.
        hash_algorithm: HashAlgorithm,
        /// Proves the new key; see [`canary_holds`].
        key_canary: Vec<u8>,
    }

    /// A realm is archived, or no longer.
    #[derive(Clone, Debug, PartialEq, Eq)]
    RealmArchivingCertificate = "realm_archiving_certificate" {
        /// Device that signed.
        author: DeviceId,
        /// When.
        timestamp: Timestamp,
        /// Which.
        realm_id: RealmId,
        /// From now on.
        configuration: ArchivingConfiguration,
    }

    /// The organization is sequestered: services may read everything. Signed by the root key.
    #[derive(Clone, Debug, PartialEq, Eq)]
    SequesterAuthorityCertificate = "sequester_authority_certificate" {
        /// When.
        timestamp: Timestamp,
        /// Key of the authority's signatures.
        verify_key_der: Vec<u8>,
    }

    /// A sequester service exists. Signed by the authority.
    #[derive(Clone, Debug, PartialEq, Eq)]
    SequesterServiceCertificate = "sequester_service_certificate" {
        /// When.
        timestamp: Timestamp,
        /// Which.
        service_id: SequesterServiceId,
        /// What it is called.
        service_label: String,
        /// Key that keys bundle accesses are sealed for.
        encryption_key_der: Vec<u8>,
    }

    /// A sequester service is no longer one. Signed by the authority.
    #[derive(Clone, Debug, PartialEq, Eq)]
    SequesterRevokedServiceCertificate = "sequester_revoked_service_certificate" {
        /// When.
        timestamp: Timestamp,
        /// Which.
        service_id: SequesterServiceId,
    }

    /// A user can be recovered by others together.
    #[derive(Clone, Debug, PartialEq, Eq)]
    ShamirRecoveryBriefCertificate = "shamir_recovery_brief_certificate" checked by check_shares {
        /// Device that signed.
        author: DeviceId,
        /// When.
        timestamp: Timestamp,
        /// Who.
        user_id: UserId,
        /// Shares that are needed.
        threshold: NonZeroU8,
        /// Who holds how many.
        per_recipient_shares: BTreeMap<UserId, NonZeroU8>,
    }

    /// One recipient's shares.
    #[derive(Clone, Debug, PartialEq, Eq)]
    ShamirRecoveryShareCertificate = "shamir_recovery_share_certificate" {
        /// Device that signed.
        author: DeviceId,
        /// When.
        timestamp: Timestamp,
        /// Who can be recovered.
        user_id: UserId,
        /// Who holds them.
        recipient: UserId,
        /// Signed, then sealed for the recipient.
        ciphered_share: Vec<u8>,
    }

    /// A setup no longer holds.
    #[derive(Clone, Debug, PartialEq, Eq)]
    ShamirRecoveryDeletionCertificate = "shamir_recovery_deletion_certificate" {
        /// Device that signed.
        author: DeviceId,
        /// When.
        timestamp: Timestamp,
        /// Timestamp of the brief.
        setup_to_delete_timestamp: Timestamp,
        /// User of the brief.
        setup_to_delete_user_id: UserId,
        /// Recipients of the brief.
        share_recipients: BTreeSet<UserId>,
    }
}

impl UserCertificate {
    /// The variant for outsiders.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self { human_handle: None, ..self.clone() }
    }
}

impl DeviceCertificate {
    /// The variant for outsiders.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self { device_label: None, ..self.clone() }
    }
}

/// A share is a byte that is not 0, so there are at most 255.
fn check_shares(brief: &ShamirRecoveryBriefCertificate) -> Result<()> {
    let total: u64 = brief.per_recipient_shares.values().map(|shares| u64::from(shares.get())).sum();
    if total > 255 || u64::from(brief.threshold.get()) > total {
        return Err(Error::new(ErrorKind::Integrity, "threshold and shares do not fit"));
    }
    Ok(())
}
