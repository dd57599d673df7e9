//! Random schedules of writers and a maintenance client over a store that loses answers, lands writes late and lets
//! time jump; clients crash and come back. Nothing acknowledged may be lost or counted twice, no referenced block may
//! be missing, nobody may raise a false alarm. `PARSECFS_SCHEDULES` sets how many, `PARSECFS_SEED` the first.
//!
//! Truncation, which no command offers yet, takes part with `PARSECFS_TRUNCATE=1` only: then schedule 745 counts a write
//! twice (`docs/known-failures.md`).

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use futures::{FutureExt, future::BoxFuture};
use parsecfs_backends::{
    conformance::{Identity, TestLogKeys, World},
    objects::{
        self, ObjectStorage, Options,
        in_memory::InMemoryVerbs,
        maintenance::Patient,
        verbs::{Created, Creation, Got, Listed, StoreTime, Verbs},
    },
};
use parsecfs_core::{
    id::{BlockId, RealmId, VlobId},
    storage::{
        Block, BlockStore, Bytes, CertificateStore, Error, ErrorKind, Result, VlobStore, VlobWrite, WriteOutcome,
    },
    time::Timestamp,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

const HOUR_MS: i64 = 3_600_000;

struct Chaos {
    store: Arc<InMemoryVerbs>,
    rng: Mutex<StdRng>,
    late: Mutex<Vec<(u32, String, Bytes)>>,
    is_calm: Mutex<bool>,
}

impl Chaos {
    fn roll<T>(&self, roll: impl FnOnce(&mut StdRng) -> T) -> T {
        roll(&mut self.rng.lock().expect("not poisoned"))
    }

    fn is_calm(&self) -> bool {
        *self.is_calm.lock().expect("not poisoned")
    }

    /// Before every operation: others run, time passes, late writes land.
    async fn step(&self) {
        if self.is_calm() {
            return;
        }
        for _ in 0..self.roll(|rng| rng.random_range(0..6)) {
            tokio::task::yield_now().await;
        }
        let jump = self.roll(|rng| match rng.random_range(0..1000) {
            0..4 => [2 * HOUR_MS, 24 * HOUR_MS, 40 * 24 * HOUR_MS][rng.random_range(0..3)],
            _ => rng.random_range(0..60_000),
        });
        self.store.advance_ms(jump);
        let mut late = self.late.lock().expect("not poisoned");
        for (left, _, _) in late.iter_mut() {
            *left = left.saturating_sub(1);
        }
        for (_, key, bytes) in late.extract_if(.., |(left, _, _)| *left == 0) {
            self.store.create_now(&key, &bytes);
        }
    }

    fn unknown() -> Error {
        Error::new(ErrorKind::OutcomeUnknown, "the answer got lost")
    }
}

impl Verbs for Chaos {
    fn create<'a>(&'a self, objects: &'a [(String, Bytes)]) -> BoxFuture<'a, Result<Creation>> {
        async move {
            self.step().await;
            let dice = if self.is_calm() { 999 } else { self.roll(|rng| rng.random_range(0..1000)) };
            if dice < 60 {
                let left = self.roll(|rng| rng.random_range(1..120));
                let mut late = self.late.lock().expect("not poisoned");
                late.extend(objects.iter().map(|(key, bytes)| (left, key.clone(), Arc::clone(bytes))));
                return Err(Self::unknown());
            }
            let created = self.store.create(objects).await?;
            match dice {
                60..120 => Err(Self::unknown()),
                120..180 => Ok(Creation { outcomes: vec![Created::Exists; objects.len()], at: created.at }),
                _ => Ok(created),
            }
        }
        .boxed()
    }

    fn put_hint<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        async move {
            self.step().await;
            self.store.put_hint(key, bytes).await
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>> {
        async move {
            self.step().await;
            self.store.get(key).await
        }
        .boxed()
    }

    fn get_range<'a>(&'a self, key: &'a str, offset: u64, bytes: u64) -> BoxFuture<'a, Result<Option<Bytes>>> {
        async move {
            self.step().await;
            self.store.get_range(key, offset, bytes).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.step().await;
            self.store.delete(key).await
        }
        .boxed()
    }

    fn list_after<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        async move {
            self.step().await;
            self.store.list_after(prefix, after).await
        }
        .boxed()
    }

    fn now(&self) -> BoxFuture<'_, Result<StoreTime>> {
        self.store.now()
    }
}

