//! Several devices work on one workspace: all end with the same tree, and nothing that anybody wrote is lost. Every
//! story is told with the strict local tree in memory and with the real one.
//!
//! The random part runs one schedule per seed; `PARSECFS_SEEDS` says how many, `PARSECFS_SEED` runs that one only.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a failed schedule is shown step by step")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use parsecfs_backends::layer::{fault::Fault, record::Record};
use parsecfs_core::{
    id::RealmId,
    keys_bundle::KeysBundleAccess,
    manifest::Manifest,
    statement::{self, Author},
    storage::{Capabilities, VlobWrite, WriteOutcome},
};
use parsecfs_crypto::SecretKey;
use parsecfs_tests::{
    pair::{Pair, settle},
    simulation::{Device, Party, TreeKind, capabilities},
};
use parsecfs_vfs::{
    error::ErrorKind,
    sync::{Sync, SyncOptions},
    tree::LocalContent,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::runtime::Handle;

/// Tells each story with each local tree.
macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        mod fake_tree {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::TreeKind::Fake).await;
            })*
        }
        mod real_tree {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::TreeKind::Real).await;
            })*
        }
    };
}

stories!(
    changes_travel_both_ways,
    a_file_changed_on_both_sides_becomes_two,
    equal_changes_do_not_conflict,
    saving_by_rename_on_both_sides_keeps_both,
    a_change_survives_a_removal_on_the_other_side,
    a_change_survives_the_removal_of_its_folder,
    a_removal_that_meets_no_change_stays,
    folders_moved_into_each_other_are_separated,
    a_hole_before_the_last_block_is_not_published,
    attributes_changed_on_both_sides_are_both_kept,
    a_lost_answer_is_no_conflict,
    a_new_key_is_taken_up,
    a_clock_that_lags_does_not_stop_uploads,
    a_block_that_got_lost_before_its_commit_is_put_again,
    an_entry_too_large_for_the_storage_waits_alone,
    a_damaged_manifest_hurts_only_its_entry,
);

/// Two devices that share a file `a.txt` with content `base`.
async fn shared(kind: TreeKind) -> Pair {
    let pair = Pair::new(2, kind, capabilities(true)).await;
    pair.one.create("a.txt", b"base");
    pair.one.sync().await;
    pair.two.sync().await;
    assert_eq!(pair.two.at("a.txt").await.unwrap(), b"base");
    pair
}

/// Both settle, one of them first.
async fn settle_after(pair: &Pair, first: usize) {
    pair.both()[first].sync().await;
    settle(&[&pair.two, &pair.one]).await;
}

async fn changes_travel_both_ways(kind: TreeKind) {
    let Pair { one, two, party: _party, .. } = shared(kind).await;
    two.write("a.txt", b"from two");
    two.create_folder("docs");
    two.create("docs/b", &[5; 100]);
    two.sync().await;
    one.sync().await;
    assert_eq!(one.at("a.txt").await.unwrap(), b"from two");
    assert_eq!(one.at("docs/b").await.unwrap(), [5; 100]);
}

async fn a_file_changed_on_both_sides_becomes_two(kind: TreeKind) {
    let pair = shared(kind).await;
    pair.one.write("a.txt", b"one");
    pair.two.write("a.txt", b"two");
    pair.settle().await;
    assert_eq!(pair.one.at("a.txt").await.unwrap(), b"one");
    assert_eq!(pair.one.at("a (Parsec sync conflict 2).txt").await.unwrap(), b"two");
}

async fn equal_changes_do_not_conflict(kind: TreeKind) {
    let pair = shared(kind).await;
    pair.one.write("a.txt", b"the same on both");
    pair.two.write("a.txt", b"the same on both");
    pair.settle().await;
    assert_eq!(pair.one.content().await.len(), 1);
}

async fn saving_by_rename_on_both_sides_keeps_both(kind: TreeKind) {
    let pair = shared(kind).await;
    for (device, bytes) in [(&pair.one, b"one"), (&pair.two, b"two")] {
        device.create("tmp", bytes);
        device.rename("tmp", "a.txt");
    }
    pair.settle().await;
    assert_eq!(pair.one.at("a.txt").await.unwrap(), b"one");
    assert_eq!(pair.one.at("a (Parsec - name conflict).txt").await.unwrap(), b"two");
}

async fn a_change_survives_a_removal_on_the_other_side(kind: TreeKind) {
    for first in [0, 1] {
        let pair = shared(kind).await;
        pair.one.remove("a.txt");
        pair.two.write("a.txt", b"still needed");
        settle_after(&pair, first).await;
        assert_eq!(pair.one.at("a.txt").await.unwrap(), b"still needed");
    }
}

