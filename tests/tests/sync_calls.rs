//! What each call that syncs makes durable: system calls on a mount over a disk whose power is cut at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
    sync::Arc,
};

use parsecfs_tests::{
    cli::can_mount,
    local_model::{Blocks, ROOT, StepClock, open, open_on, read},
    power::RecordingDisk,
};
use parsecfs_vfs::{Mount, MountOptions, fs::Volume};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

/// A mounted store over a disk that records; unmounted when dropped.
struct World {
    dir: TempDir,
    disk: Arc<RecordingDisk>,
    volume: Arc<Volume>,
    mount: Mount,
}

impl World {
    fn new() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let (dir, disk) = (TempDir::new().unwrap(), Arc::new(RecordingDisk::default()));
        let volume =
            open_on(disk.clone(), &dir.path().join("store"), Arc::new(StepClock::default()), u64::MAX).unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let mount = Mount::start(&volume, &dir.path().join("mnt"), "test", &MountOptions::default()).unwrap();
        Some(Self { dir, disk, volume, mount })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("mnt").join(name)
    }

    /// What a power cut now leaves, with about `share` of what was not flushed.
    fn cut(&self, share: f64, rng: &mut StdRng) -> Left {
        let image = TempDir::new_in(self.dir.path()).unwrap();
        self.disk.cut_store(&self.dir.path().join("store"), image.path(), share, rng);
        let volume = open(image.path(), Arc::new(StepClock::default()), u64::MAX).unwrap();
        Left { volume, _image: image }
    }

    /// The least that a power cut now may leave.
    fn cut_all(&self) -> Left {
        self.cut(0.0, &mut StdRng::seed_from_u64(0))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.mount.unmount().unwrap();
    }
}

/// What a power cut left.
struct Left {
    volume: Arc<Volume>,
    _image: TempDir,
}

impl Left {
    fn content(&self, name: &str) -> Option<Vec<u8>> {
        let ino = self.volume.lookup(ROOT, name.as_bytes()).ok()?.ino;
        Some(read(&self.volume, &Blocks::default(), ino, 0, 1 << 22).unwrap())
    }

    #[track_caller]
    fn assert_content(&self, name: &str, content: &[u8]) {
        assert!(self.content(name).as_deref() == Some(content), "{name} is not as it was synced");
    }
}

/// [S20]
#[test]
fn fsync_makes_content_length_and_name_durable() {
    let Some(world) = World::new() else { return };
    let mut file = File::create(world.path("a")).unwrap();
    file.write_all(&[1; 300_000]).unwrap();
    file.sync_all().unwrap();
    world.cut_all().assert_content("a", &[1; 300_000]);
    file.set_len(5_000).unwrap();
    file.sync_all().unwrap();
    world.cut_all().assert_content("a", &[1; 5_000]);
}

#[test]
fn fdatasync_makes_content_and_length_durable() {
    let Some(world) = World::new() else { return };
    let file = File::create(world.path("a")).unwrap();
    for n in 1..4u8 {
        file.write_all_at(&[n; 70_000], u64::from(n - 1) * 70_000).unwrap();
        file.sync_data().unwrap();
        let content: Vec<u8> = (1..=n).flat_map(|n| [n; 70_000]).collect();
        world.cut_all().assert_content("a", &content);
    }
}

#[test]
fn a_write_with_o_sync_or_o_dsync_is_durable_when_it_returns() {
    let Some(world) = World::new() else { return };
    for (name, flag) in [("sync", libc::O_SYNC), ("dsync", libc::O_DSYNC), ("direct", libc::O_DSYNC | libc::O_DIRECT)] {
        let mut file = OpenOptions::new().write(true).create(true).custom_flags(flag).open(world.path(name)).unwrap();
        file.write_all(b"first").unwrap();
        world.cut_all().assert_content(name, b"first");
        file.write_all(&[2; 9_000]).unwrap();
        world.cut_all().assert_content(name, &[&b"first"[..], &[2; 9_000]].concat());
    }
}

#[test]
fn fsync_of_a_folder_makes_its_names_durable() {
    let Some(world) = World::new() else { return };
    let folder = File::open(world.path("")).unwrap();
    fs::write(world.path("made"), "").unwrap();
    fs::write(world.path("old"), "").unwrap();
    fs::write(world.path("gone"), "").unwrap();
    folder.sync_all().unwrap();
    let left = world.cut_all();
    assert!(["made", "old", "gone"].iter().all(|name| left.content(name).is_some()));
    fs::rename(world.path("old"), world.path("new")).unwrap();
    fs::remove_file(world.path("gone")).unwrap();
    folder.sync_all().unwrap();
    let left = world.cut_all();
    assert!(left.content("made").is_some() && left.content("new").is_some());
    assert!(left.content("old").is_none() && left.content("gone").is_none());
}

#[test]
fn msync_makes_what_was_written_through_a_map_durable() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("a"), [0; 20_000]).unwrap();
    let script = "import mmap, sys
with open(sys.argv[1], 'r+b') as file:
    map = mmap.mmap(file.fileno(), 0)
    map[10000:10005] = b'through'[:5]
    map.flush()";
    let done = std::process::Command::new("python3").args(["-c", script]).arg(world.path("a")).status().unwrap();
    assert!(done.success());
    let mut content = vec![0; 20_000];
    content[10_000..10_005].copy_from_slice(b"throu");
    world.cut_all().assert_content("a", &content);
}

/// sync(2) makes the kernel hand over all pages, but it does not tell this filesystem: see docs/known-failures.md.
#[test]
fn after_syncfs_the_next_round_of_the_background_makes_all_durable() {
    let Some(world) = World::new() else { return };
    fs::write(world.path("a"), [1; 100_000]).unwrap();
    rustix::fs::syncfs(File::open(world.path("")).unwrap()).unwrap();
    world.volume.store().apply().unwrap();
    world.cut_all().assert_content("a", &[1; 100_000]);
}

/// [S22]
#[test]
fn a_file_that_was_synced_and_renamed_over_another_is_one_of_both_after_any_cut() {
    let Some(world) = World::new() else { return };
    let version = |n: u8| vec![n; 30_000 + usize::from(n)];
    let save = |n: u8| {
        let mut file = File::create(world.path(".tmp")).unwrap();
        file.write_all(&version(n)).unwrap();
        file.sync_all().unwrap();
        fs::rename(world.path(".tmp"), world.path("text")).unwrap();
    };
    save(0);
    File::open(world.path("")).unwrap().sync_all().unwrap();
    let mut rng = StdRng::seed_from_u64(3);
    for n in 1..20 {
        save(n);
        let share = [0.0, 0.5, 1.0][rng.random_range(0..3)];
        let found = world.cut(share, &mut rng).content("text").expect("one of them is there");
        assert!(found == version(n) || found == version(n - 1), "version {n}: neither old nor new");
    }
    File::open(world.path("")).unwrap().sync_all().unwrap();
    world.cut_all().assert_content("text", &version(19));
}
