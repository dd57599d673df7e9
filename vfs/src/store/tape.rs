//! What was logged and may not be in the journal yet, in memory that outlives this process.
//!
//! A change is acknowledged before it is journaled, so a process that is killed would take the last seconds of
//! acknowledged changes along, while the mount and the programs on it live on. A store may therefore have a *tape*: a file
//! without a disk (`memfd`) that somebody else holds open too. Every group of rows is put on it, sealed, before anybody
//! is answered, together with the kernel's number of the request that made it. The next process plays it behind the
//! journal: nothing is missing, and a request that the kernel asks again is known to be done.
//!
//! What is journaled is cut off its beginning, one round late, so that requests stay known for a while after their rows
//! are safe. Rows played again change nothing: the tape always reaches to the newest row.
//!
//! ```text
//! tape   = begin(8), zeros to 4096, records from `begin` on
//! record = length(4) number(8) session(16) seal(rows)(length)
//! ```
//!
//! Not here: surviving the machine. That is the journal's.

use std::{cell::Cell, collections::HashSet, fs::File, os::unix::fs::FileExt};

use parsecfs_crypto::local::{LOCAL_TAG_BYTES, LocalKey, LocalNonce};
use serde::{Deserialize, Serialize};

use super::{index::RowKey, journal::JournalFrame};
use crate::error::{Error, ErrorKind, Result};

/// Where records begin on a new tape.
const FIRST: u64 = 4096;
const HEAD_LEN: usize = 4 + 8 + 16;
/// Keeps nonces apart from those of segments and rows, whatever their session.
const PART: u64 = u64::MAX - 4;
/// The beginning is cut off when it has grown over this: often enough to stay small, seldom enough to cost nothing.
const CUT_BYTES: u64 = 1 << 20;

thread_local! {
    /// The request that this thread works on; 0 when none.
    static REQUEST: Cell<u64> = const { Cell::new(0) };
}

/// Does something for a request of the kernel; what it logs is known to be that request's.
pub(crate) fn on_behalf_of<T>(request: u64, work: impl FnOnce() -> T) -> T {
    /// Also when the work ends in a panic.
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            REQUEST.set(0);
        }
    }
    REQUEST.set(request);
    let _done = Done;
    work()
}

/// One group of rows.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    /// The kernel's number of the request that made it; 0 for sync and housekeeping.
    pub(super) request: u64,
    pub(super) frame: JournalFrame,
}

/// The tape of a store.
#[derive(Debug)]
pub(super) struct Tape {
    file: File,
    key: LocalKey,
    session: [u8; 16],
    next_number: u64,
    begin: u64,
    end: u64,
    /// What is before this was journaled when it was last cut.
    journaled: u64,
    /// Something could not be put on it, so nothing behind it may be played.
    broken: bool,
}

impl Tape {
    /// Opens a tape, new or left by another process, and hands each record on it to `each`.
    pub(super) fn open(
        file: File,
        key: LocalKey,
        session: [u8; 16],
        mut each: impl FnMut(Record) -> Result<()>,
    ) -> Result<Self> {
        let mut begin = [0; 8];
        let bytes = file.metadata().map_err(|e| tape_error("look at", e))?.len();
        if bytes >= FIRST {
            file.read_exact_at(&mut begin, 0).map_err(|e| tape_error("read", e))?;
        }
        let begin = u64::from_le_bytes(begin).max(FIRST);
        let mut tape = Self { file, key, session, next_number: 0, begin, end: begin, journaled: begin, broken: false };
        while let Some((record, next)) = tape.record_at(tape.end, bytes)? {
            each(record)?;
            tape.end = next;
        }
        // What a process was about to put there when it was killed was not acknowledged.
        tape.file.set_len(tape.end).map_err(|e| tape_error("cut", e))?;
        tape.put_begin(begin)?;
        Ok(tape)
    }

