//! A deep verify finds every flipped bit and every missing object of a store directory, and names the object.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use parsecfs_backends::{
    conformance::World,
    objects::{self, ObjectStorage},
};
use parsecfs_core::{
    id::{BlockId, RealmId, VlobId},
    storage::{Block, BlockStore, Bytes, CertificateStore, Storage, VlobStore, WriteOutcome},
    time::Timestamp,
    verify::{Item, Part, Sealed, Verified},
};
use parsecfs_tests::objects::options;

const REALM: RealmId = RealmId::from_bytes([7; 16]);

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(now.as_micros()).unwrap()).unwrap()
}

struct Store {
    storage: Arc<ObjectStorage>,
    blocks: HashMap<BlockId, Bytes>,
    manifests: HashMap<VlobId, Vec<Bytes>>,
}

impl Store {
    /// A workspace with a block and a manifest of every way to lie, and a checkpoint.
    async fn make(place: &Path, state_dir: &Path) -> Self {
        let (founder, world) = (World::founder(), World::at(now()));
        let options = options(&founder, state_dir, now);
        let storage = objects::create(place.to_str().unwrap(), options).await.unwrap();
        storage.append(world.bootstrap(&founder)).await.unwrap();
        storage.append(world.create_realm(&founder, REALM)).await.unwrap();
        storage.append(world.rotate(&founder, REALM, 0)).await.unwrap();
        let holder = World::person(&founder);
        storage.append(world.create_user(&founder, &holder)).await.unwrap();
        let (ended, brief) = world.set_up_recovery(&founder, &holder);
        storage.append(ended).await.unwrap();
        storage.append(world.delete_recovery(&founder, &brief)).await.unwrap();
        storage.append(world.set_up_recovery(&founder, &holder).0).await.unwrap();
        let (mut blocks, mut manifests) = (HashMap::<_, Bytes>::new(), HashMap::<_, Vec<Bytes>>::new());
        for (number, (block_bytes, manifest_bytes)) in
            [(100, 100), (20 << 10, 100), (300 << 10, 100), (100, 200 << 10)].into_iter().enumerate()
        {
            let number = u8::try_from(number).unwrap();
            let block = BlockId::from_bytes([number; 16]);
            blocks.insert(block, vec![number; block_bytes].into());
            storage.put(REALM, vec![(block, Block { key_index: 1, bytes: blocks[&block].clone() })]).await.unwrap();
            let (id, manifest) = (VlobId::from_bytes([number; 16]), vec![number; manifest_bytes]);
            manifests.entry(id).or_default().push(manifest.clone().into());
            let write = world.write(id, 1, &manifest, vec![block]);
            assert_eq!(storage.commit(REALM, vec![write]).await.unwrap(), [WriteOutcome::Stored]);
        }
        // An older version is in a pack of its own.
        let (id, manifest) = (VlobId::from_bytes([3; 16]), vec![9; 200 << 10]);
        manifests.entry(id).or_default().push(manifest.clone().into());
        let write = world.write(id, 2, &manifest, vec![]);
        assert_eq!(storage.commit(REALM, vec![write]).await.unwrap(), [WriteOutcome::Stored]);
        storage.write_checkpoint(REALM).await.unwrap();
        Self { storage, blocks, manifests }
    }

    async fn verify(&self) -> Verified {
        let opens = |sealed: &Sealed<'_>| match sealed.what {
            Item::Block(id) => self.blocks.get(&id).is_some_and(|block| **block == *sealed.bytes),
            Item::Manifest(id) => {
                self.manifests.get(&id).is_some_and(|versions| versions.iter().any(|bytes| **bytes == *sealed.bytes))
            }
        };
        self.storage.verify(&[REALM], &opens).await.unwrap().expect("nobody else looks after a directory")
    }
}

fn objects_in(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            objects_in(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

#[tokio::test]
async fn every_damaged_object_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let store = Store::make(&place, &dir.path().join("state")).await;
    let whole = store.verify().await;
    assert_eq!((whole.void, whole.sealed, whole.blocks, &*whole.damaged), (0, 0, 4, &[][..]));
    assert_eq!(whole.entries, 13, "a founder, a realm, its role and key, another user, three on recovery, five writes");
    let mut files = Vec::new();
    objects_in(&place, &mut files);
    for file in files {
        let key = file.strip_prefix(&place).unwrap().to_str().unwrap().to_owned();
        // Hints may be wrong without harm, `format` is checked at every start.
        if key.starts_with("hint/") || key == "format" {
            continue;
        }
        let bytes = fs::read(&file).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 3] ^= 1;
        let mut end_flipped = bytes.clone();
        *end_flipped.last_mut().unwrap() ^= 1;
        let end_flipped = if key.contains("/p/") { flipped.clone() } else { end_flipped };
        for damage in [Some(flipped), Some(end_flipped), Some(bytes[..bytes.len() / 2].to_vec()), None] {
            match damage {
                Some(damage) => fs::write(&file, damage).unwrap(),
                None => fs::remove_file(&file).unwrap(),
            }
            let found = store.verify().await.damaged;
            // A shard is named by the checkpoint that needs it.
            let named = if key.contains("/cks/") { format!("r/{REALM}/ck/") } else { key.clone() };
            assert!(found.iter().any(|damaged| damaged.key.starts_with(&named)), "{key} is named: {found:?}");
        }
        fs::write(&file, bytes).unwrap();
    }
    assert_eq!(store.verify().await, whole);
}

#[tokio::test]
async fn a_foreign_name_in_a_log_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let store = Store::make(&place, &dir.path().join("state")).await;
    let name = format!("r/{REALM}/log/00000000/003 (conflicted copy)");
    fs::write(place.join(&name), b"whatever").unwrap();
    let found = store.verify().await.damaged;
    let found: Vec<_> = found.iter().map(|damaged| (&damaged.key, damaged.realm, damaged.part)).collect();
    assert_eq!(found, [(&name, Some(REALM), Part::Foreign)]);
}
