//! Mounts a local tree without any organization or sync: `bare_mount STORE MOUNTPOINT`, until unmounted. For measuring
//! what the local half alone does.

use std::{path::Path, sync::Arc};

use parsecfs_core::id::RealmId;
use parsecfs_crypto::local::LocalKey;
use parsecfs_vfs::{Mount, MountOptions, clock::SystemClock, fs::Volume, notify::Notices, store::Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, store, dir] = arguments.as_slice() else { return Err("bare_mount STORE MOUNTPOINT".into()) };
    let key = LocalKey::from_bytes([7; 32]);
    let store = Arc::new(Store::open(Path::new(store), &key, u64::MAX)?);
    let realm = RealmId::from_bytes([1; 16]);
    let volume = Arc::new(Volume::open(realm, store.clone(), Arc::new(SystemClock), (0, 0), Notices::default())?);
    let keeper = volume.keep_house()?;
    let mount = Mount::start(&volume, Path::new(dir), "bare", &MountOptions::default())?;
    while !mount.has_ended() {
        std::thread::park_timeout(std::time::Duration::from_millis(200));
    }
    drop(keeper);
    store.close()?;
    Ok(())
}
