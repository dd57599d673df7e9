//! A store that shows two devices two histories, or hides the newest from one, is found out by what each writer says it
//! saw: the signed head in its bell. Nobody else is believed, and honest bells, however old, raise no alarm.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use parsecfs_backends::{
    conformance::{Identity, World},
    objects::{self, ObjectStorage, Options, maintenance::Patient},
};
use parsecfs_core::{
    certificate::RealmRole,
    id::{RealmId, VlobId},
    statement::{Author, revoke_user},
    storage::{CertificateCursor, CertificateStore, Error, ErrorKind, Result, Statement, VlobStore, WriteOutcome},
    time::Timestamp,
};
use parsecfs_crypto::SigningKey;
use parsecfs_tests::objects::options;
use tempfile::TempDir;

const REALM: RealmId = RealmId::from_bytes([7; 16]);
const HOUR_US: i64 = 3_600_000_000;

fn now_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

/// An organization in a directory, with a realm that Alice made and Bob and Carol write to.
struct Shop {
    dir: TempDir,
    world: World,
    alice: Identity,
    bob: Identity,
    carol: Identity,
    late_us: Arc<AtomicI64>,
}

impl Shop {
    async fn open() -> Self {
        let (alice, world) = (World::founder(), World::at(Timestamp::from_micros(now_us()).unwrap()));
        let (bob, carol) = (World::person(&alice), World::person(&alice));
        let shop = Self { dir: tempfile::tempdir().unwrap(), world, alice, bob, carol, late_us: Arc::default() };
        let store = shop.store("store");
        let storage = objects::create(store.to_str().unwrap(), shop.options(&shop.alice, "alice")).await.unwrap();
        storage.append(shop.world.bootstrap(&shop.alice)).await.unwrap();
        storage.append(shop.world.create_realm(&shop.alice, REALM)).await.unwrap();
        storage.append(shop.world.rotate(&shop.alice, REALM, 0)).await.unwrap();
        for person in [&shop.bob, &shop.carol] {
            storage.append(shop.world.create_user(&shop.alice, person)).await.unwrap();
            let share = shop.world.share(&shop.alice, REALM, person, RealmRole::Contributor, 1);
            storage.append(share).await.unwrap();
        }
        shop
    }

    fn store(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn options(&self, identity: &Identity, state: &str) -> Options {
        let late_us = Arc::clone(&self.late_us);
        options(identity, self.dir.path().join("state").join(state), move || {
            Timestamp::from_micros(now_us() + late_us.load(Ordering::Relaxed)).unwrap()
        })
    }

    /// A new session of a device.
    async fn session(&self, store: &str, identity: &Identity, state: &str) -> Arc<ObjectStorage> {
        objects::open(self.store(store).to_str().unwrap(), self.options(identity, state)).await.unwrap()
    }

    async fn write(&self, storage: &ObjectStorage, number: u8) {
        let write = self.world.write(VlobId::from_bytes([number; 16]), 1, &[number], vec![]);
        assert_eq!(storage.commit(REALM, vec![write]).await.unwrap(), [WriteOutcome::Stored]);
    }

    /// Writes in a session of its own.
    async fn visit(&self, store: &str, identity: &Identity, state: &str, number: u8) {
        self.write(&*self.session(store, identity, state).await, number).await;
    }

    fn fork(&self) {
        self.copy("store", "fork");
    }

    fn copy(&self, from: &str, to: &str) {
        let mut copy = Command::new("cp");
        copy.arg("-aT").args([self.store(from), self.store(to)]);
        assert!(copy.status().unwrap().success());
    }

    fn bell(&self, store: &str, log: &str, identity: &Identity) -> PathBuf {
        self.store(store).join(format!("hint/bell-{log}-{}", identity.device))
    }

    /// Lets the devices that read `fork` see what `identity` said to the other store.
    fn carry_over(&self, log: &str, identity: &Identity) {
        fs::copy(self.bell("store", log, identity), self.bell("fork", log, identity)).unwrap();
    }
}

fn realm_log() -> String {
    format!("r-{REALM}")
}

fn alarm<T>(result: Result<T>, device: &Identity, what: &str) {
    let error: Error = result.err().unwrap();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Rollback, "{text}");
    assert!(text.contains(&device.device.to_string()) && text.contains(what), "{text}");
}

async fn look(storage: &ObjectStorage) -> Result<usize> {
    Ok(storage.changes(REALM, 0).await?.items.len())
}

#[tokio::test]
async fn a_store_that_shows_two_histories_is_found_out_by_a_bell() {
    for more_here in [0, 1] {
        let shop = Shop::open().await;
        shop.fork();
        shop.visit("store", &shop.alice, "alice", 1).await;
        let bobs = shop.session("fork", &shop.bob, "bob").await;
        for number in 2..=2 + more_here {
            shop.write(&bobs, number).await;
        }
        shop.carry_over(&realm_log(), &shop.alice);
        alarm(look(&*shop.session("fork", &shop.bob, "again").await).await, &shop.alice, "another history");
        // The session that was there before looks again when an hour has passed, and then says it each time.
        assert_eq!(look(&bobs).await.unwrap(), usize::from(1 + more_here));
        shop.late_us.fetch_add(HOUR_US, Ordering::Relaxed);
        for _ in 0..2 {
            alarm(look(&bobs).await, &shop.alice, "another history");
        }
        let write = shop.world.write(VlobId::from_bytes([9; 16]), 1, b"9", vec![]);
        alarm(bobs.commit(REALM, vec![write]).await, &shop.alice, "another history");
    }
}

