//! One device's view of an organization: founding, reopening, further devices, workspaces, and what is refused. Every
//! story is told on the strict memory storage and on a directory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use parsecfs_backends::{memory::MemoryServer, objects};
use parsecfs_core::{
    certificate::DevicePurpose,
    document::UnknownFields,
    id::{BlockId, DeviceId, RealmId, VlobId},
    local_device::LocalDevice,
    manifest::{BlockAccess, FileManifest, Manifest},
    name::{DeviceLabel, Email, EntryName, HumanHandle, OrganizationId},
    storage::{
        self, Block, BlockStore, Capabilities, CertificateBatch, CertificateCursor, CertificateStore, Changes, Event,
        EventSource, Invitations, KeysBundle, Statement, Storage, VlobRecord, VlobStore, VlobWrite, WriteOutcome,
    },
};
use parsecfs_crypto::sha256;
use parsecfs_vfs::{
    clock::{Clock, SystemClock},
    error::{Error, ErrorKind},
    organization::{Founding, NewOrganization, Organization, OrganizationKeys, open_recovery},
};

/// A clock that stands still, behind every certificate: timestamps must come out in order without its help.
struct StillClock;

impl Clock for StillClock {
    fn now_ns(&self) -> i64 {
        1_700_000_000_000_000_000
    }
}

/// When an append fails.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Cut {
    BeforeApply,
    AfterApply,
}

type Bend = Box<dyn Fn(&mut CertificateBatch) + Send + Sync>;

/// A storage that can be unreachable, lose answers, and lie about certificates.
struct Bent {
    /// `None` before the first connection.
    inner: Mutex<Option<Arc<dyn Storage>>>,
    offline: AtomicBool,
    /// Counts down the appends; the one that meets zero is cut.
    appends_left: AtomicUsize,
    cut: Mutex<Option<Cut>>,
    bend: Mutex<Option<Bend>>,
}

impl Bent {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(None),
            offline: AtomicBool::new(false),
            appends_left: AtomicUsize::new(0),
            cut: Mutex::new(None),
            bend: Mutex::new(None),
        })
    }

    fn inner(&self) -> Arc<dyn Storage> {
        Arc::clone(self.inner.lock().unwrap().as_ref().unwrap())
    }

    fn cut_append(&self, number: usize, cut: Cut) {
        self.appends_left.store(number, Ordering::SeqCst);
        *self.cut.lock().unwrap() = Some(cut);
    }

    fn set_offline(&self, offline: bool) {
        self.offline.store(offline, Ordering::SeqCst);
    }

    fn bend(&self, bend: impl Fn(&mut CertificateBatch) + Send + Sync + 'static) {
        *self.bend.lock().unwrap() = Some(Box::new(bend));
    }

    fn reachable(&self) -> storage::Result<()> {
        if self.offline.load(Ordering::SeqCst) {
            return Err(storage::Error::new(storage::ErrorKind::Offline, "unplugged"));
        }
        Ok(())
    }

    /// What happens to this append: `None` when it goes through. After a cut the storage stays unreachable.
    fn next_cut(&self) -> Option<Cut> {
        let cut = (*self.cut.lock().unwrap())?;
        if self.appends_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return None;
        }
        self.set_offline(true);
        Some(cut)
    }
}

impl CertificateStore for Bent {
    fn certificates<'a>(&'a self, cursor: &'a CertificateCursor) -> BoxFuture<'a, storage::Result<CertificateBatch>> {
        async move {
            self.reachable()?;
            let mut batch = self.inner().certificates(cursor).await?;
            if let Some(bend) = &*self.bend.lock().unwrap() {
                bend(&mut batch);
            }
            Ok(batch)
        }
        .boxed()
    }

    fn append<'a>(&'a self, statement: Statement) -> BoxFuture<'a, storage::Result<()>> {
        async move {
            self.reachable()?;
            let cut = self.next_cut();
            if cut != Some(Cut::BeforeApply) {
                self.inner().append(statement).await?;
            }
            self.reachable()
        }
        .boxed()
    }

    fn keys_bundle<'a>(&'a self, realm: RealmId, key_index: u64) -> BoxFuture<'a, storage::Result<KeysBundle>> {
        async move {
            self.reachable()?;
            self.inner().keys_bundle(realm, key_index).await
        }
        .boxed()
    }
}

