//! What must not grow: the time of one operation in a small and in a large workspace, folder and file.
//!
//! A *subject* is a folder and names in it to work on. The small and the large one of a comparison take turns, batch
//! by batch, and the median over all batches counts: what else runs on the machine hits both. In a round both work on ten
//! names again and again, so that they differ in size and not in what is in memory; `StatAny` takes other names each
//! time. Timed is what reaches the filesystem: before names are looked up the kernel forgets them, and a write counts
//! until `fdatasync` returns.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rustix::fs::{AtFlags, statat};

/// Operations timed together.
const BATCH: usize = 10;
/// Batches of each operation in one round.
const BATCHES: usize = 20;
/// Files in one folder of a workspace.
const FILES_IN_FOLDER: usize = 1_000;
/// Bytes of one write,
const PAGE: u64 = 4096;
/// and what it writes.
const BYTES: [u8; 4096] = [7; 4096];
/// Places with data in the middle of a sparse file.
const ISLANDS: usize = 1_000;

/// Makes `files` files of 100 bytes below `dir`, 1,000 in a folder, or all in `dir` itself.
///
/// # Errors
/// As the filesystem.
pub fn fill(dir: &Path, files: usize, flat: bool) -> Result<()> {
    for number in 0..files {
        let folder = if flat { dir.to_path_buf() } else { folder_of(dir, number / FILES_IN_FOLDER) };
        if flat && number == 0 || !flat && number % FILES_IN_FOLDER == 0 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(name(number)), [7; 100])?;
    }
    Ok(())
}

/// Makes a file of this length with data at its ends and, when it is long, at places in the middle.
///
/// # Errors
/// As the filesystem.
pub fn sparse(path: &Path, bytes: u64) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(bytes)?;
    places(bytes).iter().try_for_each(|place| file.write_all_at(&BYTES, *place))?;
    Ok(file.sync_all()?)
}

/// Where such a file has data: always the same places.
fn places(bytes: u64) -> Vec<u64> {
    let (pages, mut random) = (bytes / PAGE, StdRng::seed_from_u64(3));
    let ends = (0..64.min(pages)).flat_map(|page| [page, pages - 1 - page]);
    ends.chain((0..ISLANDS).map(|_| random.random_range(0..pages))).map(|page| page * PAGE).collect()
}

fn folder_of(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("d{number:04}"))
}

fn name(number: usize) -> String {
    format!("f{number:07}")
}

/// Where operations are timed.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A workspace that [`fill`] filled with so many files.
    Workspace(PathBuf, usize),
    /// A folder that [`fill`] filled with so many files.
    Folder(PathBuf, usize),
    /// A file that [`sparse`] made.
    File(PathBuf),
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Looks a name up that the kernel does not know.
    Stat,
    /// The same for names that nobody asked for lately, where there are so many.
    StatAny,
    /// Makes an empty file.
    Create,
    /// Gives a file another name in its folder.
    Rename,
    /// Writes 4 KiB somewhere and syncs them.
    Write,
}

impl Operation {
    /// All that can be timed in a subject.
    #[must_use]
    pub fn of(subject: &Subject) -> &'static [Self] {
        match subject {
            Subject::File(_) => &[Self::Stat, Self::Rename, Self::Write],
            _ => &[Self::Stat, Self::StatAny, Self::Create, Self::Rename, Self::Write],
        }
    }
}

/// Microseconds of one operation in each batch of a round, in turns.
///
/// # Errors
/// As the filesystem.
pub fn round(pair: [&Subject; 2], operation: Operation, random: &mut StdRng) -> Result<[Vec<f64>; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    let places = [Place::of(pair[0], random)?, Place::of(pair[1], random)?];
    for batch in 0..=BATCHES {
        for side in [batch % 2, 1 - batch % 2] {
            let time = places[side].time(operation, batch, random)?;
            if batch > 0 {
                times[side].push(time); // The first brings into memory what the others work on.
            }
        }
    }
    Ok(times)
}

/// A folder and names in it.
struct Place {
    dir: PathBuf,
    names: Vec<String>,
    /// Those that are worked on.
    picked: Vec<String>,
    /// Where a write may go.
    offsets: Vec<u64>,
}

