//! What certificates say only to those who have the realm's key: its name, and that the key is the right one.

use parsecfs_crypto::SecretKey;

use crate::{
    error::{Error, ErrorKind, Result},
    name::EntryName,
};

const CANARY: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const NAME: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// Seals the name of a realm.
#[must_use]
pub fn seal_realm_name(name: &EntryName, realm_key: &SecretKey) -> Vec<u8> {
    realm_key.derive(&NAME).seal(name.reveal().as_bytes())
}

/// Opens the name of a realm.
pub fn open_realm_name(sealed: &[u8], realm_key: &SecretKey) -> Result<EntryName> {
    let name = realm_key
        .derive(&NAME)
        .open(sealed)
        .map_err(|_| Error::new(ErrorKind::Decryption, "realm name does not open with this key"))?;
    EntryName::new(std::str::from_utf8(&name).map_err(|_| Error::new(ErrorKind::Invalid, "realm name is not UTF-8"))?)
}

/// Seals nothing, so that readers can tell that they have the right key.
#[must_use]
pub fn seal_canary(realm_key: &SecretKey) -> Vec<u8> {
    realm_key.derive(&CANARY).seal(&[])
}

/// Whether a key is the one that the canary was made with.
#[must_use]
pub fn canary_holds(canary: &[u8], realm_key: &SecretKey) -> bool {
    realm_key.derive(&CANARY).open(canary).is_ok_and(|clear| clear.is_empty())
}
