//! The local store: everything a device keeps of one workspace, sealed.
//!
//! Two parts: [`segment`] files hold content and, between it, the journal of index rows; [`index`] is a SQLite database
//! that is brought up to date from the rows in groups. A change is *logged* (visible to readers here at once), then
//! *journaled* (in a segment; [`Store::sync`] makes it durable with one device flush), then *applied* to SQLite.
//! After a crash the journal behind the index is replayed up to the first frame that the crash tore: the state is a
//! prefix of what happened, no older than the last sync. What damage took later is counted and told.
//!
//! Not here: what the rows mean (`fs`), which bytes are fetched or sent (`sync`).
//!
//! Locks, ascending: `gate` < those of `fs` < `journal` < segments' < `queue` < `reader`.

mod disk;
mod fingerprint;
mod index;
mod segment;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{File, TryLockError},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use parsecfs_core::id::VlobId;
use parsecfs_crypto::{local::LocalKey, random_bytes};
use serde::{Deserialize, Serialize};

pub use self::disk::{Disk, RealDisk};
pub(crate) use self::index::{RowBytes, RowKey, RowValue};
use self::{
    index::{Counters, Index},
    segment::{Replayed, Segments, io_error, sync_dir},
};
use crate::{
    content::Place,
    error::{Error, ErrorKind, Result},
    quietly::quietly,
};

/// The index in the folder of the store.
const INDEX: &str = "index.sqlite";
/// Journal frames of rows are cut at this size.
const JOURNAL_FRAME_BYTES: usize = 4 << 20;
/// Rows that wait to be applied before the background thread is woken early.
const APPLY_ROWS: usize = 16_384;
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

#[derive(Debug, Default)]
struct Queue {
    /// Rows not applied yet, newest value each.
    overlay: BTreeMap<RowKey, RowValue>,
    /// Rows being applied right now.
    applying: Arc<BTreeMap<RowKey, RowValue>>,
    /// Rows of `overlay` that are not journaled yet.
    unjournaled: BTreeSet<RowKey>,
    /// Entry ids in the inode rows of `overlay` and of `applying`.
    ids: HashMap<VlobId, u64>,
    applying_ids: HashMap<VlobId, u64>,
}

impl Queue {
    /// Whether a queued row says that this inode is that entry; `None` when no row is queued.
    fn is_entry(&self, ino: u64, id: VlobId) -> Option<bool> {
        let key = RowKey::Inode(ino);
        let row = self.overlay.get(&key).or_else(|| self.applying.get(&key))?;
        Some(row.as_ref().is_some_and(|row| row.id == Some(id)))
    }
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
    /// Held for the life of the store.
    _lock: File,
}

#[derive(Debug, Default)]
struct Usage {
    /// Pages in use; exact once `counted`.
    pages: HashMap<u32, i64>,
    counted: bool,
}

#[derive(Serialize, Deserialize)]
struct JournalFrame {
    /// More frames follow that belong to the same group of changes.
    more: bool,
    counters: [u64; 3],
    rows: Vec<JournalRow>,
}

#[derive(Serialize, Deserialize)]
struct JournalRow {
    table: u8,
    a: u64,
    b: u64,
    value: Option<(Option<[u8; 16]>, bool, Vec<u8>)>,
}

impl Store {
    /// Opens or makes the store in `dir` and recovers what a crash left. At most `bytes_max` of content are kept.
    pub fn open(dir: &Path, key: &LocalKey, bytes_max: u64) -> Result<Self> {
        Self::open_on(Arc::new(RealDisk), dir, key, bytes_max)
    }

