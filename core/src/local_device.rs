//! A device with all its secrets, as it stands inside a device file (formats.md 8.2). Raw msgpack: no frame.

use std::fmt;

use parsecfs_crypto::{PrivateKey, SecretKey, SigningKey, VerifyKey};
use rmpv::Value;
use zeroize::Zeroizing;

use crate::{
    certificate::UserProfile,
    document::{Document, Fields, Writer, from_msgpack, to_secret_msgpack},
    error::{Error, ErrorKind, Result},
    id::{DeviceId, RealmId, UserId},
    name::{DeviceLabel, HumanHandle, OrganizationId},
    url::read_storage_address,
};

/// A device with all its secrets.
#[derive(Clone)]
pub struct LocalDevice {
    /// Address of the storage, in a form of [`is_storage_address`](crate::url::is_storage_address).
    pub server_url: String,
    /// Which organization.
    pub organization_id: OrganizationId,
    /// Key that signed the organization's first user: proves that this is the organization.
    pub root_verify_key: VerifyKey,
    /// Whose.
    pub user_id: UserId,
    /// Which.
    pub device_id: DeviceId,
    /// What its person calls it.
    pub device_label: DeviceLabel,
    /// The person.
    pub human_handle: HumanHandle,
    /// Key of this device's signatures.
    pub signing_key: SigningKey,
    /// Key of the user that others seal for.
    pub private_key: PrivateKey,
    /// Profile when the device was made; certificates tell the present one.
    pub initial_profile: UserProfile,
    /// The user's own realm.
    pub user_realm_id: RealmId,
    /// Its key.
    pub user_realm_key: SecretKey,
    /// Key of everything on this device's disk.
    pub local_symkey: SecretKey,
    /// Our extension: key of the logs of an organization without a server, absent on a server.
    pub organization_key: Option<SecretKey>,
}

const NAMES: &[&str] = &[
    "server_url",
    "organization_id",
    "root_verify_key",
    "user_id",
    "device_id",
    "device_label",
    "human_handle",
    "signing_key",
    "private_key",
    "initial_profile",
    "user_realm_id",
    "user_realm_key",
    "local_symkey",
    "organization_key",
];

impl Document for LocalDevice {
    const KIND: &'static str = "local_device";

    fn read(document: Value) -> Result<Self> {
        let mut fields = Fields::document(document, Self::KIND, NAMES)?;
        Ok(Self {
            server_url: fields.get_with("server_url", read_storage_address)?,
            organization_id: fields.get("organization_id")?,
            root_verify_key: fields.get("root_verify_key")?,
            user_id: fields.get("user_id")?,
            device_id: fields.get("device_id")?,
            device_label: fields.get("device_label")?,
            human_handle: fields.get("human_handle")?,
            signing_key: fields.get("signing_key")?,
            private_key: fields.get("private_key")?,
            initial_profile: fields.get("initial_profile")?,
            user_realm_id: fields.get("user_realm_id")?,
            user_realm_key: fields.get("user_realm_key")?,
            local_symkey: fields.get("local_symkey")?,
            organization_key: fields.get_if_there("organization_key")?,
        })
    }

    fn write(&self) -> Value {
        Writer::document(Self::KIND)
            .field("server_url", &self.server_url)
            .field("organization_id", &self.organization_id)
            .field("root_verify_key", &self.root_verify_key)
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .field("device_label", &self.device_label)
            .field("human_handle", &self.human_handle)
            .field("signing_key", &self.signing_key)
            .field("private_key", &self.private_key)
            .field("initial_profile", &self.initial_profile)
            .field("user_realm_id", &self.user_realm_id)
            .field("user_realm_key", &self.user_realm_key)
            .field("local_symkey", &self.local_symkey)
            .field_if_some("organization_key", self.organization_key.as_ref())
            .finish()
    }
}

impl LocalDevice {
    /// Seals it for a device file.
    #[must_use]
    pub fn seal(&self, key: &SecretKey) -> Vec<u8> {
        key.seal(&to_secret_msgpack(self.write()))
    }

    /// Opens the sealed part of a device file. `Decryption` when the key is another one.
    pub fn open(sealed: &[u8], key: &SecretKey) -> Result<Self> {
        let refused = |_| Error::new(ErrorKind::Decryption, "device does not open with this key");
        let clear = Zeroizing::new(key.open(sealed).map_err(refused)?);
        Self::read(from_msgpack(&clear)?)
    }
}

/// Secrets do not print.
impl fmt::Debug for LocalDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalDevice({})", self.device_id)
    }
}
