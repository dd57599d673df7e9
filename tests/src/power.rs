//! A disk that records what was written and flushed, and says what a power cut leaves of it.
//!
//! As Linux does, it forgets what it was to flush when a flush fails: a later flush that succeeds brings nothing back.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use parsecfs_vfs::store::Disk;
use rand::{Rng, rngs::StdRng};

/// What a disk writes as one piece.
const PIECE: usize = 4096;

#[derive(Clone, Debug, Default)]
struct Recorded {
    durable: Vec<u8>,
    /// Written since the last flush, in order.
    waiting: Vec<(usize, Vec<u8>)>,
}

/// Records, and fails when told to.
#[derive(Debug, Default)]
pub struct RecordingDisk {
    /// By inode number, since files change their names.
    files: Mutex<HashMap<u64, Recorded>>,
    /// Flushes so far.
    pub syncs: AtomicUsize,
    /// The next flush fails.
    pub fail_sync: AtomicBool,
    /// Writes and flushes fail.
    pub broken: AtomicBool,
}

fn put(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.resize(bytes.len().max(at + piece.len()), 0);
    bytes[at..at + piece.len()].copy_from_slice(piece);
}

impl RecordingDisk {
    fn fails(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
    }

    /// Makes a local store what a power cut now leaves of one.
    ///
    /// # Panics
    ///
    /// When it cannot be read or written.
    pub fn cut_store(&self, from: &Path, to: &Path, share: f64, rng: &mut StdRng) {
        std::fs::create_dir_all(to.join("segments")).expect("a folder");
        for name in ["index.sqlite", "index.sqlite-wal"] {
            if from.join(name).exists() {
                std::fs::copy(from.join(name), to.join(name)).expect("copy");
            }
        }
        self.cut(&from.join("segments"), &to.join("segments"), share, rng);
    }

    /// Makes the files of a folder what a power cut now would leave: what was flushed, and about `share` of the rest.
    ///
    /// # Panics
    ///
    /// When the folder cannot be read or written.
    pub fn cut(&self, from: &Path, to: &Path, share: f64, rng: &mut StdRng) {
        let mut files = self.files.lock();
        for entry in std::fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            let recorded = files.get(&entry.metadata().expect("its number").ino()).cloned();
            let Some(recorded) = recorded else { continue };
            let mut bytes = recorded.durable.clone();
            // A page that was written back has all that was written to it until then.
            let mut left_behind = HashSet::new();
            for (at, written) in &recorded.waiting {
                let mut done = 0;
                while done < written.len() {
                    // Pieces begin where the file's do.
                    let length = (PIECE - (at + done) % PIECE).min(written.len() - done);
                    let page = (at + done) / PIECE;
                    if left_behind.contains(&page) || !rng.random_bool(share) {
                        left_behind.insert(page);
                    } else {
                        put(&mut bytes, at + done, &written[done..done + length]);
                    }
                    done += length;
                }
            }
            let path = to.join(entry.file_name());
            std::fs::write(&path, &bytes).expect("write");
            let number = std::fs::metadata(&path).expect("its number").ino();
            files.insert(number, Recorded { durable: bytes, waiting: Vec::new() });
        }
    }
}

impl Disk for RecordingDisk {
    fn write(&self, _: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.fails()?;
        file.write_all_at(bytes, offset)?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut files = self.files.lock();
        let recorded = files.entry(file.metadata()?.ino()).or_default();
        if offset == 0 {
            // A new file, perhaps under the number of one that is gone: no byte is ever written twice.
            *recorded = Recorded::default();
        }
        recorded.waiting.push((at, bytes.to_vec()));
        Ok(())
    }

    fn sync(&self, _: &Path, file: &File) -> io::Result<()> {
        self.fails()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let mut files = self.files.lock();
        let recorded = files.entry(file.metadata()?.ino()).or_default();
        let waiting = std::mem::take(&mut recorded.waiting);
        if self.fail_sync.swap(false, Ordering::Relaxed) {
            return Err(io::Error::other("a flush that failed"));
        }
        for (at, bytes) in waiting {
            put(&mut recorded.durable, at, &bytes);
        }
        Ok(())
    }
}
