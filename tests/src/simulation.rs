//! Devices of one person on a storage in memory, for simulations of sync: one clock, planned faults, and local trees
//! that are the strict fake one or the real one, by the same words.

#![expect(clippy::unwrap_used, reason = "a simulation fails loudly")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use parsecfs_backends::{
    layer::fault::Faulty,
    memory::{MemoryServer, MemoryStorage},
};
use parsecfs_core::{
    certificate::DevicePurpose,
    id::{RealmId, VlobId},
    local_device::LocalDevice,
    manifest::Extension,
    name::{DeviceLabel, Email, EntryName, HumanHandle, OrganizationId},
    storage::{Capabilities, Storage},
};
use parsecfs_crypto::local::LocalKey;
use parsecfs_vfs::{
    clock::Clock,
    fs::{NewKind, ReadOutcome, RenameMode, SetAttributes, SetTime, Times, Volume, WriteOutcome},
    notify::Notices,
    organization::{Founding, NewOrganization, Organization, OrganizationKeys},
    store::Store,
    sync::{RemoteBlocks, Sync, SyncOptions},
    tree::{BlockSource, LocalContent, LocalEntry, LocalTree},
};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::{
    fake_tree::FakeTree,
    local_model::FORGETFUL,
    world::{ME, ROOT},
};

/// Moves a little with each look.
#[derive(Default)]
pub struct SimulatedClock(AtomicI64);

impl Clock for SimulatedClock {
    fn now_ns(&self) -> i64 {
        1_700_000_000_000_000_000 + self.0.fetch_add(1_000, Ordering::Relaxed)
    }
}

/// Limits of the storage in simulations: commits are small, so that they have several.
#[must_use]
pub fn capabilities(atomic_commit: bool) -> Capabilities {
    Capabilities {
        block_bytes_max: 1 << 20,
        vlob_bytes_max: 1 << 20,
        commit_writes_max: 4,
        atomic_commit,
        enforces_roles: true,
        invitations: false,
        event_latency_ms: Some(0),
    }
}

/// An organization in memory and the devices of its founder.
pub struct Party {
    /// The storage.
    pub server: Arc<MemoryServer>,
    /// What time it is for everybody.
    pub clock: Arc<dyn Clock>,
    members: Vec<Member>,
    ids: Arc<AtomicU64>,
    workspaces: AtomicU64,
}

/// One device with the organization opened.
struct Member {
    organization: Arc<Organization>,
    storage: Arc<MemoryStorage>,
    faults: Arc<Faulty>,
    _dir: TempDir,
}

impl Party {
    /// A new organization with this many devices.
    pub async fn new(devices: usize, capabilities: Capabilities) -> Self {
        let server = MemoryServer::with_capabilities(capabilities);
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::default());
        let new = NewOrganization {
            organization_id: OrganizationId::new("Org").unwrap(),
            human_handle: HumanHandle::new(Email::new("alice@example.com").unwrap(), "Alice").unwrap(),
            device_label: DeviceLabel::new("founder").unwrap(),
            server_url: "memory:".to_owned(),
        };
        let founding = Founding::prepare(new, &*clock).unwrap();
        let founder = founding.device().clone();
        founding.publish(&*server.connect(founder.device_id, founder.user_id)).await.unwrap();
        let mut party = Self { server, clock, members: Vec::new(), ids: Arc::default(), workspaces: AtomicU64::new(0) };
        party.join(founder).await;
        for n in 1..devices {
            let label = DeviceLabel::new(&format!("device {n}")).unwrap();
            let device = party.organization(0).create_device(label, DevicePurpose::Standard).await.unwrap();
            party.join(device).await;
        }
        party
    }

    async fn join(&mut self, device: LocalDevice) {
        let dir = tempfile::tempdir().unwrap();
        let keys = OrganizationKeys::new(&device);
        let storage = self.server.connect(device.device_id, device.user_id);
        let faults = Faulty::new(storage.clone());
        let organization =
            Organization::open(device, keys, faults.clone(), dir.path(), self.clock.clone()).await.unwrap();
        self.members.push(Member { organization, storage, faults, _dir: dir });
    }

    /// The organization as device `n` sees it.
    #[must_use]
    pub fn organization(&self, n: usize) -> &Arc<Organization> {
        &self.members[n].organization
    }

    /// The storage of device `n`, without its faults.
    #[must_use]
    pub fn storage(&self, n: usize) -> Arc<dyn Storage> {
        self.members[n].storage.clone()
    }

    /// What goes wrong for device `n`.
    #[must_use]
    pub fn faults(&self, n: usize) -> &Faulty {
        &self.members[n].faults
    }

    /// A new workspace that every device knows.
    pub async fn workspace(&self) -> RealmId {
        let name = format!("workspace {}", self.workspaces.fetch_add(1, Ordering::Relaxed));
        let realm = self.organization(0).create_workspace(EntryName::new(&name).unwrap()).await.unwrap();
        for member in &self.members {
            member.organization.refresh().await.unwrap();
            member.organization.realm_keys(realm).await.unwrap();
        }
        realm
    }

    /// Device `n` with an empty local tree.
    #[must_use]
    pub fn device(&self, n: usize, realm: RealmId, kind: TreeKind) -> Device {
        let local = match kind {
            TreeKind::Fake => Local::Fake(FakeTree::new(realm.root(), self.clock.clone())),
            TreeKind::Real => Local::open(realm, &self.clock, tempfile::tempdir().unwrap()),
        };
        self.device_with(n, realm, local)
    }

    /// Device `n` with a local tree that was there before.
    #[must_use]
    pub fn device_with(&self, n: usize, realm: RealmId, local: Local) -> Device {
        let organization = self.organization(n).clone();
        let ids = self.ids.clone();
        let options = SyncOptions { random: Arc::new(move || spread(&ids)), ..SyncOptions::new(self.clock.clone()) };
        let blocks = Arc::new(RemoteBlocks::new(organization.clone(), realm, Handle::current()));
        if let Local::Real { volume, .. } = &local {
            volume.set_blocks(blocks.clone(), Handle::current());
        }
        let sync = Sync::stepped(local.tree(), organization, realm, Handle::current(), &options);
        Device { realm, local, sync, blocks, ids: self.ids.clone(), clock: self.clock.clone() }
    }
}

