//! A local tree in memory, strict about what the seam promises, for tests of sync.
//!
//! It refuses what a real tree would only survive by luck: a batch made for another state, a copy under a taken name, a
//! base that goes back, an entry whose content would vanish unsaved.

#![expect(clippy::unwrap_used, reason = "a fake for tests fails loudly")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use parsecfs_core::{
    id::VlobId,
    manifest::{Extension, FileManifest, Manifest},
    name::EntryName,
    time::Timestamp,
};
use parsecfs_vfs::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
    tree::{
        BlockSource, ChangeNumber, LocalContent, LocalEntry, LocalTree, Merged, MergedContent, PendingEntry, SlotState,
        TreeUpdate,
    },
};
use tokio::sync::watch;

/// Small, so that small files have several slots.
pub const FAKE_BLOCKSIZE: u64 = 16;

/// Bytes of one slot, or the block that has them.
#[derive(Clone, Debug)]
enum Slot {
    Synced(parsecfs_core::manifest::BlockAccess),
    Dirty(Vec<u8>, ChangeNumber),
}

#[derive(Clone, Debug)]
enum Content {
    Folder(BTreeMap<EntryName, VlobId>),
    File { size: u64, blocksize: u64, slots: BTreeMap<u64, Slot> },
}

#[derive(Clone, Debug)]
struct Entry {
    base: Option<Manifest>,
    change: ChangeNumber,
    changed_ns: i64,
    need_sync: bool,
    parent: VlobId,
    removed: Option<EntryName>,
    created: Timestamp,
    updated: Timestamp,
    extension: Extension,
    content: Content,
}

#[derive(Clone, Default)]
struct State {
    checkpoint: u64,
    changes: u64,
    entries: BTreeMap<VlobId, Entry>,
}

/// A local tree in memory.
pub struct FakeTree {
    root: VlobId,
    clock: Arc<dyn Clock>,
    blocksize: u64,
    state: parking_lot::Mutex<State>,
    changed: watch::Sender<u64>,
}

impl FakeTree {
    /// A tree with an empty root folder that was never synced.
    #[must_use]
    pub fn new(root: VlobId, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with_blocksize(root, clock, FAKE_BLOCKSIZE)
    }

    /// The same with other block slots in the files made here.
    #[must_use]
    pub fn with_blocksize(root: VlobId, clock: Arc<dyn Clock>, blocksize: u64) -> Arc<Self> {
        let tree =
            Self { root, clock, blocksize, state: parking_lot::Mutex::default(), changed: watch::Sender::new(0) };
        let folder = tree.entry(root, Content::Folder(BTreeMap::new()));
        tree.state.lock().entries.insert(root, Entry { need_sync: true, ..folder });
        Arc::new(tree)
    }

    fn entry(&self, parent: VlobId, content: Content) -> Entry {
        let now = self.clock.now();
        Entry {
            base: None,
            change: ChangeNumber(0),
            changed_ns: self.clock.now_ns(),
            need_sync: false,
            parent,
            removed: None,
            created: now,
            updated: now,
            extension: Extension::default(),
            content,
        }
    }

    fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let result = edit(&mut state);
        let changes = state.changes;
        drop(state);
        self.changed.send_replace(changes);
        result
    }

    /// Makes a file or a folder.
    pub fn create(&self, parent: VlobId, name: &EntryName, id: VlobId, folder: bool) {
        let content = if folder {
            Content::Folder(BTreeMap::new())
        } else {
            Content::File { size: 0, blocksize: self.blocksize, slots: BTreeMap::new() }
        };
        let entry = self.entry(parent, content);
        let now_ns = self.clock.now_ns();
        self.edit(|state| {
            state.entries.insert(id, entry);
            state.touch(id, now_ns);
            state.list(parent, name.clone(), id, now_ns);
        });
    }

    /// Replaces the content of a file.
    pub fn write(&self, id: VlobId, bytes: &[u8]) {
        let now_ns = self.clock.now_ns();
        self.edit(|state| {
            let change = state.touch(id, now_ns);
            let Content::File { size, blocksize, slots } = &mut state.entries.get_mut(&id).unwrap().content else {
                panic!("not a file")
            };
            let chunk = usize::try_from(*blocksize).unwrap();
            *size = bytes.len() as u64;
            *slots = (0..)
                .zip(bytes.chunks(chunk))
                .map(|(slot, bytes)| (slot, Slot::Dirty(bytes.to_vec(), change)))
                .collect();
        });
    }

    /// Makes a file longer without writing to it.
    pub fn extend(&self, id: VlobId, to: u64) {
        let now_ns = self.clock.now_ns();
        self.edit(|state| {
            let change = state.touch(id, now_ns);
            let Content::File { size, blocksize, slots } = &mut state.entries.get_mut(&id).unwrap().content else {
                panic!("not a file")
            };
            for (slot, state) in slots.iter_mut() {
                let Slot::Dirty(bytes, changed) = state else { continue };
                let whole = (to - slot * *blocksize).min(*blocksize);
                bytes.resize(usize::try_from(whole).unwrap(), 0);
                *changed = change;
            }
            *size = to;
        });
    }

    /// Writes into a file. What is not here of the slots it meets comes from `blocks`.
    pub async fn write_at(&self, id: VlobId, offset: u64, bytes: &[u8], blocks: &dyn BlockSource) -> Result<()> {
        let mut whole = self.read(id, blocks).await?;
        let written = offset..offset + bytes.len() as u64;
        let (start, end) = (usize::try_from(written.start).unwrap(), usize::try_from(written.end).unwrap());
        whole.resize(whole.len().max(end), 0);
        whole[start..end].copy_from_slice(bytes);
        self.replace_in(id, &whole, written);
        Ok(())
    }

    /// Makes a file longer or shorter. A block that is cut comes from `blocks`.
    pub async fn resize(&self, id: VlobId, to: u64, blocks: &dyn BlockSource) -> Result<()> {
        let mut whole = self.read(id, blocks).await?;
        whole.resize(usize::try_from(to).unwrap(), 0);
        self.replace_in(id, &whole, to..to);
        Ok(())
    }

    /// The file is `whole` now, of which `written` is new. Slots that the storage does not have like this are dirty.
    fn replace_in(&self, id: VlobId, whole: &[u8], written: Range<u64>) {
        let now_ns = self.clock.now_ns();
        self.edit(|state| {
            let change = state.touch(id, now_ns);
            let Content::File { size, blocksize, slots } = &mut state.entries.get_mut(&id).unwrap().content else {
                panic!("not a file")
            };
            *size = whole.len() as u64;
            for (slot, bytes) in (0..).zip(whole.chunks(usize::try_from(*blocksize).unwrap())) {
                let start = slot * *blocksize;
                let is_written = !written.is_empty() && written.start < start + *blocksize && start < written.end;
                let is_synced = match slots.get(&slot) {
                    Some(Slot::Synced(block)) => block.offset + block.size <= *size,
                    Some(Slot::Dirty(..)) => false,
                    None => true,
                };
                if is_written || !is_synced {
                    slots.insert(slot, Slot::Dirty(bytes.to_vec(), change));
                }
            }
            let end = size.div_ceil(*blocksize);
            slots.retain(|slot, _| *slot < end);
        });
    }

    /// Changes the attributes of an entry.
    pub fn set_extension(&self, id: VlobId, extension: Extension) {
        let now_ns = self.clock.now_ns();
        self.edit(|state| {
            state.touch_attributes(id, now_ns);
            state.entries.get_mut(&id).unwrap().extension = extension;
        });
    }

    /// Removes an entry from its folder, whatever is in it.
    pub fn remove(&self, parent: VlobId, name: &EntryName) {
        let now_ns = self.clock.now_ns();
        self.edit(|state| {
            let names = state.names();
            state.unlist(parent, name, now_ns);
            state.note_removed();
            state.name_removed(&names);
        });
    }

    /// Moves an entry, over another if there is one.
    pub fn rename(&self, from: VlobId, name: &EntryName, to: VlobId, new: &EntryName) {
        let now_ns = self.clock.now_ns();
        self.edit(|state| {
            let names = state.names();
            let id = state.unlist(from, name, now_ns);
            if from != to {
                state.touch_attributes(id, now_ns);
                state.entries.get_mut(&id).unwrap().parent = to;
            }
            state.list(to, new.clone(), id, now_ns);
            state.note_removed();
            state.name_removed(&names);
        });
    }

    /// Entries that can be reached from the root, by path, in order. A folder has no content.
    pub fn paths(&self) -> BTreeMap<Vec<EntryName>, VlobId> {
        let state = self.state.lock();
        let mut found = BTreeMap::new();
        let mut todo = vec![(Vec::new(), self.root)];
        while let Some((path, folder)) = todo.pop() {
            for (name, id) in state.children(folder) {
                let mut path = path.clone();
                path.push(name);
                assert!(path.len() < 100, "a folder in itself");
                todo.push((path.clone(), id));
                found.insert(path, id);
            }
        }
        found
    }

    /// Whether an entry is a folder.
    pub fn is_folder(&self, id: VlobId) -> bool {
        matches!(self.state.lock().entries[&id].content, Content::Folder(_))
    }

    /// Attributes of an entry.
    pub fn extension(&self, id: VlobId) -> Extension {
        self.state.lock().entries[&id].extension.clone()
    }

    /// Whether anything waits for upload.
    pub fn is_synced(&self) -> bool {
        self.pending(usize::MAX).unwrap().is_empty()
    }

    /// The base of an entry.
    pub fn base(&self, id: VlobId) -> Option<Manifest> {
        self.state.lock().entries.get(&id).and_then(|entry| entry.base.clone())
    }

    /// All bytes of a file, blocks fetched where needed.
    pub async fn read(&self, id: VlobId, blocks: &dyn BlockSource) -> Result<Vec<u8>> {
        let Content::File { size, blocksize, slots } = self.state.lock().entries[&id].content.clone() else {
            panic!("not a file")
        };
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        for (slot, content) in slots {
            let (start, part) = match content {
                Slot::Dirty(part, _) => (slot * blocksize, part),
                Slot::Synced(access) => (access.offset, blocks.fetch(&access).await?),
            };
            let start = usize::try_from(start).unwrap();
            bytes[start..start + part.len()].copy_from_slice(&part);
        }
        Ok(bytes)
    }

    /// A copy of everything, as a crash would leave it.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Self> {
        let state = self.state.lock().clone();
        let changed = watch::Sender::new(state.changes);
        Arc::new(Self {
            root: self.root,
            clock: self.clock.clone(),
            blocksize: self.blocksize,
            state: parking_lot::Mutex::new(state),
            changed,
        })
    }
}