impl VlobStore for Bent {
    fn read<'a>(&'a self, realm: RealmId, ids: &'a [VlobId]) -> BoxFuture<'a, storage::Result<Vec<VlobRecord>>> {
        async move { self.inner().read(realm, ids).await }.boxed()
    }

    fn read_versions<'a>(
        &'a self,
        realm: RealmId,
        items: &'a [(VlobId, u32)],
    ) -> BoxFuture<'a, storage::Result<Vec<VlobRecord>>> {
        async move { self.inner().read_versions(realm, items).await }.boxed()
    }

    fn commit<'a>(
        &'a self,
        realm: RealmId,
        writes: Vec<VlobWrite>,
    ) -> BoxFuture<'a, storage::Result<Vec<WriteOutcome>>> {
        async move { self.inner().commit(realm, writes).await }.boxed()
    }

    fn changes<'a>(&'a self, realm: RealmId, checkpoint: u64) -> BoxFuture<'a, storage::Result<Changes>> {
        async move { self.inner().changes(realm, checkpoint).await }.boxed()
    }
}

impl BlockStore for Bent {
    fn put<'a>(&'a self, realm: RealmId, blocks: Vec<(BlockId, Block)>) -> BoxFuture<'a, storage::Result<()>> {
        async move { self.inner().put(realm, blocks).await }.boxed()
    }

    fn get<'a>(&'a self, realm: RealmId, id: BlockId) -> BoxFuture<'a, storage::Result<Block>> {
        async move { self.inner().get(realm, id).await }.boxed()
    }
}

impl Invitations for Bent {}

impl EventSource for Bent {
    fn events(&self) -> BoxStream<'static, Event> {
        self.inner().events()
    }
}

impl Storage for Bent {
    fn capabilities(&self) -> Capabilities {
        self.inner().capabilities()
    }
}

/// Where an organization is kept.
#[derive(Clone)]
enum Place {
    Memory(Arc<MemoryServer>),
    Directory(Arc<tempfile::TempDir>),
}

impl Place {
    async fn connect(
        &self,
        device: &LocalDevice,
        keys: &Arc<OrganizationKeys>,
        state: PathBuf,
    ) -> Result<Arc<dyn Storage>, storage::Error> {
        match self {
            Self::Memory(server) => Ok(server.connect(device.device_id, device.user_id)),
            Self::Directory(dir) => {
                let options = objects::Options {
                    state_dir: state,
                    signer: keys.signer(),
                    keys: Arc::clone(keys) as Arc<dyn storage::LogKeys>,
                    organization: device.organization_id.as_str().to_owned(),
                    root: *device.root_verify_key.as_bytes(),
                    clock: Arc::new(|| SystemClock.now()),
                };
                Ok(objects::create(&dir.path().join("store").display().to_string(), options).await?)
            }
        }
    }
}

/// Tells each story on each place.
macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(|| super::Place::Memory(super::MemoryServer::new())).await;
            })*
        }
        mod directory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(|| super::Place::Directory(std::sync::Arc::new(tempfile::tempdir().unwrap()))).await;
            })*
        }
    };
}

stories!(
    a_founded_organization_opens_again_and_offline,
    without_a_local_copy_an_unreachable_storage_is_offline,
    a_damaged_local_copy_is_fetched_again,
    a_second_name_is_refused_and_nothing_is_made,
    a_workspace_cut_at_any_statement_is_made_exactly_once,
    a_second_device_by_recovery_sees_the_same_workspace,
    forged_reordered_and_hidden_certificates_are_refused_and_change_nothing,
    manifests_and_blocks_pass_between_devices_and_only_as_they_were_signed,
);

