//! Looking for damage in the local store.

use std::collections::BTreeMap;

use parsecfs_core::{
    id::VlobId,
    manifest::{BlockAccess, Manifest},
};

use super::Volume;
use crate::{
    content::{PAGE_BYTES, Piece},
    error::{Error, ErrorKind, Result},
    inode::ROOT_INO,
};

/// An entry that cannot be read whole.
#[derive(Debug)]
pub struct Damage {
    /// Which; `None` when not even that can be read.
    pub id: Option<VlobId>,
    /// Where it is, as far as that can be read.
    pub path: Option<String>,
    /// What is wrong.
    pub error: Error,
}

impl Volume {
    /// Opens everything that the local store holds and reports what does not open.
    pub fn check(&self) -> Result<Vec<Damage>> {
        let losses = self.store.losses().into_iter();
        let mut damage: Vec<_> = losses.map(|error| Damage { id: None, path: None, error }).collect();
        for ino in self.store.inodes()? {
            if let Err(error) = self.check_inode(ino) {
                damage.push(self.damage(ino, error));
            }
        }
        Ok(damage)
    }

    /// Blocks that the storage should have, by inode.
    pub fn blocks_on_storage(&self) -> Result<BTreeMap<u64, Vec<BlockAccess>>> {
        let mut blocks = BTreeMap::new();
        for ino in self.store.inodes()? {
            if let Ok(Some(Manifest::File(file))) = self.base(ino) {
                blocks.insert(ino, file.blocks);
            }
        }
        Ok(blocks)
    }

    /// Describes what is wrong with an inode.
    pub fn damage(&self, ino: u64, error: Error) -> Damage {
        let inode = self.peek_inode(&self.namespace(), ino).ok();
        let id = inode.and_then(|inode| inode.state.lock().meta.entries().first().copied());
        Damage { id, path: self.path(ino).ok(), error }
    }

    fn check_inode(&self, ino: u64) -> Result<()> {
        let namespace = self.namespace();
        let inode = match self.peek_inode(&namespace, ino) {
            Ok(inode) => inode,
            // Removed; the index hears of it with the next rows.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut state = inode.state.lock();
        if state.is_unlinked() || state.meta.removed.is_some() {
            return Ok(());
        }
        if state.meta.is_folder() {
            let names = self.store.dentries(ino)?;
            return names.into_values().try_for_each(|name| name.map(drop));
        }
        self.load_slots(ino, &mut state)?;
        self.load_base_blocks(ino, &mut state)?;
        let extents: Vec<_> = state.slots.iter().flat_map(|(_, slot)| slot.extents.clone()).collect();
        drop(namespace);
        for extent in extents {
            if let Piece::Stored { place, stored, .. } = extent.piece {
                let mut page = vec![0u8; (usize::from(extent.pages) - 1) * PAGE_BYTES + usize::from(stored)];
                self.store.read(place, &mut page)?;
            }
        }
        Ok(())
    }

    /// The path of an inode from the root.
    fn path(&self, ino: u64) -> Result<String> {
        let mut namespace = self.namespace();
        let mut names = Vec::new();
        let mut at = ino;
        while at != ROOT_INO {
            let inode = self.inode(&mut namespace, at)?;
            // By the first of its names, where it has several.
            let parent = {
                let meta = &inode.state.lock().meta;
                meta.entries().first().map_or(meta.parent, |id| meta.place(*id).0)
            };
            let listed = self.names(&mut namespace, parent)?.into_iter().find(|dentry| dentry.ino == at);
            names.push(listed.ok_or(ErrorKind::NotFound)?.name);
            at = parent;
        }
        Ok(names.iter().rev().map(|name| &**name).collect::<Vec<_>>().join("/"))
    }
}
