//! The workloads: each prepares what it needs, then times one thing. *Cold* means: after the caller's remount and a
//! dropped page cache.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Result, ensure};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use serde::Serialize;

/// Bytes of one small file and of one random access.
const PAGE: usize = 4096;
/// Bytes of one sequential read or write.
const PIECE: usize = 1 << 20;
/// Files in the source tree, over this many folders.
const TREE_FILES: usize = 650;
const TREE_FOLDERS: usize = 40;

/// How large the workloads are and how caches are dropped.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Size of the large file in MiB.
    pub file_mib: usize,
    /// How many small files.
    pub files: usize,
    /// Random accesses of each kind.
    pub random_ops: usize,
    /// Shell command that unmounts and mounts again.
    pub remount: Option<String>,
    /// Names of the workloads that are wanted; none means all. Those they build on run too.
    pub wanted: Vec<String>,
    /// Leaves out what fails, with what builds on it.
    pub go_on: bool,
}

impl Plan {
    fn wants(&self, group: &[&str]) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|name| group.contains(&name.as_str()))
    }
}

const LARGE_FILE: &[&str] = &[
    "seqwrite",
    "seqrewrite",
    "seqread_cold",
    "seqread_warm",
    "randread4k_cold",
    "randwrite4k_fsync_end",
    "randwrite4k_fsync_each",
    "open_read_first_byte",
];
const SMALL_FILES: &[&str] =
    &["create4k", "stat_cold", "stat_warm", "read4k_cold", "read4k_warm", "walk_cold", "rename", "unlink"];
const TREE: &[&str] = &["tree_copy", "tree_grep_cold", "tree_grep_warm", "tree_rm"];
const SAVES: &[&str] = &["save_by_rename"];

/// One figure: how much was done in how long; more a second is better.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Name of the workload.
    pub workload: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// Units a second.
    pub rate: f64,
}

/// Every workload once, in an order in which each finds what it needs.
pub fn run(dir: &Path, plan: &Plan) -> Result<Vec<Figure>> {
    let mut run = Run { dir: dir.join("bench"), plan, figures: Vec::new() };
    let _ = fs::remove_dir_all(&run.dir); // What an earlier run left, if any.
    fs::create_dir_all(&run.dir)?;
    for group in [LARGE_FILE, SMALL_FILES, TREE, SAVES] {
        let done = match group {
            _ if !plan.wants(group) => Ok(()),
            LARGE_FILE => run.large_file(),
            SMALL_FILES => run.small_files(),
            TREE => run.tree(),
            _ => run.saves(),
        };
        match done {
            Err(error) if plan.go_on => eprintln!("what is left of {} is left out: {error:#}", group.join(", ")),
            done => done?,
        }
    }
    match fs::remove_dir_all(&run.dir) {
        Err(error) if plan.go_on => eprintln!("cannot remove what was made: {error}"),
        outcome => outcome?,
    }
    run.figures.retain(|figure| plan.wants(&[figure.workload]));
    Ok(run.figures)
}

struct Run<'a> {
    dir: PathBuf,
    plan: &'a Plan,
    figures: Vec<Figure>,
}