async fn a_change_survives_the_removal_of_its_folder(kind: TreeKind) {
    for first in [0, 1] {
        let pair = shared(kind).await;
        pair.one.create_folder("docs");
        pair.one.create("docs/b", b"old");
        pair.settle().await;
        pair.one.remove("docs");
        pair.two.write("docs/b", b"new");
        settle_after(&pair, first).await;
        assert_eq!(pair.one.at("docs/b").await.unwrap(), b"new");
    }
}

async fn a_removal_that_meets_no_change_stays(kind: TreeKind) {
    let pair = shared(kind).await;
    pair.one.remove("a.txt");
    pair.settle().await;
    assert!(pair.two.content().await.is_empty());
}

async fn folders_moved_into_each_other_are_separated(kind: TreeKind) {
    let pair = shared(kind).await;
    pair.one.create_folder("a");
    pair.one.create_folder("b");
    pair.settle().await;
    pair.one.rename("a", "b/a");
    pair.two.rename("b", "a/b");
    pair.settle().await;
    assert_eq!(pair.one.content().await.len(), 3);
}

async fn a_hole_before_the_last_block_is_not_published(kind: TreeKind) {
    let Pair { one, two, party: _party, .. } = shared(kind).await;
    let LocalContent::File { blocksize, .. } = one.entry("a.txt").content else { panic!("a file") };
    let size = blocksize * 3 + 7;
    one.extend("a.txt", size);
    one.sync().await;
    two.sync().await;
    let mut expected = b"base".to_vec();
    expected.resize(usize::try_from(size).unwrap(), 0);
    assert_eq!(two.read("a.txt").await, expected);
    let Some(Manifest::File(file)) = two.entry("a.txt").base else { panic!("a file") };
    let last = file.blocks.last().unwrap().offset / file.blocksize;
    assert_eq!(file.blocks.len() as u64, last + 1);
}

async fn attributes_changed_on_both_sides_are_both_kept(kind: TreeKind) {
    let pair = shared(kind).await;
    pair.one.set_mode("a.txt", 0o600);
    pair.two.set_mtime("a.txt", 5);
    pair.settle().await;
    for device in [&pair.one, &pair.two] {
        let extension = device.extension("a.txt");
        assert_eq!((extension.mode, extension.mtime_ns), (Some(0o600), Some(5)));
    }
}

async fn a_lost_answer_is_no_conflict(kind: TreeKind) {
    let pair = shared(kind).await;
    pair.one.write("a.txt", b"stored, but the answer got lost");
    let before = pair.one.snapshot();
    pair.one.sync().await;
    // The same device, as it was before it heard of its own upload.
    let one = pair.party.device_with(0, pair.realm, before);
    settle(&[&one, &pair.two]).await;
    assert_eq!(one.content().await.len(), 1);
    assert_eq!(one.entry("a.txt").base.unwrap().version(), 2, "nothing was stored twice");
}

/// Another device gave the realm a new key.
async fn rotate_key(party: &Party, realm: RealmId) {
    let organization = party.organization(1);
    organization.refresh().await.unwrap();
    let previous = organization.realm_keys(realm).await.unwrap().all().unwrap();
    let device = organization.device();
    let author =
        Author { device: device.device_id, key: &device.signing_key, timestamp: organization.next_timestamp(realm) };
    let members = [(device.user_id, device.private_key.public_key())];
    let access = KeysBundleAccess { keys_bundle_key: SecretKey::generate() };
    let statement =
        statement::rotate_key(realm, previous, SecretKey::generate(), &access, members, &Default::default(), &author)
            .unwrap();
    party.storage(1).append(statement).await.unwrap();
}

async fn a_new_key_is_taken_up(kind: TreeKind) {
    let pair = shared(kind).await;
    rotate_key(&pair.party, pair.realm).await;
    pair.one.write("a.txt", b"with the new key");
    pair.one.create("b", b"too");
    pair.settle().await;
    assert_eq!(pair.two.at("a.txt").await.unwrap(), b"with the new key");
    let records = pair.party.storage(0).read(pair.realm, &[pair.one.id("a.txt"), pair.one.id("b")]).await.unwrap();
    assert!(records.iter().all(|record| record.key_index == 2));
}

