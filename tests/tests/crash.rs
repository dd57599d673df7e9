//! What a crash, a power cut, a flipped bit or a full disk leaves of the local half. `PARSECFS_SEEDS` and
//! `PARSECFS_SEED` as in the model test.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use parsecfs_tests::local_model::{Blocks, ROOT, Session, StepClock, open, read, seeds};
use parsecfs_vfs::{
    error::ErrorKind,
    fs::{Fetched, Maker, NewKind, Times, Volume, WriteOutcome},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

const INDEX: [&str; 2] = ["index.sqlite", "index.sqlite-wal"];

/// Copies the index; `-shm` is only memory.
fn copy_index(from: &Path, to: &Path) {
    for name in INDEX {
        match std::fs::copy(from.join(name), to.join(name)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn copy_store(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("segments")).expect("a folder");
    copy_index(from, to);
    if from.join("index.closed").exists() {
        std::fs::copy(from.join("index.closed"), to.join("index.closed")).expect("copy");
    }
    for entry in std::fs::read_dir(from.join("segments")).expect("segments") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join("segments").join(path.file_name().expect("a name"))).expect("copy");
    }
}

/// Loses or spoils bytes that were not synced.
fn lose_unsynced(session: &mut Session, image: &Path) {
    let (old, synced) = (session.dir.clone(), session.synced.clone());
    for entry in std::fs::read_dir(image.join("segments")).expect("segments") {
        let path = entry.expect("an entry").path();
        let before = old.join("segments").join(path.file_name().expect("a name"));
        let length = std::fs::metadata(&path).expect("its length").len();
        let safe = synced.get(&before).copied().unwrap_or(0);
        if length <= safe {
            continue;
        }
        let at = session.rng.random_range(safe..=length);
        if safe == 0 && session.rng.random_bool(0.3) {
            std::fs::remove_file(&path).expect("remove");
        } else if session.rng.random_bool(0.5) {
            std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(at)).expect("cut");
        } else {
            let mut bytes = std::fs::read(&path).expect("read");
            let at = usize::try_from(at).expect("small");
            bytes[at..].fill(0);
            std::fs::write(&path, bytes).expect("write");
        }
    }
}

#[test]
fn a_crash_leaves_a_state_no_older_than_the_last_sync() {
    for seed in seeds(4) {
        let world = TempDir::new().expect("a temporary directory");
        let mut session = Session::new(&world.path().join("0"), seed);
        let saved = world.path().join("saved");
        std::fs::create_dir(&saved).expect("a folder");
        copy_index(&session.dir, &saved);
        let mut saved_at = session.checkpoints;
        for crash in 1..=8 {
            for _ in 0..session.rng.random_range(0..60) {
                session.step();
            }
            let image = world.path().join(crash.to_string());
            copy_store(&session.dir, &image);
            if session.rng.random_bool(0.7) {
                lose_unsynced(&mut session, &image);
            }
            if saved_at == session.checkpoints && session.rng.random_bool(0.5) {
                for name in INDEX {
                    // The write-ahead part may not be there yet.
                    let _ = std::fs::remove_file(image.join(name));
                }
                copy_index(&saved, &image);
            }
            std::fs::remove_dir_all(&saved).expect("remove");
            std::fs::create_dir(&saved).expect("a folder");
            copy_index(&image, &saved);
            session.recover_in(&image);
            if session.volume().store().recovery().torn {
                // Opening made what it found durable.
                copy_index(&image, &saved);
            }
            saved_at = session.checkpoints;
            session.check();
        }
    }
}

