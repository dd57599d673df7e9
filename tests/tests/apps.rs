//! Real programs on a mounted workspace. `PARSECFS_APPS_DIR` runs the same on any other folder; `PARSECFS_LARGE_MIB`
//! (default 256) is the size of the large file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufReader, BufWriter, ErrorKind, Read, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use parsecfs_crypto::sha256;
use parsecfs_tests::mounted::{Mounted, mounted, sh};
use rand::{RngCore, SeedableRng, rngs::StdRng};

/// A folder to work in and a scratch folder that is not on the mount.
struct Place {
    mount: Mounted,
    scratch: tempfile::TempDir,
}

/// `None`, after saying SKIP, where the programs are missing; CI has them all.
fn place(programs: &[&str]) -> Option<Place> {
    for program in programs {
        let there =
            Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status().unwrap().success();
        assert!(there || std::env::var_os("CI").is_none(), "{program} is missing in CI");
        if !there {
            eprintln!("SKIP: {program} is not installed");
            return None;
        }
    }
    Some(Place { mount: mounted()?, scratch: tempfile::tempdir().unwrap() })
}

/// Sources of real crates, from cargo's registry: at least three thousand files where it has that many.
fn source_tree(at: &Path) -> PathBuf {
    const FILES_MIN: usize = 3_000;
    let tree = at.join("sources");
    fs::create_dir(&tree).unwrap();
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"));
    let mut crates: Vec<PathBuf> = fs::read_dir(home.join("registry/src"))
        .unwrap()
        .flat_map(|index| fs::read_dir(index.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    crates.sort();
    let mut files = 0;
    for folder in crates {
        files += sh(&folder, "find . | wc -l", &[]).trim().parse::<usize>().unwrap();
        sh(&folder, "cp -a . \"$1\"", &[&tree.join(folder.file_name().unwrap())]);
        if files >= FILES_MIN {
            break;
        }
    }
    tree
}

#[test]
fn a_source_tree_is_copied_packed_and_unpacked_without_a_difference() {
    let Some(place) = place(&["tar", "diff"]) else { return };
    let (mount, sources) = (place.mount.path(), source_tree(place.scratch.path()));
    sh(&mount, "cp -a \"$1\" copy && diff -r --no-dereference \"$1\" copy", &[&sources]);
    place.mount.remount();
    sh(&mount, "diff -r --no-dereference \"$1\" copy", &[&sources]);
    sh(&mount, "tar -cf copy.tar copy && mkdir out && tar -xf copy.tar -C out && tar -df copy.tar -C out", &[]);
    sh(&mount, "diff -r --no-dereference copy out/copy && rm -r copy out", &[]);
    assert_eq!(sh(&mount, "ls -A", &[]).trim(), "copy.tar");
}

#[test]
fn a_second_rsync_transfers_nothing() {
    let Some(place) = place(&["rsync"]) else { return };
    let (mount, sources) = (place.mount.path(), source_tree(place.scratch.path()));
    sh(&mount, "rsync -a \"$1/\" copy", &[&sources]);
    assert_eq!(sh(&mount, "rsync -a --itemize-changes \"$1/\" copy", &[&sources]), "");
    place.mount.remount();
    assert_eq!(sh(&mount, "rsync -a --itemize-changes \"$1/\" copy", &[&sources]), "");
}

#[test]
fn hard_links_are_kept_by_the_programs_that_make_them() {
    let Some(place) = place(&["rsync", "tar", "cp", "git"]) else { return };
    let mount = place.mount.path();
    sh(
        &mount,
        "mkdir tree && cd tree && echo one > a && ln a b && mkdir d && ln a d/c && ln -s target link && ln -P link link2
         mkfifo pipe && ln pipe pipe2 && test \"$(stat -c %h a link pipe | tr '\n' ' ')\" = '3 2 2 '
         echo two >> d/c && cmp a b && chmod 600 b && test $(stat -c %a a) = 600",
        &[],
    );
    let linked = "test \"$(find . -samefile a | sort | tr '\n' ' ')\" = './a ./b ./d/c ' && test $(stat -c %h a) = 3
                  test $(stat -c %i link) = $(stat -c %i link2)";
    sh(&mount.join("tree"), linked, &[]);
    sh(
        &mount,
        "cp -al tree linked && test $(stat -c %h tree/a) = 6 && rm -r linked && test $(stat -c %h tree/a) = 3",
        &[],
    );
    sh(
        &mount,
        "cp -a tree copied && rsync -aH tree/ synced && tar -cf t.tar tree && mkdir out && tar -xf t.tar -C out",
        &[],
    );
    place.mount.remount();
    for tree in ["tree", "copied", "synced", "out/tree"] {
        sh(&mount.join(tree), linked, &[]);
    }
    for tree in ["tree", "copied", "synced"] {
        sh(&mount.join(tree), "test $(stat -c %i pipe) = $(stat -c %i pipe2)", &[]);
    }
    assert_eq!(sh(&mount, "rsync -aH --itemize-changes tree/ synced", &[]), "");
    sh(
        &mount,
        "exec 3<>tree/b && rm tree/a tree/d/c && echo end >&3 && exec 3>&- && test $(stat -c %h tree/b) = 1
         mv -T copied/b copied/a && test -e copied/b && test $(stat -c %h copied/b) = 3
         rm tree/b && test ! -e tree/b",
        &[],
    );
    sh(
        &mount,
        "git init -q origin && cd origin && git config user.email a@example.com && git config user.name A
         for i in $(seq 1 20); do seq $i $((i * 30)) > f$i; git add .; git commit -qm $i; done
         cd .. && git clone -q --local origin clone && cd clone && git gc -q && git fsck --full && git status --porcelain",
        &[],
    );
}

#[test]
fn a_file_made_without_a_name_can_be_given_one_unless_that_was_ruled_out() {
    let Some(place) = place(&[]) else { return };
    let mount = place.mount.path();
    let unnamed = |flags| {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE | flags).open(&mount)
    };
    let name = |file: &fs::File, name: &str| {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(
            rustix::fs::CWD,
            path,
            rustix::fs::CWD,
            mount.join(name),
            rustix::fs::AtFlags::SYMLINK_FOLLOW,
        )
    };
    let mut file = unnamed(0).unwrap();
    file.write_all(&[7; 100_000]).unwrap();
    assert_eq!((file.metadata().unwrap().nlink(), fs::read_dir(&mount).unwrap().count()), (0, 0));
    name(&file, "named").unwrap();
    file.write_all(b"more").unwrap();
    name(&file, "again").unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 2);
    file.sync_all().unwrap();
    drop(file);
    let exclusive = unnamed(libc::O_EXCL).unwrap();
    assert_eq!(name(&exclusive, "never"), Err(rustix::io::Errno::NOENT));
    drop((exclusive, unnamed(0).unwrap()));
    place.mount.remount();
    let mut wanted = vec![7; 100_000];
    wanted.extend(b"more");
    assert!(fs::read(mount.join("named")).unwrap() == wanted && fs::read(mount.join("again")).unwrap() == wanted);
    assert_eq!(fs::read_dir(&mount).unwrap().count(), 2);
}