/// One person's machine: a device, its connection, its directory.
struct Machine {
    place: Place,
    device: LocalDevice,
    storage: Arc<Bent>,
    dir: tempfile::TempDir,
}

impl Machine {
    fn of(place: &Place, device: LocalDevice) -> Self {
        Self { place: place.clone(), device, storage: Bent::new(), dir: tempfile::tempdir().unwrap() }
    }

    async fn founder(place: &Place) -> Self {
        let new = NewOrganization {
            organization_id: OrganizationId::new("Org").unwrap(),
            human_handle: HumanHandle::new(Email::new("alice@example.com").unwrap(), "Alice").unwrap(),
            device_label: DeviceLabel::new("laptop").unwrap(),
            server_url: "memory:".to_owned(),
        };
        let founding = Founding::prepare(new, &SystemClock).unwrap();
        let machine = Self::of(place, founding.device().clone());
        machine.connect().await;
        founding.publish(&*machine.storage).await.unwrap();
        founding.publish(&*machine.storage).await.unwrap();
        machine
    }

    /// A fresh connection with fresh keys, as after a restart.
    async fn connect(&self) -> Arc<OrganizationKeys> {
        let keys = OrganizationKeys::new(&self.device);
        *self.storage.inner.lock().unwrap() = None;
        let inner = self.place.connect(&self.device, &keys, self.dir.path().join("storage")).await.unwrap();
        *self.storage.inner.lock().unwrap() = Some(inner);
        keys
    }

    async fn open(&self) -> Result<Arc<Organization>, Error> {
        let keys = self.connect().await;
        let storage = Arc::clone(&self.storage) as Arc<dyn Storage>;
        Organization::open(self.device.clone(), keys, storage, self.dir.path(), Arc::new(StillClock)).await
    }
}

fn notes() -> EntryName {
    EntryName::new("notes").unwrap()
}

async fn names(organization: &Organization) -> Vec<Option<EntryName>> {
    organization.workspaces().await.unwrap().into_iter().map(|workspace| workspace.name).collect()
}

