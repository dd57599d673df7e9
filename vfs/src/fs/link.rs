//! Hard links: giving an inode another name, and taking one of several away.

use std::sync::Arc;

use parsecfs_core::{id::VlobId, manifest::Manifest};
use parsecfs_crypto::random_bytes;

use super::{Attributes, Volume, dentry_row, inode_row, valid_name};
use crate::{
    content::PAGE_BYTES,
    error::{Error, ErrorKind, Result},
    folder::Dentry,
    inode::{Inode, Meta, Standing, State},
    links::{LINKS_MAX, Link},
    namespace::Namespace,
    store::{RowBytes, RowKey, RowValue},
};

impl Volume {
    /// Gives the inode `ino` one more name and counts one reference of the kernel to it.
    pub fn link(&self, ino: u64, folder: u64, name: &[u8]) -> Result<Attributes> {
        let _changing = self.store.changing();
        let name = valid_name(name)?;
        self.store.check_space(PAGE_BYTES as u64)?;
        let mut namespace = self.namespace();
        let parent = self.folder_to_change(&mut namespace, folder)?;
        let hidden = self.free_name(&mut namespace, folder, name.reveal())?;
        let inode = self.inode(&mut namespace, ino)?;
        let mut rows = self.add_link(&inode, &parent)?;
        let id = inode.state.lock().meta.entries().last().copied().ok_or(ErrorKind::Internal)?;
        let dentry = Dentry { name: Arc::from(name.reveal()), id, ino };
        let cookie = self.store.new_cookie();
        rows.extend(hidden);
        rows.push(dentry_row(folder, cookie, &dentry));
        rows.extend(self.touch_folder(&parent));
        self.store.log(rows);
        let names = self.folder(&mut namespace, folder)?;
        names.insert(cookie, &dentry);
        self.refer(&mut namespace, ino)
    }

    /// Adds an entry in `folder` to the names of an inode.
    fn add_link(&self, inode: &Inode, folder: &Inode) -> Result<Vec<(RowKey, RowValue)>> {
        let parent_id = folder.state.lock().meta.id;
        let mut state = inode.state.lock();
        if state.meta.is_folder() {
            return Err(ErrorKind::NotPermitted.into());
        }
        if state.is_unlinked() {
            return self.give_first_name(inode.ino, &mut state, (folder.ino, parent_id));
        }
        if usize::try_from(state.meta.name_count()).is_ok_and(|names| names >= LINKS_MAX) {
            return Err(Error::new(ErrorKind::TooManyLinks, "an inode has that many names at most"));
        }
        let mut rows = Vec::new();
        if state.meta.links.is_none() {
            rows = self.start_links(inode.ino, &mut state.meta)?;
        }
        let now = self.clock.now_ns();
        let meta = &mut state.meta;
        let link = Link {
            id: random_bytes(),
            base_row: self.store.new_ino(),
            parent: folder.ino,
            parent_id,
            created_us: now / 1000,
            base_version: 0,
            need_sync: true,
        };
        rows.push(link_row(RowKey::LinkName(link.id), inode.ino));
        meta.links.as_mut().ok_or(ErrorKind::Internal)?.names.push(link);
        (meta.ctime_ns, meta.changed_ns, meta.change) = (now, now, self.store.new_change());
        rows.extend(self.changed_row(inode.ino, &state));
        Ok(rows)
    }

    /// A file that was made without a name gets one. One whose names were removed stays without.
    fn give_first_name(&self, ino: u64, state: &mut State, parent: (u64, [u8; 16])) -> Result<Vec<(RowKey, RowValue)>> {
        if state.meta.parent != 0 || state.meta.base_version != 0 || state.meta.link_group.is_some() {
            return Err(ErrorKind::NotFound.into());
        }
        state.standing = Standing::Listed;
        let now = self.clock.now_ns();
        let meta = &mut state.meta;
        (meta.parent, meta.parent_id) = parent;
        (meta.ctime_ns, meta.changed_ns, meta.change) = (now, now, self.store.new_change());
        let listed = self.changed_row(ino, state);
        Ok([(RowKey::Orphan(ino), None)].into_iter().chain(listed).collect())
    }

