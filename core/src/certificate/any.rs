//! A certificate of any type, and opening one.

use parsecfs_crypto::{SigningKey, VerifyKey};
use rmpv::Value;

use super::{
    DeviceCertificate, RealmArchivingCertificate, RealmKeyRotationCertificate, RealmNameCertificate,
    RealmRoleCertificate, RevokedUserCertificate, SequesterAuthorityCertificate, SequesterRevokedServiceCertificate,
    SequesterServiceCertificate, ShamirRecoveryBriefCertificate, ShamirRecoveryDeletionCertificate,
    ShamirRecoveryShareCertificate, UserCertificate, UserUpdateCertificate,
};
use crate::{
    document::{Document, from_frame, malformed, sign, type_of, verify, without_trust},
    error::{Error, ErrorKind, Result},
    id::{DeviceId, RealmId, UserId},
    time::Timestamp,
};

macro_rules! any {
    ($($(#[$doc:meta])* $variant:ident($name:ident)),* $(,)?) => {
        /// A certificate.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Certificate {
            $($(#[$doc])* $variant($name),)*
        }

        impl Certificate {
            fn read(document: Value) -> Result<Self> {
                match type_of(&document) {
                    $(Some($name::KIND) => $name::read(document).map(Self::$variant),)*
                    _ => Err(malformed("not a certificate")),
                }
            }

            /// When it was signed.
            #[must_use]
            pub fn timestamp(&self) -> Timestamp {
                match self {
                    $(Self::$variant(certificate) => certificate.timestamp,)*
                }
            }
        }

        $(
            impl From<$name> for Certificate {
                fn from(certificate: $name) -> Self {
                    Self::$variant(certificate)
                }
            }

            impl $name {
                /// Signs it. Certificates of sequester services are signed by the authority instead.
                #[must_use]
                pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
                    sign(self, key)
                }
            }
        )*
    };
}

any! {
    /// A user exists.
    User(UserCertificate),
    /// A device exists.
    Device(DeviceCertificate),
    /// A user has another profile.
    UserUpdate(UserUpdateCertificate),
    /// A user is no longer one.
    RevokedUser(RevokedUserCertificate),
    /// A user has another role in a realm.
    RealmRole(RealmRoleCertificate),
    /// A realm has another name.
    RealmName(RealmNameCertificate),
    /// A realm has another key.
    RealmKeyRotation(RealmKeyRotationCertificate),
    /// A realm is archived, or no longer.
    RealmArchiving(RealmArchivingCertificate),
    /// The organization is sequestered.
    SequesterAuthority(SequesterAuthorityCertificate),
    /// A sequester service exists.
    SequesterService(SequesterServiceCertificate),
    /// A sequester service is no longer one.
    SequesterRevokedService(SequesterRevokedServiceCertificate),
    /// A user can be recovered by others together.
    ShamirRecoveryBrief(ShamirRecoveryBriefCertificate),
    /// One recipient's shares.
    ShamirRecoveryShare(ShamirRecoveryShareCertificate),
    /// A setup no longer holds.
    ShamirRecoveryDeletion(ShamirRecoveryDeletionCertificate),
}

/// What a reader wants a certificate to be about; `None` takes any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// Device that signed.
    pub author: Option<DeviceId>,
    /// User it is about.
    pub user: Option<UserId>,
    /// Device it is about.
    pub device: Option<DeviceId>,
    /// Realm it is about.
    pub realm: Option<RealmId>,
}

impl Certificate {
    /// Reads what it says, whoever signed it. Only to learn who claims to have; also for what was checked before.
    pub fn read_without_trust(signed: &[u8]) -> Result<Self> {
        Self::read(from_frame(without_trust(signed)?)?)
    }

    /// Opens a certificate signed by a device or by the root key.
    pub fn open(signed: &[u8], key: &VerifyKey, expected: &Expected) -> Result<Self> {
        let certificate = Self::read(from_frame(verify(signed, key)?)?)?;
        certificate.check(expected)?;
        Ok(certificate)
    }

    /// Opens a certificate signed by the sequester authority, whose signature was checked.
    pub fn from_sequester_payload(frame: &[u8]) -> Result<Self> {
        Self::read(from_frame(frame)?)
    }

    /// Device that signed; `None` when another key did.
    #[must_use]
    pub fn author(&self) -> Option<DeviceId> {
        match self {
            Self::User(certificate) => certificate.author,
            Self::Device(certificate) => certificate.author,
            Self::UserUpdate(certificate) => Some(certificate.author),
            Self::RevokedUser(certificate) => Some(certificate.author),
            Self::RealmRole(certificate) => Some(certificate.author),
            Self::RealmName(certificate) => Some(certificate.author),
            Self::RealmKeyRotation(certificate) => Some(certificate.author),
            Self::RealmArchiving(certificate) => Some(certificate.author),
            Self::ShamirRecoveryBrief(certificate) => Some(certificate.author),
            Self::ShamirRecoveryShare(certificate) => Some(certificate.author),
            Self::ShamirRecoveryDeletion(certificate) => Some(certificate.author),
            Self::SequesterAuthority(_) | Self::SequesterService(_) | Self::SequesterRevokedService(_) => None,
        }
    }

    /// User it is about.
    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        match self {
            Self::User(certificate) => Some(certificate.user_id),
            Self::Device(certificate) => Some(certificate.user_id),
            Self::UserUpdate(certificate) => Some(certificate.user_id),
            Self::RevokedUser(certificate) => Some(certificate.user_id),
            Self::RealmRole(certificate) => Some(certificate.user_id),
            Self::ShamirRecoveryBrief(certificate) => Some(certificate.user_id),
            Self::ShamirRecoveryShare(certificate) => Some(certificate.user_id),
            Self::ShamirRecoveryDeletion(certificate) => Some(certificate.setup_to_delete_user_id),
            Self::RealmName(_)
            | Self::RealmKeyRotation(_)
            | Self::RealmArchiving(_)
            | Self::SequesterAuthority(_)
            | Self::SequesterService(_)
            | Self::SequesterRevokedService(_) => None,
        }
    }

    /// Realm it is about.
    #[must_use]
    pub fn realm(&self) -> Option<RealmId> {
        match self {
            Self::RealmRole(certificate) => Some(certificate.realm_id),
            Self::RealmName(certificate) => Some(certificate.realm_id),
            Self::RealmKeyRotation(certificate) => Some(certificate.realm_id),
            Self::RealmArchiving(certificate) => Some(certificate.realm_id),
            _ => None,
        }
    }

    /// The variant for outsiders; itself when it hides nothing from them.
    #[must_use]
    pub fn redacted(&self) -> Self {
        match self {
            Self::User(certificate) => Self::User(certificate.redacted()),
            Self::Device(certificate) => Self::Device(certificate.redacted()),
            other => other.clone(),
        }
    }

    fn device(&self) -> Option<DeviceId> {
        match self {
            Self::Device(certificate) => Some(certificate.device_id),
            _ => None,
        }
    }

    fn check(&self, expected: &Expected) -> Result<()> {
        let refuse = |kind, context| Err(Error::new(kind, context));
        if differs(expected.author, self.author()) {
            refuse(ErrorKind::Author, "certificate of another author")
        } else if differs(expected.user, self.user()) {
            refuse(ErrorKind::UserId, "certificate about another user")
        } else if differs(expected.device, self.device()) {
            refuse(ErrorKind::DeviceId, "certificate about another device")
        } else if differs(expected.realm, self.realm()) {
            refuse(ErrorKind::RealmId, "certificate about another realm")
        } else {
            Ok(())
        }
    }
}

fn differs<T: PartialEq>(expected: Option<T>, found: Option<T>) -> bool {
    expected.is_some() && expected != found
}
