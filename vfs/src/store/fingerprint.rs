//! Whether the index is, byte for byte, as it was when the store was closed.
//!
//! Saves looking at every row at each opening. Nothing relies on the file that holds the fingerprint: when it is gone,
//! stale or damaged, the rows are looked at.

use std::{
    fs::File,
    io::{Read, Result},
    path::{Path, PathBuf},
};

use parsecfs_crypto::local::{LOCAL_TAG_BYTES, LocalKey, LocalNonce};

/// Bytes that are digested at a time.
const PART_BYTES: usize = 1 << 20;

/// Remembers the index as it is now.
pub(super) fn record(index: &Path) -> Result<()> {
    std::fs::write(place(index), fingerprint(index)?)
}

/// Whether it is as it was remembered.
pub(super) fn is_as_recorded(index: &Path) -> bool {
    std::fs::read(place(index)).is_ok_and(|known| fingerprint(index).is_ok_and(|now| now == known))
}

fn place(index: &Path) -> PathBuf {
    index.with_extension("closed")
}

/// A checksum against damage, no secret: the tag of AEGIS-256 under a key that everybody knows, since nothing here is as
/// fast. Each part is the associated data of the tag so far.
fn fingerprint(index: &Path) -> Result<Vec<u8>> {
    let (key, nonce) = (LocalKey::from_bytes([0; 32]), LocalNonce::new([0; 16], 0, 0));
    let mut file = File::open(index)?;
    let mut tag = vec![0; LOCAL_TAG_BYTES];
    let mut part = Vec::with_capacity(PART_BYTES);
    loop {
        part.clear();
        if (&mut file).take(PART_BYTES as u64).read_to_end(&mut part)? == 0 {
            return Ok(tag);
        }
        let mut sealed = Vec::with_capacity(2 * LOCAL_TAG_BYTES);
        key.seal_into(&nonce, &part, &tag, &mut sealed);
        tag = sealed.split_off(LOCAL_TAG_BYTES);
    }
}
