//! An organization in a directory of a real file system: full, read-only, foreign, synchronized, away.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use parsecfs_backends::{
    conformance::{Identity, World},
    layer::lazy::Lazy,
    objects::{self, ObjectStorage, Options, invitation::Guest},
};
use parsecfs_core::{
    id::{InvitationToken, RealmId, VlobId},
    storage::{
        CertificateCursor, CertificateStore, ErrorKind, Event, EventSource, Invited, Result, Statement, Storage,
        VlobStore, WriteOutcome,
    },
    time::Timestamp,
};

const REALM: RealmId = RealmId::from_bytes([7; 16]);

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(now.as_micros()).unwrap()).unwrap()
}

fn options(identity: &Identity, state: &Path) -> Options {
    parsecfs_tests::objects::options(identity, state, now)
}

/// An organization with a realm that has a key.
async fn found(store: &Path, state: &Path) -> (World, Identity, Arc<ObjectStorage>) {
    let (founder, world) = (World::founder(), World::at(now()));
    let storage = objects::create(store.to_str().unwrap(), options(&founder, state)).await.unwrap();
    storage.append(world.bootstrap(&founder)).await.unwrap();
    storage.append(world.create_realm(&founder, REALM)).await.unwrap();
    storage.append(world.rotate(&founder, REALM, 0)).await.unwrap();
    (world, founder, storage)
}

async fn open(store: &Path, identity: &Identity, state: &Path) -> Result<Arc<ObjectStorage>> {
    objects::open(store.to_str().unwrap(), options(identity, state)).await
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn vlob(number: u8) -> VlobId {
    VlobId::from_bytes([number; 16])
}

/// A small file system in memory that goes away when dropped; `None` (after saying SKIP) who may not mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("SKIP: cannot mount a small file system here");
        None
    }

    fn remount(&self, how: &str) {
        let option = format!("remount,{how}");
        assert!(Command::new("mount").args(["-o", &option]).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is left behind shows in the temporary directory.
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_full_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new("1m") else { return };
    let state = tempfile::tempdir().unwrap();
    let store = disk.0.path().join("store");
    let (world, _, storage) = found(&store, state.path()).await;
    let large = vec![1; 2 << 20];
    assert_eq!(kind(storage.commit(REALM, vec![world.write(vlob(1), 1, &large, vec![])]).await), Some(ErrorKind::Full));
    // Nothing was changed, and what fits goes on.
    assert!(storage.changes(REALM, 0).await.unwrap().items.is_empty());
    let small = world.write(vlob(1), 1, b"small", vec![]);
    assert_eq!(storage.commit(REALM, vec![small]).await.unwrap(), [WriteOutcome::Stored]);
    disk.remount("size=16m");
    let large = world.write(vlob(2), 1, &large, vec![]);
    assert_eq!(storage.commit(REALM, vec![large]).await.unwrap(), [WriteOutcome::Stored]);
}

#[tokio::test]
async fn a_read_only_disk_is_read_and_refuses_writes() {
    let Some(disk) = SmallDisk::new("4m") else { return };
    let state = tempfile::tempdir().unwrap();
    let store = disk.0.path().join("store");
    let (world, founder, storage) = found(&store, state.path()).await;
    storage.commit(REALM, vec![world.write(vlob(1), 1, b"one", vec![])]).await.unwrap();
    drop(storage);
    disk.remount("ro");
    let storage = open(&store, &founder, &state.path().join("again")).await.unwrap();
    assert_eq!(storage.changes(REALM, 0).await.unwrap().items, [(vlob(1), 1)]);
    let write = world.write(vlob(2), 1, b"two", vec![]);
    assert_eq!(kind(storage.commit(REALM, vec![write]).await), Some(ErrorKind::Denied));
}

#[tokio::test]
async fn what_is_no_organization_of_ours_is_refused_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let (_, founder, storage) = found(&store, &dir.path().join("state")).await;
    drop(storage);
    let again = dir.path().join("again");
    let other = Identity { root: parsecfs_crypto::SigningKey::generate(), ..founder.copy() };
    assert_eq!(kind(open(&store, &other, &again).await), Some(ErrorKind::Denied), "another organization");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(kind(open(&empty, &founder, &again).await), Some(ErrorKind::Offline), "nothing mounted there");
    assert_eq!(kind(open(&dir.path().join("away"), &founder, &again).await), Some(ErrorKind::Offline), "away");
    let format = fs::read_to_string(store.join("format")).unwrap();
    for (text, expected) in [
        (format.replace("version 1", "version 2"), ErrorKind::Unsupported),
        (format.replace("features", "features sharding"), ErrorKind::Unsupported),
        ("a letter".to_owned(), ErrorKind::Corrupt),
    ] {
        fs::write(store.join("format"), text).unwrap();
        assert_eq!(kind(open(&store, &founder, &again).await), Some(expected));
    }
    fs::write(store.join("format"), format).unwrap();
    fs::create_dir(dir.path().join(".stfolder")).unwrap();
    assert_eq!(kind(open(&store, &founder, &again).await), Some(ErrorKind::Denied), "synchronized by a tool");
}

