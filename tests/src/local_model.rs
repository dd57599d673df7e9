//! The local half of a mount against a plain tree: random operations on a [`Volume`] over a real [`Store`], each also
//! done on a [`Model`], and both compared.
//!
//! The model keeps every state since the last sync, so that after a crash the volume must be equal to one of them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use parsecfs_core::{
    id::{BlockId, DeviceId, RealmId, VlobId},
    manifest::{BlockAccess, FileManifest, FolderManifest, Manifest},
};
use parsecfs_crypto::{local::LocalKey, sha256};
use parsecfs_vfs::{
    Kind, MemoryLimits,
    clock::Clock,
    error::{ErrorKind, Result},
    fs::{
        Attributes, FallocateMode, Fetched, Maker, NewKind, ReadOutcome, RenameMode, SetAttributes, SetTime, Times,
        Volume, WriteOutcome, XattrFlags,
    },
    notify::Notices,
    store::{Disk, RealDisk, Store},
    tree::{BlockSource, ChangeNumber, LocalContent, LocalTree, SlotState, TreeUpdate},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::runtime::Runtime;

/// Number of the root folder.
pub const ROOT: u64 = 1;
/// Entries in the tree at most; then removals win.
const ENTRIES_MAX: usize = 40;
/// Longest file.
const FILE_BYTES_MAX: usize = 2 << 20;
/// Operations that a failure prints.
const TRACE: usize = 30;

/// A clock that moves only between operations.
#[derive(Debug, Default)]
pub struct StepClock(AtomicI64);

impl Clock for StepClock {
    fn now_ns(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Folder(BTreeMap<String, u64>),
    File(Arc<Vec<u8>>),
    Symlink(Arc<Vec<u8>>),
    Fifo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    ctime: i64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of folders: where it is.
    parent: u64,
    unlinked: bool,
    /// It was made without a name and never had one.
    unnamed: bool,
    body: Body,
}

impl Node {
    fn is_folder(&self) -> bool {
        matches!(self.body, Body::Folder(_))
    }

    fn bytes(&self) -> Arc<Vec<u8>> {
        match &self.body {
            Body::File(bytes) | Body::Symlink(bytes) => bytes.clone(),
            Body::Folder(_) | Body::Fifo => Arc::default(),
        }
    }
}

/// Everything that can be seen of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Inode.
    pub ino: u64,
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    links: u32,
    size: u64,
    mtime: i64,
    ctime: i64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Content, or the kind of error that reading gave.
    pub content: std::result::Result<Arc<Vec<u8>>, ErrorKind>,
}

/// A whole tree by path.
pub type Snapshot = BTreeMap<String, Facts>;

/// The first thing that differs between two trees.
pub fn difference(left: &Snapshot, right: &Snapshot) -> Option<String> {
    let paths: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    paths.into_iter().find_map(|path| match (left.get(path), right.get(path)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) => Some(format!("{path}: {} | {}", brief(a, b), brief(b, a))),
        (Some(a), None) => Some(format!("{path}: {} | absent", brief(a, a))),
        (None, b) => Some(format!("{path}: absent | {}", b.map(|b| brief(b, b)).unwrap_or_default())),
    })
}

fn brief(facts: &Facts, other: &Facts) -> String {
    let plain = Facts { content: Ok(Arc::default()), ..facts.clone() };
    let content = match (&facts.content, &other.content) {
        (Ok(a), Ok(b)) => match a.iter().zip(b.iter()).position(|(a, b)| a != b) {
            Some(at) => {
                let end = a.iter().zip(b.iter()).rposition(|(a, b)| a != b).unwrap_or(at);
                format!("bytes {at}..={end} differ, first is {}", a[at])
            }
            None => String::from("bytes agree"),
        },
        (Err(kind), _) => format!("unreadable: {kind:?}"),
        _ => String::from("readable"),
    };
    format!("{plain:?} {content}")
}

/// The reference tree.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: BTreeMap<u64, Node>,
}

type Expect<T> = std::result::Result<T, ErrorKind>;

impl Model {
    fn new(now: i64) -> Self {
        let root = Node {
            mode: 0o755,
            owner: (0, 0),
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
            parent: ROOT,
            unlinked: false,
            unnamed: false,
            body: Body::Folder(BTreeMap::new()),
        };
        Self { nodes: BTreeMap::from([(ROOT, root)]) }
    }

    fn node(&mut self, ino: u64) -> &mut Node {
        self.nodes.get_mut(&ino).expect("the model knows it")
    }

    fn names(&mut self, folder: u64) -> &mut BTreeMap<String, u64> {
        match &mut self.node(folder).body {
            Body::Folder(names) => names,
            other => panic!("not a folder: {other:?}"),
        }
    }

    fn touch(&mut self, ino: u64, now: i64) {
        let node = self.node(ino);
        (node.mtime, node.ctime) = (now, now);
    }

    fn may_change(&mut self, folder: u64) -> Expect<()> {
        if self.node(folder).unlinked { Err(ErrorKind::NotFound) } else { Ok(()) }
    }

    /// Every name of an inode.
    fn names_of(&self, ino: u64) -> Vec<(u64, String)> {
        let folders = self.nodes.iter().filter_map(|(folder, node)| match &node.body {
            Body::Folder(names) => Some((folder, names)),
            _ => None,
        });
        let names = folders.flat_map(|(folder, names)| names.iter().map(move |(name, child)| (*folder, name, *child)));
        names.filter(|(.., child)| *child == ino).map(|(folder, name, _)| (folder, name.clone())).collect()
    }

    /// A name of an inode has gone; without any it stays while the kernel refers to it.
    fn drop_name(&mut self, ino: u64, referred: bool, now: i64) {
        if !self.names_of(ino).is_empty() {
            self.node(ino).ctime = now;
        } else if referred {
            let node = self.node(ino);
            (node.unlinked, node.ctime) = (true, now);
        } else {
            self.nodes.remove(&ino);
        }
    }

    fn may_vanish(&mut self, ino: u64, want_folder: bool) -> Expect<()> {
        match (&self.node(ino).body, want_folder) {
            (Body::Folder(_), false) => Err(ErrorKind::IsDirectory),
            (Body::Folder(names), true) if !names.is_empty() => Err(ErrorKind::NotEmpty),
            (Body::Folder(_), true) => Ok(()),
            (_, true) => Err(ErrorKind::NotDirectory),
            (_, false) => Ok(()),
        }
    }