async fn a_clock_that_lags_does_not_stop_uploads(kind: TreeKind) {
    let pair = shared(kind).await;
    // The other device's clock is a day ahead, and what it signs is the latest.
    let Some(Manifest::File(mut file)) = pair.two.entry("a.txt").base else { panic!("a file") };
    let ahead = file.timestamp.as_micros() + 24 * 3600 * 1_000_000;
    file.timestamp = parsecfs_core::time::Timestamp::from_micros(ahead).unwrap();
    (file.version, file.author) = (2, pair.party.organization(1).device_id());
    store(&pair, &Manifest::File(file)).await;
    pair.one.write("a.txt", b"later, says who is behind");
    pair.settle().await;
    let timestamp = pair.one.entry("a.txt").base.unwrap().timestamp();
    assert!(timestamp.as_micros() > ahead);
    assert_eq!(pair.two.at("a.txt").await.unwrap(), b"later, says who is behind");
}

/// As a database does. Each block needs a fresh id, so ids tell how many are sent.
#[tokio::test]
async fn a_file_that_is_written_to_while_it_goes_up_sends_no_block_twice() {
    let pair = Pair::new(2, TreeKind::Real, capabilities(true)).await;
    let (party, realm, one) = (pair.party, pair.realm, Arc::new(pair.one));
    let bytes: Vec<u8> = (0..8_u8).flat_map(|block| vec![block + 1; 512 << 10]).collect();
    one.create("database", &bytes);
    let ids = Arc::new(AtomicU8::new(0));
    let (counted, writer) = (ids.clone(), one.clone());
    let random = move || {
        let id = counted.fetch_add(1, Ordering::Relaxed);
        if [3, 6].contains(&id) {
            writer.set_mode("database", 0o600 + u32::from(id));
        }
        [100 + id; 16]
    };
    let options = SyncOptions { random: Arc::new(random), ..SyncOptions::new(party.clock.clone()) };
    let sync = Sync::stepped(one.tree(), party.organization(0).clone(), realm, Handle::current(), &options);
    sync.sync_now().await.unwrap();
    assert_eq!(ids.load(Ordering::Relaxed), 8);
    pair.two.sync().await;
    assert_eq!(pair.two.at("database").await.unwrap(), bytes);
}

/// Stores a manifest as the second device, past its sync.
async fn store(pair: &Pair, manifest: &Manifest) {
    let sealed = pair.party.organization(1).seal_manifest(pair.realm, manifest).unwrap();
    let write = VlobWrite {
        id: manifest.id(),
        version: manifest.version(),
        key_index: sealed.key_index,
        timestamp: manifest.timestamp(),
        blob: sealed.bytes,
        new_blocks: Vec::new(),
    };
    let outcomes = pair.party.storage(1).commit(pair.realm, vec![write]).await.unwrap();
    assert_eq!(outcomes, [WriteOutcome::Stored]);
}

async fn a_block_that_got_lost_before_its_commit_is_put_again(kind: TreeKind) {
    let pair = shared(kind).await;
    pair.one.write("a.txt", b"its block gets lost");
    pair.party.server.lose_next_put();
    pair.settle().await;
    assert_eq!(pair.two.at("a.txt").await.unwrap(), b"its block gets lost");
}

async fn an_entry_too_large_for_the_storage_waits_alone(kind: TreeKind) {
    let pair = Pair::new(2, kind, Capabilities { block_bytes_max: 4096, ..capabilities(true) }).await;
    pair.one.create_folder("folder");
    pair.one.create("folder/small", b"fits");
    pair.one.sync().await;
    let large = match kind {
        // Its slots are small, so its manifest grows instead.
        TreeKind::Fake => return,
        TreeKind::Real => vec![3; 10_000],
    };
    pair.one.create("folder/large", &large);
    pair.one.write("folder/small", b"goes on");
    let report = pair.one.sync.sync_now().await.unwrap();
    assert_eq!(report.problems, 1);
    let problem = pair.one.sync.status().unwrap().problems.remove(0);
    assert_eq!((problem.kind, problem.id, problem.upload), (ErrorKind::TooLarge, pair.one.id("folder/large"), true));
    pair.two.sync().await;
    assert_eq!(pair.two.at("folder/small").await.unwrap(), b"goes on");
    // It becomes small enough.
    pair.one.write("folder/large", b"not any more");
    pair.settle().await;
    assert_eq!(pair.two.at("folder/large").await.unwrap(), b"not any more");
    assert!(pair.one.sync.status().unwrap().problems.is_empty());
}

