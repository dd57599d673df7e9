//! A disk that is full at every write in turn: the writer is told, nothing that was acknowledged is lost, and when there is
//! room everything goes on without a restart. `PARSECFS_FULL_AT` sets up to which write: few by default.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind as IoKind},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parsecfs_tests::local_model::{Blocks, ROOT, StepClock, open, open_on, read};
use parsecfs_vfs::{
    error::{ErrorKind, Result},
    fs::{Fetched, Maker, NewKind, Times, Volume, WriteOutcome},
    store::Disk,
};
use tempfile::TempDir;

/// Small segments, so that a full disk also meets the making of one.
const STORE_BYTES_MAX: u64 = 16 << 20;
/// Lengths of files: in the buffer, over it, over a segment's end.
const LENGTHS: [usize; 5] = [10, 5_000, 70_000, 300_000, 1];

/// A disk with room for so many writes and flushes. The write that finds it full leaves a half of itself behind.
#[derive(Debug)]
struct FullDisk {
    room: AtomicU64,
    asked: AtomicU64,
}

impl FullDisk {
    fn with_room(room: u64) -> Arc<Self> {
        Arc::new(Self { room: AtomicU64::new(room), asked: AtomicU64::new(0) })
    }

    fn make_room(&self) {
        self.room.store(u64::MAX, Ordering::Relaxed);
    }

    fn take(&self) -> io::Result<()> {
        match self.asked.fetch_add(1, Ordering::Relaxed) < self.room.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(IoKind::StorageFull.into()),
        }
    }
}

impl Disk for FullDisk {
    fn write(&self, _: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let full = self.take();
        let written = if full.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        file.write_all_at(written, offset)?;
        full
    }

    fn sync(&self, _: &Path, file: &File) -> io::Result<()> {
        self.take()?;
        file.sync_data()
    }
}

/// What was acknowledged of the files.
#[derive(Default)]
struct Told {
    written: BTreeMap<String, Vec<u8>>,
    /// What each held at the last sync that was acknowledged, and after each write since.
    since_sync: BTreeMap<String, Vec<Vec<u8>>>,
}

fn bytes(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 + at % 13 + number).to_le_bytes()[0]).collect()
}

/// Replaces what a file holds, as far as the length goes, and remembers what was acknowledged.
fn put(volume: &Volume, told: &mut Told, number: usize) -> Result<()> {
    let name = format!("file-{}", number % 9);
    let found = volume.lookup(ROOT, name.as_bytes()).map(|found| found.ino);
    let ino = match found {
        Ok(ino) => ino,
        Err(_) => volume.create(ROOT, name.as_bytes(), NewKind::File, 0o644, Maker { uid: 0, gid: 0 })?.ino,
    };
    let known = told.written.entry(name.clone()).or_default();
    let content = bytes(number, LENGTHS[number % LENGTHS.len()]);
    let done = volume.write(ino, 0, &content, &Fetched::new(), Times::Now)?;
    assert!(matches!(done, WriteOutcome::Done), "nothing is elsewhere");
    known.resize(known.len().max(content.len()), 0);
    known[..content.len()].copy_from_slice(&content);
    if let Some(versions) = told.since_sync.get_mut(&name) {
        versions.push(known.clone());
    }
    Ok(())
}

/// One step of a program, and of the background thread now and then.
fn step(volume: &Volume, told: &mut Told, number: usize) -> Result<()> {
    put(volume, told, number)?;
    if number.is_multiple_of(4) {
        volume.store().sync()?;
        told.since_sync = told.written.iter().map(|(name, content)| (name.clone(), vec![content.clone()])).collect();
    }
    if number.is_multiple_of(7) {
        volume.store().apply()?;
    }
    Ok(())
}

#[track_caller]
fn assert_holds(volume: &Volume, files: &BTreeMap<String, Vec<u8>>, when: &str) {
    for (name, content) in files {
        let ino = volume.lookup(ROOT, name.as_bytes()).expect("it is listed").ino;
        let found = read(volume, &Blocks::default(), ino, 0, 1 << 20).expect("it can be read");
        assert!(&found == content, "{when}: {name} holds something else");
    }
    assert!(volume.check().expect("the store can be read").is_empty(), "{when}: something is damaged");
}

/// What the next process finds when this one is killed now.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("segments")).expect("a folder");
    for folder in ["", "segments"] {
        for entry in std::fs::read_dir(from.join(folder)).expect("a folder").flatten() {
            if entry.file_type().expect("a type").is_file() {
                std::fs::copy(entry.path(), to.join(folder).join(entry.file_name())).expect("copy");
            }
        }
    }
}

fn is_told(outcome: Result<()>, when: &str) -> bool {
    outcome.inspect_err(|error| assert_eq!(error.kind(), ErrorKind::NoSpace, "{when}: {error:?}")).is_err()
}

/// [S21]
#[test]
fn a_disk_that_is_full_at_any_write_is_told_loses_nothing_and_goes_on_when_there_is_room() {
    let last = std::env::var("PARSECFS_FULL_AT").map_or(25, |text| text.parse::<u64>().expect("a number"));
    for room in 0..last {
        let when = format!("room for {room} writes");
        let world = TempDir::new().expect("a temporary directory");
        let (dir, image) = (world.path().join("store"), world.path().join("image"));
        let disk = FullDisk::with_room(room);
        let volume = || open_on(disk.clone(), &dir, Arc::new(StepClock::default()), STORE_BYTES_MAX);
        let volume = volume().or_else(|error| {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{when}: {error:?}");
            disk.make_room();
            volume()
        });
        let volume = volume.expect("it opens when there is room");
        let mut told = Told::default();
        let refused = (1..60).filter(|number| is_told(step(&volume, &mut told, *number), &when)).count();
        assert!(refused > 0 || room > 20 || disk.room.load(Ordering::Relaxed) == u64::MAX, "{when}: nobody was told");
        assert_holds(&volume, &told.written, &when);
        copy(&dir, &image);
        let after_a_kill = open(&image, Arc::new(StepClock::default()), u64::MAX).expect("it opens");
        for (name, versions) in &told.since_sync {
            let ino = after_a_kill.lookup(ROOT, name.as_bytes()).expect("it was synced").ino;
            let found = read(&after_a_kill, &Blocks::default(), ino, 0, 1 << 20).expect("it can be read");
            assert!(versions.contains(&found), "{when}: {name} is older than synced, or a mix");
        }
        assert!(after_a_kill.check().expect("it can be read").is_empty(), "{when}: a kill leaves damage");
        disk.make_room();
        for number in 60..80 {
            step(&volume, &mut told, number).expect("there is room");
        }
        assert_holds(&volume, &told.written, &when);
        volume.store().close().expect("there is room");
        drop(volume);
        let volume = open(&dir, Arc::new(StepClock::default()), u64::MAX).expect("it opens again");
        assert_holds(&volume, &told.written, &when);
    }
}
