//! Segments: append-only files of sealed frames. They are the journal and the home of all local file content.
//!
//! A frame is either *data* (pages of one file, each sealed by itself so that a small read opens little) or *rows*
//! (changes of the index, see [`super`]). Nothing in a segment is ever rewritten, so nothing that was synced can be
//! torn by a later write; what is no longer referenced goes when its whole segment goes.
//!
//! ```text
//! segment = twice: magic(8) version(4) number(4) session(16) tag(32)   128 bytes
//! frame   = head, then the body; see [`frame`]                          96 bytes and the body
//! data    = seal(page) for each page, all but the last 4,096 bytes of plaintext
//! rows    = seal(rows); each frame of rows is there twice
//! ```
//!
//! The nonce of a sealed part is (session, frame number, part number). A session is 16 random bytes made at each
//! opening of the store and a frame number is never used twice in it, whatever fails, so no nonce is used twice.
//!
//! Not here: reading the journal back and telling what a crash left from damage, see [`replay`].
//!
//! Lock: `Tail` orders appends. Reading takes it only for bytes that are still in its buffer.

mod frame;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod replay;

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use parsecfs_crypto::local::{LOCAL_TAG_BYTES, LocalKey, LocalNonce};

use self::frame::{BODY_BYTES_MAX, HEAD, HEAD_BYTES, Head, Kind};
pub(crate) use self::replay::Replayed;
use super::disk::Disk;
use crate::{
    content::{PAGE_BYTES, Place},
    error::{Error, ErrorKind, Result},
};

const FILE_MAGIC: &[u8; 8] = b"parsecfs";
const FILE_VERSION: u32 = 2;
const FILE_HEADER_CLEAR_LEN: usize = 32;
const FILE_HEADER_COPY_LEN: usize = FILE_HEADER_CLEAR_LEN + LOCAL_TAG_BYTES;
/// The header is there twice, so that damage to one copy costs nothing.
const FILE_HEADER_LEN: usize = 2 * FILE_HEADER_COPY_LEN;
/// The same as a file offset counts.
const FILE_HEADER_BYTES: u64 = FILE_HEADER_LEN as u64;
const SEALED_PAGE_BYTES: usize = PAGE_BYTES + LOCAL_TAG_BYTES;
/// Appends at least this large go to the file at once instead of through the buffer.
const DIRECT_BYTES_MIN: usize = 64 << 10;
/// The buffer is written out when it has grown over this.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// A segment is written anew in pieces of this size.
const COPY_BYTES: usize = 1 << 20;

// Parts in a nonce, beside the pages' numbers and that of a head.
const PART_ROWS: u64 = u64::MAX - 1;
const PART_FILE: u64 = u64::MAX - 3;

/// A point in the journal: everything before it is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

#[derive(Debug)]
struct SegmentFile {
    number: u32,
    file: File,
    session: [u8; 16],
    /// Bytes that are in the file; more may be in the buffer.
    written: AtomicU64,
    /// A flush failed: what it was to flush may be gone from the file, whatever a later flush says.
    doubtful: AtomicBool,
}

#[derive(Debug)]
struct Tail {
    number: u32,
    file: Arc<SegmentFile>,
    buffer: Vec<u8>,
    /// Closed segments that are not synced yet.
    unsynced: Vec<Arc<SegmentFile>>,
    /// A segment was made and its name is not synced yet.
    names_unsynced: bool,
    /// Everything before this is on stable storage.
    synced: Position,
    /// How many different frames of rows were written.
    rows: u64,
}

/// All segments of a store.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    key: LocalKey,
    session: [u8; 16],
    /// A segment is closed when it has grown over this.
    bytes_max: u64,
    /// Nothing stays in the buffer: what is appended survives this process.
    unbuffered: bool,
    next_frame: AtomicU64,
    files: RwLock<HashMap<u32, Arc<SegmentFile>>>,
    /// Segments whose header is damaged: nothing in them can be opened.
    unreadable: Vec<u32>,
    tail: Mutex<Tail>,
    /// Something was appended since the last [`Segments::sync`].
    dirty: AtomicBool,
    /// Held for a whole sync, so that nobody returns while another is still waiting for the device.
    syncing: Mutex<()>,
}

