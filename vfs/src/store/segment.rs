//! Segments: append-only files of sealed frames. They are the journal and the home of all local file content.
//!
//! A frame is either *data* (pages of one file, each sealed by itself so that a small read opens little) or *rows*
//! (changes of the index, see [`super`]). Nothing in a segment is ever rewritten, so nothing that was synced can be
//! torn by a later write; what is no longer referenced goes when its whole segment goes.
//!
//! ```text
//! segment = magic(8) version(4) number(4) session(16)                         32 bytes
//! frame   = magic(4) kind(4) body length(4) pages(4) frame number(8) zero(8)  32 bytes, then the body
//! data    = seal(ino, first page) then seal(page) for each page, all but the last 4,096 bytes of plaintext
//! rows    = seal(rows)
//! ```
//!
//! The nonce of a sealed part is (session, frame number, part number). A session is 16 random bytes made at each
//! opening of the store and a frame number is never used twice in it, whatever fails, so no nonce is used twice.
//!
//! Lock: `Tail` orders appends. Reading takes it only for bytes that are still in its buffer.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use parsecfs_crypto::local::{LOCAL_TAG_BYTES, LocalKey, LocalNonce};

use crate::{
    content::{PAGE_BYTES, Place},
    error::{Error, ErrorKind, Result},
};

const FILE_MAGIC: &[u8; 8] = b"parsecfs";
const FILE_VERSION: u32 = 1;
const FILE_HEADER_BYTES: u64 = 32;
/// The same as memory counts.
const FILE_HEADER_LEN: usize = 32;
const FRAME_MAGIC: &[u8; 4] = b"pfsF";
const FRAME_HEADER_BYTES: usize = 32;
/// Sealed ino and first page.
const WHERE_BYTES: usize = 16 + LOCAL_TAG_BYTES;
const SEALED_PAGE_BYTES: usize = PAGE_BYTES + LOCAL_TAG_BYTES;
/// Appends at least this large go to the file at once instead of through the buffer.
const DIRECT_BYTES_MIN: usize = 64 << 10;
/// The buffer is written out when it has grown over this.
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// Longest frame body that a reader believes: 16 MiB of pages and their tags.
const BODY_BYTES_MAX: u32 = 20 << 20;

const PART_WHERE: u64 = u64::MAX;
const PART_ROWS: u64 = u64::MAX - 1;

/// A point in the journal: everything before it is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

/// What the scan of the journal found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScanEnd {
    /// The last frame ended where the last segment ended.
    Whole,
    /// Something after this point is incomplete or damaged.
    Torn(Position),
}

#[derive(Debug)]
struct SegmentFile {
    file: File,
    session: [u8; 16],
    /// Bytes that are in the file; more may be in the buffer.
    written: AtomicU64,
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
}

/// All segments of a store.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    key: LocalKey,
    session: [u8; 16],
    /// A segment is closed when it has grown over this.
    bytes_max: u64,
    next_frame: AtomicU64,
    files: RwLock<HashMap<u32, Arc<SegmentFile>>>,
    tail: Mutex<Tail>,
    /// Something was appended since the last [`Segments::sync`].
    dirty: AtomicBool,
    /// Held for a whole sync, so that nobody returns while another is still waiting for the device.
    syncing: Mutex<()>,
}