#[tokio::test]
async fn a_conflict_copy_is_an_alarm_of_its_log_alone_and_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let (world, founder, storage) = found(&store, &dir.path().join("state")).await;
    let other = RealmId::from_bytes([8; 16]);
    storage.append(world.create_realm(&founder, other)).await.unwrap();
    storage.append(world.rotate(&founder, other, 0)).await.unwrap();
    for realm in [REALM, other] {
        storage.commit(realm, vec![world.write(vlob(1), 1, b"one", vec![])]).await.unwrap();
    }
    let see = CertificateCursor::default();
    let open = async || open(&store, &founder, &dir.path().join("again")).await.unwrap();
    for name in
        ["002.sync-conflict-20261125-021500-ABCDEFG", "002 (conflicted copy 2026-11-25)", "002_conflict-20261125"]
    {
        let log = store.join(format!("r/{REALM}/log/00000000"));
        let copy = log.join(name);
        fs::copy(log.join("002"), &copy).unwrap();
        let again = open().await;
        for _ in 0..2 {
            assert_eq!(kind(again.changes(REALM, 0).await), Some(ErrorKind::Rollback), "{name}");
            let seen = again.certificates(&see).await.unwrap();
            assert!(!seen.realm.contains_key(&REALM) && seen.realm.contains_key(&other), "{name}");
            assert_eq!(again.changes(other, 0).await.unwrap().items, [(vlob(1), 1)]);
        }
        // Who has looked before goes on and does not take it for an entry.
        assert_eq!(storage.changes(REALM, 0).await.unwrap().items, [(vlob(1), 1)]);
        fs::remove_file(copy).unwrap();
        assert_eq!(again.changes(REALM, 0).await.unwrap().items, [(vlob(1), 1)], "it was put right");
        assert!(again.certificates(&see).await.unwrap().realm.contains_key(&REALM));
    }
    let log = store.join("org/log/00000000");
    fs::copy(log.join("001"), log.join("001.sync-conflict-20261125")).unwrap();
    assert_eq!(kind(open().await.certificates(&see).await), Some(ErrorKind::Rollback), "of the organization");
}

#[tokio::test]
async fn a_commit_wakes_other_devices() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let (world, founder, storage) = found(&store, &dir.path().join("state")).await;
    // Bells carry the device that rang: another one listens.
    let person = World::person(&founder);
    storage.append(world.create_user(&founder, &person)).await.unwrap();
    let listener = open(&store, &person, &dir.path().join("other")).await.unwrap();
    let mut events = listener.events();
    assert_eq!(events.next().await, Some(Event::Missed));
    storage.commit(REALM, vec![world.write(vlob(1), 1, b"one", vec![])]).await.unwrap();
    let heard = async {
        while let Some(event) = events.next().await {
            if event == Event::Vlobs(REALM) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(1), heard).await.expect("heard within a second");
}

