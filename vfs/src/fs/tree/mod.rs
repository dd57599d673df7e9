//! What sync sees and changes of the tree: [`LocalTree`] over the volume.
//!
//! A batch of updates is applied under the namespace lock: first every `seen` is checked, then everything is changed in
//! memory and collected as one group of rows ([`batch`]), one update at a time ([`merge`]). What that means for the
//! inodes, the content and the names of entries is in [`inodes`], [`content`] and [`names`]. The kernel's open files keep
//! the content they were opened on: when another device replaced it, the entry gets a new inode, as if it had been
//! replaced by rename.
//!
//! Not here: what the entry should be after a merge (`core::merge`, `sync`).

mod batch;
mod content;
mod inodes;
mod links;
mod merge;
mod names;

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use parsecfs_core::{
    id::VlobId,
    manifest::{BlockAccess, Manifest},
    name::EntryName,
    time::Timestamp,
};

use self::batch::Batch;
use super::{Pending, ReadOutcome, Volume, link::base_row, zeros::without_zeros};
use crate::{
    error::{Error, ErrorKind, Result},
    inode::State,
    namespace::Namespace,
    store::{RowBytes, RowKey},
    tree::{ChangeNumber, LocalContent, LocalEntry, LocalTree, PendingEntry, TreeUpdate},
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
        let namespace = self.namespace();
        let mut found = Vec::with_capacity(waiting.len());
        for (ino, entry) in waiting {
            match self.peek_inode(&namespace, ino) {
                Ok(inode) => {
                    let meta = &inode.state.lock().meta;
                    let waits = |id: &VlobId| meta.link(*id).is_none_or(|link| link.need_sync);
                    found.extend(meta.entries().into_iter().filter(waits).map(|id| PendingEntry {
                        id,
                        change: ChangeNumber(entry.change),
                        changed_ns: entry.changed_ns,
                        folder: entry.folder,
                        bytes: entry.bytes,
                    }));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn pending_total(&self) -> Result<(u64, u64)> {
        let pending = self.pending.lock();
        let names = pending.values().map(|entry| u64::from(entry.names));
        Ok((names.sum(), pending.values().map(|entry| entry.bytes).sum()))
    }

    fn load(&self, id: VlobId) -> Result<Option<LocalEntry>> {
        let mut namespace = self.namespace();
        let Some(ino) = self.entry_ino(id)? else { return Ok(None) };
        if let Some(entry) = self.pending.lock().get_mut(&ino) {
            entry.on_its_way = true;
        }
        let inode = self.inode(&mut namespace, ino)?;
        let is_folder = inode.state.lock().meta.is_folder();
        let children = if is_folder { self.children(&mut namespace, &inode)? } else { BTreeMap::new() };
        let links = self.other_names(&namespace, &inode, id)?;
        drop(namespace);
        let mut state = inode.state.lock();
        let meta = &state.meta;
        let base = self.base(meta.base_row(ino, id))?;
        let mut extension = meta.extension();
        if let Some(known) = base.as_ref().and_then(|base| base.extension()) {
            extension.unknown = known.unknown.clone();
        }
        let micros = |us| Timestamp::from_micros(us).unwrap_or(Timestamp::MAX);
        let mut entry = LocalEntry {
            id,
            base: base.clone().filter(|_| meta.link(id).map_or(meta.base_version, |link| link.base_version) > 0),
            change: ChangeNumber(meta.change),
            need_sync: meta.link(id).map_or(meta.need_sync, |link| link.need_sync),
            parent: VlobId::from_bytes(meta.place(id).1),
            removed: meta.removed.as_deref().and_then(|name| EntryName::new(name).ok()),
            created: meta.created(id),
            updated: micros(meta.updated_us),
            extension,
            links,
            content: LocalContent::Folder { children },
        };
        if !is_folder {
            // Content of several names was made from one of them.
            let content = if meta.links.is_some() { self.base(ino)? } else { base };
            let file = content.as_ref().and_then(|content| match content {
                Manifest::File(file) => Some(file),
                Manifest::Folder(_) => None,
            });
            entry.content = self.file_content(ino, &mut state, file)?;
        }
        Ok(Some(entry))
    }

    fn base_versions(&self, ids: &[VlobId]) -> Result<Vec<(VlobId, u32)>> {
        let namespace = self.namespace();
        let mut versions = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(ino) = self.entry_ino(*id)? else { continue };
            let inode = self.peek_inode(&namespace, ino)?;
            let version = {
                let meta = &inode.state.lock().meta;
                meta.link(*id).map_or(meta.base_version, |link| link.base_version)
            };
            if version > 0 {
                versions.push((*id, version));
            }
        }
        Ok(versions)
    }

    fn slot(&self, id: VlobId, seen: ChangeNumber, slot: u64) -> Result<Option<Vec<u8>>> {
        let mut fetched = Vec::new();
        loop {
            let mut namespace = self.namespace();
            let Some(ino) = self.entry_ino(id)? else { return Ok(None) };
            let inode = self.inode(&mut namespace, ino)?;
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

    fn blocks_of_source(&self, id: VlobId) -> Result<Vec<BlockAccess>> {
        match self.entry_ino(id)? {
            Some(ino) => self.blocks_of_source(ino),
            None => Ok(Vec::new()),
        }
    }

    fn set_blocksize(&self, id: VlobId, seen: ChangeNumber, blocksize: u64) -> Result<bool> {
        let _changing = self.store.changing();
        let mut namespace = self.namespace();
        let Some(ino) = self.entry_ino(id)? else { return Ok(false) };
        let inode = self.inode(&mut namespace, ino)?;
        drop(namespace);
        let mut state = inode.state.lock();
        if state.meta.change != seen.0 {
            return Ok(false);
        }
        state.meta.blocksize = blocksize;
        self.store.log(self.changed_row(ino, &state));
        Ok(true)
    }

    fn apply(&self, updates: Vec<TreeUpdate>, checkpoint: Option<u64>) -> Result<()> {
        let _changing = self.store.changing();
        let mut namespace = self.namespace();
        for update in &updates {
            self.check_seen(&mut namespace, update)?;
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
        self.join_groups(&mut namespace, &mut batch)?;
        let touched = std::mem::take(&mut batch.inodes);
        for (ino, inode) in &touched {
            self.count_allocated(&batch, *ino, &mut inode.state.lock());
            batch.rows.extend(self.changed_row(*ino, &inode.state.lock()));
        }
        let checkpoint = checkpoint.map(|checkpoint| {
            let bytes = checkpoint.to_le_bytes().to_vec();
            (RowKey::Checkpoint, Some(RowBytes { id: None, pending: false, bytes: bytes.into() }))
        });
        let bases = batch.bases.iter().map(|(row, base)| base_row(*row, base));
        self.store.log(bases.chain(batch.rows).chain(checkpoint));
        for inode in touched.values() {
            // Most files are read from their slots, and for the others the row has it from now on.
            let mut state = inode.state.lock();
            if !state.is_unlinked() {
                state.base_blocks = None;
            }
        }
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

impl Volume {
    /// Counts the data of a file whose content the batch has changed and nobody has counted.
    fn count_allocated(&self, batch: &Batch, ino: u64, state: &mut State) {
        if state.meta.is_folder() || state.meta.allocated.is_some() || state.is_remembered() {
            return;
        }
        let mut load = || {
            self.load_slots(ino, state)?;
            if state.base_blocks.is_none() {
                state.base_blocks = Some(match self.batch_base(batch, ino)? {
                    Some(Manifest::File(file)) => without_zeros(&file.blocks),
                    _ => [].into(),
                });
            }
            Ok(())
        };
        let loaded: Result<()> = load();
        match loaded {
            Ok(()) => drop(state.count_all()),
            Err(error) => tracing::warn!(ino, %error, "what a file takes is told by its length"),
        }
    }

    fn check_seen(&self, namespace: &mut Namespace, update: &TreeUpdate) -> Result<()> {
        let (id, seen) = match update {
            TreeUpdate::Put { id, seen, .. } => (*id, *seen),
            TreeUpdate::Fork { id, seen, .. } => (*id, Some(*seen)),
            TreeUpdate::Uploaded { .. } => return Ok(()),
        };
        let now = match self.entry_ino(id)? {
            Some(ino) => Some(ChangeNumber(self.inode(namespace, ino)?.state.lock().meta.change)),
            None => None,
        };
        if now == seen { Ok(()) } else { Err(Error::new(ErrorKind::Stale, "the entry has changed meanwhile")) }
    }
}
