//! Manifests as vlobs: signed, then sealed with a key of their own (formats.md 4.3).

use parsecfs_crypto::{SecretKey, SigningKey, VerifyKey};

use super::{FolderManifest, Manifest, UserManifest};
use crate::{
    document::{Document, from_frame, from_msgpack, sign, to_frame, to_msgpack, verify},
    error::{Error, ErrorKind, Result},
    id::{DeviceId, RealmId, VlobId},
    time::Timestamp,
};

/// What the storage claims about a vlob; the signed manifest must say the same.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Key of `author`, who exists and may write at `timestamp`: for the caller to have checked.
    pub verify_key: &'a VerifyKey,
    /// Device that stored it.
    pub author: DeviceId,
    /// When.
    pub timestamp: Timestamp,
    /// The realm it was stored in; tells its root folder from all others.
    pub realm: RealmId,
    /// Which vlob.
    pub id: VlobId,
    /// Which version.
    pub version: u32,
}

impl Expected<'_> {
    fn check(&self, author: DeviceId, timestamp: Timestamp, id: VlobId, version: u32) -> Result<()> {
        let refuse = |kind, context| Err(Error::new(kind, context));
        if author != self.author {
            refuse(ErrorKind::Author, "manifest names another author")
        } else if timestamp != self.timestamp {
            refuse(ErrorKind::Timestamp, "manifest names another time")
        } else if id != self.id {
            refuse(ErrorKind::Id, "manifest of another vlob")
        } else if version != self.version {
            refuse(ErrorKind::Version, "manifest of another version")
        } else {
            Ok(())
        }
    }

    fn root(&self) -> bool {
        self.id == self.realm.root()
    }
}

fn open(sealed: &[u8], key: &SecretKey) -> Result<Vec<u8>> {
    key.open(sealed).map_err(|_| Error::new(ErrorKind::Decryption, "vlob does not open with this key"))
}

impl Manifest {
    /// Signs, then seals for its vlob.
    #[must_use]
    pub fn seal(&self, author: &SigningKey, realm_key: &SecretKey) -> Vec<u8> {
        realm_key.derive(self.id().as_bytes()).seal(&author.sign(&to_frame(&self.write())))
    }

    /// Opens a vlob and checks all that it says against what was expected.
    pub fn open(sealed: &[u8], realm_key: &SecretKey, expected: &Expected<'_>) -> Result<Self> {
        Self::verify(&open(sealed, &realm_key.derive(expected.id.as_bytes()))?, expected)
    }

    /// Checks an opened vlob: signature, document, rules, then author, time, id and version.
    pub fn verify(signed: &[u8], expected: &Expected<'_>) -> Result<Self> {
        let document = from_frame(verify(signed, expected.verify_key)?)?;
        let manifest =
            if expected.root() { Self::Folder(FolderManifest::read(document)?) } else { Self::read(document)? };
        manifest.check_structure(expected.root())?;
        expected.check(manifest.author(), manifest.timestamp(), manifest.id(), manifest.version())?;
        Ok(manifest)
    }

    fn check_structure(&self, root: bool) -> Result<()> {
        if (self.id() == self.parent()) != root {
            return Err(Error::new(ErrorKind::Integrity, "only the root is its own parent"));
        }
        match self {
            Self::File(file) => file.check_blocks(),
            Self::Folder(_) => Ok(()),
        }
    }

    /// The bare document, for the local store, which seals it in its own form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_msgpack(&self.write())
    }

    /// Reads what [`Manifest::to_bytes`] wrote. Proves nothing but that it is a legal manifest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let manifest = Self::read(from_msgpack(bytes)?)?;
        manifest.check_structure(manifest.id() == manifest.parent() && matches!(manifest, Self::Folder(_)))?;
        Ok(manifest)
    }
}

impl UserManifest {
    /// Signs, then seals with the user realm's key itself.
    #[must_use]
    pub fn seal(&self, author: &SigningKey, user_realm_key: &SecretKey) -> Vec<u8> {
        user_realm_key.seal(&sign(self, author))
    }

    /// Opens a user realm's vlob and checks all that it says against what was expected.
    pub fn open(sealed: &[u8], user_realm_key: &SecretKey, expected: &Expected<'_>) -> Result<Self> {
        let signed = open(sealed, user_realm_key)?;
        let manifest = Self::from_frame(verify(&signed, expected.verify_key)?)?;
        expected.check(manifest.author, manifest.timestamp, manifest.id, manifest.version)?;
        Ok(manifest)
    }
}
