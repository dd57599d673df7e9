//! What a batch of updates has changed so far.
//!
//! The store shows a batch only once all of its rows are logged, so that a crash leaves all of it or nothing. Until then
//! lookups of entries, inodes and names ask the batch first. Every inode it touches is held in memory to its end: readers
//! and the batch meet the same state.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use parsecfs_core::{id::VlobId, manifest::Manifest};

use super::Volume;
use crate::{
    error::Result,
    folder::Folder,
    inode::Inode,
    namespace::Namespace,
    notify::Notice,
    store::{RowKey, RowValue},
    tree::{Merged, MergedContent, TreeUpdate},
};

/// What a batch has changed so far. The store shows it only at the end, so lookups ask here first.
pub(super) struct Batch {
    pub(super) rows: Vec<(RowKey, RowValue)>,
    /// Base rows that this batch writes.
    pub(super) bases: HashMap<u64, Manifest>,
    /// Inodes of link groups that this batch found or made.
    pub(super) groups: HashMap<[u8; 16], u64>,
    /// Entries that say they belong to a link group.
    pub(super) grouped: BTreeSet<VlobId>,
    /// Inodes that were touched; their rows are made at the end.
    pub(super) inodes: HashMap<u64, Arc<Inode>>,
    /// Inode of entries that were made or got another one here.
    pub(super) ids: HashMap<VlobId, u64>,
    /// Entries that some folder of this batch lists.
    pub(super) listed: BTreeSet<VlobId>,
    /// Entries that left a folder of this batch, with that folder.
    pub(super) unlisted: Vec<(u64, VlobId)>,
    pub(super) notices: Vec<Notice>,
}

impl Batch {
    pub(super) fn of(updates: &[TreeUpdate]) -> Self {
        let mut listed = BTreeSet::new();
        for update in updates {
            match update {
                TreeUpdate::Put { local: Merged { content: MergedContent::Folder(children), .. }, .. } => {
                    listed.extend(children.values().copied());
                }
                TreeUpdate::Fork { copy, .. } => {
                    listed.insert(*copy);
                }
                _ => {}
            }
        }
        Self {
            rows: Vec::new(),
            bases: HashMap::new(),
            groups: HashMap::new(),
            grouped: BTreeSet::new(),
            inodes: HashMap::new(),
            ids: HashMap::new(),
            listed,
            unlisted: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// A base row goes.
    pub(super) fn drop_base(&mut self, row: u64) {
        self.bases.remove(&row);
        self.rows.push((RowKey::Base(row), None));
    }

    pub(super) fn forget_entry(&mut self, folder: u64, name: &Arc<str>) {
        self.notices.push(Notice::Entry { folder, name: name.clone() });
    }
}

impl Volume {
    pub(super) fn batch_ino(&self, batch: &Batch, id: VlobId) -> Result<Option<u64>> {
        match batch.ids.get(&id) {
            Some(0) => Ok(None),
            Some(ino) => Ok(Some(*ino)),
            None => self.entry_ino(id),
        }
    }

    /// What a base row holds.
    pub(super) fn batch_base(&self, batch: &Batch, row: u64) -> Result<Option<Manifest>> {
        match batch.bases.get(&row) {
            Some(base) => Ok(Some(base.clone())),
            None => self.base(row),
        }
    }

    /// An inode that this batch changes. It is in memory until the batch ends, so that everybody meets the same state.
    pub(super) fn batch_inode(&self, namespace: &mut Namespace, batch: &mut Batch, ino: u64) -> Result<Arc<Inode>> {
        if let Some(inode) = batch.inodes.get(&ino) {
            return Ok(inode.clone());
        }
        let inode = self.inode(namespace, ino)?;
        batch.inodes.insert(ino, inode.clone());
        Ok(inode)
    }

    /// Whether a folder was made in this batch and has no names yet.
    fn batch_is_new(&self, batch: &Batch, ino: u64) -> bool {
        batch.inodes.contains_key(&ino) && matches!(self.store.row(RowKey::Inode(ino)), Ok(None))
    }

    /// The names of a folder, also of one that the store does not show yet.
    pub(super) fn batch_folder<'a>(
        &self,
        namespace: &'a mut Namespace,
        batch: &mut Batch,
        ino: u64,
    ) -> Result<&'a mut Folder> {
        if namespace.folder(ino).is_none() && self.batch_is_new(batch, ino) {
            namespace.keep_folder(ino, Folder::default());
        }
        self.folder(namespace, ino)
    }
}
