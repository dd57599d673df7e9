//! One workspace's tree on this device, in the words of a filesystem: lookup, create, rename, read, write.
//!
//! Operations answer from memory and the local store. The only thing that may be missing is content that was never
//! fetched: [`Volume::read`] and [`Volume::write`] then name the blocks, and the caller fetches and asks again. Nothing
//! here knows a kernel; `adapter` translates.
//!
//! Every change is logged in the store as one group of rows, under the locks that made it consistent.

pub(crate) mod ahead;
mod allocated;
mod attributes;
mod check;
mod copy;
mod create;
mod housekeeping;
mod link;
mod lookup;
pub(crate) mod orphan;
mod read;
mod reclaim;
mod remove;
mod rename;
mod tree;
mod write;
mod zeros;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::future::try_join_all;
use parking_lot::{Mutex, MutexGuard};
use parsecfs_core::{
    id::{BlockId, RealmId},
    manifest::BlockAccess,
    name::EntryName,
};

use self::orphan::orphan_row;
pub use self::{
    attributes::{Attributes, SetAttributes, SetTime, XattrFlags},
    check::Damage,
    create::{Maker, NewKind},
    housekeeping::Housekeeper,
    lookup::ListedEntry,
    read::{Fetched, ReadOutcome},
    rename::RenameMode,
    write::{FallocateMode, Times, WriteOutcome},
};
use crate::{
    blocksize::BLOCKSIZES,
    clock::Clock,
    error::{Error, ErrorKind, Result},
    folder::{Dentry, Folder},
    inode::{Allocated, Inode, Kind, Meta, ROOT_INO, Standing, State},
    links::Links,
    namespace::{MemoryLimits, Namespace, give_back},
    notify::Notices,
    store::{RowBytes, RowKey, RowValue, Store},
    tree::BlockSource,
};

/// Bytes in a block slot of the files made here.
pub const BLOCK_BYTES: u64 = BLOCKSIZES[0];

/// The local tree of one workspace.
pub struct Volume {
    realm: RealmId,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    namespace: Mutex<Namespace>,
    /// Held by the one who frees space; taken before every other lock.
    reclaiming: Mutex<reclaim::Reclaiming>,
    /// Inodes that wait for upload.
    pending: Mutex<HashMap<u64, Pending>>,
    /// Entries whose removal the storage does not know, by the folder that listed them.
    removed: Mutex<BTreeMap<u64, Vec<u64>>>,
    /// Rings with every local change.
    changed: tokio::sync::watch::Sender<u64>,
    notices: Notices,
    remote: OnceLock<Remote>,
    /// The source of each file that was copied here.
    copies: Mutex<HashMap<u64, u64>>,
    /// Blocks that are fetched before anybody asked for them.
    coming: Mutex<HashMap<BlockId, ahead::Coming>>,
    read_only: AtomicBool,
    /// Requests that ended in a defect of this program.
    defects: AtomicU64,
    /// Owner of entries that came from elsewhere.
    owner: (u32, u32),
}

/// Where blocks come from that are not here.
struct Remote {
    source: Arc<dyn BlockSource>,
    /// To wait for them on.
    runtime: tokio::runtime::Handle,
    /// For tasks that do not keep the volume open.
    volume: Weak<Volume>,
}

/// An inode that waits for upload.
#[derive(Clone, Copy, Debug)]
struct Pending {
    change: u64,
    changed_ns: i64,
    folder: bool,
    bytes: u64,
    /// Sync has looked at it: a version of it may be on its way to the storage.
    on_its_way: bool,
    /// Names that wait.
    names: u32,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume").field("realm", &self.realm).finish_non_exhaustive()
    }
}

