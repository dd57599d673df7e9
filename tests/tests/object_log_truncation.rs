//! What a truncated log still knows, and what it must not believe. Found by schedules of the log's model.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use futures::{FutureExt, future::BoxFuture};
use parsecfs_backends::{
    conformance::{Identity, World},
    objects::{
        self, ObjectStorage,
        in_memory::InMemoryVerbs,
        maintenance::Patient,
        verbs::{Creation, Got, Listed, StoreTime, Verbs},
    },
};
use parsecfs_core::{
    certificate::RealmRole,
    id::{RealmId, VlobId},
    storage::{Bytes, CertificateStore, Result, VlobStore, VlobWrite, WriteOutcome},
    time::Timestamp,
};
use parsecfs_tests::objects::options;

const REALM: RealmId = RealmId::from_bytes([7; 16]);
const FILE: VlobId = VlobId::from_bytes([1; 16]);
const OTHER: VlobId = VlobId::from_bytes([2; 16]);
const FORTY_DAYS_MS: i64 = 40 * 24 * 3_600_000;

fn store_now(verbs: &InMemoryVerbs) -> Timestamp {
    Timestamp::from_micros(verbs.now().now_or_never().unwrap().unwrap().0 * 1000).unwrap()
}

async fn open(verbs: &Arc<InMemoryVerbs>, identity: &Identity, state: &Path) -> Arc<ObjectStorage> {
    open_over(Arc::clone(verbs) as _, Arc::clone(verbs), identity, state).await
}

async fn open_over(
    verbs: Arc<dyn Verbs>,
    clock: Arc<InMemoryVerbs>,
    identity: &Identity,
    state: &Path,
) -> Arc<ObjectStorage> {
    let options = options(identity, state, move || store_now(&clock));
    objects::create_over(verbs, None, options).await.unwrap()
}

async fn found(verbs: &Arc<InMemoryVerbs>, state: &Path) -> (World, Identity, Identity, Arc<ObjectStorage>) {
    verbs.advance_ms(3_600_000);
    let (founder, world) = (World::founder(), World::at(Timestamp::from_micros(1000).unwrap()));
    let person = World::person(&founder);
    let storage = open(verbs, &founder, state).await;
    storage.append(world.bootstrap(&founder)).await.unwrap();
    storage.append(world.create_realm(&founder, REALM)).await.unwrap();
    storage.append(world.rotate(&founder, REALM, 0)).await.unwrap();
    storage.append(world.create_user(&founder, &person)).await.unwrap();
    storage.append(world.share(&founder, REALM, &person, RealmRole::Contributor, 1)).await.unwrap();
    (world, founder, person, storage)
}

fn copy_of(verbs: &InMemoryVerbs) -> Arc<InMemoryVerbs> {
    let copy = InMemoryVerbs::new();
    copy.advance_ms(verbs.now().now_or_never().unwrap().unwrap().0);
    for key in verbs.keys() {
        copy.create_now(&key, &verbs.get_now(&key).unwrap());
    }
    copy
}

async fn stored(storage: &ObjectStorage, write: VlobWrite) {
    assert_eq!(storage.commit(REALM, vec![write]).await.unwrap(), [WriteOutcome::Stored]);
}

/// Schedule 563: a create that was late takes a number that truncation freed. Whoever walks back to an old version must
/// not take what lies there for it.
#[tokio::test]
async fn a_late_entry_below_the_boundary_is_no_old_version() {
    let folder = tempfile::tempdir().unwrap();
    let verbs = InMemoryVerbs::new();
    let (world, founder, person, storage) = found(&verbs, &folder.path().join("founder")).await;
    let fork = copy_of(&verbs);
    let late = open(&fork, &person, &folder.path().join("late")).await;
    stored(&late, world.write(FILE, 1, b"late", vec![])).await;
    let before = verbs.keys();
    stored(&storage, world.write(FILE, 1, b"one", vec![])).await;
    let is_new = |key: &String| key.contains("/log/") && !before.contains(key);
    let entry = verbs.keys().into_iter().find(is_new).unwrap();
    stored(&storage, world.write(FILE, 2, b"two", vec![])).await;
    stored(&storage, world.write(OTHER, 1, b"other", vec![])).await;
    verbs.advance_ms(FORTY_DAYS_MS);
    assert!(storage.truncate(REALM, Patient::default()).await.unwrap() > 0);
    assert_eq!(verbs.get_now(&entry), None, "the entry of version 1 is gone");
    verbs.create_now(&entry, &fork.get_now(&entry).unwrap());

    let fresh = open(&verbs, &founder, &folder.path().join("fresh")).await;
    assert_eq!(fresh.read_versions(REALM, &[(FILE, 1)]).await.unwrap(), []);
    assert_eq!(&*fresh.read(REALM, &[FILE]).await.unwrap()[0].blob, b"two");
}

