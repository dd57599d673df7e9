//! A fake tree and a volume that get the same: local changes, uploads, and what another device did.

mod compare;
mod local;
mod remote;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use parsecfs_core::{id::VlobId, manifest::Manifest, name::EntryName};
use parsecfs_tests::{
    fake_tree::FakeTree,
    local_model::{Blocks, REALM, ROOT, open},
};
use parsecfs_vfs::{
    clock::Clock,
    fs::{BLOCK_BYTES, Volume},
    tree::{LocalEntry, LocalTree, TreeUpdate},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Names are few, so that they meet.
const NAMES: u32 = 6;
/// Operations that a failure prints.
const TRACE: usize = 25;

/// A clock that moves only between operations.
struct StepClock(AtomicI64);

impl Clock for StepClock {
    fn now_ns(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Path from the root, and the entry there.
type Place = (Vec<EntryName>, VlobId);

/// Both trees, and a storage between them and another device.
pub(crate) struct Pair {
    seed: u64,
    rng: StdRng,
    dir: TempDir,
    clock: Arc<StepClock>,
    runtime: Runtime,
    blocks: Arc<Blocks>,
    fake: Arc<FakeTree>,
    volume: Option<Arc<Volume>>,
    /// Inodes the kernel knows, once for each reference.
    held: Vec<u64>,
    /// Every entry that ever was.
    known: BTreeSet<VlobId>,
    /// Entries that a folder lists already and whose manifest comes later.
    coming: Vec<Manifest>,
    checkpoint: u64,
    /// What a tree (the fake?) said of an entry in a state.
    states: HashMap<(bool, VlobId, u64), String>,
    trace: VecDeque<String>,
}

impl Pair {
    /// Two trees with a root folder that the storage has.
    pub(crate) fn new(seed: u64) -> Self {
        let clock = Arc::new(StepClock(AtomicI64::new(1_700_000_000_000_000_000)));
        let root = REALM.root();
        let mut pair = Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            dir: tempfile::tempdir().expect("a temporary directory"),
            fake: FakeTree::with_blocksize(root, clock.clone(), BLOCK_BYTES),
            clock,
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime"),
            blocks: Arc::default(),
            volume: None,
            held: Vec::new(),
            known: BTreeSet::from([root]),
            coming: Vec::new(),
            checkpoint: 0,
            states: HashMap::new(),
            trace: VecDeque::new(),
        };
        pair.open();
        pair.upload(root);
        pair.compare();
        pair
    }

    fn open(&mut self) {
        let volume = open(self.dir.path(), self.clock.clone(), u64::MAX).expect("the volume opens");
        volume.set_blocks(self.blocks.clone(), self.runtime.handle().clone());
        self.volume = Some(volume);
    }

    /// The volume that is open.
    fn volume(&self) -> Arc<Volume> {
        self.volume.clone().expect("it is open")
    }

    /// One operation of any kind on both, and what they say afterwards.
    pub(crate) fn step(&mut self) {
        self.clock.0.fetch_add(self.rng.random_range(1..5) * 1_000_000_000, Ordering::Relaxed);
        match self.rng.random_range(0..100) {
            0..45 => self.change_here(),
            45..60 => self.upload_some(),
            60..98 => self.change_elsewhere(),
            _ => self.restart(),
        }
        if self.rng.random_bool(0.3) {
            self.forget();
        }
        self.compare();
    }

    /// The end: no kernel, a new process, and every file read.
    pub(crate) fn finish(&mut self) {
        self.restart();
        self.compare();
        self.compare_files();
    }

    fn restart(&mut self) {
        self.note("restart".to_owned());
        self.held.clear();
        let volume = self.volume.take().expect("it is open");
        volume.store().close().expect("the store closes");
        assert_eq!(Arc::strong_count(&volume), 1, "nobody else has the volume");
        drop(volume);
        self.open();
    }

    fn forget(&mut self) {
        let volume = self.volume();
        for ino in self.held.drain(..) {
            volume.forget(ino, 1);
        }
    }

    fn note(&mut self, what: String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(what);
    }

    fn places(&self) -> Vec<Place> {
        let root = (Vec::new(), REALM.root());
        std::iter::once(root).chain(self.fake.paths()).collect()
    }

    fn pick(&mut self, fits: impl Fn(&Self, &Place) -> bool) -> Option<Place> {
        let fitting: Vec<Place> = self.places().into_iter().filter(|place| fits(self, place)).collect();
        (!fitting.is_empty()).then(|| fitting[self.rng.random_range(0..fitting.len())].clone())
    }

    fn pick_folder(&mut self) -> Place {
        self.pick(|pair, (_, id)| pair.fake.is_folder(*id)).expect("the root is always there")
    }

    fn pick_file(&mut self) -> Option<Place> {
        self.pick(|pair, (_, id)| !pair.fake.is_folder(*id))
    }

    fn pick_name(&mut self) -> EntryName {
        EntryName::new(&format!("n{}", self.rng.random_range(0..NAMES))).expect("a name")
    }

    fn pick_id(&mut self) -> VlobId {
        let id = VlobId::from_bytes(self.rng.random());
        self.known.insert(id);
        id
    }

    fn entry(&self, id: VlobId) -> LocalEntry {
        self.fake.load(id).expect("the fake loads").expect("the fake knows it")
    }

    /// The inode of a path, looked up as the kernel does.
    fn ino(&mut self, path: &[EntryName]) -> u64 {
        let volume = self.volume();
        let mut at = ROOT;
        for name in path {
            at = volume.lookup(at, name.reveal().as_bytes()).unwrap_or_else(|e| panic!("{self}: {path:?}: {e:?}")).ino;
            self.held.push(at);
        }
        at
    }

    fn upload_some(&mut self) {
        let waiting = self.fake.pending(usize::MAX).expect("the fake says what waits");
        if waiting.is_empty() {
            return;
        }
        let id = waiting[self.rng.random_range(0..waiting.len())].id;
        self.upload(id);
    }

    /// Uploads an entry as it is. Meanwhile it may change again.
    fn upload(&mut self, id: VlobId) {
        let seen = self.entry(id).change;
        let (volume_seen, manifest) = self.blocks.upload(&self.volume(), id);
        self.note(format!("upload {id:?} as version {}", manifest.version()));
        if self.rng.random_bool(0.3) {
            self.change_here();
        }
        let update = |seen| vec![TreeUpdate::Uploaded { seen, manifest: manifest.clone() }];
        self.fake.apply(update(seen), None).expect("the fake takes it");
        let volume = self.volume();
        volume.apply(update(volume_seen), None).unwrap_or_else(|error| panic!("{self}: {error:?}"));
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}, last operations:", self.seed)?;
        self.trace.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
