//! The keys that a storage needs a hand with, without ever being given one.
//!
//! [`OrganizationKeys`] is made from the device before the storage, because an organization without a server keeps
//! everything, the certificates that lead to the realm keys included, in logs that are sealed. It starts with the
//! organization's key and learns realm keys as [`Organization`](super::Organization) validates them. Dropping the last
//! holder wipes them.
//!
//! A sealed entry is `nonce (32, random) ‖ AEGIS-256 ciphertext ‖ tag (32)`. Each log and key index has a key of its
//! own: derived from the organization's key by the realm's id, or by [`ORGANIZATION_LOG`]; derived from a realm key by
//! [`REALM_LOG`], which is neither a canary nor a name purpose (formats.md 1.2) nor a random id.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use parsecfs_core::{
    id::{DeviceId, RealmId, UserId},
    keys_bundle::RealmKeys,
    local_device::LocalDevice,
    storage::{Error, ErrorKind, LogId, LogKeys, Result, Signer},
};
use parsecfs_crypto::{
    SecretKey, SigningKey,
    local::{LOCAL_TAG_BYTES, LocalKey, LocalNonce},
};

const ORGANIZATION_LOG: [u8; 16] = *b"parsecfs/org/log";
const REALM_LOG: [u8; 16] = *b"parsecfs/rea/log";
const ENTRY_PURPOSE: &[u8; 8] = b"logentry";
/// Index of the organization's key.
const ORGANIZATION_KEY: u64 = 0;
const NONCE_BYTES: usize = 32;

/// What this device can seal and open: shared by the storage and the organization over it.
pub struct OrganizationKeys {
    signer: Arc<DeviceSigner>,
    /// Absent on a server, which keeps no log.
    organization_key: Option<SecretKey>,
    /// Short sections, never across an await.
    realms: RwLock<HashMap<RealmId, Arc<RealmKeys>>>,
}

impl OrganizationKeys {
    /// The keys that `device` brings with it.
    #[must_use]
    pub fn new(device: &LocalDevice) -> Arc<Self> {
        Arc::new(Self {
            signer: Arc::new(DeviceSigner {
                device_id: device.device_id,
                user_id: device.user_id,
                signing_key: device.signing_key.clone(),
            }),
            organization_key: device.organization_key.clone(),
            realms: RwLock::default(),
        })
    }

    /// Signs for the device.
    #[must_use]
    pub fn signer(&self) -> Arc<dyn Signer> {
        Arc::clone(&self.signer) as Arc<dyn Signer>
    }

    /// The keys of `realm` as far as they were validated.
    #[must_use]
    pub fn realm(&self, realm: RealmId) -> Option<Arc<RealmKeys>> {
        self.realms.read().unwrap_or_else(PoisonError::into_inner).get(&realm).cloned()
    }

    /// Keeps validated keys; never replaces newer ones.
    pub(super) fn learn(&self, realm: RealmId, keys: Arc<RealmKeys>) {
        let mut realms = self.realms.write().unwrap_or_else(PoisonError::into_inner);
        let known = realms.entry(realm).or_insert_with(|| Arc::clone(&keys));
        if known.newest_index() < keys.newest_index() {
            *known = keys;
        }
    }

    fn log_key(&self, log: LogId, key_index: u64) -> Result<LocalKey> {
        let unknown = || Error::new(ErrorKind::NotFound, format!("key {key_index} of {log:?} is not known here"));
        let key = match (log, key_index) {
            (LogId::Organization, ORGANIZATION_KEY) => {
                self.organization_key.as_ref().ok_or_else(unknown)?.derive(&ORGANIZATION_LOG)
            }
            (LogId::Realm(realm), ORGANIZATION_KEY) => {
                self.organization_key.as_ref().ok_or_else(unknown)?.derive(realm.as_bytes())
            }
            (LogId::Realm(realm), index) => {
                let keys = self.realm(realm).ok_or_else(unknown)?;
                keys.key(index).ok_or_else(unknown)?.derive(&REALM_LOG)
            }
            (LogId::Organization, _) => return Err(unknown()),
        };
        Ok(LocalKey::derive(&key, ENTRY_PURPOSE))
    }
}

impl LogKeys for OrganizationKeys {
    fn seal(&self, log: LogId, key_index: u64, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let key = self.log_key(log, key_index)?;
        let nonce = LocalNonce::random();
        let mut sealed = Vec::with_capacity(NONCE_BYTES + plain.len() + LOCAL_TAG_BYTES);
        sealed.extend_from_slice(nonce.as_bytes());
        key.seal_into(&nonce, associated, plain, &mut sealed);
        Ok(sealed)
    }

    fn open(&self, log: LogId, key_index: u64, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let key = self.log_key(log, key_index)?;
        let damaged = || Error::new(ErrorKind::Corrupt, format!("an entry of {log:?} does not open"));
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
        let mut plain = vec![0; sealed.len().checked_sub(LOCAL_TAG_BYTES).ok_or_else(damaged)?];
        key.open_into(&LocalNonce::from_bytes(*nonce), associated, sealed, &mut plain)
            .map_err(|error| damaged().caused_by(error))?;
        Ok(plain)
    }
}

impl fmt::Debug for OrganizationKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OrganizationKeys")
    }
}

/// Signs with the device's key.
pub struct DeviceSigner {
    device_id: DeviceId,
    user_id: UserId,
    signing_key: SigningKey,
}

impl Signer for DeviceSigner {
    fn device_id(&self) -> DeviceId {
        self.device_id
    }

    fn user_id(&self) -> UserId {
        self.user_id
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing_key.sign_detached(message)
    }
}
