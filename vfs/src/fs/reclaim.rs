//! Space on disk: what is not used any more goes, and what the storage has may go when room is needed.

use std::collections::BTreeSet;

use super::{Volume, slot_row};
use crate::{
    content::{Extent, PAGE_BYTES, Piece, Released, SLOT_PAGES, Slot, by_slot},
    error::{ErrorKind, Result},
    inode::{Standing, State, decode},
    store::RowKey,
};

/// Segments that one round rewrites at most, so that a round stays short.
const SEGMENTS_PER_ROUND: usize = 2;
/// How long a removed entry stays known after its removal. A change that another device stored without having seen the
/// removal brings the entry back, but only while it is known; a device sees it at the start of each of its rounds.
const REMOVED_KNOWN_NS: i64 = 24 * 3600 * 1_000_000_000;
/// Room below which clean content is let go, in bytes.
const ROOM_WANTED: u64 = 256 << 20;

/// Inodes whose clean content one round looks at.
const INODES_PER_ROUND: usize = 4096;
/// How often a change that finds no room is tried again after some was made.
const ROOM_TRIES: usize = 16;
/// After making room in vain it is not tried again for so long: the background thread does.
const FUTILE_NS: i64 = 2_000_000_000;

/// How far reclaiming is.
#[derive(Debug)]
pub(super) struct Reclaiming {
    /// The inode whose clean content was looked at last.
    cursor: u64,
    /// When nothing more could be freed.
    futile_ns: i64,
}

impl Default for Reclaiming {
    fn default() -> Self {
        Self { cursor: 0, futile_ns: i64::MIN }
    }
}

impl Volume {
    /// Frees what can be freed without losing anything. Called by the background thread.
    pub fn reclaim(&self) -> Result<()> {
        let mut reclaiming = self.reclaiming.lock();
        let (free, _) = self.store.space(u64::MAX)?;
        if free < ROOM_WANTED {
            self.drop_clean(&mut reclaiming)?;
        }
        self.forget_removed();
        self.free_segments()
    }

    /// Free bytes and all bytes, as statfs tells them. Content that the storage has too counts as free: it goes when room
    /// is needed. What waits for upload is counted by whole files.
    pub fn space(&self) -> Result<(u64, u64)> {
        let staying = self.pending.lock().values().fold(0_u64, |sum, pending| sum.saturating_add(pending.bytes));
        self.store.space(staying)
    }

    fn free_segments(&self) -> Result<()> {
        let sparse = self.store.reclaim()?;
        for segment in sparse.into_iter().take(SEGMENTS_PER_ROUND) {
            self.rewrite(segment)?;
        }
        Ok(())
    }

