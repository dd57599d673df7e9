//! Manifests and blocks between their clear and their sealed form, with every check that a reader owes (formats.md 4.3,
//! 4.4).
//!
//! Pure CPU on what is known now, for the blocking pool: nothing here waits for a disk or the storage. What cannot be
//! judged with the certificates and keys that are known answers [`ErrorKind::Stale`]:
//! [`refresh`](Organization::refresh), then [`realm_keys`](Organization::realm_keys), then once more; what is still
//! `Stale` then is somebody else's invention, [`ErrorKind::Untrusted`] to whoever asked.

use std::sync::Arc;

use parsecfs_core::{
    block,
    id::{BlockId, RealmId},
    keys_bundle::RealmKeys,
    manifest::{BlockAccess, Expected, Manifest},
    storage::{Block, Bytes, VlobRecord},
    trust::RealmTrust,
};
use parsecfs_crypto::SecretKey;

use super::{Organization, refused};
use crate::error::{Error, ErrorKind, Result};

/// Sealed bytes and the key that seals them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Index of the realm key.
    pub key_index: u64,
    /// What goes to the storage.
    pub bytes: Bytes,
}

impl Organization {
    /// Signs a manifest that names this device as its author, and seals it with the newest key.
    pub fn seal_manifest(&self, realm: RealmId, manifest: &Manifest) -> Result<Sealed> {
        assert_eq!(manifest.author(), self.device_id(), "a device signs for itself");
        let keys = self.newest_keys(realm)?;
        let (key_index, key) = newest(realm, &keys)?;
        Ok(Sealed { key_index, bytes: manifest.seal(&self.device.signing_key, key).into() })
    }

    /// Opens what the storage says is a version of a vlob, and checks that its author existed, belonged and might write
    /// when it was signed, and that the signed manifest says the same as the storage.
    pub fn open_manifest(&self, realm: RealmId, record: &VlobRecord) -> Result<Manifest> {
        let trust = self.trust();
        // Also what is merely unknown here may be allowed by a certificate that was not fetched yet.
        let verify_key = trust.writer(record.author, realm, record.timestamp).map_err(|error| {
            Error::new(ErrorKind::Stale, format!("the author of vlob {} is not known to be allowed", record.id))
                .caused_by(error)
        })?;
        let keys = self.some_keys(realm)?;
        let expected = Expected {
            verify_key,
            author: record.author,
            timestamp: record.timestamp,
            realm,
            id: record.id,
            version: record.version,
        };
        Manifest::open(&record.blob, key(realm, &keys, record.key_index)?, &expected)
            .map_err(|error| refused(format!("version {} of vlob {}", record.version, record.id), error))
    }

    /// Seals the clear bytes of a block with the newest key.
    pub fn seal_block(&self, realm: RealmId, id: BlockId, clear: &[u8]) -> Result<Block> {
        let keys = self.newest_keys(realm)?;
        let (key_index, key) = newest(realm, &keys)?;
        Ok(Block { key_index, bytes: block::seal_block(clear, id, key).into() })
    }

    /// Opens a block and checks that it is the one that a verified manifest names.
    pub fn open_block(&self, realm: RealmId, access: &BlockAccess, sealed: &Block) -> Result<Vec<u8>> {
        let keys = self.some_keys(realm)?;
        block::open_block(&sealed.bytes, access, key(realm, &keys, sealed.key_index)?)
            .map_err(|error| refused(format!("block {}", access.id), error))
    }

    /// Keys to open with, however old.
    fn some_keys(&self, realm: RealmId) -> Result<Arc<RealmKeys>> {
        self.keys.realm(realm).ok_or_else(|| Error::new(ErrorKind::Stale, format!("no key of realm {realm} is loaded")))
    }

    /// Keys to seal with: what was sealed with an older key is refused by the storage.
    fn newest_keys(&self, realm: RealmId) -> Result<Arc<RealmKeys>> {
        let keys = self.some_keys(realm)?;
        if keys.newest_index() < self.trust().realm(realm).map_or(0, RealmTrust::key_index) {
            return Err(Error::new(ErrorKind::Stale, format!("the newest key of realm {realm} is not loaded")));
        }
        Ok(keys)
    }
}

/// The key to seal with, and its index.
pub(super) fn newest(realm: RealmId, keys: &RealmKeys) -> Result<(u64, &SecretKey)> {
    keys.newest().ok_or_else(|| Error::new(ErrorKind::Untrusted, format!("the newest key of realm {realm} is damaged")))
}

fn key(realm: RealmId, keys: &RealmKeys, index: u64) -> Result<&SecretKey> {
    let (kind, what) =
        if index > keys.newest_index() { (ErrorKind::Stale, "not loaded") } else { (ErrorKind::Untrusted, "damaged") };
    keys.key(index).ok_or_else(|| Error::new(kind, format!("key {index} of realm {realm} is {what}")))
}