/// Fresh ids, spread so that their order says nothing, and the same in every run.
fn spread(ids: &AtomicU64) -> [u8; 16] {
    let n = ids.fetch_add(1, Ordering::Relaxed) + 1;
    let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&spread.to_be_bytes());
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// Which local tree a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeKind {
    /// The strict one in memory.
    Fake,
    /// The one that is mounted, over its store on disk.
    Real,
}

/// A local tree.
pub enum Local {
    /// The strict one in memory.
    Fake(Arc<FakeTree>),
    /// The one that is mounted.
    Real {
        /// The tree.
        volume: Arc<Volume>,
        /// Where its store is.
        dir: TempDir,
    },
}

impl Local {
    fn open(realm: RealmId, clock: &Arc<dyn Clock>, dir: TempDir) -> Self {
        let store = Arc::new(Store::open(dir.path(), &LocalKey::from_bytes([7; 32]), u64::MAX).unwrap());
        let volume = Volume::open(realm, store, clock.clone(), (0, 0), Notices::default()).unwrap();
        volume.limit_memory(FORGETFUL);
        Self::Real { volume: Arc::new(volume), dir }
    }

    fn tree(&self) -> Arc<dyn LocalTree> {
        match self {
            Self::Fake(tree) => tree.clone(),
            Self::Real { volume, .. } => volume.clone(),
        }
    }
}

/// A device that works on a workspace. Paths are names with `/` between them.
pub struct Device {
    realm: RealmId,
    local: Local,
    /// Its sync.
    pub sync: Sync,
    /// Its way to blocks.
    pub blocks: Arc<RemoteBlocks>,
    ids: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
}

fn name(text: &str) -> EntryName {
    EntryName::new(text).unwrap()
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The inode of a path; the kernel refers to nothing afterwards.
fn inode(volume: &Volume, path: &str) -> u64 {
    let mut ino = ROOT;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        ino = volume.lookup(ino, name.as_bytes()).unwrap().ino;
        volume.forget(ino, 1);
    }
    ino
}

impl Device {
    /// The local tree, for a sync of one's own.
    #[must_use]
    pub fn tree(&self) -> Arc<dyn LocalTree> {
        self.local.tree()
    }

    /// Makes a file.
    pub fn create(&self, path: &str, bytes: &[u8]) {
        self.make(path, false);
        if !bytes.is_empty() {
            self.write(path, bytes);
        }
    }

    /// Makes a folder.
    pub fn create_folder(&self, path: &str) {
        self.make(path, true);
    }

    fn make(&self, path: &str, folder: bool) {
        let (parent, last) = split(path);
        match &self.local {
            Local::Fake(tree) => {
                tree.create(self.id(parent), &name(last), VlobId::from_bytes(spread(&self.ids)), folder);
            }
            Local::Real { volume, .. } => {
                let kind = if folder { NewKind::Folder } else { NewKind::File };
                let made = volume.create(inode(volume, parent), last.as_bytes(), kind, 0o644, ME).unwrap();
                volume.forget(made.ino, 1);
            }
        }
    }