impl Place {
    fn of(subject: &Subject, random: &mut StdRng) -> Result<Self> {
        let (dir, names, offsets) = match subject {
            Subject::Workspace(dir, files) => {
                let folder = random.random_range(0..files.div_ceil(FILES_IN_FOLDER));
                let first = folder * FILES_IN_FOLDER;
                let names = (first..*files.min(&(first + FILES_IN_FOLDER))).map(name).collect();
                (folder_of(dir, folder), names, vec![0])
            }
            Subject::Folder(dir, files) => (dir.clone(), (0..*files).map(name).collect::<Vec<_>>(), vec![0]),
            Subject::File(path) => {
                let name = path.file_name().and_then(|name| name.to_str()).context("a file has a name")?;
                let dir = path.parent().context("a file lies in a folder")?;
                (dir.to_path_buf(), vec![name.to_owned()], places(fs::metadata(path)?.len()))
            }
        };
        let picked = names.choose_multiple(random, BATCH).cloned().collect();
        Ok(Self { dir, names, picked, offsets })
    }

    fn time(&self, operation: Operation, batch: usize, random: &mut StdRng) -> Result<f64> {
        let picked: Vec<&String> = match operation {
            _ if self.names.len() == 1 => vec![&self.names[0]; BATCH],
            Operation::StatAny => self.names.choose_multiple(random, BATCH).collect(),
            _ => self.picked.iter().collect(),
        };
        let paths: Vec<PathBuf> = picked.iter().map(|name| self.dir.join(name)).collect();
        match operation {
            Operation::Stat if self.names.len() == 1 => {
                let folder = File::open(&self.dir)?;
                let times: Result<Vec<f64>> = (0..BATCH).map(|_| forgotten(|| stat(&folder, &picked[..1]))).collect();
                Ok(times?.iter().sum::<f64>())
            }
            Operation::Stat | Operation::StatAny => {
                let folder = File::open(&self.dir)?;
                forgotten(|| stat(&folder, &picked))
            }
            Operation::Create => {
                let new: Vec<PathBuf> = (0..BATCH).map(|n| self.dir.join(format!("new{batch}-{n}"))).collect();
                let time = timed(|| Ok(new.iter().try_for_each(|path| File::create_new(path).map(drop))?))?;
                new.iter().try_for_each(fs::remove_file)?;
                Ok(time)
            }
            Operation::Rename if self.names.len() == 1 => {
                let (here, there) = (&paths[0], self.dir.join("renamed"));
                timed(|| {
                    for _ in 0..BATCH / 2 {
                        fs::rename(here, &there)?;
                        fs::rename(&there, here)?;
                    }
                    Ok(())
                })
            }
            Operation::Rename => {
                let there: Vec<PathBuf> = paths.iter().map(|path| path.with_extension("renamed")).collect();
                let time = timed(|| Ok(paths.iter().zip(&there).try_for_each(|(a, b)| fs::rename(a, b))?))?;
                there.iter().zip(&paths).try_for_each(|(a, b)| fs::rename(a, b))?;
                Ok(time)
            }
            Operation::Write => {
                let open = |path: &PathBuf| OpenOptions::new().write(true).open(path);
                let files = paths.iter().map(open).collect::<std::io::Result<Vec<_>>>()?;
                let offsets: Vec<u64> = files.iter().filter_map(|_| self.offsets.choose(random).copied()).collect();
                timed(|| {
                    for (file, offset) in files.iter().zip(offsets) {
                        file.write_all_at(&BYTES, offset)?;
                        file.sync_data()?;
                    }
                    Ok(())
                })
            }
        }
    }
}

fn stat(folder: &File, names: &[&String]) -> Result<()> {
    Ok(names.iter().try_for_each(|name| statat(folder, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).map(drop))?)
}

/// Times work of which the kernel knows no name any more. Needs root.
fn forgotten(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    fs::write("/proc/sys/vm/drop_caches", "2").context("let the kernel forget names")?;
    timed(work)
}

/// Microseconds of one operation of a batch.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e6 / BATCH as f64)
}
