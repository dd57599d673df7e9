//! Which files were copied from which, so that what the storage has is not sent a second time.
//!
//! `copy_file_range` is answered EOPNOTSUPP, upon which the kernel copies through its page cache: the copy has pages of
//! its own here, is read offline like any file, and every page of the store keeps one owner. What is remembered is only
//! that it was asked. When the copy goes up, each of its blocks is hashed as ever, and one that has the digest and
//! length of a block of the source, as the storage has that now, names that block instead of sending another.
//!
//! So it cannot go wrong: equal digests are equal bytes, whatever happened to either file meanwhile; a memory that is
//! lost (by a restart, or because there were many copies) costs an upload. A block may be named by any manifest of its
//! realm, and is opened with the key that it says; no storage deletes one that a commit has named: the Parsec server
//! never does, and the garbage of a directory is what no commit named.

use parsecfs_core::manifest::{BlockAccess, Manifest};

use super::{Touch, Volume};
use crate::error::Result;

/// Copies that are remembered.
const COPIES_MAX: usize = 4096;

impl Volume {
    /// Bytes of `source` are about to be copied into `target`.
    pub fn note_copy(&self, source: u64, target: u64) -> Result<()> {
        self.may_write()?;
        if source == target {
            return Ok(());
        }
        let blocksize = self.open_inode(source)?.state.lock().meta.blocksize;
        let inode = self.open_inode(target)?;
        {
            let mut state = inode.state.lock();
            // Blocks of another size would be other blocks. Nothing is in it yet that has blocks.
            if state.meta.size == 0 && state.meta.base_limit == 0 && state.meta.blocksize != blocksize {
                state.meta.blocksize = blocksize;
                let row = self.touch(&inode, &mut state, Touch::Untimed);
                self.store.log(row);
            }
        }
        let mut copies = self.copies.lock();
        if copies.len() >= COPIES_MAX {
            copies.clear();
        }
        copies.insert(target, source);
        Ok(())
    }

    /// Blocks on the storage that a file may share, because it was copied from theirs.
    pub(super) fn blocks_of_source(&self, ino: u64) -> Result<Vec<BlockAccess>> {
        let source = self.copies.lock().get(&ino).copied();
        Ok(match source.map(|source| self.base(source)).transpose()?.flatten() {
            Some(Manifest::File(file)) => file.blocks,
            _ => Vec::new(),
        })
    }
}
