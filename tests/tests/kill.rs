//! A mount killed at random moments under writers: nothing that fsync acknowledged is missing or torn.
//! `PARSECFS_ROUNDS` sets how often: few by default, 200 in a long run.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::atomic::{AtomicUsize, Ordering},
};

use parsecfs_tests::cli::can_mount;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

const WRITERS: u8 = 3;

fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its program");
    let profile = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST").to_owned();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "parsecfs-vfs", "--example", "bare_mount"]);
    if profile.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    build.env("CARGO_TARGET_DIR", profile.parent().expect("a profile is in the target folder"));
    assert!(build.status().expect("cargo runs").success(), "bare_mount builds");
    profile.join("examples/bare_mount")
}

/// A mounted store; killed and unmounted when dropped.
struct Mounted {
    child: Child,
    dir: PathBuf,
}

fn is_mounted(dir: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == dir))
}

impl Mounted {
    fn new(program: &Path, store: &Path, dir: &Path) -> Self {
        let child = Command::new(program).arg(store).arg(dir).spawn().expect("bare_mount starts");
        let mut mounted = Self { child, dir: dir.to_owned() };
        while !is_mounted(dir) {
            assert!(mounted.child.try_wait().expect("its state").is_none(), "the mount opens again");
            std::thread::yield_now();
        }
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let done = Command::new("umount").arg("-l").arg(&self.dir).status();
        assert!(done.is_ok_and(|status| status.success()), "a mount was left behind");
    }
}

/// Byte `at` of what a writer writes.
fn byte(writer: u8, at: usize) -> u8 {
    at.to_le_bytes()[0] ^ at.to_le_bytes()[1].wrapping_mul(31) ^ writer
}

/// Appends and syncs until the mount is gone; returns the length that the last sync acknowledged.
fn append_and_sync(path: &Path, writer: u8, seed: u64, syncs: &AtomicUsize) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut written, mut acknowledged) = (0, 0);
    let Ok(mut file) = File::create(path) else { return 0 };
    loop {
        let end = written + rng.random_range(1..20_000);
        let bytes: Vec<u8> = (written..end).map(|at| byte(writer, at)).collect();
        if file.write_all(&bytes).and_then(|()| file.sync_all()).is_err() {
            return acknowledged;
        }
        (written, acknowledged) = (end, end);
        syncs.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn nothing_that_fsync_acknowledged_is_missing_after_a_kill() {
    if !can_mount() {
        return;
    }
    let program = program();
    let world = TempDir::new().expect("a temporary directory");
    let (store, dir) = (world.path().join("store"), world.path().join("mount"));
    std::fs::create_dir(&dir).expect("a folder");
    let rounds = std::env::var("PARSECFS_ROUNDS").map_or(3, |text| text.parse::<u64>().expect("a number"));
    let mut rng = StdRng::seed_from_u64(rounds);
    for round in 0..rounds {
        let mut mounted = Mounted::new(&program, &store, &dir);
        let (syncs, enough) = (AtomicUsize::new(0), rng.random_range(1..80));
        let path = |writer: u8| dir.join(format!("{round}-{writer}"));
        let acknowledged: Vec<(u8, usize)> = std::thread::scope(|scope| {
            let syncs = &syncs;
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let path = path(writer);
                    scope.spawn(move || (writer, append_and_sync(&path, writer, round, syncs)))
                })
                .collect();
            while syncs.load(Ordering::Relaxed) < enough {
                std::thread::yield_now();
            }
            mounted.child.kill().expect("kill");
            writers.into_iter().map(|writer| writer.join().expect("a writer ends")).collect()
        });
        drop(mounted);
        let mounted = Mounted::new(&program, &store, &dir);
        for (writer, length) in acknowledged {
            let bytes = if length == 0 { Vec::new() } else { std::fs::read(path(writer)).expect("it was synced") };
            assert!(
                bytes.len() >= length,
                "round {round}: {length} bytes were acknowledged, {} are there",
                bytes.len()
            );
            let wrong = (0..length).find(|at| bytes[*at] != byte(writer, *at));
            assert_eq!(wrong, None, "round {round}: a byte that was acknowledged");
        }
        drop(mounted);
    }
}
