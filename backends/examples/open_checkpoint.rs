//! How long does a device need to open a workspace from its checkpoint, and how much memory?
//!
//! `open_checkpoint make DIR VLOBS`, then `open_checkpoint open DIR` in a process of its own: a device that was never
//! there reads the checkpoint and lists every vlob. Each vlob has a block; the tail behind the checkpoint is one entry.

#![expect(clippy::print_stdout, reason = "a measurement is printed")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made panics")]

use std::{fs, path::Path, sync::Arc, time::Instant};

use parsecfs_backends::{
    conformance::{Identity, TestLogKeys, World},
    objects::{self, ObjectStorage, Options},
};
use parsecfs_core::{
    id::{BlockId, DeviceId, RealmId, UserId, VlobId},
    storage::{Block, BlockStore, CertificateStore, Result, VlobStore, WriteOutcome},
    time::Timestamp,
};
use parsecfs_crypto::{PrivateKey, SecretKey, SigningKey, random_bytes};

const REALM: RealmId = RealmId::from_bytes([7; 16]);
/// Of a sealed file manifest.
const MANIFEST_BYTES: usize = 350;
const WRITES_PER_COMMIT: usize = 2000;

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(now.as_micros()).unwrap()).unwrap()
}

/// The same identity in both processes.
fn founder() -> Identity {
    Identity {
        device: DeviceId::from_bytes([1; 16]),
        user: UserId::from_bytes([2; 16]),
        signing_key: SigningKey::from_seed([3; 32]),
        private_key: PrivateKey::from_bytes([4; 32]),
        root: SigningKey::from_seed([5; 32]),
        organization_key: SecretKey::from_bytes([6; 32]),
    }
}

async fn open(dir: &Path, state: &str) -> Result<Arc<ObjectStorage>> {
    let founder = founder();
    let options = Options {
        state_dir: dir.join(state),
        keys: Arc::new(TestLogKeys::of(&founder)),
        organization: "acme".to_owned(),
        root: *founder.root.verify_key().as_bytes(),
        signer: Arc::new(founder),
        clock: Arc::new(now),
    };
    objects::create(dir.join("store").to_str().unwrap(), options).await
}

async fn make(dir: &Path, vlobs: usize) -> Result<()> {
    let (founder, world) = (founder(), World::at(Timestamp::from_micros(now().as_micros() - 3_600_000_000).unwrap()));
    let storage = open(dir, "maker").await?;
    storage.append(world.bootstrap(&founder)).await?;
    storage.append(world.create_realm(&founder, REALM)).await?;
    storage.append(world.rotate(&founder, REALM, 0)).await?;
    let mut left = vlobs;
    while left > 0 {
        let count = left.min(WRITES_PER_COMMIT);
        left -= count;
        let blocks: Vec<_> = (0..count)
            .map(|_| {
                let block = Block { key_index: 1, bytes: random_bytes::<64>().to_vec().into() };
                (BlockId::from_bytes(random_bytes()), block)
            })
            .collect();
        let write = |block: &(BlockId, Block)| {
            let id = VlobId::from_bytes(random_bytes());
            world.write(id, 1, &random_bytes::<MANIFEST_BYTES>(), vec![block.0])
        };
        let writes = blocks.iter().map(write).collect();
        storage.put(REALM, blocks).await?;
        let outcomes = storage.commit(REALM, writes).await?;
        assert!(outcomes.iter().all(|outcome| *outcome == WriteOutcome::Stored));
    }
    storage.write_checkpoint(REALM).await?;
    storage.commit(REALM, vec![world.write(VlobId::from_bytes(random_bytes()), 1, b"tail", vec![])]).await?;
    Ok(())
}

fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["make", dir, vlobs] => make(Path::new(dir), vlobs.parse().unwrap()).await,
        ["open", dir] => {
            let state = format!("fresh-{}", std::process::id());
            let started = Instant::now();
            let storage = open(Path::new(dir), &state).await?;
            let vlobs = storage.changes(REALM, 0).await?.items.len();
            println!("{vlobs} vlobs in {} ms, {}", started.elapsed().as_millis(), peak_memory());
            Ok(())
        }
        _ => panic!("make DIR VLOBS, or open DIR"),
    }
}
