//! The local store: everything a device keeps of one workspace, sealed.
//!
//! Two parts: [`segment`] files hold content and, between it, the journal of index rows; [`index`] is a SQLite database
//! that is brought up to date from the rows in groups. A change is *logged* (visible to readers here at once), then
//! *journaled* (in a segment; [`Store::sync`] makes it durable with one device flush), then *applied* to SQLite.
//! After a crash the journal behind the index is replayed up to the first frame that the crash tore: the state is a
//! prefix of what happened, no older than the last sync. What damage took later is counted and told.
//!
//! A store may have a [`tape`] too, where changes survive this process until they are journaled.
//!
//! Rows wait in [`queue`], are written ahead by [`journal`], and [`space`] says what fits and what can go.
//!
//! Not here: what the rows mean (`fs`), which bytes are fetched or sent (`sync`).
//!
//! Locks, ascending: `gate` < those of `fs` < `journal` < segments' < `queue` < `reader`.

mod disk;
mod fingerprint;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod index;
mod journal;
mod queue;
mod segment;
mod space;
mod tape;

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use parsecfs_crypto::{local::LocalKey, random_bytes};

pub use self::disk::{Disk, RealDisk};
pub(crate) use self::index::{RowBytes, RowKey, RowValue};
pub(crate) use self::tape::{Inheritance, on_behalf_of};
use self::{
    index::Index,
    journal::{replay_frame, take_frame},
    queue::Queue,
    segment::{Replayed, Segments, io_error, sync_dir},
    space::{Usage, segment_bytes_max},
    tape::Tape,
};
use crate::{
    content::Place,
    error::{Error, ErrorKind, Result},
};

/// The index in the folder of the store.
const INDEX: &str = "index.sqlite";

/// What was found when the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Rows brought back from the journal.
    pub rows: usize,
    /// Whether the journal ended in something incomplete, as after a crash.
    pub torn: bool,
    /// Stretches of the journal that were written whole and did not open.
    pub damaged: usize,
    /// Groups of changes that damage took, at this opening or before.
    pub lost: u64,
}

/// The local store of one workspace. One process at a time.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    segments: Segments,
    queue: Mutex<Queue>,
    /// Held while rows move from the queue to a segment, so that they arrive in order.
    journal: Mutex<()>,
    reader: Mutex<Index>,
    writer: Mutex<Index>,
    ino: AtomicU64,
    cookie: AtomicU64,
    change: AtomicU64,
    /// Bytes appended since the room on disk was last asked for.
    since_space_check: AtomicU64,
    /// At how many of them it is asked for again.
    space_check_after: AtomicU64,
    full: AtomicBool,
    bytes_max: u64,
    /// Read by who lets pages go and logs why, written by who asks which segments nobody needs: see [`Store::changing`].
    gate: RwLock<()>,
    /// Pages in use of each segment.
    usage: Mutex<Usage>,
    /// The index as it was at opening, until pages in use are counted.
    census: Mutex<Option<Index>>,
    kick: Mutex<Option<std::sync::mpsc::SyncSender<()>>>,
    recovery: Recovery,
    inheritance: Inheritance,
    /// Held for the life of the store.
    _lock: File,
}

impl Store {
    /// Opens or makes the store in `dir` and recovers what a crash left. At most `bytes_max` of content are kept.
    pub fn open(dir: &Path, key: &LocalKey, bytes_max: u64) -> Result<Self> {
        Self::open_on(Arc::new(RealDisk), dir, key, bytes_max)
    }