    fn record_at(&self, at: u64, bytes: u64) -> Result<Option<(Record, u64)>> {
        let mut head = [0; HEAD_LEN];
        if at + HEAD_LEN as u64 > bytes {
            return Ok(None);
        }
        self.file.read_exact_at(&mut head, at).map_err(|e| tape_error("read", e))?;
        let [l0, l1, l2, l3, n0, n1, n2, n3, n4, n5, n6, n7, session @ ..] = head;
        let length = u64::from(u32::from_le_bytes([l0, l1, l2, l3]));
        let number = u64::from_le_bytes([n0, n1, n2, n3, n4, n5, n6, n7]);
        let (from, next) = (at + HEAD_LEN as u64, at + HEAD_LEN as u64 + length);
        let plain_length = usize::try_from(length).ok().and_then(|length| length.checked_sub(LOCAL_TAG_BYTES));
        let Some(plain_length) = plain_length.filter(|_| next <= bytes) else { return Ok(None) };
        let mut sealed = vec![0; plain_length + LOCAL_TAG_BYTES];
        self.file.read_exact_at(&mut sealed, from).map_err(|e| tape_error("read", e))?;
        let mut plain = vec![0; plain_length];
        if self.key.open_into(&LocalNonce::new(session, number, PART), b"tape", &sealed, &mut plain).is_err() {
            return Ok(None);
        }
        let record = postcard::from_bytes(&plain)
            .map_err(|e| Error::new(ErrorKind::Corrupt, "a record of the tape cannot be read").caused_by(e))?;
        Ok(Some((record, next)))
    }

    /// Puts a group of rows behind the others. A change is not refused because of it: then only the machine's memory is
    /// short, and a kill would cost what is not journaled.
    pub(super) fn put(&mut self, frame: JournalFrame) {
        if self.broken {
            return;
        }
        let record = Record { request: REQUEST.get(), frame };
        if let Err(error) = self.try_put(&record) {
            tracing::error!(%error, "a kill of this process would lose changes until all are journaled");
            self.broken = true;
            self.skip_to_end();
        }
    }

    fn try_put(&mut self, record: &Record) -> Result<()> {
        let plain = postcard::to_stdvec(record)
            .map_err(|e| Error::new(ErrorKind::Internal, "encode a record of the tape").caused_by(e))?;
        let length = u32::try_from(plain.len() + LOCAL_TAG_BYTES)
            .map_err(|e| Error::new(ErrorKind::Internal, "a record of the tape is too long").caused_by(e))?;
        let mut bytes = Vec::with_capacity(HEAD_LEN + plain.len() + LOCAL_TAG_BYTES);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.next_number.to_le_bytes());
        bytes.extend_from_slice(&self.session);
        self.key.seal_into(&LocalNonce::new(self.session, self.next_number, PART), b"tape", &plain, &mut bytes);
        self.next_number += 1;
        self.file.write_all_at(&bytes, self.end).map_err(|e| tape_error("write", e))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// The point behind everything on it.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Everything before `journaled` is in the journal now. Cuts off what was so the last time.
    pub(super) fn cut(&mut self, journaled: u64) {
        if self.journaled.saturating_sub(self.begin) >= CUT_BYTES {
            self.begin = self.journaled;
            if let Err(error) = self.put_begin(self.begin).and_then(|()| self.free(self.begin)) {
                tracing::warn!(%error, "the tape stays longer than it need be");
            }
        }
        if journaled.saturating_sub(self.journaled) >= CUT_BYTES {
            self.journaled = journaled;
        }
    }

    /// Nothing that is not journaled is left: what comes now can be put on it again.
    pub(super) fn restart(&mut self) {
        self.broken = false;
    }

    /// Forgets everything on it: all is journaled, and nobody waits for an answer.
    pub(super) fn clear(&mut self) {
        self.skip_to_end();
    }

    fn skip_to_end(&mut self) {
        (self.begin, self.journaled) = (self.end, self.end);
        if let Err(error) = self.put_begin(self.end) {
            tracing::error!(%error, "the tape cannot be cut");
        }
    }

    fn put_begin(&self, begin: u64) -> Result<()> {
        self.file.write_all_at(&begin.to_le_bytes(), 0).map_err(|e| tape_error("cut", e))
    }

    /// Gives the memory before this point back.
    fn free(&self, before: u64) -> Result<()> {
        let whole = before / FIRST * FIRST;
        if whole <= FIRST {
            return Ok(());
        }
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, flags, FIRST, whole - FIRST).map_err(|e| tape_error("cut", e.into()))
    }
}

