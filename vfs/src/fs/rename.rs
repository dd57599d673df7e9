//! Moving entries: one group of rows, so that a name is never in no folder or in two.

use std::sync::Arc;

use parsecfs_core::id::VlobId;

use super::{Touch, Volume, dentry_row, valid_name};
use crate::{
    error::{Error, ErrorKind, Result},
    folder::Dentry,
    inode::{Inode, ROOT_INO},
    namespace::Namespace,
    store::{RowKey, RowValue},
};

/// What happens to a name that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// It stops the rename.
    Keep,
    /// The two change places.
    Exchange,
}

/// One side of a rename.
struct Side {
    folder: Arc<Inode>,
    name: Arc<str>,
    cookie: u64,
    dentry: Dentry,
    inode: Arc<Inode>,
    is_folder: bool,
}

impl Volume {
    /// Moves `name` in `folder` to `new_name` in `new_folder`.
    pub fn rename(&self, folder: u64, name: &[u8], new_folder: u64, new_name: &[u8], mode: RenameMode) -> Result<()> {
        let _changing = self.store.changing();
        let (name, new_name) = (valid_name(name)?, valid_name(new_name)?);
        let mut namespace = self.namespace();
        let target_folder = self.folder_to_change(&mut namespace, new_folder)?;
        let from = self.side(&mut namespace, folder, name.reveal())?.ok_or(ErrorKind::NotFound)?;
        let to = self.side(&mut namespace, new_folder, new_name.reveal())?;
        if mode == RenameMode::Keep && to.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        if to.as_ref().is_some_and(|to| to.dentry.ino == from.dentry.ino) {
            return Ok(());
        }
        if from.is_folder {
            self.not_inside(&mut namespace, from.dentry.ino, new_folder)?;
        }
        match (mode, to) {
            (RenameMode::Exchange, None) => Err(ErrorKind::NotFound.into()),
            (RenameMode::Exchange, Some(to)) => {
                if to.is_folder {
                    self.not_inside(&mut namespace, to.dentry.ino, folder)?;
                }
                self.exchange(&mut namespace, &from, &to)
            }
            (_, to) => {
                let mut rows = Vec::with_capacity(8);
                if let Some(to) = &to {
                    self.may_vanish(&mut namespace, &to.inode, from.is_folder)?;
                    rows = self.drop_entry(&mut namespace, &to.inode, to.dentry.id, &to.name)?;
                    count_subfolders(&target_folder, to.is_folder, false);
                }
                self.move_entry(&mut namespace, rows, &from, &target_folder, Arc::from(new_name.reveal()))
            }
        }
    }

    fn side(&self, namespace: &mut Namespace, folder: u64, name: &str) -> Result<Option<Side>> {
        let owner = self.folder_to_change(namespace, folder)?;
        let Some(there) = self.folder(namespace, folder)?.get(name).filter(|there| there.ino != 0) else {
            return Ok(None);
        };
        let (cookie, dentry) = (there.cookie, there.dentry());
        let inode = self.inode(namespace, dentry.ino)?;
        let is_folder = inode.state.lock().meta.is_folder();
        Ok(Some(Side { folder: owner, name: dentry.name.clone(), cookie, dentry, inode, is_folder }))
    }

    /// Refuses to move a folder below itself.
    fn not_inside(&self, namespace: &mut Namespace, moved: u64, target: u64) -> Result<()> {
        let mut at = target;
        while at != ROOT_INO {
            if at == moved {
                return Err(Error::new(ErrorKind::InvalidArgument, "a folder cannot be moved into itself"));
            }
            at = self.inode(namespace, at)?.state.lock().meta.parent;
        }
        Ok(())
    }

    fn move_entry(
        &self,
        namespace: &mut Namespace,
        mut rows: Vec<(RowKey, RowValue)>,
        from: &Side,
        target: &Arc<Inode>,
        new_name: Arc<str>,
    ) -> Result<()> {
        let moved = Dentry { name: new_name.clone(), ..from.dentry.clone() };
        let cookie = self.store.new_cookie();
        rows.push((RowKey::Dentry(from.folder.ino, from.cookie), None));
        rows.push(dentry_row(target.ino, cookie, &moved));
        self.folder(namespace, from.folder.ino)?.remove(&from.name);
        let names = self.folder(namespace, target.ino)?;
        // What was replaced, or a name whose entry never arrived.
        rows.extend(names.remove(&new_name).map(|gone| (RowKey::Dentry(target.ino, gone.cookie), None)));
        names.insert(cookie, &moved);
        rows.extend(self.set_parent(&from.inode, from.dentry.id, target));
        count_subfolders(&from.folder, from.is_folder, false);
        count_subfolders(target, from.is_folder, true);
        rows.extend(self.touch_folder(&from.folder));
        if target.ino != from.folder.ino {
            rows.extend(self.touch_folder(target));
        }
        self.store.log(rows);
        Ok(())
    }

    fn exchange(&self, namespace: &mut Namespace, a: &Side, b: &Side) -> Result<()> {
        let mut rows = Vec::with_capacity(6);
        for (side, other) in [(a, b), (b, a)] {
            let dentry = Dentry { name: side.name.clone(), ..other.dentry.clone() };
            rows.push(dentry_row(side.folder.ino, side.cookie, &dentry));
            self.folder(namespace, side.folder.ino)?.insert(side.cookie, &dentry);
            rows.extend(self.set_parent(&other.inode, other.dentry.id, &side.folder));
            count_subfolders(&side.folder, side.is_folder, false);
            count_subfolders(&side.folder, other.is_folder, true);
        }
        rows.extend(self.touch_folder(&a.folder));
        if a.folder.ino != b.folder.ino {
            rows.extend(self.touch_folder(&b.folder));
        }
        self.store.log(rows);
        Ok(())
    }

    /// The entry is listed by `folder` now. Only a move to another folder changes its manifest.
    fn set_parent(&self, inode: &Inode, id: VlobId, folder: &Inode) -> Option<(RowKey, RowValue)> {
        let parent_id = folder.state.lock().meta.id;
        let mut state = inode.state.lock();
        state.meta.ctime_ns = self.clock.now_ns();
        if state.meta.place(id).0 != folder.ino {
            state.meta.set_place(id, folder.ino, parent_id);
            state.meta.change = self.store.new_change();
            state.meta.changed_ns = state.meta.ctime_ns;
            match state.meta.link_mut(id) {
                Some(link) => link.need_sync = true,
                None => state.meta.need_sync = true,
            }
        }
        self.changed_row(inode.ino, &state)
    }

    pub(super) fn touch_folder(&self, folder: &Inode) -> Option<(RowKey, RowValue)> {
        let mut state = folder.state.lock();
        self.touch(folder, &mut state, Touch::Content)
    }
}

fn count_subfolders(folder: &Inode, is_folder: bool, more: bool) {
    if is_folder {
        let count = &mut folder.state.lock().meta.subfolders;
        *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
    }
}
