//! Where the bytes of a file are: extents in slots. Pure: no I/O, no locks.
//!
//! A file is pages of 4 KiB, grouped in slots of 64 pages; a slot is one row of the local store. An extent says where a
//! run of pages is kept here and whether the storage has them too (*clean*) or not (*dirty*). A page in no extent is
//! what the base manifest says, as far as `base_limit` reaches, and zero beyond.

use std::collections::BTreeMap;

use parsecfs_core::manifest::BlockAccess;
use serde::{Deserialize, Serialize};

/// Bytes that are sealed together in the local store.
pub(crate) const PAGE_BYTES: usize = 4096;
/// The same as a file offset counts.
pub(crate) const PAGE: u64 = PAGE_BYTES as u64;
/// Pages in one slot.
pub(crate) const SLOT_PAGES: u64 = 64;

/// Where a run of pages lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) frame: u64,
    /// Of the frame's first page.
    pub(crate) offset: u64,
    /// Which page of the frame comes first here.
    pub(crate) index: u32,
}

/// What a run of pages holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Piece {
    /// Zeros, whatever the base says.
    Zero,
    /// Stored pages. The last has `stored` bytes there, of which `valid` count; zeros follow.
    Stored { place: Place, stored: u16, valid: u16 },
}

/// A run of pages within one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    /// First page, counted in the slot.
    pub(crate) page: u8,
    /// How many, at least 1.
    pub(crate) pages: u8,
    /// The storage does not have this.
    pub(crate) dirty: bool,
    pub(crate) piece: Piece,
}

impl Extent {
    fn end(&self) -> u8 {
        self.page + self.pages
    }

    /// The same pages, of which nothing can be read any more: they are in a segment that never exists.
    pub(crate) fn damaged(&self) -> Self {
        let full = u16::try_from(PAGE_BYTES).unwrap_or(u16::MAX);
        let place = Place { segment: 0, frame: 0, offset: 0, index: 0 };
        Self { piece: Piece::Stored { place, stored: full, valid: full }, ..*self }
    }

    /// The part of this extent in pages `from..to`, which it covers.
    pub(crate) fn part(&self, from: u8, to: u8) -> Self {
        let piece = match self.piece {
            Piece::Zero => Piece::Zero,
            Piece::Stored { place, stored, valid } => {
                let place = Place { index: place.index + u32::from(from - self.page), ..place };
                let last = to == self.end();
                let full = u16::try_from(PAGE_BYTES).unwrap_or(u16::MAX);
                Piece::Stored {
                    place,
                    stored: if last { stored } else { full },
                    valid: if last { valid } else { full },
                }
            }
        };
        Self { page: from, pages: to - from, piece, ..*self }
    }
}

/// Pages of a segment that were let go, or taken.
pub(crate) type Released = Vec<(u32, i64)>;

/// One slot of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slot {
    /// In order, without overlap.
    pub(crate) extents: Vec<Extent>,
    /// The change that last wrote here.
    pub(crate) change: u64,
}

impl Slot {
    /// A slot that nothing is known about any more: reading it fails, writing whole pages over it helps.
    pub(crate) fn damaged() -> Self {
        let pages = u8::try_from(SLOT_PAGES).unwrap_or(u8::MAX);
        let all = Extent { page: 0, pages, dirty: true, piece: Piece::Zero };
        Self { extents: vec![all.damaged()], change: 0 }
    }

    /// Makes room for pages `from..to`.
    pub(crate) fn remove(&mut self, from: u8, to: u8, released: &mut Released) {
        if self.extents.iter().all(|extent| extent.end() <= from || extent.page >= to) {
            return;
        }
        let mut kept = Vec::with_capacity(self.extents.len() + 1);
        for extent in &self.extents {
            let (start, end) = (extent.page.max(from), extent.end().min(to));
            if start >= end {
                kept.push(*extent);
                continue;
            }
            if extent.page < start {
                kept.push(extent.part(extent.page, start));
            }
            if let Piece::Stored { place, .. } = extent.piece {
                released.push((place.segment, -i64::from(end - start)));
            }
            if end < extent.end() {
                kept.push(extent.part(end, extent.end()));
            }
        }
        self.extents = kept;
    }

    /// Puts an extent over whatever was there.
    pub(crate) fn insert(&mut self, extent: Extent, released: &mut Released) {
        self.remove(extent.page, extent.end(), released);
        if let Piece::Stored { place, .. } = extent.piece {
            released.push((place.segment, i64::from(extent.pages)));
        }
        let at = self.extents.partition_point(|other| other.page < extent.page);
        if self.extents.is_empty() {
            // Most slots stay at one.
            self.extents.reserve_exact(1);
        }
        self.extents.insert(at, extent);
    }

    /// Puts an extent only where nothing is.
    pub(crate) fn fill(&mut self, extent: Extent, released: &mut Released) {
        let mut from = extent.page;
        let taken: Vec<(u8, u8)> = self.extents.iter().map(|other| (other.page, other.end())).collect();
        for (start, end) in taken.into_iter().chain([(extent.end(), extent.end())]) {
            let until = start.min(extent.end());
            if from < until {
                self.insert(extent.part(from, until), released);
            }
            from = from.max(end).min(extent.end());
        }
    }

