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

    /// For a round: what is kept in it was put only when [`Round::sent`] is said.
    pub(super) fn forgotten_unless_sent(&self) -> Round<'_> {
        Round(Some(self))
    }
}

/// A round of sending. When it fails, or is given up in the middle, nothing is known of what was put.
pub(super) struct Round<'a>(Option<&'a Abandoned>);

impl Round<'_> {
    /// All that was kept is on the storage.
    pub(super) fn sent(mut self) {
        self.0 = None;
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if let Some(abandoned) = self.0 {
            abandoned.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use parsecfs_core::id::BlockId;

    use super::*;

    #[test]
    fn what_a_round_kept_counts_only_when_it_was_sent() {
        let id = VlobId::from_bytes([1; 16]);
        let block = BlockAccess { id: BlockId::from_bytes([2; 16]), offset: 0, size: 7, digest: [3; 32] };
        let abandoned = Abandoned::default();
        let found = || abandoned.find(id, 0, 7, &[3; 32]);
        let round = abandoned.forgotten_unless_sent();
        abandoned.keep(id, &[block]);
        round.sent();
        assert_eq!(found(), Some(block));
        assert_eq!(abandoned.find(id, 0, 7, &[4; 32]), None, "other content");
        // Given up in the middle, as when the future of a round is dropped.
        drop(abandoned.forgotten_unless_sent());
        assert_eq!(found(), None);
    }
}