/// A device whose write landed unseen comes back when its entry is truncated and its version is not the newest.
#[tokio::test]
async fn a_write_whose_entry_was_truncated_is_not_stored_again() {
    let folder = tempfile::tempdir().unwrap();
    let verbs = InMemoryVerbs::new();
    let (world, _, person, storage) = found(&verbs, &folder.path().join("founder")).await;
    let state = folder.path().join("person");
    let write = world.write(FILE, 1, b"unseen", vec![]);
    stored(&*open(&verbs, &person, &state).await, write.clone()).await;
    stored(&storage, world.write(FILE, 2, b"two", vec![])).await;
    stored(&storage, world.write(OTHER, 1, b"other", vec![])).await;
    verbs.advance_ms(FORTY_DAYS_MS);
    assert!(storage.truncate(REALM, Patient::default()).await.unwrap() > 0);

    let again = open(&verbs, &person, &state).await;
    assert_eq!(again.read_versions(REALM, &[(FILE, 1)]).await.unwrap(), [], "its bytes are gone");
    stored(&again, write.clone()).await;
    assert_eq!(again.read(REALM, &[FILE]).await.unwrap()[0].version, 2);
    let other = VlobWrite { timestamp: write.timestamp.next(), ..write };
    assert_eq!(again.commit(REALM, vec![other]).await.unwrap(), [WriteOutcome::Conflict]);
}

/// A store where things happen between a look at one entry and its creation. It hides the bells, which would tell of
/// them too.
struct Interrupted {
    store: Arc<InMemoryVerbs>,
    entry: String,
    after_look: Mutex<Option<BoxFuture<'static, ()>>>,
    before_create: Mutex<Option<BoxFuture<'static, ()>>>,
    /// The time of the answer is asked for after it, instead of being its own.
    stamps_late: bool,
}

impl Verbs for Interrupted {
    fn create<'a>(&'a self, objects: &'a [(String, Bytes)]) -> BoxFuture<'a, Result<Creation>> {
        async move {
            if objects[0].0 == self.entry {
                let happens = self.before_create.lock().unwrap().take();
                if let Some(happens) = happens {
                    happens.await;
                }
            }
            self.store.create(objects).await
        }
        .boxed()
    }

    fn put_hint<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        self.store.put_hint(key, bytes)
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>> {
        async move {
            let mut got = self.store.get(key).await?;
            got.bytes.take_if(|_| key.starts_with("hint/bell-"));
            if key == self.entry && got.bytes.is_none() {
                let happens = self.after_look.lock().unwrap().take();
                if let Some(happens) = happens {
                    happens.await;
                    if self.stamps_late {
                        got.at = self.store.now().await?;
                    }
                }
            }
            Ok(got)
        }
        .boxed()
    }

    fn get_range<'a>(&'a self, key: &'a str, offset: u64, bytes: u64) -> BoxFuture<'a, Result<Option<Bytes>>> {
        self.store.get_range(key, offset, bytes)
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.store.delete(key)
    }

    fn list_after<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        self.store.list_after(prefix, after)
    }

    fn now(&self) -> BoxFuture<'_, Result<StoreTime>> {
        self.store.now()
    }
}

/// A writer looks for the end of the log. Weeks pass, others write on, the log is truncated just before it creates its
/// entry: that wins a number that others have forgotten. Returns whether a write that was acknowledged is there.
async fn acknowledged_is_there(stamps_late: bool) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let store = InMemoryVerbs::new();
    let (world, founder, person, others) = found(&store, &folder.path().join("founder")).await;
    // A role, a key, a share, and the first write below.
    let entry = format!("r/{REALM}/log/00000000/004");
    let (before_create, after_look) = (Mutex::default(), Mutex::default());
    let verbs = Arc::new(Interrupted { store: Arc::clone(&store), entry, after_look, before_create, stamps_late });
    let state = folder.path().join("person");
    let writer = open_over(Arc::clone(&verbs) as _, Arc::clone(&store), &person, &state).await;
    stored(&writer, world.write(OTHER, 1, b"first", vec![])).await;
    let (write, meanwhile) = (world.write(FILE, 1, b"mine", vec![]), world.write(OTHER, 2, b"meanwhile", vec![]));
    let last = world.write(OTHER, 3, b"last", vec![]);
    let (clock, truncating) = (Arc::clone(&store), Arc::clone(&others));
    *verbs.after_look.lock().unwrap() = Some(Box::pin(async move {
        stored(&others, meanwhile).await;
        stored(&others, last).await;
        clock.advance_ms(FORTY_DAYS_MS);
    }));
    *verbs.before_create.lock().unwrap() = Some(Box::pin(async move {
        assert!(truncating.truncate(REALM, Patient::default()).await.unwrap() > 0);
    }));
    while writer.commit(REALM, vec![write.clone()]).await.is_err() {}
    let fresh = open(&store, &founder, &folder.path().join("fresh")).await;
    !fresh.read(REALM, &[FILE]).await.unwrap().is_empty()
}

#[tokio::test]
async fn a_number_that_truncation_freed_is_not_won() {
    assert!(acknowledged_is_there(false).await);
    assert!(!acknowledged_is_there(true).await, "the time of an answer must be its own: this is what it is for");
}