impl Segments {
    /// Opens the segments in `dir` for reading and starts a new one for writing.
    pub(crate) fn open(dir: &Path, key: LocalKey, session: [u8; 16], bytes_max: u64) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| io_error("make the segment folder", e))?;
        let mut files = HashMap::new();
        for number in segment_numbers(dir)? {
            match open_segment(&segment_path(dir, number)) {
                Ok(file) => {
                    files.insert(number, Arc::new(file));
                }
                // A crash right after creation leaves a file without a header: nothing can refer to it. When a header was
                // damaged later, reading what refers to it says so.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(segment = number, %error, "segment without a readable header");
                }
                Err(error) => return Err(error),
            }
        }
        let number = segment_numbers(dir)?.last().map_or(1, |last| last + 1);
        let file = Arc::new(create_segment(dir, number, session)?);
        files.insert(number, file.clone());
        let tail = Tail { number, file, buffer: Vec::new(), unsynced: Vec::new(), names_unsynced: true };
        Ok(Self {
            dir: dir.to_owned(),
            key,
            session,
            bytes_max,
            next_frame: AtomicU64::new(0),
            files: RwLock::new(files),
            tail: Mutex::new(tail),
            dirty: AtomicBool::new(true),
            syncing: Mutex::new(()),
        })
    }

    /// Appends pages of a file; all of `data` but its last page is whole pages. Returns where they are.
    pub(crate) fn append_data(&self, ino: u64, first_page: u64, data: &[u8]) -> Result<Place> {
        let frame = self.next_frame.fetch_add(1, Ordering::Relaxed);
        let pages = data.len().div_ceil(PAGE_BYTES);
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + WHERE_BYTES + pages * SEALED_PAGE_BYTES);
        bytes.resize(FRAME_HEADER_BYTES, 0);
        let mut place = [0u8; 16];
        place[..8].copy_from_slice(&ino.to_le_bytes());
        place[8..].copy_from_slice(&first_page.to_le_bytes());
        self.key.seal_into(&self.nonce(frame, PART_WHERE), b"where", &place, &mut bytes);
        for (part, page) in data.chunks(PAGE_BYTES).enumerate() {
            self.key.seal_into(&self.nonce(frame, part as u64), b"page", page, &mut bytes);
        }
        let (segment, offset) = self.append(Kind::Data, frame, pages, bytes)?;
        let offset = offset + (FRAME_HEADER_BYTES + WHERE_BYTES) as u64;
        Ok(Place { segment, frame, offset, index: 0 })
    }

    /// Appends index rows and returns the point behind them.
    pub(crate) fn append_rows(&self, rows: &[u8]) -> Result<()> {
        let frame = self.next_frame.fetch_add(1, Ordering::Relaxed);
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + rows.len() + LOCAL_TAG_BYTES);
        bytes.resize(FRAME_HEADER_BYTES, 0);
        self.key.seal_into(&self.nonce(frame, PART_ROWS), b"rows", rows, &mut bytes);
        self.append(Kind::Rows, frame, 0, bytes)?;
        Ok(())
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
        let current = self.current();
        let files: Vec<_> = {
            let files = self.files.read();
            files.iter().filter(|(n, _)| (number..current).contains(n)).map(|(_, file)| file.clone()).collect()
        };
        files.iter().try_for_each(|file| file.file.sync_data()).map_err(|e| io_error("sync a segment", e))
    }

    fn sync_all(&self) -> Result<()> {
        let (file, closed, names) = {
            let mut tail = self.tail.lock();
            tail.flush()?;
            (tail.file.clone(), tail.unsynced.clone(), tail.names_unsynced)
        };
        for closed in &closed {
            closed.file.sync_data().map_err(|e| io_error("sync a segment", e))?;
        }
        file.file.sync_data().map_err(|e| io_error("sync a segment", e))?;
        if names {
            sync_dir(&self.dir)?;
        }
        if names || !closed.is_empty() {
            let mut tail = self.tail.lock();
            tail.unsynced.retain(|file| !closed.iter().any(|done| Arc::ptr_eq(done, file)));
            tail.names_unsynced &= !Arc::ptr_eq(&tail.file, &file);
        }
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

    /// Removes a segment that nothing refers to.
    pub(crate) fn remove(&self, number: u32) -> Result<()> {
        if self.current() == number {
            return Ok(());
        }
        self.files.write().remove(&number);
        std::fs::remove_file(segment_path(&self.dir, number)).map_err(|e| io_error("remove a segment", e))
    }

    /// Walks the frames from `from` on, checks each, and hands the rows to `rows` until the first that does not hold.
    pub(crate) fn replay(&self, from: Position, mut rows: impl FnMut(&[u8]) -> Result<()>) -> Result<ScanEnd> {
        let current = self.current();
        let mut numbers: Vec<u32> = self.files.read().keys().copied().filter(|n| *n < current).collect();
        numbers.sort_unstable();
        for number in numbers.into_iter().filter(|number| *number >= from.segment) {
            let file = self.file(number)?;
            let end = file.written.load(Ordering::Acquire);
            let mut offset = if number == from.segment { from.offset } else { FILE_HEADER_BYTES };
            offset = offset.max(FILE_HEADER_BYTES);
            while offset < end {
                match self.replay_frame(&file, offset, end, &mut rows)? {
                    Some(next) => offset = next,
                    None => return Ok(ScanEnd::Torn(Position { segment: number, offset })),
                }
            }
        }
        Ok(ScanEnd::Whole)
    }

    /// Checks one frame; `None` when it does not hold.
    fn replay_frame(
        &self,
        file: &SegmentFile,
        offset: u64,
        end: u64,
        rows: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Option<u64>> {
        let Some(header) = FrameHeader::read(file, offset, end)? else { return Ok(None) };
        let mut body = vec![0u8; header.body_bytes as usize];
        read_exact(file, offset + FRAME_HEADER_BYTES as u64, &mut body)?;
        let next = offset + FRAME_HEADER_BYTES as u64 + u64::from(header.body_bytes);
        let nonce = |part| LocalNonce::new(file.session, header.frame, part);
        match header.kind {
            Kind::Rows => {
                let Some(length) = body.len().checked_sub(LOCAL_TAG_BYTES) else { return Ok(None) };
                let mut plain = vec![0u8; length];
                if self.key.open_into(&nonce(PART_ROWS), b"rows", &body, &mut plain).is_err() {
                    return Ok(None);
                }
                rows(&plain)?;
            }
            Kind::Data => {
                let Some(pages) = body.get(WHERE_BYTES..) else { return Ok(None) };
                let mut plain = vec![0u8; PAGE_BYTES];
                for (part, sealed) in pages.chunks(SEALED_PAGE_BYTES).enumerate() {
                    let Some(length) = sealed.len().checked_sub(LOCAL_TAG_BYTES) else { return Ok(None) };
                    if self.key.open_into(&nonce(part as u64), b"page", sealed, &mut plain[..length]).is_err() {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(next))
    }

    /// The files whose pages lie in a segment: (ino, first page, pages) of each data frame.
    pub(crate) fn owners(&self, number: u32) -> Result<Vec<(u64, u64, u64)>> {
        let file = self.file(number)?;
        let end = file.written.load(Ordering::Acquire);
        let mut owners = Vec::new();
        let mut offset = FILE_HEADER_BYTES;
        while offset < end {
            let Some(header) = FrameHeader::read(&file, offset, end)? else { break };
            if header.kind == Kind::Data {
                let mut sealed = [0u8; WHERE_BYTES];
                let mut plain = [0u8; 16];
                read_exact(&file, offset + FRAME_HEADER_BYTES as u64, &mut sealed)?;
                let nonce = LocalNonce::new(file.session, header.frame, PART_WHERE);
                if self.key.open_into(&nonce, b"where", &sealed, &mut plain).is_ok() {
                    let (ino, page) = plain.split_at(8);
                    owners.push((le_u64(ino), le_u64(page), u64::from(header.pages)));
                }
            }
            offset += FRAME_HEADER_BYTES as u64 + u64::from(header.body_bytes);
        }
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

    /// `bytes` holds room for the header, then the body. Returns segment and offset of the frame.
    fn append(&self, kind: Kind, frame: u64, pages: usize, mut bytes: Vec<u8>) -> Result<(u32, u64)> {
        let body = bytes.len() - FRAME_HEADER_BYTES;
        let too_long = || Error::new(ErrorKind::Internal, "frame too long");
        let header = FrameHeader {
            kind,
            body_bytes: u32::try_from(body).ok().filter(|n| *n <= BODY_BYTES_MAX).ok_or_else(too_long)?,
            pages: u32::try_from(pages).map_err(|_| too_long())?,
            frame,
        };
        bytes[..FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
        let mut tail = self.tail.lock();
        if tail.end() >= self.bytes_max {
            self.rotate(&mut tail)?;
        }
        let at = (tail.number, tail.end());
        if bytes.len() >= DIRECT_BYTES_MIN {
            tail.flush()?;
            tail.write(&bytes)?;
        } else {
            if tail.buffer.len() + bytes.len() > BUFFER_BYTES_MAX {
                tail.flush()?;
            }
            tail.buffer.extend_from_slice(&bytes);
        }
        self.dirty.store(true, Ordering::Release);
        Ok(at)
    }

    /// Closes the segment being written and starts the next.
    pub(crate) fn start_next(&self) -> Result<()> {
        self.rotate(&mut self.tail.lock())
    }

    fn rotate(&self, tail: &mut Tail) -> Result<()> {
        tail.flush()?;
        let number = tail.number + 1;
        let file = Arc::new(create_segment(&self.dir, number, self.session)?);
        self.files.write().insert(number, file.clone());
        let closed = std::mem::replace(&mut tail.file, file);
        tail.unsynced.push(closed);
        tail.number = number;
        tail.names_unsynced = true;
        Ok(())
    }

    fn read_raw(&self, number: u32, file: &SegmentFile, offset: u64, out: &mut [u8]) -> Result<()> {
        if offset + out.len() as u64 > file.written.load(Ordering::Acquire) {
            let tail = self.tail.lock();
            let written = file.written.load(Ordering::Acquire);
            if tail.number == number && offset >= written {
                let start = usize::try_from(offset - written).unwrap_or(usize::MAX);
                let buffered = tail.buffer.get(start..).and_then(|rest| rest.get(..out.len()));
                let buffered = buffered.ok_or_else(|| Error::new(ErrorKind::Corrupt, "a stored page is cut off"))?;
                out.copy_from_slice(buffered);
                return Ok(());
            }
        }
        read_exact(file, offset, out)
    }
}

impl Tail {
    fn end(&self) -> u64 {
        self.file.written.load(Ordering::Acquire) + self.buffer.len() as u64
    }

    /// Writes the buffer out. On failure it stays whole in the buffer and nothing half is left behind.
    fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        let outcome = self.write(&buffer);
        self.buffer = buffer;
        if outcome.is_ok() {
            self.buffer.clear();
        }
        outcome
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.written.load(Ordering::Acquire);
        match self.file.file.write_all_at(bytes, written) {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data = 1,
    Rows = 2,
}

struct FrameHeader {
    kind: Kind,
    body_bytes: u32,
    pages: u32,
    frame: u64,
}

impl FrameHeader {
    fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0u8; FRAME_HEADER_BYTES];
        out[..4].copy_from_slice(FRAME_MAGIC);
        out[4..8].copy_from_slice(&(self.kind as u32).to_le_bytes());
        out[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.pages.to_le_bytes());
        out[16..24].copy_from_slice(&self.frame.to_le_bytes());
        out
    }

    /// `None` when there is no whole frame at `offset`.
    fn read(file: &SegmentFile, offset: u64, end: u64) -> Result<Option<Self>> {
        if offset + FRAME_HEADER_BYTES as u64 > end {
            return Ok(None);
        }
        let mut bytes = [0u8; FRAME_HEADER_BYTES];
        read_exact(file, offset, &mut bytes)?;
        let kind = match le_u32(&bytes[4..8]) {
            1 => Kind::Data,
            2 => Kind::Rows,
            _ => return Ok(None),
        };
        let header = Self {
            kind,
            body_bytes: le_u32(&bytes[8..12]),
            pages: le_u32(&bytes[12..16]),
            frame: le_u64(&bytes[16..24]),
        };
        let whole = offset + FRAME_HEADER_BYTES as u64 + u64::from(header.body_bytes) <= end;
        Ok((&bytes[..4] == FRAME_MAGIC && header.body_bytes <= BODY_BYTES_MAX && whole).then_some(header))
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

fn open_segment(path: &Path) -> Result<SegmentFile> {
    let file = File::open(path).map_err(|e| io_error("open a segment", e))?;
    let length = file.metadata().map_err(|e| io_error("open a segment", e))?.len();
    let mut header = [0u8; FILE_HEADER_LEN];
    file.read_exact_at(&mut header, 0)
        .map_err(|e| Error::new(ErrorKind::Corrupt, "segment header cut off").caused_by(e))?;
    if &header[..8] != FILE_MAGIC {
        return Err(Error::new(ErrorKind::Corrupt, "not a segment"));
    }
    // A newer format raises the version of the index too, which was looked at before: this is damage.
    if le_u32(&header[8..12]) != FILE_VERSION {
        return Err(Error::new(ErrorKind::Corrupt, "segment of an unknown format"));
    }
    let mut session = [0u8; 16];
    session.copy_from_slice(&header[16..32]);
    Ok(SegmentFile { file, session, written: AtomicU64::new(length) })
}

fn create_segment(dir: &Path, number: u32, session: [u8; 16]) -> Result<SegmentFile> {
    let mut header = [0u8; FILE_HEADER_LEN];
    header[..8].copy_from_slice(FILE_MAGIC);
    header[8..12].copy_from_slice(&FILE_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&number.to_le_bytes());
    header[16..32].copy_from_slice(&session);
    let path = segment_path(dir, number);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| io_error("make a segment", e))?;
    if let Err(error) = file.write_all(&header) {
        // Best effort: a segment without a header is skipped at the next start anyway.
        let _ = std::fs::remove_file(&path);
        return Err(io_error("make a segment", error));
    }
    Ok(SegmentFile { file, session, written: AtomicU64::new(FILE_HEADER_BYTES) })
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