async fn a_damaged_manifest_hurts_only_its_entry(kind: TreeKind) {
    let pair = shared(kind).await;
    pair.one.create("b", b"old");
    pair.settle().await;
    let id = pair.one.id("a.txt");
    let stored = pair.party.storage(1).read(pair.realm, &[id]).await.unwrap().remove(0);
    let timestamp = pair.party.organization(1).next_timestamp(pair.realm);
    let mut blob = stored.blob.to_vec();
    *blob.last_mut().unwrap() ^= 1;
    let write =
        VlobWrite { id, version: 2, key_index: stored.key_index, timestamp, blob: blob.into(), new_blocks: Vec::new() };
    let outcomes = pair.party.storage(1).commit(pair.realm, vec![write]).await.unwrap();
    assert_eq!(outcomes, [WriteOutcome::Stored]);
    pair.one.write("b", b"new");
    pair.one.sync().await;
    pair.two.sync().await;
    assert_eq!(pair.two.at("b").await.unwrap(), b"new");
    assert_eq!(pair.two.at("a.txt").await.unwrap(), b"base");
    for device in [&pair.one, &pair.two] {
        let problems = device.sync.status().unwrap().problems;
        let kinds: Vec<_> = problems.iter().map(|problem| (problem.id, problem.kind, problem.upload)).collect();
        assert_eq!(kinds, [(id, ErrorKind::Corrupt, false)]);
    }
}

#[tokio::test]
async fn readers_of_one_block_share_one_fetch() {
    use futures::future::join_all;
    use parsecfs_backends::layer::Call;
    use parsecfs_vfs::{organization::Organization, sync::RemoteBlocks, tree::BlockSource};

    let pair = shared(TreeKind::Fake).await;
    let Some(Manifest::File(file)) = pair.one.entry("a.txt").base else { panic!("a file") };
    let device = pair.party.organization(0).device().clone();
    let record = Record::new(pair.party.storage(0));
    let dir = tempfile::tempdir().unwrap();
    let keys = parsecfs_vfs::organization::OrganizationKeys::new(&device);
    let clock = pair.party.clock.clone();
    let organization = Organization::open(device, keys, record.clone(), dir.path(), clock).await.unwrap();
    let blocks = RemoteBlocks::new(organization, pair.realm, tokio::runtime::Handle::current());
    record.take();
    let fetched = join_all((0..8).map(|_| blocks.fetch(&file.blocks[0]))).await;
    assert!(fetched.into_iter().all(|bytes| bytes.unwrap() == b"base"));
    assert_eq!(record.take().get(&Call::Get), Some(&1));
    // What arrived is not kept here: that is the local store's duty.
    blocks.fetch(&file.blocks[0]).await.unwrap();
    assert_eq!(record.take().get(&Call::Get), Some(&1));
}

/// What the random part knows: every content that somebody wrote and nobody replaced or removed since knowing it.
struct Schedule {
    random: StdRng,
    counter: u32,
    /// Contents that must be somewhere at the end.
    written: BTreeSet<Vec<u8>>,
}

impl Schedule {
    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.random.random_range(0..all.len())]
    }

    async fn step(&mut self, device: &Device) {
        let paths: Vec<(String, bool)> = device.paths().into_iter().collect();
        let mut folders = vec![String::new()];
        folders.extend(paths.iter().filter(|(_, folder)| *folder).map(|(path, _)| format!("{path}/")));
        let folder = self.one_of(&folders).clone();
        let fresh = format!("{folder}{}", self.one_of(&["a", "b", "c.txt", "d"]));
        let free = !device.lists(&fresh);
        let some = (!paths.is_empty()).then(|| self.one_of(&paths).clone());
        match (self.random.random_range(0..13), some) {
            (0..=2, _) if free => {
                let bytes = self.content();
                println!("  create {fresh}: {}", self.counter);
                device.create(&fresh, &bytes);
            }
            (3, _) if free => {
                println!("  create folder {fresh}");
                device.create_folder(&fresh);
            }
            (4..=6, Some((path, false))) => {
                self.forget(device, &path).await;
                let bytes = self.content();
                println!("  write {path}: {}", self.counter);
                device.write(&path, &bytes);
            }
            (7, Some((path, _))) => {
                for (other, folder) in &paths {
                    if !folder && (*other == path || other.starts_with(&format!("{path}/"))) {
                        self.forget(device, other).await;
                    }
                }
                println!("  remove {path}");
                device.remove(&path);
            }
            (8..=9, Some((path, _))) if free && !folder.starts_with(&format!("{path}/")) => {
                println!("  move {path} to {fresh}");
                device.rename(&path, &fresh);
            }
            (11..=12, Some((path, false))) if free => {
                println!("  link {path} as {fresh}");
                device.link(&path, &fresh);
            }
            (10, Some((path, false))) => {
                // Saved by rename.
                let temporary = format!("{path}.tmp");
                if device.lists(&temporary) {
                    return;
                }
                self.forget(device, &path).await;
                let bytes = self.content();
                println!("  replace {path}: {}", self.counter);
                device.create(&temporary, &bytes);
                device.rename(&temporary, &path);
            }
            _ => {}
        }
    }

    async fn forget(&mut self, device: &Device, path: &str) {
        self.written.remove(&device.read(path).await);
    }

    fn content(&mut self) -> Vec<u8> {
        self.counter += 1;
        let length = self.random.random_range(4..60);
        let mut bytes = self.counter.to_be_bytes().to_vec();
        bytes.resize(length, 1);
        self.written.insert(bytes.clone());
        bytes
    }

    /// Something goes wrong somewhere in a round; then the device may be found as it was before.
    async fn broken_sync(&mut self, party: &Party, realm: RealmId, n: usize, device: &mut Device) {
        let before = device.snapshot();
        let fault = *self.one_of(&[Fault::FailBefore, Fault::FailAfter, Fault::Full, Fault::Stall]);
        let nth = self.random.random_range(0..8);
        println!("  {fault:?} at call {nth}");
        party.faults(n).plan(nth, fault);
        let failed = match tokio::time::timeout(Duration::from_secs(1), device.sync.sync_now()).await {
            Ok(result) => result.is_err(),
            Err(_stalled) => true,
        };
        party.faults(n).clear();
        if failed && self.random.random() {
            println!("  crash");
            *device = party.device_with(n, realm, before);
        }
    }
}