    fn remove(
        &mut self,
        folder: u64,
        name: &str,
        want_folder: bool,
        referred: &BTreeMap<u64, u64>,
        now: i64,
    ) -> Expect<()> {
        self.may_change(folder)?;
        let ino = *self.names(folder).get(name).ok_or(ErrorKind::NotFound)?;
        self.may_vanish(ino, want_folder)?;
        self.names(folder).remove(name);
        self.drop_name(ino, referred.contains_key(&ino), now);
        self.touch(folder, now);
        Ok(())
    }

    fn is_inside(&mut self, moved: u64, mut at: u64) -> bool {
        while at != ROOT {
            if at == moved {
                return true;
            }
            at = self.node(at).parent;
        }
        false
    }

    fn rename(&mut self, op: &Rename, referred: &BTreeMap<u64, u64>, now: i64) -> Expect<()> {
        let Rename { folder, name, new_folder, new_name, mode } = op;
        self.may_change(*new_folder)?;
        self.may_change(*folder)?;
        let from = *self.names(*folder).get(name).ok_or(ErrorKind::NotFound)?;
        let to = self.names(*new_folder).get(new_name).copied();
        if *mode == RenameMode::Keep && to.is_some() {
            return Err(ErrorKind::Exists);
        }
        if to == Some(from) {
            return Ok(());
        }
        let from_folder = self.node(from).is_folder();
        if from_folder && self.is_inside(from, *new_folder) {
            return Err(ErrorKind::InvalidArgument);
        }
        match (mode, to) {
            (RenameMode::Exchange, None) => return Err(ErrorKind::NotFound),
            (RenameMode::Exchange, Some(to)) => {
                if self.node(to).is_folder() && self.is_inside(to, *folder) {
                    return Err(ErrorKind::InvalidArgument);
                }
                self.names(*folder).insert(name.clone(), to);
                self.node(to).parent = *folder;
                self.node(to).ctime = now;
            }
            (_, to) => {
                if let Some(to) = to {
                    self.may_vanish(to, from_folder)?;
                    self.names(*new_folder).remove(new_name);
                    self.drop_name(to, referred.contains_key(&to), now);
                }
                self.names(*folder).remove(name);
            }
        }
        self.names(*new_folder).insert(new_name.clone(), from);
        let node = self.node(from);
        (node.parent, node.ctime) = (*new_folder, now);
        self.touch(*folder, now);
        self.touch(*new_folder, now);
        Ok(())
    }

    fn file(&mut self, ino: u64) -> &mut Vec<u8> {
        match &mut self.node(ino).body {
            Body::File(bytes) => Arc::make_mut(bytes),
            other => panic!("not a file: {other:?}"),
        }
    }

    fn facts(&self, ino: u64) -> Facts {
        let node = &self.nodes[&ino];
        let subfolders = |names: &BTreeMap<String, u64>| names.values().filter(|n| self.nodes[n].is_folder()).count();
        let names = || u32::try_from(self.names_of(ino).len()).expect("few");
        let (kind, links) = match &node.body {
            Body::Folder(names) => ("Folder", 2 + u32::try_from(subfolders(names)).expect("few")),
            Body::File(_) => ("File", names()),
            Body::Symlink(_) => ("Symlink", names()),
            Body::Fifo => ("Fifo", names()),
        };
        Facts {
            ino,
            kind,
            mode: node.mode,
            owner: node.owner,
            links: if node.unlinked { 0 } else { links },
            size: node.bytes().len() as u64,
            mtime: node.mtime,
            ctime: node.ctime,
            xattrs: node.xattrs.clone(),
            content: Ok(node.bytes()),
        }
    }

    /// The tree by path.
    pub fn snapshot(&self) -> Snapshot {
        let mut found = Snapshot::new();
        let mut waiting = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = waiting.pop() {
            if let Body::Folder(names) = &self.nodes[&ino].body {
                waiting.extend(names.iter().map(|(name, ino)| (format!("{path}/{name}"), *ino)));
            }
            found.insert(path, self.facts(ino));
        }
        found
    }
}

/// One rename.
#[derive(Clone, Debug)]
struct Rename {
    folder: u64,
    name: String,
    new_folder: u64,
    new_name: String,
    mode: RenameMode,
}

/// A storage that holds blocks.
#[derive(Default)]
pub struct Blocks(Mutex<BTreeMap<BlockId, Vec<u8>>>);

impl Blocks {
    /// What would be uploaded of an entry now, and the state that this is.
    pub fn upload(&self, volume: &Volume, id: VlobId) -> (ChangeNumber, Manifest) {
        let entry = volume.load(id).expect("load").expect("it is known");
        let version = entry.base.as_ref().map_or(0, Manifest::version) + 1;
        let (author, extension) = (DeviceId::from_bytes([9; 16]), Some(entry.extension.clone()));
        let manifest = match &entry.content {
            LocalContent::Folder { children } => Manifest::Folder(FolderManifest {
                author,
                timestamp: entry.updated,
                id,
                parent: entry.parent,
                version,
                created: entry.created,
                updated: entry.updated,
                children: children.clone(),
                extension,
                unknown: Default::default(),
            }),
            LocalContent::File { size, blocksize, slots } => Manifest::File(FileManifest {
                author,
                timestamp: entry.updated,
                id,
                parent: entry.parent,
                version,
                created: entry.created,
                updated: entry.updated,
                size: *size,
                blocksize: *blocksize,
                blocks: slots
                    .iter()
                    .map(|(slot, state)| match state {
                        SlotState::Synced(block) => *block,
                        SlotState::Dirty => self.dirty(volume, id, entry.change, (*slot, *blocksize)),
                    })
                    .collect(),
                extension,
                unknown: Default::default(),
            }),
        };
        (entry.change, manifest)
    }

    fn dirty(&self, volume: &Volume, id: VlobId, seen: ChangeNumber, (slot, blocksize): (u64, u64)) -> BlockAccess {
        let bytes = volume.slot(id, seen, slot).expect("a slot").expect("nothing was written since");
        assert!(!bytes.is_empty(), "a slot behind the end of the file");
        self.store(slot * blocksize, bytes)
    }

