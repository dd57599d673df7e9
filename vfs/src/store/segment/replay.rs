//! Reading the journal back, through what a crash tore and what was damaged since.
//!
//! A frame that does not open is one of two things. *Torn*: a crash came before the disk had it. Nothing from there on
//! was acknowledged, and the journal ends. *Damaged*: it was written whole and has changed since. Then only it is lost,
//! and what follows counts. It is damaged when a later frame says that the segments were synced beyond it, or when all of
//! it is there: what a disk never got is cut off or reads as zeros, and sealed bytes never hold [`ZEROS`] zeros in a row.

use std::sync::atomic::Ordering;

use parsecfs_crypto::local::{LOCAL_TAG_BYTES, LocalNonce};

use super::{
    FILE_HEADER_BYTES, PART_ROWS, Position, SEALED_PAGE_BYTES, SegmentFile, Segments,
    frame::{FRAME_MAGIC, HEAD, HEAD_BYTES, Head, Kind},
    read_exact,
};
use crate::{content::PAGE_BYTES, error::Result};

/// A run of zeros that no sealed bytes have: chance makes one in 2^128.
const ZEROS: usize = 16;
/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;
/// Bytes that are searched for a head at a time.
const SEARCH_BYTES: usize = 1 << 20;

/// What reading the journal back met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// It ends in something incomplete, as after a crash.
    pub(crate) torn: bool,
    /// Stretches that were written whole and do not open.
    pub(crate) damaged: usize,
    /// Frames of rows that are nowhere any more, as far as can be told.
    pub(crate) lost: u64,
}

/// One step through a segment.
enum Step {
    /// A frame that opens, with its rows, and where the next begins.
    Frame(Head, Option<Vec<u8>>, u64),
    /// Nothing opens up to here.
    Bad(u64),
}

impl Segments {
    /// Walks the frames from `from` on and hands the rows of each to `rows`, in order.
    pub(crate) fn replay(&self, from: Position, mut rows: impl FnMut(&[u8]) -> Result<()>) -> Result<Replayed> {
        let mut found = Replayed::default();
        found.damaged += self.unreadable.iter().filter(|number| **number >= from.segment).count();
        found.lost += found.damaged as u64;
        let mut counted = None;
        for number in self.closed(from.segment) {
            let file = self.file(number)?;
            let end = file.written.load(Ordering::Acquire);
            let start = if number == from.segment { from.offset } else { 0 };
            let mut offset = start.max(FILE_HEADER_BYTES);
            // Whether the last stretch could hold rows that are nowhere else.
            let (mut gap, mut copy_follows) = (false, false);
            while offset < end {
                match self.step(&file, offset, end)? {
                    Step::Frame(head, plain, next) => {
                        let (missing, first_copy) = missed(&mut counted, file.session, &head);
                        found.lost += missing;
                        copy_follows = first_copy;
                        if let Some(plain) = plain {
                            rows(&plain)?;
                        }
                        (offset, gap) = (next, false);
                    }
                    Step::Bad(behind) => {
                        if self.is_torn(number, &file, offset, behind, end)? {
                            found.torn = true;
                            return Ok(found);
                        }
                        tracing::error!(segment = number, offset, "a stretch of the journal is damaged");
                        found.damaged += 1;
                        (offset, gap) = (behind, !copy_follows);
                    }
                }
            }
            // With nothing behind it, nobody can tell whether it held rows.
            found.lost += u64::from(gap && number + 1 == self.current());
        }
        Ok(found)
    }