async fn a_founded_organization_opens_again_and_offline(place: impl Fn() -> Place) {
    let at = place();
    let alice = Machine::founder(&at).await;
    let organization = alice.open().await.unwrap();
    let realm = organization.create_workspace(notes()).await.unwrap();
    drop(organization);

    alice.storage.set_offline(true);
    let organization = alice.open().await.unwrap();
    assert_eq!(names(&organization).await, [Some(notes())]);
    let prefix = &realm.to_string()[..8];
    for text in ["notes", prefix, &realm.to_string()] {
        assert_eq!(organization.find_workspace(text).await.unwrap().realm, realm);
    }
    assert_eq!(organization.find_workspace("others").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(organization.writable(realm));
    assert_eq!(organization.summary().workspaces, 1);
    assert!(organization.devices()[0].own && organization.users()[0].own);
}

async fn without_a_local_copy_an_unreachable_storage_is_offline(place: impl Fn() -> Place) {
    let at = place();
    let alice = Machine::founder(&at).await;
    alice.storage.set_offline(true);
    assert_eq!(alice.open().await.err().unwrap().kind(), ErrorKind::Offline);
}

async fn a_damaged_local_copy_is_fetched_again(place: impl Fn() -> Place) {
    let at = place();
    let alice = Machine::founder(&at).await;
    alice.open().await.unwrap().create_workspace(notes()).await.unwrap();
    let file: PathBuf = alice.dir.path().join("certificates.sqlite");
    std::fs::write(&file, [9; 4096]).unwrap();
    assert_eq!(names(&alice.open().await.unwrap()).await, [Some(notes())]);
}

async fn a_second_name_is_refused_and_nothing_is_made(place: impl Fn() -> Place) {
    let at = place();
    let alice = Machine::founder(&at).await;
    let organization = alice.open().await.unwrap();
    organization.create_workspace(notes()).await.unwrap();
    assert_eq!(organization.create_workspace(notes()).await.unwrap_err().kind(), ErrorKind::Exists);
    assert_eq!(organization.workspaces().await.unwrap().len(), 1);
}

/// Stops at each of the three statements, before and after it was applied, and starts anew with what is on disk.
async fn a_workspace_cut_at_any_statement_is_made_exactly_once(place: impl Fn() -> Place) {
    for number in 0..3 {
        for cut in [Cut::BeforeApply, Cut::AfterApply] {
            let at = place();
            let alice = Machine::founder(&at).await;
            let organization = alice.open().await.unwrap();
            alice.storage.cut_append(number, cut);
            let broken = organization.create_workspace(notes()).await;
            assert_eq!(broken.unwrap_err().kind(), ErrorKind::Offline, "{number} {cut:?}");
            drop(organization);

            *alice.storage.cut.lock().unwrap() = None;
            alice.storage.set_offline(false);
            let organization = alice.open().await.unwrap();
            if number > 0 || cut == Cut::AfterApply {
                assert_eq!(names(&organization).await, [Some(notes())], "finished by opening: {number} {cut:?}");
            } else {
                organization.create_workspace(notes()).await.unwrap();
            }
            let all = organization.workspaces().await.unwrap();
            assert_eq!(all.len(), 1, "{number} {cut:?}");
            assert_eq!(all[0].key_index, Some(1));
            assert_eq!(names(&organization).await, [Some(notes())]);
        }
    }
}

async fn a_second_device_by_recovery_sees_the_same_workspace(place: impl Fn() -> Place) {
    let at = place();
    let alice = Machine::founder(&at).await;
    let organization = alice.open().await.unwrap();
    let realm = organization.create_workspace(notes()).await.unwrap();
    let recovery = organization.export_recovery().await.unwrap();
    assert_eq!(open_recovery(&recovery.file, "AAAA").err().unwrap().kind(), ErrorKind::Locked);
    assert_eq!(open_recovery(b"no file", &recovery.passphrase).err().unwrap().kind(), ErrorKind::Corrupt);

    for label in ["phone", "tablet"] {
        let old = Machine::of(&at, open_recovery(&recovery.file, &recovery.passphrase).unwrap());
        let label = DeviceLabel::new(label).unwrap();
        let device = old.open().await.unwrap().create_device(label, DevicePurpose::Standard).await.unwrap();
        assert_eq!(device.user_id, alice.device.user_id);
        assert_ne!(device.device_id, alice.device.device_id);
        let fresh = Machine::of(&at, device);
        let second = fresh.open().await.unwrap();
        assert_eq!(second.find_workspace("notes").await.unwrap().realm, realm);
        let (ours, theirs) = (organization.realm_keys(realm).await.unwrap(), second.realm_keys(realm).await.unwrap());
        assert!(ours.key(1) == theirs.key(1));
    }
    organization.refresh().await.unwrap();
    assert_eq!(organization.devices().len(), 4);
}

async fn forged_reordered_and_hidden_certificates_are_refused_and_change_nothing(place: impl Fn() -> Place) {
    type Lie = fn(&mut CertificateBatch);
    let lies: [(&str, Lie); 4] = [
        ("forged", |batch| {
            let mut bytes = batch.common[0].to_vec();
            bytes[70] ^= 1;
            batch.common[0] = bytes.into();
        }),
        ("reordered", |batch| batch.common.swap(0, 1)),
        ("doubled", |batch| batch.common.push(batch.common[0].clone())),
        ("hidden", |batch| {
            for realm in batch.realm.values_mut() {
                realm.remove(0);
            }
            batch.common.clear();
        }),
    ];
    for (what, lie) in lies {
        let at = place();
        let alice = Machine::founder(&at).await;
        let organization = alice.open().await.unwrap();
        let label = DeviceLabel::new("other").unwrap();
        let other = organization.create_device(label, DevicePurpose::Standard).await.unwrap();
        let elsewhere = Machine::of(&at, other);
        let elsewhere = elsewhere.open().await.unwrap();
        for label in ["one", "two"] {
            let label = DeviceLabel::new(label).unwrap();
            elsewhere.create_device(label, DevicePurpose::Standard).await.unwrap();
        }
        elsewhere.create_workspace(notes()).await.unwrap();
        alice.storage.bend(lie);
        assert_eq!(organization.refresh().await.unwrap_err().kind(), ErrorKind::Untrusted, "{what}");
        assert_eq!(organization.devices().len(), 2, "{what}");
        assert!(organization.workspaces().await.unwrap().is_empty(), "{what}");
        *alice.storage.bend.lock().unwrap() = None;
        organization.refresh().await.unwrap();
        assert_eq!(organization.devices().len(), 4, "{what}");
        assert_eq!(names(&organization).await, [Some(notes())], "{what}");
    }
}

/// One device writes, the other reads; then the storage claims what was not signed.
async fn manifests_and_blocks_pass_between_devices_and_only_as_they_were_signed(place: impl Fn() -> Place) {
    let at = place();
    let machine = Machine::founder(&at).await;
    let ours = machine.open().await.unwrap();
    let realm = ours.create_workspace(notes()).await.unwrap();
    let other = ours.create_device(DeviceLabel::new("other").unwrap(), DevicePurpose::Standard).await.unwrap();
    let elsewhere = Machine::of(&at, other);
    let theirs = elsewhere.open().await.unwrap();

    let (block, clear) = (BlockId::from_bytes([5; 16]), b"some bytes");
    let access = BlockAccess { id: block, offset: 0, size: 10, digest: *sha256(clear).as_bytes() };
    let timestamp = ours.next_timestamp(realm);
    let manifest = Manifest::File(FileManifest {
        author: ours.device_id(),
        timestamp,
        id: VlobId::from_bytes([6; 16]),
        parent: realm.root(),
        version: 1,
        created: timestamp,
        updated: timestamp,
        size: 10,
        blocksize: 524_288,
        blocks: vec![access],
        extension: None,
        unknown: UnknownFields::default(),
    });
    assert_eq!(theirs.seal_block(realm, block, clear).unwrap_err().kind(), ErrorKind::Stale, "no key loaded");
    ours.realm_keys(realm).await.unwrap();
    let sealed = ours.seal_manifest(realm, &manifest).unwrap();
    let sealed_block = ours.seal_block(realm, block, clear).unwrap();
    let record = VlobRecord {
        id: manifest.id(),
        version: 1,
        key_index: sealed.key_index,
        author: ours.device_id(),
        timestamp,
        blob: sealed.bytes,
    };

    assert_eq!(theirs.open_manifest(realm, &record).unwrap_err().kind(), ErrorKind::Stale, "no key loaded");
    theirs.realm_keys(realm).await.unwrap();
    assert_eq!(theirs.open_manifest(realm, &record).unwrap(), manifest);
    assert_eq!(theirs.open_block(realm, &access, &sealed_block).unwrap(), clear);

    let refused = |record: &VlobRecord| theirs.open_manifest(realm, record).unwrap_err().kind();
    assert_eq!(refused(&VlobRecord { version: 2, ..record.clone() }), ErrorKind::Untrusted);
    assert_eq!(refused(&VlobRecord { timestamp: timestamp.next(), ..record.clone() }), ErrorKind::Untrusted);
    assert_eq!(refused(&VlobRecord { author: theirs.device_id(), ..record.clone() }), ErrorKind::Untrusted);
    assert_eq!(refused(&VlobRecord { id: VlobId::from_bytes([7; 16]), ..record.clone() }), ErrorKind::Corrupt);
    assert_eq!(refused(&VlobRecord { key_index: 2, ..record.clone() }), ErrorKind::Stale);
    let stranger = DeviceId::from_bytes([9; 16]);
    assert_eq!(refused(&VlobRecord { author: stranger, ..record.clone() }), ErrorKind::Stale);
    let mut flipped = sealed_block.bytes.to_vec();
    flipped[30] ^= 1;
    let flipped = Block { key_index: 1, bytes: flipped.into() };
    assert_eq!(theirs.open_block(realm, &access, &flipped).unwrap_err().kind(), ErrorKind::Corrupt);
}