    /// Keeps the bytes at a place of a file as a block.
    pub fn store(&self, offset: u64, bytes: Vec<u8>) -> BlockAccess {
        let mut blocks = self.0.lock();
        let mut name = [0; 16];
        name[..8].copy_from_slice(&(blocks.len() as u64).to_le_bytes());
        let access = BlockAccess {
            id: BlockId::from_bytes(name),
            offset,
            size: bytes.len() as u64,
            digest: *sha256(&bytes).as_bytes(),
        };
        blocks.insert(access.id, bytes);
        access
    }
}

impl BlockSource for Blocks {
    fn fetch<'a>(&'a self, access: &'a BlockAccess) -> BoxFuture<'a, Result<Vec<u8>>> {
        let found = self.0.lock().get(&access.id).cloned();
        async move { found.ok_or_else(|| ErrorKind::NotFound.into()) }.boxed()
    }
}

/// A listing that goes on while names come and go.
struct Stream {
    folder: u64,
    cookie: u64,
    /// Names that are there all the time.
    steady: BTreeSet<String>,
    seen: Vec<String>,
}

/// How a session ends other than in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Closed: nothing may be missing.
    Close,
    /// The process is gone at once.
    Kill,
}

/// A volume and its model.
pub struct Session {
    /// Seed, for messages.
    pub seed: u64,
    /// Folder of the store.
    pub dir: PathBuf,
    /// Decides everything.
    pub rng: StdRng,
    disk: Arc<dyn Disk>,
    volume: Option<Arc<Volume>>,
    clock: Arc<StepClock>,
    blocks: Arc<Blocks>,
    runtime: Runtime,
    bytes_max: u64,
    model: Model,
    /// States since the last sync, that one first.
    history: Vec<Model>,
    /// Length of each segment file at the last sync.
    pub synced: BTreeMap<PathBuf, u64>,
    lookups: BTreeMap<u64, u64>,
    streams: Vec<Stream>,
    uploads: VecDeque<(ChangeNumber, Manifest)>,
    counted: bool,
    /// Rises when the index may have become durable, after which an older copy of it is no possible state.
    pub checkpoints: u64,
    /// What outlives processes, on a mount that does.
    tape: Option<File>,
    trace: VecDeque<String>,
}

/// The key of every store here.
pub fn key() -> LocalKey {
    LocalKey::from_bytes([7; 32])
}

/// So little that a volume forgets all the time what is in its store too.
pub const FORGETFUL: MemoryLimits = MemoryLimits { inodes: 4, names: 8 };

/// The realm of every store here.
pub const REALM: RealmId = RealmId::from_bytes([1; 16]);

/// Opens what is in `dir`.
pub fn open(dir: &Path, clock: Arc<dyn Clock>, bytes_max: u64) -> Result<Arc<Volume>> {
    open_on(Arc::new(RealDisk), dir, clock, bytes_max)
}

/// The same over a disk that may fail.
pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, clock: Arc<dyn Clock>, bytes_max: u64) -> Result<Arc<Volume>> {
    open_over(Store::open_on(disk, dir, &key(), bytes_max)?, clock)
}

/// The same over what is in `dir` and on a tape: a file in memory that outlives the store.
pub fn open_taped(dir: &Path, tape: &File, clock: Arc<dyn Clock>, bytes_max: u64) -> Result<Arc<Volume>> {
    let tape = tape.try_clone().expect("a descriptor");
    open_over(Store::open_taped(dir, &key(), bytes_max, tape)?, clock)
}

fn open_over(store: Store, clock: Arc<dyn Clock>) -> Result<Arc<Volume>> {
    let volume = Volume::open(REALM, Arc::new(store), clock, (0, 0), Notices::default())?;
    volume.limit_memory(FORGETFUL);
    Ok(Arc::new(volume))
}

/// A new tape.
pub fn new_tape() -> File {
    let tape = rustix::fs::memfd_create("tape", rustix::fs::MemfdFlags::CLOEXEC);
    tape.expect("memory").into()
}

/// Rows of files in no folder, and rows of content without an inode, in the index of a store that is closed.
pub fn rows_of_nobody(dir: &Path) -> (i64, i64) {
    let index = rusqlite::Connection::open(dir.join("index.sqlite")).expect("an index");
    let count = |sql: &str| index.query_row(sql, [], |row| row.get(0)).expect("a count");
    (
        count("SELECT count(*) FROM orphan"),
        count("SELECT count(*) FROM slot WHERE ino NOT IN (SELECT ino FROM inode UNION SELECT ino FROM orphan)"),
    )
}

/// Everything that can be seen of a volume. Content is fetched from `blocks`.
fn snapshot(volume: &Volume, blocks: &Blocks) -> Snapshot {
    let mut found = Snapshot::new();
    let mut waiting = vec![(String::new(), ROOT)];
    while let Some((path, ino)) = waiting.pop() {
        let attributes = match volume.attributes(ino) {
            Ok(attributes) => attributes,
            // What is damaged is absent here, which the caller sees.
            Err(error) if error.kind() == ErrorKind::Corrupt => continue,
            Err(error) => panic!("attributes of {path} ({ino}): {error:?}"),
        };
        if attributes.kind == Kind::Folder {
            let listed = volume.list(ino, 0, false, |entry, _| {
                waiting.push((format!("{path}/{}", entry.name), entry.ino));
                true
            });
            listed.unwrap_or_else(|error| panic!("list {path} ({ino}): {error:?}"));
        }
        let content = match attributes.kind {
            Kind::File | Kind::Symlink => read(volume, blocks, ino, 0, FILE_BYTES_MAX * 2).map(Arc::new),
            _ => Ok(Arc::default()),
        };
        found.insert(path, facts(volume, &attributes, content));
    }
    found
}

/// The tree of a volume that never uploaded anything.
pub fn local_snapshot(volume: &Volume) -> Snapshot {
    snapshot(volume, &Blocks::default())
}

/// The bytes of a file that are no holes, found by looking for them, in units of 512.
fn data_blocks(volume: &Volume, ino: u64, size: u64) -> u64 {
    let (mut at, mut pages) = (0, 0);
    while let Some(data) = volume.seek(ino, at, true).expect("seek") {
        let hole = volume.seek(ino, data, false).expect("seek").unwrap_or(size);
        pages += hole.div_ceil(4096) - data / 4096;
        at = hole;
    }
    pages * 8
}