async fn run_seed(seed: u64, party: &Party, kind: TreeKind) {
    let mut schedule = Schedule { random: StdRng::seed_from_u64(seed), counter: 0, written: BTreeSet::new() };
    let realm = party.workspace().await;
    let mut devices: Vec<Device> = (0..3).map(|n| party.device(n, realm, kind)).collect();
    for _ in 0..schedule.random.random_range(5..60) {
        let n = schedule.random.random_range(0..devices.len());
        let action = schedule.random.random_range(0..11);
        println!("device {n}: action {action}");
        match action {
            0..=5 => schedule.step(&devices[n]).await,
            6 => drop(devices[n].sync.inbound_once().await),
            7 => drop(devices[n].sync.outbound_once().await),
            8 => devices[n].sync().await,
            9 => devices[n].apply_journal(),
            _ => schedule.broken_sync(party, realm, n, &mut devices[n]).await,
        }
    }
    let all: Vec<&Device> = devices.iter().collect();
    settle(&all).await;
    let late = party.device(3, realm, kind);
    settle(&[all[0], &late]).await;
    let content: BTreeMap<_, _> = late.content().await;
    let found: BTreeSet<Vec<u8>> = content.into_values().flatten().collect();
    let lost: Vec<_> = schedule.written.difference(&found).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

/// Half of the seeds on a storage that commits all or nothing, half on one that may apply a beginning.
async fn run_seeds(kind: TreeKind, default: u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = number("PARSECFS_SEED").map_or(0..number("PARSECFS_SEEDS").unwrap_or(default), |seed| seed..seed + 1);
    let parties = [Party::new(4, capabilities(true)).await, Party::new(4, capabilities(false)).await].map(Arc::new);
    for seed in seeds {
        println!("PARSECFS_SEED={seed}");
        run_seed(seed, &parties[usize::from(seed % 2 == 1)], kind).await;
    }
}

#[tokio::test(start_paused = true)]
async fn any_schedule_converges_and_loses_nothing() {
    run_seeds(TreeKind::Fake, 150).await;
}

#[tokio::test(start_paused = true)]
async fn any_schedule_converges_and_loses_nothing_on_the_real_tree() {
    run_seeds(TreeKind::Real, 30).await;
}

#[tokio::test]
async fn whoever_waits_has_what_would_rest_go_up_at_once() {
    const HOUR: Duration = Duration::from_secs(3600);
    let party = Party::new(1, capabilities(true)).await;
    let realm = party.workspace().await;
    let device = party.device(0, realm, TreeKind::Fake);
    device.create("a", b"just written");
    let options = SyncOptions { quiet: HOUR, quiet_max: HOUR, ..SyncOptions::new(party.clock.clone()) };
    let tree = device.tree();
    let sync = Sync::start(tree, party.organization(0).clone(), realm, Handle::current(), options);
    assert!(sync.wait_synced(Duration::from_secs(60)).await.unwrap());
    sync.stop().await;
}