/// Flips one bit of a file somewhere from `from` on.
fn flip_in_file(path: &Path, from: usize, rng: &mut StdRng) {
    let mut bytes = std::fs::read(path).expect("read");
    if bytes.len() > from {
        let at = rng.random_range(from..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        std::fs::write(path, bytes).expect("write");
    }
}

/// Flips one bit of a random sealed row.
fn flip_in_row(dir: &Path, table: &str, key: &str, rng: &mut StdRng) {
    let db = rusqlite::Connection::open(dir.join("index.sqlite")).expect("the index");
    let select = format!("SELECT sealed, {key} FROM {table} WHERE {key} <> 1 ORDER BY 2");
    let mut query = db.prepare(&select).expect("query");
    let rows = query.query_map([], |row| row.get::<_, Vec<u8>>(0)).expect("rows");
    let rows: Vec<Vec<u8>> = rows.collect::<Result<_, _>>().expect("rows");
    if rows.is_empty() {
        return;
    }
    let old = &rows[rng.random_range(0..rows.len())];
    let mut new = old.clone();
    new[rng.random_range(0..old.len())] ^= 1 << rng.random_range(0..8);
    let update = format!("UPDATE {table} SET sealed=?1 WHERE sealed=?2");
    assert_eq!(db.execute(&update, (&new, old)).expect("update"), 1);
}

#[test]
fn a_flipped_bit_costs_one_entry_and_never_shows_wrong_bytes() {
    for seed in seeds(6) {
        let world = TempDir::new().expect("a temporary directory");
        let mut session = Session::new(world.path(), seed);
        for _ in 0..250 {
            session.step();
        }
        let table = session.rng.random_range(0..4);
        session.damage(|dir, rng| match table {
            0 => {
                let mut paths: Vec<PathBuf> = std::fs::read_dir(dir.join("segments"))
                    .expect("segments")
                    .map(|e| e.expect("entry").path())
                    .collect();
                paths.sort();
                flip_in_file(&paths[rng.random_range(0..paths.len())], 0, rng);
            }
            1 => flip_in_row(dir, "slot", "ino", rng),
            2 => flip_in_row(dir, "inode", "ino", rng),
            _ => flip_in_row(dir, "dentry", "cookie", rng),
        });
        let (found, wanted) = session.both();
        let mut lost: Vec<&String> = Vec::new();
        for (path, want) in &wanted {
            match found.get(path) {
                Some(have) if have == want => {}
                Some(have) if have.content == Err(ErrorKind::Corrupt) && have.ino == want.ino => lost.push(path),
                Some(have) => panic!("seed {seed}: wrong bytes or attributes at {path}: {:?}", have.ino),
                // Below a folder that cannot be reached.
                None if lost.iter().any(|above| path.starts_with(&format!("{above}/"))) => {}
                None => lost.push(path),
            }
        }
        // All names of a damaged inode show its damage.
        let inodes: std::collections::BTreeSet<u64> = lost.iter().map(|path| wanted[*path].ino).collect();
        assert!(inodes.len() <= 1, "seed {seed}: one flipped bit cost {lost:?}");
        assert!(found.keys().all(|path| wanted.contains_key(path)), "seed {seed}: something new is shown");
        let volume = session.volume();
        volume.count_usage().expect("count");
        for _ in 0..5 {
            volume.reclaim().unwrap_or_else(|error| panic!("seed {seed}: reclaim: {error:?}"));
        }
        let kept = session.both().0;
        for (path, want) in &wanted {
            let (before, after) = (found.get(path), kept.get(path));
            // What the storage has as well may have been let go, to be fetched again.
            assert!(after == before || after == Some(want), "seed {seed}: housekeeping changed {path}");
        }
        let maker = Maker { uid: 0, gid: 0 };
        volume.create(ROOT, b"another", NewKind::File, 0o644, maker).expect("the rest stays usable");
    }
}

/// A store whose journal was synced and not applied, as a kill leaves it, and what is in its files.
fn killed_store(dir: &Path) -> BTreeMap<u64, (String, Vec<u8>)> {
    let volume = open(dir, Arc::new(StepClock::default()), u64::MAX).expect("a new store");
    let mut files = BTreeMap::new();
    for number in 0..12_u8 {
        let (name, bytes) = (format!("f{number}"), vec![number | 0x80; usize::from(number) * 700 + 1]);
        files.insert(put(&volume, &name, &bytes).expect("room"), (name, bytes));
        volume.store().sync().expect("sync");
    }
    files
}

/// The only segment that something was written to.
fn segment(dir: &Path) -> PathBuf {
    let paths = std::fs::read_dir(dir.join("segments")).expect("segments").map(|entry| entry.expect("entry").path());
    paths.max_by_key(|path| std::fs::metadata(path).expect("its length").len()).expect("a segment")
}

/// Where frames begin.
fn heads(bytes: &[u8]) -> Vec<usize> {
    bytes.windows(4).enumerate().filter(|(_, bytes)| bytes == b"pfsF").map(|(at, _)| at).collect()
}

#[test]
fn a_flipped_bit_in_the_journal_costs_no_change_and_at_most_one_file() {
    let world = TempDir::new().expect("a temporary directory");
    let first = world.path().join("first");
    let files = killed_store(&first);
    let length = std::fs::read(segment(&first)).expect("read").len();
    let mut rng = StdRng::seed_from_u64(1);
    for round in 0..150 {
        let dir = world.path().join(round.to_string());
        copy_store(&first, &dir);
        let path = segment(&dir);
        let mut bytes = std::fs::read(&path).expect("read");
        // All of the header, then anywhere.
        let at = if round < 32 { round * 4 } else { rng.random_range(0..length) };
        bytes[at] ^= 1 << rng.random_range(0..8);
        std::fs::write(&path, bytes).expect("write");
        let volume = open(&dir, Arc::new(StepClock::default()), u64::MAX).expect("it opens");
        let recovery = volume.store().recovery();
        assert!(!recovery.torn, "byte {at}: nothing was torn");
        let mut damaged = 0;
        for (ino, (_, bytes)) in &files {
            match read(&volume, &Blocks::default(), *ino, 0, 1 << 20) {
                Ok(got) => assert!(got == *bytes, "byte {at}: wrong bytes"),
                Err(ErrorKind::Corrupt) => damaged += 1,
                Err(kind) => panic!("byte {at}: {kind:?}"),
            }
        }
        assert!(damaged <= 1, "byte {at}: {damaged} files");
        assert!(damaged == 0 || recovery.damaged == 1, "byte {at}: it was met");
        assert_eq!(recovery.lost, 0, "byte {at}");
        let said = volume.check().expect("check");
        assert_eq!(said.len(), damaged, "byte {at}: the doctor says so: {said:?}");
        std::fs::remove_dir_all(&dir).expect("remove");
    }
}

#[test]
fn changes_that_damage_takes_are_told_and_later_ones_stay() {
    let world = TempDir::new().expect("a temporary directory");
    let dir = world.path().join("store");
    let files = killed_store(&dir);
    let path = segment(&dir);
    let mut bytes = std::fs::read(&path).expect("read");
    // After each data frame come both copies of its rows; the fifth file's are spoiled.
    let heads = heads(&bytes);
    let data: Vec<usize> = heads.iter().copied().filter(|at| bytes[*at + 8].is_multiple_of(3)).collect();
    let spoiled = heads.iter().position(|at| *at == data[5]).expect("a head");
    for at in [heads[spoiled + 1], heads[spoiled + 2]] {
        bytes[at + 150] ^= 1;
    }
    std::fs::write(&path, bytes).expect("write");
    let open = || open(&dir, Arc::new(StepClock::default()), u64::MAX).expect("it opens");
    let volume = open();
    let recovery = volume.store().recovery();
    assert_eq!((recovery.torn, recovery.damaged, recovery.lost), (false, 2, 1));
    let lost: Vec<u64> = files.keys().copied().filter(|ino| volume.attributes(*ino).is_err()).collect();
    assert_eq!(lost.len(), 1, "only what was in those rows");
    drop(volume);
    let volume = open();
    assert_eq!(volume.store().recovery().lost, 1, "also later");
    assert!(!volume.check().expect("check").is_empty(), "the doctor says so");
}

#[test]
fn a_segment_whose_header_is_gone_is_told_and_kept() {
    let world = TempDir::new().expect("a temporary directory");
    let dir = world.path().join("store");
    killed_store(&dir);
    let path = segment(&dir);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[20] ^= 1;
    bytes[84] ^= 1;
    std::fs::write(&path, bytes).expect("write");
    let volume = open(&dir, Arc::new(StepClock::default()), u64::MAX).expect("it opens");
    assert!(volume.store().recovery().lost > 0);
    volume.count_usage().expect("count");
    volume.reclaim().expect("reclaim");
    assert!(!volume.check().expect("check").is_empty(), "the doctor says so");
    assert!(path.exists(), "nothing is thrown away");
}

/// Flips bits all over a file of the index, in copies of a store, and says how often it could be opened.
fn flip_in_index(first: &Path, name: &str, files: &BTreeMap<u64, (String, Vec<u8>)>, world: &Path) -> (usize, usize) {
    let length = std::fs::metadata(first.join(name)).expect("its length").len();
    let mut rng = StdRng::seed_from_u64(length);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..200 {
        let dir = world.join(format!("{name}-{round}"));
        copy_store(first, &dir);
        let segments = std::fs::read_dir(dir.join("segments")).expect("segments").count();
        let mut bytes = std::fs::read(dir.join(name)).expect("read");
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
        std::fs::write(dir.join(name), bytes).expect("write");
        match open(&dir, Arc::new(StepClock::default()), u64::MAX) {
            Ok(volume) => {
                opened += 1;
                let mut unreadable = 0;
                for (ino, (_, bytes)) in files {
                    match read(&volume, &Blocks::default(), *ino, 0, 1 << 20) {
                        Ok(got) => assert!(got == *bytes, "byte {at} of {name}: wrong bytes"),
                        Err(ErrorKind::Corrupt) => unreadable += 1,
                        Err(kind) => panic!("byte {at} of {name}: {kind:?}"),
                    }
                }
                assert!(unreadable <= 1, "byte {at} of {name}: {unreadable} files");
                let said = volume.check().expect("check").len();
                assert!(said >= unreadable, "byte {at} of {name}: the doctor says so");
            }
            Err(error) => {
                refused += 1;
                let kinds = [ErrorKind::Corrupt, ErrorKind::UnsupportedVersion, ErrorKind::ReadOnly];
                assert!(kinds.contains(&error.kind()), "byte {at} of {name}: {error:?}");
            }
        }
        let left = std::fs::read_dir(dir.join("segments")).expect("segments").count();
        assert!(left >= segments, "byte {at} of {name}: nothing is thrown away");
        std::fs::remove_dir_all(&dir).expect("remove");
    }
    (opened, refused)
}

#[test]
fn a_flipped_bit_in_the_index_is_told_and_never_shows_wrong_bytes() {
    let world = TempDir::new().expect("a temporary directory");
    let (killed, closed) = (world.path().join("killed"), world.path().join("closed"));
    let files = killed_store(&killed);
    copy_store(&killed, &closed);
    let volume = open(&closed, Arc::new(StepClock::default()), u64::MAX).expect("it opens");
    // A store that another one copies while it is open has what was applied in the write-ahead file.
    let applied = world.path().join("applied");
    copy_store(&closed, &applied);
    volume.store().close().expect("close");
    drop(volume);
    for (first, name) in [(&closed, "index.sqlite"), (&applied, "index.sqlite-wal")] {
        let (opened, refused) = flip_in_index(first, name, &files, world.path());
        println!("{name}: opened {opened}, refused {refused}");
        assert!(opened > refused, "most of it is sealed rows: {opened} {refused}");
    }
}

#[test]
fn a_store_without_its_index_is_refused_and_keeps_what_it_has() {
    let world = TempDir::new().expect("a temporary directory");
    let dir = world.path().join("store");
    killed_store(&dir);
    for name in INDEX {
        // The write-ahead part may not be there.
        let _ = std::fs::remove_file(dir.join(name));
    }
    let path = segment(&dir);
    for _ in 0..2 {
        let outcome = open(&dir, Arc::new(StepClock::default()), u64::MAX);
        assert_eq!(outcome.map(drop).map_err(|error| error.kind()), Err(ErrorKind::Corrupt));
    }
    assert!(path.exists(), "nothing is thrown away");
}

/// A file system of a few megabytes; unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(mebibytes: u32) -> Option<Self> {
        let dir = TempDir::new().expect("a temporary directory");
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        if mounted.is_ok_and(|said| said.status.success()) {
            return Some(Self(dir));
        }
        eprintln!("SKIP: a small file system cannot be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "a mount was left behind");
    }
}

