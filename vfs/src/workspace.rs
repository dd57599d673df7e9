//! One workspace on this device: its local tree, its sync, and at most one mount, put together.

use std::{
    collections::BTreeSet,
    fs::File,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use parsecfs_core::{
    id::{DeviceId, RealmId, VlobId},
    time::Timestamp,
};
use parsecfs_crypto::local::LocalKey;
use tokio::runtime::Handle;

use crate::{
    adapter::{
        mount::{Mount, MountOptions},
        session::Agreed,
    },
    error::{Error, ErrorKind, Result},
    fs::{Damage, Housekeeper, Volume},
    notify::Notices,
    organization::Organization,
    store::{Recovery, Store},
    sync::{RemoteBlocks, Sync, SyncOptions, SyncReport, SyncStatus},
    tree::{LocalContent, LocalTree},
};

/// Keeps local store keys apart from other uses of the device's local key.
const STORE_KEY: &[u8; 8] = b"wkspace1";

/// Where and how a workspace is kept.
#[derive(Debug)]
pub struct WorkspaceOptions {
    /// Folder of the local store.
    pub dir: PathBuf,
    /// The most bytes of content to keep.
    pub cache_bytes_max: u64,
    /// User and group that entries from other devices belong to here.
    pub owner: (u32, u32),
    /// A file in memory that another process holds too, so that what is acknowledged survives this one.
    pub tape: Option<File>,
}

/// What a workspace is doing.
#[derive(Clone, Debug)]
pub struct WorkspaceStatus {
    /// Sync, both ways.
    pub sync: SyncStatus,
    /// Bytes of content kept.
    pub cache_bytes: u64,
    /// The most of them.
    pub cache_bytes_max: u64,
    /// Whether the role or the archiving of the workspace forbids changes.
    pub read_only: bool,
    /// Where it is mounted.
    pub mounted: Option<PathBuf>,
    /// What opening found.
    pub recovery: Recovery,
    /// Requests that ended in a defect of this program since it was opened.
    pub defects: u64,
}

/// The newest version of an entry that this device has verified.
#[derive(Clone, PartialEq, Eq)]
pub struct LastChange {
    /// From the root of the workspace.
    pub path: String,
    /// Which.
    pub id: VlobId,
    /// Of the entry's versions.
    pub version: u32,
    /// Device that signed it.
    pub author: DeviceId,
    /// When.
    pub at: Timestamp,
}

/// Without the path, which may not be logged.
impl std::fmt::Debug for LastChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LastChange").field("id", &self.id).field("version", &self.version).finish_non_exhaustive()
    }
}

/// An open workspace. [`Workspace::close`] ends it in order; dropping it loses nothing that was synced.
pub struct Workspace {
    organization: Arc<Organization>,
    realm: RealmId,
    store: Arc<Store>,
    volume: Arc<Volume>,
    sync: Sync,
    mount: Mutex<Option<Arc<Mount>>>,
    housekeeper: Mutex<Option<Housekeeper>>,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace").field("realm", &self.realm).finish_non_exhaustive()
    }
}