impl Segments {
    /// Opens the segments in `dir` for reading and starts a new one for writing.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        key: LocalKey,
        session: [u8; 16],
        bytes_max: u64,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| io_error("make the segment folder", e))?;
        let (mut files, mut unreadable) = (HashMap::new(), Vec::new());
        for number in segment_numbers(dir)? {
            match open_segment(dir, number, &key) {
                Ok(Some(file)) => {
                    files.insert(number, Arc::new(file));
                }
                // Nothing can refer to it.
                Ok(None) => tracing::info!(segment = number, "a segment that was never written to"),
                // Reading what refers to it says so.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::error!(segment = number, %error, "a segment is damaged");
                    unreadable.push(number);
                }
                Err(error) => return Err(error),
            }
        }
        let number = segment_numbers(dir)?.last().map_or(1, |last| last + 1);
        let file = Arc::new(create_segment(&*disk, dir, number, session, &key)?);
        files.insert(number, file.clone());
        let tail = Tail {
            number,
            file,
            buffer: Vec::new(),
            unsynced: Vec::new(),
            names_unsynced: true,
            // Opening the store syncs what is before.
            synced: Position { segment: number, offset: 0 },
            rows: 0,
        };
        Ok(Self {
            dir: dir.to_owned(),
            disk,
            key,
            session,
            bytes_max,
            unbuffered: false,
            next_frame: AtomicU64::new(0),
            files: RwLock::new(files),
            unreadable,
            tail: Mutex::new(tail),
            dirty: AtomicBool::new(true),
            syncing: Mutex::new(()),
        })
    }

    /// Whether everything goes to the file at once.
    pub(crate) fn set_unbuffered(&mut self, unbuffered: bool) {
        self.unbuffered = unbuffered;
    }

    /// Appends pages of a file; all of `data` but its last page is whole pages. Returns where they are.
    pub(crate) fn append_data(&self, ino: u64, first_page: u64, data: &[u8]) -> Result<Place> {
        let frame = self.next_frame.fetch_add(1, Ordering::Relaxed);
        let pages = data.len().div_ceil(PAGE_BYTES);
        let mut body = Vec::with_capacity(pages * SEALED_PAGE_BYTES);
        for (part, page) in data.chunks(PAGE_BYTES).enumerate() {
            self.key.seal_into(&self.nonce(frame, part as u64), b"page", page, &mut body);
        }
        let pages = u32::try_from(pages).map_err(|_| Error::new(ErrorKind::Internal, "frame too long"))?;
        let head = Head { ino, first_page, pages, ..Head::new(Kind::Data) };
        let (segment, offset) = self.append(head, &[(frame, body)])?;
        Ok(Place { segment, frame, offset: offset + HEAD, index: 0 })
    }

    /// Appends index rows, twice.
    pub(crate) fn append_rows(&self, rows: &[u8]) -> Result<()> {
        let bodies = [(); 2].map(|()| {
            let frame = self.next_frame.fetch_add(1, Ordering::Relaxed);
            let mut body = Vec::with_capacity(rows.len() + LOCAL_TAG_BYTES);
            self.key.seal_into(&self.nonce(frame, PART_ROWS), b"rows", rows, &mut body);
            (frame, body)
        });
        self.append(Head::new(Kind::Rows), &bodies).map(drop)
    }

    /// The point behind everything appended so far.
    pub(crate) fn position(&self) -> Position {
        let tail = self.tail.lock();
        Position { segment: tail.number, offset: tail.end() }
    }

    /// Puts everything appended so far on stable storage.
    pub(crate) fn sync(&self) -> Result<()> {
        let _syncing = self.syncing.lock();
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let outcome = self.sync_all();
        if outcome.is_err() {
            self.dirty.store(true, Ordering::Release);
        }
        outcome
    }

    /// Puts segments of earlier sessions on stable storage, from this one on.
    pub(crate) fn sync_from(&self, number: u32) -> Result<()> {
        let files: Vec<_> = self.closed(number).into_iter().filter_map(|number| self.file(number).ok()).collect();
        files.iter().try_for_each(|file| self.sync_file(file))
    }

    fn sync_all(&self) -> Result<()> {
        let (file, closed, names, end) = {
            let mut tail = self.tail.lock();
            tail.flush(&*self.disk, &self.dir)?;
            let end = Position { segment: tail.number, offset: tail.end() };
            (tail.file.clone(), tail.unsynced.clone(), tail.names_unsynced, end)
        };
        closed.iter().chain([&file]).try_for_each(|file| self.sync_file(file))?;
        if names {
            sync_dir(&self.dir)?;
        }
        let mut tail = self.tail.lock();
        tail.synced = end;
        tail.unsynced.retain(|file| !closed.iter().any(|done| done.number == file.number));
        // One that was made meanwhile has a name that is not synced.
        tail.names_unsynced &= tail.number != end.segment;
        Ok(())
    }

    fn sync_file(&self, file: &Arc<SegmentFile>) -> Result<()> {
        if !file.doubtful.load(Ordering::Acquire) {
            let Err(error) = self.disk.sync(&segment_path(&self.dir, file.number), &file.file) else { return Ok(()) };
            file.doubtful.store(true, Ordering::Release);
            tracing::error!(segment = file.number, %error, "a flush failed: the segment is written anew");
        }
        self.write_anew(file)
    }

    /// Puts a segment on stable storage as another file, which then takes its name. Places in it stay the same.
    fn write_anew(&self, old: &SegmentFile) -> Result<()> {
        let failed = |e| io_error("write a segment anew", e);
        // Nobody appends meanwhile.
        let mut tail = self.tail.lock();
        let end = old.written.load(Ordering::Acquire);
        let path = segment_path(&self.dir, old.number);
        let new_path = path.with_extension("new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new_path);
        let new = SegmentFile::new(old.number, file.map_err(failed)?, old.session, end);
        let mut offset = 0;
        while offset < end {
            let mut bytes = vec![0u8; usize::try_from(end - offset).unwrap_or(COPY_BYTES).min(COPY_BYTES)];
            read_exact(old, offset, &mut bytes)?;
            self.disk.write(&new_path, &new.file, &bytes, offset).map_err(failed)?;
            offset += bytes.len() as u64;
        }
        // What the system has forgotten already must not be acknowledged.
        let known = if tail.synced.segment == old.number { tail.synced.offset } else { 0 };
        if !self.opens_from(&new, known.max(FILE_HEADER_BYTES))? {
            return Err(Error::new(ErrorKind::Corrupt, "what a failed flush left cannot be read back"));
        }
        self.disk.sync(&new_path, &new.file).map_err(failed)?;
        std::fs::rename(&new_path, &path).map_err(failed)?;
        sync_dir(&self.dir)?;
        let new = Arc::new(new);
        self.files.write().insert(new.number, new.clone());
        let Tail { file, unsynced, .. } = &mut *tail;
        unsynced.iter_mut().chain([file]).filter(|file| file.number == new.number).for_each(|file| *file = new.clone());
        Ok(())
    }

    /// Reads `out.len()` bytes of pages from `place` on; `out` is whole pages, but for the last one of the frame.
    pub(crate) fn read(&self, place: Place, out: &mut [u8]) -> Result<()> {
        let file = self.file(place.segment)?;
        let pages = out.len().div_ceil(PAGE_BYTES);
        let mut sealed = vec![0u8; out.len() + pages * LOCAL_TAG_BYTES];
        let offset = place.offset + u64::from(place.index) * SEALED_PAGE_BYTES as u64;
        self.read_raw(place.segment, &file, offset, &mut sealed)?;
        for (part, (sealed, page)) in sealed.chunks(SEALED_PAGE_BYTES).zip(out.chunks_mut(PAGE_BYTES)).enumerate() {
            let nonce = LocalNonce::new(file.session, place.frame, u64::from(place.index) + part as u64);
            self.key
                .open_into(&nonce, b"page", sealed, page)
                .map_err(|e| Error::new(ErrorKind::Corrupt, "a stored page does not open").caused_by(e))?;
        }
        Ok(())
    }

    /// Bytes of each segment that exists, the one being written last.
    pub(crate) fn sizes(&self) -> Vec<(u32, u64)> {
        let mut sizes: Vec<_> =
            self.files.read().iter().map(|(number, file)| (*number, file.written.load(Ordering::Acquire))).collect();
        sizes.sort_unstable();
        sizes
    }

    /// The segment being written.
    pub(crate) fn current(&self) -> u32 {
        self.tail.lock().number
    }

    /// Segments whose header is damaged.
    pub(crate) fn unreadable(&self) -> &[u32] {
        &self.unreadable
    }

    /// Removes a segment that nothing refers to.
    pub(crate) fn remove(&self, number: u32) -> Result<()> {
        if self.current() == number {
            return Ok(());
        }
        self.files.write().remove(&number);
        std::fs::remove_file(segment_path(&self.dir, number)).map_err(|e| io_error("remove a segment", e))
    }

    /// The files whose pages lie in a segment: (ino, first page, pages) of each data frame.
    pub(crate) fn owners(&self, number: u32) -> Result<Vec<(u64, u64, u64)>> {
        let mut owners = Vec::new();
        self.each_head(&*self.file(number)?, FILE_HEADER_BYTES, |_, head| {
            if head.kind == Kind::Data {
                owners.push((head.ino, head.first_page, u64::from(head.pages)));
            }
        })?;
        Ok(owners)
    }

    fn nonce(&self, frame: u64, part: u64) -> LocalNonce {
        LocalNonce::new(self.session, frame, part)
    }

    fn file(&self, number: u32) -> Result<Arc<SegmentFile>> {
        self.files
            .read()
            .get(&number)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("segment {number} is missing")))
    }

    /// Appends frames that belong together, in one piece. `bodies` are sealed with the frame number beside them.
    /// Returns segment and offset of the first.
    fn append(&self, head: Head, bodies: &[(u64, Vec<u8>)]) -> Result<(u32, u64)> {
        let mut tail = self.tail.lock();
        if tail.end() >= self.bytes_max {
            self.rotate(&mut tail)?;
        }
        let rows = tail.rows + u64::from(head.kind == Kind::Rows);
        let mut bytes = Vec::with_capacity(bodies.iter().map(|(_, body)| HEAD_BYTES + body.len()).sum());
        for (frame, body) in bodies {
            let body_bytes = u32::try_from(body.len()).ok().filter(|length| *length <= BODY_BYTES_MAX);
            let body_bytes = body_bytes.ok_or_else(|| Error::new(ErrorKind::Internal, "frame too long"))?;
            let head = Head { frame: *frame, body_bytes, synced: tail.synced, rows, ..head };
            bytes.extend_from_slice(&head.seal(&self.key, self.session));
            bytes.extend_from_slice(body);
        }
        let at = (tail.number, tail.end());
        if bytes.len() >= DIRECT_BYTES_MIN || self.unbuffered {
            tail.flush(&*self.disk, &self.dir)?;
            tail.write(&*self.disk, &self.dir, &bytes)?;
        } else {
            if tail.buffer.len() + bytes.len() > BUFFER_BYTES_MAX {
                tail.flush(&*self.disk, &self.dir)?;
            }
            tail.buffer.extend_from_slice(&bytes);
        }
        // Only now: a frame that was not written does not count as one that was lost.
        tail.rows = rows;
        self.dirty.store(true, Ordering::Release);
        Ok(at)
    }

    /// Closes the segment being written and starts the next.
    pub(crate) fn start_next(&self) -> Result<()> {
        self.rotate(&mut self.tail.lock())
    }

    fn rotate(&self, tail: &mut Tail) -> Result<()> {
        tail.flush(&*self.disk, &self.dir)?;
        let number = tail.number + 1;
        let file = Arc::new(create_segment(&*self.disk, &self.dir, number, self.session, &self.key)?);
        self.files.write().insert(number, file.clone());
        let closed = std::mem::replace(&mut tail.file, file);
        tail.unsynced.push(closed);
        tail.number = number;
        tail.names_unsynced = true;
        Ok(())
    }

    fn read_raw(&self, number: u32, file: &SegmentFile, offset: u64, out: &mut [u8]) -> Result<()> {
        if offset + out.len() as u64 <= file.written.load(Ordering::Acquire) {
            return read_exact(file, offset, out);
        }
        let tail = self.tail.lock();
        // It may have been written anew.
        let file = self.file(number)?;
        let written = file.written.load(Ordering::Acquire);
        if tail.number == number && offset >= written {
            let start = usize::try_from(offset - written).unwrap_or(usize::MAX);
            let buffered = tail.buffer.get(start..).and_then(|rest| rest.get(..out.len()));
            let buffered = buffered.ok_or_else(|| Error::new(ErrorKind::Corrupt, "a stored page is cut off"))?;
            out.copy_from_slice(buffered);
            return Ok(());
        }
        drop(tail);
        read_exact(&file, offset, out)
    }
}

