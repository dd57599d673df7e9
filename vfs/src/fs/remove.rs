//! Taking entries away.

use std::sync::Arc;

use parsecfs_core::id::VlobId;

use super::{Touch, Volume, inode_row, valid_name};
use crate::{
    error::{ErrorKind, Result},
    inode::{Inode, Kind},
    namespace::Namespace,
    store::{RowKey, RowValue},
};

impl Volume {
    /// Removes a name that is not a folder's. Who has the file open goes on with it.
    pub fn unlink(&self, folder: u64, name: &[u8]) -> Result<()> {
        self.remove(folder, name, false)
    }

    /// Removes an empty folder.
    pub fn rmdir(&self, folder: u64, name: &[u8]) -> Result<()> {
        self.remove(folder, name, true)
    }

    fn remove(&self, folder: u64, name: &[u8], want_folder: bool) -> Result<()> {
        let _changing = self.store.changing();
        let name = valid_name(name)?;
        let name = name.reveal();
        let mut namespace = self.namespace();
        let parent = self.folder_to_change(&mut namespace, folder)?;
        let (id, ino) = self.child(&mut namespace, folder, name)?;
        let inode = self.inode(&mut namespace, ino)?;
        self.may_vanish(&mut namespace, &inode, want_folder)?;
        let mut rows = self.drop_entry(&mut namespace, &inode, id, name)?;
        let names = self.folder(&mut namespace, folder)?;
        if let Some(gone) = names.remove(name) {
            rows.push((RowKey::Dentry(folder, gone.cookie), None));
        }
        let mut state = parent.state.lock();
        state.meta.subfolders = state.meta.subfolders.saturating_sub(u32::from(want_folder));
        rows.extend(self.touch(&parent, &mut state, Touch::Content));
        self.store.log(rows);
        Ok(())
    }

    /// Whether an entry may be removed, or replaced by one that is (or is not) a folder.
    pub(super) fn may_vanish(&self, namespace: &mut Namespace, inode: &Inode, want_folder: bool) -> Result<()> {
        let is_folder = inode.state.lock().meta.is_folder();
        match (is_folder, want_folder) {
            (true, false) => Err(ErrorKind::IsDirectory.into()),
            (false, true) => Err(ErrorKind::NotDirectory.into()),
            (true, true) if !self.folder(namespace, inode.ino)?.is_empty() => Err(ErrorKind::NotEmpty.into()),
            _ => Ok(()),
        }
    }

    /// Takes an entry out of the store, listed last as `name`; the caller takes the name out of its folder. What the
    /// storage has of it, or is about to have, stays known until its removal is there too.
    pub(super) fn drop_entry(
        &self,
        namespace: &mut Namespace,
        inode: &Arc<Inode>,
        id: VlobId,
        name: &str,
    ) -> Result<Vec<(RowKey, RowValue)>> {
        let ino = inode.ino;
        let mut state = inode.state.lock();
        let mut rows = Vec::new();
        if state.meta.links.is_some() {
            rows = self.drop_link(ino, &mut state, id, name)?;
            if state.meta.name_count() > 0 {
                return Ok(rows);
            }
        }
        if state.meta.kind != Kind::Folder {
            self.load_slots(ino, &mut state)?;
            // Who has it open goes on reading the base, which may be forgotten or replaced from now on.
            if let Err(error) = self.load_base_blocks(ino, &mut state) {
                tracing::warn!(ino, %error, "base of a removed file cannot be read");
            }
        }
        if let Some(names) = namespace.folder(ino) {
            rows.extend(names.iter().map(|named| (RowKey::Dentry(ino, named.cookie), None)));
        }
        let now = self.clock.now_ns();
        state.meta.ctime_ns = now;
        state.meta.change = self.store.new_change();
        if let Some(group) = state.meta.link_group
            && self.store.link(RowKey::LinkGroup(group))? == Some(ino)
        {
            rows.push((RowKey::LinkGroup(group), None));
        }
        let pending = self.pending.lock().remove(&ino);
        let may_be_stored = state.meta.base_version > 0 || pending.is_some_and(|entry| entry.on_its_way);
        if may_be_stored && state.meta.links.is_none() {
            state.meta.removed = Some(name.to_owned());
            state.meta.changed_ns = now;
            rows.push(inode_row(ino, &state.meta));
            self.removed.lock().entry(state.meta.parent).or_default().push(ino);
        } else {
            rows.push((RowKey::Inode(ino), None));
            rows.push((RowKey::Base(ino), None));
        }
        state.meta.subfolders = 0;
        rows.extend(self.unlist(namespace, ino, &mut state, || self.base(ino)));
        Ok(rows)
    }
}
