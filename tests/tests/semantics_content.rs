//! What docs/SEMANTICS.md says of content, on a mount: removed files, appending, direct and mapped access, holes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
};

use parsecfs_tests::mounted::{mounted, sh};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use rustix::{
    fs::{FallocateFlags, SeekFrom as At, fallocate, seek},
    io::Errno,
};

fn open(path: &std::path::Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// [S19]
#[test]
fn a_file_that_is_removed_while_open_goes_on_without_a_name() {
    let Some(mount) = mounted() else { return };
    let at = |name: &str| mount.path().join(name);
    let mut removed = open(&at("removed"));
    removed.write_all(&[1; 10_000]).unwrap();
    let mut replaced = open(&at("replaced"));
    replaced.write_all(&[2; 10_000]).unwrap();
    fs::write(at("new"), "new").unwrap();
    fs::remove_file(at("removed")).unwrap();
    fs::rename(at("new"), at("replaced")).unwrap();
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1, "no name is left, of no kind");
    for (mut file, byte) in [(removed, 1), (replaced, 2)] {
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.write_at(&[9], 9_999).unwrap();
        file.set_len(20_000).unwrap();
        file.sync_all().unwrap();
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert!(bytes[..9_999] == vec![byte; 9_999] && bytes[9_999] == 9 && bytes[10_000..] == vec![0; 10_000]);
    }
    let folder = at("folder");
    fs::create_dir(&folder).unwrap();
    let inside = File::open(&folder).unwrap();
    fs::remove_dir(&folder).unwrap();
    let made = rustix::fs::mkdirat(&inside, "x", rustix::fs::Mode::RWXU);
    assert_eq!((made, inside.metadata().unwrap().nlink()), (Err(Errno::NOENT), 0));
    assert_eq!(fs::read(at("replaced")).unwrap(), b"new");
}

/// [S30]
#[test]
fn records_that_several_processes_append_are_whole_and_all_there() {
    let Some(mount) = mounted() else { return };
    let script = "one() { i=0; while [ $i -lt 500 ]; do echo \"$1:$i:..........\" >>log; i=$((i+1)); done; }
                  one a & one b & one c & wait; sort -u log | wc -l; grep -cvE '^[abc]:[0-9]+:[.]{10}$' log || true; wc -l <log";
    let counts: Vec<String> = sh(&mount.path(), script, &[]).split_whitespace().map(str::to_owned).collect();
    assert_eq!(counts, ["1500", "0", "1500"]);
}

/// [S31]
#[test]
fn opening_with_truncation_empties_a_file_for_everybody() {
    let Some(mount) = mounted() else { return };
    let path = mount.path().join("file");
    fs::write(&path, vec![1; 100_000]).unwrap();
    let mut reader = File::open(&path).unwrap();
    let mut writer = File::create(&path).unwrap();
    assert_eq!(reader.metadata().unwrap().len(), 0);
    writer.write_all(b"ab").unwrap();
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"ab");
}

/// [S32]
#[test]
fn direct_and_cached_access_see_each_other() {
    let Some(mount) = mounted() else { return };
    let path = mount.path().join("file");
    let cached = open(&path);
    let mut options = OpenOptions::new();
    let direct = options.read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    cached.write_at(&[1; 8192], 0).unwrap();
    let mut bytes = vec![0; 8192];
    assert_eq!(direct.read_at(&mut bytes, 0).unwrap(), 8192);
    assert!(bytes == [1; 8192]);
    direct.write_at(&[2; 5], 4090).unwrap();
    cached.read_at(&mut bytes, 0).unwrap();
    assert!(bytes[4089] == 1 && bytes[4090..4095] == [2; 5] && bytes[4095] == 1);
    direct.write_at(&[3; 4096], 8192).unwrap();
    assert_eq!((cached.metadata().unwrap().len(), direct.read_at(&mut bytes, 12_000).unwrap()), (12_288, 288));
}

/// [S23]
#[test]
fn processes_that_map_a_file_share_its_bytes() {
    let Some(mount) = mounted() else { return };
    let script = "python3 - <<'END'
import mmap, os
f = open('map', 'w+b')
f.truncate(12288)
m = mmap.mmap(f.fileno(), 12288)
pid = os.fork()
if pid == 0:
    g = open('map', 'r+b')
    n = mmap.mmap(g.fileno(), 12288)
    n[5000] = 7
    os._exit(0)
os.waitpid(pid, 0)
assert m[5000] == 7
g = open('map', 'r+b')
g.seek(9000); g.write(b'Z'); g.flush()
assert m[9000] == ord('Z')
os.unlink('map')
m[1] = 5
m.flush()
g.seek(0)
assert g.read(2) == bytes([0, 5])
END";
    sh(&mount.path(), script, &[]);
}

