//! Power cuts and failed flushes under the local store, replayed from recorded writes: everything that was acknowledged is
//! there, the rest is a prefix, nothing is torn. `PARSECFS_CUTS` sets how many cuts: few by default, 500 in a long run.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use parsecfs_tests::{
    local_model::{Blocks, ROOT, Session, StepClock, open, open_on, read},
    power::RecordingDisk,
};
use parsecfs_vfs::fs::{Fetched, Maker, NewKind, Times, Volume};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

/// Cuts in one session; then a new one begins, with another seed.
const CUTS_PER_SESSION: u64 = 20;

#[test]
fn a_power_cut_leaves_a_prefix_with_all_that_was_acknowledged() {
    let cuts = std::env::var("PARSECFS_CUTS").map_or(30, |text| text.parse::<u64>().expect("a number"));
    for first in (0..cuts).step_by(usize::try_from(CUTS_PER_SESSION).expect("small")) {
        let world = TempDir::new().expect("a temporary directory");
        let disk = Arc::new(RecordingDisk::default());
        let mut session = Session::new_on(disk.clone(), &world.path().join("0"), 5000 + first);
        for number in first..cuts.min(first + CUTS_PER_SESSION) {
            for _ in 0..session.rng.random_range(0..50) {
                session.step();
            }
            if session.rng.random_bool(0.3) {
                session.sync();
            }
            if session.rng.random_bool(0.2) {
                disk.fail_sync.store(true, Ordering::Relaxed);
                session.sync();
            }
            let image = world.path().join((number + 1).to_string());
            let mut rng = StdRng::seed_from_u64(number);
            let share = [0.0, 0.5, 0.9, 1.0][rng.random_range(0..4)];
            disk.cut_store(&session.dir, &image, share, &mut rng);
            session.recover_in(&image);
            let recovery = session.volume().store().recovery();
            assert_eq!((recovery.damaged, recovery.lost), (0, 0), "cut {number}: a cut is not taken for damage");
            session.check();
        }
    }
}

fn put(volume: &Volume, name: &str, bytes: &[u8]) -> u64 {
    let maker = Maker { uid: 0, gid: 0 };
    let made = volume.create(ROOT, name.as_bytes(), NewKind::File, 0o644, maker).expect("create");
    volume.write(made.ino, 0, bytes, &Fetched::new(), Times::Now).expect("write");
    made.ino
}

/// The least that a power cut may leave.
fn after_a_cut(disk: &RecordingDisk, from: &Path, world: &TempDir) -> Arc<Volume> {
    let image = world.path().join("image");
    disk.cut_store(from, &image, 0.0, &mut StdRng::seed_from_u64(0));
    open(&image, Arc::new(StepClock::default()), u64::MAX).expect("it opens")
}

fn assert_holds(volume: &Volume, ino: u64, bytes: &[u8]) {
    assert!(read(volume, &Blocks::default(), ino, 0, 1 << 20).as_deref() == Ok(bytes), "inode {ino}");
}

#[test]
fn what_a_failed_flush_lost_is_written_again_before_a_sync_is_acknowledged() {
    let world = TempDir::new().expect("a temporary directory");
    let (disk, dir) = (Arc::new(RecordingDisk::default()), world.path().join("store"));
    let volume = open_on(disk.clone(), &dir, Arc::new(StepClock::default()), u64::MAX).expect("a new store");
    let first = put(&volume, "a", &[1; 200_000]);
    disk.fail_sync.store(true, Ordering::Relaxed);
    volume.store().sync().expect("it was written anew");
    let second = put(&volume, "b", &[2; 9000]);
    volume.store().sync().expect("sync");
    assert_holds(&volume, first, &[1; 200_000]);
    let volume = after_a_cut(&disk, &dir, &world);
    assert_holds(&volume, first, &[1; 200_000]);
    assert_holds(&volume, second, &[2; 9000]);
}

#[test]
fn a_broken_disk_acknowledges_no_sync_and_loses_nothing_when_it_is_back() {
    let world = TempDir::new().expect("a temporary directory");
    let (disk, dir) = (Arc::new(RecordingDisk::default()), world.path().join("store"));
    let volume = open_on(disk.clone(), &dir, Arc::new(StepClock::default()), u64::MAX).expect("a new store");
    let first = put(&volume, "a", &[1; 200_000]);
    let second = put(&volume, "b", &[2; 9000]);
    disk.broken.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(volume.store().sync().is_err());
        assert!(volume.store().apply().is_err());
    }
    disk.broken.store(false, Ordering::Relaxed);
    disk.fail_sync.store(true, Ordering::Relaxed);
    assert_holds(&volume, second, &[2; 9000]);
    volume.store().sync().expect("the disk is back");
    let volume = after_a_cut(&disk, &dir, &world);
    assert_holds(&volume, first, &[1; 200_000]);
    assert_holds(&volume, second, &[2; 9000]);
}
