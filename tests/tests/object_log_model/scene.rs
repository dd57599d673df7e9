//! One schedule: three writers and a maintenance client, each a device of its own, over a rough store.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use parsecfs_backends::{
    conformance::{Identity, TestLogKeys, World},
    objects::{self, ObjectStorage, Options, maintenance::Patient, verbs::Verbs},
};
use parsecfs_core::{
    certificate::RealmRole,
    id::{BlockId, DeviceId, RealmId, UserId, VlobId},
    storage::{Block, BlockStore, Bytes, CertificateStore, ErrorKind, VlobStore, VlobWrite, WriteOutcome},
    time::Timestamp,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::chaos::{Chaos, HOUR_MS, Unsaid, Weather, Without, store_now, yields};

/// Who takes part, the founder first.
const CLIENTS: [&str; 5] = ["w0", "w1", "w2", "maintenance", "fresh"];

struct Acknowledged {
    file: VlobId,
    version: u32,
    content: Bytes,
    block: BlockId,
}

struct Scene {
    chaos: Arc<Chaos>,
    people: HashMap<&'static str, Identity>,
    realm: RealmId,
    files: [VlobId; 3],
    folder: PathBuf,
    acknowledged: Mutex<Vec<Acknowledged>>,
}

impl Scene {
    fn now(&self) -> Timestamp {
        store_now(&self.chaos.store)
    }

    async fn open(&self, name: &str) -> Arc<ObjectStorage> {
        self.open_over(Arc::clone(&self.chaos) as _, name, self.folder.join(name)).await
    }

    async fn open_over(&self, verbs: Arc<dyn Verbs>, name: &str, state_dir: PathBuf) -> Arc<ObjectStorage> {
        let store = Arc::clone(&self.chaos.store);
        let identity = &self.people[name];
        let options = Options {
            state_dir,
            signer: Arc::new(identity.copy()),
            keys: Arc::new(TestLogKeys::of(identity)),
            organization: "model".to_owned(),
            root: *identity.root.verify_key().as_bytes(),
            clock: Arc::new(move || store_now(&store)),
        };
        loop {
            match objects::create_over(Arc::clone(&verbs), None, options.clone()).await {
                Ok(opened) => return opened,
                Err(error) => assert_ne!(error.kind(), ErrorKind::Rollback, "false alarm when opening"),
            }
        }
    }

    async fn found(&self) {
        let world = World::at(Timestamp::from_micros(1000).expect("in range"));
        let founder = &self.people[CLIENTS[0]];
        let storage = self.open(CLIENTS[0]).await;
        storage.append(world.bootstrap(founder)).await.expect("founds");
        storage.append(world.create_realm(founder, self.realm)).await.expect("makes a realm");
        storage.append(world.rotate(founder, self.realm, 0)).await.expect("makes a key");
        for name in &CLIENTS[1..] {
            let person = &self.people[name];
            storage.append(world.create_user(founder, person)).await.expect("a person joins");
            let share = world.share(founder, self.realm, person, RealmRole::Contributor, 1);
            storage.append(share).await.expect("shares");
        }
    }

    fn id(&self) -> [u8; 16] {
        self.chaos.roll(|rng| rng.random())
    }

    /// One durable write: frozen once sent, until its outcome is known.
    async fn write(&self, name: &str, storage: &mut Arc<ObjectStorage>, number: usize) {
        let file = self.files[self.chaos.roll(|rng| rng.random_range(0..3))];
        let content: Bytes = format!("{name}.{number}").into_bytes().into();
        let mut floor = None;
        'build: loop {
            let block = BlockId::from_bytes(self.id());
            let bytes = self.chaos.roll(|rng| [10, 20 << 10, 256 << 10][rng.random_range(0..3)]);
            let sealed = Block { key_index: 1, bytes: vec![1; bytes].into() };
            let newest = match storage.read(self.realm, &[file]).await {
                Ok(newest) => newest,
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::Rollback, "false alarm of {name}: {error}");
                    continue;
                }
            };
            let version = newest.first().map_or(1, |newest| newest.version + 1);
            let timestamp = self.now().max(newest.first().map_or(self.now(), |n| n.timestamp.next()));
            let write = VlobWrite {
                id: file,
                version,
                key_index: 1,
                timestamp: floor.map_or(timestamp, |floor: Timestamp| timestamp.max(floor.next())),
                blob: content.clone(),
                new_blocks: vec![block],
            };
            loop {
                while storage.put(self.realm, vec![(block, sealed.clone())]).await.is_err() {}
                match self.commit_or_crash(name, storage, &write).await {
                    None if self.chaos.without == Without::Identity => continue 'build,
                    None => {}
                    Some(WriteOutcome::Stored) => {
                        let done = Acknowledged { file, version, content, block };
                        self.acknowledged.lock().expect("not poisoned").push(done);
                        return;
                    }
                    Some(WriteOutcome::TimestampTooOld(last)) => {
                        floor = Some(last);
                        continue 'build;
                    }
                    Some(WriteOutcome::Conflict | WriteOutcome::BlockGone(_)) => continue 'build,
                    Some(refused) => panic!("{refused:?}"),
                }
            }
        }
    }

    /// `None` when the outcome is not known: an error, or a crash in the middle and a new start.
    async fn commit_or_crash(
        &self,
        name: &str,
        storage: &mut Arc<ObjectStorage>,
        write: &VlobWrite,
    ) -> Option<WriteOutcome> {
        let dies_after = self.chaos.roll(|rng| rng.random_ratio(1, 6).then(|| rng.random_range(1..60)));
        let dies = async {
            match dies_after {
                Some(turns) => yields(turns).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = storage.commit(self.realm, vec![write.clone()]) => outcome,
            () = dies => {
                *storage = self.open(name).await;
                return None;
            }
        };
        match outcome {
            Ok(outcomes) => Some(outcomes[0]),
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Rollback, "false alarm of {name}: {error}");
                None
            }
        }
    }

    async fn writer(&self, name: &str) {
        let mut storage = self.open(name).await;
        for number in 0..self.chaos.roll(|rng| rng.random_range(1..6)) {
            self.write(name, &mut storage, number).await;
        }
    }

    async fn maintain(&self) {
        let storage = self.open("maintenance").await;
        for run in 0..self.chaos.roll(|rng| rng.random_range(1..4)) {
            let patient = self.chaos.roll(|rng| match rng.random_range(0..3) {
                0 => Patient::none(),
                1 => Patient { unreferenced_ms: HOUR_MS, grace_ms: 0, entries_ms: 24 * HOUR_MS },
                _ => Patient::default(),
            });
            let collector = match self.chaos.without {
                Without::GcIntent => {
                    let verbs = Unsaid::new(Arc::clone(&self.chaos));
                    self.open_over(verbs, "maintenance", self.folder.join(format!("collector.{run}"))).await
                }
                _ => Arc::clone(&storage),
            };
            let is_silent = self.chaos.without == Without::GcIntent;
            // Nobody heard the intent, so there is nothing to wait for.
            let grace_ms = if is_silent { i64::MIN } else { patient.grace_ms };
            let patient = Patient { grace_ms, ..patient };
            let collected = collector.collect_garbage(self.realm, patient).await.map(drop);
            for outcome in [
                storage.write_checkpoint(self.realm).await.map(drop),
                // Who speaks to himself must hear what he did not say: that is no false alarm.
                if is_silent { Ok(()) } else { collected },
                // Truncation of young entries is never safe against a write on its way.
                storage.truncate(self.realm, Patient::default()).await.map(drop),
            ] {
                let kind = outcome.err().map(|error| error.kind());
                assert_ne!(kind, Some(ErrorKind::Rollback), "false alarm of maintenance");
            }
        }
    }

    async fn check(&self) {
        let fresh = self.open("fresh").await;
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().expect("not poisoned"));
        let mut seen = HashMap::new();
        for Acknowledged { file, version, content, block } in &acknowledged {
            fresh.get(self.realm, *block).await.expect("a referenced block is there");
            let twice = seen.insert((*file, *version), content.clone());
            assert!(twice.is_none(), "two acknowledged writes are the same version: one is lost");
            let newest = fresh.read(self.realm, &[*file]).await.expect("a fresh reader reads");
            assert!(newest[0].version >= *version, "an acknowledged version is lost");
            for record in fresh.read_versions(self.realm, &[(*file, *version)]).await.expect("reads") {
                assert_eq!(record.blob, *content, "an acknowledged write was replaced");
            }
        }
        let newest = fresh.read(self.realm, &self.files).await.expect("reads");
        let total: u32 = newest.iter().map(|newest| newest.version).sum();
        assert_eq!(total as usize, acknowledged.len(), "a write was counted twice");
    }
}

fn people(rng: &mut StdRng) -> HashMap<&'static str, Identity> {
    let founder = World::founder();
    let mut person = |_| Identity {
        device: DeviceId::from_bytes(rng.random()),
        user: UserId::from_bytes(rng.random()),
        ..World::person(&founder)
    };
    CLIENTS.map(|name| (name, person(name))).into()
}

/// Runs one schedule; panics when a promise is broken.
pub(crate) async fn schedule(seed: u64, weather: Weather, without: Without) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut rng = StdRng::seed_from_u64(seed);
    let scene = Scene {
        people: people(&mut rng),
        realm: RealmId::from_bytes(rng.random()),
        files: [(); 3].map(|()| VlobId::from_bytes(rng.random())),
        folder: folder.path().to_owned(),
        acknowledged: Mutex::default(),
        chaos: Arc::new(Chaos::new(rng, weather, without)),
    };
    scene.found().await;
    scene.chaos.calm(false);
    tokio::join!(scene.writer("w0"), scene.writer("w1"), scene.writer("w2"), scene.maintain());
    scene.chaos.calm(true);
    scene.check().await;
}