/// A file in memory, as `fallocate` changes it.
struct Model {
    bytes: Vec<u8>,
}

impl Model {
    fn write(&mut self, offset: usize, data: &[u8]) {
        self.bytes.resize(self.bytes.len().max(offset + data.len()), 0);
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
    }

    fn zero(&mut self, offset: usize, length: usize, keep_size: bool) {
        if !keep_size {
            self.bytes.resize(self.bytes.len().max(offset + length), 0);
        }
        let size = self.bytes.len();
        self.bytes[offset.min(size)..(offset + length).min(size)].fill(0);
    }
}

/// [S24]
#[test]
fn allocation_keeps_bytes_zeros_and_lengths_as_its_modes_say() {
    const BYTES_MAX: usize = 1 << 20;
    let Some(mount) = mounted() else { return };
    let path = mount.path().join("file");
    let (file, mut model) = (open(&path), Model { bytes: Vec::new() });
    let mut random = StdRng::seed_from_u64(24);
    for step in 0..600 {
        let offset = random.random_range(0..BYTES_MAX / 2);
        let length = random.random_range(1..if step % 3 == 0 { 9000 } else { BYTES_MAX / 2 });
        let (at, long) = (offset as u64, length as u64);
        let keep_size = random.random_bool(0.5);
        let keep = if keep_size { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        match random.random_range(0..6) {
            0 => {
                let mut data = vec![0; length];
                random.fill_bytes(&mut data);
                file.write_all_at(&data, at).unwrap();
                model.write(offset, &data);
            }
            1 => {
                fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, long).unwrap();
                model.zero(offset, length, true);
            }
            2 => {
                fallocate(&file, FallocateFlags::ZERO_RANGE | keep, at, long).unwrap();
                model.zero(offset, length, keep_size);
            }
            3 => {
                fallocate(&file, keep, at, long).unwrap();
                let size = model.bytes.len();
                model.bytes.resize(if keep_size { size } else { size.max(offset + length) }, 0);
            }
            4 => {
                file.set_len(at).unwrap();
                model.bytes.resize(offset, 0);
            }
            _ => file.sync_data().unwrap(),
        }
        assert_eq!(file.metadata().unwrap().len(), model.bytes.len() as u64, "step {step}");
        if step % 20 == 0 {
            assert!(fs::read(&path).unwrap() == model.bytes, "step {step}");
        }
    }
    for other in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(fallocate(&file, other, 0, 4096), Err(Errno::OPNOTSUPP));
    }
    drop(file);
    mount.remount();
    assert!(fs::read(&path).unwrap() == model.bytes);
}