#[tokio::test]
async fn a_storage_that_is_away_at_first_is_opened_when_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (store, away) = (dir.path().join("store"), dir.path().join("away"));
    let (world, founder, storage) = found(&store, &dir.path().join("state")).await;
    drop(storage);
    fs::rename(&store, &away).unwrap();
    let waiting =
        objects::open_or_wait(store.to_str().unwrap(), options(&founder, &dir.path().join("again"))).await.unwrap();
    assert_eq!(waiting.capabilities(), objects::capabilities());
    assert_eq!(kind(waiting.changes(REALM, 0).await), Some(ErrorKind::Offline));
    let mut events = waiting.events();
    assert_eq!(events.next().await, Some(Event::Missed));
    fs::rename(&away, &store).unwrap();
    let write = world.write(vlob(1), 1, b"one", vec![]);
    assert_eq!(waiting.commit(REALM, vec![write]).await.unwrap(), [WriteOutcome::Stored]);
    assert_eq!(events.next().await, Some(Event::Online));
    assert_eq!(waiting.changes(REALM, 0).await.unwrap().items, [(vlob(1), 1)]);
}

#[tokio::test]
async fn the_lazy_layer_keeps_the_contract() {
    let server = parsecfs_backends::memory::MemoryServer::new();
    parsecfs_backends::conformance::run(&|identity: &Identity| {
        let (server, device, user) = (server.clone(), identity.device, identity.user);
        let connection: Arc<dyn Storage> = Lazy::new(server.connect(device, user).capabilities(), move || {
            let connection: Arc<dyn Storage> = server.connect(device, user);
            async move { Ok(connection) }.boxed()
        });
        async move { connection }.boxed()
    })
    .await;
}

#[tokio::test]
async fn a_sealed_recovery_device_is_there_for_who_knows_the_token_until_the_recovery_ends() {
    let (store, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let location = store.path().to_str().unwrap();
    let (world, alice, storage) = found(store.path(), &state.path().join("alice")).await;
    let bob = World::person(&alice);
    storage.append(world.create_user(&alice, &bob)).await.unwrap();
    let (setup, brief) = world.set_up_recovery(&alice, &bob);
    let Statement::SetUpRecovery { reveal_token, sealed_device, .. } = &setup else { unreachable!() };
    storage.append(setup.clone()).await.unwrap();
    let guest = Guest::open(location, InvitationToken::from_bytes([1; 16])).await.unwrap();
    assert_eq!(guest.reveal(*reveal_token).await.unwrap(), *sealed_device);
    let names = || fs::read_dir(store.path().join("rec")).unwrap().map(|entry| entry.unwrap().file_name());
    let name = names().next().unwrap().into_string().unwrap();
    assert!(!name.contains(&reveal_token.to_string()));

    // One that the rules refuse leaves nothing.
    let (again, _) = world.set_up_recovery(&alice, &bob);
    let Statement::SetUpRecovery { reveal_token: other, .. } = &again else { unreachable!() };
    assert_eq!(kind(storage.append(again.clone()).await), Some(ErrorKind::VersionConflict));
    assert_eq!(kind(guest.reveal(*other).await), Some(ErrorKind::NotFound));

    // What a crash left of a deletion goes with the next statement about it.
    let kept = fs::read(store.path().join("rec").join(&name)).unwrap();
    storage.append(world.delete_recovery(&alice, &brief)).await.unwrap();
    assert_eq!(kind(guest.reveal(*reveal_token).await), Some(ErrorKind::NotFound));
    fs::write(store.path().join("rec").join(&name), kept).unwrap();
    let (next, _) = world.set_up_recovery(&alice, &bob);
    storage.append(next).await.unwrap();
    assert_eq!(kind(guest.reveal(*reveal_token).await), Some(ErrorKind::NotFound));
    assert_eq!(names().count(), 1);
}

/// A person whose clock is late does not make a certificate that others would have to refuse together with the recovery.
#[tokio::test]
async fn people_and_recovery_are_one_sequence() {
    let (store, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (world, alice, storage) = found(store.path(), &state.path().join("alice")).await;
    let bob = World::person(&alice);
    storage.append(world.create_user(&alice, &bob)).await.unwrap();
    let early = world.create_user(&alice, &World::person(&alice));
    let (setup, brief) = world.set_up_recovery(&alice, &bob);
    storage.append(setup).await.unwrap();
    let error = storage.append(early).await.unwrap_err();
    assert_eq!((error.kind(), error.after()), (ErrorKind::VersionConflict, Some(brief.timestamp)));
}
