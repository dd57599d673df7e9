//! Inodes and folders in memory, and how often the kernel refers to each inode.
//!
//! Memory holds what was used lately. All of it is in the store too, so it may go at any time but in the middle of an
//! operation: [`Namespace::trim`] is called where one begins. What must stay is an inode that somebody works with (its
//! state may be locked, or about to be) and one that is unlinked and still open.

use std::{collections::HashMap, sync::Arc};

use crate::{folder::Folder, inode::Inode};

/// How much stays in memory.
#[derive(Clone, Copy, Debug)]
pub struct MemoryLimits {
    /// Inodes, about 450 bytes each.
    pub inodes: usize,
    /// Names, about 80 bytes each. One folder may have more.
    pub names: usize,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { inodes: 65_536, names: 262_144 }
    }
}

/// What a folder counts for beside its names.
const FOLDER_NAMES: usize = 8;
/// Operations between two looks at how much there is.
const LOOK_AFTER: u32 = 1024;

/// Lets go of the memory of a map that was much larger: it stays there else, whatever is taken out.
pub(crate) fn give_back<T>(map: &mut HashMap<u64, T>) {
    if map.capacity() > 1024 && map.len() < map.capacity() / 8 {
        map.shrink_to(2 * map.len());
    }
}

#[derive(Debug)]
struct Kept<T> {
    what: T,
    /// Since memory was last trimmed.
    is_used: bool,
}

impl<T> Kept<T> {
    fn new(what: T) -> Self {
        Self { what, is_used: true }
    }
}

/// References of the kernel to inodes.
#[derive(Debug, Default)]
struct References {
    counts: HashMap<u64, u64>,
    /// To inodes up to this number it may have more, counted by a process that is gone.
    inherited: u64,
}

impl References {
    /// Whether the kernel knows an inode, or may.
    fn contains(&self, ino: u64) -> bool {
        ino <= self.inherited || self.counts.contains_key(&ino)
    }
}

/// What the namespace lock protects.
#[derive(Debug, Default)]
pub(crate) struct Namespace {
    inodes: HashMap<u64, Kept<Arc<Inode>>>,
    folders: HashMap<u64, Kept<Folder>>,
    references: References,
    limits: MemoryLimits,
    operations: u32,
    /// What was loaded since the last look.
    names_loaded: usize,
    /// What trimming left, because all of it is in use: it is not tried again before more is there.
    names_left: usize,
}

impl Namespace {
    pub(crate) fn limit(&mut self, limits: MemoryLimits) {
        self.limits = limits;
    }

    pub(crate) fn inode(&mut self, ino: u64) -> Option<Arc<Inode>> {
        let kept = self.inodes.get_mut(&ino)?;
        kept.is_used = true;
        Some(kept.what.clone())
    }

    /// The same without counting as use.
    pub(crate) fn peek(&self, ino: u64) -> Option<Arc<Inode>> {
        self.inodes.get(&ino).map(|kept| kept.what.clone())
    }

    pub(crate) fn keep(&mut self, inode: Arc<Inode>) {
        self.inodes.insert(inode.ino, Kept::new(inode));
    }

    pub(crate) fn folder(&mut self, ino: u64) -> Option<&mut Folder> {
        let kept = self.folders.get_mut(&ino)?;
        kept.is_used = true;
        Some(&mut kept.what)
    }

    pub(crate) fn keep_folder(&mut self, ino: u64, folder: Folder) -> &mut Folder {
        self.names_loaded += folder.len();
        &mut self.folders.entry(ino).insert_entry(Kept::new(folder)).into_mut().what
    }

    pub(crate) fn take_folder(&mut self, ino: u64) -> Option<Folder> {
        self.folders.remove(&ino).map(|kept| kept.what)
    }

    /// Counts a reference of the kernel.
    pub(crate) fn refer(&mut self, ino: u64) {
        *self.references.counts.entry(ino).or_default() += 1;
    }

    /// The kernel may know inodes up to this number from a process that is gone.
    pub(crate) fn inherit(&mut self, ino_max: u64) {
        self.references.inherited = ino_max;
    }

    /// Whether an inode may be known to the kernel from a process that is gone.
    pub(crate) fn is_inherited(&self, ino: u64) -> bool {
        ino <= self.references.inherited
    }

    /// Whether the kernel knows an inode, or may.
    pub(crate) fn is_referred(&self, ino: u64) -> bool {
        self.references.contains(ino)
    }

    /// Takes back references. Hands out an inode that lived for the last of them alone. Of an inode that was inherited all
    /// are taken back at once, as the kernel does when it lets go of an inode that has no name any more.
    pub(crate) fn forget(&mut self, ino: u64, references: u64) -> Option<Arc<Inode>> {
        if let Some(count) = self.references.counts.get_mut(&ino) {
            *count = count.saturating_sub(references);
            if *count > 0 {
                return None;
            }
        } else if !self.is_inherited(ino) {
            return None;
        }
        self.references.counts.remove(&ino);
        give_back(&mut self.references.counts);
        let unlinked = self.inodes.get(&ino).is_some_and(|kept| kept.what.state.lock().is_unlinked());
        if !unlinked {
            return None;
        }
        self.folders.remove(&ino);
        self.inodes.remove(&ino).map(|kept| kept.what)
    }

    /// Whether an inode may be known to the kernel from a process that is gone, and from that one only.
    pub(crate) fn is_hearsay(&self, ino: u64) -> bool {
        self.is_inherited(ino) && !self.references.counts.contains_key(&ino)
    }

    /// Hands out an inode without a name that the kernel does not know after all.
    pub(crate) fn forget_unknown(&mut self, ino: u64) -> Option<Arc<Inode>> {
        if self.is_hearsay(ino) { self.forget(ino, u64::MAX) } else { None }
    }

    /// Inodes without a name.
    pub(crate) fn orphans(&self) -> Vec<u64> {
        let unlinked = self.inodes.values().filter(|kept| kept.what.state.lock().is_unlinked());
        unlinked.map(|kept| kept.what.ino).collect()
    }

    /// Lets go of what was not used lately when there is too much. Where an operation begins.
    pub(crate) fn trim(&mut self) {
        if self.inodes.len() > self.limits.inodes {
            self.trim_inodes();
        }
        self.operations += 1;
        if self.operations > LOOK_AFTER || self.names_loaded > self.limits.names / 8 {
            (self.operations, self.names_loaded) = (0, 0);
            self.trim_folders();
        }
    }

    fn trim_inodes(&mut self) {
        // Twice, since all may have been used.
        for _ in 0..2 {
            let references = &self.references;
            self.inodes.retain(|ino, kept| {
                // Unique: nobody can get at it without the lock that we hold.
                let Some(inode) = Arc::get_mut(&mut kept.what) else { return true };
                let lives_here = inode.state.get_mut().is_unlinked() && references.contains(*ino);
                std::mem::take(&mut kept.is_used) || lives_here
            });
            if self.inodes.len() <= self.limits.inodes / 4 * 3 {
                break;
            }
        }
    }

    fn trim_folders(&mut self) {
        let count = |folders: &HashMap<u64, Kept<Folder>>| -> usize {
            folders.values().map(|kept| kept.what.len() + FOLDER_NAMES).sum()
        };
        let names = count(&self.folders);
        self.names_left = self.names_left.min(names);
        if names <= self.limits.names.max(self.names_left + self.limits.names / 8) {
            return;
        }
        self.folders.retain(|_, kept| std::mem::take(&mut kept.is_used));
        self.names_left = count(&self.folders);
    }
}
