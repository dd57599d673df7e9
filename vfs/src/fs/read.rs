//! Reading content: local pages, zeros, and what has to be fetched first.

use std::ops::RangeInclusive;

use parking_lot::MutexGuard;
use parsecfs_core::manifest::{BlockAccess, Manifest};

use super::{Volume, zeros::without_zeros};
use crate::{
    content::{PAGE, PAGE_BYTES, Piece, SLOT_PAGES, Slot, blocks_between, by_slot, slot_of},
    error::{Error, ErrorKind, Result},
    inode::{Inode, Loaded, PART_SLOTS, State, decode},
    store::RowKey,
};

/// Blocks that were fetched for a read or write, opened and checked.
pub type Fetched = Vec<(BlockAccess, Vec<u8>)>;

/// What became of a read.
#[derive(Debug)]
pub enum ReadOutcome {
    /// The bytes; fewer than asked for only at the end of the file.
    Data(Vec<u8>),
    /// These blocks have to be fetched first.
    Missing(Vec<BlockAccess>),
}

/// Where pages of a read come from.
pub(super) struct Run {
    /// First byte in the buffer.
    at: usize,
    bytes: usize,
    source: Source,
}

pub(super) enum Source {
    Piece(Piece),
    /// The base manifest, from what was fetched.
    Base,
}

impl Volume {
    /// Reads up to `length` bytes from `offset` on, with blocks that were `fetched` for it.
    pub fn read(&self, ino: u64, offset: u64, length: usize, fetched: &Fetched) -> Result<ReadOutcome> {
        let inode = self.open_inode(ino)?;
        self.read_inode(&inode, offset, length, fetched)
    }