/// [S25]
#[test]
fn holes_are_found_and_never_where_somebody_just_wrote() {
    const MIB: u64 = 1 << 20;
    const BLOCK: u64 = 512 << 10;
    let Some(mount) = mounted() else { return };
    let path = mount.path().join("sparse");
    let file = open(&path);
    file.set_len(100 * MIB).unwrap();
    file.write_all_at(&[1; 5000], 5 * MIB).unwrap();
    file.write_all_at(&[2; 100], 70 * MIB).unwrap();
    let look = |file: &File, holes: [u64; 2]| {
        let data = |from| seek(file, At::Data(from));
        let hole = |from| seek(file, At::Hole(from));
        assert_eq!((data(0), hole(0)), (Ok(5 * MIB), Ok(0)));
        assert_eq!((data(5 * MIB + 10), hole(5 * MIB)), (Ok(5 * MIB + 10), Ok(5 * MIB + holes[0])));
        assert_eq!((data(6 * MIB), hole(70 * MIB)), (Ok(70 * MIB), Ok(70 * MIB + holes[1])));
        assert_eq!((data(71 * MIB), hole(100 * MIB - 1)), (Err(Errno::NXIO), Ok(100 * MIB - 1)));
        assert_eq!((data(100 * MIB), hole(100 * MIB)), (Err(Errno::NXIO), Err(Errno::NXIO)));
    };
    look(&file, [8192, 4096]);
    // Longer than what was handed over so far: the end is where the program has it.
    let fresh = open(&mount.path().join("fresh"));
    fresh.write_all_at(&[3; 50_000], 0).unwrap();
    assert_eq!((seek(&fresh, At::Data(49_000)), seek(&fresh, At::Hole(0))), (Ok(49_000), Ok(50_000)));
    fresh.write_all_at(&[3; 50_000], 50_000).unwrap();
    assert_eq!((seek(&fresh, At::Hole(0)), seek(&fresh, At::Data(99_999))), (Ok(100_000), Ok(99_999)));
    // The same for who writes through a map.
    let script = "python3 -c 'import os, mmap
f = open(\"mapped\", \"w+b\"); f.truncate(1 << 20); m = mmap.mmap(f.fileno(), 1 << 20); m[600000] = 1
print(os.lseek(f.fileno(), 0, os.SEEK_DATA), os.lseek(f.fileno(), 600000, os.SEEK_HOLE))'";
    assert_eq!(sh(&mount.path(), script, &[]), "598016 602112\n");
    drop((file, fresh));
    mount.remount();
    look(&File::open(&path).unwrap(), [BLOCK; 2]);
    sh(&mount.path(), "cp --sparse=always sparse copy; cmp sparse copy", &[]);
}

/// [S26]
#[test]
fn a_sparse_file_has_up_to_16_tib() {
    const BYTES_MAX: u64 = 16 << 40;
    const BLOCK: u64 = 512 << 10;
    let Some(mount) = mounted() else { return };
    let path = mount.path().join("sparse");
    let file = open(&path);
    file.write_all_at(b"first", 0).unwrap();
    file.write_all_at(b"last", BYTES_MAX - 4).unwrap();
    assert_eq!(file.set_len(BYTES_MAX + 1).unwrap_err().raw_os_error(), Some(libc::EFBIG));
    file.sync_all().unwrap();
    drop(file);
    mount.remount();
    let file = open(&path);
    assert_eq!(file.metadata().unwrap().len(), BYTES_MAX);
    assert_eq!(seek(&file, At::Data(BLOCK)), Ok(BYTES_MAX - BLOCK));
    let mut bytes = [1; 4];
    file.read_exact_at(&mut bytes, BYTES_MAX / 2).unwrap();
    assert_eq!(bytes, [0; 4]);
    file.read_exact_at(&mut bytes, BYTES_MAX - 4).unwrap();
    assert_eq!(&bytes, b"last");
    file.set_len(5).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first");
}

/// [S43]
#[test]
fn stat_tells_what_a_file_takes_without_its_holes() {
    const MIB: u64 = 1 << 20;
    let Some(mount) = mounted() else { return };
    let path = mount.path().join("file");
    // Closed, so that the kernel has written it back and asks.
    let change = |change: &dyn Fn(&File)| change(&open(&path));
    let kib = || fs::metadata(&path).unwrap().blocks() / 2;
    change(&|file| file.write_all_at(&[1; 1 << 20], 10 * MIB).unwrap());
    assert_eq!((kib(), fs::metadata(&path).unwrap().len()), (1024, 11 * MIB));
    change(&|file| file.write_all_at(&[1], 5).unwrap());
    assert_eq!(kib(), 1028);
    change(&|file| file.write_all_at(&[2; 8192], 10 * MIB + 100).unwrap());
    assert_eq!(kib(), 1028, "written over");
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    change(&|file| fallocate(file, punch, 10 * MIB + 2048, 10_240).unwrap());
    assert_eq!(kib(), 1020, "whole pages only");
    change(&|file| fallocate(file, FallocateFlags::ZERO_RANGE, 10 * MIB + 512 * 1024, MIB).unwrap());
    assert_eq!((kib(), fs::metadata(&path).unwrap().len()), (508, 11 * MIB + 512 * 1024));
    for flags in [FallocateFlags::empty(), FallocateFlags::KEEP_SIZE] {
        change(&|file| fallocate(file, flags, 0, 20 * MIB).unwrap());
        assert_eq!(kib(), 508, "no space is set aside");
    }
    change(&|file| file.set_len(10 * MIB + 64 * 1024).unwrap());
    assert_eq!(kib(), 60);
    change(&|file| file.set_len(16 << 40).unwrap());
    assert_eq!(kib(), 60, "longer is no more");
    let du = |what: &str| sh(&mount.path(), &format!("du -k {what} | cut -f1"), &[]).trim().parse::<u64>().unwrap();
    assert_eq!((du("file"), du("--apparent-size file")), (60, 16 << 30));
    mount.remount();
    // Synced: two blocks hold data.
    assert_eq!((kib(), du("file")), (1024, 1024));
    change(&|file| file.set_len(0).unwrap());
    assert_eq!(kib(), 0);
}