    /// The same over a disk that may fail.
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, key: &LocalKey, bytes_max: u64) -> Result<Self> {
        Self::open_with(disk, dir, key, bytes_max, None)
    }

    /// The same with a tape: a file in memory that somebody else holds too, empty or left by a process that was killed.
    /// What is acknowledged from now on survives this process as well.
    pub fn open_taped(dir: &Path, key: &LocalKey, bytes_max: u64, tape: File) -> Result<Self> {
        Self::open_with(Arc::new(RealDisk), dir, key, bytes_max, Some(tape))
    }

    fn open_with(disk: Arc<dyn Disk>, dir: &Path, key: &LocalKey, bytes_max: u64, tape: Option<File>) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| io_error("make the local store", e))?;
        let lock = lock(dir)?;
        let session: [u8; 16] = random_bytes();
        let path = dir.join(INDEX);
        let segments_dir = dir.join("segments");
        // Then only a process has ended, not the machine: the index is as that process left it.
        let is_inherited = tape.as_ref().is_some_and(|tape| tape.metadata().is_ok_and(|meta| meta.len() > 0));
        let (mut writer, reader) = open_index(&path, key, session, &segments_dir, is_inherited)?;
        let (position, mut counters) = writer.state()?;
        let bytes_max_each = segment_bytes_max(dir, bytes_max)?;
        let mut segments = Segments::open(disk, &segments_dir, key.clone(), session, bytes_max_each)?;
        segments.set_unbuffered(tape.is_some());
        let mut rows = BTreeMap::new();
        let mut group = Vec::new();
        let Replayed { torn, damaged, lost } =
            segments.replay(position, |bytes| replay_frame(bytes, &mut group, &mut rows, &mut counters))?;
        counters.lost += lost;
        let torn = torn || !group.is_empty();
        let mut inheritance = Inheritance::default();
        let tape = match tape {
            Some(file) => Some(Tape::open(file, key.clone(), session, |record| {
                inheritance.note(&record);
                take_frame(record.frame, &mut Vec::new(), &mut rows, &mut counters)
            })?),
            None => None,
        };
        inheritance.ino_max = if is_inherited { counters.ino } else { 0 };
        let recovery = Recovery { rows: rows.len(), torn, damaged, lost: counters.lost };
        segments.sync()?;
        // A process that was killed leaves frames that the disk may not have yet.
        segments.sync_from(position.segment)?;
        writer.apply(rows.iter(), segments.position(), counters)?;
        sync_dir(dir)?;
        if torn || damaged > 0 {
            // Were this position lost, a later replay would meet the same frames, and take what is torn for damaged.
            writer.checkpoint()?;
        }
        let census = Index::open_reader(&path, key.clone())?;
        census.freeze()?;
        Ok(Self {
            dir: dir.to_owned(),
            segments,
            queue: Mutex::new(Queue { tape, ..Queue::default() }),
            journal: Mutex::new(()),
            reader: Mutex::new(reader),
            writer: Mutex::new(writer),
            ino: AtomicU64::new(counters.ino),
            cookie: AtomicU64::new(counters.cookie),
            change: AtomicU64::new(counters.change),
            since_space_check: AtomicU64::new(0),
            space_check_after: AtomicU64::new(0),
            full: AtomicBool::new(false),
            bytes_max,
            gate: RwLock::new(()),
            usage: Mutex::default(),
            census: Mutex::new(Some(census)),
            kick: Mutex::new(None),
            recovery,
            inheritance,
            _lock: lock,
        })
    }

    /// What was found at opening.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// What a process that was killed left on the tape.
    pub(crate) fn inheritance(&self) -> &Inheritance {
        &self.inheritance
    }

    /// A number that no inode of this store ever had.
    pub(crate) fn new_ino(&self) -> u64 {
        self.ino.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A number that no directory entry of this store ever had.
    pub(crate) fn new_cookie(&self) -> u64 {
        self.cookie.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A number above all that were given to changes before.
    pub(crate) fn new_change(&self) -> u64 {
        self.change.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The newest change number given out.
    pub(crate) fn newest_change(&self) -> u64 {
        self.change.load(Ordering::Relaxed)
    }

    /// Puts content into the store; all of `data` but its last page is whole pages.
    pub(crate) fn append(&self, ino: u64, first_page: u64, data: &[u8]) -> Result<Place> {
        self.check_space(data.len() as u64)?;
        self.append_moved(ino, first_page, data)
    }

    /// The same for content that is here already and moves, to make room: it may use the reserve.
    pub(crate) fn append_moved(&self, ino: u64, first_page: u64, data: &[u8]) -> Result<Place> {
        let outcome = self.segments.append_data(ino, first_page, data);
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::NoSpace) {
            self.full.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Reads content: whole pages, but for the last one of what was appended together.
    pub(crate) fn read(&self, place: Place, out: &mut [u8]) -> Result<()> {
        self.segments.read(place, out)
    }

    /// Ends: everything is durable and in the index.
    pub fn close(&self) -> Result<()> {
        // The count of used pages reads the index as it was at opening, which would keep the journal from shrinking.
        drop(self.census.lock().take());
        self.sync()?;
        self.apply()?;
        self.writer.lock().checkpoint()?;
        if let Some(tape) = &mut self.queue.lock().tape {
            tape.clear();
        }
        if let Err(error) = fingerprint::record(&self.dir.join(INDEX)) {
            tracing::warn!(%error, "the next opening will look at every row of the index");
        }
        Ok(())
    }

    /// What damage took that belongs to no entry that could be named.
    pub(crate) fn losses(&self) -> Vec<Error> {
        let lost = self.recovery.lost;
        let groups = (lost > 0).then(|| format!("{lost} groups of changes in the journal were damaged and are lost"));
        let segments = self.segments.unreadable().iter();
        let segments = segments.map(|number| format!("segment {number} of the local store has a damaged header"));
        groups.into_iter().chain(segments).map(|text| Error::new(ErrorKind::Corrupt, text)).collect()
    }

    /// Where [`Store::log`] and a full disk ring.
    pub(crate) fn set_kick(&self, kick: std::sync::mpsc::SyncSender<()>) {
        *self.kick.lock() = Some(kick);
    }

    fn wake(&self) {
        if let Some(kick) = &*self.kick.lock() {
            // A full channel means that the thread is awake already.
            let _ = kick.try_send(());
        }
    }
}

/// The index, whole, with its writer and a reader. Damage is told before anything is changed: without the index nobody
/// knows what the segments are needed for.
fn open_index(
    path: &Path,
    key: &LocalKey,
    session: [u8; 16],
    segments: &Path,
    is_trusted: bool,
) -> Result<(Index, Index)> {
    let damaged = |error: Error| match error.kind() {
        ErrorKind::Corrupt | ErrorKind::Internal => {
            const TEXT: &str = "the index of the local store is damaged: keep its folder under another name and mount \
                                again; what was synced comes back from the storage";
            Error::new(ErrorKind::Corrupt, TEXT).caused_by(error)
        }
        _ => error,
    };
    let has_segments = segments.exists();
    let is_empty = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) || !path.exists();
    if has_segments && is_empty {
        return Err(damaged(Error::new(ErrorKind::Corrupt, "there is no index")));
    }
    let open = || {
        let as_closed = fingerprint::is_as_recorded(path);
        let writer = Index::open(path, key.clone(), session)?;
        if writer.is_new() {
            // Segments are made only beside an index that a power cut leaves there.
            sync_dir(path.parent().unwrap_or(path))?;
        } else if !as_closed && !is_trusted {
            writer.verify()?;
        }
        Ok((writer, Index::open_reader(path, key.clone())?))
    };
    open().map_err(damaged)
}

fn lock(dir: &Path) -> Result<File> {
    let file = File::create(dir.join("lock")).map_err(|e| io_error("open the lock of the local store", e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(ErrorKind::Busy, "another process has the local store open")),
        Err(TryLockError::Error(error)) => Err(io_error("lock the local store", error)),
    }
}
