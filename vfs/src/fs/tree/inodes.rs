//! Which inode an entry has.
//!
//! An entry keeps its inode as long as its open files may go on with what they see. When they may not - the content was
//! replaced by another device, or the entry came back after a removal - it gets a new one, and the old one lives on
//! without a row, for who has it open: what it still needs is in memory before its rows go.

use std::sync::Arc;

use parking_lot::Mutex;
use parsecfs_core::{id::VlobId, manifest::Manifest};

use super::{Volume, batch::Batch};
use crate::{
    error::Result,
    fs::link::content_size,
    inode::{Inode, Kind, Loaded, Meta, ROOT_INO, Standing, State},
    namespace::Namespace,
    notify::Notice,
    store::RowKey,
    tree::{Merged, MergedContent},
};

impl Volume {
    pub(super) fn make_inode(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        id: VlobId,
        local: &Merged,
    ) -> Arc<Inode> {
        let folder = matches!(local.content, MergedContent::Folder(_));
        let kind = if folder { Kind::Folder } else { Kind::File };
        let mut meta = self.new_meta(*id.as_bytes(), kind, Meta::default_mode(kind), self.owner);
        meta.atime_ns = local.updated.as_micros().saturating_mul(1000);
        let ino = if id == self.realm.root() { ROOT_INO } else { self.store.new_ino() };
        let inode = Arc::new(Inode { ino, state: Mutex::new(State::new(meta, true)) });
        batch.ids.insert(id, ino);
        batch.inodes.insert(ino, inode.clone());
        namespace.keep(inode.clone());
        inode
    }

    /// A removed entry is back, under a new inode: the old one may be open as unlinked. `None`: of its content nothing is
    /// left, here or on the storage. Then it is forgotten, and whatever is on its way there comes as something new.
    pub(super) fn revive(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        id: VlobId,
        old: &Arc<Inode>,
        base: Option<&Manifest>,
    ) -> Result<Option<Arc<Inode>>> {
        let mut meta = old.state.lock().meta.clone();
        if let Some(waiting) = self.removed.lock().get_mut(&meta.parent) {
            waiting.retain(|ino| *ino != old.ino);
        }
        let stored = if base.is_none() { self.batch_base(batch, old.ino)? } else { None };
        if base.is_none() && stored.is_none() && !meta.is_folder() {
            self.orphan(namespace, batch, old);
            batch.ids.insert(id, 0);
            return Ok(None);
        }
        if let Some(stored) = &stored {
            let limit = content_size(stored);
            (meta.size, meta.base_limit) = (limit, limit);
        }
        batch.grouped.insert(id);
        let inode = self.replace_ino(namespace, batch, old, meta)?;
        batch.bases.extend(stored.map(|stored| (inode.ino, stored)));
        Ok(Some(inode))
    }

    /// Gives an entry, or all names of an inode, a new inode without content; the old one lives on only for who has it
    /// open.
    pub(super) fn replace_ino(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        old: &Arc<Inode>,
        mut meta: Meta,
    ) -> Result<Arc<Inode>> {
        let group = meta.link_group.filter(|group| self.is_group_row(batch, *group, old.ino));
        self.orphan(namespace, batch, old);
        meta.removed = None;
        let inode = self.place_inode(namespace, batch, meta);
        if let Some(group) = group {
            batch.set_group(group, inode.ino);
        }
        self.move_names(namespace, batch, &inode)?;
        Ok(inode)
    }

    /// Puts a new inode without content into memory.
    pub(super) fn place_inode(&self, namespace: &mut Namespace, batch: &mut Batch, meta: Meta) -> Arc<Inode> {
        let ino = self.store.new_ino();
        // Counted at the end of the batch, when its content is known.
        let meta = Meta { allocated: None, ..meta };
        let inode = Arc::new(Inode { ino, state: Mutex::new(State::new(meta, true)) });
        batch.inodes.insert(ino, inode.clone());
        namespace.keep(inode.clone());
        inode
    }

    /// Takes an inode out of the store; who has it open goes on with it.
    pub(super) fn orphan(&self, namespace: &mut Namespace, batch: &mut Batch, inode: &Arc<Inode>) {
        let ino = inode.ino;
        let mut state = inode.state.lock();
        if !state.meta.is_folder()
            && let Err(error) = self.load_slots(ino, &mut state)
        {
            tracing::warn!(ino, %error, "content of a replaced file cannot be read");
            state.loaded = Loaded::All;
        }
        // What it still needs from the base has to be known before the row is gone.
        if let Err(error) = self.load_base_blocks(ino, &mut state) {
            tracing::warn!(ino, %error, "base of a replaced file cannot be read");
        }
        state.meta.links = None;
        let rows = self.unlist(namespace, ino, &mut state, || self.batch_base(batch, ino));
        batch.rows.push((RowKey::Inode(ino), None));
        batch.drop_base(ino);
        batch.rows.extend(rows);
        if matches!(state.standing, Standing::Orphan { .. }) && namespace.is_hearsay(ino) {
            batch.notices.push(Notice::Attributes { ino });
        }
        if let Some(group) = state.meta.link_group
            && self.is_group_row(batch, group, ino)
        {
            batch.drop_group(group);
        }
        batch.inodes.remove(&ino);
        self.pending.lock().remove(&ino);
    }
}
