//! The names in folders, as sync gives and takes them.
//!
//! A folder's manifest lists entries, and an entry's manifest names its folder. A name is shown when both agree; while
//! they do not - one of the two has not come yet, or the entry says that it is elsewhere - the name stays, with inode 0,
//! so that sync sees all that the folder lists and the kernel sees no entry twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parsecfs_core::{id::VlobId, name::EntryName};

use super::{Volume, batch::Batch};
use crate::{
    error::{Error, ErrorKind, Result},
    folder::Dentry,
    fs::dentry_row,
    inode::Inode,
    namespace::Namespace,
    store::RowKey,
};

impl Volume {
    /// Shows an entry in the folder that it names as its parent, and hides it elsewhere.
    pub(super) fn relink(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        inode: &Arc<Inode>,
        id: VlobId,
        parent: VlobId,
        moved_from: u64,
    ) -> Result<()> {
        let parent_ino = self.batch_ino(batch, parent)?.unwrap_or(0);
        let is_folder = {
            let mut state = inode.state.lock();
            state.meta.set_place(id, parent_ino, *parent.as_bytes());
            state.meta.is_folder()
        };
        if moved_from != 0 && moved_from != parent_ino {
            let shown = self.batch_folder(namespace, batch, moved_from).ok().and_then(|folder| {
                folder.iter().find(|named| named.id == id).map(|named| (named.cookie, named.dentry()))
            });
            if let Some((cookie, dentry)) = shown {
                self.set_dentry(namespace, batch, moved_from, cookie, Dentry { ino: 0, ..dentry }, is_folder)?;
            }
        }
        if parent_ino == 0 {
            // The folder comes later in this batch, or in another, and finds the entry then.
            return Ok(());
        }
        let folder = self.batch_folder(namespace, batch, parent_ino)?;
        let elsewhere = || folder.iter().find(|named| named.id == id && named.ino != inode.ino);
        let place = folder.hidden(id).or_else(elsewhere).map(|named| (named.cookie, named.dentry()));
        if let Some((cookie, dentry)) = place {
            self.set_dentry(namespace, batch, parent_ino, cookie, Dentry { ino: inode.ino, ..dentry }, is_folder)?;
        }
        Ok(())
    }

    /// Puts a name into a folder, or another inode behind it.
    pub(super) fn set_dentry(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        folder: u64,
        cookie: u64,
        dentry: Dentry,
        is_folder: bool,
    ) -> Result<()> {
        batch.rows.push(dentry_row(folder, cookie, &dentry));
        batch.forget_entry(folder, &dentry.name);
        let names = self.batch_folder(namespace, batch, folder)?;
        let before = names.at(cookie).map_or(0, |named| named.ino);
        let after = dentry.ino;
        names.insert(cookie, &dentry);
        if is_folder && (before == 0) != (after == 0) {
            self.count_subfolder(namespace, batch, folder, after != 0)?;
        }
        Ok(())
    }

    fn count_subfolder(&self, namespace: &mut Namespace, batch: &mut Batch, folder: u64, more: bool) -> Result<()> {
        let inode = self.batch_inode(namespace, batch, folder)?;
        let count = &mut inode.state.lock().meta.subfolders;
        *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
        Ok(())
    }

    pub(super) fn set_children(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        inode: &Arc<Inode>,
        children: &BTreeMap<EntryName, VlobId>,
    ) -> Result<()> {
        let folder = inode.ino;
        let now: Vec<(u64, Dentry)> =
            self.batch_folder(namespace, batch, folder)?.iter().map(|named| (named.cookie, named.dentry())).collect();
        let mut there = BTreeSet::new();
        for (cookie, dentry) in now {
            let stays = EntryName::new(&dentry.name).is_ok_and(|name| children.get(&name) == Some(&dentry.id));
            if stays {
                there.insert(dentry.name.clone());
                continue;
            }
            batch.rows.push((RowKey::Dentry(folder, cookie), None));
            batch.forget_entry(folder, &dentry.name);
            self.batch_folder(namespace, batch, folder)?.remove(&dentry.name);
            if dentry.ino != 0 && self.is_folder(namespace, batch, dentry.ino) {
                self.count_subfolder(namespace, batch, folder, false)?;
            }
            batch.unlisted.push((folder, dentry.id));
        }
        for (name, id) in children {
            if there.contains(name.reveal()) {
                continue;
            }
            let (ino, is_folder) = self.shown_ino(namespace, batch, folder, *id)?;
            let dentry = Dentry { name: Arc::from(name.reveal()), id: *id, ino };
            let cookie = self.store.new_cookie();
            self.set_dentry(namespace, batch, folder, cookie, dentry, is_folder)?;
        }
        Ok(())
    }

    /// The inode to show for an entry in a folder: 0 when it is unknown, or says that it is elsewhere. One that was
    /// removed here is back.
    fn shown_ino(&self, namespace: &mut Namespace, batch: &mut Batch, folder: u64, id: VlobId) -> Result<(u64, bool)> {
        let Some(ino) = self.batch_ino(batch, id)? else { return Ok((0, false)) };
        let folder_id = match batch.inodes.get(&folder) {
            Some(folder) if folder.ino != ino => folder.state.lock().meta.id,
            _ => return Ok((0, false)),
        };
        let mut inode = self.batch_inode(namespace, batch, ino)?;
        if inode.state.lock().meta.removed.is_some() {
            let Some(back) = self.revive(namespace, batch, id, &inode, None)? else { return Ok((0, false)) };
            inode = back;
        }
        let mut state = inode.state.lock();
        if state.meta.place(id).1 != folder_id {
            return Ok((0, false));
        }
        state.meta.set_place(id, folder, folder_id);
        Ok((inode.ino, state.meta.is_folder()))
    }

    fn is_folder(&self, namespace: &mut Namespace, batch: &Batch, ino: u64) -> bool {
        let inode = batch.inodes.get(&ino).cloned().map_or_else(|| self.inode(namespace, ino), Ok);
        inode.is_ok_and(|inode| inode.state.lock().meta.is_folder())
    }

    pub(super) fn children(
        &self,
        namespace: &mut Namespace,
        inode: &Arc<Inode>,
    ) -> Result<BTreeMap<EntryName, VlobId>> {
        let names = if inode.state.lock().meta.removed.is_some() {
            return Ok(BTreeMap::new());
        } else {
            self.names(namespace, inode.ino)?
        };
        let mut children = BTreeMap::new();
        for dentry in names {
            let damaged = |e| Error::new(ErrorKind::Corrupt, "a name in the local store").caused_by(e);
            children.insert(EntryName::new(&dentry.name).map_err(damaged)?, dentry.id);
        }
        Ok(children)
    }

    /// The names of a folder, without keeping them in memory when the kernel does not know it.
    pub(in crate::fs) fn names(&self, namespace: &mut Namespace, ino: u64) -> Result<Vec<Dentry>> {
        match namespace.folder(ino) {
            Some(folder) => Ok(folder.iter().map(|named| named.dentry()).collect()),
            None => self.store.dentries(ino)?.into_values().map(|row| Dentry::decode(&row?)).collect(),
        }
    }
}