struct Scene {
    chaos: Arc<Chaos>,
    founder: Identity,
    realm: RealmId,
    files: [VlobId; 3],
    folder: PathBuf,
    acknowledged: Mutex<Vec<(VlobId, u32, Bytes, BlockId)>>,
    truncates: bool,
}

impl Scene {
    fn now(&self) -> Timestamp {
        store_now(&self.chaos.store)
    }

    async fn open(&self, name: &str) -> Arc<ObjectStorage> {
        let store = Arc::clone(&self.chaos.store);
        let options = Options {
            state_dir: self.folder.join(name),
            signer: Arc::new(self.founder.copy()),
            keys: Arc::new(TestLogKeys::of(&self.founder)),
            organization: "model".to_owned(),
            root: *self.founder.root.verify_key().as_bytes(),
            clock: Arc::new(move || store_now(&store)),
        };
        loop {
            let verbs: Arc<dyn Verbs> = Arc::clone(&self.chaos) as _;
            match objects::create_over(verbs, None, options.clone()).await {
                Ok(opened) => return opened,
                Err(error) => assert_ne!(error.kind(), ErrorKind::Rollback, "false alarm when opening"),
            }
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
            let Ok(newest) = storage.read(self.realm, &[file]).await else { continue };
            let version = newest.first().map_or(1, |newest| newest.version + 1);
            let timestamp = self.now().max(newest.first().map_or(self.now(), |n| n.timestamp.next()));
            let write = VlobWrite {
                id: file,
                version,
                key_index: 1,
                timestamp: floor.map_or(timestamp, |floor: Timestamp| timestamp.max(floor.next())),
                blob: Arc::clone(&content),
                new_blocks: vec![block],
            };
            loop {
                while storage.put(self.realm, vec![(block, sealed.clone())]).await.is_err() {}
                let patience =
                    self.chaos.roll(|rng| if rng.random_ratio(1, 6) { rng.random_range(1..60) } else { u32::MAX });
                let outcome = tokio::select! {
                    biased;
                    outcome = storage.commit(self.realm, vec![write.clone()]) => Some(outcome),
                    () = yields(patience) => None,
                };
                match outcome {
                    None => *storage = self.open(name).await,
                    Some(Err(error)) => assert_ne!(error.kind(), ErrorKind::Rollback, "false alarm of {name}: {error}"),
                    Some(Ok(outcomes)) => match outcomes[0] {
                        WriteOutcome::Stored => {
                            self.acknowledged.lock().expect("not poisoned").push((file, version, content, block));
                            return;
                        }
                        WriteOutcome::TimestampTooOld(last) => {
                            floor = Some(last);
                            continue 'build;
                        }
                        WriteOutcome::Conflict | WriteOutcome::BlockGone(_) => continue 'build,
                        refused => panic!("{refused:?}"),
                    },
                }
            }
        }
    }

    async fn maintain(&self) {
        let storage = self.open("maintenance").await;
        for _ in 0..self.chaos.roll(|rng| rng.random_range(1..4)) {
            let patient = self.chaos.roll(|rng| match rng.random_range(0..3) {
                0 => Patient::none(),
                1 => Patient { unreferenced_ms: HOUR_MS, grace_ms: 0, entries_ms: 24 * HOUR_MS },
                _ => Patient::default(),
            });
            // Truncation of young entries is never safe against a write on its way.
            let truncation = Patient::default();
            let truncated = match self.truncates {
                true => storage.truncate(self.realm, truncation).await.map(drop),
                false => Ok(()),
            };
            for outcome in [
                storage.write_checkpoint(self.realm).await.map(drop),
                storage.collect_garbage(self.realm, patient).await.map(drop),
                truncated,
            ] {
                let kind = outcome.err().map(|error| error.kind());
                assert_ne!(kind, Some(ErrorKind::Rollback), "false alarm of maintenance");
            }
        }
    }