impl Volume {
    /// Opens the tree of a realm over its store, making an empty root folder the first time. `owner` is the user and
    /// group that entries from other devices belong to here.
    pub fn open(
        realm: RealmId,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        owner: (u32, u32),
        notices: Notices,
    ) -> Result<Self> {
        let volume = Self {
            realm,
            changed: tokio::sync::watch::Sender::new(store.newest_change()),
            store,
            clock,
            namespace: Mutex::default(),
            reclaiming: Mutex::default(),
            pending: Mutex::default(),
            removed: Mutex::default(),
            notices,
            remote: OnceLock::new(),
            copies: Mutex::default(),
            coming: Mutex::default(),
            read_only: AtomicBool::new(false),
            defects: AtomicU64::new(0),
            owner,
        };
        if volume.store.row(RowKey::Inode(ROOT_INO))?.is_none() {
            volume.make_root();
        }
        volume.namespace().inherit(volume.store.inheritance().ino_max);
        volume.take_orphans()?;
        volume.load_waiting()?;
        Ok(volume)
    }

    /// Whether changes by programs are refused.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    /// Bounds what stays in memory of what is in the store too.
    pub fn limit_memory(&self, limits: MemoryLimits) {
        self.namespace().limit(limits);
    }

    /// How many requests ended in a defect of this program since it was opened: each was answered with an error, and
    /// nothing else.
    pub fn defects(&self) -> u64 {
        self.defects.load(Ordering::Relaxed)
    }

    pub(crate) fn count_defect(&self) {
        self.defects.fetch_add(1, Ordering::Relaxed);
    }

    /// Says where blocks come from that are not in the store. Once; a second source is ignored.
    pub fn set_blocks(self: &Arc<Self>, source: Arc<dyn BlockSource>, runtime: tokio::runtime::Handle) {
        // The first one stays: a volume belongs to one workspace.
        let _ = self.remote.set(Remote { source, runtime, volume: Arc::downgrade(self) });
    }

    /// The runtime that waits for blocks, once there is one.
    pub fn runtime(&self) -> Option<&tokio::runtime::Handle> {
        self.remote.get().map(|remote| &remote.runtime)
    }

    /// Fetches blocks, all at once.
    pub async fn fetch(&self, blocks: &[BlockAccess]) -> Result<Fetched> {
        let remote = self.remote.get().ok_or_else(|| Error::new(ErrorKind::Offline, "no storage to fetch from"))?;
        try_join_all(blocks.iter().map(|block| async { Ok((*block, remote.source.fetch(block).await?)) })).await
    }

    /// Fetches blocks from a thread that may wait.
    fn fetch_blocking(&self, blocks: &[BlockAccess]) -> Result<Fetched> {
        let runtime = self.runtime().ok_or_else(|| Error::new(ErrorKind::Offline, "no storage to fetch from"))?;
        runtime.block_on(self.fetch(blocks))
    }

    /// Where changes from elsewhere are announced.
    pub(crate) fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Whether this inode waits for upload.
    pub fn waits(&self, ino: u64) -> bool {
        self.pending.lock().contains_key(&ino)
    }

