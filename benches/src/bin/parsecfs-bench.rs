//! Runs the workloads on a folder and prints the median of each.
#![allow(clippy::print_stdout, reason = "a program that prints its answer")]

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;
use clap::Parser;
use parsecfs_benches::workload::{self, Plan};
use serde::Serializer as _;

/// Workloads that people feel, on any folder.
#[derive(Parser)]
struct Arguments {
    /// Folder to work in; a subfolder `bench` is made and removed.
    dir: PathBuf,
    /// One JSON object: workload to units a second, in the order they ran.
    #[arg(long)]
    json: bool,
    /// Only these, by name, separated by commas.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Leaves out what fails, with what builds on it, instead of ending.
    #[arg(long)]
    go_on: bool,
    /// Medians of this many runs.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Shell command that unmounts and mounts again before each cold workload.
    #[arg(long)]
    remount_command: Option<String>,
    /// Size of the large file in MiB.
    #[arg(long, default_value_t = 256)]
    file_mib: usize,
    /// How many small files.
    #[arg(long, default_value_t = 3_000)]
    files: usize,
    /// Random accesses of each kind.
    #[arg(long, default_value_t = 10_000)]
    random_ops: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let plan = Plan {
        file_mib: arguments.file_mib,
        files: arguments.files,
        random_ops: arguments.random_ops,
        remount: arguments.remount_command,
        wanted: arguments.workloads,
        go_on: arguments.go_on,
    };
    let mut rates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut order = Vec::new();
    for _ in 0..arguments.runs.max(1) {
        for figure in workload::run(&arguments.dir, &plan)? {
            if !order.contains(&(figure.workload, figure.unit)) {
                order.push((figure.workload, figure.unit));
            }
            rates.entry(figure.workload).or_default().push(figure.rate);
        }
    }
    let median = |name: &str| {
        let mut all = rates[name].clone();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2], all[0], all[all.len() - 1])
    };
    if arguments.json {
        let medians = order.iter().map(|(name, _)| (name, median(name).0));
        serde_json::Serializer::new(std::io::stdout()).collect_map(medians)?;
        println!();
        return Ok(());
    }
    for (name, unit) in order {
        let (middle, least, most) = median(name);
        println!("{name:<24} {middle:>12.0} {unit:<8} ({least:.0} to {most:.0})");
    }
    Ok(())
}