impl Workspace {
    /// Opens a workspace over its local store and starts to sync. Works offline.
    ///
    /// `Busy` when another process has it open, `Corrupt` when the store does not belong to this device or is damaged.
    pub async fn open(
        organization: Arc<Organization>,
        realm: RealmId,
        options: WorkspaceOptions,
        runtime: &Handle,
    ) -> Result<Arc<Self>> {
        let notices = Notices::default();
        let clock = organization.clock().clone();
        let (store, volume) = {
            let (clock, organization) = (clock.clone(), organization.clone());
            let open = move || {
                let key = LocalKey::derive(&organization.device().local_symkey, STORE_KEY);
                let store = match options.tape {
                    Some(tape) => Store::open_taped(&options.dir, &key, options.cache_bytes_max, tape)?,
                    None => Store::open(&options.dir, &key, options.cache_bytes_max)?,
                };
                let store = Arc::new(store);
                let volume = Volume::open(realm, store.clone(), clock, options.owner, notices)?;
                Ok::<_, Error>((store, Arc::new(volume)))
            };
            runtime
                .spawn_blocking(open)
                .await
                .map_err(|e| Error::new(ErrorKind::Internal, "open the local store").caused_by(e))??
        };
        let blocks = Arc::new(RemoteBlocks::new(organization.clone(), realm, runtime.clone()));
        volume.set_blocks(blocks, runtime.clone());
        let housekeeper = volume.keep_house()?;
        let tree: Arc<dyn LocalTree> = volume.clone();
        let sync = Sync::start(tree, organization.clone(), realm, runtime.clone(), SyncOptions::new(clock));
        let workspace = Arc::new(Self {
            organization,
            realm,
            store,
            volume,
            sync,
            mount: Mutex::new(None),
            housekeeper: Mutex::new(Some(housekeeper)),
        });
        workspace.follow_role();
        runtime.spawn(watch_role(Arc::downgrade(&workspace)));
        Ok(workspace)
    }

    /// Which.
    pub fn realm(&self) -> RealmId {
        self.realm
    }

    /// The organization it belongs to.
    pub fn organization(&self) -> &Arc<Organization> {
        &self.organization
    }

    /// The local tree.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Syncs now, both ways, until neither side has anything that the other lacks.
    pub async fn sync(&self) -> Result<SyncReport> {
        match self.flush_kernel().await {
            // A page came after the role had gone; the storage says better why than the kernel.
            Err(refused) if refused.kind() == ErrorKind::ReadOnly => {
                self.sync.sync_now().await?;
                Err(refused)
            }
            flushed => {
                flushed?;
                self.sync.sync_now().await
            }
        }
    }

    /// Waits until everything acknowledged here is on the storage; `false` when it takes longer.
    pub async fn wait_synced(&self, timeout: Duration) -> Result<bool> {
        self.flush_kernel().await?;
        self.sync.wait_synced(timeout).await
    }

