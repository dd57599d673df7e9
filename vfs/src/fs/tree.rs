//! What sync sees and changes of the tree: [`LocalTree`] over the volume.
//!
//! A batch of updates is applied under the namespace lock: first every `seen` is checked, then everything is changed in
//! memory and collected as one group of rows. The kernel's open files keep the content they were opened on: when another
//! device replaced it, the entry gets a new inode, as if it had been replaced by rename.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use parsecfs_core::{
    id::VlobId,
    manifest::{BlockAccess, Manifest},
    name::EntryName,
    time::Timestamp,
};

use super::{Pending, ReadOutcome, Volume, dentry_row, slot_row};
use crate::{
    content::{PAGE, SLOT_PAGES},
    error::{Error, ErrorKind, Result},
    inode::{Dentry, Folder, Inode, Kind, Known, Loaded, Meta, Namespace, ROOT_INO, State},
    notify::Notice,
    store::{RowBytes, RowKey, RowValue},
    tree::{
        ChangeNumber, LocalContent, LocalEntry, LocalTree, Merged, MergedContent, PendingEntry, SlotState, TreeUpdate,
    },
};

impl LocalTree for Volume {
    fn checkpoint(&self) -> Result<u64> {
        let row = self.store.row(RowKey::Checkpoint)?;
        let bytes = row.as_deref().map(<[u8; 8]>::try_from).transpose();
        let damaged = |e| Error::new(ErrorKind::Corrupt, "the checkpoint in the local store").caused_by(e);
        Ok(bytes.map_err(damaged)?.map_or(0, u64::from_le_bytes))
    }