#[test]
fn git_clones_collects_garbage_and_finds_nothing_wrong() {
    let Some(place) = place(&["git"]) else { return };
    let (mount, origin) = (place.mount.path(), place.scratch.path().join("origin"));
    sh(
        place.scratch.path(),
        "git init -q origin && cd origin && git config user.email a@example.com && git config user.name A
         for i in $(seq 1 60); do mkdir -p d$((i % 7)); seq 1 $((i * 20)) > d$((i % 7))/f$i; git add .; git commit -qm $i; done",
        &[],
    );
    sh(&mount, "git clone -q --no-hardlinks \"$1\" clone && cd clone && git gc -q && git fsck --full", &[&origin]);
    sh(
        &mount.join("clone"),
        "git config user.email a@example.com; git config user.name A
         git mv d1 moved && git commit -qam moved && git checkout -q HEAD~5 && git checkout -q - && test -z \"$(git status --porcelain)\"",
        &[],
    );
    place.mount.remount();
    sh(&mount.join("clone"), "git fsck --full && test -z \"$(git status --porcelain)\"", &[]);
}

#[test]
fn sqlite_keeps_its_integrity_in_both_journal_modes() {
    let Some(place) = place(&["sqlite3"]) else { return };
    for mode in ["wal", "delete"] {
        let file = place.mount.path().join(format!("{mode}.db"));
        let fill = format!(
            "echo \"PRAGMA journal_mode={mode}; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<20000) INSERT INTO t SELECT i, hex(randomblob(20)) FROM n;
             UPDATE t SET b = b || 'x' WHERE a % 3 = 0; DELETE FROM t WHERE a % 5 = 0;\" | sqlite3 \"$1\""
        );
        assert_eq!(sh(&place.mount.path(), &fill, &[&file]).trim(), mode);
        place.mount.remount();
        let check = "sqlite3 \"$1\" 'PRAGMA integrity_check; SELECT count(*) FROM t;'";
        assert_eq!(sh(&place.mount.path(), check, &[&file]), "ok\n16000\n");
    }
}