fn facts(volume: &Volume, attributes: &Attributes, content: Expect<Arc<Vec<u8>>>) -> Facts {
    if content.is_ok() && attributes.kind == Kind::File {
        let data = data_blocks(volume, attributes.ino, attributes.size);
        assert_eq!(attributes.blocks, data, "blocks of inode {}, and what is no hole", attributes.ino);
    }
    let names = volume.xattrs(attributes.ino).expect("extended attributes");
    let xattrs = names.into_iter().map(|name| {
        let value = volume.xattr(attributes.ino, &name).expect("it was listed");
        (name, value)
    });
    Facts {
        ino: attributes.ino,
        kind: match attributes.kind {
            Kind::Folder => "Folder",
            Kind::File => "File",
            Kind::Symlink => "Symlink",
            Kind::Fifo => "Fifo",
            Kind::Socket | Kind::CharDevice | Kind::BlockDevice => "other",
        },
        mode: attributes.mode,
        owner: (attributes.uid, attributes.gid),
        links: attributes.links,
        size: attributes.size,
        mtime: attributes.mtime_ns,
        ctime: attributes.ctime_ns,
        xattrs: xattrs.collect(),
        content,
    }
}

fn fetch(blocks: &Blocks, missing: &[BlockAccess], into: &mut Fetched) {
    for access in missing {
        assert!(!into.iter().any(|(have, _)| have.id == access.id), "asked twice for a block");
        let bytes = blocks.0.lock().get(&access.id).cloned().expect("only blocks that were stored are asked for");
        into.push((*access, bytes));
    }
}

/// Reads, with blocks from the storage.
pub fn read(volume: &Volume, blocks: &Blocks, ino: u64, offset: u64, length: usize) -> Expect<Vec<u8>> {
    let mut fetched = Fetched::new();
    loop {
        match volume.read(ino, offset, length, &fetched).map_err(|error| error.kind())? {
            ReadOutcome::Data(bytes) => {
                if !fetched.is_empty() {
                    volume.keep(ino, &fetched).map_err(|error| error.kind())?;
                }
                return Ok(bytes);
            }
            ReadOutcome::Missing(missing) => fetch(blocks, &missing, &mut fetched),
        }
    }
}

/// How many seeds a test runs: `PARSECFS_SEEDS`, or as many as CI has time for. `PARSECFS_SEED` is the first.
pub fn seeds(few: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("PARSECFS_SEED").unwrap_or(1);
    first..first + number("PARSECFS_SEEDS").unwrap_or(few)
}

impl Session {
    /// A new store in `dir`.
    pub fn new(dir: &Path, seed: u64) -> Self {
        Self::new_on(Arc::new(RealDisk), dir, seed)
    }

    /// The same on a mount that outlives its processes: who is started anew goes on with what is open.
    pub fn on_a_lasting_mount(dir: &Path, seed: u64) -> Self {
        let mut session = Self::new(dir, seed);
        drop(session.volume.take());
        session.tape = Some(new_tape());
        session.open();
        session
    }

    /// The same over a disk that records.
    pub fn new_on(disk: Arc<dyn Disk>, dir: &Path, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let clock = Arc::new(StepClock(AtomicI64::new(1_700_000_000_000_000_000)));
        // With little room allowed, clean content is let go at each reclaim.
        let bytes_max = if rng.random_bool(0.5) { 200 << 20 } else { u64::MAX };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let model = Model::new(clock.now_ns());
        let mut session = Self {
            seed,
            dir: dir.to_owned(),
            rng,
            disk,
            volume: None,
            clock,
            blocks: Arc::default(),
            runtime,
            bytes_max,
            history: vec![model.clone()],
            model,
            synced: BTreeMap::new(),
            lookups: BTreeMap::new(),
            streams: Vec::new(),
            uploads: VecDeque::new(),
            counted: false,
            checkpoints: 0,
            tape: None,
            trace: VecDeque::new(),
        };
        session.open();
        session.sync();
        session
    }

    fn open(&mut self) {
        let volume = match &self.tape {
            Some(tape) => open_taped(&self.dir, tape, self.clock.clone(), self.bytes_max),
            None => open_on(self.disk.clone(), &self.dir, self.clock.clone(), self.bytes_max),
        };
        let volume = volume.unwrap_or_else(|error| panic!("seed {}: open: {error:?}", self.seed));
        volume.set_blocks(self.blocks.clone(), self.runtime.handle().clone());
        self.volume = Some(volume);
        self.counted = false;
    }

    /// The volume under test.
    pub fn volume(&self) -> Arc<Volume> {
        self.volume.clone().expect("it is open")
    }

    /// Ends the process, or what stands for it, and starts the next over what is in the folder of the store.
    pub fn restart(&mut self, end: End) {
        self.note(format!("restart {end:?}"));
        let volume = self.volume.take().expect("it is open");
        if end == End::Close {
            volume.store().close().unwrap_or_else(|error| panic!("{self}: close: {error:?}"));
            self.history = vec![self.model.clone()];
        }
        assert_eq!(Arc::strong_count(&volume), 1, "nobody else has the volume");
        drop(volume);
        self.checkpoints += 1;
        self.open();
        match self.tape {
            Some(_) => self.go_on(),
            None => self.recover(),
        }
    }

    /// On a mount that outlived its process everything is as it was, for who has it open too.
    fn go_on(&mut self) {
        self.streams.clear();
        self.uploads.clear();
        self.history = vec![self.model.clone()];
        self.check();
    }

    /// The kernel lets go of everything, and the mount ends.
    pub fn unmount(&mut self) {
        let volume = self.volume();
        for (ino, count) in std::mem::take(&mut self.lookups) {
            volume.forget(ino, count);
        }
        self.model = self.model.linked();
        self.tape = None;
        drop(volume);
        self.restart(End::Close);
    }

    /// Closes, lets `change` damage the store, and opens it again; the model stays.
    pub fn damage(&mut self, change: impl FnOnce(&Path, &mut StdRng)) {
        let volume = self.volume.take().expect("it is open");
        volume.store().close().unwrap_or_else(|error| panic!("{self}: close: {error:?}"));
        drop(volume);
        self.model = self.model.linked();
        self.lookups.clear();
        change(&self.dir, &mut self.rng);
        self.open();
    }

