//! Device files: who a device is in clear, its secrets sealed (formats.md 8.3). Raw msgpack: no frame.
//!
//! Kinds that need a service or a smart card are named as [`ErrorKind::Unsupported`]. `keyfile` is our own kind: the
//! passphrase lies in a file beside the device file, for servers that nobody types a password at.

use parsecfs_crypto::Argon2id;
use rmpv::Value;

use crate::{
    document::{Fields, Writer, from_msgpack, malformed, take_type, to_msgpack, type_of},
    error::{Error, ErrorKind, Result},
    id::{DeviceId, UserId},
    name::{DeviceLabel, HumanHandle, OrganizationId},
    time::Timestamp,
};

/// A device file.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceFile {
    /// When the device was saved first.
    pub created_on: Timestamp,
    /// When its protection was last changed.
    pub protected_on: Timestamp,
    /// Address of the storage.
    pub server_url: String,
    /// Which organization.
    pub organization_id: OrganizationId,
    /// Whose.
    pub user_id: UserId,
    /// Which.
    pub device_id: DeviceId,
    /// The person.
    pub human_handle: HumanHandle,
    /// What the person calls it.
    pub device_label: DeviceLabel,
    /// Where the key of `ciphertext` is.
    pub protection: FileProtection,
    /// The sealed [`LocalDevice`](crate::local_device::LocalDevice).
    pub ciphertext: Vec<u8>,
}

/// Where the key of a device file is.
#[derive(Clone, Debug, PartialEq)]
pub enum FileProtection {
    /// In a head: derived from a password.
    Password(Argon2id),
    /// In the operating system's keyring, as a recovery passphrase.
    Keyring {
        /// Name of the service.
        service: String,
        /// Name of the user.
        user: String,
    },
    /// On paper: a recovery passphrase.
    Recovery,
    /// In a file beside this one, as a recovery passphrase.
    Keyfile,
}

const COMMON: [&str; 8] = [
    "created_on",
    "protected_on",
    "server_url",
    "organization_id",
    "user_id",
    "device_id",
    "human_handle",
    "device_label",
];

macro_rules! names {
    ($($own:literal),*) => {
        &[
            COMMON[0], COMMON[1], COMMON[2], COMMON[3], COMMON[4], COMMON[5], COMMON[6], COMMON[7], $($own),*
        ]
    };
}

const PASSWORD: &[&str] = names!("algorithm", "ciphertext", "totp_opaque_key_id");
const KEYRING: &[&str] = names!("keyring_service", "keyring_user", "ciphertext", "totp_opaque_key_id");
const RECOVERY: &[&str] = names!("ciphertext");

impl DeviceFile {
    /// Reads a device file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let document = from_msgpack(bytes)?;
        let kind = type_of(&document).ok_or(malformed("not a device file"))?.to_owned();
        let names = match kind.as_str() {
            "password" => PASSWORD,
            "keyring" => KEYRING,
            "recovery" | "keyfile" => RECOVERY,
            "account_vault" | "openbao" | "pki" => {
                return Err(Error::new(ErrorKind::Unsupported, "device file of a kind that cannot be opened here"));
            }
            _ => return Err(malformed("unknown kind of device file")),
        };
        let mut fields = Fields::document(document, &kind, names)?;
        let protection = match kind.as_str() {
            "password" => FileProtection::Password(fields.get_with("algorithm", read_argon2id)?),
            "keyring" => {
                FileProtection::Keyring { service: fields.get("keyring_service")?, user: fields.get("keyring_user")? }
            }
            "recovery" => FileProtection::Recovery,
            _ => FileProtection::Keyfile,
        };
        if matches!(protection, FileProtection::Password(_) | FileProtection::Keyring { .. })
            && fields.get_if_there::<[u8; 16]>("totp_opaque_key_id").map_or(true, |id| id.is_some())
        {
            return Err(Error::new(ErrorKind::Unsupported, "device file that needs a one-time code"));
        }
        Ok(Self {
            created_on: fields.get("created_on")?,
            protected_on: fields.get("protected_on")?,
            server_url: fields.get("server_url")?,
            organization_id: fields.get("organization_id")?,
            user_id: fields.get("user_id")?,
            device_id: fields.get("device_id")?,
            human_handle: fields.get("human_handle")?,
            device_label: fields.get("device_label")?,
            protection,
            ciphertext: fields.get("ciphertext")?,
        })
    }

    /// Writes a device file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = match &self.protection {
            FileProtection::Password(_) => "password",
            FileProtection::Keyring { .. } => "keyring",
            FileProtection::Recovery => "recovery",
            FileProtection::Keyfile => "keyfile",
        };
        let common = Writer::document(kind)
            .field("created_on", &self.created_on)
            .field("protected_on", &self.protected_on)
            .field("server_url", &self.server_url)
            .field("organization_id", &self.organization_id)
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .field("human_handle", &self.human_handle)
            .field("device_label", &self.device_label);
        let document = match &self.protection {
            FileProtection::Password(algorithm) => common
                .value("algorithm", write_argon2id(algorithm))
                .field("ciphertext", &self.ciphertext)
                .value("totp_opaque_key_id", Value::Nil),
            FileProtection::Keyring { service, user } => common
                .field("keyring_service", service)
                .field("keyring_user", user)
                .field("ciphertext", &self.ciphertext)
                .value("totp_opaque_key_id", Value::Nil),
            FileProtection::Recovery | FileProtection::Keyfile => common.field("ciphertext", &self.ciphertext),
        };
        to_msgpack(&document.finish())
    }
}

fn read_argon2id(value: Value) -> Result<Argon2id> {
    let (kind, fields) = match value {
        Value::Map(entries) => take_type(entries)?,
        Value::Array(mut values) if !values.is_empty() => (values.remove(0), Value::Array(values)),
        _ => return Err(malformed("not a password algorithm")),
    };
    if kind.as_str() != Some("ARGON2ID") {
        return Err(malformed("unknown password algorithm"));
    }
    let mut fields = Fields::structure(fields, &["memlimit_kb", "opslimit", "parallelism", "salt"])?;
    Ok(Argon2id {
        memlimit_kb: fields.get("memlimit_kb")?,
        opslimit: fields.get("opslimit")?,
        parallelism: fields.get("parallelism")?,
        salt: fields.get("salt")?,
    })
}

fn write_argon2id(algorithm: &Argon2id) -> Value {
    Writer::document("ARGON2ID")
        .field("memlimit_kb", &algorithm.memlimit_kb)
        .field("opslimit", &algorithm.opslimit)
        .field("parallelism", &algorithm.parallelism)
        .field("salt", &algorithm.salt)
        .finish()
}