fn put(volume: &Volume, name: &str, bytes: &[u8]) -> Result<u64, ErrorKind> {
    let maker = Maker { uid: 0, gid: 0 };
    let made = volume.create(ROOT, name.as_bytes(), NewKind::File, 0o644, maker).map_err(|error| error.kind())?;
    match volume.write(made.ino, 0, bytes, &Fetched::new(), Times::Now).map_err(|error| error.kind())? {
        WriteOutcome::Done => Ok(made.ino),
        WriteOutcome::Missing(_) => panic!("nothing is on a storage"),
    }
}

/// Writes files until there is no room; those that were synced.
fn fill(volume: &Volume, prefix: &str, files: &mut BTreeMap<u64, (String, Vec<u8>)>) {
    for number in 0..10_000_usize {
        let (name, bytes) =
            (format!("{prefix}{number}"), vec![number.to_le_bytes()[0] | 1; 10_000 + number * 997 % 90_000]);
        match put(volume, &name, &bytes) {
            Ok(ino) => {
                volume.store().sync().expect("what was taken fits");
                files.insert(ino, (name, bytes));
            }
            Err(ErrorKind::NoSpace) => return,
            Err(kind) => panic!("{kind:?}"),
        }
    }
    panic!("the disk is never full");
}

fn assert_readable(volume: &Volume, files: &BTreeMap<u64, (String, Vec<u8>)>) {
    for (ino, (name, bytes)) in files {
        let got = read(volume, &Blocks::default(), *ino, 0, 1 << 20);
        assert!(got.as_ref() == Ok(bytes), "{name} was synced: {:?}", got.map(|bytes| bytes.len()));
    }
}

