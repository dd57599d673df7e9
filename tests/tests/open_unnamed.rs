//! Files that are open and have no name: they go on with another agent, and leave nothing when they are closed.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use parsecfs_tests::{
    cli::{CliHome, can_mount},
    local_model::{StepClock, new_tape, open_taped},
    survival::{PATIENCE, unanswered_since, until},
};
use parsecfs_vfs::{
    Mount, MountOptions,
    fs::{Fetched, Maker, Times},
};

const MIB: usize = 1 << 20;

fn mounted() -> Option<(CliHome, PathBuf)> {
    can_mount().then(|| {
        let home = CliHome::with_deaths(100);
        let dir = PathBuf::from(home.with_mount());
        (home, dir)
    })
}

/// How an agent may end while its mount goes on.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Restarted,
}

impl End {
    /// Ends the agent, and waits for the next one.
    fn come(self, home: &CliHome, dir: &Path) {
        let before = match self {
            Self::Killed => Some(home.crash_agent()),
            Self::Restarted => {
                home.ok(&["agent", "restart"]);
                None
            }
        };
        assert!(unanswered_since(Instant::now(), dir) < PATIENCE);
        assert_ne!(home.agent_pid(), before);
    }
}

#[track_caller]
fn assert_bytes(file: &File, wanted: &[u8]) {
    // Nothing of it from the page cache.
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
    let mut read = vec![0; wanted.len()];
    file.read_exact_at(&mut read, 0).expect("read");
    assert!(read == wanted, "other bytes than were written");
    assert_eq!(file.metadata().expect("stat").len(), wanted.len() as u64);
}

/// [S42]
#[test]
fn a_file_without_a_name_that_is_open_goes_on_when_the_agent_dies_or_is_restarted() {
    let Some((home, dir)) = mounted() else { return };
    let path = |name: &str| dir.join(name);
    for end in [End::Killed, End::Restarted] {
        for name in ["stored", "replaced"] {
            fs::write(path(name), vec![b'1'; 2 * MIB]).unwrap();
        }
        home.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);
        let open = |name: &str| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path(name));
        let files = ["stored", "replaced", "only here"].map(|name| open(name).unwrap());
        // The second half of what is on the storage stays as it is there.
        let mut wanted = [vec![b'1'; 2 * MIB], vec![b'1'; 2 * MIB], vec![b'2'; MIB]];
        for (file, wanted) in files.iter().zip(&mut wanted) {
            file.write_all_at(&vec![b'2'; MIB], 0).unwrap();
            wanted[..MIB].fill(b'2');
            file.sync_all().unwrap();
        }
        fs::remove_file(path("stored")).unwrap();
        fs::remove_file(path("only here")).unwrap();
        fs::write(path("new"), "new").unwrap();
        fs::rename(path("new"), path("replaced")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        let folder = File::open(path("folder")).unwrap();
        fs::remove_dir(path("folder")).unwrap();
        let unnamed = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
        let unnamed = File::from(rustix::fs::open(&dir, unnamed, rustix::fs::Mode::RWXU).unwrap());
        unnamed.write_all_at(b"no name", 0).unwrap();
        end.come(&home, &dir);
        for (file, wanted) in files.iter().zip(&mut wanted) {
            assert_bytes(file, wanted);
            assert_eq!(file.metadata().unwrap().nlink(), 0, "{end:?}");
            file.write_all_at(b"after", 5).unwrap();
            wanted[5..10].copy_from_slice(b"after");
            file.set_len(wanted.len() as u64 - 5).unwrap();
            wanted.truncate(wanted.len() - 5);
            file.sync_all().unwrap();
        }
        assert_eq!(folder.metadata().unwrap().nlink(), 0, "{end:?}");
        assert!(fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd())).unwrap().next().is_none());
        // Once more, with what was written since.
        end.come(&home, &dir);
        files.iter().zip(&wanted).for_each(|(file, wanted)| assert_bytes(file, wanted));
        assert_bytes(&unnamed, b"no name");
        let own = format!("/proc/self/fd/{}", unnamed.as_raw_fd());
        let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(rustix::fs::CWD, own, rustix::fs::CWD, path("named"), follow).unwrap();
        let names: BTreeSet<OsString> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let shown = |name: &&OsString| !name.to_str().unwrap().starts_with("probe");
        assert_eq!(names.iter().filter(shown).collect::<Vec<_>>(), ["named", "replaced"], "{end:?}");
        assert_eq!(fs::read(path("named")).unwrap(), b"no name");
        drop((files, folder, unnamed));
        fs::remove_file(path("named")).unwrap();
    }
    home.ok(&["umount", "Photos", "--flush"]);
}

