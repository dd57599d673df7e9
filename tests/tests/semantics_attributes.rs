//! What docs/SEMANTICS.md says of attributes, on a mount: extended ones, times, and the room that is left.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use parsecfs_tests::mounted::{mounted, mounted_with, sh};
use rustix::{
    fs::{
        AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags, getxattr, listxattr, removexattr,
        setxattr,
    },
    io::Errno,
};

/// [S15]
#[test]
fn user_attributes_are_kept_as_their_flags_say_and_up_to_their_limits() {
    const VALUE_BYTES_MAX: usize = 64 << 10;
    let Some(mount) = mounted() else { return };
    let (file, folder) = (mount.path().join("file"), mount.path().join("folder"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&folder).unwrap();
    let set = |name: &str, value: &[u8], flags| setxattr(&file, name, value, flags);
    assert_eq!(set("user.a", b"1", XattrFlags::REPLACE), Err(Errno::NODATA));
    set("user.a", b"1", XattrFlags::CREATE).unwrap();
    assert_eq!(set("user.a", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
    set("user.a", b"2", XattrFlags::REPLACE).unwrap();
    let longest = format!("user.{}", "n".repeat(250));
    set(&longest, b"", XattrFlags::empty()).unwrap();
    set("user.large", &vec![7; VALUE_BYTES_MAX], XattrFlags::empty()).unwrap();
    assert_eq!(set("user.larger", &vec![7; VALUE_BYTES_MAX + 1], XattrFlags::empty()), Err(Errno::TOOBIG));
    assert_eq!(set("user.much", &vec![7; VALUE_BYTES_MAX], XattrFlags::empty()), Err(Errno::NOSPC), "128 KiB in all");
    assert_eq!(set("user.", b"", XattrFlags::empty()), Err(Errno::INVAL));
    for other in ["trusted.a", "security.a"] {
        assert_eq!(set(other, b"1", XattrFlags::empty()), Err(Errno::OPNOTSUPP));
        assert_eq!(removexattr(&file, other), Err(Errno::OPNOTSUPP));
    }
    assert_eq!(getxattr(&file, "user.large", &mut [0; 100]), Err(Errno::RANGE));
    assert_eq!(getxattr(&file, "user.none", &mut [0; 100]), Err(Errno::NODATA));
    assert_eq!(removexattr(&file, "user.none"), Err(Errno::NODATA));
    setxattr(&folder, "user.b", b"3", XattrFlags::empty()).unwrap();
    mount.remount();
    let mut value = vec![0; VALUE_BYTES_MAX];
    assert_eq!(getxattr(&file, "user.a", &mut value).map(|size| value[..size].to_vec()), Ok(b"2".to_vec()));
    assert_eq!(getxattr(&file, "user.large", &mut value), Ok(VALUE_BYTES_MAX));
    assert_eq!(getxattr(&folder, "user.b", &mut value), Ok(1));
    removexattr(&file, "user.a").unwrap();
    let size = listxattr(&file, &mut value).unwrap();
    let mut listed: Vec<&[u8]> = value[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    listed.sort_unstable();
    assert_eq!(listed, [b"user.large".as_slice(), longest.as_bytes()]);
}

/// Access and modification, in nanoseconds since the epoch.
fn times(path: &Path) -> (i128, i128) {
    let meta = fs::metadata(path).unwrap();
    let ns = |seconds: i64, part: i64| i128::from(seconds) * 1_000_000_000 + i128::from(part);
    (ns(meta.atime(), meta.atime_nsec()), ns(meta.mtime(), meta.mtime_nsec()))
}

fn time(tv_sec: i64, tv_nsec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec }
}

/// [S16]
#[test]
fn times_are_set_to_the_nanosecond_each_by_itself_before_1970_and_after_2106() {
    let Some(mount) = mounted() else { return };
    let file = mount.path().join("file");
    fs::write(&file, "x").unwrap();
    let set = |last_access, last_modification| {
        rustix::fs::utimensat(CWD, &file, &Timestamps { last_access, last_modification }, AtFlags::empty()).unwrap();
        times(&file)
    };
    assert_eq!(set(time(5, 7), time(6, 9)), (5_000_000_007, 6_000_000_009));
    assert_eq!(set(time(0, UTIME_OMIT), time(11, 13)), (5_000_000_007, 11_000_000_013));
    assert_eq!(set(time(17, 19), time(0, UTIME_OMIT)), (17_000_000_019, 11_000_000_013));
    let changed = fs::metadata(&file).unwrap().ctime_nsec();
    set(time(0, UTIME_OMIT), time(0, UTIME_OMIT));
    assert_eq!(fs::metadata(&file).unwrap().ctime_nsec(), changed, "nothing was set");
    let (now, kept) = set(time(0, UTIME_NOW), time(0, UTIME_OMIT));
    assert!(now > 1_700_000_000_000_000_000 && kept == 11_000_000_013);
    for seconds in [-1, -2_000_000_000, i64::from(u32::MAX) + 1, 9_000_000_000] {
        let expected = i128::from(seconds) * 1_000_000_000 + 1;
        assert_eq!(set(time(seconds, 1), time(seconds, 1)), (expected, expected));
        mount.remount();
        assert_eq!(times(&file).1, expected);
    }
}

/// [S17]
#[test]
fn a_file_has_the_same_times_after_a_remount_however_it_was_written() {
    let Some(mount) = mounted() else { return };
    let script = "python3 - <<'END'
import mmap, os
for n in range(40):
    f = open('file-%d' % n, 'w+b')
    f.write(b'x' * 20000)
    f.flush()
    if n % 2: os.fsync(f.fileno())
    m = mmap.mmap(f.fileno(), 20000)
    m[n] = 1
    if n % 3: os.truncate('file-%d' % n, 10000 + n)
    if n % 5: m.flush()
    f.seek(100 * n)
    f.write(b'y' * n)
    f.close()
    m[n + 1] = 2
    g = os.open('other-%d' % n, os.O_CREAT | os.O_RDWR)
    for step in range(n):
        os.pwrite(g, b'z' * 5000, 3000 * step)
        if step % 3 == 0: os.posix_fallocate(g, 20000, 1000 * step + 1)
        if step % 4 == 0: os.fsync(g)
    if n % 2: os.posix_fallocate(g, 0, 400000)
    os.close(g)
    d = os.open('other-%d' % n, os.O_RDWR | os.O_DIRECT)
    if n % 3: os.writev(d, [mmap.mmap(-1, 4096)])
    os.close(d)
END
find . -type f -printf '%f %s %T@ %C@\\n' | sort";
    let before = sh(&mount.path(), script, &[]);
    mount.remount();
    assert_eq!(sh(&mount.path(), "find . -type f -printf '%f %s %T@ %C@\\n' | sort", &[]), before);
}

/// [S18]
#[test]
fn the_room_that_is_told_follows_the_cache_limit_and_what_was_written() {
    const LIMIT: u64 = 100 << 20;
    let Some(mount) = mounted_with("cache=100M") else { return };
    let room = || {
        let said = rustix::fs::statvfs(mount.path()).unwrap();
        assert!(said.f_blocks >= said.f_bfree && said.f_bfree == said.f_bavail && said.f_namemax == 255);
        (said.f_blocks * said.f_frsize, said.f_bavail * said.f_frsize)
    };
    let (total, free) = room();
    assert!(total <= LIMIT && free > LIMIT / 2, "{total} {free}");
    fs::write(mount.path().join("file"), vec![1; 20 << 20]).unwrap();
    mount.remount();
    let (total_after, free_after) = room();
    assert!(
        total_after <= LIMIT && free_after > free - (10 << 20),
        "what the storage has is free: {free} {free_after}"
    );
}