#[test]
fn cargo_builds_a_crate() {
    let Some(place) = place(&["cargo", "cc"]) else { return };
    let script = "cargo init -q --vcs none --name hello hello && cd hello && unset CARGO_TARGET_DIR RUSTFLAGS
                  cargo build -q --offline && ./target/debug/hello
                  echo 'fn main() { println!(\"again\"); }' > src/main.rs && cargo build -q --offline && ./target/debug/hello";
    assert_eq!(sh(&place.mount.path(), script, &[]), "Hello, world!\nagain\n");
}

/// [S5]
#[test]
fn a_reader_never_misses_a_file_that_an_editor_saves() {
    let Some(place) = place(&[]) else { return };
    let (file, temporary) = (place.mount.path().join("text"), place.mount.path().join(".text.tmp"));
    let version = |n: u8| vec![n; 10_000 + usize::from(n)];
    fs::write(&file, version(0)).unwrap();
    let saved = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !saved.load(Ordering::Relaxed) {
                let seen = fs::read(&file).unwrap();
                assert_eq!(seen, version(seen[0]), "one version, whole");
            }
        });
        let save = |n: u8| -> std::io::Result<()> {
            let mut out = fs::File::create(&temporary)?;
            out.write_all(&version(n))?;
            out.sync_all()?;
            fs::rename(&temporary, &file)
        };
        let all = (1..=200).try_for_each(save);
        saved.store(true, Ordering::Relaxed);
        all.unwrap();
    });
    assert_eq!(fs::read(&file).unwrap(), version(200));
}

/// [S3]
#[test]
fn a_large_file_has_the_same_hash_after_a_remount() {
    let Some(place) = place(&["sha256sum"]) else { return };
    let mib: usize = std::env::var("PARSECFS_LARGE_MIB").map_or(256, |mib| mib.parse().unwrap());
    let file = place.mount.path().join("large");
    let mut out = BufWriter::with_capacity(1 << 20, fs::File::create(&file).unwrap());
    let (mut random, mut piece) = (StdRng::seed_from_u64(1), vec![0; 1 << 20]);
    let mut pieces = Vec::new();
    for _ in 0..mib {
        random.fill_bytes(&mut piece);
        pieces.push(sha256(&piece));
        out.write_all(&piece).unwrap();
    }
    out.into_inner().unwrap().sync_all().unwrap();
    place.mount.remount();
    let mut back = BufReader::new(fs::File::open(&file).unwrap());
    for (index, expected) in pieces.iter().enumerate() {
        back.read_exact(&mut piece).unwrap();
        assert!(sha256(&piece) == *expected, "MiB {index}");
    }
    assert_eq!(back.read(&mut piece).unwrap(), 0);
}

/// [S4]
#[test]
fn what_is_written_through_a_map_is_read_back() {
    let Some(place) = place(&["python3"]) else { return };
    let script = "python3 - \"$1\" <<'END'
import mmap, sys
size = 3 * 1024 * 1024 + 17
with open(sys.argv[1], 'w+b') as f:
    f.truncate(size)
    m = mmap.mmap(f.fileno(), size)
    for i in range(0, size, 4093): m[i] = i % 251
    m.flush()
    m[size - 1] = 77
    m.flush()
    m.close()
END
cat > check.py <<'END'
import sys
data = open(sys.argv[1], 'rb').read()
size = 3 * 1024 * 1024 + 17
want = bytearray(size)
for i in range(0, size, 4093): want[i] = i % 251
want[size - 1] = 77
assert data == bytes(want)
END
python3 check.py \"$1\"";
    let file = place.mount.path().join("map");
    sh(&place.mount.path(), script, &[&file]);
    place.mount.remount();
    sh(&place.mount.path(), "python3 check.py \"$1\"", &[&file]);
}

