//! How large the blocks of a file are: a change sends one block and the list of all, so neither may outgrow the other.
//!
//! A file is made with blocks of 512 KiB. When sync is about to send it and the list has grown longer than a block, the
//! next version has larger blocks; that rewrites the whole file. So it happens when half of the file is sent anyway,
//! as in a large copy, and else only when the list is four times a block, or more than the storage takes. A file that
//! grows bit by bit is sent anew at 16 GiB and at 256 GiB; what a change of 4 KiB sends in between is at most a block and a list
//! of four blocks' length: 5 MB in a file of 100 GiB, where it was 11. Above 256 GiB the list grows with the file again,
//! by 13 bytes each MiB. Blocks never become smaller, and a file whose blocks have a size of another client keeps it.

use parsecfs_core::block::BLOCK_OVERHEAD_BYTES;

/// Sizes of blocks, smallest first. The second is the largest that a Parsec server takes (formats.md 5.5).
pub(crate) const BLOCKSIZES: [u64; 4] = [512 << 10, 1020 << 10, 2 << 20, 4 << 20];

/// Bytes of one block in the list, about and rather too many.
pub(crate) const LISTED_BYTES: u64 = 64;

/// What a file lists in its next version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    /// Blocks, one that is there again and again counted once.
    pub(crate) blocks: u64,
    /// Of these, what the storage has already.
    pub(crate) kept: u64,
}

/// Bytes that the storage takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) block_bytes_max: u64,
    pub(crate) manifest_bytes_max: u64,
}

/// The larger block size that the next version of a file gets, if it does.
pub(crate) fn larger(blocksize: u64, listed: Listed, limits: Limits) -> Option<u64> {
    let at = BLOCKSIZES.iter().position(|size| *size == blocksize)?;
    let list_bytes = listed.blocks * LISTED_BYTES;
    let is_cheap = list_bytes > blocksize && 2 * listed.kept <= listed.blocks;
    // Whose content did not change is not rewritten for that alone.
    let is_due = list_bytes > (4 * blocksize).min(limits.manifest_bytes_max) && listed.kept < listed.blocks;
    if !is_cheap && !is_due {
        return None;
    }
    let sizes = BLOCKSIZES.iter().copied().skip(at + 1);
    let mut sizes = sizes.take_while(|size| size + BLOCK_OVERHEAD_BYTES <= limits.block_bytes_max).peekable();
    while let Some(size) = sizes.next() {
        if listed.blocks.saturating_mul(blocksize) / size * LISTED_BYTES <= size || sizes.peek().is_none() {
            return Some(size);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: Limits =
        Limits { block_bytes_max: (4 << 20) + BLOCK_OVERHEAD_BYTES, manifest_bytes_max: 64 << 20 };
    const SERVER: Limits = Limits { block_bytes_max: (1 << 20) - 256, manifest_bytes_max: (1 << 20) - 256 };
    const GIB: u64 = 1 << 30;

    fn of(bytes: u64, blocksize: u64, kept: u64, limits: Limits) -> Option<u64> {
        let blocks = bytes.div_ceil(blocksize);
        larger(blocksize, Listed { blocks, kept: kept.min(blocks) }, limits)
    }

    #[test]
    fn a_file_that_is_sent_for_the_first_time_has_blocks_for_its_size() {
        let first = |gib: u64, limits| of(gib * GIB, 512 << 10, 0, limits);
        assert_eq!(first(4, DIRECTORY), None);
        assert_eq!(first(5, DIRECTORY), Some(1020 << 10));
        assert_eq!(first(20, DIRECTORY), Some(2 << 20));
        assert_eq!(first(100, DIRECTORY), Some(4 << 20));
        assert_eq!(first(16 << 10, DIRECTORY), Some(4 << 20));
        assert_eq!(first(100, SERVER), Some(1020 << 10));
    }

    #[test]
    fn a_file_that_is_there_is_not_sent_anew_before_its_list_is_long() {
        let all_but_one =
            |gib: u64, blocksize: u64, limits| of(gib * GIB, blocksize, gib * GIB / blocksize - 1, limits);
        assert_eq!(all_but_one(16, 512 << 10, DIRECTORY), None);
        assert_eq!(all_but_one(17, 512 << 10, DIRECTORY), Some(2 << 20));
        assert_eq!(all_but_one(255, 2 << 20, DIRECTORY), None);
        assert_eq!(all_but_one(300, 2 << 20, DIRECTORY), Some(4 << 20));
        assert_eq!(all_but_one(1 << 10, 4 << 20, DIRECTORY), None);
        // It would not fit the server any more.
        assert_eq!(all_but_one(7, 512 << 10, SERVER), None);
        assert_eq!(all_but_one(9, 512 << 10, SERVER), Some(1020 << 10));
    }

    #[test]
    fn what_did_not_change_and_blocks_of_other_clients_stay() {
        assert_eq!(of(100 * GIB, 512 << 10, u64::MAX, DIRECTORY), None);
        assert_eq!(of(GIB, 4096, 0, DIRECTORY), None);
        assert_eq!(of(GIB, 8 << 20, 0, DIRECTORY), None);
    }
}