    /// The store below.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn may_write(&self) -> Result<()> {
        if self.read_only.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::ReadOnly, "the workspace is mounted read-only"));
        }
        Ok(())
    }

    fn make_root(&self) {
        // The first number given out in a new store.
        let ino = self.store.new_ino();
        debug_assert_eq!(ino, ROOT_INO);
        let root = self.realm.root();
        let mut meta = self.new_meta(*root.as_bytes(), Kind::Folder, 0o755, self.owner);
        (meta.parent, meta.parent_id) = (ROOT_INO, *root.as_bytes());
        // Nothing in it yet: what the storage says wins, and without any it goes up with the first child.
        meta.need_sync = false;
        self.store.log([inode_row(ROOT_INO, &meta)]);
    }

    /// What waits for upload, and what was removed, since before this process.
    fn load_waiting(&self) -> Result<()> {
        for ino in self.store.pending()? {
            let inode = match self.load_inode(ino) {
                Ok(inode) => inode,
                Err(error) => {
                    tracing::warn!(ino, %error, "an entry that waits for upload cannot be read");
                    continue;
                }
            };
            let meta = &inode.state.lock().meta;
            if meta.removed.is_some() {
                self.removed.lock().entry(meta.parent).or_default().push(ino);
            } else {
                // What the process before this one sent may still arrive.
                self.pending.lock().insert(ino, Pending { on_its_way: true, ..Pending::of(meta) });
            }
        }
        Ok(())
    }

    fn new_meta(&self, id: [u8; 16], kind: Kind, mode: u32, owner: (u32, u32)) -> Meta {
        let now = self.clock.now_ns();
        Meta {
            id,
            kind,
            mode,
            uid: owner.0,
            gid: owner.1,
            rdev: 0,
            size: 0,
            atime_ns: now,
            mtime_ns: now,
            ctime_ns: now,
            created_us: now / 1000,
            updated_us: now / 1000,
            parent: 0,
            parent_id: [0; 16],
            subfolders: 0,
            xattrs: BTreeMap::new(),
            link_group: None,
            links: None,
            blocksize: BLOCK_BYTES,
            base_version: 0,
            base_limit: 0,
            base_limit_change: 0,
            change: self.store.new_change(),
            changed_ns: now,
            need_sync: true,
            removed: None,
            allocated: Some(Allocated { pages: 0, is_dense: true }),
        }
    }

    /// Begins an operation on the namespace.
    fn namespace(&self) -> MutexGuard<'_, Namespace> {
        let mut namespace = self.namespace.lock();
        namespace.trim();
        namespace
    }

    /// The one in-memory inode of a number, so that everybody locks the same state.
    fn inode(&self, namespace: &mut Namespace, ino: u64) -> Result<Arc<Inode>> {
        if let Some(inode) = namespace.inode(ino) {
            return Ok(inode);
        }
        let inode = self.load_inode(ino)?;
        namespace.keep(inode.clone());
        Ok(inode)
    }

    /// The same for who looks at all inodes, one after the other, and must not push others out of memory. Only as long as
    /// the lock is held: nobody may load the inode a second time meanwhile.
    fn peek_inode(&self, namespace: &Namespace, ino: u64) -> Result<Arc<Inode>> {
        namespace.peek(ino).map_or_else(|| self.load_inode(ino), Ok)
    }

    fn load_inode(&self, ino: u64) -> Result<Arc<Inode>> {
        let row = self.store.row(RowKey::Inode(ino))?.ok_or(ErrorKind::NotFound)?;
        Ok(Arc::new(Inode { ino, state: Mutex::new(State::new(Meta::decode(&row)?, false)) }))
    }

    /// [`Volume::inode`] as an operation of its own. `Stale`: it was open and had no name any more when the process before
    /// this one was killed, which had the only copy of it.
    fn open_inode(&self, ino: u64) -> Result<Arc<Inode>> {
        let mut namespace = self.namespace();
        let inode = self.inode(&mut namespace, ino);
        if !namespace.is_inherited(ino) {
            return inode;
        }
        match inode {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(ErrorKind::Stale.into()),
            Ok(inode) if inode.state.lock().is_remembered() => Err(ErrorKind::Stale.into()),
            outcome => outcome,
        }
    }

    /// The names of a folder, loaded.
    fn folder<'a>(&self, namespace: &'a mut Namespace, ino: u64) -> Result<&'a mut Folder> {
        if namespace.folder(ino).is_none() {
            if !self.inode(namespace, ino)?.state.lock().meta.is_folder() {
                return Err(ErrorKind::NotDirectory.into());
            }
            let mut folder = Folder::default();
            for (cookie, row) in self.store.dentries(ino)? {
                match row.and_then(|row| Dentry::decode(&row)) {
                    Ok(dentry) => folder.insert(cookie, &dentry),
                    Err(error) => tracing::error!(ino, cookie, %error, "a name in a folder cannot be read"),
                }
            }
            namespace.keep_folder(ino, folder);
        }
        namespace.folder(ino).ok_or_else(|| ErrorKind::Internal.into())
    }

    /// A folder that the caller wants to change, still in the tree.
    fn folder_to_change(&self, namespace: &mut Namespace, ino: u64) -> Result<Arc<Inode>> {
        self.may_write()?;
        self.folder(namespace, ino)?;
        let inode = self.inode(namespace, ino)?;
        if inode.state.lock().is_unlinked() {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(inode)
    }

    /// Marks an inode as changed now and returns its row. With `content`, also as newly modified.
    fn touch(&self, inode: &Inode, state: &mut MutexGuard<'_, State>, touch: Touch) -> Option<(RowKey, RowValue)> {
        let now = self.clock.now_ns();
        let meta = &mut state.meta;
        match touch {
            Touch::Access | Touch::Attributes => meta.ctime_ns = now,
            Touch::Content => (meta.ctime_ns, meta.mtime_ns, meta.updated_us) = (now, now, now / 1000),
            Touch::Untimed => meta.updated_us = now / 1000,
        }
        meta.change = self.store.new_change();
        meta.changed_ns = now;
        if touch != Touch::Access {
            meta.set_need_sync();
        }
        self.changed_row(inode.ino, state)
    }

    /// The row of an inode after a change, unless nobody can reach it any more.
    fn changed_row(&self, ino: u64, state: &State) -> Option<(RowKey, RowValue)> {
        let meta = &state.meta;
        match state.standing {
            Standing::Listed => {}
            Standing::Orphan { base_row } => return Some(orphan_row(ino, meta, base_row)),
            Standing::Gone => return None,
        }
        let mut pending = self.pending.lock();
        if meta.waits() && meta.removed.is_none() {
            let on_its_way = pending.get(&ino).is_some_and(|entry| entry.on_its_way);
            pending.insert(ino, Pending { on_its_way, ..Pending::of(meta) });
        } else {
            pending.remove(&ino);
            give_back(&mut pending);
        }
        drop(pending);
        self.changed.send_if_modified(|newest| {
            let newer = meta.change > *newest;
            *newest = meta.change.max(*newest);
            newer
        });
        Some(inode_row(ino, meta))
    }
}