#[tokio::test]
async fn a_store_that_hides_the_newest_entries_is_found_out_by_a_bell() {
    let shop = Shop::open().await;
    shop.fork();
    shop.visit("store", &shop.alice, "alice", 1).await;
    shop.carry_over(&realm_log(), &shop.alice);
    let bobs = shop.session("fork", &shop.bob, "bob").await;
    alarm(look(&bobs).await, &shop.alice, "withholds");
    // It was only late.
    shop.copy(&format!("store/r/{REALM}"), &format!("fork/r/{REALM}"));
    assert_eq!(look(&bobs).await.unwrap(), 1);
}

/// Also of one whose log is hidden whole: then nobody is known to be a member.
#[tokio::test]
async fn a_store_that_hides_a_whole_workspace_is_found_out_by_a_bell() {
    let shop = Shop::open().await;
    fs::remove_dir_all(shop.store("store").join(format!("r/{REALM}/log"))).unwrap();
    alarm(look(&*shop.session("store", &shop.bob, "bob").await).await, &shop.alice, "withholds");
}

#[tokio::test]
async fn two_histories_of_the_organization_are_found_out_by_its_bell_and_by_that_of_a_workspace() {
    let shop = Shop::open().await;
    shop.fork();
    let revoke = |identity: &Identity| -> Statement {
        let author = Author { device: shop.alice.device, key: &shop.alice.signing_key, timestamp: shop.world.tick() };
        revoke_user(identity.user, &author)
    };
    let alices = shop.session("store", &shop.alice, "alice").await;
    alices.append(revoke(&shop.carol)).await.unwrap();
    shop.write(&alices, 1).await;
    let see = CertificateCursor::default();
    let bobs = shop.session("fork", &shop.bob, "bob").await;
    bobs.certificates(&see).await.unwrap();

    shop.carry_over("org", &shop.alice);
    let newer = shop.session("fork", &shop.bob, "newer").await;
    alarm(newer.certificates(&see).await, &shop.alice, "withholds");
    fs::remove_file(shop.bell("fork", "org", &shop.alice)).unwrap();
    assert!(newer.certificates(&see).await.is_ok());

    // The same log of the workspace, quoted with an organization that is not shown.
    shop.copy(&format!("store/r/{REALM}"), &format!("fork/r/{REALM}"));
    shop.carry_over(&realm_log(), &shop.alice);
    let error = look(&*shop.session("fork", &shop.bob, "newest").await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rollback, "{error}");
}

/// Whoever has the key of a realm can seal an entry and name any device as its author, which did not sign it.
#[tokio::test]
async fn an_entry_that_its_author_did_not_sign_raises_no_alarm_whatever_it_quotes() {
    let shop = Shop::open().await;
    shop.fork();
    let author = Author { device: shop.alice.device, key: &shop.alice.signing_key, timestamp: shop.world.tick() };
    let alices = shop.session("store", &shop.alice, "alice").await;
    alices.append(revoke_user(shop.carol.user, &author)).await.unwrap();
    let forger = Identity { signing_key: SigningKey::generate(), ..shop.alice.copy() };
    // The forger's own program takes it for stored.
    shop.visit("store", &forger, "forger", 9).await;
    shop.copy(&format!("store/r/{REALM}"), &format!("fork/r/{REALM}"));
    let bobs = shop.session("fork", &shop.bob, "bob").await;
    assert_eq!(look(&bobs).await.unwrap(), 0);
    bobs.certificates(&CertificateCursor::default()).await.unwrap();
    shop.write(&bobs, 1).await;
    assert_eq!(look(&bobs).await.unwrap(), 1);
}

#[tokio::test]
async fn a_bell_that_is_no_honest_device_speaking_of_this_log_is_ignored() {
    let shop = Shop::open().await;
    shop.fork();
    let alices = shop.session("store", &shop.alice, "alice").await;
    shop.write(&alices, 1).await;
    shop.visit("fork", &shop.bob, "bob", 2).await;
    let said = fs::read(shop.bell("store", &realm_log(), &shop.alice)).unwrap();
    let place = shop.bell("fork", &realm_log(), &shop.alice);
    let mut flipped = said.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let stranger = World::person(&shop.alice);
    for (what, place, bytes) in [
        ("no head at all", &place, &b"rung"[..]),
        ("empty", &place, &[]),
        ("flipped", &place, &flipped),
        ("another's", &shop.bell("fork", &realm_log(), &shop.carol), &said),
        ("of another log", &shop.bell("fork", "org", &shop.alice), &said),
        ("of nobody", &shop.bell("fork", &realm_log(), &stranger), &said),
    ] {
        let before = fs::read(place).ok();
        fs::write(place, bytes).unwrap();
        let session = shop.session("fork", &shop.bob, what).await;
        assert!(session.certificates(&CertificateCursor::default()).await.is_ok(), "{what}");
        assert_eq!(look(&session).await.unwrap(), 1, "{what}");
        match before {
            Some(before) => fs::write(place, before).unwrap(),
            None => fs::remove_file(place).unwrap(),
        }
    }
    fs::write(&place, &said).unwrap();
    alarm(look(&*shop.session("fork", &shop.bob, "honest").await).await, &shop.alice, "history");
}

