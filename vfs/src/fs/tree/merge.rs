//! The three updates that sync makes of an entry, each in memory and as rows of the batch.
//!
//! The state that an update was made for has been checked before; from here on nothing of it may fail halfway but for
//! damage to the local store. An entry that no folder lists any more goes at the end of the batch, not before: a later
//! update may list it elsewhere.

use std::sync::Arc;

use parsecfs_core::{id::VlobId, manifest::Manifest};

use super::{
    super::{allocated::drop_zeros, zeros::without_zeros},
    Volume,
    batch::Batch,
};
use crate::{
    error::{ErrorKind, Result},
    folder::Dentry,
    fs::{inode_row, slot_row},
    inode::{Inode, ROOT_INO},
    namespace::Namespace,
    notify::Notice,
    store::RowKey,
    tree::{Merged, MergedContent},
};

impl Volume {
    pub(super) fn put(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        id: VlobId,
        base: Option<Manifest>,
        local: Merged,
    ) -> Result<()> {
        let existing = match self.batch_ino(batch, id)? {
            Some(ino) => Some(self.batch_inode(namespace, batch, ino)?),
            None => None,
        };
        let inode = match existing {
            Some(inode) if inode.state.lock().meta.removed.is_some() => {
                if !batch.listed.contains(&id) {
                    return self.rebase_removed(batch, &inode, base);
                }
                let Some(back) = self.revive(namespace, batch, id, &inode, base.as_ref())? else { return Ok(()) };
                back
            }
            Some(inode) => self.follow_group(namespace, batch, inode, id, base.as_ref(), &local)?,
            // Its folder came first and let go of it: see `revive`.
            None if matches!(local.content, MergedContent::LocalFile) => return Ok(()),
            None => self.make_inode(namespace, batch, id, &local),
        };
        if local.extension.link_group.is_some() {
            batch.grouped.insert(id);
        }
        let inode = match &local.content {
            MergedContent::RemoteFile => self.take_remote(namespace, batch, inode, base.as_ref(), &local)?,
            MergedContent::LocalFile | MergedContent::Folder(_) => inode,
        };
        let moved_from = self.set_merged(batch, &inode, id, base, &local);
        if id == self.realm.root() {
            let mut state = inode.state.lock();
            (state.meta.parent, state.meta.parent_id) = (ROOT_INO, *id.as_bytes());
        } else {
            self.relink(namespace, batch, &inode, id, local.parent, moved_from)?;
        }
        if let MergedContent::Folder(children) = local.content {
            self.set_children(namespace, batch, &inode, &children)?;
        }
        batch.notices.push(Notice::Inode { ino: inode.ino });
        Ok(())
    }

    /// Attributes after a merge. Returns the folder that listed the entry before.
    fn set_merged(&self, batch: &mut Batch, inode: &Inode, id: VlobId, base: Option<Manifest>, local: &Merged) -> u64 {
        let mut state = inode.state.lock();
        let folder = matches!(local.content, MergedContent::Folder(_));
        let now = self.clock.now_ns();
        let meta = &mut state.meta;
        meta.set_extension(&local.extension, folder, local.updated);
        (meta.ctime_ns, meta.changed_ns, meta.change) = (now, now, self.store.new_change());
        let row = meta.base_row(inode.ino, id);
        let place = meta.place(id).0;
        let version = base.as_ref().map(Manifest::version);
        match meta.link_mut(id) {
            Some(link) => {
                link.created_us = local.created.as_micros();
                link.need_sync = local.need_sync;
                link.base_version = version.unwrap_or(link.base_version);
            }
            None => {
                meta.created_us = local.created.as_micros();
                meta.need_sync = local.need_sync;
                meta.base_version = version.unwrap_or(meta.base_version);
                if let Some(Manifest::File(file)) = &base {
                    state.base_blocks = Some(without_zeros(&file.blocks));
                    if matches!(local.content, MergedContent::LocalFile) {
                        state.meta.allocated = None;
                    }
                }
            }
        }
        batch.bases.extend(base.map(|base| (row, base)));
        place
    }

    /// A removed entry got another remote version and stays removed.
    fn rebase_removed(&self, batch: &mut Batch, inode: &Inode, base: Option<Manifest>) -> Result<()> {
        if let Some(base) = base {
            let mut state = inode.state.lock();
            state.meta.base_version = base.version();
            batch.rows.push(inode_row(inode.ino, &state.meta));
            batch.bases.insert(inode.ino, base);
        }
        Ok(())
    }

