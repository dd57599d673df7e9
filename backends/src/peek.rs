//! What a certificate says, read without checking who signed it.
//!
//! For bookkeeping only: topic order, roles and key indexes. Nothing here makes a certificate trusted.

use parsecfs_core::{
    id::{DeviceId, RealmId, UserId},
    storage::{Error, ErrorKind, Result},
    time::Timestamp,
};
use rmpv::Value;

/// Bytes of an Ed25519 signature before the document.
const SIGNATURE_BYTES: usize = 64;
/// Largest document that is unpacked; a certificate has a few hundred bytes.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// Roles in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Reader,
    Contributor,
    Manager,
    Owner,
}

impl Role {
    pub(crate) fn can_write(self) -> bool {
        self >= Self::Contributor
    }
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    User { user: UserId, admin: bool, outsider: bool },
    Device { device: DeviceId, user: UserId, verify_key: [u8; 32] },
    Profile { user: UserId, admin: bool, outsider: bool },
    Revoked { user: UserId },
    Role { realm: RealmId, user: UserId, role: Option<Role> },
    Name { realm: RealmId },
    Rotation { realm: RealmId, key_index: u64 },
    Archiving { realm: RealmId, read_only: bool },
}

/// One certificate: who says what, as of when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peeked {
    pub(crate) author: Option<DeviceId>,
    pub(crate) timestamp: Timestamp,
    pub(crate) says: Says,
}

/// Reads a certificate without trusting it; `Corrupt` when it is none.
pub(crate) fn peek(certificate: &[u8]) -> Result<Peeked> {
    parse(certificate).ok_or_else(|| Error::new(ErrorKind::Corrupt, "a certificate cannot be read"))
}

fn parse(certificate: &[u8]) -> Option<Peeked> {
    let frame = certificate.get(SIGNATURE_BYTES..)?.strip_prefix(&[0])?;
    let mut document = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(frame).ok()?;
    std::io::Read::read_to_end(&mut std::io::Read::take(decoder, DOCUMENT_BYTES_MAX), &mut document).ok()?;
    let value = rmpv::decode::read_value(&mut document.as_slice()).ok()?;
    let fields = Fields(value.as_map()?);
    Some(Peeked {
        author: fields.uuid("author").map(DeviceId::from_bytes),
        timestamp: fields.timestamp()?,
        says: fields.says()?,
    })
}

struct Fields<'a>(&'a [(Value, Value)]);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    fn uuid(&self, name: &str) -> Option<[u8; 16]> {
        match self.get(name)? {
            Value::Ext(2, bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        }
    }

    fn timestamp(&self) -> Option<Timestamp> {
        match self.get("timestamp")? {
            Value::Ext(1, bytes) => Timestamp::from_micros(i64::from_be_bytes(bytes.as_slice().try_into().ok()?)),
            _ => None,
        }
    }

    fn user(&self) -> Option<UserId> {
        self.uuid("user_id").map(UserId::from_bytes)
    }

    fn realm(&self) -> Option<RealmId> {
        self.uuid("realm_id").map(RealmId::from_bytes)
    }

    fn says(&self) -> Option<Says> {
        Some(match self.text("type")? {
            "user_certificate" => {
                let profile = self.text("profile")?;
                Says::User { user: self.user()?, admin: profile == "ADMIN", outsider: profile == "OUTSIDER" }
            }
            "device_certificate" => Says::Device {
                device: DeviceId::from_bytes(self.uuid("device_id")?),
                user: self.user()?,
                verify_key: self.get("verify_key")?.as_slice()?.try_into().ok()?,
            },
            "user_update_certificate" => {
                let profile = self.text("new_profile")?;
                Says::Profile { user: self.user()?, admin: profile == "ADMIN", outsider: profile == "OUTSIDER" }
            }
            "revoked_user_certificate" => Says::Revoked { user: self.user()? },
            "realm_role_certificate" => Says::Role { realm: self.realm()?, user: self.user()?, role: self.role()? },
            "realm_name_certificate" => Says::Name { realm: self.realm()? },
            "realm_key_rotation_certificate" => {
                Says::Rotation { realm: self.realm()?, key_index: self.get("key_index")?.as_u64()? }
            }
            "realm_archiving_certificate" => Says::Archiving { realm: self.realm()?, read_only: !self.available()? },
            _ => return None,
        })
    }

    fn role(&self) -> Option<Option<Role>> {
        Some(match self.get("role")? {
            Value::Nil => None,
            value => Some(match value.as_str()? {
                "OWNER" => Role::Owner,
                "MANAGER" => Role::Manager,
                "CONTRIBUTOR" => Role::Contributor,
                "READER" => Role::Reader,
                _ => return None,
            }),
        })
    }

    fn available(&self) -> Option<bool> {
        Some(Fields(self.get("configuration")?.as_map()?).text("type")? == "AVAILABLE")
    }
}