impl State {
    /// A change of content, or of the names in a folder.
    fn touch(&mut self, id: VlobId, now_ns: i64) -> ChangeNumber {
        self.entries.get_mut(&id).unwrap().updated = Timestamp::from_micros(now_ns / 1000).unwrap();
        self.touch_attributes(id, now_ns)
    }

    /// A change of anything else.
    fn touch_attributes(&mut self, id: VlobId, now_ns: i64) -> ChangeNumber {
        self.changes += 1;
        let entry = self.entries.get_mut(&id).unwrap();
        entry.change = ChangeNumber(self.changes);
        entry.changed_ns = now_ns;
        entry.need_sync = true;
        entry.change
    }

    fn listing(&mut self, folder: VlobId) -> &mut BTreeMap<EntryName, VlobId> {
        match &mut self.entries.get_mut(&folder).unwrap().content {
            Content::Folder(children) => children,
            Content::File { .. } => panic!("not a folder"),
        }
    }

    fn list(&mut self, folder: VlobId, name: EntryName, id: VlobId, now_ns: i64) {
        self.touch(folder, now_ns);
        self.listing(folder).insert(name, id);
    }

    fn unlist(&mut self, folder: VlobId, name: &EntryName, now_ns: i64) -> VlobId {
        self.touch(folder, now_ns);
        self.listing(folder).remove(name).unwrap()
    }

    /// Children that exist: known, and of this folder.
    fn children(&self, folder: VlobId) -> Vec<(EntryName, VlobId)> {
        let Content::Folder(children) = &self.entries[&folder].content else { return Vec::new() };
        let of_folder = |id: &VlobId| self.entries.get(id).is_some_and(|entry| entry.parent == folder);
        children.iter().filter(|(_, id)| of_folder(id)).map(|(name, id)| (name.clone(), *id)).collect()
    }

    /// Entries that no folder lists are removed, those that one lists are not.
    fn note_removed(&mut self) {
        let mut names = BTreeMap::new();
        for (folder, entry) in &self.entries {
            let Content::Folder(children) = &entry.content else { continue };
            names.extend(children.iter().map(|(name, id)| ((*folder, *id), name.clone())));
        }
        let nameless = EntryName::new("nameless").unwrap();
        let listed: BTreeSet<_> = names.keys().copied().collect();
        for (id, entry) in &mut self.entries {
            let here = entry.parent == *id || listed.contains(&(entry.parent, *id));
            entry.removed = match (here, entry.removed.take()) {
                (true, _) => None,
                (false, Some(name)) => Some(name),
                (false, None) => Some(nameless.clone()),
            };
        }
    }