    /// The extent that covers a page.
    pub(crate) fn find(&self, page: u8) -> Option<&Extent> {
        let at = self.extents.partition_point(|extent| extent.end() <= page);
        self.extents.get(at).filter(|extent| extent.page <= page)
    }

    /// Whether every page of `from..to` is in an extent.
    pub(crate) fn covers(&self, from: u8, to: u8) -> bool {
        let mut page = from;
        while page < to {
            let Some(extent) = self.find(page) else { return false };
            page = extent.end();
        }
        true
    }

    /// Lets only the first `bytes` of a page count.
    pub(crate) fn cut(&mut self, page: u8, bytes: u16, released: &mut Released) {
        let Some(extent) = self.find(page).copied() else { return };
        let mut one = extent.part(page, page + 1);
        if let Piece::Stored { valid, .. } = &mut one.piece {
            *valid = (*valid).min(bytes);
            self.insert(one, released);
        }
    }

    /// Everything here is on the storage now. Zeros are what the base says there. `false` when it was before.
    pub(crate) fn mark_clean(&mut self) -> bool {
        if self.extents.iter().all(|extent| !extent.dirty && extent.piece != Piece::Zero) {
            return false;
        }
        self.extents.retain(|extent| extent.piece != Piece::Zero);
        for extent in &mut self.extents {
            extent.dirty = false;
        }
        true
    }

    /// Lets go of what the storage has.
    pub(crate) fn drop_clean(&mut self, released: &mut Released) {
        self.extents.retain(|extent| {
            if let (false, Piece::Stored { place, .. }) = (extent.dirty, extent.piece) {
                released.push((place.segment, -i64::from(extent.pages)));
            }
            extent.dirty
        });
    }

    /// Whether something in pages `from..to` is not on the storage.
    pub(crate) fn is_dirty(&self, from: u8, to: u8) -> bool {
        self.extents.iter().any(|extent| extent.dirty && extent.page < to && extent.end() > from)
    }
}

/// The slots of a file that are in memory, by number. Most files have one, which then needs no map.
#[derive(Debug, Default)]
pub(crate) enum Slots {
    /// None.
    #[default]
    Empty,
    /// A file of up to 256 KiB, or a part of a larger one.
    One(u64, Slot),
    /// More.
    Many(BTreeMap<u64, Slot>),
}

impl Slots {
    pub(crate) fn get(&self, number: u64) -> Option<&Slot> {
        match self {
            Self::Empty => None,
            Self::One(here, slot) => (*here == number).then_some(slot),
            Self::Many(slots) => slots.get(&number),
        }
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Slot> {
        match self {
            Self::Empty => None,
            Self::One(here, slot) => (*here == number).then_some(slot),
            Self::Many(slots) => slots.get_mut(&number),
        }
    }

    /// The slot of a number, empty if it was not there.
    pub(crate) fn slot(&mut self, number: u64) -> &mut Slot {
        match self {
            Self::Empty => *self = Self::One(number, Slot::default()),
            Self::One(here, slot) if *here != number => {
                *self = Self::Many(BTreeMap::from([(*here, std::mem::take(slot))]));
            }
            _ => {}
        }
        match self {
            Self::Many(slots) => slots.entry(number).or_default(),
            Self::One(_, slot) => slot,
            Self::Empty => unreachable!("it was just filled"),
        }
    }

    /// All, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Slot)> {
        self.from(0)
    }

