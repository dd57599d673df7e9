//! Holes as the storage has them: no file there has any before its last block, so a block of zeros stands for each.
//!
//! Its digest is known, so it is neither fetched nor kept: here it is a hole again, for who reads and who looks for one.

use std::sync::{Arc, LazyLock};

use parsecfs_core::manifest::BlockAccess;
use parsecfs_crypto::sha256;

use super::BLOCK_BYTES;

static DIGEST: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let zeros = vec![0; usize::try_from(BLOCK_BYTES).expect("a block fits into memory")];
    *sha256(&zeros).as_bytes()
});

/// The blocks of a manifest that are not known to be zeros.
pub(super) fn without_zeros(blocks: &[BlockAccess]) -> Arc<[BlockAccess]> {
    blocks.iter().filter(|block| block.size != BLOCK_BYTES || block.digest != *DIGEST).copied().collect()
}