    /// Whether every frame from `offset` on opens.
    pub(super) fn opens_from(&self, file: &SegmentFile, mut offset: u64) -> Result<bool> {
        let end = file.written.load(Ordering::Acquire);
        while offset < end {
            match self.step(file, offset, end)? {
                Step::Frame(_, _, next) => offset = next,
                Step::Bad(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn step(&self, file: &SegmentFile, offset: u64, end: u64) -> Result<Step> {
        let Some(head) = self.head_at(file, offset, end)? else {
            return Ok(Step::Bad(self.find_head(file, offset + 1, end)?.unwrap_or(end)));
        };
        let next = offset + HEAD + u64::from(head.body_bytes);
        if next > end {
            return Ok(Step::Bad(end));
        }
        let mut body = vec![0u8; head.body_bytes as usize];
        read_exact(file, offset + HEAD, &mut body)?;
        Ok(match self.open_body(file, &head, &body) {
            Some(plain) => Step::Frame(head, plain, next),
            None => Step::Bad(next),
        })
    }

    /// Opens all of a body; the rows in it, if it holds rows.
    fn open_body(&self, file: &SegmentFile, head: &Head, body: &[u8]) -> Option<Option<Vec<u8>>> {
        let nonce = |part| LocalNonce::new(file.session, head.frame, part);
        if head.kind == Kind::Rows {
            let mut plain = vec![0u8; body.len().checked_sub(LOCAL_TAG_BYTES)?];
            self.key.open_into(&nonce(PART_ROWS), b"rows", body, &mut plain).ok()?;
            return Some(Some(plain));
        }
        let mut plain = vec![0u8; PAGE_BYTES];
        for (part, sealed) in body.chunks(SEALED_PAGE_BYTES).enumerate() {
            let length = sealed.len().checked_sub(LOCAL_TAG_BYTES)?;
            self.key.open_into(&nonce(part as u64), b"page", sealed, &mut plain[..length]).ok()?;
        }
        Some(None)
    }

    fn head_at(&self, file: &SegmentFile, offset: u64, end: u64) -> Result<Option<Head>> {
        if offset + HEAD > end {
            return Ok(None);
        }
        let mut bytes = [0u8; HEAD_BYTES];
        read_exact(file, offset, &mut bytes)?;
        Ok(Head::open(&self.key, file.session, &bytes))
    }

    /// The first head at `from` or behind it.
    fn find_head(&self, file: &SegmentFile, mut from: u64, end: u64) -> Result<Option<u64>> {
        while from + HEAD <= end {
            let length = usize::try_from(end - from).unwrap_or(SEARCH_BYTES).min(SEARCH_BYTES);
            let mut bytes = vec![0u8; length];
            read_exact(file, from, &mut bytes)?;
            let places = bytes.windows(HEAD_BYTES).enumerate().filter(|(_, bytes)| bytes.starts_with(FRAME_MAGIC));
            for (at, bytes) in places {
                if Head::open(&self.key, file.session, bytes).is_some() {
                    return Ok(Some(from + at as u64));
                }
            }
            // A head may begin in the last bytes of this part.
            from += (length - HEAD_BYTES + 1) as u64;
        }
        Ok(None)
    }

    /// Whether bytes `at..behind`, which do not open, are what a crash left.
    fn is_torn(&self, number: u32, file: &SegmentFile, at: u64, behind: u64, end: u64) -> Result<bool> {
        if self.was_synced(Position { segment: number, offset: at })? {
            return Ok(false);
        }
        let is_cut = match self.head_at(file, at, end)? {
            Some(head) => at + HEAD + u64::from(head.body_bytes) > end,
            None => end - at < HEAD,
        };
        let until = behind.saturating_add(ZEROS as u64).min(end);
        let mut bytes = vec![0u8; usize::try_from(until - at).unwrap_or(0)];
        read_exact(file, at, &mut bytes)?;
        let in_first_sector = usize::try_from(SECTOR - at % SECTOR).unwrap_or(0).min(bytes.len());
        Ok(is_cut || bytes[..in_first_sector].iter().all(|byte| *byte == 0) || has_zeros(&bytes))
    }

    /// Whether a frame behind `at` says that the segments were on stable storage beyond it.
    fn was_synced(&self, at: Position) -> Result<bool> {
        for number in self.closed(at.segment) {
            let file = self.file(number)?;
            let from = if number == at.segment { at.offset } else { FILE_HEADER_BYTES };
            let mut known = false;
            self.each_head(&file, from, |_, head| known |= head.synced > at)?;
            if known {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Hands every head from `offset` on to `each`, past whatever is between them.
    pub(super) fn each_head(
        &self,
        file: &SegmentFile,
        mut offset: u64,
        mut each: impl FnMut(u64, &Head),
    ) -> Result<()> {
        let end = file.written.load(Ordering::Acquire);
        while let Some(at) = match self.head_at(file, offset, end)? {
            Some(_) => Some(offset),
            None => self.find_head(file, offset + 1, end)?,
        } {
            let Some(head) = self.head_at(file, at, end)? else { break };
            each(at, &head);
            offset = at + HEAD + u64::from(head.body_bytes);
        }
        Ok(())
    }

    /// Numbers of the segments of earlier sessions, from this one on.
    pub(super) fn closed(&self, from: u32) -> Vec<u32> {
        let current = self.current();
        let mut numbers: Vec<u32> =
            self.files.read().keys().copied().filter(|number| (from..current).contains(number)).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// How many frames of rows are missing before this one, and whether it is the first copy of its rows.
fn missed(counted: &mut Option<([u8; 16], u64)>, session: [u8; 16], head: &Head) -> (u64, bool) {
    let before = match *counted {
        Some((same, rows)) if same == session => rows,
        Some(_) => 0,
        // The first: what is before it is in the index.
        None => head.rows.saturating_sub(u64::from(head.kind == Kind::Rows)),
    };
    *counted = Some((session, head.rows.max(before)));
    let first_copy = head.kind == Kind::Rows && head.rows > before;
    (head.rows.saturating_sub(before).saturating_sub(u64::from(first_copy)), first_copy)
}

fn has_zeros(bytes: &[u8]) -> bool {
    let mut run = 0;
    bytes.iter().any(|byte| {
        run = if *byte == 0 { run + 1 } else { 0 };
        run >= ZEROS
    })
}