    /// Those from a number on, in order.
    pub(crate) fn from(&self, first: u64) -> impl Iterator<Item = (u64, &Slot)> {
        let (one, many) = match self {
            Self::Empty => (None, None),
            Self::One(number, slot) => ((*number >= first).then_some((*number, slot)), None),
            Self::Many(slots) => (None, Some(slots.range(first..).map(|(number, slot)| (*number, slot)))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// All, in order, to change.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Slot)> {
        let (one, many) = match self {
            Self::Empty => (None, None),
            Self::One(number, slot) => (Some((*number, slot)), None),
            Self::Many(slots) => (None, Some(slots.iter_mut().map(|(number, slot)| (*number, slot)))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Takes out slots in which nothing is.
    pub(crate) fn drop_empty(&mut self) {
        match self {
            Self::One(_, slot) if slot.extents.is_empty() => *self = Self::Empty,
            Self::Many(slots) => slots.retain(|_, slot| !slot.extents.is_empty()),
            _ => {}
        }
    }
}

/// Slot of a page, and the page counted in it.
pub(crate) fn slot_of(page: u64) -> (u64, u8) {
    (page / SLOT_PAGES, u8::try_from(page % SLOT_PAGES).unwrap_or(u8::MAX))
}

/// Splits pages `from..to` at the borders of slots: (slot, first page, page behind the last).
pub(crate) fn by_slot(from: u64, to: u64) -> impl Iterator<Item = (u64, u8, u8)> {
    let slots = if from < to { from / SLOT_PAGES..(to - 1) / SLOT_PAGES + 1 } else { 0..0 };
    slots.map(move |slot| {
        let start = from.max(slot * SLOT_PAGES) - slot * SLOT_PAGES;
        let end = to.min((slot + 1) * SLOT_PAGES) - slot * SLOT_PAGES;
        (slot, u8::try_from(start).unwrap_or(u8::MAX), u8::try_from(end).unwrap_or(u8::MAX))
    })
}

/// The blocks that cover bytes `from..to`, in order.
pub(crate) fn blocks_between(blocks: &[BlockAccess], from: u64, to: u64) -> &[BlockAccess] {
    let first = blocks.partition_point(|block| block.offset.saturating_add(block.size) <= from);
    let behind = blocks.partition_point(|block| block.offset < to);
    blocks.get(first..behind.max(first)).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(page: u8, pages: u8, segment: u32) -> Extent {
        let place = Place { segment, frame: 1, offset: 80, index: 0 };
        Extent { page, pages, dirty: true, piece: Piece::Stored { place, stored: 100, valid: 100 } }
    }

    fn index_at(slot: &Slot, page: u8) -> Option<(u32, u32, u16)> {
        let extent = slot.find(page)?;
        match extent.part(page, page + 1).piece {
            Piece::Stored { place, stored, .. } => Some((place.segment, place.index, stored)),
            Piece::Zero => None,
        }
    }

    #[test]
    fn an_extent_in_the_middle_splits_the_one_below() {
        let mut slot = Slot::default();
        let mut released = Vec::new();
        slot.insert(stored(0, 10, 1), &mut released);
        slot.insert(stored(3, 2, 2), &mut released);
        assert_eq!(index_at(&slot, 2), Some((1, 2, 4096)));
        assert_eq!(index_at(&slot, 3), Some((2, 0, 4096)));
        assert_eq!(index_at(&slot, 4), Some((2, 1, 100)));
        assert_eq!(index_at(&slot, 5), Some((1, 5, 4096)));
        assert_eq!(index_at(&slot, 9), Some((1, 9, 100)));
        assert_eq!(index_at(&slot, 10), None);
        assert_eq!(released, [(1, 10), (1, -2), (2, 2)]);
    }

    #[test]
    fn filling_leaves_what_is_there() {
        let mut slot = Slot::default();
        let mut released = Vec::new();
        slot.insert(stored(3, 2, 2), &mut released);
        slot.fill(stored(0, 10, 1), &mut released);
        let owners: Vec<_> = (0..10).map(|page| index_at(&slot, page).map(|(segment, ..)| segment)).collect();
        assert_eq!(owners, [1, 1, 1, 2, 2, 1, 1, 1, 1, 1].map(Some));
    }

    #[test]
    fn a_page_that_was_cut_keeps_its_stored_length() {
        let mut slot = Slot::default();
        let mut released = Vec::new();
        slot.insert(stored(0, 2, 1), &mut released);
        slot.cut(0, 7, &mut released);
        let Some(Extent { piece: Piece::Stored { stored, valid, .. }, .. }) = slot.find(0) else { panic!("gone") };
        assert_eq!((*stored, *valid), (4096, 7));
        assert_eq!(released.iter().map(|(_, pages)| pages).sum::<i64>(), 2);
    }

    /// Sync writes the rows of slots that this changes, so that what it does for a changed page does not grow with the file.
    #[test]
    fn a_slot_that_the_storage_has_does_not_change_when_the_file_is_stored_again() {
        let mut slot = Slot::default();
        slot.insert(stored(0, 10, 1), &mut Vec::new());
        assert!(slot.mark_clean());
        assert!(!slot.mark_clean());
        slot.insert(Extent { page: 20, pages: 1, dirty: true, piece: Piece::Zero }, &mut Vec::new());
        assert!(slot.mark_clean());
        assert!(!slot.mark_clean());
    }

    #[test]
    fn slots_are_found_and_listed_in_order_however_many_there_are() {
        let mut slots = Slots::default();
        let mut released = Vec::new();
        assert!(slots.get(5).is_none() && slots.iter().next().is_none());
        for number in [5, 2, 9] {
            slots.slot(number).insert(stored(0, 1, 1), &mut released);
            assert!(slots.get(number).is_some() && slots.get_mut(number + 1).is_none());
        }
        let numbers = |from| slots.from(from).map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!((numbers(0), numbers(3), numbers(10)), (vec![2, 5, 9], vec![5, 9], vec![]));
        for (_, slot) in slots.iter_mut().filter(|(number, _)| *number != 5) {
            slot.remove(0, u8::MAX, &mut released);
        }
        slots.drop_empty();
        assert_eq!(slots.iter().map(|(number, _)| number).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn pages_are_split_at_the_borders_of_slots() {
        assert_eq!(by_slot(62, 130).collect::<Vec<_>>(), [(0, 62, 64), (1, 0, 64), (2, 0, 2)]);
        assert_eq!(by_slot(64, 64).count(), 0);
    }
}