    async fn check(&self) {
        *self.chaos.is_calm.lock().expect("not poisoned") = true;
        let fresh = self.open("fresh").await;
        let acknowledged = self.acknowledged.lock().expect("not poisoned").clone();
        let mut seen = HashMap::new();
        for (file, version, content, block) in &acknowledged {
            fresh.get(self.realm, *block).await.expect("a referenced block is there");
            let twice = seen.insert((*file, *version), Arc::clone(content));
            assert!(twice.is_none(), "two acknowledged writes are the same version: one is lost");
            let newest = fresh.read(self.realm, &[*file]).await.expect("a fresh reader reads");
            assert!(newest[0].version >= *version, "an acknowledged version is lost");
            for record in fresh.read_versions(self.realm, &[(*file, *version)]).await.expect("reads") {
                assert_eq!(record.blob, *content, "an acknowledged write was replaced");
            }
        }
        let total: u32 =
            fresh.read(self.realm, &self.files).await.expect("reads").iter().map(|newest| newest.version).sum();
        assert_eq!(total as usize, acknowledged.len(), "a write was counted twice");
    }
}

fn store_now(store: &InMemoryVerbs) -> Timestamp {
    let now = store.now().now_or_never().expect("never waits").expect("never fails");
    Timestamp::from_micros(now.0 * 1000).expect("in range")
}

async fn yields(count: u32) {
    if count == u32::MAX {
        return futures::future::pending().await;
    }
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

async fn schedule(seed: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut rng = StdRng::seed_from_u64(seed);
    let store = InMemoryVerbs::new();
    store.advance_ms(HOUR_MS);
    let id = |rng: &mut StdRng| rng.random::<[u8; 16]>();
    let realm = RealmId::from_bytes(id(&mut rng));
    let files = [(); 3].map(|()| VlobId::from_bytes(id(&mut rng)));
    let chaos = Chaos { store, rng: Mutex::new(rng), late: Mutex::default(), is_calm: Mutex::new(true) };
    let scene = Scene {
        chaos: Arc::new(chaos),
        founder: World::founder(),
        realm,
        files,
        folder: folder.path().to_owned(),
        acknowledged: Mutex::default(),
        truncates: std::env::var_os("PARSECFS_TRUNCATE").is_some(),
    };
    let world = World::at(Timestamp::from_micros(1000).expect("in range"));
    let founder = scene.open("w0").await;
    founder.append(world.bootstrap(&scene.founder)).await.expect("founds");
    founder.append(world.create_realm(&scene.founder, realm)).await.expect("makes a realm");
    founder.append(world.rotate(&scene.founder, realm, 0)).await.expect("makes a key");
    *scene.chaos.is_calm.lock().expect("not poisoned") = false;

    let scene = &scene;
    let writer = |name: &'static str| async move {
        let mut storage = scene.open(name).await;
        for number in 0..scene.chaos.roll(|rng| rng.random_range(1..6)) {
            scene.write(name, &mut storage, number).await;
        }
    };
    tokio::join!(writer("w0"), writer("w1"), writer("w2"), scene.maintain());
    scene.check().await;
}

#[tokio::test(start_paused = true)]
async fn no_schedule_loses_or_doubles_an_acknowledged_write() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = setting("PARSECFS_SEED").unwrap_or(0);
    for seed in first..first + setting("PARSECFS_SCHEDULES").unwrap_or(1000) {
        let ran = std::panic::AssertUnwindSafe(schedule(seed)).catch_unwind().await;
        assert!(ran.is_ok(), "schedule {seed} fails; PARSECFS_SEED={seed} PARSECFS_SCHEDULES=1 repeats it");
    }
}