#[test]
fn the_space_of_a_removed_file_is_free_when_it_is_closed_also_while_the_agent_is_away() {
    let Some((home, dir)) = mounted() else { return };
    let used = || home.ok(&["status", "Photos"])["cache_used"].as_u64().expect("a number");
    for end in [End::Killed, End::Restarted] {
        let file = File::create(dir.join("large")).unwrap();
        file.write_all_at(&vec![7; 24 * MIB], 0).unwrap();
        file.sync_all().unwrap();
        fs::remove_file(dir.join("large")).unwrap();
        end.come(&home, &dir);
        assert!(used() > 24 * MIB as u64, "{end:?}");
        drop(file);
        until("its space is free", || used() < 4 * MIB as u64);
    }
    // What a killed agent kept of an open file ends with the mount.
    let file = File::create(dir.join("large")).unwrap();
    file.write_all_at(&vec![7; 24 * MIB], 0).unwrap();
    fs::remove_file(dir.join("large")).unwrap();
    file.sync_all().unwrap();
    home.kill_agent();
    drop(file);
    home.ok(&["mount", "Photos", dir.to_str().unwrap()]);
    until("its space is free", || used() < 4 * MIB as u64);
}

/// A process that is killed takes along what it has read: the kernel's word that it forgets a file, or the question for
/// one that was made.
#[test]
fn one_that_the_kernel_does_not_know_ends_when_another_process_takes_the_mount() {
    if !can_mount() {
        return;
    }
    let (store, dir, tape) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), new_tape());
    let open = || open_taped(store.path(), &tape, Arc::new(StepClock::default()), u64::MAX).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let volume = open();
    let mount = Mount::start(&volume, dir.path(), "unnamed", &MountOptions::default()).unwrap();
    let Some((descriptor, agreed)) = mount.keepsake().unwrap() else { return };
    let unknown = volume.create_unnamed(1, 0o600, Maker { uid: 0, gid: 0 }).unwrap().ino;
    volume.write(unknown, 0, &[1; 5000], &Fetched::new(), Times::Now).unwrap();
    let known = File::create(dir.path().join("open")).unwrap();
    known.write_all_at(b"content", 0).unwrap();
    known.sync_all().unwrap();
    fs::remove_file(dir.path().join("open")).unwrap();
    runtime.block_on(mount.hand_over()).unwrap();
    drop(mount);
    let before = volume.store().clone();
    drop(volume);
    until("its threads have ended", || Arc::strong_count(&before) == 1);
    drop(before);
    let volume = open();
    assert_eq!(volume.attributes(unknown).unwrap().size, 5000);
    let mount = Mount::resume(&volume, dir.path(), descriptor, agreed).unwrap();
    until("it is gone", || volume.attributes(unknown).is_err());
    let seen = known.metadata().unwrap();
    assert_eq!((seen.nlink(), seen.len()), (0, 7));
    assert_eq!(volume.attributes(seen.ino()).unwrap().links, 0);
    drop(known);
    until("it is gone", || volume.attributes(seen.ino()).is_err());
    mount.unmount().unwrap();
    runtime.block_on(mount.ended());
}
