//! The keys of a realm: fetched, proved against the certificates, kept for offline use (formats.md 4).
//!
//! The bundle comes from the storage and is believed only as far as signed rotation certificates go: its author must be
//! the one who rotated, it must hold one key for each rotation, and each key must open its rotation's canary. A key that
//! does not is left out; the others stay usable.
//!
//! On disk the bundle and the access lie as the storage gave them, sealed once more: reading them back is the same
//! validation as a fresh answer.

use std::sync::Arc;

use parsecfs_core::{
    id::RealmId,
    keys_bundle::{self, KeysBundleAccess, RealmKeys},
    storage::{Bytes, KeysBundle},
    trust::RealmTrust,
};

use super::{Organization, certificate_store::RecordKind, refused};
use crate::error::{Error, ErrorKind, Result};

impl Organization {
    /// The keys of `realm`, validated: from memory, from this device's disk, or from the storage. Offline they may be
    /// older than the newest rotation; they still open what was sealed before it. `NotFound` when the realm has no key
    /// yet, `Offline` when none is known here and the storage cannot be reached.
    pub async fn realm_keys(&self, realm: RealmId) -> Result<Arc<RealmKeys>> {
        let newest = self.trust().realm(realm).map_or(0, RealmTrust::key_index);
        if newest == 0 {
            return Err(Error::new(ErrorKind::NotFound, format!("realm {realm} has no key yet")));
        }
        if self.keys.realm(realm).is_none() {
            self.remembered_keys(realm).await?;
        }
        if let Some(keys) = self.keys.realm(realm).filter(|keys| keys.newest_index() >= newest) {
            return Ok(keys);
        }
        match self.fetched_keys(realm, newest).await {
            Err(error) if error.kind() == ErrorKind::Offline => self.keys.realm(realm).ok_or(error),
            answer => answer,
        }
    }

    /// Learns the keys on disk, if they are there. Damage is not an error: the storage has them too.
    async fn remembered_keys(&self, realm: RealmId) -> Result<()> {
        let record = match self.on_disk(move |disk| disk.record(RecordKind::KeysBundle, realm)).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => None,
            record => record?,
        };
        let keys = record.and_then(|record| decode(&record)).map(|bundle| self.validate(realm, &bundle));
        if let Some(Ok(keys)) = keys {
            self.keys.learn(realm, Arc::new(keys));
        }
        Ok(())
    }

    async fn fetched_keys(&self, realm: RealmId, key_index: u64) -> Result<Arc<RealmKeys>> {
        let bundle = self.storage.keys_bundle(realm, key_index).await?;
        let keys = Arc::new(self.validate(realm, &bundle)?);
        let record = encode(&bundle);
        self.on_disk(move |disk| disk.put_record(RecordKind::KeysBundle, realm, &record)).await?;
        self.keys.learn(realm, Arc::clone(&keys));
        Ok(keys)
    }

    /// formats.md 4.2.
    fn validate(&self, realm: RealmId, sealed: &KeysBundle) -> Result<RealmKeys> {
        let trust = self.trust();
        let open = || {
            let access = KeysBundleAccess::open(&sealed.access, &self.device.private_key)?;
            let bundle = keys_bundle::KeysBundle::open(&sealed.bundle, &access, |device, at| {
                trust.device_at(device, at).map(|device| &device.verify_key)
            })?;
            RealmKeys::new(bundle, realm, trust.realm(realm).map_or(&[], RealmTrust::rotations))
        };
        let context = || format!("keys bundle {} of realm {realm}", sealed.key_index);
        let keys = open().map_err(|error| refused(context(), error))?;
        if keys.newest_index() != sealed.key_index {
            return Err(Error::new(ErrorKind::Untrusted, format!("{} has another number of keys", context())));
        }
        Ok(keys)
    }
}

// A keys bundle in a record: key index (u64), length of the access (u32, both little endian), access, bundle.

fn encode(bundle: &KeysBundle) -> Vec<u8> {
    let KeysBundle { key_index, bundle, access } = bundle;
    let access_bytes = u32::try_from(access.len()).expect("an access is about 100 bytes");
    [&key_index.to_le_bytes(), &access_bytes.to_le_bytes()[..], access, bundle].concat()
}

pub(super) fn decode(record: &[u8]) -> Option<KeysBundle> {
    let (key_index, rest) = record.split_first_chunk()?;
    let (access_bytes, rest) = rest.split_first_chunk()?;
    let (access, bundle) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*access_bytes)).ok()?)?;
    Some(KeysBundle {
        key_index: u64::from_le_bytes(*key_index),
        bundle: Bytes::copy_from_slice(bundle),
        access: Bytes::copy_from_slice(access),
    })
}
