//! Workloads that people feel, run on a folder. Figures of one machine compare only within one run: see `benches/LEDGER.md`.
//!
//! `parsecfs-bench` runs them on any folder, `parsecfs-ceiling` mounts what FUSE allows, `compare.sh` puts ours beside others;
//! `parsecfs-growth` and `growth.sh` show what does not grow.

pub mod growth;
pub mod workload;