    /// After an end of any kind, finds which state since the last sync came back and goes on from it.
    pub fn recover(&mut self) {
        self.lookups.clear();
        self.streams.clear();
        // Sync remembers nothing across processes.
        self.uploads.clear();
        let now = snapshot(&self.volume(), &self.blocks);
        let found = self.history.iter().rposition(|model| difference(&model.linked().snapshot(), &now).is_none());
        let Some(found) = found else {
            let nearest = self.history.iter().map(|model| difference(&model.snapshot(), &now).unwrap_or_default());
            let nearest: Vec<_> = nearest.collect();
            panic!(
                "{self}: the tree is none of {} states; first and last: {:?} {:?}",
                nearest.len(),
                nearest[0],
                nearest.last()
            );
        };
        self.note(format!("back at state {found} of {}", self.history.len() - 1));
        self.model = self.history[found].linked();
        self.history = vec![self.model.clone()];
    }

    /// Opens another folder that stands for what a crash left.
    pub fn recover_in(&mut self, dir: &Path) {
        drop(self.volume.take());
        self.dir = dir.to_owned();
        self.note("crash".into());
        self.open();
        self.recover();
        self.sync();
    }

    fn note(&mut self, what: String) {
        if std::env::var_os("PARSECFS_TRACE").is_some() {
            eprintln!("{what}");
        }
        self.trace.push_back(what);
        if self.trace.len() > TRACE {
            self.trace.pop_front();
        }
    }

    /// Makes everything so far durable.
    pub fn sync(&mut self) {
        self.note("sync".into());
        self.volume().store().sync().unwrap_or_else(|error| panic!("{self}: sync: {error:?}"));
        self.history = vec![self.model.clone()];
        let segments = std::fs::read_dir(self.dir.join("segments")).expect("segments");
        self.synced = segments
            .map(|entry| {
                let entry = entry.expect("an entry");
                (entry.path(), entry.metadata().expect("its length").len())
            })
            .collect();
    }

    /// What the volume shows, and what it should.
    pub fn both(&self) -> (Snapshot, Snapshot) {
        (snapshot(&self.volume(), &self.blocks), self.model.snapshot())
    }

    /// Compares everything.
    pub fn check(&mut self) {
        let now = snapshot(&self.volume(), &self.blocks);
        let wanted = self.model.snapshot();
        if let Some(different) = difference(&wanted, &now) {
            panic!("{self}: model | volume: {different}");
        }
        let unlinked: Vec<u64> =
            self.model.nodes.iter().filter(|(_, node)| node.unlinked).map(|(ino, _)| *ino).collect();
        for ino in unlinked {
            self.check_one(ino);
        }
    }

    fn check_one(&mut self, ino: u64) {
        let volume = self.volume();
        let attributes = volume.attributes(ino).unwrap_or_else(|error| panic!("{self}: attributes {ino}: {error:?}"));
        let content = match attributes.kind {
            Kind::File | Kind::Symlink => read(&volume, &self.blocks, ino, 0, FILE_BYTES_MAX * 2).map(Arc::new),
            _ => Ok(Arc::default()),
        };
        let (wanted, now) = (self.model.facts(ino), facts(&volume, &attributes, content));
        assert!(
            wanted == now,
            "{self}: inode {ino}, model | volume: {} | {}",
            brief(&wanted, &now),
            brief(&now, &wanted)
        );
    }

    #[track_caller]
    fn agree<T>(&self, what: &str, wanted: Expect<()>, got: Result<T>) -> Option<T> {
        match (wanted, got) {
            (Ok(()), Ok(value)) => Some(value),
            (Err(kind), Err(error)) if kind == error.kind() => None,
            (wanted, got) => panic!("{self}: {what}: model {wanted:?}, volume {:?}", got.map(|_| ())),
        }
    }

    fn now(&self) -> i64 {
        self.clock.now_ns()
    }

    /// Does one random operation on both.
    pub fn step(&mut self) {
        self.clock.0.fetch_add(1_000_003, Ordering::Relaxed);
        let crowded = self.model.nodes.len() > ENTRIES_MAX;
        match self.rng.random_range(0..100) {
            0..=13 if !crowded => self.create(),
            0..=22 => self.remove(),
            23..=30 => self.rename(),
            31..=52 => self.write(),
            53..=59 => self.truncate(),
            60..=66 => self.fallocate(),
            67..=71 => self.read(),
            72..=74 => self.seek(),
            75..=79 => self.set_attributes(),
            80..=82 => self.set_xattr(),
            83..=86 => self.list_on(),
            87..=90 => self.forget(),
            91..=96 => self.upload(),
            97 | 98 if !crowded => match self.rng.random_range(0..4) {
                0 => self.create_unnamed(),
                _ => self.link(),
            },
            _ => self.housekeep(),
        }
        self.history.push(self.model.clone());
    }

    fn name(&mut self) -> String {
        match self.rng.random_range(0..40) {
            0 => "n".repeat(255),
            1 => "é𝄞 .".into(),
            _ => format!("n{}", self.rng.random_range(0..9)),
        }
    }

    fn pick(&mut self, wanted: impl Fn(&Node) -> bool) -> Option<u64> {
        let found: Vec<u64> = self.model.nodes.iter().filter(|(_, node)| wanted(node)).map(|(ino, _)| *ino).collect();
        if found.is_empty() {
            return None;
        }
        let ino = found[self.rng.random_range(0..found.len())];
        self.refer(ino);
        Some(ino)
    }

    fn pick_folder(&mut self) -> u64 {
        self.pick(Node::is_folder).expect("the root is a folder")
    }

    fn pick_file(&mut self) -> Option<u64> {
        self.pick(|node| matches!(node.body, Body::File(_)))
    }

    /// Has the kernel refer to an inode, by looking it up from the root.
    fn refer(&mut self, ino: u64) {
        if ino == ROOT || self.lookups.contains_key(&ino) {
            return;
        }
        let (parent, name) = self.model.names_of(ino).swap_remove(0);
        self.refer(parent);
        let found = self.volume().lookup(parent, name.as_bytes());
        let found = found.unwrap_or_else(|error| panic!("{self}: lookup {name} in {parent}: {error:?}"));
        assert_eq!(found.ino, ino, "{self}: lookup {name}");
        self.lookups.insert(ino, 1);
    }

