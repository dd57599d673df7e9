//! Inodes: what the kernel may refer to, by number.
//!
//! An inode number is the row number of the local store, keyed by entry id and never by path; it is never used for
//! another entry.
//!
//! Locks, ascending: [`Namespace`](crate::namespace::Namespace) < the state of an inode. Two inodes are locked together only under the namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use parsecfs_core::{
    id::VlobId,
    manifest::{BlockAccess, Extension, Kind as EntryKind},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    content::Slots,
    error::{Error, ErrorKind, Result},
    fs::ahead::Ahead,
    links::Links,
};

/// The root folder's number, as the kernel wants it.
pub(crate) const ROOT_INO: u64 = 1;

/// What an inode is, in one byte of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link; its target is its content.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// Everything about an inode but its content: one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) id: [u8; 16],
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner as this device shows it; never leaves it.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u64,
    pub(crate) size: u64,
    pub(crate) atime_ns: i64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
    pub(crate) created_us: i64,
    pub(crate) updated_us: i64,
    /// The folder that lists it: inode and entry.
    pub(crate) parent: u64,
    pub(crate) parent_id: [u8; 16],
    /// Folders in this folder.
    pub(crate) subfolders: u32,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) link_group: Option<[u8; 16]>,
    /// The names of an inode that has, or had, several. Then what is here about one entry counts for none.
    pub(crate) links: Option<Box<Links>>,
    /// Bytes in a block slot of the manifest.
    pub(crate) blocksize: u64,
    /// Version of the base manifest, 0 without one.
    pub(crate) base_version: u32,
    /// How far the base's content still counts: truncation lowers it.
    pub(crate) base_limit: u64,
    /// The change that last lowered it.
    pub(crate) base_limit_change: u64,
    /// The newest change.
    pub(crate) change: u64,
    pub(crate) changed_ns: i64,
    pub(crate) need_sync: bool,
    /// Removed here under this name, and the storage does not know yet.
    pub(crate) removed: Option<String>,
    /// `None`: not counted since a program did not know how to. Last, since the rows of that one end before it.
    pub(crate) allocated: Option<Allocated>,
}

/// How much of a file is data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allocated {
    /// Pages that are.
    pub(crate) pages: u64,
    /// The base has no hole as far as it counts.
    pub(crate) is_dense: bool,
}

impl Meta {
    /// The attributes at the end of a row.
    pub(crate) fn decode(row: &[u8]) -> Result<Self> {
        // To a row that ends before `allocated` it says that there is none; behind another it does not count.
        decode(&[row, &[0]].concat())
    }

    pub(crate) fn entry_id(&self) -> VlobId {
        VlobId::from_bytes(self.id)
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }

    /// Permission bits of an entry that says nothing about them.
    pub(crate) fn default_mode(kind: Kind) -> u32 {
        match kind {
            Kind::Folder => 0o755,
            Kind::Symlink => 0o777,
            _ => 0o644,
        }
    }

    /// The attributes that travel in the manifest.
    pub(crate) fn extension(&self) -> Extension {
        let (kind, rdev) = (self.kind, self.rdev);
        Extension {
            kind: match kind {
                Kind::Folder | Kind::File => EntryKind::Regular,
                Kind::Symlink => EntryKind::Symlink,
                Kind::Fifo => EntryKind::Fifo,
                Kind::Socket => EntryKind::Socket,
                Kind::CharDevice => EntryKind::CharDevice { rdev },
                Kind::BlockDevice => EntryKind::BlockDevice { rdev },
            },
            mode: (self.mode != Self::default_mode(kind)).then_some(self.mode),
            mtime_ns: (self.mtime_ns != self.updated_us.saturating_mul(1000)).then_some(self.mtime_ns),
            xattrs: self.xattrs.clone(),
            link_group: self.link_group,
            ..Extension::default()
        }
    }

    /// Takes the attributes that a manifest brings.
    pub(crate) fn set_extension(&mut self, extension: &Extension, folder: bool, updated: Timestamp) {
        (self.kind, self.rdev) = match extension.kind {
            EntryKind::Regular if folder => (Kind::Folder, 0),
            EntryKind::Regular => (Kind::File, 0),
            EntryKind::Symlink => (Kind::Symlink, 0),
            EntryKind::Fifo => (Kind::Fifo, 0),
            EntryKind::Socket => (Kind::Socket, 0),
            EntryKind::CharDevice { rdev } => (Kind::CharDevice, rdev),
            EntryKind::BlockDevice { rdev } => (Kind::BlockDevice, rdev),
        };
        self.mode = extension.mode.unwrap_or_else(|| Self::default_mode(self.kind));
        self.updated_us = updated.as_micros();
        self.mtime_ns = extension.mtime_ns.unwrap_or(self.updated_us.saturating_mul(1000));
        self.xattrs.clone_from(&extension.xattrs);
        self.link_group = extension.link_group;
    }
}

/// Which slots of a file are in memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Loaded {
    /// All there are.
    All,
    /// All in these parts of [`PART_SLOTS`] slots, by number.
    Parts(BTreeSet<u64>),
}

/// Slots that are loaded together: 16 MiB of a file.
pub(crate) const PART_SLOTS: u64 = 64;

/// An inode in memory.
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) ino: u64,
    pub(crate) state: Mutex<State>,
}

/// Whether an inode is in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is, or was: of an entry that was removed and not open, that much is remembered.
    Listed,
    /// In none, but the kernel refers to it: see [`crate::fs::orphan`].
    Orphan {
        /// Under which number its base is kept; 0: nothing is found through one.
        base_row: u64,
    },
    /// In none, and nobody refers to it: nothing of it is in the store or shall be.
    Gone,
}

/// What the lock of an inode protects.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) meta: Meta,
    /// Slots in memory: those that `loaded` says.
    pub(crate) slots: Slots,
    pub(crate) loaded: Loaded,
    /// Blocks of the base, once needed.
    pub(crate) base_blocks: Option<Arc<[BlockAccess]>>,
    pub(crate) standing: Standing,
    /// Somebody reads it from front to back, and it has to be fetched.
    pub(crate) ahead: Option<Ahead>,
}

impl State {
    /// A state without slots in memory; `loaded`: because there are none.
    pub(crate) fn new(meta: Meta, loaded: bool) -> Self {
        let loaded = if loaded { Loaded::All } else { Loaded::Parts(BTreeSet::new()) };
        Self { meta, slots: Slots::default(), loaded, base_blocks: None, standing: Standing::Listed, ahead: None }
    }

    /// Whether it is in no folder.
    pub(crate) fn is_unlinked(&self) -> bool {
        self.standing != Standing::Listed
    }

    /// Whether only its removal is known any more, without its content.
    pub(crate) fn is_remembered(&self) -> bool {
        self.meta.removed.is_some() && self.standing == Standing::Listed
    }

    /// Whether the content is the base's. All slots have to be in memory.
    pub(crate) fn is_clean(&self) -> bool {
        self.slots.iter().all(|(_, slot)| !slot.is_dirty(0, u8::MAX)) && self.meta.base_limit == self.meta.size
    }
}

/// Reads a row that this program wrote.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|e| Error::new(ErrorKind::Corrupt, "a row of the local store").caused_by(e))
}