    /// Replaces the content of a file.
    pub fn write(&self, path: &str, bytes: &[u8]) {
        match &self.local {
            Local::Fake(tree) => tree.write(self.id(path), bytes),
            Local::Real { volume, .. } => {
                self.set(path, SetAttributes { size: Some(0), ..SetAttributes::default() });
                let written = volume.write(inode(volume, path), 0, bytes, &Vec::new(), Times::Now).unwrap();
                assert!(matches!(written, WriteOutcome::Done), "a whole file needs nothing");
            }
        }
    }

    /// Makes a file longer without writing to it.
    pub fn extend(&self, path: &str, to: u64) {
        match &self.local {
            Local::Fake(tree) => tree.extend(self.id(path), to),
            Local::Real { .. } => self.set(path, SetAttributes { size: Some(to), ..SetAttributes::default() }),
        }
    }

    /// Sets the permission bits of an entry.
    pub fn set_mode(&self, path: &str, mode: u32) {
        match &self.local {
            Local::Fake(tree) => {
                let extension = Extension { mode: Some(mode), ..self.extension(path) };
                tree.set_extension(self.id(path), extension);
            }
            Local::Real { .. } => self.set(path, SetAttributes { mode: Some(mode), ..SetAttributes::default() }),
        }
    }

    /// Sets the time of an entry's last modification.
    pub fn set_mtime(&self, path: &str, mtime_ns: i64) {
        match &self.local {
            Local::Fake(tree) => {
                let extension = Extension { mtime_ns: Some(mtime_ns), ..self.extension(path) };
                tree.set_extension(self.id(path), extension);
            }
            Local::Real { .. } => {
                self.set(path, SetAttributes { mtime: Some(SetTime::At(mtime_ns)), ..SetAttributes::default() });
            }
        }
    }

    fn set(&self, path: &str, set: SetAttributes) {
        if let Local::Real { volume, .. } = &self.local {
            volume.set_attributes(inode(volume, path), set).unwrap();
        }
    }

    /// Removes an entry with everything in it, what is deepest first.
    pub fn remove(&self, path: &str) {
        let below = format!("{path}/");
        let mut gone: Vec<String> = self.paths().into_keys().filter(|other| other.starts_with(&below)).collect();
        gone.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
        gone.push(path.to_owned());
        for path in gone {
            let (parent, last) = split(&path);
            match &self.local {
                Local::Fake(tree) => tree.remove(self.id(parent), &name(last)),
                Local::Real { volume, .. } => {
                    let folder = inode(volume, parent);
                    match self.is_folder(&path) {
                        true => volume.rmdir(folder, last.as_bytes()).unwrap(),
                        false => volume.unlink(folder, last.as_bytes()).unwrap(),
                    }
                }
            }
        }
    }

    /// Moves an entry, over another one if there is one.
    pub fn rename(&self, from: &str, to: &str) {
        let ((from_parent, from_name), (to_parent, to_name)) = (split(from), split(to));
        match &self.local {
            Local::Fake(tree) => {
                tree.rename(self.id(from_parent), &name(from_name), self.id(to_parent), &name(to_name));
            }
            Local::Real { volume, .. } => {
                let (from, to) = (inode(volume, from_parent), inode(volume, to_parent));
                volume.rename(from, from_name.as_bytes(), to, to_name.as_bytes(), RenameMode::Replace).unwrap();
            }
        }
    }

    /// Gives a file another name. The strict tree in memory has no hard links: `false`.
    pub fn link(&self, path: &str, to: &str) -> bool {
        let (parent, last) = split(to);
        let Local::Real { volume, .. } = &self.local else { return false };
        let linked = volume.link(inode(volume, path), inode(volume, parent), last.as_bytes()).unwrap();
        volume.forget(linked.ino, 1);
        true
    }

    /// Inode and number of names of a path, on the real tree.
    #[must_use]
    pub fn inode(&self, path: &str) -> (u64, u32) {
        let Local::Real { volume, .. } = &self.local else { panic!("the strict tree has no inodes") };
        let ino = inode(volume, path);
        (ino, volume.attributes(ino).unwrap().links)
    }