    /// The same over a disk that may fail.
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, key: &LocalKey, bytes_max: u64) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| io_error("make the local store", e))?;
        let lock = lock(dir)?;
        let session: [u8; 16] = random_bytes();
        let path = dir.join(INDEX);
        let segments_dir = dir.join("segments");
        let (mut writer, reader) = open_index(&path, key, session, &segments_dir)?;
        let (position, mut counters) = writer.state()?;
        let bytes_max_each = segment_bytes_max(dir, bytes_max)?;
        let segments = Segments::open(disk, &segments_dir, key.clone(), session, bytes_max_each)?;
        let mut rows = BTreeMap::new();
        let mut group = Vec::new();
        let Replayed { torn, damaged, lost } =
            segments.replay(position, |bytes| replay_frame(bytes, &mut group, &mut rows, &mut counters))?;
        counters.lost += lost;
        let torn = torn || !group.is_empty();
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
            queue: Mutex::default(),
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
            _lock: lock,
        })
    }

    /// What was found at opening.
    pub fn recovery(&self) -> Recovery {
        self.recovery
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

    /// Records changes of rows that belong together; they reach the disk all or not at all.
    pub(crate) fn log(&self, rows: impl IntoIterator<Item = (RowKey, RowValue)>) {
        let waiting = {
            let mut queue = self.queue.lock();
            for (key, value) in rows {
                if let (RowKey::Inode(ino), Some(RowBytes { id: Some(id), .. })) = (key, &value) {
                    queue.ids.insert(*id, ino);
                }
                queue.overlay.insert(key, value);
                queue.unjournaled.insert(key);
            }
            queue.overlay.len()
        };
        if waiting == APPLY_ROWS {
            self.wake();
        }
    }

    /// A row as it is now.
    pub(crate) fn row(&self, key: RowKey) -> Result<Option<Vec<u8>>> {
        {
            let queue = self.queue.lock();
            if let Some(value) = queue.overlay.get(&key).or_else(|| queue.applying.get(&key)) {
                return Ok(value.as_ref().map(|row| row.bytes.to_vec()));
            }
        }
        self.reader.lock().get(key)
    }

    /// The names in a folder by cookie, each opened or the reason why not.
    pub(crate) fn dentries(&self, parent: u64) -> Result<BTreeMap<u64, Result<Vec<u8>>>> {
        let range = RowKey::Dentry(parent, 0)..=RowKey::Dentry(parent, u64::MAX);
        self.range(
            range,
            |index| index.dentries(parent),
            |key| match key {
                RowKey::Dentry(_, cookie) => cookie,
                _ => u64::MAX,
            },
        )
    }

    /// The slots of a file with these numbers, each opened or the reason why not.
    pub(crate) fn slots(&self, ino: u64, numbers: RangeInclusive<u64>) -> Result<BTreeMap<u64, Result<Vec<u8>>>> {
        let range = RowKey::Slot(ino, *numbers.start())..=RowKey::Slot(ino, *numbers.end());
        self.range(
            range,
            |index| index.slots(ino, &numbers),
            |key| match key {
                RowKey::Slot(_, slot) => slot,
                _ => u64::MAX,
            },
        )
    }

    /// Rows that are not applied win over those in the index; they are looked at first, since they move there.
    fn range(
        &self,
        keys: RangeInclusive<RowKey>,
        read: impl FnOnce(&Index) -> Result<Vec<(u64, Result<Vec<u8>>)>>,
        number: impl Fn(RowKey) -> u64,
    ) -> Result<BTreeMap<u64, Result<Vec<u8>>>> {
        let newer: BTreeMap<u64, RowValue> = {
            let queue = self.queue.lock();
            let applying = queue.applying.range(keys.clone());
            let overlay = queue.overlay.range(keys);
            applying.chain(overlay).map(|(key, value)| (number(*key), value.clone())).collect()
        };
        let mut found: BTreeMap<_, _> = read(&self.reader.lock())?.into_iter().collect();
        for (number, value) in newer {
            match value {
                Some(row) => found.insert(number, Ok(row.bytes.to_vec())),
                None => found.remove(&number),
            };
        }
        Ok(found)
    }

    /// The inode of an entry.
    pub(crate) fn ino_of(&self, id: VlobId) -> Result<Option<u64>> {
        {
            let queue = self.queue.lock();
            let queued = queue.ids.get(&id).or_else(|| queue.applying_ids.get(&id));
            if let Some(ino) = queued.filter(|ino| queue.is_entry(**ino, id) == Some(true)) {
                return Ok(Some(*ino));
            }
        }
        let indexed = self.reader.lock().ino_of(id)?;
        let queue = self.queue.lock();
        Ok(indexed.filter(|ino| queue.is_entry(*ino, id) != Some(false)))
    }

    /// Inodes that waited for upload when the store was opened.
    pub(crate) fn pending(&self) -> Result<Vec<u64>> {
        self.reader.lock().pending()
    }

    /// The next inode numbers in the index, in order.
    pub(crate) fn inodes_after(&self, ino: u64, limit: usize) -> Result<Vec<u64>> {
        self.reader.lock().inodes_after(ino, limit)
    }

    /// Every inode number in the index.
    pub(crate) fn inodes(&self) -> Result<Vec<u64>> {
        self.reader.lock().inodes()
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

    /// Makes everything logged and appended so far durable.
    pub fn sync(&self) -> Result<()> {
        self.journal_rows()?;
        self.segments.sync()
    }

    /// Brings the index up to date. Called by the background thread and at the end.
    pub fn apply(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        let (rows, position, counters) = {
            let _journal = self.journal.lock();
            // In one step: a row logged between journaling and taking would be applied without being in the journal.
            let (rows, unjournaled) = {
                let mut queue = self.queue.lock();
                if queue.overlay.is_empty() {
                    return Ok(());
                }
                queue.applying = Arc::new(std::mem::take(&mut queue.overlay));
                queue.applying_ids = std::mem::take(&mut queue.ids);
                (queue.applying.clone(), std::mem::take(&mut queue.unjournaled))
            };
            let journal: Vec<_> =
                unjournaled.iter().filter_map(|key| rows.get(key).map(|value| (*key, value.clone()))).collect();
            if let Err(error) = self.append_rows(&journal) {
                self.end_apply(false, unjournaled);
                return Err(error);
            }
            (rows, self.segments.position(), self.counters())
        };
        let index = &mut *writer;
        let mut into_index = || index.apply(rows.iter(), position, counters);
        let outcome = self.segments.sync().and_then(|()| match rows.len() {
            // Not at the cost of who makes the changes, unless they come faster than that.
            ..=APPLY_ROWS => quietly(into_index),
            _ => into_index(),
        });
        self.end_apply(outcome.is_ok(), BTreeSet::new());
        outcome
    }

    /// The rows that were taken to be applied are in the index, or have to wait again.
    fn end_apply(&self, done: bool, unjournaled: BTreeSet<RowKey>) {
        let mut queue = self.queue.lock();
        let rows = std::mem::take(&mut queue.applying);
        let ids = std::mem::take(&mut queue.applying_ids);
        if done {
            return;
        }
        queue.unjournaled.extend(unjournaled);
        for (id, ino) in ids {
            queue.ids.entry(id).or_insert(ino);
        }
        for (key, value) in rows.iter() {
            queue.overlay.entry(*key).or_insert_with(|| value.clone());
        }
    }

    /// Ends: everything is durable and in the index.
    pub fn close(&self) -> Result<()> {
        // The count of used pages reads the index as it was at opening, which would keep the journal from shrinking.
        drop(self.census.lock().take());
        self.sync()?;
        self.apply()?;
        self.writer.lock().checkpoint()?;
        if let Err(error) = fingerprint::record(&self.dir.join(INDEX)) {
            tracing::warn!(%error, "the next opening will look at every row of the index");
        }
        Ok(())
    }

    fn journal_rows(&self) -> Result<()> {
        let _journal = self.journal.lock();
        self.journal_rows_locked()
    }

    fn journal_rows_locked(&self) -> Result<()> {
        let rows: Vec<(RowKey, RowValue)> = {
            let mut queue = self.queue.lock();
            let keys = std::mem::take(&mut queue.unjournaled);
            keys.into_iter().filter_map(|key| queue.overlay.get(&key).map(|value| (key, value.clone()))).collect()
        };
        if rows.is_empty() {
            return Ok(());
        }
        let outcome = self.append_rows(&rows);
        if outcome.is_err() {
            self.queue.lock().unjournaled.extend(rows.iter().map(|(key, _)| *key));
        }
        outcome
    }

    fn append_rows(&self, rows: &[(RowKey, RowValue)]) -> Result<()> {
        let counters = self.counters();
        let mut rest = rows;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(_, value)| {
                bytes += 48 + value.as_ref().map_or(0, |row| row.bytes.len());
                bytes <= JOURNAL_FRAME_BYTES
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            let frame = JournalFrame {
                more: !later.is_empty(),
                counters: [counters.ino, counters.cookie, counters.change],
                rows: now.iter().map(journal_row).collect(),
            };
            let encoded = postcard::to_stdvec(&frame)
                .map_err(|e| Error::new(ErrorKind::Internal, "encode a journal frame").caused_by(e))?;
            self.segments.append_rows(&encoded)?;
            rest = later;
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let lost = self.recovery.lost;
        Counters { ino: load(&self.ino), cookie: load(&self.cookie), change: load(&self.change), lost }
    }

    /// What damage took that belongs to no entry that could be named.
    pub(crate) fn losses(&self) -> Vec<Error> {
        let lost = self.recovery.lost;
        let groups = (lost > 0).then(|| format!("{lost} groups of changes in the journal were damaged and are lost"));
        let segments = self.segments.unreadable().iter();
        let segments = segments.map(|number| format!("segment {number} of the local store has a damaged header"));
        groups.into_iter().chain(segments).map(|text| Error::new(ErrorKind::Corrupt, text)).collect()
    }

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

    /// Free bytes and all bytes that content can use: what the disk and the limit allow.
    pub fn space(&self) -> Result<(u64, u64)> {
        let (free, _) = disk_space(&self.dir)?;
        let used = self.bytes();
        let free = free.min(self.bytes_max.saturating_sub(used));
        Ok((free, used.saturating_add(free)))
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
fn open_index(path: &Path, key: &LocalKey, session: [u8; 16], segments: &Path) -> Result<(Index, Index)> {
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
        } else if !as_closed {
            writer.verify()?;
        }
        Ok((writer, Index::open_reader(path, key.clone())?))
    };
    open().map_err(damaged)
}

/// At which size a segment is closed.
fn segment_bytes_max(dir: &Path, bytes_max: u64) -> Result<u64> {
    let (_, total) = disk_space(dir)?;
    Ok((total.min(bytes_max) / 32).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX))
}

fn lock(dir: &Path) -> Result<File> {
    let file = File::create(dir.join("lock")).map_err(|e| io_error("open the lock of the local store", e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(ErrorKind::Busy, "another process has the local store open")),
        Err(TryLockError::Error(error)) => Err(io_error("lock the local store", error)),
    }
}

fn disk_space(dir: &Path) -> Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| io_error("ask for the room on disk", e.into()))?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}

