//! Every backend keeps the storage contract: one suite for all.

use std::{path::Path, sync::Arc};

use parsecfs_backends::{
    conformance::{self, Identity, World},
    layer::{fault::Faulty, record::Record},
    memory::MemoryServer,
    objects::{self, Options, in_memory::InMemoryVerbs},
};
use parsecfs_core::{
    id::{RealmId, VlobId},
    storage::{CertificateStore, ErrorKind, Storage, VlobStore, VlobWrite, WriteOutcome},
    time::Timestamp,
};

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_micros(i64::try_from(now.as_micros()).expect("in range")).expect("in range")
}

fn options(identity: &Identity, folder: &Path, clock: fn() -> Timestamp) -> Options {
    parsecfs_tests::objects::options(identity, folder.join(identity.device.to_string()), clock)
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    let server = MemoryServer::new();
    conformance::run(&|identity: &Identity| {
        let connection: Arc<dyn Storage> = server.connect(identity.device, identity.user);
        Box::pin(async move { connection })
    })
    .await;
}

#[tokio::test]
async fn layers_keep_the_contract() {
    let server = MemoryServer::new();
    conformance::run(&|identity: &Identity| {
        let connection: Arc<dyn Storage> = Faulty::new(Record::new(server.connect(identity.device, identity.user)));
        Box::pin(async move { connection })
    })
    .await;
}

#[tokio::test]
async fn objects_over_a_map_keep_the_contract() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let verbs = InMemoryVerbs::new();
    let epoch = || Timestamp::from_micros(0).expect("in range");
    let start = Timestamp::from_micros(1000).expect("in range");
    conformance::run_at(
        &|identity: &Identity| {
            let (verbs, options) = (Arc::clone(&verbs), options(identity, folder.path(), epoch));
            Box::pin(
                async move { objects::create_over(verbs, None, options).await.expect("opens") as Arc<dyn Storage> },
            )
        },
        World::founder(),
        start,
    )
    .await;
}

#[tokio::test]
async fn objects_in_a_directory_keep_the_contract() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().join("store");
    conformance::run(&|identity: &Identity| {
        let (place, options) = (place.clone(), options(identity, &folder.path().join("state"), now));
        Box::pin(async move {
            let location = format!("file://{}", place.display());
            objects::create(&location, options).await.expect("opens") as Arc<dyn Storage>
        })
    })
    .await;
}

/// A server takes a version that is signed before the one that it follows. Stores of our own do not, and the refusal
/// names that one's time and no other.
async fn versions_of_an_entry_rise_in_time(storage: &dyn Storage, world: &World, founder: &Identity) {
    let realm = RealmId::from_bytes([7; 16]);
    storage.append(world.bootstrap(founder)).await.expect("founds");
    storage.append(world.create_realm(founder, realm)).await.expect("makes a realm");
    storage.append(world.rotate(founder, realm, 0)).await.expect("makes a key");
    let (id, other) = (VlobId::from_bytes([1; 16]), VlobId::from_bytes([2; 16]));
    let between = world.tick();
    let first = world.write(id, 1, b"one", vec![]);
    assert_eq!(storage.commit(realm, vec![first.clone()]).await.expect("commits"), [WriteOutcome::Stored]);
    for early in [between, first.timestamp] {
        let stale = VlobWrite { timestamp: early, ..world.write(id, 2, b"two", vec![]) };
        let outcome = storage.commit(realm, vec![stale]).await.expect("answers");
        assert_eq!(outcome, [WriteOutcome::TimestampTooOld(first.timestamp)]);
    }
    // Another entry does not stand in the way.
    let elsewhere = VlobWrite { timestamp: between, ..world.write(other, 1, b"other", vec![]) };
    assert_eq!(storage.commit(realm, vec![elsewhere]).await.expect("commits"), [WriteOutcome::Stored]);
    let second = VlobWrite { timestamp: first.timestamp.next(), ..world.write(id, 2, b"two", vec![]) };
    assert_eq!(storage.commit(realm, vec![second]).await.expect("commits"), [WriteOutcome::Stored]);
}