    /// The entry as it is here becomes the new entry `copy`; its inode goes with it. The folder that lists the copy shows
    /// it when its own update comes.
    pub(super) fn fork(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        id: VlobId,
        copy: VlobId,
        parent: VlobId,
    ) -> Result<()> {
        let ino = self.batch_ino(batch, id)?.ok_or(ErrorKind::Stale)?;
        let inode = self.batch_inode(namespace, batch, ino)?;
        let old_folder = inode.state.lock().meta.place(id).0;
        if inode.state.lock().meta.links.is_some() {
            self.leave_content(namespace, batch, &inode)?;
        } else {
            // The name now waits for the remote content, which gets an inode of its own.
            let shown = self.batch_folder(namespace, batch, old_folder)?.shown(ino);
            if let Some((cookie, dentry)) = shown.map(|named| (named.cookie, named.dentry())) {
                self.set_dentry(namespace, batch, old_folder, cookie, Dentry { ino: 0, ..dentry }, false)?;
            }
            batch.ids.insert(id, 0);
        }
        let mut state = inode.state.lock();
        let meta = &mut state.meta;
        meta.id = *copy.as_bytes();
        (meta.links, meta.link_group) = (None, None);
        meta.base_version = 0;
        meta.need_sync = true;
        meta.removed = None;
        (meta.parent, meta.parent_id) = (0, *parent.as_bytes());
        meta.change = self.store.new_change();
        meta.changed_ns = self.clock.now_ns();
        batch.ids.insert(copy, ino);
        Ok(())
    }

    /// A state of an entry is on the storage.
    pub(super) fn uploaded(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        seen: u64,
        manifest: Manifest,
    ) -> Result<()> {
        let id = manifest.id();
        let Some(ino) = self.batch_ino(batch, id)? else { return Ok(()) };
        let inode = self.batch_inode(namespace, batch, ino)?;
        let mut state = inode.state.lock();
        let is_newest = state.meta.change == seen;
        match state.meta.link_mut(id) {
            Some(link) => {
                link.base_version = manifest.version();
                link.need_sync &= !is_newest;
            }
            None => {
                state.meta.base_version = manifest.version();
                state.meta.need_sync &= !is_newest;
            }
        }
        if state.meta.removed.is_some() {
            // Who has it open has it under another row.
            batch.rows.push(inode_row(ino, &state.meta));
        }
        if let Manifest::File(file) = &manifest
            && state.meta.removed.is_none()
        {
            self.load_slots(ino, &mut state)?;
            let row = state.meta.base_row(ino, id);
            if let Some(links) = &mut state.meta.links {
                batch.bases.insert(row, manifest.clone());
                if seen < links.content_seen {
                    // Another name brought newer content meanwhile.
                    return Ok(());
                }
                links.content_seen = seen;
            }
            let blocks = without_zeros(&file.blocks);
            let has_holes = blocks.iter().map(|block| block.size).sum::<u64>() < file.size;
            // After a later truncation the dirty pages are the only ones that are surely right: they all stay.
            if state.meta.base_limit_change <= seen {
                state.meta.base_limit = file.size;
                let (mut rows, mut released) = (Vec::new(), Vec::new());
                for (number, slot) in state.slots.iter_mut().filter(|(_, slot)| slot.change <= seen) {
                    let (marked, before) = (slot.mark_clean(), released.len());
                    if has_holes {
                        drop_zeros(slot, number, &blocks, file.size, &mut released);
                    }
                    if marked || released.len() > before {
                        rows.push(slot_row(ino, number, slot));
                    }
                }
                state.slots.drop_empty();
                batch.rows.extend(rows);
                self.settle(released);
            }
            state.base_blocks = Some(blocks);
            if state.count_all() {
                batch.notices.push(Notice::Attributes { ino });
            }
        }
        batch.bases.insert(ino, manifest);
        Ok(())
    }

    /// Entries that no folder lists any more go, with everything below them. Not remembered as removed: bringing back what
    /// others changed meanwhile is for the device that removed it, which knows what it had not seen (see `sync::round`).
    pub(super) fn drop_unlisted(&self, namespace: &mut Namespace, batch: &mut Batch) -> Result<()> {
        let mut gone = std::mem::take(&mut batch.unlisted);
        while let Some((folder, id)) = gone.pop() {
            let Some(ino) = self.batch_ino(batch, id)? else { continue };
            let inode = match batch.inodes.get(&ino) {
                Some(inode) => inode.clone(),
                None => self.inode(namespace, ino)?,
            };
            let (elsewhere, removed, is_folder) = {
                let meta = &inode.state.lock().meta;
                let parent = meta.place(id).0;
                (parent != folder && parent != 0, meta.removed.is_some(), meta.is_folder())
            };
            if removed || elsewhere || batch.listed.contains(&id) {
                continue;
            }
            if self.unlink_name(namespace, batch, id, ino)? {
                continue;
            }
            if is_folder {
                self.batch_folder(namespace, batch, ino)?;
                let names = namespace.take_folder(ino).unwrap_or_default();
                for named in names.iter() {
                    batch.rows.push((RowKey::Dentry(ino, named.cookie), None));
                    batch.forget_entry(ino, &Arc::from(named.name));
                    gone.push((ino, named.id));
                }
            }
            self.orphan(namespace, batch, &inode);
            batch.ids.insert(id, 0);
        }
        Ok(())
    }
}
