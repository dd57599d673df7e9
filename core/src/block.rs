//! Blocks: pieces of files, sealed with a key of their own and proved by the digest in a signed manifest
//! (formats.md 4.4).

use parsecfs_crypto::{SecretKey, sha256};

use crate::{
    error::{Error, ErrorKind, Result},
    id::BlockId,
    manifest::BlockAccess,
};

/// Bytes that sealing adds to a block.
pub const BLOCK_OVERHEAD_BYTES: u64 = 40;

/// Seals the bytes of a block.
#[must_use]
pub fn seal_block(clear: &[u8], id: BlockId, realm_key: &SecretKey) -> Vec<u8> {
    realm_key.derive(id.as_bytes()).seal(clear)
}

/// Opens a block and checks that it is what the manifest names.
pub fn open_block(sealed: &[u8], access: &BlockAccess, realm_key: &SecretKey) -> Result<Vec<u8>> {
    let clear = realm_key
        .derive(access.id.as_bytes())
        .open(sealed)
        .map_err(|_| Error::new(ErrorKind::Decryption, "block does not open with this key"))?;
    check_block(&clear, access)?;
    Ok(clear)
}

/// Checks that clear bytes are the block that the manifest names.
pub fn check_block(clear: &[u8], access: &BlockAccess) -> Result<()> {
    if u64::try_from(clear.len()) != Ok(access.size) {
        return Err(Error::new(ErrorKind::Size, "block has another size"));
    }
    if *sha256(clear).as_bytes() != access.digest {
        return Err(Error::new(ErrorKind::Digest, "block has another digest"));
    }
    Ok(())
}