    fn pending(&self, limit: usize) -> Result<Vec<PendingEntry>> {
        let mut waiting: Vec<(u64, Pending)> = self.pending.lock().iter().map(|(ino, entry)| (*ino, *entry)).collect();
        waiting.sort_unstable_by_key(|(ino, entry)| (entry.changed_ns, *ino));
        waiting.truncate(limit);
        let namespace = self.namespace.lock();
        let mut found = Vec::with_capacity(waiting.len());
        for (ino, entry) in waiting {
            match self.inode(&namespace, ino) {
                Ok(inode) => found.push(PendingEntry {
                    id: inode.state.lock().meta.entry_id(),
                    change: ChangeNumber(entry.change),
                    changed_ns: entry.changed_ns,
                    folder: entry.folder,
                    bytes: entry.bytes,
                }),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn pending_total(&self) -> Result<(u64, u64)> {
        let pending = self.pending.lock();
        Ok((pending.len() as u64, pending.values().map(|entry| entry.bytes).sum()))
    }

    fn load(&self, id: VlobId) -> Result<Option<LocalEntry>> {
        let mut namespace = self.namespace.lock();
        let Some(ino) = self.store.ino_of(id)? else { return Ok(None) };
        let inode = self.inode(&namespace, ino)?;
        let is_folder = inode.state.lock().meta.is_folder();
        let children = if is_folder { self.children(&mut namespace, &inode)? } else { BTreeMap::new() };
        drop(namespace);
        let base = self.base(ino)?;
        let mut state = inode.state.lock();
        let meta = &state.meta;
        let mut extension = meta.extension();
        if let Some(known) = base.as_ref().and_then(|base| base.extension()) {
            extension.unknown = known.unknown.clone();
        }
        let micros = |us| Timestamp::from_micros(us).unwrap_or(Timestamp::MAX);
        let mut entry = LocalEntry {
            id,
            base: base.clone().filter(|_| meta.base_version > 0),
            change: ChangeNumber(meta.change),
            need_sync: meta.need_sync,
            parent: meta.parent_entry(),
            removed: meta.removed.as_deref().and_then(|name| EntryName::new(name).ok()),
            created: micros(meta.created_us),
            updated: micros(meta.updated_us),
            extension,
            content: LocalContent::Folder { children },
        };
        if !is_folder {
            let blocks = match base {
                Some(Manifest::File(file)) => file.blocks,
                _ => Vec::new(),
            };
            entry.content = self.file_content(ino, &mut state, &blocks)?;
        }
        Ok(Some(entry))
    }

    fn base_versions(&self, ids: &[VlobId]) -> Result<Vec<(VlobId, u32)>> {
        let namespace = self.namespace.lock();
        let mut versions = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(ino) = self.store.ino_of(*id)? else { continue };
            let version = self.inode(&namespace, ino)?.state.lock().meta.base_version;
            if version > 0 {
                versions.push((*id, version));
            }
        }
        Ok(versions)
    }

    fn slot(&self, id: VlobId, seen: ChangeNumber, slot: u64) -> Result<Option<Vec<u8>>> {
        let mut fetched = Vec::new();
        loop {
            let namespace = self.namespace.lock();
            let Some(ino) = self.store.ino_of(id)? else { return Ok(None) };
            let inode = self.inode(&namespace, ino)?;
            drop(namespace);
            let (start, length) = {
                let meta = &inode.state.lock().meta;
                let start = slot.checked_mul(meta.blocksize).ok_or(ErrorKind::InvalidArgument)?;
                (start, meta.blocksize.min(meta.size.saturating_sub(start)))
            };
            let length = usize::try_from(length).map_err(|_| Error::from(ErrorKind::TooLarge))?;
            let outcome = self.read_inode(&inode, start, length, &fetched)?;
            if inode.state.lock().meta.change != seen.0 {
                return Ok(None);
            }
            match outcome {
                ReadOutcome::Data(bytes) => return Ok(Some(bytes)),
                ReadOutcome::Missing(blocks) => fetched.extend(self.fetch_blocking(&blocks)?),
            }
        }
    }

    fn apply(&self, updates: Vec<TreeUpdate>, checkpoint: Option<u64>) -> Result<()> {
        let _changing = self.store.changing();
        let mut namespace = self.namespace.lock();
        for update in &updates {
            self.check_seen(&namespace, update)?;
        }
        let mut batch = Batch::of(&updates);
        for update in updates {
            match update {
                TreeUpdate::Put { id, base, local, .. } => self.put(&mut namespace, &mut batch, id, base, local)?,
                TreeUpdate::Fork { id, copy, parent, .. } => {
                    self.fork(&mut namespace, &mut batch, id, copy, parent)?;
                }
                TreeUpdate::Uploaded { seen, manifest } => {
                    self.uploaded(&mut namespace, &mut batch, seen.0, manifest)?;
                }
            }
        }
        self.drop_unlisted(&mut namespace, &mut batch)?;
        let touched = std::mem::take(&mut batch.inodes);
        for (ino, inode) in &touched {
            batch.rows.extend(self.changed_row(*ino, &inode.state.lock()));
        }
        let checkpoint = checkpoint.map(|checkpoint| {
            let bytes = checkpoint.to_le_bytes().to_vec();
            (RowKey::Checkpoint, Some(RowBytes { id: None, pending: false, bytes: bytes.into() }))
        });
        self.store.log(batch.rows.into_iter().chain(checkpoint));
        for inode in touched.values() {
            // Most files are read from their slots, and for the others the row has it from now on.
            let mut state = inode.state.lock();
            if !state.unlinked {
                state.base_blocks = None;
            }
        }
        Self::forget_unreferred(&mut namespace, touched.into_keys().chain(batch.loaded));
        drop(namespace);
        for notice in batch.notices {
            self.notices.tell(notice);
        }
        Ok(())
    }

    fn changed<'a>(&'a self, since: u64) -> BoxFuture<'a, u64> {
        Box::pin(async move {
            let mut changed = self.changed.subscribe();
            match changed.wait_for(|change| *change > since).await {
                Ok(change) => *change,
                // The sender lives in `self`.
                Err(_) => since,
            }
        })
    }
}