    fn create(&mut self) {
        let (folder, name) = (self.pick_folder(), self.name());
        let mode = self.rng.random_range(0..0o10000);
        let target = vec![b't'; self.rng.random_range(1..4096)];
        let (kind, body) = match self.rng.random_range(0..10) {
            0..=2 => (NewKind::Folder, Body::Folder(BTreeMap::new())),
            3 => (NewKind::Symlink(&target), Body::Symlink(Arc::new(target.clone()))),
            4 => (NewKind::Special(Kind::Fifo, 0), Body::Fifo),
            _ => (NewKind::File, Body::File(Arc::default())),
        };
        self.note(format!("create {name} in {folder}: {}", matches!(body, Body::Folder(_))));
        let wanted = self.model.may_change(folder).and_then(|()| match self.model.names(folder).get(&name) {
            Some(_) => Err(ErrorKind::Exists),
            None => Ok(()),
        });
        let got = self.volume().create(folder, name.as_bytes(), kind, mode, Maker { uid: 5, gid: 6 });
        let Some(made) = self.agree("create", wanted, got) else { return };
        let now = self.now();
        let parent = self.model.node(folder);
        let inherits = parent.mode & 0o2000 != 0;
        let group = if inherits { parent.owner.1 } else { 6 };
        let mode = if inherits && matches!(body, Body::Folder(_)) { mode | 0o2000 } else { mode };
        let node = Node {
            mode,
            owner: (5, group),
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
            parent: folder,
            unlinked: false,
            unnamed: false,
            body,
        };
        assert!(self.model.nodes.insert(made.ino, node).is_none(), "{self}: an inode number came again");
        self.model.names(folder).insert(name, made.ino);
        self.model.touch(folder, now);
        self.lookups.insert(made.ino, 1);
        self.check_one(made.ino);
    }

    fn create_unnamed(&mut self) {
        let folder = self.pick_folder();
        self.note(format!("create without a name in {folder}"));
        let wanted = self.model.may_change(folder);
        let got = self.volume().create_unnamed(folder, 0o640, Maker { uid: 5, gid: 6 });
        let Some(made) = self.agree("create without a name", wanted, got) else { return };
        let (now, parent) = (self.now(), self.model.node(folder));
        let node = Node {
            mode: 0o640,
            owner: (5, if parent.mode & 0o2000 != 0 { parent.owner.1 } else { 6 }),
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
            parent: 0,
            unlinked: true,
            unnamed: true,
            body: Body::File(Arc::default()),
        };
        self.model.nodes.insert(made.ino, node);
        self.lookups.insert(made.ino, 1);
        self.check_one(made.ino);
    }

    fn link(&mut self) {
        let Some(ino) = self.pick(|node| !node.is_folder() || node.mode & 1 == 0) else { return };
        let (folder, name) = (self.pick_folder(), self.name());
        self.note(format!("link {ino} as {name} in {folder}"));
        let node = self.model.nodes[&ino].clone();
        let wanted = self.model.may_change(folder).and_then(|()| {
            match (self.model.names(folder).contains_key(&name), node.is_folder(), node.unlinked) {
                (true, ..) => Err(ErrorKind::Exists),
                (_, true, _) => Err(ErrorKind::NotPermitted),
                (.., true) if !node.unnamed => Err(ErrorKind::NotFound),
                _ => Ok(()),
            }
        });
        let got = self.volume().link(ino, folder, name.as_bytes());
        if self.agree("link", wanted, got).is_some() {
            let now = self.now();
            self.model.names(folder).insert(name, ino);
            let node = self.model.node(ino);
            (node.ctime, node.unlinked, node.unnamed) = (now, false, false);
            self.model.touch(folder, now);
            *self.lookups.entry(ino).or_default() += 1;
            self.check_one(ino);
        }
    }

    fn remove(&mut self) {
        let (folder, name) = (self.pick_folder(), self.name());
        let want_folder = self.rng.random_bool(0.3);
        self.note(format!("remove {name} in {folder}, folder {want_folder}"));
        let now = self.now();
        let wanted = self.model.remove(folder, &name, want_folder, &self.lookups, now);
        let volume = self.volume();
        let got = match want_folder {
            true => volume.rmdir(folder, name.as_bytes()),
            false => volume.unlink(folder, name.as_bytes()),
        };
        self.agree("remove", wanted, got);
        self.unsteady(folder, &name);
    }

    fn unsteady(&mut self, folder: u64, name: &str) {
        for stream in self.streams.iter_mut().filter(|stream| stream.folder == folder) {
            stream.steady.remove(name);
        }
    }

    fn rename(&mut self) {
        let mode = match self.rng.random_range(0..4) {
            0 => RenameMode::Keep,
            1 => RenameMode::Exchange,
            _ => RenameMode::Replace,
        };
        let op = Rename {
            folder: self.pick_folder(),
            name: self.name(),
            new_folder: self.pick_folder(),
            new_name: self.name(),
            mode,
        };
        self.note(format!("{op:?}"));
        let now = self.now();
        let wanted = self.model.rename(&op, &self.lookups, now);
        let got = self.volume().rename(op.folder, op.name.as_bytes(), op.new_folder, op.new_name.as_bytes(), op.mode);
        self.agree("rename", wanted, got);
        self.unsteady(op.folder, &op.name);
        self.unsteady(op.new_folder, &op.new_name);
    }

    /// A place in a file, mostly near a border of something.
    fn offset(&mut self, size: usize) -> usize {
        let borders = [0, 4096, 8192, 64 << 10, 256 << 10, 512 << 10, 768 << 10, size, size / 2, size & !4095];
        let border = borders[self.rng.random_range(0..borders.len())];
        match self.rng.random_range(0..8) {
            0 => self.rng.random_range(0..FILE_BYTES_MAX / 2),
            1..=4 => border,
            _ => (border + self.rng.random_range(0..5000)).saturating_sub(2500),
        }
    }

    fn length(&mut self) -> usize {
        match self.rng.random_range(0..12) {
            0 => 0,
            1..=4 => self.rng.random_range(1..300),
            5 => 4096,
            6 | 7 => self.rng.random_range(1..9000),
            8 | 9 => self.rng.random_range(1..70_000),
            10 => 4096 * self.rng.random_range(1..80),
            _ => self.rng.random_range(1..600_000),
        }
    }