/// What a change touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touch {
    /// The time of the last access, which is not shared: nothing to send.
    Access,
    /// Attributes only.
    Attributes,
    /// Content, or the names in a folder.
    Content,
    /// Content, whose times come apart.
    Untimed,
}

impl Pending {
    fn of(meta: &Meta) -> Self {
        let bytes = if meta.is_folder() { 0 } else { meta.size };
        let waiting = |links: &Links| links.names.iter().filter(|link| link.need_sync).count();
        let names = meta.links.as_ref().map_or(1, |links| u32::try_from(waiting(links)).unwrap_or(u32::MAX));
        let folder = meta.is_folder();
        Self { change: meta.change, changed_ns: meta.changed_ns, folder, bytes, on_its_way: false, names }
    }
}

/// The row of an inode.
fn inode_row(ino: u64, meta: &Meta) -> (RowKey, RowValue) {
    let pending = meta.removed.is_some() || meta.waits();
    // A map of plain values always encodes.
    let bytes = postcard::to_stdvec(meta).unwrap_or_default();
    // Names of an inode with links have rows of their own.
    let id = meta.links.is_none().then(|| meta.entry_id());
    (RowKey::Inode(ino), Some(RowBytes { id, pending, bytes: bytes.into() }))
}

fn dentry_row(folder: u64, cookie: u64, dentry: &Dentry) -> (RowKey, RowValue) {
    (RowKey::Dentry(folder, cookie), Some(RowBytes { id: None, pending: false, bytes: dentry.encode().into() }))
}

fn slot_row(ino: u64, number: u64, slot: &crate::content::Slot) -> (RowKey, RowValue) {
    let value = (!slot.extents.is_empty()).then(|| {
        let bytes = postcard::to_stdvec(slot).unwrap_or_default();
        RowBytes { id: None, pending: false, bytes: bytes.into() }
    });
    (RowKey::Slot(ino, number), value)
}

/// The form in which a name is kept, where that is another than the given one.
pub fn kept_form(name: &[u8]) -> Option<Arc<str>> {
    if name.is_ascii() {
        return None;
    }
    let kept = valid_name(name).ok()?;
    (kept.reveal().as_bytes() != name).then(|| Arc::from(kept.reveal()))
}

/// A name as programs gave it, proved valid.
fn valid_name(name: &[u8]) -> Result<EntryName> {
    if name.len() > 255 {
        return Err(ErrorKind::NameTooLong.into());
    }
    let text = std::str::from_utf8(name).map_err(|_| Error::from(ErrorKind::InvalidName))?;
    EntryName::new(text).map_err(|e| Error::new(ErrorKind::InvalidName, "a name that cannot be stored").caused_by(e))
}