    /// Has an inode of one entry take more, in a link group of its own if it is in none.
    fn start_links(&self, ino: u64, meta: &mut Meta) -> Result<Vec<(RowKey, RowValue)>> {
        let base = self.base(ino)?;
        let number = self.store.new_ino();
        meta.start_links(number);
        let mut rows = vec![link_row(RowKey::LinkName(meta.id), ino)];
        rows.extend(base.map(|base| base_row(number, &base)));
        if meta.link_group.is_none() {
            meta.link_group = Some(random_bytes());
            meta.set_need_sync();
        }
        rows.extend(meta.link_group.map(|group| link_row(RowKey::LinkGroup(group), ino)));
        Ok(rows)
    }

    /// Takes one of several names, listed last as `name`, from an inode. What the storage has of it stays known until
    /// its removal is there too.
    pub(super) fn drop_link(
        &self,
        ino: u64,
        state: &mut State,
        id: VlobId,
        name: &str,
    ) -> Result<Vec<(RowKey, RowValue)>> {
        let Some(link) = state.meta.take_link(id) else { return Ok(Vec::new()) };
        let now = self.clock.now_ns();
        let mut rows = vec![(RowKey::LinkName(link.id), None)];
        let on_its_way = self.pending.lock().get(&ino).is_some_and(|entry| entry.on_its_way);
        if link.base_version > 0 || on_its_way {
            let size = self.base(link.base_row)?.as_ref().map_or(0, content_size);
            let mut meta = state.meta.of_link(&link);
            meta.removed = Some(name.to_owned());
            (meta.size, meta.base_limit) = (size, size);
            (meta.change, meta.changed_ns, meta.ctime_ns) = (self.store.new_change(), now, now);
            rows.push(inode_row(link.base_row, &meta));
            self.removed.lock().entry(link.parent).or_default().push(link.base_row);
        } else {
            rows.push((RowKey::Base(link.base_row), None));
        }
        state.meta.ctime_ns = now;
        state.meta.change = self.store.new_change();
        rows.extend(self.changed_row(ino, state));
        Ok(rows)
    }

    /// The inode of an entry.
    pub(super) fn entry_ino(&self, id: VlobId) -> Result<Option<u64>> {
        match self.store.ino_of(id)? {
            Some(ino) => Ok(Some(ino)),
            None => self.store.link(RowKey::LinkName(*id.as_bytes())),
        }
    }

    /// The inode of a link group. A row may be older than its inode, which then says otherwise.
    pub(super) fn group_ino(&self, namespace: &Namespace, group: [u8; 16]) -> Result<Option<u64>> {
        let Some(ino) = self.store.link(RowKey::LinkGroup(group))? else { return Ok(None) };
        Ok(self.is_group(namespace, ino, group)?.then_some(ino))
    }

    pub(super) fn is_group(&self, namespace: &Namespace, ino: u64, group: [u8; 16]) -> Result<bool> {
        match self.peek_inode(namespace, ino) {
            Ok(inode) => {
                let state = inode.state.lock();
                Ok(!state.is_unlinked() && state.meta.removed.is_none() && state.meta.link_group == Some(group))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A row that names an inode.
pub(super) fn link_row(key: RowKey, ino: u64) -> (RowKey, RowValue) {
    (key, Some(RowBytes { id: None, pending: false, bytes: ino.to_le_bytes().to_vec().into() }))
}

pub(super) fn base_row(row: u64, manifest: &Manifest) -> (RowKey, RowValue) {
    (RowKey::Base(row), Some(RowBytes { id: None, pending: false, bytes: manifest.to_bytes().into() }))
}

pub(super) fn content_size(manifest: &Manifest) -> u64 {
    match manifest {
        Manifest::File(file) => file.size,
        Manifest::Folder(_) => 0,
    }
}