impl Run<'_> {
    fn time(
        &mut self,
        workload: &'static str,
        unit: &'static str,
        count: usize,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let count = u32::try_from(count)?;
        let start = Instant::now();
        work()?;
        self.figures.push(Figure { workload, unit, rate: f64::from(count) / start.elapsed().as_secs_f64() });
        Ok(())
    }

    /// From here on nothing is in memory: remounted where there is a mount, page cache dropped where we may.
    fn cold(&self) -> Result<()> {
        if let Some(command) = &self.plan.remount {
            ensure!(Command::new("sh").args(["-c", command]).status()?.success(), "the remount command failed");
        }
        ensure!(Command::new("sync").arg("-f").arg(&self.dir).status()?.success(), "sync failed");
        let _ = fs::write("/proc/sys/vm/drop_caches", "3"); // Root only; others have the remount.
        Ok(())
    }

    fn large_file(&mut self) -> Result<()> {
        let (path, mib, ops) = (self.dir.join("large"), self.plan.file_mib, self.plan.random_ops);
        let mut random = StdRng::seed_from_u64(1);
        let mut piece = vec![0; PIECE];
        random.fill_bytes(&mut piece);
        let write = |options: &OpenOptions| -> Result<()> {
            let mut file = options.open(&path)?;
            (0..mib).try_for_each(|_| file.write_all(&piece))?;
            Ok(file.sync_all()?)
        };
        self.time("seqwrite", "MB/s", mib, || write(OpenOptions::new().write(true).create(true).truncate(true)))?;
        self.time("seqrewrite", "MB/s", mib, || write(OpenOptions::new().write(true)))?;
        let read = || -> Result<()> {
            let (mut file, mut buffer) = (File::open(&path)?, vec![0; PIECE]);
            (0..mib).try_for_each(|_| file.read_exact(&mut buffer))?;
            ensure!(buffer == piece, "the bytes read are not the bytes written");
            Ok(())
        };
        self.cold()?;
        self.time("seqread_cold", "MB/s", mib, read)?;
        self.time("seqread_warm", "MB/s", mib, read)?;
        let pages = u64::try_from(mib * PIECE / PAGE)?;
        let mut places = || (0..ops).map(|_| random.random_range(0..pages) * PAGE as u64).collect::<Vec<_>>();
        let (reads, end, each) = (places(), places(), places());
        self.cold()?;
        self.time("randread4k_cold", "ops/s", ops, || {
            let (file, mut page) = (File::open(&path)?, [0; PAGE]);
            Ok(reads.iter().try_for_each(|place| file.read_exact_at(&mut page, *place))?)
        })?;
        let file = OpenOptions::new().write(true).open(&path)?;
        self.time("randwrite4k_fsync_end", "ops/s", ops, || {
            end.iter().try_for_each(|place| file.write_all_at(&piece[..PAGE], *place))?;
            Ok(file.sync_all()?)
        })?;
        let each = &each[..ops / 10];
        self.time("randwrite4k_fsync_each", "ops/s", each.len(), || {
            Ok(each
                .iter()
                .try_for_each(|place| file.write_all_at(&piece[..PAGE], *place).and_then(|()| file.sync_all()))?)
        })?;
        drop(file);
        self.cold()?;
        self.time("open_read_first_byte", "files/s", 1, || Ok(File::open(&path)?.read_exact(&mut [0])?))?;
        Ok(fs::remove_file(&path)?)
    }

    fn small_files(&mut self) -> Result<()> {
        let (folder, count) = (self.dir.join("small"), self.plan.files);
        let names: Vec<PathBuf> = (0..count).map(|n| folder.join(format!("d{:02}/f{n:05}", n % 30))).collect();
        for n in 0..30 {
            fs::create_dir_all(folder.join(format!("d{n:02}")))?;
        }
        let stat = || -> Result<()> { Ok(names.iter().try_for_each(|name| fs::metadata(name).map(drop))?) };
        let read = || -> Result<()> {
            for name in &names {
                ensure!(fs::read(name)?.len() == PAGE, "a small file has another length");
            }
            Ok(())
        };
        self.time("create4k", "files/s", count, || {
            Ok(names.iter().try_for_each(|name| fs::write(name, [7; PAGE]))?)
        })?;
        self.cold()?;
        self.time("stat_cold", "files/s", count, stat)?;
        self.time("stat_warm", "files/s", count, stat)?;
        self.cold()?;
        self.time("read4k_cold", "files/s", count, read)?;
        self.time("read4k_warm", "files/s", count, read)?;
        self.cold()?;
        self.time("walk_cold", "files/s", count, || {
            ensure!(walk(&folder)?.len() == count, "the walk found another number of files");
            Ok(())
        })?;
        let renamed: Vec<PathBuf> = names.iter().map(|name| name.with_extension("new")).collect();
        self.time("rename", "files/s", count, || {
            Ok(names.iter().zip(&renamed).try_for_each(|(a, b)| fs::rename(a, b))?)
        })?;
        self.time("unlink", "files/s", count, || Ok(renamed.iter().try_for_each(fs::remove_file)?))?;
        Ok(fs::remove_dir_all(&folder)?)
    }

    fn tree(&mut self) -> Result<()> {
        let outside = tempfile::tempdir()?;
        source_tree(outside.path())?;
        let tree = self.dir.join("tree");
        let grep = || -> Result<()> {
            for path in walk(&tree)? {
                let text = fs::read(path)?;
                ensure!(!text.windows(8).any(|part| part == b"\0nowhere"), "found what is not there");
            }
            Ok(())
        };
        self.time("tree_copy", "files/s", TREE_FILES, || {
            for from in walk(outside.path())? {
                let to = tree.join(from.strip_prefix(outside.path())?);
                fs::create_dir_all(to.parent().unwrap_or(&tree))?;
                fs::copy(from, to)?;
            }
            Ok(())
        })?;
        self.cold()?;
        self.time("tree_grep_cold", "files/s", TREE_FILES, grep)?;
        self.time("tree_grep_warm", "files/s", TREE_FILES, grep)?;
        self.time("tree_rm", "files/s", TREE_FILES, || Ok(fs::remove_dir_all(&tree)?))
    }

    fn saves(&mut self) -> Result<()> {
        let (file, temporary, count) = (self.dir.join("text"), self.dir.join(".text.tmp"), self.plan.files / 10);
        self.time("save_by_rename", "files/s", count, || {
            for _ in 0..count {
                let mut out = File::create(&temporary)?;
                out.write_all(&[7; PAGE])?;
                out.sync_all()?;
                fs::rename(&temporary, &file)?;
            }
            Ok(())
        })
    }
}

/// Every file below a folder.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    Ok(files)
}

/// The same tree every time: sizes from a few bytes to some 60 KiB, most of them small, as sources are.
fn source_tree(at: &Path) -> Result<()> {
    let mut random = StdRng::seed_from_u64(2);
    for n in 0..TREE_FILES {
        let folder = at.join(format!("part{}/module{:02}", n % 5, n % TREE_FOLDERS));
        fs::create_dir_all(&folder)?;
        let lines = 1usize << random.random_range(1..11);
        let text: String =
            (0..lines).map(|line| format!("    let value_{line} = compute({n}, {});\n", line * n)).collect();
        fs::write(folder.join(format!("file{n}.rs")), text)?;
    }
    Ok(())
}
