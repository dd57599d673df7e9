//! Inodes in no folder that the kernel refers to: removed or replaced while open, or made without a name.
//!
//! Their rows stay in the store, under [`RowKey::Orphan`] instead of [`RowKey::Inode`], which may be taken by what is
//! remembered of the removal; their slots stay where they are. The base, which the entry may go on with, is kept a
//! second time where content is still found through it. So who has such a file open goes on with it in the next
//! process, when this one is killed or replaced. They are in memory all the time, too.
//!
//! One is over with the kernel's last reference, and all are when the mount is: a store that is opened without what a
//! process left behind drops all that it finds. A process that is killed may take a FORGET along that it has read;
//! therefore the kernel is asked about each orphan that the next process finds, and about those that sync makes and that
//! only a process that is gone could have told the kernel of.

use std::sync::Arc;

use parking_lot::Mutex;
use parsecfs_core::manifest::Manifest;

use super::{Volume, link::base_row, read::is_covered};
use crate::{
    content::{PAGE, Slots},
    error::{Error, ErrorKind, Result},
    inode::{Inode, Meta, Standing, State},
    namespace::Namespace,
    notify::Notice,
    store::{RowBytes, RowKey, RowValue},
};

impl Volume {
    /// An inode leaves the last folder. Its rows as an inode go, and if nobody refers to it, all of it; else it is an
    /// orphan from now on. All its slots and the blocks of its base are in memory.
    pub(super) fn unlist(
        &self,
        namespace: &Namespace,
        ino: u64,
        state: &mut State,
        base: impl FnOnce() -> Result<Option<Manifest>>,
    ) -> Vec<(RowKey, RowValue)> {
        match state.standing {
            Standing::Listed if namespace.is_referred(ino) => {
                let base = if needs_base(state) { base() } else { Ok(None) };
                let base = base.unwrap_or_else(|error| {
                    tracing::warn!(ino, %error, "a process after this one cannot read all of a removed file");
                    None
                });
                let row = if base.is_some() { self.store.new_ino() } else { 0 };
                state.standing = Standing::Orphan { base_row: row };
                let base = base.map(|base| base_row(row, &base));
                base.into_iter().chain([orphan_row(ino, &state.meta, row)]).collect()
            }
            Standing::Listed => self.end_content(ino, state),
            Standing::Orphan { .. } | Standing::Gone => Vec::new(),
        }
    }

    /// Lets go of the content of an inode that nobody can reach any more. Rows that say so.
    pub(super) fn end_content(&self, ino: u64, state: &mut State) -> Vec<(RowKey, RowValue)> {
        let mut rows: Vec<_> = state.slots.iter().map(|(slot, _)| (RowKey::Slot(ino, slot), None)).collect();
        if let Standing::Orphan { base_row } = state.standing {
            rows.push((RowKey::Orphan(ino), None));
            rows.extend((base_row != 0).then_some((RowKey::Base(base_row), None)));
        }
        state.standing = Standing::Gone;
        self.release_content(state);
        rows
    }

    /// Lets go of the pages of an inode.
    pub(super) fn release_content(&self, state: &mut State) {
        let mut released = Vec::new();
        for (_, slot) in state.slots.iter_mut() {
            slot.remove(0, u8::MAX, &mut released);
        }
        state.slots = Slots::default();
        self.settle(released);
    }

    /// An orphan that nobody refers to any more.
    pub(super) fn end_orphan(&self, inode: &Inode) {
        let _changing = self.store.changing();
        let mut state = inode.state.lock();
        if let Err(error) = self.load_slots(inode.ino, &mut state) {
            tracing::warn!(ino = inode.ino, %error, "space of a removed file is not found");
        }
        let rows = self.end_content(inode.ino, &mut state);
        self.store.log(rows);
    }

    /// What was open without a name when the process before this one ended: goes on when it left the mount, else it ends.
    pub(super) fn take_orphans(&self) -> Result<()> {
        let is_inherited = self.store.inheritance().ino_max > 0;
        for ino in self.store.orphans()? {
            let inode = match self.load_orphan(ino) {
                Ok(inode) => inode,
                Err(error) => {
                    tracing::error!(ino, %error, "a removed file that is open cannot be read");
                    continue;
                }
            };
            if is_inherited {
                self.namespace().keep(inode);
            } else {
                self.end_orphan(&inode);
            }
        }
        Ok(())
    }

    fn load_orphan(&self, ino: u64) -> Result<Arc<Inode>> {
        let row = self.store.row(RowKey::Orphan(ino))?.ok_or(ErrorKind::NotFound)?;
        let damaged = || Error::new(ErrorKind::Corrupt, "the row of a file without a name");
        let (base_row, meta) = row.split_first_chunk().ok_or_else(damaged)?;
        let (base_row, meta) = (u64::from_le_bytes(*base_row), Meta::decode(meta)?);
        let mut state = State::new(meta, false);
        self.load_base_blocks(base_row, &mut state)?;
        state.standing = Standing::Orphan { base_row };
        Ok(Arc::new(Inode { ino, state: Mutex::new(state) }))
    }

    /// The mount is over: so are all that only it kept.
    pub(crate) fn end_orphans(&self) {
        let mut namespace = self.namespace();
        let orphans: Vec<_> =
            namespace.orphans().into_iter().filter_map(|ino| namespace.forget(ino, u64::MAX)).collect();
        drop(namespace);
        orphans.iter().for_each(|inode| self.end_orphan(inode));
    }

    /// Has the kernel asked whether it knows each orphan that the process before this one left.
    pub(crate) fn ask_for_orphans(&self) {
        let orphans = self.namespace().orphans();
        for ino in orphans {
            self.notices.tell(Notice::Attributes { ino });
        }
    }

    /// The kernel does not know an inode.
    pub(crate) fn forget_unknown(&self, ino: u64) {
        let gone = self.namespace().forget_unknown(ino);
        if let Some(inode) = gone {
            self.end_orphan(&inode);
        }
    }
}

/// Whether something of a file is found through its base only.
fn needs_base(state: &State) -> bool {
    let limit = state.meta.base_limit.min(state.meta.size);
    limit > 0 && !state.meta.is_folder() && !is_covered(state, 0, limit.div_ceil(PAGE))
}

/// The row of an orphan.
pub(super) fn orphan_row(ino: u64, meta: &Meta, base_row: u64) -> (RowKey, RowValue) {
    // A map of plain values always encodes.
    let meta = postcard::to_stdvec(meta).unwrap_or_default();
    let bytes = [&base_row.to_le_bytes(), meta.as_slice()].concat();
    (RowKey::Orphan(ino), Some(RowBytes { id: None, pending: false, bytes: bytes.into() }))
}
