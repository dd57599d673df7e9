//! Room: how much content may still come, which segments are in use, and which can go.
//!
//! Content is refused while some of the disk is left, so that rows and the index always fit. A segment goes only when no
//! page of it is in use, nobody is about to log otherwise ([`Store::changing`]), and the index is durable without its
//! rows. Which pages move out of a sparse segment is for `fs`, which knows their files.

use std::{collections::HashMap, path::Path, sync::atomic::Ordering};

use parking_lot::RwLockReadGuard;

use super::{Store, segment::io_error};
use crate::error::{Error, ErrorKind, Result};

/// Content is refused when the disk has less room than this, so that rows and the index always fit.
const RESERVE_BYTES: u64 = 32 << 20;
/// The room on disk is asked for again after this many appended bytes.
const SPACE_CHECK_BYTES: u64 = 4 << 20;
/// A segment with less than this share in use is rewritten, in per cent.
const COMPACT_BELOW_PERCENT: u64 = 50;
/// The same while there is no room for more content.
const COMPACT_FULL_BELOW_PERCENT: u64 = 90;
/// While there is no room, the segment being written is closed early when it has grown over this.
const ROTATE_FULL_BYTES: u64 = 256 << 10;
/// What moving content leaves of the reserve, for rows and the index.
const MOVE_MARGIN_BYTES: u64 = 4 << 20;
/// Segments are no larger than this, and small enough that what one holds can move in the reserve of a small disk.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Segments are not smaller than this, however small the disk.
const SEGMENT_BYTES_MIN: u64 = 256 << 10;

#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Pages in use; exact once `counted`.
    pub(super) pages: HashMap<u32, i64>,
    pub(super) counted: bool,
}

impl Store {
    /// Bytes that content takes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.sizes().iter().map(|(_, bytes)| bytes).sum()
    }

    /// The most that content may take.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Whether there is room for more content.
    pub(crate) fn check_space(&self, more: u64) -> Result<()> {
        let since = self.since_space_check.fetch_add(more, Ordering::Relaxed) + more;
        let full = self.full.load(Ordering::Relaxed);
        if since < self.space_check_after.load(Ordering::Relaxed) && !full {
            return Ok(());
        }
        self.since_space_check.store(0, Ordering::Relaxed);
        let (free, total) = disk_space(&self.dir)?;
        let on_disk = free.saturating_sub(RESERVE_BYTES.min(total / 16));
        let room = on_disk.min(self.bytes_max.saturating_sub(self.bytes()));
        let no_room = room < more;
        // The nearer the end the more often, so that the reserve stays whole.
        self.space_check_after.store((room / 4).min(SPACE_CHECK_BYTES), Ordering::Relaxed);
        self.full.store(no_room, Ordering::Relaxed);
        if no_room {
            self.wake();
            return Err(Error::new(ErrorKind::NoSpace, "no room for more content in the local store"));
        }
        Ok(())
    }

    /// Free bytes and all bytes that content can use: what the disk and the limit allow, without what is held back. Of
    /// what is there, at most `staying` bytes cannot make room.
    pub fn space(&self, staying: u64) -> Result<(u64, u64)> {
        let (free, total) = disk_space(&self.dir)?;
        let used = self.bytes();
        let staying = staying.min(used);
        let on_disk = free.saturating_sub(RESERVE_BYTES.min(total / 16)) + (used - staying);
        let free = on_disk.min(self.bytes_max.saturating_sub(staying));
        Ok((free, staying.saturating_add(free)))
    }

    /// Held from before pages are let go until the rows that say so are logged. Without it a segment could go while the
    /// index still refers to it, and a crash right then would lose what was synced.
    pub(crate) fn changing(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read_recursive()
    }

    /// Counts pages as used (or, negative, as no longer used).
    pub(crate) fn use_pages(&self, segment: u32, pages: i64) {
        *self.usage.lock().pages.entry(segment).or_default() += pages;
    }

    /// Adds what was in use when the store was opened; from then on usage is exact and segments can go. `pages` says
    /// what a slot's row uses.
    pub(crate) fn count_usage(&self, pages_of: impl Fn(&[u8]) -> Result<Vec<(u32, i64)>>) -> Result<()> {
        let Some(census) = self.census.lock().take() else { return Ok(()) };
        let mut pages: HashMap<u32, i64> = HashMap::new();
        census.all_slots(|row| {
            for (segment, count) in pages_of(row)? {
                *pages.entry(segment).or_default() += count;
            }
            Ok(())
        })?;
        let mut usage = self.usage.lock();
        for (segment, pages) in pages {
            *usage.pages.entry(segment).or_default() += pages;
        }
        usage.counted = true;
        Ok(())
    }

    /// Removes segments that nothing uses and names those that are worth rewriting, with who has pages there.
    pub(crate) fn reclaim(&self) -> Result<Vec<u32>> {
        let (unused, sparse) = {
            let _nobody_is_changing = self.gate.write();
            self.reclaimable()?
        };
        if !unused.is_empty() {
            // Only a durable index allows older journal, and what it described, to go.
            self.apply()?;
            self.writer.lock().checkpoint()?;
            for segment in unused {
                self.segments.remove(segment)?;
                self.usage.lock().pages.remove(&segment);
            }
        }
        Ok(sparse)
    }

    fn reclaimable(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let (free, total) = disk_space(&self.dir)?;
        let full = self.full.load(Ordering::Relaxed);
        let below = if full { COMPACT_FULL_BELOW_PERCENT } else { COMPACT_BELOW_PERCENT };
        // What moves needs room before it makes room.
        let movable = if full { free.saturating_sub(MOVE_MARGIN_BYTES.min(total / 32)) } else { u64::MAX };
        let usage = self.usage.lock();
        if !usage.counted {
            return Ok((Vec::new(), Vec::new()));
        }
        let used = |segment: u32| usage.pages.get(&segment).copied().unwrap_or(0).max(0).cast_unsigned() * 4096;
        let sizes = self.segments.sizes();
        let is_sparse = |(segment, bytes): &(u32, u64)| used(*segment) * 100 < bytes * below;
        if full && sizes.last().is_some_and(|last| last.1 >= ROTATE_FULL_BYTES && is_sparse(last)) {
            // On a small disk everything is in the segment being written.
            self.segments.start_next()?;
        }
        let current = self.segments.current();
        let closed = sizes.into_iter().filter(|(segment, _)| *segment != current);
        let (unused, rest): (Vec<_>, Vec<_>) = closed.partition(|(segment, _)| used(*segment) == 0);
        let mut sparse: Vec<u32> = rest.iter().filter(|at| is_sparse(at)).map(|at| at.0).collect();
        sparse.retain(|segment| used(*segment) <= movable);
        sparse.sort_by_key(|segment| used(*segment));
        Ok((unused.into_iter().map(|at| at.0).collect(), sparse))
    }

    /// Files that have, or had, pages in a segment: (ino, first page, pages).
    pub(crate) fn owners(&self, segment: u32) -> Result<Vec<(u64, u64, u64)>> {
        self.segments.owners(segment)
    }
}

/// At which size a segment is closed.
pub(super) fn segment_bytes_max(dir: &Path, bytes_max: u64) -> Result<u64> {
    let (_, total) = disk_space(dir)?;
    Ok((total.min(bytes_max) / 32).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX))
}

fn disk_space(dir: &Path) -> Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| io_error("ask for the room on disk", e.into()))?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}