    /// Does a change that may need blocks.
    fn change(&self, change: impl Fn(&Volume, &Fetched) -> Result<WriteOutcome>) -> Result<()> {
        let volume = self.volume();
        let mut fetched = Fetched::new();
        loop {
            match change(&volume, &fetched)? {
                WriteOutcome::Done => return Ok(()),
                WriteOutcome::Missing(missing) => fetch(&self.blocks, &missing, &mut fetched),
            }
        }
    }

    fn write(&mut self) {
        let Some(ino) = self.pick_file() else { return };
        let size = self.model.file(ino).len();
        let (offset, length) = (self.offset(size), self.length());
        let end = offset + length;
        if end > FILE_BYTES_MAX {
            return;
        }
        let first: u8 = self.rng.random();
        let data: Vec<u8> =
            (0..length).map(|at| first.wrapping_add((at / 7 + at / 4096).to_le_bytes()[0]) | 1).collect();
        self.note(format!("write {ino} at {offset}, {length} bytes, size {size}"));
        let got = self.change(|volume, fetched| volume.write(ino, offset as u64, &data, fetched, Times::Now));
        self.agree("write", Ok(()), got);
        let now = self.now();
        let file = self.model.file(ino);
        file.resize(file.len().max(end), 0);
        file[offset..end].copy_from_slice(&data);
        self.model.touch(ino, now);
    }

    fn truncate(&mut self) {
        let Some(ino) = self.pick_file() else { return };
        let size = self.model.file(ino).len();
        let new = if self.rng.random_bool(0.2) { size } else { self.offset(size) };
        self.note(format!("truncate {ino} from {size} to {new}"));
        let set = SetAttributes { size: Some(new as u64), ..SetAttributes::default() };
        let got = self.volume().set_attributes(ino, set);
        self.agree("truncate", Ok(()), got);
        let now = self.now();
        self.model.file(ino).resize(new, 0);
        self.model.touch(ino, now);
    }

    fn fallocate(&mut self) {
        let Some(ino) = self.pick_file() else { return };
        let size = self.model.file(ino).len();
        let (offset, length) = (self.offset(size), self.length().max(1));
        let end = offset + length;
        if end > FILE_BYTES_MAX {
            return;
        }
        let keep_size = self.rng.random();
        let mode = match self.rng.random_range(0..3) {
            0 => FallocateMode::Allocate { keep_size },
            1 => FallocateMode::Punch,
            _ => FallocateMode::Zero { keep_size },
        };
        self.note(format!("fallocate {ino} at {offset}, {length} bytes, size {size}: {mode:?}"));
        let got = self
            .change(|volume, fetched| volume.fallocate(ino, offset as u64, length as u64, mode, fetched, Times::Now));
        self.agree("fallocate", Ok(()), got);
        let now = self.now();
        let file = self.model.file(ino);
        if !matches!(mode, FallocateMode::Allocate { .. }) && offset < file.len() {
            let until = end.min(file.len());
            file[offset..until].fill(0);
        }
        if matches!(mode, FallocateMode::Allocate { keep_size: false } | FallocateMode::Zero { keep_size: false }) {
            file.resize(file.len().max(end), 0);
        }
        self.model.touch(ino, now);
    }

    fn read(&mut self) {
        let Some(ino) = self.pick_file() else { return };
        let bytes = self.model.nodes[&ino].bytes();
        let (offset, length) = (self.offset(bytes.len()), self.length());
        self.note(format!("read {ino} at {offset}, {length} bytes, size {}", bytes.len()));
        let got = read(&self.volume(), &self.blocks, ino, offset as u64, length);
        let wanted = &bytes[offset.min(bytes.len())..(offset + length).min(bytes.len())];
        assert!(got.as_deref() == Ok(wanted), "{self}: read at {offset}, {length} bytes");
    }

    fn seek(&mut self) {
        let Some(ino) = self.pick_file() else { return };
        let bytes = self.model.nodes[&ino].bytes();
        let offset = self.offset(bytes.len());
        self.note(format!("seek {ino} from {offset}, size {}", bytes.len()));
        let volume = self.volume();
        let found =
            |data| volume.seek(ino, offset as u64, data).expect("seek").map(|at| usize::try_from(at).expect("small"));
        let (data, hole) = (found(true), found(false));
        if offset >= bytes.len() {
            assert_eq!((data, hole), (None, None), "{self}: seek behind the end");
            return;
        }
        let data = data.unwrap_or(bytes.len());
        assert!(data >= offset && bytes[offset..data].iter().all(|byte| *byte == 0), "{self}: data was jumped over");
        assert!(hole.is_some_and(|hole| hole >= offset && hole <= bytes.len()), "{self}: a file ends in a hole");
        assert!(data == offset || hole == Some(offset), "{self}: neither data nor a hole at {offset}");
    }

    fn set_attributes(&mut self) {
        let Some(ino) = self.pick(|_| true) else { return };
        let now = self.now();
        let set = SetAttributes {
            mode: self.rng.random_bool(0.5).then(|| self.rng.random_range(0..0o10000)),
            uid: self.rng.random_bool(0.2).then_some(7),
            gid: self.rng.random_bool(0.2).then_some(8),
            size: None,
            atime: self.rng.random_bool(0.2).then_some(SetTime::Now),
            mtime: self.rng.random_bool(0.3).then(|| SetTime::At(self.rng.random_range(-5..i64::MAX / 2))),
            ctime_ns: None,
        };
        self.note(format!("set {ino}: {set:?}"));
        let got = self.volume().set_attributes(ino, set);
        self.agree("set attributes", Ok(()), got);
        let node = self.model.node(ino);
        node.mode = set.mode.unwrap_or(node.mode);
        node.owner = (set.uid.unwrap_or(node.owner.0), set.gid.unwrap_or(node.owner.1));
        if let Some(SetTime::At(ns)) = set.mtime {
            node.mtime = ns;
        }
        node.ctime = now;
        self.check_one(ino);
    }