#[test]
fn a_full_disk_keeps_what_was_synced_and_recovers_when_files_go() {
    let Some(disk) = SmallDisk::new(24) else { return };
    let dir = disk.0.path().join("store");
    let volume = open(&dir, Arc::new(StepClock::default()), u64::MAX).expect("a new store");
    volume.count_usage().expect("count");
    let mut files = BTreeMap::new();
    for round in 0..4 {
        fill(&volume, &format!("{round}-"), &mut files);
        assert_readable(&volume, &files);
        // Every third stays, so that nothing is all unused.
        let gone: Vec<u64> = files.keys().copied().filter(|ino| ino % 3 != 0).collect();
        assert!(gone.len() > 20, "round {round}: there is room again for {} files", gone.len());
        for ino in gone {
            let (name, _) = files.remove(&ino).expect("it is there");
            volume.unlink(ROOT, name.as_bytes()).expect("removing needs no room");
            volume.forget(ino, 1);
        }
        for _ in 0..40 {
            volume.reclaim().expect("reclaim");
        }
        assert_readable(&volume, &files);
    }
    fill(&volume, "last-", &mut files);
    volume.store().close().expect("close");
    drop(volume);
    let volume = open(&dir, Arc::new(StepClock::default()), u64::MAX).expect("a full disk opens");
    assert_readable(&volume, &files);
}
