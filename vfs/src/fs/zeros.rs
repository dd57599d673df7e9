//! Holes as the storage has them: no file there has any before its last block, so a block of zeros stands for each.
//!
//! Its digest is known, so it is neither fetched nor kept: here it is a hole again, for who reads and who looks for one.

use std::sync::{Arc, OnceLock};

use parsecfs_core::manifest::BlockAccess;
use parsecfs_crypto::sha256;

use crate::blocksize::BLOCKSIZES;

/// Digests of zeros, once needed, by size of block.
static DIGESTS: [OnceLock<[u8; 32]>; BLOCKSIZES.len()] = [const { OnceLock::new() }; BLOCKSIZES.len()];

fn is_zeros(block: &BlockAccess) -> bool {
    let Some(at) = BLOCKSIZES.iter().position(|size| *size == block.size) else { return false };
    let digest = DIGESTS[at].get_or_init(|| {
        let zeros = vec![0; usize::try_from(block.size).expect("a block fits into memory")];
        *sha256(&zeros).as_bytes()
    });
    *digest == block.digest
}

/// The blocks of a manifest that are not known to be zeros.
pub(super) fn without_zeros(blocks: &[BlockAccess]) -> Arc<[BlockAccess]> {
    blocks.iter().filter(|block| !is_zeros(block)).copied().collect()
}