/// What a process that is gone left for this one.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    /// Inodes up to this number may be known to the kernel by its word: how often they were looked up went with it.
    pub(crate) ino_max: u64,
    /// Requests that were done, answered or not.
    pub(crate) done: HashSet<u64>,
    /// Whether sync changed names that the kernel may not have been told of.
    pub(crate) names_changed: bool,
    /// Inodes that sync changed.
    pub(crate) inodes_changed: Vec<u64>,
}

impl Inheritance {
    pub(super) fn note(&mut self, record: &Record) {
        if record.request != 0 {
            self.done.insert(record.request);
            return;
        }
        for row in &record.frame.rows {
            match row.key() {
                Some(RowKey::Inode(ino)) => self.inodes_changed.push(ino),
                Some(RowKey::Dentry(..)) => self.names_changed = true,
                _ => {}
            }
        }
    }
}

fn tape_error(what: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("cannot {what} the tape")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> File {
        File::from(rustix::fs::memfd_create("tape", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
    }

    fn frame(change: u64) -> JournalFrame {
        JournalFrame { more: false, counters: [1, 2, change], rows: Vec::new() }
    }

    fn open(file: &File, session: u8) -> (Tape, Vec<(u64, u64)>) {
        let mut found = Vec::new();
        let key = LocalKey::from_bytes([3; 32]);
        let tape = Tape::open(file.try_clone().unwrap(), key, [session; 16], |record| {
            found.push((record.request, record.frame.counters[2]));
            Ok(())
        });
        (tape.unwrap(), found)
    }

    #[test]
    fn what_was_put_is_there_for_the_next_process_with_who_asked_for_it() {
        let file = memory();
        let (mut tape, found) = open(&file, 1);
        assert_eq!(found, []);
        tape.put(frame(1));
        on_behalf_of(40, || tape.put(frame(2)));
        tape.put(frame(3));
        let (mut tape, found) = open(&file, 2);
        assert_eq!(found, [(0, 1), (40, 2), (0, 3)]);
        tape.put(frame(4));
        assert_eq!(open(&file, 3).1.len(), 4);
    }

    #[test]
    fn a_record_that_was_cut_off_by_a_kill_is_not_there_and_the_next_takes_its_place() {
        let file = memory();
        let (mut tape, _) = open(&file, 1);
        tape.put(frame(1));
        let whole = tape.end();
        tape.put(frame(2));
        for length in whole..tape.end() {
            let copy = memory();
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            copy.write_all_at(&bytes, 0).unwrap();
            let (mut tape, found) = open(&copy, 2);
            assert_eq!(found, [(0, 1)], "{length}");
            tape.put(frame(3));
            assert_eq!(open(&copy, 3).1, [(0, 1), (0, 3)]);
        }
    }

    #[test]
    fn what_is_journaled_goes_one_round_later_and_gives_its_memory_back() {
        use std::os::unix::fs::MetadataExt;
        let file = memory();
        let (mut tape, _) = open(&file, 1);
        let mut rounds = Vec::new();
        let mut change = 0;
        for _ in 0..3 {
            let from = tape.end();
            while tape.end() - from < CUT_BYTES + 1 {
                change += 1;
                tape.put(frame(change));
            }
            tape.cut(tape.end());
            rounds.push(change);
        }
        let (_, found) = open(&file, 2);
        assert_eq!(found.first(), Some(&(0, rounds[1] + 1)), "the last round is still there, those before are not");
        assert_eq!(found.last(), Some(&(0, change)));
        assert!(file.metadata().unwrap().blocks() * 512 < 2 * CUT_BYTES, "their memory is free");
    }

    #[test]
    fn nothing_of_it_is_in_clear() {
        let file = memory();
        let (mut tape, _) = open(&file, 1);
        tape.put(frame(0x1122_3344));
        let mut bytes = vec![0; usize::try_from(tape.end()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let plain = postcard::to_stdvec(&0x1122_3344u64).unwrap();
        assert!(!bytes.windows(plain.len()).any(|window| window == plain));
    }
}