    fn seen(&self, id: VlobId, seen: Option<ChangeNumber>) -> Result<()> {
        let now = self.entries.get(&id).map(|entry| entry.change);
        if now == seen { Ok(()) } else { Err(ErrorKind::Stale.into()) }
    }

    fn put(&mut self, id: VlobId, base: Option<Manifest>, local: Merged, now_ns: i64) {
        self.changes += 1;
        let change = ChangeNumber(self.changes);
        let old = self.entries.remove(&id);
        let old_base = old.as_ref().and_then(|entry| entry.base.clone());
        let newer = match (&old_base, &base) {
            (Some(old), Some(new)) => new.version() > old.version(),
            _ => true,
        };
        assert!(newer, "the base goes back");
        let base = base.or(old_base);
        let content = match local.content {
            MergedContent::Folder(children) => Content::Folder(children),
            MergedContent::LocalFile => old.as_ref().map(|entry| entry.content.clone()).expect("it has local content"),
            MergedContent::RemoteFile => match &base {
                Some(Manifest::File(file)) => remote_content(file),
                _ => panic!("the base is not a file"),
            },
        };
        let removed = old.and_then(|entry| entry.removed);
        let Merged { parent, created, updated, extension, content: _, need_sync } = local;
        let entry = Entry {
            base,
            change,
            changed_ns: now_ns,
            need_sync,
            parent,
            removed,
            created,
            updated,
            extension,
            content,
        };
        self.entries.insert(id, entry);
    }

    fn fork(&mut self, id: VlobId, copy: VlobId, parent: VlobId, now_ns: i64) {
        let mut entry = self.entries[&id].clone();
        (entry.base, entry.parent, entry.removed) = (None, parent, None);
        assert!(self.entries.insert(copy, entry).is_none(), "the id of the copy is taken");
        self.touch_attributes(copy, now_ns);
        if let Content::File { slots, .. } = &mut self.entries.get_mut(&copy).unwrap().content {
            for slot in slots.values_mut() {
                if let Slot::Dirty(_, changed) = slot {
                    *changed = ChangeNumber(self.changes);
                }
            }
        }
    }

    fn uploaded(&mut self, seen: ChangeNumber, manifest: Manifest) {
        let Some(entry) = self.entries.get_mut(&manifest.id()) else { return };
        if let (Content::File { slots, .. }, Manifest::File(file)) = (&mut entry.content, &manifest) {
            for block in &file.blocks {
                let slot = slots.get_mut(&(block.offset / file.blocksize));
                if let Some(slot) = slot.filter(|slot| !matches!(slot, Slot::Dirty(_, changed) if *changed > seen)) {
                    *slot = Slot::Synced(*block);
                }
            }
        }
        entry.need_sync &= entry.change != seen;
        entry.base = Some(manifest);
    }
}

fn remote_content(file: &FileManifest) -> Content {
    let slots = file.blocks.iter().map(|block| (block.offset / file.blocksize, Slot::Synced(*block)));
    Content::File { size: file.size, blocksize: file.blocksize, slots: slots.collect() }
}

impl LocalTree for FakeTree {
    fn checkpoint(&self) -> Result<u64> {
        Ok(self.state.lock().checkpoint)
    }

    fn pending(&self, limit: usize) -> Result<Vec<PendingEntry>> {
        let state = self.state.lock();
        let waits = |entry: &&(&VlobId, &Entry)| entry.1.need_sync && entry.1.removed.is_none();
        let pending = |(id, entry): (&VlobId, &Entry)| {
            let bytes = match &entry.content {
                Content::File { slots, .. } => slots.values().filter(|slot| matches!(slot, Slot::Dirty(..))).count(),
                Content::Folder(_) => 0,
            };
            PendingEntry {
                id: *id,
                change: entry.change,
                changed_ns: entry.changed_ns,
                folder: matches!(entry.content, Content::Folder(_)),
                bytes: bytes as u64 * self.blocksize,
            }
        };
        let mut found: Vec<_> = state.entries.iter().filter(|entry| waits(&entry)).map(pending).collect();
        found.sort_by_key(|entry| entry.change);
        found.truncate(limit);
        Ok(found)
    }

    fn pending_total(&self) -> Result<(u64, u64)> {
        let pending = self.pending(usize::MAX)?;
        Ok((pending.len() as u64, pending.iter().map(|entry| entry.bytes).sum()))
    }