    /// [`Volume::read`] of an inode at hand.
    pub(super) fn read_inode(
        &self,
        inode: &Inode,
        offset: u64,
        length: usize,
        fetched: &Fetched,
    ) -> Result<ReadOutcome> {
        /// A run that was let go while it was read is looked up again; each time somebody wrote there.
        const TRIES: usize = 4;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_read(inode, offset, length, fetched) {
                Err(error) if error.kind() == ErrorKind::Corrupt && tries < TRIES => {}
                outcome => return outcome,
            }
        }
    }

    fn try_read(&self, inode: &Inode, offset: u64, length: usize, fetched: &Fetched) -> Result<ReadOutcome> {
        let mut state = inode.state.lock();
        if state.meta.is_folder() {
            return Err(ErrorKind::IsDirectory.into());
        }
        let end = state.meta.size.min(offset.saturating_add(length as u64));
        if offset >= end {
            return Ok(ReadOutcome::Data(Vec::new()));
        }
        let first = offset / PAGE;
        let (runs, missing) = self.plan(inode.ino, &mut state, first, end.div_ceil(PAGE), fetched)?;
        let ahead = self.plan_ahead(inode.ino, &mut state, &(offset..end), &missing);
        if !ahead.is_empty() {
            self.fetch_ahead(inode.ino, ahead);
        }
        if !missing.is_empty() {
            return Ok(ReadOutcome::Missing(missing));
        }
        let base = base_view(&state);
        drop(state);
        let pages = usize::try_from(end.div_ceil(PAGE) - first).map_err(|_| Error::from(ErrorKind::InvalidArgument))?;
        let mut buffer = vec![0u8; pages * PAGE_BYTES];
        self.fill_runs(&mut buffer, first, runs, base, fetched)?;
        let skip = usize::try_from(offset - first * PAGE).unwrap_or(0);
        let take = usize::try_from(end - offset).map_err(|_| Error::from(ErrorKind::InvalidArgument))?;
        if skip > 0 {
            buffer.drain(..skip);
        }
        buffer.truncate(take);
        Ok(ReadOutcome::Data(buffer))
    }

    /// Reads what needs `missing` blocks, and keeps them for the next reader.
    pub async fn read_fetching(
        &self,
        ino: u64,
        offset: u64,
        length: usize,
        mut missing: Vec<BlockAccess>,
    ) -> Result<Vec<u8>> {
        let mut fetched = Fetched::new();
        if self.wait_for(&missing).await {
            match self.read(ino, offset, length, &fetched)? {
                ReadOutcome::Data(data) => return Ok(data),
                ReadOutcome::Missing(still) => missing = still,
            }
        }
        loop {
            fetched.extend(self.fetch(&missing).await?);
            match self.read(ino, offset, length, &fetched)? {
                ReadOutcome::Data(data) => {
                    self.keep(ino, &fetched)?;
                    return Ok(data);
                }
                ReadOutcome::Missing(more) => missing = more,
            }
        }
    }

    /// Where data (or the next hole) begins from `offset` on; `None` when there is none before the end of the file.
    pub fn seek(&self, ino: u64, offset: u64, data: bool) -> Result<Option<u64>> {
        let inode = self.open_inode(ino)?;
        let mut state = inode.state.lock();
        self.load_slots(ino, &mut state)?;
        self.load_base_blocks(ino, &mut state)?;
        let size = state.meta.size;
        if offset >= size {
            return Ok(None);
        }
        let mut page = offset / PAGE;
        while page * PAGE < size {
            let (number, in_slot) = slot_of(page);
            let here = match state.slots.get(number).and_then(|slot| slot.find(in_slot)) {
                Some(extent) => matches!(extent.piece, Piece::Stored { .. }),
                None => !base_blocks(&state, page * PAGE, (page + 1) * PAGE).is_empty(),
            };
            if here == data {
                return Ok(Some(offset.max(page * PAGE)));
            }
            page = self.next_change_of_kind(&state, page, here);
        }
        Ok((!data).then_some(size))
    }

    /// The next page where it is worth looking again.
    fn next_change_of_kind(&self, state: &State, page: u64, here: bool) -> u64 {
        let (number, in_slot) = slot_of(page);
        let slot_behind = (number + 1) * SLOT_PAGES;
        if here || state.slots.get(number).is_some_and(|slot| slot.extents.iter().any(|e| e.page > in_slot)) {
            return page + 1;
        }
        // Nothing more in this slot: the next slot or block that is there.
        let next_slot = state.slots.from(number + 1).next().map_or(u64::MAX, |(slot, _)| slot * SLOT_PAGES);
        let from = (page + 1) * PAGE;
        let next_block = base_blocks(state, from, u64::MAX).first().map_or(u64::MAX, |b| b.offset.max(from) / PAGE);
        let end = state.meta.size.div_ceil(PAGE);
        next_slot.min(next_block).max(page + 1).min(end.max(slot_behind.min(end)))
    }

    /// The bytes of pages `first..` as they are, into a buffer of whole zeroed pages; `None` when blocks are missing.
    pub(super) fn read_pages(
        &self,
        ino: u64,
        state: &mut MutexGuard<'_, State>,
        first: u64,
        buffer: &mut [u8],
        fetched: &Fetched,
    ) -> Result<Vec<BlockAccess>> {
        let behind = first + (buffer.len() / PAGE_BYTES) as u64;
        let (runs, missing) = self.plan(ino, state, first, behind, fetched)?;
        if missing.is_empty() {
            self.fill_runs(buffer, first, runs, base_view(state), fetched)?;
        }
        Ok(missing)
    }

    pub(super) fn plan(
        &self,
        ino: u64,
        state: &mut State,
        first: u64,
        behind: u64,
        fetched: &Fetched,
    ) -> Result<(Vec<Run>, Vec<BlockAccess>)> {
        self.load_slots_of(ino, state, first, behind)?;
        if state.meta.base_limit > first * PAGE && !is_covered(state, first, behind) {
            self.load_base_blocks(ino, state)?;
        }
        let mut runs = Vec::new();
        let mut missing: Vec<BlockAccess> = Vec::new();
        for (number, from, to) in by_slot(first, behind) {
            let slot = state.slots.get(number);
            let mut page = from;
            while page < to {
                let here = number * SLOT_PAGES + u64::from(page);
                let at = usize::try_from((here - first) * PAGE).unwrap_or(usize::MAX);
                let extent = slot.and_then(|slot| slot.find(page));
                let until = match extent {
                    Some(extent) => to.min(extent.page + extent.pages),
                    None => slot
                        .and_then(|slot| slot.extents.iter().find(|extent| extent.page > page))
                        .map_or(to, |next| to.min(next.page)),
                };
                let bytes = usize::from(until - page) * PAGE_BYTES;
                match extent {
                    Some(extent) => {
                        runs.push(Run { at, bytes, source: Source::Piece(extent.part(page, until).piece) });
                    }
                    None => {
                        let (start, end) = (here * PAGE, here * PAGE + bytes as u64);
                        let blocks = base_blocks(state, start, end);
                        for block in blocks.iter().filter(|block| !fetched.iter().any(|(have, _)| have.id == block.id))
                        {
                            if !missing.iter().any(|other| other.id == block.id) {
                                missing.push(*block);
                            }
                        }
                        if !blocks.is_empty() {
                            runs.push(Run { at, bytes, source: Source::Base });
                        }
                    }
                }
                page = until;
            }
        }
        Ok((runs, missing))
    }

    fn fill_runs(
        &self,
        buffer: &mut [u8],
        first: u64,
        runs: Vec<Run>,
        base: BaseView,
        fetched: &Fetched,
    ) -> Result<()> {
        for run in runs {
            let out = buffer.get_mut(run.at..run.at + run.bytes).ok_or(ErrorKind::Internal)?;
            match run.source {
                Source::Piece(Piece::Zero) => {}
                Source::Piece(Piece::Stored { place, stored, valid }) => {
                    let exact = run.bytes - PAGE_BYTES + usize::from(stored);
                    let counts = run.bytes - PAGE_BYTES + usize::from(valid);
                    let outcome = self.store.read(place, &mut out[..exact]);
                    if let Err(error) = outcome {
                        out.fill(0);
                        return Err(error);
                    }
                    out[counts..].fill(0);
                }
                Source::Base => base.compose(out, first * PAGE + run.at as u64, fetched)?,
            }
        }
        Ok(())
    }

    /// Has all slots of an inode in memory.
    pub(super) fn load_slots(&self, ino: u64, state: &mut State) -> Result<()> {
        if state.loaded != Loaded::All {
            self.load_slots_in(ino, state, 0..=u64::MAX)?;
            state.loaded = Loaded::All;
        }
        Ok(())
    }

    /// Has the slots of pages `first..behind` in memory, so that a small read of a large file loads little.
    pub(super) fn load_slots_of(&self, ino: u64, state: &mut State, first: u64, behind: u64) -> Result<()> {
        const PART_PAGES: u64 = PART_SLOTS * SLOT_PAGES;
        for part in first / PART_PAGES..behind.div_ceil(PART_PAGES) {
            let Loaded::Parts(parts) = &state.loaded else { return Ok(()) };
            if !parts.contains(&part) {
                self.load_slots_in(ino, state, part * PART_SLOTS..=part * PART_SLOTS + (PART_SLOTS - 1))?;
                if let Loaded::Parts(parts) = &mut state.loaded {
                    parts.insert(part);
                }
            }
        }
        Ok(())
    }

    fn load_slots_in(&self, ino: u64, state: &mut State, numbers: RangeInclusive<u64>) -> Result<()> {
        for (number, row) in self.store.slots(ino, numbers)? {
            if matches!(&state.loaded, Loaded::Parts(parts) if parts.contains(&(number / PART_SLOTS))) {
                // Memory is ahead of the rows while a change is being made.
                continue;
            }
            match row.and_then(|row| decode(&row)) {
                Ok(slot) => *state.slots.slot(number) = slot,
                Err(error) => {
                    tracing::error!(ino, number, %error, "where a part of a file is cannot be read");
                    // What the storage has as well is fetched again; anything else is damaged here, and only here.
                    if state.meta.need_sync || state.is_unlinked() {
                        *state.slots.slot(number) = Slot::damaged();
                    }
                }
            }
        }
        Ok(())
    }

    /// Has the blocks of the base in memory.
    pub(super) fn load_base_blocks(&self, ino: u64, state: &mut State) -> Result<()> {
        if state.base_blocks.is_none() {
            let blocks = match self.base(ino)? {
                Some(Manifest::File(file)) => without_zeros(&file.blocks),
                _ => [].into(),
            };
            state.base_blocks = Some(blocks);
        }
        Ok(())
    }

    /// The base manifest of an inode.
    pub(super) fn base(&self, ino: u64) -> Result<Option<Manifest>> {
        let Some(row) = self.store.row(RowKey::Base(ino))? else { return Ok(None) };
        let damaged = |e| Error::new(ErrorKind::Corrupt, "a base manifest in the local store").caused_by(e);
        Manifest::from_bytes(&row).map(Some).map_err(damaged)
    }
}

