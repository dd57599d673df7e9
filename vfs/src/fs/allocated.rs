//! How many pages of a file are data: what stat tells as blocks, kept with every change and never looked for.
//!
//! A page is data when it is stored here, or when the base has a block there that is not known to be zeros; what
//! SEEK_DATA finds is the same. A change needs to know what was there before. Of a base without holes that is no
//! question, and it stays where it is; of one with holes its blocks are loaded, once between two syncs.
//!
//! Sync counts anew, since a hole that shares a block with data is data on the storage, and what was written as zeros
//! may be a hole there. Clean pages are always data of the base, so letting them go or filling them changes nothing.

use parsecfs_core::manifest::BlockAccess;

use super::Volume;
use crate::{
    content::{PAGE, Piece, Released, SLOT_PAGES, Slot, blocks_between, slot_of},
    error::Result,
    inode::{Allocated, State},
};

impl Volume {
    /// How many of pages `first..behind` are data; `None` when nobody counts. Their slots are in memory.
    pub(super) fn data_pages(&self, ino: u64, state: &mut State, first: u64, behind: u64) -> Result<Option<u64>> {
        let Some(Allocated { is_dense, .. }) = state.meta.allocated else { return Ok(None) };
        if !is_dense && state.meta.base_limit > first * PAGE {
            self.load_base_blocks(ino, state)?;
        }
        Ok(Some(count(state, is_dense, first, behind)))
    }
}

impl State {
    /// Of these pages so many were data and are now.
    pub(super) fn count_pages(&mut self, before: Option<u64>, now: u64) {
        if let (Some(allocated), Some(before)) = (&mut self.meta.allocated, before) {
            allocated.pages = (allocated.pages + now).saturating_sub(before);
        }
    }

    /// Counts anew. All slots and the blocks of the base are in memory. Whether something changed.
    pub(super) fn count_all(&mut self) -> bool {
        let (before, is_dense) = (self.meta.allocated, is_dense(self));
        let pages = count(self, is_dense, 0, self.meta.size.div_ceil(PAGE));
        self.meta.allocated = Some(Allocated { pages, is_dense });
        before.map(|before| before.pages) != Some(pages)
    }
}

/// Whether the base has data from the first byte to its last.
fn is_dense(state: &State) -> bool {
    let mut reached = 0;
    for block in state.base_blocks.iter().flat_map(|blocks| blocks.iter()) {
        if block.offset > reached || reached >= state.meta.base_limit {
            break;
        }
        reached = reached.max(block.offset.saturating_add(block.size));
    }
    reached >= state.meta.base_limit
}

fn count(state: &State, is_dense: bool, first: u64, behind: u64) -> u64 {
    let mut pages = base_pages(state, is_dense, first, behind);
    for (number, slot) in state.slots.from(slot_of(first).0) {
        let start = number * SLOT_PAGES;
        if start >= behind {
            break;
        }
        for extent in &slot.extents {
            let from = first.max(start + u64::from(extent.page));
            let to = behind.min(start + u64::from(extent.page) + u64::from(extent.pages));
            if from < to {
                let stored = if matches!(extent.piece, Piece::Stored { .. }) { to - from } else { 0 };
                // What is here counts instead of what the base says.
                pages = (pages + stored).saturating_sub(base_pages(state, is_dense, from, to));
            }
        }
    }
    pages
}

/// How many of pages `first..behind` hold data of the base.
fn base_pages(state: &State, is_dense: bool, first: u64, behind: u64) -> u64 {
    let limit = state.meta.base_limit;
    let behind = behind.min(limit.div_ceil(PAGE));
    if first >= behind {
        return 0;
    }
    if is_dense {
        return behind - first;
    }
    let blocks = state.base_blocks.as_deref().unwrap_or(&[]);
    let (mut pages, mut next) = (0, first);
    for block in blocks_between(blocks, first * PAGE, limit.min(behind * PAGE)) {
        // Two blocks may share a page.
        let from = next.max(block.offset / PAGE);
        let to = behind.min(block.offset.saturating_add(block.size).div_ceil(PAGE));
        pages += to.saturating_sub(from);
        next = next.max(to);
    }
    pages
}

/// Lets go of clean pages of a slot where the base, of this length, has a hole: they hold zeros.
pub(super) fn drop_zeros(slot: &mut Slot, number: u64, blocks: &[BlockAccess], length: u64, released: &mut Released) {
    for extent in slot.extents.clone().into_iter().filter(|extent| !extent.dirty) {
        for page in extent.page..extent.page + extent.pages {
            let at = (number * SLOT_PAGES + u64::from(page)) * PAGE;
            if blocks_between(blocks, at, length.min(at + PAGE)).is_empty() {
                slot.remove(page, page + 1, released);
            }
        }
    }
}