impl SegmentFile {
    fn new(number: u32, file: File, session: [u8; 16], written: u64) -> Self {
        Self { number, file, session, written: AtomicU64::new(written), doubtful: AtomicBool::new(false) }
    }
}

impl Tail {
    fn end(&self) -> u64 {
        self.file.written.load(Ordering::Acquire) + self.buffer.len() as u64
    }

    /// Writes the buffer out. On failure it stays whole in the buffer and nothing half is left behind.
    fn flush(&mut self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        let outcome = self.write(disk, dir, &buffer);
        self.buffer = buffer;
        if outcome.is_ok() {
            self.buffer.clear();
        }
        outcome
    }

    fn write(&mut self, disk: &dyn Disk, dir: &Path, bytes: &[u8]) -> Result<()> {
        let written = self.file.written.load(Ordering::Acquire);
        match disk.write(&segment_path(dir, self.number), &self.file.file, bytes, written) {
            Ok(()) => {
                self.file.written.store(written + bytes.len() as u64, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                // A frame cut short would hide the frames after it from a replay.
                if let Err(cut) = self.file.file.set_len(written) {
                    tracing::error!(error = %cut, "cannot cut a half written frame off");
                }
                Err(io_error("write to a segment", error))
            }
        }
    }
}

fn le_u64(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn le_u32(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08x}.seg"))
}

/// Numbers of the segments in `dir`, ascending.
fn segment_numbers(dir: &Path) -> Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| io_error("list the segments", e))? {
        let name = entry.map_err(|e| io_error("list the segments", e))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg")).map(|hex| u32::from_str_radix(hex, 16));
        if let Some(Ok(number)) = number {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// `None` when the header never reached the disk: a crash right after creation.
fn open_segment(dir: &Path, number: u32, key: &LocalKey) -> Result<Option<SegmentFile>> {
    let file = File::open(segment_path(dir, number)).map_err(|e| io_error("open a segment", e))?;
    let length = file.metadata().map_err(|e| io_error("open a segment", e))?.len();
    let mut header = [0u8; FILE_HEADER_LEN];
    let there = header.len().min(usize::try_from(length).unwrap_or(usize::MAX));
    file.read_exact_at(&mut header[..there], 0).map_err(|e| io_error("read a segment", e))?;
    let session = header.chunks(FILE_HEADER_COPY_LEN).find_map(|copy| open_header(copy, number, key));
    match session {
        Some(session) => Ok(Some(SegmentFile::new(number, file, session, length))),
        None if there < header.len() || header.iter().all(|byte| *byte == 0) => Ok(None),
        None => Err(Error::new(ErrorKind::Corrupt, "a segment whose header does not open")),
    }
}

/// The session that a copy of a header names, if that copy is whole.
fn open_header(copy: &[u8], number: u32, key: &LocalKey) -> Option<[u8; 16]> {
    let (clear, tag) = copy.split_at(FILE_HEADER_CLEAR_LEN);
    let session = <[u8; 16]>::try_from(&clear[16..]).ok()?;
    let holds = key.open_into(&header_nonce(session, number), clear, tag, &mut []).is_ok();
    (holds && &clear[..8] == FILE_MAGIC && le_u32(&clear[8..12]) == FILE_VERSION).then_some(session)
}

fn header_nonce(session: [u8; 16], number: u32) -> LocalNonce {
    LocalNonce::new(session, u64::from(number), PART_FILE)
}

fn create_segment(disk: &dyn Disk, dir: &Path, number: u32, session: [u8; 16], key: &LocalKey) -> Result<SegmentFile> {
    let mut copy = Vec::with_capacity(FILE_HEADER_COPY_LEN);
    copy.extend_from_slice(FILE_MAGIC);
    copy.extend_from_slice(&FILE_VERSION.to_le_bytes());
    copy.extend_from_slice(&number.to_le_bytes());
    copy.extend_from_slice(&session);
    let clear = copy.clone();
    key.seal_into(&header_nonce(session, number), &clear, &[], &mut copy);
    let path = segment_path(dir, number);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| io_error("make a segment", e))?;
    if let Err(error) = disk.write(&path, &file, &copy.repeat(2), 0) {
        // Best effort: a segment without a header is skipped at the next start anyway.
        let _ = std::fs::remove_file(&path);
        return Err(io_error("make a segment", error));
    }
    Ok(SegmentFile::new(number, file, session, FILE_HEADER_BYTES))
}

fn read_exact(file: &SegmentFile, offset: u64, out: &mut [u8]) -> Result<()> {
    file.file.read_exact_at(out, offset).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::new(ErrorKind::Corrupt, "a segment is cut off").caused_by(e),
        _ => io_error("read a segment", e),
    })
}

/// Makes names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| io_error("sync a folder of the local store", e))
}

/// A failed system call on the local store: a full disk is the caller's to know, a bad one is damage.
pub(crate) fn io_error(what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => ErrorKind::ReadOnly,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("cannot {what}")).caused_by(error)
}