/// What a batch has changed so far. The store shows it only at the end, so lookups ask here first.
struct Batch {
    rows: Vec<(RowKey, RowValue)>,
    /// Inodes that were touched; their rows are made at the end.
    inodes: HashMap<u64, Arc<Inode>>,
    /// Inode of entries that were made or got another one here.
    ids: HashMap<VlobId, u64>,
    /// Entries that some folder of this batch lists.
    listed: BTreeSet<VlobId>,
    /// Entries that left a folder of this batch, with that folder.
    unlisted: Vec<(u64, VlobId)>,
    notices: Vec<Notice>,
    /// Folders whose names were looked at.
    loaded: Vec<u64>,
}

impl Batch {
    fn of(updates: &[TreeUpdate]) -> Self {
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
            inodes: HashMap::new(),
            ids: HashMap::new(),
            listed,
            unlisted: Vec::new(),
            notices: Vec::new(),
            loaded: Vec::new(),
        }
    }

    fn forget_entry(&mut self, folder: u64, name: &Arc<str>) {
        self.notices.push(Notice::Entry { folder, name: name.clone() });
    }
}

impl Volume {
    fn check_seen(&self, namespace: &Namespace, update: &TreeUpdate) -> Result<()> {
        let (id, seen) = match update {
            TreeUpdate::Put { id, seen, .. } => (*id, *seen),
            TreeUpdate::Fork { id, seen, .. } => (*id, Some(*seen)),
            TreeUpdate::Uploaded { .. } => return Ok(()),
        };
        let now = match self.store.ino_of(id)? {
            Some(ino) => Some(ChangeNumber(self.inode(namespace, ino)?.state.lock().meta.change)),
            None => None,
        };
        if now == seen { Ok(()) } else { Err(Error::new(ErrorKind::Stale, "the entry has changed meanwhile")) }
    }

    fn batch_ino(&self, batch: &Batch, id: VlobId) -> Result<Option<u64>> {
        match batch.ids.get(&id) {
            Some(0) => Ok(None),
            Some(ino) => Ok(Some(*ino)),
            None => self.store.ino_of(id),
        }
    }

    /// An inode that this batch changes. It is in memory until the batch ends, so that everybody meets the same state.
    fn batch_inode(&self, namespace: &mut Namespace, batch: &mut Batch, ino: u64) -> Result<Arc<Inode>> {
        if let Some(inode) = batch.inodes.get(&ino) {
            return Ok(inode.clone());
        }
        let inode = self.known(namespace, ino)?.inode.clone();
        batch.inodes.insert(ino, inode.clone());
        Ok(inode)
    }

    /// Lets memory forget what the kernel does not refer to.
    fn forget_unreferred(namespace: &mut Namespace, inos: impl IntoIterator<Item = u64>) {
        for ino in inos {
            if ino != ROOT_INO && namespace.inodes.get(&ino).is_none_or(|known| known.lookups == 0) {
                namespace.inodes.remove(&ino);
                namespace.folders.remove(&ino);
            }
        }
    }