#[tokio::test]
async fn memory_wants_versions_of_an_entry_in_the_order_of_their_times() {
    let (server, founder) = (MemoryServer::new(), World::founder());
    let storage = server.connect(founder.device, founder.user);
    versions_of_an_entry_rise_in_time(&*storage, &World::at(now()), &founder).await;
}

#[tokio::test]
async fn a_directory_wants_versions_of_an_entry_in_the_order_of_their_times() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let founder = World::founder();
    let location = folder.path().join("store").display().to_string();
    let storage = objects::create(&location, options(&founder, &folder.path().join("state"), now)).await;
    versions_of_an_entry_rise_in_time(&*storage.expect("opens"), &World::at(now()), &founder).await;
}

/// Several independent connections write into one directory at once: every commit is there once, nobody is alarmed.
#[tokio::test]
async fn racing_connections_of_a_directory_lose_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let location = folder.path().join("store").display().to_string();
    let founder = World::founder();
    let world = World::at(now());
    let realm = RealmId::from_bytes([7; 16]);
    let open = |name: String| {
        let (location, options) = (location.clone(), options(&founder, &folder.path().join(name), now));
        async move { objects::create(&location, options).await.expect("opens") }
    };
    let first = open("first".to_owned()).await;
    first.append(world.bootstrap(&founder)).await.expect("founds");
    first.append(world.create_realm(&founder, realm)).await.expect("makes a realm");
    first.append(world.rotate(&founder, realm, 0)).await.expect("makes a key");
    let writers = (0..4_u8).map(|writer| {
        let (world, open) = (&world, &open);
        async move {
            let storage = open(format!("state-{writer}")).await;
            for number in 0..5_u8 {
                let id = VlobId::from_bytes([writer * 16 + number; 16]);
                let outcome = storage.commit(realm, vec![world.write(id, 1, &[writer, number], vec![])]).await;
                assert_eq!(outcome.expect("commits"), [WriteOutcome::Stored]);
            }
        }
    });
    futures::future::join_all(writers).await;
    let items = first.changes(realm, 0).await.expect("reads").items;
    assert_eq!(items.len(), 20);
    assert!(items.iter().all(|(_, version)| *version == 1));
}

/// A store that was put back to an older state is named, by a connection that is open and by one that opens later.
#[tokio::test]
async fn a_store_that_goes_back_is_an_alarm() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let verbs = InMemoryVerbs::new();
    let founder = World::founder();
    let epoch = || Timestamp::from_micros(0).expect("in range");
    let world = World::at(Timestamp::from_micros(1000).expect("in range"));
    let realm = RealmId::from_bytes([7; 16]);
    let open = || objects::create_over(Arc::clone(&verbs) as _, None, options(&founder, folder.path(), epoch));
    let storage = open().await.expect("opens");
    storage.append(world.bootstrap(&founder)).await.expect("founds");
    storage.append(world.create_realm(&founder, realm)).await.expect("makes a realm");
    storage.append(world.rotate(&founder, realm, 0)).await.expect("makes a key");
    let write = world.write(VlobId::from_bytes([1; 16]), 1, b"one", vec![]);
    storage.commit(realm, vec![write]).await.expect("commits");
    let last = verbs.keys().into_iter().rfind(|key| key.contains(&format!("{realm}/log"))).expect("an entry");
    verbs.tamper(&last, None);
    let kind = |result: parsecfs_core::storage::Result<_>| result.err().map(|error| error.kind());
    assert_eq!(kind(storage.changes(realm, 0).await), Some(ErrorKind::Rollback));
    let later = open().await.expect("opens");
    assert_eq!(kind(later.changes(realm, 0).await), Some(ErrorKind::Rollback));
}