#[tokio::test]
async fn a_revoked_device_raises_no_alarm() {
    let shop = Shop::open().await;
    let author = Author { device: shop.alice.device, key: &shop.alice.signing_key, timestamp: shop.world.tick() };
    let revocation = revoke_user(shop.carol.user, &author);
    shop.fork();
    shop.visit("store", &shop.carol, "carol", 1).await;
    shop.visit("fork", &shop.bob, "bob", 2).await;
    shop.carry_over(&realm_log(), &shop.carol);
    alarm(look(&*shop.session("fork", &shop.bob, "before").await).await, &shop.carol, "another history");
    shop.session("fork", &shop.alice, "alice").await.append(revocation).await.unwrap();
    assert_eq!(look(&*shop.session("fork", &shop.bob, "after").await).await.unwrap(), 1);
}

/// A head may be that of an entry which truncation took long ago, and whose number a late write got.
#[tokio::test]
async fn an_old_bell_says_nothing_below_the_boundary() {
    let shop = Shop::open().await;
    shop.fork();
    shop.visit("fork", &shop.carol, "elsewhere", 9).await;
    shop.visit("store", &shop.carol, "carol", 1).await;
    let entry = {
        let mut entries: Vec<_> = fs::read_dir(shop.store("store").join(format!("r/{REALM}/log/00000000")))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        entries.sort();
        PathBuf::from(format!("r/{REALM}/log/00000000")).join(entries.pop().unwrap())
    };
    let alices = shop.session("store", &shop.alice, "alice").await;
    let next = shop.world.write(VlobId::from_bytes([1; 16]), 2, b"next", vec![]);
    assert_eq!(alices.commit(REALM, vec![next]).await.unwrap(), [WriteOutcome::Stored]);
    shop.write(&alices, 3).await;
    assert_eq!(look(&*shop.session("store", &shop.bob, "lags").await).await.unwrap(), 2, "a bell may lag");
    assert!(alices.truncate(REALM, Patient::none()).await.unwrap() > 0);
    let place = shop.store("store").join(&entry);
    assert!(!place.exists(), "the entry that the bell names is gone");
    assert_eq!(look(&*shop.session("store", &shop.bob, "gone").await).await.unwrap(), 2);
    fs::copy(shop.store("fork").join(&entry), &place).unwrap();
    assert_eq!(look(&*shop.session("store", &shop.bob, "another").await).await.unwrap(), 2);
}

/// What the comparison costs: nothing between two hours.
#[tokio::test]
async fn bells_are_read_at_first_and_then_hourly() {
    let shop = Shop::open().await;
    shop.visit("store", &shop.alice, "alice", 1).await;
    let bobs = shop.session("store", &shop.bob, "bob").await;
    look(&bobs).await.unwrap();
    shop.fork();
    shop.visit("fork", &shop.alice, "elsewhere", 2).await;
    fs::copy(shop.bell("fork", &realm_log(), &shop.alice), shop.bell("store", &realm_log(), &shop.alice)).unwrap();
    assert_eq!(look(&bobs).await.unwrap(), 1, "not yet");
    shop.late_us.fetch_add(HOUR_US, Ordering::Relaxed);
    alarm(look(&bobs).await, &shop.alice, "withholds");
}

/// A head that this device remembers is compared as one that another says.
#[tokio::test]
async fn a_remembered_head_below_the_boundary_is_no_alarm() {
    let shop = Shop::open().await;
    shop.fork();
    shop.visit("fork", &shop.carol, "elsewhere", 9).await;
    shop.visit("store", &shop.carol, "carol", 1).await;
    look(&*shop.session("store", &shop.bob, "bob").await).await.unwrap();
    let alices = shop.session("store", &shop.alice, "alice").await;
    let next = shop.world.write(VlobId::from_bytes([1; 16]), 2, b"next", vec![]);
    assert_eq!(alices.commit(REALM, vec![next]).await.unwrap(), [WriteOutcome::Stored]);
    shop.write(&alices, 3).await;
    assert!(alices.truncate(REALM, Patient::none()).await.unwrap() > 0);
    let log = Path::new("r").join(REALM.to_string()).join("log/00000000");
    for entry in fs::read_dir(shop.store("fork").join(&log)).unwrap() {
        let name = entry.unwrap().file_name();
        let place = shop.store("store").join(&log).join(&name);
        if !place.exists() {
            fs::copy(shop.store("fork").join(&log).join(&name), place).unwrap();
        }
    }
    assert_eq!(look(&*shop.session("store", &shop.bob, "bob").await).await.unwrap(), 2);
}
