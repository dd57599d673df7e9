//! Whoever reads a file from front to back finds the next blocks here; nobody else costs the storage more than asked for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use parsecfs_core::{
    id::{BlockId, DeviceId, VlobId},
    manifest::{BlockAccess, Extension, FileManifest, FolderManifest, Manifest},
    name::EntryName,
    time::Timestamp,
};
use parsecfs_tests::local_model::{Blocks, REALM, ROOT, StepClock, open};
use parsecfs_vfs::{
    error::{ErrorKind, Result},
    fs::{Fetched, ReadOutcome, Volume},
    tree::{BlockSource, LocalTree, Merged, MergedContent, TreeUpdate},
};
use tempfile::TempDir;
use tokio::sync::Semaphore;

const BLOCK: usize = 512 << 10;
const MIB: u64 = 1 << 20;

/// Blocks that come when they are let through, and who asked for them.
struct Line {
    blocks: Blocks,
    asked: Mutex<BTreeMap<BlockId, usize>>,
    waiting: AtomicUsize,
    gate: Semaphore,
    broken: bool,
}

impl Line {
    fn asked(&self) -> usize {
        self.asked.lock().values().sum()
    }
}

impl BlockSource for Line {
    fn fetch<'a>(&'a self, access: &'a BlockAccess) -> BoxFuture<'a, Result<Vec<u8>>> {
        async move {
            *self.asked.lock().entry(access.id).or_default() += 1;
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let turn = self.gate.acquire().await.expect("it is never closed");
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            turn.forget();
            if self.broken { Err(ErrorKind::Offline.into()) } else { self.blocks.fetch(access).await }
        }
        .boxed()
    }
}

/// A file of the storage of which nothing is here.
struct World {
    _dir: TempDir,
    volume: Arc<Volume>,
    line: Arc<Line>,
    ino: u64,
}

fn byte(at: u64) -> u8 {
    u8::try_from(at / 4096 % 251).expect("below 251")
}

fn world(mib: u64, room: u64, broken: bool) -> World {
    let dir = TempDir::new().expect("a temporary directory");
    let volume = open(dir.path(), Arc::new(StepClock::default()), room).expect("a new store");
    let blocks = Blocks::default();
    let size = mib * MIB;
    let accesses = (0..size).step_by(BLOCK).map(|at| {
        let bytes = (at..at + BLOCK as u64).map(byte).collect();
        blocks.store(at, bytes)
    });
    let (id, root) = (VlobId::from_bytes([5; 16]), REALM.root());
    let (author, time) = (DeviceId::from_bytes([9; 16]), Timestamp::from_micros(1).expect("in range"));
    let name = EntryName::new("large").expect("a name");
    let children = BTreeMap::from([(name, id)]);
    let file = FileManifest {
        author,
        timestamp: time,
        id,
        parent: root,
        version: 1,
        created: time,
        updated: time,
        size,
        blocksize: BLOCK as u64,
        blocks: accesses.collect(),
        extension: None,
        unknown: Default::default(),
    };
    let folder = FolderManifest {
        author,
        timestamp: time,
        id: root,
        parent: root,
        version: 1,
        created: time,
        updated: time,
        children: children.clone(),
        extension: None,
        unknown: Default::default(),
    };
    let put = |id, seen, base, content| {
        let extension = Extension::default();
        let local = Merged { parent: root, created: time, updated: time, extension, content, need_sync: false };
        TreeUpdate::Put { id, seen, base: Some(base), local }
    };
    let seen = volume.load(root).expect("load").expect("the root").change;
    let updates = vec![
        put(id, None, Manifest::File(file), MergedContent::RemoteFile),
        put(root, Some(seen), Manifest::Folder(folder), MergedContent::Folder(children)),
    ];
    volume.apply(updates, None).expect("it is taken");
    let (asked, waiting, gate) = (Mutex::default(), AtomicUsize::new(0), Semaphore::new(0));
    let line = Arc::new(Line { blocks, asked, waiting, gate, broken });
    volume.set_blocks(line.clone(), tokio::runtime::Handle::current());
    let ino = volume.lookup(ROOT, b"large").expect("it is there").ino;
    World { _dir: dir, volume, line, ino }
}

impl World {
    async fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>> {
        match self.volume.read(self.ino, at, bytes, &Fetched::new())? {
            ReadOutcome::Data(data) => Ok(data),
            ReadOutcome::Missing(blocks) => self.volume.read_fetching(self.ino, at, bytes, blocks).await,
        }
    }

    async fn read_right(&self, at: u64, bytes: usize) {
        let data = self.read(at, bytes).await.expect("it is read");
        assert_eq!(data.len(), bytes);
        assert!(data.iter().zip(at..).all(|(found, at)| *found == byte(at)), "at {at}");
    }

    /// As many tasks as there are have their turn.
    async fn settle(&self) {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_block_is_asked_for_once_and_many_are_on_their_way_at_a_time() {
    let world = world(40, 1 << 30, false);
    let mut most = 0;
    for at in (0..40).map(|at| at * MIB) {
        let reading = world.read_right(at, 1 << 20);
        // As slow a line as can be: what a reader waits for, and no more.
        let letting_through = async {
            world.settle().await;
            most = most.max(world.line.waiting.load(Ordering::SeqCst));
            tokio::time::advance(Duration::from_millis(200)).await;
            world.line.gate.add_permits(2);
        };
        tokio::join!(reading, letting_through);
    }
    assert_eq!(world.line.asked(), 80, "two blocks in each MiB");
    assert!((56..=66).contains(&most), "{most}: about 32 MiB");
}

#[tokio::test]
async fn reads_here_and_there_fetch_what_they_need_and_a_little() {
    let world = world(64, 1 << 30, false);
    world.line.gate.add_permits(1000);
    for at in [60, 3, 40, 22, 50, 10, 31] {
        world.read_right(at * MIB, 4096).await;
        world.settle().await;
    }
    // Only the very first could be the beginning of a run.
    assert!(world.line.asked() <= 7 + 2, "{}", world.line.asked());
}

#[tokio::test]
async fn a_broken_line_ends_the_run_and_is_told_to_the_reader() {
    let world = world(40, 1 << 30, true);
    world.line.gate.add_permits(1000);
    for _ in 0..3 {
        assert_eq!(world.read(0, 1 << 20).await.expect_err("offline").kind(), ErrorKind::Offline);
        world.settle().await;
    }
    // The two that were read, and one window.
    assert!(world.line.asked() <= 3 * (2 + 4), "{}", world.line.asked());
}
