//! Every backend keeps the storage contract: one suite for all.

use std::{path::Path, sync::Arc};

use parsecfs_backends::{
    conformance::{self, Identity, TestLogKeys, World},
    memory::MemoryServer,
    objects::{self, Options, in_memory::InMemoryVerbs},
};
use parsecfs_core::{storage::Storage, time::Timestamp};

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_micros(i64::try_from(now.as_micros()).expect("in range")).expect("in range")
}

fn options(identity: &Identity, folder: &Path, clock: fn() -> Timestamp) -> Options {
    Options {
        state_dir: folder.join(identity.device.to_string()),
        signer: Arc::new(identity.copy()),
        keys: Arc::new(TestLogKeys::of(identity)),
        organization: "acme".to_owned(),
        root: *identity.root.verify_key().as_bytes(),
        clock: Arc::new(clock),
    }
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