/// [S6]
#[test]
fn ten_thousand_files_in_a_folder_are_listed_once_each() {
    let Some(place) = place(&[]) else { return };
    let folder = place.mount.path().join("many");
    fs::create_dir(&folder).unwrap();
    let mut names: Vec<String> = (0..10_000).map(|n| format!("file-{n:05}")).collect();
    for name in &names {
        fs::write(folder.join(name), name).unwrap();
    }
    let list = || {
        let mut seen: Vec<String> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        seen.sort();
        seen
    };
    assert!(list() == names, "before the remount");
    place.mount.remount();
    assert!(list() == names, "after the remount");
    assert_eq!(fs::read_to_string(folder.join("file-09999")).unwrap(), "file-09999");
    for name in names.drain(..5_000) {
        fs::remove_file(folder.join(name)).unwrap();
    }
    assert!(list() == names, "half removed");
}

/// [S1]
#[test]
fn names_have_up_to_255_bytes() {
    let Some(place) = place(&[]) else { return };
    let (longest, longer) = ("n".repeat(255), "n".repeat(256));
    fs::write(place.mount.path().join(&longest), "x").unwrap();
    let error = fs::write(place.mount.path().join(longer), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    let accented = "é".repeat(127);
    fs::create_dir(place.mount.path().join(&accented)).unwrap();
    place.mount.remount();
    assert_eq!(fs::read(place.mount.path().join(longest)).unwrap(), b"x");
    assert!(place.mount.path().join(accented).is_dir());
}

/// [S2]
#[test]
fn unicode_names_are_listed_as_they_were_given() {
    let Some(place) = place(&[]) else { return };
    let names = ["日本語.txt", "naïve café", "emoji 🦀", "Ελληνικά", "with\nnewline", "-dash", "a b  c"];
    for name in names {
        fs::write(place.mount.path().join(name), name).unwrap();
    }
    place.mount.remount();
    for name in names {
        assert_eq!(fs::read_to_string(place.mount.path().join(name)).unwrap(), name);
    }
    let mut seen: Vec<_> = fs::read_dir(place.mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let mut given = names.map(std::ffi::OsString::from);
    seen.sort();
    given.sort();
    assert_eq!(seen, given);
    assert_eq!(fs::metadata(place.mount.path().join("not there")).unwrap_err().kind(), ErrorKind::NotFound);
}

/// [S7]
#[test]
fn symlinks_modes_and_nanoseconds_survive_a_remount() {
    let Some(place) = place(&[]) else { return };
    let at = |name: &str| place.mount.path().join(name);
    let time = UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    fs::write(at("file"), "x").unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink("../some/where else", at("dangling")).unwrap();
    symlink("file", at("link")).unwrap();
    fs::set_permissions(at("file"), PermissionsExt::from_mode(0o640)).unwrap();
    fs::set_permissions(at("folder"), PermissionsExt::from_mode(0o750)).unwrap();
    fs::File::options().write(true).open(at("file")).unwrap().set_modified(time).unwrap();
    fs::File::open(at("folder")).unwrap().set_modified(time - Duration::from_nanos(1)).unwrap();
    place.mount.remount();
    assert_eq!(fs::read_link(at("dangling")).unwrap(), Path::new("../some/where else"));
    assert_eq!(fs::read(at("link")).unwrap(), b"x");
    let (file, folder) = (fs::metadata(at("file")).unwrap(), fs::metadata(at("folder")).unwrap());
    assert_eq!((file.mode() & 0o7777, file.mtime(), file.mtime_nsec()), (0o640, 1_234_567_890, 123_456_789));
    assert_eq!((folder.mode() & 0o7777, folder.mtime(), folder.mtime_nsec()), (0o750, 1_234_567_890, 123_456_788));
}

#[test]
fn nobody_executes_a_file_without_an_execute_bit() {
    let Some(Place { mount, .. }) = place(&[]) else { return };
    let work = &mount.path();
    let script = "printf '#!/bin/sh\\necho ran\\n' >tool; chmod 644 tool; test ! -x tool; ! ./tool 2>/dev/null";
    sh(work, script, &[]);
    assert_eq!(sh(work, "chmod 755 tool; test -x tool; ./tool", &[]), "ran\n");
    // A folder is entered, which root may whatever its bits say.
    sh(work, "mkdir -m 700 inner; cd inner; test -x .", &[]);
}
