//! Several processes commit to one directory at once, each with a device of its own, all to the same file; one of them
//! is killed again and again. Nothing acknowledged is lost, nothing is there twice, every entry of the log counts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use parsecfs_backends::{
    conformance::{Identity, World},
    objects::{self, ObjectStorage},
};
use parsecfs_core::{
    certificate::RealmRole,
    storage::{CertificateStore, Storage, VlobStore},
};
use parsecfs_tests::{
    objects::options,
    processes::{FILE, REALM, content, now, write_identity},
};
use rand::Rng;

const WRITERS: usize = 3;
const COMMITS: u32 = 12;

async fn open(store: &Path, identity: &Identity, state: &Path) -> Arc<ObjectStorage> {
    let options = options(identity, state, now);
    objects::create(store.to_str().unwrap(), options).await.unwrap()
}

fn start(home: &Path, writer: usize) -> Child {
    let state = home.join(format!("writer-{writer}"));
    Command::new(env!("CARGO_BIN_EXE_object_writer"))
        .args([&home.join("store"), &state.with_extension("identity"), &state])
        .arg(COMMITS.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts a writer over and over and kills it somewhere between two of its words. Returns how often.
fn run_and_kill(home: &Path, writer: usize) -> u32 {
    let mut kills = 0;
    loop {
        let mut child = start(home, writer);
        let words = rand::rng().random_range(1..8);
        let heard = BufReader::new(child.stdout.take().unwrap()).lines().take(words).map_while(Result::ok).count();
        // A word more or less into the next commit, as the machine likes.
        for _ in 0..rand::rng().random_range(0..2000) {
            std::thread::yield_now();
        }
        if heard < words {
            assert!(child.wait().unwrap().success());
            return kills;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
}

fn run(home: &Path, writer: usize) {
    let mut child = start(home, writer);
    // Read, so that the pipe never fills.
    BufReader::new(child.stdout.take().unwrap()).lines().for_each(drop);
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn processes_that_race_and_die_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (home, store) = (dir.path(), dir.path().join("store"));
    let (founder, world) = (World::founder(), World::at(now()));
    let storage = open(&store, &founder, &home.join("founder")).await;
    storage.append(world.bootstrap(&founder)).await.unwrap();
    storage.append(world.create_realm(&founder, REALM)).await.unwrap();
    storage.append(world.rotate(&founder, REALM, 0)).await.unwrap();
    let mut devices = Vec::new();
    for writer in 0..WRITERS {
        let person = World::person(&founder);
        storage.append(world.create_user(&founder, &person)).await.unwrap();
        storage.append(world.share(&founder, REALM, &person, RealmRole::Contributor, 1)).await.unwrap();
        fs::create_dir(home.join(format!("writer-{writer}"))).unwrap();
        write_identity(&home.join(format!("writer-{writer}.identity")), &person).unwrap();
        devices.push(person.device);
    }
    let kills = std::thread::scope(|scope| {
        for writer in 1..WRITERS {
            scope.spawn(move || run(home, writer));
        }
        run_and_kill(home, 0)
    });
    assert!(kills > 0, "somebody died");

    let fresh = open(&store, &founder, &home.join("fresh")).await;
    let total = u32::try_from(WRITERS).unwrap() * COMMITS;
    let versions: Vec<_> = (1..=total + 1).map(|version| (FILE, version)).collect();
    let records = fresh.read_versions(REALM, &versions).await.unwrap();
    let stored: BTreeMap<u32, _> = records.iter().map(|record| (record.version, record.blob.to_vec())).collect();
    let mut acknowledged = BTreeMap::new();
    for (writer, device) in devices.iter().enumerate() {
        let notes = fs::read_to_string(home.join(format!("writer-{writer}/acknowledged"))).unwrap();
        for note in notes.lines() {
            let (number, version) = note.split_once(' ').unwrap();
            acknowledged.insert(version.parse::<u32>().unwrap(), content(*device, number.parse().unwrap()));
        }
    }
    assert_eq!(acknowledged.len(), total as usize, "each write was acknowledged at a version of its own");
    assert_eq!(stored, acknowledged);
    let verified = fresh.verify(&[REALM], &|_| true).await.unwrap().unwrap();
    assert_eq!((verified.void, verified.damaged), (0, vec![]), "no operation number was used twice");
    let of_realm = 2 + WRITERS as u64 + u64::from(total);
    let of_organization = 2 + WRITERS as u64;
    assert_eq!(verified.entries, of_organization + of_realm, "no entry but those");
}
