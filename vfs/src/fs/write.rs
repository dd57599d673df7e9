//! Changing content: write, truncate, allocate, punch.

use parking_lot::MutexGuard;
use parsecfs_core::manifest::BlockAccess;

use super::{
    Touch, Volume,
    read::{Fetched, is_covered},
    slot_row,
};
use crate::{
    content::{Extent, PAGE, PAGE_BYTES, Piece, Place, Released, SLOT_PAGES, blocks_between, by_slot, slot_of},
    error::{Error, ErrorKind, Result},
    inode::{Standing, State},
    store::{RowKey, RowValue},
};

/// Longest file: what Linux programs can seek to with 4 KiB pages on ext4.
const FILE_BYTES_MAX: u64 = 16 << 40;
/// Zeros are written over partial pages only, so one page of them is enough.
const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// What became of a write.
#[derive(Debug)]
pub enum WriteOutcome {
    /// All bytes were taken.
    Done,
    /// These blocks have to be fetched first: part of a page is written whose rest is only on the storage.
    Missing(Vec<BlockAccess>),
}

/// What `fallocate` does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallocateMode {
    /// The file is at least this long; `keep_size`: nothing to do, space is not set aside.
    Allocate {
        /// The length stays.
        keep_size: bool,
    },
    /// Zeros, as a hole.
    Punch,
    /// Zeros; the file may become longer.
    Zero {
        /// The length stays.
        keep_size: bool,
    },
}

/// Who keeps the times of a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The volume: it is modified now.
    Now,
    /// The caller, who says them with [`Volume::set_attributes`], before or behind the bytes: they stay as they are.
    Kept,
}

impl Times {
    fn touch(self) -> Touch {
        match self {
            Self::Now => Touch::Content,
            Self::Kept => Touch::Untimed,
        }
    }
}

impl Volume {
    /// Writes bytes at an offset, with blocks that were `fetched` for it.
    pub fn write(&self, ino: u64, offset: u64, data: &[u8], fetched: &Fetched, times: Times) -> Result<WriteOutcome> {
        self.may_write()?;
        self.with_room(|| self.try_write(ino, offset, data, fetched, times))
    }

    fn try_write(&self, ino: u64, offset: u64, data: &[u8], fetched: &Fetched, times: Times) -> Result<WriteOutcome> {
        let _changing = self.store.changing();
        let inode = self.open_inode(ino)?;
        let mut state = inode.state.lock();
        match self.put_bytes(ino, &mut state, offset, data, fetched)? {
            Put::Missing(blocks) => Ok(WriteOutcome::Missing(blocks)),
            Put::Rows(mut rows) => {
                let end = offset + data.len() as u64;
                state.meta.size = state.meta.size.max(end);
                rows.extend(self.touch(&inode, &mut state, times.touch()));
                self.store.log(rows);
                Ok(WriteOutcome::Done)
            }
        }
    }

    /// Makes bytes of a file space or zeros.
    pub fn fallocate(
        &self,
        ino: u64,
        offset: u64,
        length: u64,
        mode: FallocateMode,
        fetched: &Fetched,
        times: Times,
    ) -> Result<WriteOutcome> {
        self.may_write()?;
        self.with_room(|| self.try_fallocate(ino, offset, length, mode, fetched, times))
    }

