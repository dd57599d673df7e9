//! A large copy with the agent under a memory limit: it is not killed and does not grow. `PARSECFS_MEMORY_MIB` sets how much
//! is copied: little by default.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use parsecfs_crypto::sha256;
use parsecfs_tests::cli::{CliHome, can_mount};
use rand::{RngCore, SeedableRng, rngs::StdRng};

const MIB: usize = 1 << 20;
/// What the agent and the pages of its files may take together.
const LIMIT_MIB: usize = 160;

/// A control group with a memory limit, gone when dropped.
struct Group(PathBuf);

impl Group {
    /// `None`, after saying SKIP, where this user cannot limit memory.
    fn new() -> Option<Self> {
        let name = format!("parsecfs-test-{}", std::process::id());
        let limit = (LIMIT_MIB * MIB).to_string();
        // Version 1, then version 2.
        for (parent, file) in [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")] {
            let dir = Path::new(parent).join(&name);
            if fs::create_dir(&dir).is_ok() {
                let group = Self(dir);
                if fs::write(group.0.join(file), &limit).is_ok() {
                    return Some(group);
                }
            }
        }
        eprintln!("SKIP: this user cannot make a control group with a memory limit");
        None
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes go to the parent first; a group that stays is empty and harms nobody.
        let parent = self.0.parent().unwrap().join("cgroup.procs");
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&parent, pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// Memory of a process, in MiB.
fn resident_mib(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
}

#[test]
fn a_large_copy_under_a_memory_limit_neither_kills_the_agent_nor_lets_it_grow() {
    if !can_mount() {
        return;
    }
    let Some(group) = Group::new() else { return };
    let mib = std::env::var("PARSECFS_MEMORY_MIB").map_or(256, |text| text.parse::<usize>().unwrap());
    let home = CliHome::new();
    home.with_workspace("Films");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Films", &dir]);
    let agent = home.agent_pid().unwrap();
    group.take(agent);
    let path = Path::new(&dir).join("film");
    let (mut file, mut random, mut piece) = (File::create(&path).unwrap(), StdRng::seed_from_u64(1), vec![0; MIB]);
    let (mut digests, mut early) = (Vec::new(), 0);
    for number in 0..mib {
        random.fill_bytes(&mut piece);
        digests.push(sha256(&piece));
        file.write_all(&piece).unwrap();
        if number == mib / 4 {
            early = resident_mib(agent);
        }
    }
    file.sync_all().unwrap();
    let late = resident_mib(agent);
    home.ok(&["sync", "Films"]);
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut back = File::open(&path).unwrap();
    for (number, digest) in digests.iter().enumerate() {
        back.read_exact(&mut piece).unwrap();
        assert!(sha256(&piece) == *digest, "MiB {number}");
    }
    let end = resident_mib(agent);
    assert_eq!(home.agent_pid(), Some(agent), "the same agent");
    assert!(late.max(end) < early + 48, "memory grows: {early} MiB early, {late} after the copy, {end} in the end");
    eprintln!("{mib} MiB copied: {early} MiB resident early, {late} after the copy, {end} in the end");
    drop((file, back));
    home.ok(&["umount", &dir, "--flush"]);
}
