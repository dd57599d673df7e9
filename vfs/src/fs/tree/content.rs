//! The content of a file between sync, which counts in blocks of its manifest, and the volume, which counts in pages.
//!
//! A block is dirty when any of its pages is, or when the file was cut within it: sync never takes for synced what differs
//! from the storage. Content of the storage replaces that of here only where nobody has the file open.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use parsecfs_core::manifest::{FileManifest, Manifest};

use super::{super::zeros::without_zeros, Volume, batch::Batch};
use crate::{
    content::{PAGE, SLOT_PAGES},
    error::Result,
    inode::{Inode, State},
    namespace::Namespace,
    store::RowKey,
    tree::{LocalContent, Merged, SlotState},
};

impl Volume {
    /// The entry's content becomes the base's.
    pub(super) fn take_remote(
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
        let clean = state.is_clean();
        let same_blocks = state.base_blocks == Some(without_zeros(&file.blocks));
        if clean && same_blocks && state.meta.size == file.size && state.meta.blocksize == file.blocksize {
            let mtime = local.extension.mtime_ns.unwrap_or(local.updated.as_micros().saturating_mul(1000));
            if state.meta.mtime_ns == mtime {
                return Ok(inode.clone_after(state));
            }
        }
        let open = namespace.is_referred(inode.ino);
        let inode = if open {
            let meta = state.meta.clone();
            drop(state);
            self.replace_ino(namespace, batch, &inode, meta)?
        } else {
            batch.rows.extend(state.slots.iter().map(|(slot, _)| (RowKey::Slot(inode.ino, slot), None)));
            self.release_content(&mut state);
            inode.clone_after(state)
        };
        let mut state = inode.state.lock();
        (state.meta.size, state.meta.blocksize, state.meta.base_limit) = (file.size, file.blocksize, file.size);
        state.base_blocks = Some(without_zeros(&file.blocks));
        state.count_all();
        if let Some(links) = &mut state.meta.links {
            links.content_seen = self.store.new_change();
            batch.bases.insert(inode.ino, Manifest::File(file.clone()));
        }
        Ok(inode.clone_after(state))
    }

    /// Slots of a file as sync counts them: in blocks of its manifest. Where the next one has larger blocks than the base,
    /// all but holes counts as written.
    pub(super) fn file_content(
        &self,
        ino: u64,
        state: &mut State,
        base: Option<&FileManifest>,
    ) -> Result<LocalContent> {
        let (size, blocksize, limit) = (state.meta.size, state.meta.blocksize, state.meta.base_limit);
        if state.meta.removed.is_none() {
            self.load_slots(ino, state)?;
        }
        let mut slots = BTreeMap::new();
        let same_size = base.is_none_or(|base| base.blocksize == blocksize);
        let blocks = match base {
            Some(base) if same_size => Cow::Borrowed(&*base.blocks),
            Some(base) => Cow::Owned(without_zeros(&base.blocks).to_vec()),
            None => Cow::Borrowed(&[][..]),
        };
        for block in blocks.iter().filter(|block| block.offset < limit) {
            let end = block.offset.saturating_add(block.size);
            let state = if same_size && end <= limit.min(size) { SlotState::Synced(*block) } else { SlotState::Dirty };
            for slot in block.offset / blocksize..=(end - 1) / blocksize {
                slots.insert(slot, state.clone());
            }
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
