//! The seam between the local tree (`fs`, `store`) and `sync`: what sync may see and change of it.
//!
//! The local tree always answers from this machine and is always consistent. Sync reads entries as they are at one
//! instant, does its slow work elsewhere, and hands back updates that say which state they were made for; a tree that
//! has moved on answers [`ErrorKind::Stale`](crate::error::ErrorKind::Stale) and nothing of the batch is applied.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use parsecfs_core::{
    id::VlobId,
    manifest::{BlockAccess, Extension, Manifest},
    name::EntryName,
    time::Timestamp,
};

use crate::error::Result;

/// Rises with every local change of an entry; equal numbers mean equal content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeNumber(pub u64);

/// One entry as it is on this device now.
#[derive(Clone, Debug)]
pub struct LocalEntry {
    /// Which.
    pub id: VlobId,
    /// The remote version that this state was made from; `None` before the first upload.
    pub base: Option<Manifest>,
    /// State that this is.
    pub change: ChangeNumber,
    /// Whether there is something in it that `base` does not have.
    pub need_sync: bool,
    /// The folder that lists it, or listed it.
    pub parent: VlobId,
    /// Set when it was removed here: the name under which `parent` listed it last.
    pub removed: Option<EntryName>,
    /// When the entry was made.
    pub created: Timestamp,
    /// When its content last changed.
    pub updated: Timestamp,
    /// POSIX attributes.
    pub extension: Extension,
    /// The other entries that are names of the same inode here: its content, attributes and state are theirs too. Of
    /// a removed entry, the names that are left of its link group.
    pub links: Vec<VlobId>,
    /// What it holds.
    pub content: LocalContent,
}

/// What an entry holds.
#[derive(Clone, Debug)]
pub enum LocalContent {
    /// A folder. Children whose own manifest is not known (yet) are listed all the same.
    Folder {
        /// Name to entry.
        children: BTreeMap<EntryName, VlobId>,
    },
    /// Anything else.
    File {
        /// Length in bytes.
        size: u64,
        /// Bytes in a block slot.
        blocksize: u64,
        /// Slots that are not holes, by number.
        slots: BTreeMap<u64, SlotState>,
    },
}

/// One block slot of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Equal to this block, which is on the storage: one of `base`, or for a copy one of the entry it was made from.
    Synced(BlockAccess),
    /// Written here since.
    Dirty,
}

/// An entry that waits for upload.
#[derive(Clone, Copy, Debug)]
pub struct PendingEntry {
    /// Which.
    pub id: VlobId,
    /// Its present state.
    pub change: ChangeNumber,
    /// Nanoseconds since the epoch of the last change, for quiet periods.
    pub changed_ns: i64,
    /// Whether it is a folder.
    pub folder: bool,
    /// Dirty bytes, about.
    pub bytes: u64,
}

/// What sync decided about an entry. All `seen` of a batch mean the state before the batch.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "updates live as long as one batch: a box each buys nothing")]
pub enum TreeUpdate {
    /// The entry becomes `local`, on top of `base`. A removed entry that a folder of the same batch lists is back.
    /// An entry that no folder lists any more is removed, as by a removal here.
    Put {
        /// Which.
        id: VlobId,
        /// State that was looked at; `None`: the entry was not known here.
        seen: Option<ChangeNumber>,
        /// The remote version, verified; `None`: the base stays as it is (a folder that lists something else now
        /// because of what was merged elsewhere).
        base: Option<Manifest>,
        /// What the entry is after the merge.
        local: Merged,
    },
    /// The content and attributes of `id` as they are here also become the new entry `copy`, which waits for upload.
    /// Followed, in the same batch, by a `Put` of `id` and by a `Put` of `parent` that lists the copy as `name`; the
    /// parent may be new with it.
    Fork {
        /// The entry whose content is kept.
        id: VlobId,
        /// State that was looked at.
        seen: ChangeNumber,
        /// Id of the copy.
        copy: VlobId,
        /// Folder of the copy.
        parent: VlobId,
        /// Name of the copy.
        name: EntryName,
    },
    /// `manifest` was made from state `seen` and is stored. It becomes the base even when the entry has moved on;
    /// then the entry still waits for upload and slots written since stay dirty. Never `Stale`.
    Uploaded {
        /// State that was uploaded.
        seen: ChangeNumber,
        /// As stored.
        manifest: Manifest,
    },
}

/// An entry after a merge.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The folder that lists it.
    pub parent: VlobId,
    /// When the entry was made.
    pub created: Timestamp,
    /// When its content last changed.
    pub updated: Timestamp,
    /// POSIX attributes.
    pub extension: Extension,
    /// What it holds.
    pub content: MergedContent,
    /// Whether this differs from the base and waits for upload.
    pub need_sync: bool,
}

/// Content of an entry after a merge.
#[derive(Clone, Debug)]
pub enum MergedContent {
    /// A folder with these children.
    Folder(BTreeMap<EntryName, VlobId>),
    /// The file's content as it is on this device.
    LocalFile,
    /// The file's content as the base says.
    RemoteFile,
}

/// What sync needs of the local tree. Methods may do local disk I/O: call them from the blocking pool.
pub trait LocalTree: Send + Sync {
    /// How far inbound sync has read the changes of the realm; 0 at first.
    fn checkpoint(&self) -> Result<u64>;

    /// Entries that wait for upload, longest waiting first, at most `limit`. Removed ones do not wait.
    fn pending(&self, limit: usize) -> Result<Vec<PendingEntry>>;

    /// How many entries and bytes wait for upload.
    fn pending_total(&self) -> Result<(u64, u64)>;

    /// One entry as it is now, with everything written to it so far; `None` when it is not known here. An entry that
    /// was removed here stays known, marked `removed`, until its removal is on the storage, and after that as long as
    /// the tree can afford it: a change that another device made at the same time is kept only while it is known.
    fn load(&self, id: VlobId) -> Result<Option<LocalEntry>>;

    /// Version of the base of each of these entries that is known here.
    fn base_versions(&self, ids: &[VlobId]) -> Result<Vec<(VlobId, u32)>>;

    /// The bytes of one slot in state `seen` (slot length, or less at the end of the file); `None` when the slot was
    /// written since.
    fn slot(&self, id: VlobId, seen: ChangeNumber, slot: u64) -> Result<Option<Vec<u8>>>;

    /// Blocks on the storage whose bytes the entry may hold too, because it was copied from theirs. Nothing says that it
    /// does, or that these are all.
    fn blocks_of_source(&self, id: VlobId) -> Result<Vec<BlockAccess>>;

    /// From now on the file counts in slots of so many bytes; its content is the same. `false` when it has changed since
    /// `seen`, and nothing was done.
    fn set_blocksize(&self, id: VlobId, seen: ChangeNumber, blocksize: u64) -> Result<bool>;

    /// Applies all updates as one, or none. With `checkpoint`, moves it in the same transaction. Tells the kernel.
    fn apply(&self, updates: Vec<TreeUpdate>, checkpoint: Option<u64>) -> Result<()>;

    /// Returns when the local tree next waits for upload, or at once if `since` is not the newest local change.
    fn changed<'a>(&'a self, since: u64) -> BoxFuture<'a, u64>;
}

/// Brings the clear bytes of a block that is not in the local store: fetched, opened, size and digest checked.
pub trait BlockSource: Send + Sync {
    /// Fetches one block.
    fn fetch<'a>(&'a self, access: &'a BlockAccess) -> BoxFuture<'a, Result<Vec<u8>>>;
}
