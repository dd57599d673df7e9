//! Names that share an inode, as sync gives and takes them.
//!
//! An entry that says it belongs to a link group becomes a name of the group's inode when its content is what that
//! inode's was made from: nothing here can be lost by it. Otherwise - the manifests of a group arrive one by one, and
//! another client may have changed one - it is shown by itself, and joins with a later version. A name that does not say
//! so any more gets an inode of its own with the content of its vlob.

use std::sync::Arc;

use parsecfs_core::{id::VlobId, manifest::Manifest, merge::same_content};

use super::{super::zeros::without_zeros, Volume, batch::Batch};
use crate::{
    error::{ErrorKind, Result},
    fs::link::{content_size, link_row},
    inode::Inode,
    links::Link,
    namespace::Namespace,
    notify::Notice,
    store::RowKey,
    tree::Merged,
};

impl Batch {
    pub(super) fn set_group(&mut self, group: [u8; 16], ino: u64) {
        self.groups.insert(group, ino);
        self.rows.push(link_row(RowKey::LinkGroup(group), ino));
    }

    pub(super) fn drop_group(&mut self, group: [u8; 16]) {
        self.groups.insert(group, 0);
        self.rows.push((RowKey::LinkGroup(group), None));
    }

    /// An entry is a name of an inode with links.
    fn set_name(&mut self, id: VlobId, ino: u64) {
        self.ids.insert(id, ino);
        self.rows.push(link_row(RowKey::LinkName(*id.as_bytes()), ino));
    }

    fn drop_name(&mut self, link: &Link) {
        self.rows.push((RowKey::LinkName(link.id), None));
        self.drop_base(link.base_row);
    }
}

impl Volume {
    /// The other names of an entry's inode, or those left of its group when it was removed.
    pub(super) fn other_names(&self, namespace: &Namespace, inode: &Inode, id: VlobId) -> Result<Vec<VlobId>> {
        let (mut entries, removed_from) = {
            let meta = &inode.state.lock().meta;
            match (&meta.links, &meta.removed, meta.link_group) {
                (Some(_), ..) => (meta.entries(), None),
                (None, Some(_), group) => (Vec::new(), group),
                (None, None, _) => return Ok(Vec::new()),
            }
        };
        if let Some(group) = removed_from
            && let Some(ino) = self.group_ino(namespace, group)?
        {
            entries = self.peek_inode(namespace, ino)?.state.lock().meta.entries();
        }
        entries.retain(|other| *other != id);
        Ok(entries)
    }

    /// Whether the row of a link group names this inode.
    pub(super) fn is_group_row(&self, batch: &Batch, group: [u8; 16], ino: u64) -> bool {
        match batch.groups.get(&group) {
            Some(known) => *known == ino,
            None => matches!(self.store.link(RowKey::LinkGroup(group)), Ok(Some(known)) if known == ino),
        }
    }

    fn batch_group(&self, namespace: &Namespace, batch: &Batch, group: [u8; 16]) -> Result<Option<u64>> {
        match batch.groups.get(&group) {
            Some(ino) => Ok(Some(*ino).filter(|ino| *ino != 0)),
            None => self.group_ino(namespace, group),
        }
    }

    /// The names of an inode lead to it from now on.
    pub(super) fn move_names(&self, namespace: &mut Namespace, batch: &mut Batch, inode: &Arc<Inode>) -> Result<()> {
        let meta = inode.state.lock().meta.clone();
        if meta.links.is_none() {
            batch.ids.insert(meta.entry_id(), inode.ino);
            return Ok(());
        }
        for id in meta.entries() {
            batch.set_name(id, inode.ino);
        }
        for id in meta.entries() {
            let (folder, folder_id) = meta.place(id);
            self.relink(namespace, batch, inode, id, VlobId::from_bytes(folder_id), folder)?;
        }
        Ok(())
    }

    /// All names of an inode get another one, which waits for its content.
    pub(super) fn leave_content(&self, namespace: &mut Namespace, batch: &mut Batch, old: &Arc<Inode>) -> Result<()> {
        let mut meta = old.state.lock().meta.clone();
        (meta.size, meta.base_limit) = (0, 0);
        let group = meta.link_group.filter(|group| self.is_group_row(batch, *group, old.ino));
        let inode = self.place_inode(namespace, batch, meta);
        if let Some(group) = group {
            batch.set_group(group, inode.ino);
        }
        self.move_names(namespace, batch, &inode)
    }

