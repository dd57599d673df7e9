//! A defect in one request is the end of that request, not of the mount.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parsecfs_tests::{cli::can_mount, local_model::open};
use parsecfs_vfs::{Mount, MountOptions, clock::Clock};
use tempfile::TempDir;

/// A clock with a defect that shows when it is told to, once.
#[derive(Debug, Default)]
struct DefectiveClock(AtomicBool);

impl Clock for DefectiveClock {
    fn now_ns(&self) -> i64 {
        assert!(!self.0.swap(false, Ordering::Relaxed), "the defect of a test");
        0
    }
}

#[test]
fn a_request_that_ends_in_a_defect_is_eio_for_it_alone_and_is_counted() {
    if !can_mount() {
        return;
    }
    let (dir, clock) = (TempDir::new().unwrap(), Arc::new(DefectiveClock::default()));
    let volume = open(&dir.path().join("store"), clock.clone(), u64::MAX).unwrap();
    let mounted = dir.path().join("mnt");
    fs::create_dir(&mounted).unwrap();
    let mount = Mount::start(&volume, &mounted, "test", &MountOptions::default()).unwrap();
    fs::write(mounted.join("before"), "before").unwrap();
    fs::File::open(mounted.join("before")).unwrap().sync_all().unwrap();
    clock.0.store(true, Ordering::Relaxed);
    let refused = fs::create_dir(mounted.join("folder")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EIO));
    // The answer goes out while the request unwinds, and it is counted behind that.
    while volume.defects() == 0 {
        std::thread::yield_now();
    }
    fs::create_dir(mounted.join("folder")).unwrap();
    assert_eq!(fs::read(mounted.join("before")).unwrap(), b"before");
    assert_eq!(volume.defects(), 1);
    mount.unmount().unwrap();
}
