//! The keys of a realm: a sealed, signed list of all of them, an access to it for each member, and which of them can
//! be trusted (formats.md 4.1 and 4.2).

use std::fmt;

use parsecfs_crypto::{PrivateKey, PublicKey, SecretKey, SigningKey, VerifyKey};
use rmpv::Value;
use zeroize::Zeroizing;

use crate::{
    certificate::{RealmKeyRotationCertificate, canary_holds},
    document::{
        Document, Field, Fields, Writer, documents, from_secret_frame, malformed, read_list, sign_secret,
        to_secret_frame, verify, without_trust,
    },
    error::{Error, ErrorKind, Result},
    id::{DeviceId, RealmId},
    time::Timestamp,
};

/// All keys of a realm at the time of a rotation; key index i is element i - 1.
pub struct KeysBundle {
    /// Device that signed.
    pub author: DeviceId,
    /// When. Not the time of the rotation certificate: official writers ask the clock twice.
    pub timestamp: Timestamp,
    /// Which realm.
    pub realm_id: RealmId,
    /// At least one.
    pub keys: Vec<SecretKey>,
}

impl Document for KeysBundle {
    const KIND: &'static str = "realm_keys_bundle";

    fn read(document: Value) -> Result<Self> {
        let mut fields = Fields::document(document, Self::KIND, &["author", "timestamp", "realm_id", "keys"])?;
        let bundle = Self {
            author: fields.get("author")?,
            timestamp: fields.get("timestamp")?,
            realm_id: fields.get("realm_id")?,
            keys: fields.get_with("keys", read_list)?,
        };
        if bundle.keys.is_empty() { Err(malformed("bundle has no keys")) } else { Ok(bundle) }
    }

    fn write(&self) -> Value {
        Writer::document(Self::KIND)
            .field("author", &self.author)
            .field("timestamp", &self.timestamp)
            .field("realm_id", &self.realm_id)
            .value("keys", Value::Array(self.keys.iter().map(Field::write).collect()))
            .finish()
    }
}

documents! {
    /// Opens a bundle. Not signed: who could seal a wrong one gains nothing, since the bundle is.
    KeysBundleAccess = "realm_keys_bundle_access" {
        /// Key of the bundle.
        keys_bundle_key: SecretKey,
    }
}

impl KeysBundleAccess {
    /// Seals it for a member. `Invalid` when the member's key is not a usable one.
    pub fn seal(&self, member: &PublicKey) -> Result<Vec<u8>> {
        let unusable = |_| Error::new(ErrorKind::Invalid, "cannot seal for this public key");
        member.seal(&to_secret_frame(self.write())).map_err(unusable)
    }

    /// The bare document, to be sealed for a sequester service.
    #[must_use]
    pub fn to_service_frame(&self) -> Zeroizing<Vec<u8>> {
        to_secret_frame(self.write())
    }

    /// Opens one's own.
    pub fn open(sealed: &[u8], key: &PrivateKey) -> Result<Self> {
        let refused = |_| Error::new(ErrorKind::Decryption, "keys bundle access does not open with this key");
        let frame = Zeroizing::new(key.open(sealed).map_err(refused)?);
        Self::read(from_secret_frame(&frame)?)
    }
}

impl KeysBundle {
    /// Signs, then seals.
    #[must_use]
    pub fn seal(&self, author: &SigningKey, access: &KeysBundleAccess) -> Vec<u8> {
        access.keys_bundle_key.seal(&sign_secret(self, author))
    }

    /// Opens a bundle. `key_of` names the key of the device that claims to have signed it at that time.
    pub fn open<'a>(
        sealed: &[u8],
        access: &KeysBundleAccess,
        key_of: impl FnOnce(DeviceId, Timestamp) -> Option<&'a VerifyKey>,
    ) -> Result<Self> {
        let refused = |_| Error::new(ErrorKind::Decryption, "keys bundle does not open with this key");
        let signed = Zeroizing::new(access.keys_bundle_key.open(sealed).map_err(refused)?);
        let claimed = Self::read(from_secret_frame(without_trust(&signed)?)?)?;
        let unknown = Error::new(ErrorKind::Untrusted, "keys bundle of an unknown author");
        verify(&signed, key_of(claimed.author, claimed.timestamp).ok_or(unknown)?)?;
        Ok(claimed)
    }
}

/// Keys of a realm, each proved by the canary of its rotation.
pub struct RealmKeys(Vec<Option<SecretKey>>);

impl RealmKeys {
    /// Checks a bundle against the first rotations of its realm, as many as it has keys. A key that fails its canary
    /// is left out; the others stay usable.
    pub fn new(bundle: KeysBundle, realm: RealmId, rotations: &[RealmKeyRotationCertificate]) -> Result<Self> {
        if bundle.realm_id != realm {
            return Err(Error::new(ErrorKind::RealmId, "keys bundle of another realm"));
        }
        let untrusted = Error::new(ErrorKind::Untrusted, "keys bundle does not belong to a rotation");
        let rotations = rotations.get(..bundle.keys.len()).ok_or(untrusted)?;
        if rotations.last().is_none_or(|newest| newest.author != bundle.author) {
            return Err(Error::new(ErrorKind::Author, "keys bundle of another author than its rotation"));
        }
        let proved = bundle.keys.into_iter().zip(rotations);
        Ok(Self(proved.map(|(key, rotation)| canary_holds(&rotation.key_canary, &key).then_some(key)).collect()))
    }

    /// Key that opens what was sealed with this index.
    #[must_use]
    pub fn key(&self, index: u64) -> Option<&SecretKey> {
        let index = usize::try_from(index.checked_sub(1)?).ok()?;
        self.0.get(index)?.as_ref()
    }

    /// Index of the newest key.
    #[must_use]
    pub fn newest_index(&self) -> u64 {
        self.0.len() as u64
    }

    /// Index and key that seal what is written now. `None` when the newest key is wrong: an older one might be known
    /// to somebody who is no longer a member.
    #[must_use]
    pub fn newest(&self) -> Option<(u64, &SecretKey)> {
        let index = self.newest_index();
        Some((index, self.key(index)?))
    }

    /// Copies of all keys, for the bundle of the next rotation. `None` when one is wrong.
    #[must_use]
    pub fn all(&self) -> Option<Vec<SecretKey>> {
        self.0.iter().cloned().collect()
    }
}

/// Keys do not print.
impl fmt::Debug for RealmKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RealmKeys({})", self.0.len())
    }
}