    fn set_xattr(&mut self) {
        let Some(ino) = self.pick(|_| true) else { return };
        let now = self.now();
        let name = format!("user.x{}", self.rng.random_range(0..3)).into_bytes();
        self.note(format!("xattr of {ino}"));
        let there = self.model.node(ino).xattrs.contains_key(&name);
        if self.rng.random_bool(0.3) {
            let wanted = if there { Ok(()) } else { Err(ErrorKind::NoAttribute) };
            if self.agree("remove xattr", wanted, self.volume().remove_xattr(ino, &name)).is_some() {
                self.model.node(ino).xattrs.remove(&name);
                self.model.node(ino).ctime = now;
            }
            return;
        }
        let value = vec![self.rng.random(); self.rng.random_range(0..2000)];
        let (flags, wanted) = match self.rng.random_range(0..4) {
            0 => (XattrFlags::Create, if there { Err(ErrorKind::Exists) } else { Ok(()) }),
            1 => (XattrFlags::Replace, if there { Ok(()) } else { Err(ErrorKind::NoAttribute) }),
            _ => (XattrFlags::Any, Ok(())),
        };
        if self.agree("set xattr", wanted, self.volume().set_xattr(ino, &name, &value, flags)).is_some() {
            self.model.node(ino).xattrs.insert(name, value);
            self.model.node(ino).ctime = now;
        }
    }

    /// Goes on with a listing, or starts one.
    fn list_on(&mut self) {
        if self.streams.is_empty() || self.rng.random_bool(0.2) {
            let folder = self.pick_folder();
            let steady = self.model.names(folder).keys().cloned().collect();
            self.streams.push(Stream { folder, cookie: 0, steady, seen: Vec::new() });
        }
        let at = self.rng.random_range(0..self.streams.len());
        let (mut room, refer): (usize, bool) = (self.rng.random_range(1..5), self.rng.random());
        let mut stream = self.streams.swap_remove(at);
        if !self.model.nodes.contains_key(&stream.folder) {
            return;
        }
        self.note(format!("list {} behind {}, {room} entries", stream.folder, stream.cookie));
        let (mut ended, mut taken) = (true, Vec::new());
        let listed = self.volume().list(stream.folder, stream.cookie, refer, |entry, attributes| {
            if room == 0 {
                ended = false;
                return false;
            }
            room -= 1;
            assert_eq!(attributes.map(|attributes| attributes.ino), Some(entry.ino));
            stream.cookie = entry.next;
            stream.seen.push(entry.name.to_string());
            taken.push((entry.name.to_string(), entry.ino));
            true
        });
        self.agree("list", Ok(()), listed);
        for (name, ino) in taken {
            let there = self.model.names(stream.folder).get(&name).copied();
            assert_eq!(there, Some(ino), "{self}: listed {name}");
            if refer {
                *self.lookups.entry(ino).or_default() += 1;
            }
        }
        if !ended {
            self.streams.push(stream);
            return;
        }
        for name in &stream.steady {
            let times = stream.seen.iter().filter(|seen| *seen == name).count();
            assert_eq!(times, 1, "{self}: {name} was there all the time");
        }
    }

    fn forget(&mut self) {
        let known: Vec<(u64, u64)> = self.lookups.iter().map(|(ino, count)| (*ino, *count)).collect();
        if known.is_empty() {
            return;
        }
        let (ino, count) = known[self.rng.random_range(0..known.len())];
        // The kernel lets go of a folder only after all that is in it.
        if matches!(&self.model.nodes[&ino].body, Body::Folder(names) if names.values().any(|child| self.lookups.contains_key(child)))
        {
            return;
        }
        // The kernel takes back all at once what a process before counted.
        let less = if self.tape.is_some() { count } else { self.rng.random_range(1..=count) };
        self.note(format!("forget {ino}, {less} of {count}"));
        self.volume().forget(ino, less);
        if less < count {
            self.lookups.insert(ino, count - less);
            return;
        }
        self.lookups.remove(&ino);
        if self.model.nodes[&ino].unlinked {
            self.model.nodes.remove(&ino);
        }
    }

    /// Takes an entry to the storage; what is made of it may arrive back later.
    fn upload(&mut self) {
        if self.uploads.len() > 2 || self.rng.random_bool(0.4) {
            if let Some((seen, manifest)) = self.uploads.pop_front() {
                self.note(format!("uploaded {} as of {seen:?}", manifest.id()));
                let got = self.volume().apply(vec![TreeUpdate::Uploaded { seen, manifest }], None);
                self.agree("uploaded", Ok(()), got);
            }
            return;
        }
        let waiting = self.volume().pending(64).expect("pending");
        if waiting.is_empty() {
            return;
        }
        let id = waiting[self.rng.random_range(0..waiting.len())].id;
        if self.uploads.iter().any(|(_, manifest)| manifest.id() == id) {
            return;
        }
        let (seen, manifest) = self.blocks.upload(&self.volume(), id);
        self.note(format!("upload {id} as of {seen:?}"));
        self.check_upload(id, &manifest);
        self.uploads.push_back((seen, manifest));
    }

    /// What goes to the storage is what the model has.
    fn check_upload(&self, id: VlobId, manifest: &Manifest) {
        let Manifest::File(file) = manifest else { return };
        let mut bytes = vec![0; usize::try_from(file.size).expect("small")];
        for block in &file.blocks {
            let from = usize::try_from(block.offset).expect("small");
            let content = self.blocks.0.lock()[&block.id].clone();
            bytes[from..from + content.len()].copy_from_slice(&content);
        }
        let found = self.model.nodes.values().any(|node| !node.unlinked && *node.bytes() == bytes);
        assert!(found, "{self}: what was uploaded for {id} is the content of no file");
    }

    fn housekeep(&mut self) {
        let volume = self.volume();
        match self.rng.random_range(0..4) {
            0 => self.sync(),
            1 => {
                self.note("apply".into());
                self.agree("apply", Ok(()), volume.store().apply());
                // Applied is also synced.
                self.sync();
            }
            2 => self.reclaim(),
            _ => self.check(),
        }
    }

    /// Frees what can be freed.
    pub fn reclaim(&mut self) {
        self.note("reclaim".into());
        self.checkpoints += 1;
        let volume = self.volume();
        if !self.counted {
            self.agree("count", Ok(()), volume.count_usage());
            self.counted = true;
        }
        self.agree("reclaim", Ok(()), volume.reclaim());
        self.sync();
    }
}

impl Model {
    /// Without what only open files still hold.
    fn linked(&self) -> Self {
        let nodes = self.nodes.iter().filter(|(_, node)| !node.unlinked);
        Self { nodes: nodes.map(|(ino, node)| (*ino, node.clone())).collect() }
    }
}

impl std::fmt::Display for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {} after", self.seed)?;
        self.trace.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