    fn put(
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
                self.revive(namespace, batch, id, &inode, base.as_ref())?
            }
            Some(inode) => inode,
            None => self.make_inode(namespace, batch, id, &local),
        };
        let inode = match &local.content {
            MergedContent::RemoteFile => self.take_remote(namespace, batch, inode, base.as_ref(), &local)?,
            MergedContent::LocalFile | MergedContent::Folder(_) => inode,
        };
        let moved_from = self.set_merged(batch, &inode, base, &local);
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

    /// A removed entry got another remote version and stays removed.
    fn rebase_removed(&self, batch: &mut Batch, inode: &Inode, base: Option<Manifest>) -> Result<()> {
        if let Some(base) = base {
            inode.state.lock().meta.base_version = base.version();
            batch.rows.push(base_row(inode.ino, &base));
        }
        Ok(())
    }

    /// A removed entry is back, under a new inode: the old one may be open as unlinked.
    fn revive(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        id: VlobId,
        old: &Arc<Inode>,
        base: Option<&Manifest>,
    ) -> Result<Arc<Inode>> {
        let mut meta = old.state.lock().meta.clone();
        if let Some(waiting) = self.removed.lock().get_mut(&meta.parent) {
            waiting.retain(|ino| *ino != old.ino);
        }
        if base.is_none()
            && let Some(base) = self.base(old.ino)?
        {
            let limit = content_size(&base);
            (meta.size, meta.base_limit) = (limit, limit);
            let ino = self.replace_ino(namespace, batch, id, old, meta);
            batch.rows.push(base_row(ino.ino, &base));
            return Ok(ino);
        }
        Ok(self.replace_ino(namespace, batch, id, old, meta))
    }

    /// Gives an entry a new inode without content; the old one lives on only for who has it open.
    fn replace_ino(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        id: VlobId,
        old: &Arc<Inode>,
        mut meta: Meta,
    ) -> Arc<Inode> {
        self.orphan(namespace, batch, old);
        meta.removed = None;
        let ino = self.store.new_ino();
        let inode = Arc::new(Inode { ino, state: Mutex::new(State::new(meta, true)) });
        batch.ids.insert(id, ino);
        batch.inodes.insert(ino, inode.clone());
        namespace.inodes.insert(ino, Known { inode: inode.clone(), lookups: 0 });
        inode
    }

    /// Takes an inode out of the store; who has it open goes on with it.
    fn orphan(&self, namespace: &Namespace, batch: &mut Batch, inode: &Arc<Inode>) {
        let ino = inode.ino;
        let mut state = inode.state.lock();
        if !state.meta.is_folder()
            && let Err(error) = self.load_slots(ino, &mut state)
        {
            tracing::warn!(ino, %error, "content of a replaced file cannot be read");
            state.loaded = Loaded::All;
        }
        batch.rows.push((RowKey::Inode(ino), None));
        batch.rows.push((RowKey::Base(ino), None));
        batch.rows.extend(state.slots.iter().map(|(slot, _)| (RowKey::Slot(ino, slot), None)));
        // What it still needs from the base has to be in memory before the row is gone.
        if let Err(error) = self.load_base_blocks(ino, &mut state) {
            tracing::warn!(ino, %error, "base of a replaced file cannot be read");
        }
        state.unlinked = true;
        batch.inodes.remove(&ino);
        self.pending.lock().remove(&ino);
        if namespace.inodes.get(&ino).is_none_or(|known| known.lookups == 0) {
            self.release_content(&mut state);
        }
    }

    fn make_inode(&self, namespace: &mut Namespace, batch: &mut Batch, id: VlobId, local: &Merged) -> Arc<Inode> {
        let folder = matches!(local.content, MergedContent::Folder(_));
        let kind = if folder { Kind::Folder } else { Kind::File };
        let mut meta = self.new_meta(*id.as_bytes(), kind, Meta::default_mode(kind), self.owner);
        meta.atime_ns = local.updated.as_micros().saturating_mul(1000);
        let ino = if id == self.realm.root() { ROOT_INO } else { self.store.new_ino() };
        let inode = Arc::new(Inode { ino, state: Mutex::new(State::new(meta, true)) });
        batch.ids.insert(id, ino);
        batch.inodes.insert(ino, inode.clone());
        namespace.inodes.insert(ino, Known { inode: inode.clone(), lookups: 0 });
        inode
    }

    /// The entry's content becomes the base's.
    fn take_remote(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        inode: Arc<Inode>,
        base: Option<&Manifest>,
        local: &Merged,
    ) -> Result<Arc<Inode>> {
        let Some(Manifest::File(file)) = base else { return Ok(inode) };
        let mut state = inode.state.lock();
        self.load_slots(inode.ino, &mut state)?;
        self.load_base_blocks(inode.ino, &mut state)?;
        let clean =
            state.slots.iter().all(|(_, slot)| !slot.is_dirty(0, u8::MAX)) && state.meta.base_limit == state.meta.size;
        let same_blocks = state.base_blocks.as_deref() == Some(file.blocks.as_slice());
        if clean && same_blocks && state.meta.size == file.size && state.meta.blocksize == file.blocksize {
            let mtime = local.extension.mtime_ns.unwrap_or(local.updated.as_micros().saturating_mul(1000));
            if state.meta.mtime_ns == mtime {
                return Ok(inode.clone_after(state));
            }
        }
        let open = namespace.inodes.get(&inode.ino).is_some_and(|known| known.lookups > 0);
        let inode = if open {
            let meta = state.meta.clone();
            let id = meta.entry_id();
            drop(state);
            self.replace_ino(namespace, batch, id, &inode, meta)
        } else {
            batch.rows.extend(state.slots.iter().map(|(slot, _)| (RowKey::Slot(inode.ino, slot), None)));
            self.release_content(&mut state);
            inode.clone_after(state)
        };
        let mut state = inode.state.lock();
        (state.meta.size, state.meta.blocksize, state.meta.base_limit) = (file.size, file.blocksize, file.size);
        state.base_blocks = Some(file.blocks.clone().into());
        Ok(inode.clone_after(state))
    }

    /// Attributes after a merge. Returns the folder that listed the entry before.
    fn set_merged(&self, batch: &mut Batch, inode: &Inode, base: Option<Manifest>, local: &Merged) -> u64 {
        let mut state = inode.state.lock();
        let folder = matches!(local.content, MergedContent::Folder(_));
        let meta = &mut state.meta;
        meta.set_extension(&local.extension, folder, local.updated);
        meta.created_us = local.created.as_micros();
        meta.ctime_ns = self.clock.now_ns();
        meta.change = self.store.new_change();
        meta.changed_ns = meta.ctime_ns;
        meta.need_sync = local.need_sync;
        if let Some(base) = base {
            meta.base_version = base.version();
            batch.rows.push(base_row(inode.ino, &base));
            if let Manifest::File(file) = base {
                state.base_blocks = Some(file.blocks.into());
            }
        }
        state.meta.parent
    }

    /// Shows an entry in the folder that it names as its parent, and hides it elsewhere.
    fn relink(
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
            (state.meta.parent, state.meta.parent_id) = (parent_ino, *parent.as_bytes());
            state.meta.is_folder()
        };
        if moved_from != 0 && moved_from != parent_ino {
            let shown = self.batch_folder(namespace, batch, moved_from).ok().and_then(|folder| {
                folder.by_cookie.iter().find(|(_, d)| d.id == id).map(|(cookie, d)| (*cookie, d.clone()))
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
        let place = folder.hidden(id).or_else(|| {
            let mut names = folder.by_cookie.iter();
            names.find(|(_, dentry)| dentry.id == id && dentry.ino != inode.ino).map(|(c, d)| (*c, d.clone()))
        });
        if let Some((cookie, dentry)) = place {
            self.set_dentry(namespace, batch, parent_ino, cookie, Dentry { ino: inode.ino, ..dentry }, is_folder)?;
        }
        Ok(())
    }

    /// Whether a folder was made in this batch and has no names yet.
    fn batch_is_new(&self, batch: &Batch, ino: u64) -> bool {
        batch.inodes.contains_key(&ino) && matches!(self.store.row(RowKey::Inode(ino)), Ok(None))
    }

    /// Puts a name into a folder, or another inode behind it.
    fn set_dentry(
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
        let before = names.by_cookie.get(&cookie).map_or(0, |dentry| dentry.ino);
        let after = dentry.ino;
        names.insert(cookie, dentry);
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

    /// The names of a folder, also of one that the store does not show yet.
    fn batch_folder<'a>(&self, namespace: &'a mut Namespace, batch: &mut Batch, ino: u64) -> Result<&'a mut Folder> {
        let is_new = self.batch_is_new(batch, ino);
        if let Entry::Vacant(place) = namespace.folders.entry(ino) {
            batch.loaded.push(ino);
            if is_new {
                place.insert(Folder::default());
            }
        }
        self.folder(namespace, ino)
    }

    fn set_children(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        inode: &Arc<Inode>,
        children: &BTreeMap<EntryName, VlobId>,
    ) -> Result<()> {
        let folder = inode.ino;
        let now: Vec<(u64, Dentry)> = self
            .batch_folder(namespace, batch, folder)?
            .by_cookie
            .iter()
            .map(|(cookie, dentry)| (*cookie, dentry.clone()))
            .collect();
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
            inode = self.revive(namespace, batch, id, &inode, None)?;
        }
        let mut state = inode.state.lock();
        if state.meta.parent_id != folder_id {
            return Ok((0, false));
        }
        state.meta.parent = folder;
        Ok((inode.ino, state.meta.is_folder()))
    }

    fn is_folder(&self, namespace: &Namespace, batch: &Batch, ino: u64) -> bool {
        let inode = batch.inodes.get(&ino).cloned().map_or_else(|| self.inode(namespace, ino), Ok);
        inode.is_ok_and(|inode| inode.state.lock().meta.is_folder())
    }

    /// Entries that no folder lists any more go, with everything below them. Not remembered as removed: bringing back what
    /// others changed meanwhile is for the device that removed it, which knows what it had not seen (see `sync::round`).
    fn drop_unlisted(&self, namespace: &mut Namespace, batch: &mut Batch) -> Result<()> {
        let mut gone = std::mem::take(&mut batch.unlisted);
        while let Some((folder, id)) = gone.pop() {
            let Some(ino) = self.batch_ino(batch, id)? else { continue };
            let inode = match batch.inodes.get(&ino) {
                Some(inode) => inode.clone(),
                None => self.inode(namespace, ino)?,
            };
            let (elsewhere, removed, is_folder) = {
                let meta = &inode.state.lock().meta;
                (meta.parent != folder && meta.parent != 0, meta.removed.is_some(), meta.is_folder())
            };
            if removed || elsewhere || batch.listed.contains(&id) {
                continue;
            }
            if is_folder {
                let names = std::mem::take(&mut self.batch_folder(namespace, batch, ino)?.by_cookie);
                namespace.folders.remove(&ino);
                for (cookie, dentry) in names {
                    batch.rows.push((RowKey::Dentry(ino, cookie), None));
                    batch.forget_entry(ino, &dentry.name);
                    gone.push((ino, dentry.id));
                }
            }
            self.orphan(namespace, batch, &inode);
            batch.ids.insert(id, 0);
        }
        Ok(())
    }

    /// The entry as it is here becomes the new entry `copy`; its inode goes with it. The folder that lists the copy shows
    /// it when its own update comes.
    fn fork(
        &self,
        namespace: &mut Namespace,
        batch: &mut Batch,
        id: VlobId,
        copy: VlobId,
        parent: VlobId,
    ) -> Result<()> {
        let ino = self.batch_ino(batch, id)?.ok_or(ErrorKind::Stale)?;
        let inode = self.batch_inode(namespace, batch, ino)?;
        let old_folder = inode.state.lock().meta.parent;
        // The name now waits for the remote content, which gets an inode of its own.
        if let Some((cookie, dentry)) = self.batch_folder(namespace, batch, old_folder)?.shown(ino) {
            self.set_dentry(namespace, batch, old_folder, cookie, Dentry { ino: 0, ..dentry }, false)?;
        }
        let mut state = inode.state.lock();
        let meta = &mut state.meta;
        meta.id = *copy.as_bytes();
        meta.base_version = 0;
        meta.need_sync = true;
        meta.removed = None;
        (meta.parent, meta.parent_id) = (0, *parent.as_bytes());
        meta.change = self.store.new_change();
        meta.changed_ns = self.clock.now_ns();
        batch.ids.insert(copy, ino);
        batch.ids.insert(id, 0);
        Ok(())
    }

    /// A state of an entry is on the storage.
    fn uploaded(&self, namespace: &mut Namespace, batch: &mut Batch, seen: u64, manifest: Manifest) -> Result<()> {
        let Some(ino) = self.batch_ino(batch, manifest.id())? else { return Ok(()) };
        let inode = self.batch_inode(namespace, batch, ino)?;
        let mut state = inode.state.lock();
        state.meta.base_version = manifest.version();
        if state.meta.change == seen {
            state.meta.need_sync = false;
        }
        if let Manifest::File(file) = &manifest
            && state.meta.removed.is_none()
        {
            self.load_slots(ino, &mut state)?;
            // After a later truncation the dirty pages are the only ones that are surely right: they all stay.
            if state.meta.base_limit_change <= seen {
                state.meta.base_limit = file.size;
                let mut rows = Vec::new();
                for (number, slot) in state.slots.iter_mut().filter(|(_, slot)| slot.change <= seen) {
                    slot.mark_clean();
                    rows.push(slot_row(ino, number, slot));
                }
                state.slots.drop_empty();
                batch.rows.extend(rows);
            }
            state.base_blocks = Some(file.blocks.clone().into());
        }
        batch.rows.push(base_row(ino, &manifest));
        Ok(())
    }

    fn children(&self, namespace: &mut Namespace, inode: &Arc<Inode>) -> Result<BTreeMap<EntryName, VlobId>> {
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
    pub(super) fn names(&self, namespace: &mut Namespace, ino: u64) -> Result<Vec<Dentry>> {
        match namespace.folders.get(&ino) {
            Some(folder) => Ok(folder.by_cookie.values().cloned().collect()),
            None => self.store.dentries(ino)?.into_values().map(|row| Dentry::decode(&row?)).collect(),
        }
    }

    /// Slots of a file as sync counts them: in blocks of its manifest.
    fn file_content(&self, ino: u64, state: &mut State, base: &[BlockAccess]) -> Result<LocalContent> {
        let (size, blocksize, limit) = (state.meta.size, state.meta.blocksize, state.meta.base_limit);
        if state.meta.removed.is_none() {
            self.load_slots(ino, state)?;
        }
        let mut slots = BTreeMap::new();
        for block in base.iter().filter(|block| block.offset < limit) {
            let whole = block.offset.saturating_add(block.size) <= limit.min(size);
            let state = if whole { SlotState::Synced(*block) } else { SlotState::Dirty };
            slots.insert(block.offset / blocksize, state);
        }
        for (number, slot) in state.slots.iter() {
            for extent in slot.extents.iter().filter(|extent| extent.dirty) {
                let first = (number * SLOT_PAGES + u64::from(extent.page)) * PAGE;
                let last = (first + u64::from(extent.pages) * PAGE).min(size).saturating_sub(1);
                for block in first / blocksize..=last / blocksize {
                    slots.insert(block, SlotState::Dirty);
                }
            }
        }
        Ok(LocalContent::File { size, blocksize, slots })
    }
}

impl Inode {
    /// Ends a lock on the state and hands the inode on.
    fn clone_after(self: &Arc<Self>, state: parking_lot::MutexGuard<'_, State>) -> Arc<Self> {
        drop(state);
        self.clone()
    }
}

fn content_size(manifest: &Manifest) -> u64 {
    match manifest {
        Manifest::File(file) => file.size,
        Manifest::Folder(_) => 0,
    }
}

fn base_row(ino: u64, manifest: &Manifest) -> (RowKey, RowValue) {
    (RowKey::Base(ino), Some(RowBytes { id: None, pending: false, bytes: manifest.to_bytes().into() }))
}
