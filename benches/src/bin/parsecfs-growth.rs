//! Makes small and large workspaces, folders and files, and compares what an operation costs in them.
#![allow(clippy::print_stdout, reason = "a program that prints its answer")]

use std::{path::PathBuf, process::Command};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use parsecfs_benches::growth::{self, Operation, Subject};
use rand::{SeedableRng, rngs::StdRng};

/// What must not grow with the workspace, the folder or the file. `benches/growth.sh` runs it.
#[derive(Parser)]
enum Arguments {
    /// Makes many small files.
    Fill {
        /// Folder to make them in.
        dir: PathBuf,
        /// How many.
        files: usize,
        /// All in this folder, instead of 1,000 in each of its folders.
        #[arg(long)]
        flat: bool,
    },
    /// Makes a file with data at its ends and here and there between.
    Sparse {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Times each operation in a small and a large subject by turns.
    Compare {
        /// `workspace:DIR:FILES`, `folder:DIR:FILES` or `file:PATH`.
        #[arg(value_parser = subject)]
        small: Subject,
        /// The same, larger.
        #[arg(value_parser = subject)]
        large: Subject,
        /// Rounds of 20 batches of 10 operations each.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Shell command that waits until nothing runs behind the mounts; before each round.
        #[arg(long)]
        settle: Option<String>,
    },
}

fn subject(text: &str) -> Result<Subject> {
    let parts: Vec<&str> = text.split(':').collect();
    Ok(match parts[..] {
        ["workspace", dir, files] => Subject::Workspace(dir.into(), files.parse()?),
        ["folder", dir, files] => Subject::Folder(dir.into(), files.parse()?),
        ["file", path] => Subject::File(path.into()),
        _ => bail!("neither a workspace, nor a folder, nor a file"),
    })
}

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments::Fill { dir, files, flat } => growth::fill(&dir, files, flat),
        Arguments::Sparse { path, bytes } => growth::sparse(&path, bytes),
        Arguments::Compare { small, large, rounds, settle } => compare(&small, &large, rounds, settle.as_deref()),
    }
}

fn compare(small: &Subject, large: &Subject, rounds: usize, settle: Option<&str>) -> Result<()> {
    let mut random = StdRng::seed_from_u64(4);
    for operation in Operation::of(small) {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            if let Some(settle) = settle {
                ensure!(Command::new("sh").args(["-c", settle]).status()?.success(), "the settle command failed");
            }
            let [of_small, of_large] = growth::round([small, large], *operation, &mut random)?;
            times[0].extend(of_small);
            times[1].extend(of_large);
        }
        let [one, other] = times.map(median);
        let what = match small {
            Subject::Workspace(..) => "workspace",
            Subject::Folder(..) => "folder",
            Subject::File(..) => "file",
        };
        println!("| {operation:?} in a {what} | {one:.1} | {other:.1} | {:.2} |", other / one);
    }
    Ok(())
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