    fn load(&self, id: VlobId) -> Result<Option<LocalEntry>> {
        let state = self.state.lock();
        let Some(entry) = state.entries.get(&id) else { return Ok(None) };
        let content = match &entry.content {
            Content::Folder(children) => LocalContent::Folder { children: children.clone() },
            Content::File { size, blocksize, slots } => {
                let slot_state = |slot: &Slot| match slot {
                    Slot::Synced(block) => SlotState::Synced(*block),
                    Slot::Dirty(..) => SlotState::Dirty,
                };
                let slots = slots.iter().map(|(number, slot)| (*number, slot_state(slot))).collect();
                LocalContent::File { size: *size, blocksize: *blocksize, slots }
            }
        };
        Ok(Some(LocalEntry {
            id,
            base: entry.base.clone(),
            change: entry.change,
            need_sync: entry.need_sync,
            parent: entry.parent,
            removed: entry.removed.clone(),
            created: entry.created,
            updated: entry.updated,
            extension: entry.extension.clone(),
            links: Vec::new(),
            content,
        }))
    }

    fn base_versions(&self, ids: &[VlobId]) -> Result<Vec<(VlobId, u32)>> {
        let state = self.state.lock();
        let version = |id: &VlobId| Some((*id, state.entries.get(id)?.base.as_ref()?.version()));
        Ok(ids.iter().filter_map(version).collect())
    }

    fn slot(&self, id: VlobId, seen: ChangeNumber, slot: u64) -> Result<Option<Vec<u8>>> {
        let state = self.state.lock();
        let Some(entry) = state.entries.get(&id).filter(|entry| entry.change == seen) else { return Ok(None) };
        let Content::File { slots, .. } = &entry.content else { panic!("not a file") };
        match slots.get(&slot) {
            Some(Slot::Dirty(bytes, _)) => Ok(Some(bytes.clone())),
            Some(Slot::Synced(_)) => Err(Error::new(ErrorKind::Offline, "the block is not here")),
            None => panic!("a hole has no bytes"),
        }
    }

    fn blocks_of_source(&self, _id: VlobId) -> Result<Vec<parsecfs_core::manifest::BlockAccess>> {
        Ok(Vec::new())
    }

    fn set_blocksize(&self, _: VlobId, _: ChangeNumber, _: u64) -> Result<bool> {
        // Its files are too small for that.
        Ok(false)
    }

    fn apply(&self, updates: Vec<TreeUpdate>, checkpoint: Option<u64>) -> Result<()> {
        let now_ns = self.clock.now_ns();
        let mut state = self.state.lock();
        for update in &updates {
            match update {
                TreeUpdate::Put { id, seen, .. } => state.seen(*id, *seen)?,
                TreeUpdate::Fork { id, seen, .. } => state.seen(*id, Some(*seen))?,
                TreeUpdate::Uploaded { .. } => {}
            }
        }
        let names = state.names();
        for update in updates {
            match update {
                TreeUpdate::Put { id, base, local, .. } => state.put(id, base, local, now_ns),
                TreeUpdate::Fork { id, copy, parent, .. } => state.fork(id, copy, parent, now_ns),
                TreeUpdate::Uploaded { seen, manifest } => state.uploaded(seen, manifest),
            }
        }
        state.note_removed();
        state.name_removed(&names);
        state.checkpoint = checkpoint.unwrap_or(state.checkpoint);
        Ok(())
    }

    fn changed<'a>(&'a self, since: u64) -> BoxFuture<'a, u64> {
        let mut changed = self.changed.subscribe();
        async move { changed.wait_for(|newest| *newest != since).await.map_or(since, |newest| *newest) }.boxed()
    }
}

impl State {
    /// Where everything is listed.
    fn names(&self) -> BTreeMap<VlobId, EntryName> {
        let folders = self.entries.values().filter_map(|entry| match &entry.content {
            Content::Folder(children) => Some(children),
            Content::File { .. } => None,
        });
        folders.flatten().map(|(name, id)| (*id, name.clone())).collect()
    }

    /// Gives what was removed the name that it had.
    fn name_removed(&mut self, names: &BTreeMap<VlobId, EntryName>) {
        for (id, entry) in &mut self.entries {
            if let (Some(removed), Some(name)) = (&mut entry.removed, names.get(id)) {
                *removed = name.clone();
            }
        }
    }
}
