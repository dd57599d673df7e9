//! A revocation is in the organization's log; a realm's log learns of it by a fence, which any member writes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, sync::Arc};

use parsecfs_backends::{
    conformance::{Identity, World},
    objects::{self, ObjectStorage, in_memory::InMemoryVerbs},
};
use parsecfs_core::{
    certificate::RealmRole,
    id::{RealmId, VlobId},
    statement::{Author, revoke_user},
    storage::{CertificateCursor, CertificateStore, ErrorKind, Storage, VlobStore, WriteOutcome},
    time::Timestamp,
};
use parsecfs_tests::objects::options;

const REALM: RealmId = RealmId::from_bytes([7; 16]);

async fn open(verbs: &Arc<InMemoryVerbs>, identity: &Identity, state: &Path) -> Arc<ObjectStorage> {
    let options = options(identity, state, || Timestamp::from_micros(0).unwrap());
    objects::create_over(Arc::clone(verbs) as _, None, options).await.unwrap()
}

fn entries(verbs: &InMemoryVerbs) -> usize {
    verbs.keys().iter().filter(|key| key.starts_with(&format!("r/{REALM}/log/"))).count()
}

#[tokio::test]
async fn whoever_sees_a_revocation_fences_the_member_out_once() {
    let dir = tempfile::tempdir().unwrap();
    let verbs = InMemoryVerbs::new();
    let (founder, world) = (World::founder(), World::at(Timestamp::from_micros(1000).unwrap()));
    let (bob, carol) = (World::person(&founder), World::person(&founder));
    let alice = open(&verbs, &founder, &dir.path().join("alice")).await;
    alice.append(world.bootstrap(&founder)).await.unwrap();
    alice.append(world.create_realm(&founder, REALM)).await.unwrap();
    alice.append(world.rotate(&founder, REALM, 0)).await.unwrap();
    for (person, role) in [(&bob, RealmRole::Contributor), (&carol, RealmRole::Reader)] {
        alice.append(world.create_user(&founder, person)).await.unwrap();
        alice.append(world.share(&founder, REALM, person, role, 1)).await.unwrap();
    }
    let bobs = open(&verbs, &bob, &dir.path().join("bob")).await;
    let carols = open(&verbs, &carol, &dir.path().join("carol")).await;
    let write = |number: u8| world.write(VlobId::from_bytes([number; 16]), 1, &[number], vec![]);
    assert_eq!(bobs.commit(REALM, vec![write(1)]).await.unwrap(), [WriteOutcome::Stored]);

    let author = Author { device: founder.device, key: &founder.signing_key, timestamp: world.tick() };
    alice.append(revoke_user(bob.user, &author)).await.unwrap();
    // Nothing in the realm's log says so yet.
    assert_eq!(bobs.commit(REALM, vec![write(2)]).await.unwrap(), [WriteOutcome::Stored]);

    let before = entries(&verbs);
    let see = CertificateCursor::default();
    carols.certificates(&see).await.unwrap();
    assert_eq!(entries(&verbs), before, "a reader writes nothing");
    alice.certificates(&see).await.unwrap();
    alice.certificates(&see).await.unwrap();
    assert_eq!(entries(&verbs), before + 1);
    let refused = bobs.commit(REALM, vec![write(3)]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);

    // Who starts from a checkpoint knows of the fence too.
    alice.write_checkpoint(REALM).await.unwrap();
    let again = open(&verbs, &founder, &dir.path().join("again")).await;
    again.certificates(&see).await.unwrap();
    assert_eq!(entries(&verbs), before + 1);
    assert_eq!(again.changes(REALM, 0).await.unwrap().items.len(), 2);
    let verified = again.verify(&[REALM], &|_| true).await.unwrap().unwrap();
    assert_eq!((verified.void, verified.damaged), (0, vec![]));
}