    /// A name whose entry does not belong to the inode's link group any more leaves it, without content if others stay.
    pub(super) fn follow_group(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        inode: Arc<Inode>,
        id: VlobId,
        base: Option<&Manifest>,
        local: &Merged,
    ) -> Result<Arc<Inode>> {
        let (link, mut meta) = {
            let mut state = inode.state.lock();
            let stays = state.meta.link_group == local.extension.link_group;
            if stays || state.meta.name_count() == 1 {
                return Ok(inode.clone());
            }
            let Some(link) = state.meta.take_link(id) else { return Ok(inode.clone()) };
            state.meta.ctime_ns = self.clock.now_ns();
            state.meta.change = self.store.new_change();
            (link.clone(), state.meta.of_link(&link))
        };
        batch.notices.push(Notice::Inode { ino: inode.ino });
        let kept = match base {
            Some(base) => Some(base.clone()),
            None => self.batch_base(batch, link.base_row)?,
        };
        batch.drop_name(&link);
        let size = kept.as_ref().map_or(0, content_size);
        (meta.size, meta.base_limit) = (size, size);
        let own = self.place_inode(namespace, batch, meta);
        if let Some(Manifest::File(file)) = &kept {
            let mut state = own.state.lock();
            state.meta.blocksize = file.blocksize;
            state.base_blocks = Some(without_zeros(&file.blocks));
        }
        batch.bases.extend(kept.map(|kept| (own.ino, kept)));
        batch.ids.insert(id, own.ino);
        Ok(own)
    }

    /// Takes an entry that no folder lists any more from the names of its inode. `false`: it is none.
    pub(super) fn unlink_name(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        id: VlobId,
        ino: u64,
    ) -> Result<bool> {
        let inode = self.inode(namespace, ino)?;
        if inode.state.lock().meta.link(id).is_none() {
            return Ok(false);
        }
        let inode = self.batch_inode(namespace, batch, ino)?;
        let left = {
            let mut state = inode.state.lock();
            let link = state.meta.take_link(id).ok_or(ErrorKind::Internal)?;
            batch.drop_name(&link);
            state.meta.ctime_ns = self.clock.now_ns();
            state.meta.name_count()
        };
        if left == 0 {
            self.orphan(namespace, batch, &inode);
        }
        batch.ids.insert(id, 0);
        batch.notices.push(Notice::Inode { ino });
        Ok(true)
    }

    /// Entries of the batch that belong to a link group become names of its inode, where their content allows it.
    pub(super) fn join_groups(&self, namespace: &mut Namespace, batch: &mut Batch) -> Result<()> {
        let mut grouped = Vec::new();
        for id in std::mem::take(&mut batch.grouped) {
            let Some(ino) = self.batch_ino(batch, id)? else { continue };
            let inode = self.batch_inode(namespace, batch, ino)?;
            let meta = &inode.state.lock().meta;
            if let (None, Some(group), false) = (&meta.removed, meta.link_group, meta.is_folder()) {
                grouped.push((!meta.waits(), id, group));
            }
        }
        // Those with changes first: they cannot give up their content for another's.
        grouped.sort_unstable();
        for (_, id, group) in grouped {
            let Some(ino) = self.batch_ino(batch, id)? else { continue };
            match self.batch_group(namespace, batch, group)? {
                None => batch.set_group(group, ino),
                Some(holder) if holder == ino => {}
                Some(holder) => self.join(namespace, batch, id, ino, holder)?,
            }
        }
        Ok(())
    }

    fn join(&self, namespace: &mut Namespace, batch: &mut Batch, id: VlobId, ino: u64, holder: u64) -> Result<()> {
        let inode = self.batch_inode(namespace, batch, ino)?;
        let target = self.batch_inode(namespace, batch, holder)?;
        let (Some(base), Some(content)) = (self.batch_base(batch, ino)?, self.batch_base(batch, holder)?) else {
            return Ok(());
        };
        let is_same = match (&base, &content) {
            (Manifest::File(base), Manifest::File(content)) => same_content(base, content),
            _ => false,
        };
        let (is_clean, mut meta) = {
            let mut state = inode.state.lock();
            self.load_slots(ino, &mut state)?;
            (state.is_clean(), state.meta.clone())
        };
        if !is_same || !is_clean || meta.links.is_some() || meta.kind != target.state.lock().meta.kind {
            return Ok(());
        }
        self.orphan(namespace, batch, &inode);
        {
            let mut state = target.state.lock();
            self.load_slots(holder, &mut state)?;
            meta.need_sync |= !state.is_clean();
            if state.meta.links.is_none() {
                let row = self.store.new_ino();
                state.meta.start_links(row);
                batch.bases.insert(row, content);
                batch.set_name(state.meta.entry_id(), holder);
            }
            let link = Link {
                id: *id.as_bytes(),
                base_row: self.store.new_ino(),
                parent: meta.parent,
                parent_id: meta.parent_id,
                created_us: meta.created_us,
                base_version: meta.base_version,
                need_sync: meta.need_sync,
            };
            batch.bases.insert(link.base_row, base);
            batch.set_name(id, holder);
            state.meta.ctime_ns = self.clock.now_ns();
            state.meta.change = self.store.new_change();
            let links = state.meta.links.as_mut().ok_or(ErrorKind::Internal)?;
            links.names.push(link);
        }
        batch.notices.push(Notice::Inode { ino: holder });
        self.relink(namespace, batch, &target, id, VlobId::from_bytes(meta.parent_id), meta.parent)
    }
}