    /// Does a change of content; when there is no room for it, lets go of content that the storage has too and tries
    /// again. Waits for this machine's disk, never for the storage. For callers that hold no lock.
    pub(super) fn with_room<T>(&self, change: impl Fn() -> Result<T>) -> Result<T> {
        let mut outcome = change();
        for _ in 0..ROOM_TRIES {
            let no_room = outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::NoSpace);
            if !no_room || !self.make_room()? {
                break;
            }
            outcome = change();
        }
        outcome
    }

    /// Whether it may be worth trying again.
    fn make_room(&self) -> Result<bool> {
        let mut reclaiming = self.reclaiming.lock();
        let now = self.clock.now_ns();
        if now.saturating_sub(reclaiming.futile_ns) < FUTILE_NS {
            return Ok(false);
        }
        self.store.apply()?;
        self.count_usage_locked()?;
        let before = self.store.bytes();
        let let_go = self.drop_clean(&mut reclaiming)?;
        self.free_segments()?;
        let more = let_go || self.store.bytes() < before;
        if !more {
            reclaiming.futile_ns = now;
        }
        Ok(more)
    }

    /// Entries that were removed long ago need not be known any more, once their removal is stored.
    fn forget_removed(&self) {
        let namespace = self.namespace();
        let long_ago = self.clock.now_ns().saturating_sub(REMOVED_KNOWN_NS);
        let mut rows = Vec::new();
        let mut removed = self.removed.lock();
        for (folder, waiting) in removed.iter_mut() {
            if self.pending.lock().contains_key(folder) {
                continue;
            }
            let mut kept = Vec::with_capacity(waiting.len());
            for ino in waiting.drain(..) {
                match self.peek_inode(&namespace, ino) {
                    Ok(inode) if inode.state.lock().meta.changed_ns > long_ago => kept.push(ino),
                    Ok(_) => rows.extend([(RowKey::Inode(ino), None), (RowKey::Base(ino), None)]),
                    // Gone, or damaged: the next opening says so.
                    Err(_) => {}
                }
            }
            *waiting = kept;
        }
        removed.retain(|_, waiting| !waiting.is_empty());
        drop(removed);
        self.store.log(rows);
    }

    /// Counts which pages are in use, so that segments can go. Once, after opening.
    pub fn count_usage(&self) -> Result<()> {
        let _reclaiming = self.reclaiming.lock();
        self.count_usage_locked()
    }

    fn count_usage_locked(&self) -> Result<()> {
        self.store.count_usage(|row| {
            let slot: Slot = decode(row)?;
            let used = slot.extents.iter().filter_map(|extent| match extent.piece {
                Piece::Stored { place, .. } => Some((place.segment, i64::from(extent.pages))),
                Piece::Zero => None,
            });
            Ok(used.collect())
        })
    }

    /// Lets go of content that the storage has too, of the next few inodes; whether there was any. Goes on where it ended
    /// the last time, so that no round looks at all of a large tree.
    fn drop_clean(&self, reclaiming: &mut Reclaiming) -> Result<bool> {
        let _changing = self.store.changing();
        let next = self.store.inodes_after(reclaiming.cursor, INODES_PER_ROUND)?;
        reclaiming.cursor = if next.len() < INODES_PER_ROUND { 0 } else { next.last().copied().unwrap_or(0) };
        // The round ends at the last one; with nothing let go until there, what was passed before is worth a look.
        let mut let_go = reclaiming.cursor != 0;
        for ino in next {
            // Held until this inode is done: nobody may load it a second time meanwhile.
            let namespace = self.namespace();
            let Ok(inode) = self.peek_inode(&namespace, ino) else { continue };
            let mut state = inode.state.lock();
            if state.meta.is_folder() || state.is_unlinked() {
                continue;
            }
            self.load_slots(ino, &mut state)?;
            let mut released = Vec::new();
            let mut rows = Vec::new();
            for (number, slot) in state.slots.iter_mut() {
                let before = slot.extents.len();
                slot.drop_clean(&mut released);
                if slot.extents.len() != before {
                    rows.push(slot_row(ino, number, slot));
                }
            }
            state.slots.drop_empty();
            let_go |= !rows.is_empty();
            self.store.log(rows);
            self.settle(released);
        }
        Ok(let_go)
    }

    /// Copies what is used in a segment to the end of the journal.
    fn rewrite(&self, segment: u32) -> Result<()> {
        let mut slots: BTreeSet<(u64, u64)> = BTreeSet::new();
        for (ino, first, pages) in self.store.owners(segment)? {
            slots.extend(by_slot(first, first + pages).map(|(slot, ..)| (ino, slot)));
        }
        for (ino, number) in slots {
            // Held until this slot is done: nobody may load the inode a second time meanwhile.
            let namespace = self.namespace();
            let inode = match self.peek_inode(&namespace, ino) {
                Ok(inode) => inode,
                // Gone, or damaged: then its pages stay, and the others go on.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => continue,
                Err(error) => return Err(error),
            };
            let mut state = inode.state.lock();
            self.load_slots(ino, &mut state)?;
            self.rewrite_slot(segment, ino, &mut state, number)?;
        }
        Ok(())
    }

    fn rewrite_slot(&self, segment: u32, ino: u64, state: &mut State, number: u64) -> Result<()> {
        let _changing = self.store.changing();
        let Some(slot) = state.slots.get_mut(number) else { return Ok(()) };
        let mut released = Vec::new();
        let is_only_here = state.standing == Standing::Orphan { base_row: 0 };
        let outcome = self.move_extents(segment, ino, slot, number, is_only_here, &mut released);
        if !released.is_empty() {
            let row = slot_row(ino, number, slot);
            if state.standing != Standing::Gone {
                self.store.log([row]);
            }
            self.settle(released);
        }
        outcome
    }

    fn move_extents(
        &self,
        segment: u32,
        ino: u64,
        slot: &mut Slot,
        number: u64,
        is_only_here: bool,
        released: &mut Released,
    ) -> Result<()> {
        let here = |extent: &Extent| matches!(extent.piece, Piece::Stored { place, .. } if place.segment == segment);
        for extent in slot.extents.clone().into_iter().filter(here) {
            match self.move_extent(ino, slot, number, extent, released) {
                // A damaged page must not hold its neighbours, nor the whole segment.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    for page in extent.page..extent.page + extent.pages {
                        let page = extent.part(page, page + 1);
                        self.move_page(ino, slot, number, page, is_only_here, released)?;
                    }
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn move_page(
        &self,
        ino: u64,
        slot: &mut Slot,
        number: u64,
        page: Extent,
        is_only_here: bool,
        released: &mut Released,
    ) -> Result<()> {
        match self.move_extent(ino, slot, number, page, released) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::error!(ino, number, page = page.page, %error, "a stored page is damaged");
                if page.dirty || is_only_here {
                    slot.insert(page.damaged(), released);
                } else {
                    // The storage has it: it is fetched again.
                    slot.remove(page.page, page.page + 1, released);
                }
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn move_extent(
        &self,
        ino: u64,
        slot: &mut Slot,
        number: u64,
        extent: Extent,
        released: &mut Released,
    ) -> Result<()> {
        let Piece::Stored { place, stored, valid } = extent.piece else { return Ok(()) };
        let mut data = vec![0u8; (usize::from(extent.pages) - 1) * PAGE_BYTES + usize::from(stored)];
        self.store.read(place, &mut data)?;
        let first = number * SLOT_PAGES + u64::from(extent.page);
        let place = self.store.append_moved(ino, first, &data)?;
        slot.insert(Extent { piece: Piece::Stored { place, stored, valid }, ..extent }, released);
        Ok(())
    }
}
