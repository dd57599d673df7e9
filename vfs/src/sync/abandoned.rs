//! Blocks of files that were written to while they went up. They are on the storage, in no version yet: when the file
//! goes up again, what is the same in it is not sent again. Otherwise a file that is written to all the time, as by a
//! database, would fill the storage with blocks that nothing refers to.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use parsecfs_core::{id::VlobId, manifest::BlockAccess};

/// By file and offset, the newest that was put.
#[derive(Debug, Default)]
pub(super) struct Abandoned(Mutex<BTreeMap<VlobId, BTreeMap<u64, BlockAccess>>>);

impl Abandoned {
    /// A file went no further than these blocks.
    pub(super) fn keep(&self, id: VlobId, blocks: &[BlockAccess]) {
        self.0.lock().entry(id).or_default().extend(blocks.iter().map(|block| (block.offset, *block)));
    }

    /// A block of a file with this content.
    pub(super) fn find(&self, id: VlobId, offset: u64, size: u64, digest: &[u8; 32]) -> Option<BlockAccess> {
        let block = self.0.lock().get(&id)?.get(&offset).copied()?;
        (block.size == size && block.digest == *digest).then_some(block)
    }

    /// A version of the file refers to what it needs of them.
    pub(super) fn done(&self, id: VlobId) {
        self.0.lock().remove(&id);
    }

    /// Nothing is known of what was on its way.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}