    /// Every path, and whether it is a folder.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, bool> {
        match &self.local {
            Local::Fake(tree) => {
                let join = |path: Vec<EntryName>| path.iter().map(EntryName::reveal).collect::<Vec<_>>().join("/");
                tree.paths().into_iter().map(|(path, id)| (join(path), tree.is_folder(id))).collect()
            }
            Local::Real { volume, .. } => {
                let (mut found, mut todo) = (BTreeMap::new(), vec![(ROOT, String::new())]);
                while let Some((ino, prefix)) = todo.pop() {
                    assert!(prefix.matches('/').count() < 100, "a folder in itself");
                    let mut names = Vec::new();
                    let keep = |entry: &parsecfs_vfs::fs::ListedEntry, _: Option<&_>| {
                        names.push(entry.name.to_string());
                        true
                    };
                    volume.list(ino, 0, false, keep).unwrap();
                    for name in names {
                        let ino = volume.lookup(ino, name.as_bytes()).unwrap().ino;
                        let folder = volume.attributes(ino).unwrap().kind == parsecfs_vfs::Kind::Folder;
                        volume.forget(ino, 1);
                        let path = format!("{prefix}{name}");
                        if folder {
                            todo.push((ino, format!("{path}/")));
                        }
                        found.insert(path, folder);
                    }
                }
                found
            }
        }
    }

    /// Whether a path is a folder.
    #[must_use]
    pub fn is_folder(&self, path: &str) -> bool {
        path.is_empty() || self.paths()[path]
    }

    /// The entry of a path.
    #[must_use]
    pub fn id(&self, path: &str) -> VlobId {
        let mut id = self.realm.root();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let LocalContent::Folder { children } = self.load(id).content else { panic!("not a folder") };
            id = children[&name(part)];
        }
        id
    }

    /// Whether a folder lists a name, shown or not.
    #[must_use]
    pub fn lists(&self, path: &str) -> bool {
        let (parent, last) = split(path);
        match self.load(self.id(parent)).content {
            LocalContent::Folder { children } => children.contains_key(&name(last)),
            LocalContent::File { .. } => false,
        }
    }

    fn load(&self, id: VlobId) -> LocalEntry {
        self.local.tree().load(id).unwrap().unwrap()
    }

    /// What sync sees of a path.
    #[must_use]
    pub fn entry(&self, path: &str) -> LocalEntry {
        self.load(self.id(path))
    }

    /// POSIX attributes of a path.
    #[must_use]
    pub fn extension(&self, path: &str) -> Extension {
        self.entry(path).extension
    }

    /// Syncs until nothing is left to do.
    pub async fn sync(&self) {
        self.sync.sync_now().await.unwrap();
    }

    /// Whether nothing waits for upload.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.local.tree().pending(usize::MAX).unwrap().is_empty()
    }

    /// Every path with its content; folders have none.
    pub async fn content(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut found = BTreeMap::new();
        for (path, folder) in self.paths() {
            let bytes = if folder { None } else { Some(self.read(&path).await) };
            found.insert(path, bytes);
        }
        found
    }

    /// All bytes of a file.
    pub async fn read(&self, path: &str) -> Vec<u8> {
        match &self.local {
            Local::Fake(tree) => tree.read(self.id(path), &*self.blocks as &dyn BlockSource).await.unwrap(),
            Local::Real { volume, .. } => {
                let ino = inode(volume, path);
                let size = usize::try_from(volume.attributes(ino).unwrap().size).unwrap();
                match volume.read(ino, 0, size, &Vec::new()).unwrap() {
                    ReadOutcome::Data(bytes) => bytes,
                    ReadOutcome::Missing(blocks) => volume.read_fetching(ino, 0, size, blocks).await.unwrap(),
                }
            }
        }
    }

    /// The content of a path, `None` when there is no such file.
    pub async fn at(&self, path: &str) -> Option<Vec<u8>> {
        match self.paths().get(path) {
            Some(false) => Some(self.read(path).await),
            _ => None,
        }
    }

    /// The local tree as a crash would leave it now.
    #[must_use]
    pub fn snapshot(&self) -> Local {
        match &self.local {
            Local::Fake(tree) => Local::Fake(tree.snapshot()),
            Local::Real { volume, dir } => {
                volume.store().sync().unwrap();
                let copy = tempfile::tempdir().unwrap();
                for file in std::fs::read_dir(dir.path()).unwrap() {
                    let file = file.unwrap();
                    copy_all(&file.path(), &copy.path().join(file.file_name()));
                }
                Local::open(self.realm, &self.clock, copy)
            }
        }
    }

    /// Brings the index of the store up to date, as its background thread does now and then.
    pub fn apply_journal(&self) {
        if let Local::Real { volume, .. } = &self.local {
            volume.store().apply().unwrap();
        }
    }
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    if !from.is_dir() {
        std::fs::copy(from, to).unwrap();
        return;
    }
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        copy_all(&file.path(), &to.join(file.file_name()));
    }
}