    fn try_fallocate(
        &self,
        ino: u64,
        offset: u64,
        length: u64,
        mode: FallocateMode,
        fetched: &Fetched,
        times: Times,
    ) -> Result<WriteOutcome> {
        let _changing = self.store.changing();
        let end = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX).ok_or(ErrorKind::TooLarge)?;
        let inode = self.open_inode(ino)?;
        let mut state = inode.state.lock();
        if state.meta.is_folder() {
            return Err(ErrorKind::IsDirectory.into());
        }
        let (zeros, keep_size) = match mode {
            FallocateMode::Allocate { keep_size } => (false, keep_size),
            FallocateMode::Punch => (true, true),
            FallocateMode::Zero { keep_size } => (true, keep_size),
        };
        let mut rows = Vec::new();
        if zeros {
            let size = state.meta.size;
            match self.put_zeros(ino, &mut state, offset, end.min(size), fetched)? {
                Put::Missing(blocks) => return Ok(WriteOutcome::Missing(blocks)),
                Put::Rows(more) => rows = more,
            }
        }
        if !keep_size {
            state.meta.size = state.meta.size.max(end);
        }
        rows.extend(self.touch(&inode, &mut state, times.touch()));
        self.store.log(rows);
        Ok(WriteOutcome::Done)
    }

    /// Does a change that needs `missing` blocks first.
    pub async fn change_fetching(
        &self,
        mut missing: Vec<BlockAccess>,
        change: impl Fn(&Self, &Fetched) -> Result<WriteOutcome>,
    ) -> Result<()> {
        let mut fetched = Fetched::new();
        loop {
            fetched.extend(self.fetch(&missing).await?);
            match change(self, &fetched)? {
                WriteOutcome::Done => return Ok(()),
                WriteOutcome::Missing(more) => missing = more,
            }
        }
    }

    /// Sets the length of a file; returns rows, the caller touches the inode.
    pub(super) fn resize(
        &self,
        ino: u64,
        state: &mut MutexGuard<'_, State>,
        size: u64,
    ) -> Result<Vec<(RowKey, RowValue)>> {
        if state.meta.is_folder() {
            return Err(ErrorKind::IsDirectory.into());
        }
        if size > FILE_BYTES_MAX {
            return Err(ErrorKind::TooLarge.into());
        }
        let mut rows = Vec::new();
        if size < state.meta.size {
            self.load_slots(ino, state)?;
            let behind = state.meta.size.div_ceil(PAGE);
            let gone = self.data_pages(ino, state, size.div_ceil(PAGE), behind)?;
            state.count_pages(gone, 0);
            let mut released = Vec::new();
            let change = self.store.new_change();
            let first_gone = slot_of(size.div_ceil(PAGE));
            let touched: Vec<u64> = state.slots.from(size / PAGE / SLOT_PAGES).map(|(number, _)| number).collect();
            for number in touched {
                let Some(slot) = state.slots.get_mut(number) else { continue };
                if number >= first_gone.0 {
                    let from = if number == first_gone.0 { first_gone.1 } else { 0 };
                    slot.remove(from, u8::MAX, &mut released);
                }
                let (last_slot, last_page) = slot_of(size / PAGE);
                if number == last_slot && !size.is_multiple_of(PAGE) {
                    slot.cut(last_page, u16::try_from(size % PAGE).unwrap_or(u16::MAX), &mut released);
                }
                slot.change = change;
                rows.push(slot_row(ino, number, slot));
            }
            if state.standing == Standing::Gone {
                rows.clear();
            }
            state.slots.drop_empty();
            // Also what is on its way to the storage right now counts no further when it becomes the base.
            state.meta.base_limit = state.meta.base_limit.min(size);
            state.meta.base_limit_change = change;
            self.settle(released);
        }
        state.meta.size = size;
        Ok(rows)
    }

    /// Puts bytes anywhere: whole pages as they come, partial ones over what is there.
    fn put_bytes(
        &self,
        ino: u64,
        state: &mut MutexGuard<'_, State>,
        offset: u64,
        data: &[u8],
        fetched: &Fetched,
    ) -> Result<Put> {
        if state.meta.is_folder() {
            return Err(ErrorKind::IsDirectory.into());
        }
        let end =
            offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX).ok_or(ErrorKind::TooLarge)?;
        if data.is_empty() {
            return Ok(Put::Rows(Vec::new()));
        }
        self.load_slots_of(ino, state, offset / PAGE, end.div_ceil(PAGE))?;
        let head = usize::try_from(offset % PAGE).unwrap_or(0);
        // The last page keeps what stands behind the written bytes, if the file goes on there.
        let tail_end = state.meta.size.min(end.next_multiple_of(PAGE));
        if head == 0 && tail_end <= end {
            return self.put_pages(ino, state, offset / PAGE, data).map(Put::Rows);
        }
        let first = offset / PAGE;
        let pages = usize::try_from(end.div_ceil(PAGE) - first).map_err(|_| Error::from(ErrorKind::TooLarge))?;
        let mut buffer = vec![0u8; pages * PAGE_BYTES];
        let last = buffer.len() - PAGE_BYTES;
        let mut missing = Vec::new();
        if head != 0 {
            missing = self.read_pages(ino, state, first, &mut buffer[..PAGE_BYTES], fetched)?;
        }
        // Both edges may lie in the same block.
        let first_missing = missing.last().map(|block| block.id);
        if tail_end > end && (last > 0 || head == 0) {
            let more = self.read_pages(ino, state, end / PAGE, &mut buffer[last..], fetched)?;
            missing.extend(more.into_iter().filter(|block| first_missing != Some(block.id)));
        }
        if !missing.is_empty() {
            return Ok(Put::Missing(missing));
        }
        buffer[head..head + data.len()].copy_from_slice(data);
        let length = head + data.len().max(usize::try_from(tail_end.saturating_sub(offset)).unwrap_or(0));
        buffer.truncate(length);
        self.put_pages(ino, state, first, &buffer).map(Put::Rows)
    }

    /// Puts whole pages, the last one perhaps short.
    pub(super) fn put_pages(
        &self,
        ino: u64,
        state: &mut State,
        first: u64,
        data: &[u8],
    ) -> Result<Vec<(RowKey, RowValue)>> {
        let behind = first + data.len().div_ceil(PAGE_BYTES) as u64;
        let before = self.data_pages(ino, state, first, behind)?;
        let place = self.store.append(ino, first, data)?;
        state.count_pages(before, behind - first);
        let change = self.store.new_change();
        let mut rows = Vec::new();
        let mut released = Released::new();
        for (number, extent) in extents(place, first, data.len(), true) {
            let slot = state.slots.slot(number);
            slot.insert(extent, &mut released);
            slot.change = change;
            rows.push(slot_row(ino, number, slot));
        }
        self.settle(released);
        if state.standing == Standing::Gone {
            rows.clear();
        }
        Ok(rows)
    }

    /// Makes bytes `from..to` zero.
    fn put_zeros(
        &self,
        ino: u64,
        state: &mut MutexGuard<'_, State>,
        from: u64,
        to: u64,
        fetched: &Fetched,
    ) -> Result<Put> {
        if from >= to {
            return Ok(Put::Rows(Vec::new()));
        }
        self.load_slots(ino, state)?;
        let (first_whole, behind_whole) = (from.div_ceil(PAGE), to / PAGE);
        // At the end of the file the rest of the last page is zero anyway.
        let behind_whole = if to == state.meta.size { to.div_ceil(PAGE).max(behind_whole) } else { behind_whole };
        let mut edges = Vec::new();
        if first_whole > behind_whole
            || (first_whole == behind_whole && !from.is_multiple_of(PAGE) && from / PAGE == (to - 1) / PAGE)
        {
            edges.push((from, to));
        } else {
            if !from.is_multiple_of(PAGE) {
                edges.push((from, first_whole * PAGE));
            }
            if to > behind_whole * PAGE {
                edges.push((behind_whole * PAGE, to));
            }
        }
        let mut rows = Vec::new();
        for (start, end) in edges {
            let length = usize::try_from(end - start).unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
            match self.put_bytes(ino, state, start, &ZEROS[..length], fetched)? {
                Put::Missing(blocks) => return Ok(Put::Missing(blocks)),
                Put::Rows(more) => rows.extend(more),
            }
        }
        let before = self.data_pages(ino, state, first_whole, behind_whole)?;
        state.count_pages(before, 0);
        let change = self.store.new_change();
        let mut released = Vec::new();
        let base_limit = state.meta.base_limit;
        for (number, start, end) in by_slot(first_whole, behind_whole) {
            let covered = (number * SLOT_PAGES + u64::from(start)) * PAGE < base_limit;
            if !covered && state.slots.get(number).is_none() {
                continue;
            }
            // Even where the base does not reach: what was written here may be on its way to become the base.
            let slot = state.slots.slot(number);
            slot.insert(Extent { page: start, pages: end - start, dirty: true, piece: Piece::Zero }, &mut released);
            slot.change = change;
            rows.push(slot_row(ino, number, slot));
        }
        self.settle(released);
        if state.standing == Standing::Gone {
            rows.clear();
        }
        Ok(Put::Rows(rows))
    }

    /// Keeps fetched blocks for the next reader, where nothing newer is. `false` when the store is full.
    pub fn keep(&self, ino: u64, fetched: &Fetched) -> Result<bool> {
        let _changing = self.store.changing();
        let inode = self.open_inode(ino)?;
        let mut state = inode.state.lock();
        self.load_base_blocks(ino, &mut state)?;
        let blocks = state.base_blocks.clone().unwrap_or_default();
        let limit = state.meta.base_limit;
        let (mut rows, mut is_full) = (Vec::new(), false);
        let is_of_base = |access: &BlockAccess| {
            blocks_between(&blocks, access.offset, access.offset.saturating_add(1)).contains(access)
        };
        for (access, bytes) in fetched.iter().filter(|(access, _)| is_of_base(access)) {
            // Pages that this block alone says everything about.
            let end = access.offset.saturating_add(access.size).min(limit);
            let first = access.offset.div_ceil(PAGE);
            let behind = if end == limit { end.div_ceil(PAGE) } else { end / PAGE };
            if first >= behind {
                continue;
            }
            let skip = usize::try_from(first * PAGE - access.offset).unwrap_or(0);
            let take = usize::try_from(end.min(behind * PAGE) - first * PAGE).unwrap_or(0);
            let Some(data) = bytes.get(skip..skip + take).filter(|data| !data.is_empty()) else { continue };
            self.load_slots_of(ino, &mut state, first, behind)?;
            if is_covered(&state, first, behind) {
                continue;
            }
            match self.fill_pages(ino, &mut state, first, data)? {
                Some(filled) => rows.extend(filled),
                None => is_full = true,
            }
        }
        if state.standing != Standing::Gone {
            self.store.log(rows);
        }
        Ok(!is_full)
    }

    /// Puts clean pages where nothing is; `None` when there is no room for them.
    fn fill_pages(
        &self,
        ino: u64,
        state: &mut State,
        first: u64,
        data: &[u8],
    ) -> Result<Option<Vec<(RowKey, RowValue)>>> {
        let place = match self.store.append(ino, first, data) {
            Ok(place) => place,
            Err(error) if error.kind() == ErrorKind::NoSpace => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut rows = Vec::new();
        let mut released = Vec::new();
        for (number, extent) in extents(place, first, data.len(), false) {
            let slot = state.slots.slot(number);
            slot.fill(extent, &mut released);
            rows.push(slot_row(ino, number, slot));
        }
        self.settle(released);
        Ok(Some(rows))
    }

    /// Accounts for pages taken and let go.
    pub(super) fn settle(&self, released: Released) {
        for (segment, pages) in released {
            self.store.use_pages(segment, pages);
        }
    }
}

/// The extents of pages that were appended together, by slot.
fn extents(place: Place, first: u64, bytes: usize, dirty: bool) -> impl Iterator<Item = (u64, Extent)> {
    let behind = first + bytes.div_ceil(PAGE_BYTES) as u64;
    let full = u16::try_from(PAGE_BYTES).unwrap_or(u16::MAX);
    let short = u16::try_from(bytes - (bytes - 1) / PAGE_BYTES * PAGE_BYTES).unwrap_or(full);
    by_slot(first, behind).map(move |(number, from, to)| {
        let here = number * SLOT_PAGES + u64::from(from);
        let last = number * SLOT_PAGES + u64::from(to) == behind;
        // A frame is bounded far below 2^32 pages.
        let index = u32::try_from(here - first).unwrap_or(u32::MAX);
        let bytes = if last { short } else { full };
        let piece = Piece::Stored { place: Place { index, ..place }, stored: bytes, valid: bytes };
        (number, Extent { page: from, pages: to - from, dirty, piece })
    })
}

/// Rows of a change of content, or what it needs first.
enum Put {
    Rows(Vec<(RowKey, RowValue)>),
    Missing(Vec<BlockAccess>),
}
