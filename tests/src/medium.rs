//! Disks that are full or cannot be written, for tests: mounted below a test's own folder, which only root can do.

use std::{os::unix::fs::MetadataExt, path::Path, process::Command};

/// Whether this user can mount disks; a test that needs it says SKIP otherwise.
#[must_use]
pub fn can_mount_disks() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !root {
        eprintln!("SKIP: only root can mount the disk of this test");
    }
    root
}

/// Puts a disk of so many bytes on this folder, which is made when it is not there.
pub fn mount_disk(dir: &Path, bytes: u64) {
    std::fs::create_dir_all(dir).expect("a folder can be made");
    let options = format!("mode=0700,size={bytes}");
    run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "parsecfs-test"]).arg(dir));
}

/// Gives the disk on this folder another size.
pub fn resize_disk(dir: &Path, bytes: u64) {
    run(Command::new("mount").args(["-o", &format!("remount,size={bytes}")]).arg(dir));
}

/// From now on nothing can be written below this folder.
pub fn make_read_only(dir: &Path) {
    run(Command::new("mount").arg("--bind").arg(dir).arg(dir));
    run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(dir));
}

/// Takes away what was mounted last on this folder.
pub fn unmount(dir: &Path) {
    run(Command::new("umount").arg("-l").arg(dir));
}

fn run(command: &mut Command) {
    assert!(command.status().expect("it is installed").success(), "{command:?}");
}