    /// Who changed each entry last, as far as versions on the storage tell that this device has verified; by path. Asks
    /// the local store, so not for a runtime thread.
    pub fn last_changes(&self) -> Result<Vec<LastChange>> {
        let mut changes = Vec::new();
        let mut folders = vec![(String::new(), self.realm.root())];
        while let Some((path, id)) = folders.pop() {
            let Some(entry) = self.volume.load(id)? else { continue };
            if let LocalContent::Folder { children } = entry.content {
                folders.extend(children.iter().map(|(name, id)| (format!("{path}/{}", name.reveal()), *id)));
            }
            let Some(base) = entry.base else { continue };
            let path = if path.is_empty() { "/".to_owned() } else { path };
            changes.push(LastChange { path, id, version: base.version(), author: base.author(), at: base.timestamp() });
        }
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    /// What it is doing. Asks the local store, so not for a runtime thread.
    pub fn status(&self) -> Result<WorkspaceStatus> {
        Ok(WorkspaceStatus {
            sync: self.sync.status()?,
            cache_bytes: self.store.bytes(),
            cache_bytes_max: self.store.bytes_max(),
            read_only: !self.organization.writable(self.realm),
            mounted: self.mounted().map(|mount| mount.dir().to_owned()),
            recovery: self.store.recovery(),
            defects: self.volume.defects(),
        })
    }

    /// Opens everything that this device keeps and every block that the storage should have, and reports what does not
    /// open. An unreachable storage is an error, not damage.
    pub async fn check(&self) -> Result<Vec<Damage>> {
        /// Blocks fetched at one time.
        const IN_FLIGHT: usize = 4;
        let volume = self.volume.clone();
        let look = move || Ok::<_, Error>((volume.check()?, volume.blocks_on_storage()?));
        let (mut damage, blocks) = tokio::task::spawn_blocking(look)
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "check the local store").caused_by(e))??;
        let every = blocks.into_iter().flat_map(|(ino, blocks)| blocks.into_iter().map(move |block| (ino, block)));
        let mut fetches = stream::iter(every)
            .map(|(ino, block)| async move { (ino, self.volume.fetch(&[block]).await.map(drop)) })
            .buffer_unordered(IN_FLIGHT);
        let mut seen = BTreeSet::new();
        while let Some((ino, fetched)) = fetches.next().await {
            match fetched {
                Err(error) if error.kind() == ErrorKind::Offline => return Err(error),
                Err(error) if seen.insert(ino) => damage.push(self.volume.damage(ino, error)),
                _ => {}
            }
        }
        Ok(damage)
    }

    /// Mounts it on an empty folder, shown under `name` in the mount table. `Exists` when it is mounted already.
    pub fn mount(&self, dir: &Path, name: &str, options: &MountOptions) -> Result<Arc<Mount>> {
        let mut place = self.mount.lock();
        if let Some(mount) = place.as_ref().filter(|mount| !mount.has_ended()) {
            return Err(Error::new(ErrorKind::Exists, format!("mounted already at {}", mount.dir().display())));
        }
        let mount = Arc::new(Mount::start(&self.volume, dir, name, options)?);
        *place = Some(mount.clone());
        Ok(mount)
    }

    /// Goes on with a mount that another process of this workspace left. The store was opened with that one's tape.
    pub fn resume(&self, dir: &Path, descriptor: OwnedFd, agreed: Agreed) -> Result<Arc<Mount>> {
        let mount = Arc::new(Mount::resume(&self.volume, dir, descriptor, agreed)?);
        *self.mount.lock() = Some(mount.clone());
        Ok(mount)
    }

    /// Ends everything but the mount, which another process goes on with: see [`Mount::hand_over`].
    pub async fn hand_over(&self) -> Result<()> {
        self.sync.stop().await;
        let store = self.store.clone();
        // While programs are still answered: what is left to do then is little.
        if !matches!(tokio::task::spawn_blocking(move || store.apply()).await, Ok(Ok(()))) {
            tracing::warn!("the index is brought up to date by the next process");
        }
        if let Some(mount) = self.mounted() {
            mount.hand_over().await?;
        }
        self.put_away().await
    }

    /// The mount, while there is one.
    pub fn mounted(&self) -> Option<Arc<Mount>> {
        self.mount.lock().as_ref().filter(|mount| !mount.has_ended()).cloned()
    }

    /// Unmounts, stops to sync and makes everything durable. `Busy` while something in the mount is in use; then
    /// nothing has ended.
    pub async fn close(&self) -> Result<()> {
        if let Some(mount) = self.mounted() {
            mount.unmount()?;
            mount.ended().await;
        }
        self.volume.end_orphans();
        self.sync.stop().await;
        self.put_away().await
    }

    async fn put_away(&self) -> Result<()> {
        let keeper = self.housekeeper.lock().take();
        let store = self.store.clone();
        let close = move || {
            drop(keeper);
            store.close()
        };
        tokio::task::spawn_blocking(close)
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "close the local store").caused_by(e))?
    }

    /// Has the kernel hand over what it holds back of files that are still being written.
    async fn flush_kernel(&self) -> Result<()> {
        let Some(mount) = self.mounted() else { return Ok(()) };
        let flush = move || mount.flush();
        tokio::task::spawn_blocking(flush)
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "flush the mount").caused_by(e))?
    }

    fn follow_role(&self) {
        self.volume.set_read_only(!self.organization.writable(self.realm));
    }
}

/// Shows a change of role in the live mount. Certificates come in with sync.
async fn watch_role(workspace: Weak<Workspace>) {
    /// A role changes seldom, and asking is cheap.
    const EVERY: Duration = Duration::from_secs(1);
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(workspace) = workspace.upgrade() else { return };
        workspace.follow_role();
    }
}