fn journal_row((key, value): &(RowKey, RowValue)) -> JournalRow {
    let (table, a, b) = match *key {
        RowKey::Checkpoint => (0, 0, 0),
        RowKey::Inode(ino) => (1, ino, 0),
        RowKey::Base(ino) => (2, ino, 0),
        RowKey::Dentry(parent, cookie) => (3, parent, cookie),
        RowKey::Slot(ino, slot) => (4, ino, slot),
    };
    let value = value.as_ref().map(|row| (row.id.map(|id| *id.as_bytes()), row.pending, row.bytes.to_vec()));
    JournalRow { table, a, b, value }
}

/// Collects the rows of one frame; they count once their group is complete.
fn replay_frame(
    bytes: &[u8],
    group: &mut Vec<JournalRow>,
    rows: &mut BTreeMap<RowKey, RowValue>,
    counters: &mut Counters,
) -> Result<()> {
    let damaged = |e| Error::new(ErrorKind::Corrupt, "a journal frame cannot be read").caused_by(e);
    let frame: JournalFrame = postcard::from_bytes(bytes).map_err(damaged)?;
    group.extend(frame.rows);
    if frame.more {
        return Ok(());
    }
    let [ino, cookie, change] = frame.counters;
    counters.ino = counters.ino.max(ino);
    counters.cookie = counters.cookie.max(cookie);
    counters.change = counters.change.max(change);
    for row in group.drain(..) {
        let key = match row.table {
            0 => RowKey::Checkpoint,
            1 => RowKey::Inode(row.a),
            2 => RowKey::Base(row.a),
            3 => RowKey::Dentry(row.a, row.b),
            4 => RowKey::Slot(row.a, row.b),
            _ => return Err(Error::new(ErrorKind::Corrupt, "a journal row of an unknown table")),
        };
        let value = row.value.map(|(id, pending, bytes)| RowBytes {
            id: id.map(VlobId::from_bytes),
            pending,
            bytes: Arc::from(bytes),
        });
        rows.insert(key, value);
    }
    Ok(())
}