/// Whether all of pages `first..behind` is in slots, so that the base does not count.
pub(super) fn is_covered(state: &State, first: u64, behind: u64) -> bool {
    by_slot(first, behind).all(|(number, from, to)| state.slots.get(number).is_some_and(|slot| slot.covers(from, to)))
}

/// What the base says, apart from the lock.
struct BaseView {
    blocks: std::sync::Arc<[BlockAccess]>,
    limit: u64,
}

fn base_view(state: &State) -> BaseView {
    BaseView { blocks: state.base_blocks.clone().unwrap_or_default(), limit: state.meta.base_limit }
}

/// Blocks of the base that count in bytes `start..end`.
fn base_blocks(state: &State, start: u64, end: u64) -> &[BlockAccess] {
    let end = end.min(state.meta.base_limit);
    match &state.base_blocks {
        Some(blocks) if start < end => blocks_between(blocks, start, end),
        _ => &[],
    }
}

impl BaseView {
    /// Puts what the base says about the bytes from `start` on into a zeroed buffer.
    fn compose(&self, out: &mut [u8], start: u64, fetched: &Fetched) -> Result<()> {
        let end = (start + out.len() as u64).min(self.limit);
        for block in blocks_between(&self.blocks, start, end) {
            let bytes = fetched.iter().find(|(have, _)| have.id == block.id).map(|(_, bytes)| bytes);
            let bytes = bytes.ok_or(ErrorKind::Stale)?;
            let from = start.max(block.offset);
            let to = end.min(block.offset + block.size);
            let offset = |n: u64| usize::try_from(n).map_err(|_| Error::from(ErrorKind::Internal));
            let (source, target, length) = (offset(from - block.offset)?, offset(from - start)?, offset(to - from)?);
            let short = || Error::new(ErrorKind::Corrupt, "a block is shorter than its manifest says");
            let source = bytes.get(source..source + length).ok_or_else(short)?;
            out.get_mut(target..target + length).ok_or(ErrorKind::Internal)?.copy_from_slice(source);
        }
        Ok(())
    }
}
