//! Finding entries: lookup, attributes, listing, and forgetting.

use std::sync::Arc;

use parsecfs_core::id::VlobId;

use super::{Attributes, Volume, valid_name};
use crate::{
    error::{ErrorKind, Result},
    inode::{Kind, ROOT_INO},
    namespace::Namespace,
};

/// One entry of a folder's stream.
#[derive(Clone, Debug)]
pub struct ListedEntry {
    /// Where the stream goes on behind this entry.
    pub next: u64,
    /// Its inode.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
}

impl Volume {
    /// Finds a name in a folder and counts one reference of the kernel to it.
    pub fn lookup(&self, folder: u64, name: &[u8]) -> Result<Attributes> {
        let name = match valid_name(name) {
            // A name that cannot be stored is not there.
            Err(error) if error.kind() == ErrorKind::InvalidName => return Err(ErrorKind::NotFound.into()),
            other => other?,
        };
        let mut namespace = self.namespace();
        let (_, ino) = self.child(&mut namespace, folder, name.reveal())?;
        self.refer(&mut namespace, ino)
    }

    /// Entry and inode of a name that is shown.
    pub(super) fn child(&self, namespace: &mut Namespace, folder: u64, name: &str) -> Result<(VlobId, u64)> {
        match self.folder(namespace, folder)?.get(name) {
            Some(there) if there.ino != 0 => Ok((there.id, there.ino)),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Counts a reference of the kernel.
    pub(super) fn refer(&self, namespace: &mut Namespace, ino: u64) -> Result<Attributes> {
        let inode = self.inode(namespace, ino)?;
        namespace.refer(ino);
        let state = inode.state.lock();
        Ok(Attributes::of(ino, &state))
    }

    /// Attributes of an inode.
    pub fn attributes(&self, ino: u64) -> Result<Attributes> {
        let inode = self.open_inode(ino)?;
        let state = inode.state.lock();
        Ok(Attributes::of(ino, &state))
    }

    /// Takes back references of the kernel; the last one ends an unlinked inode.
    pub fn forget(&self, ino: u64, lookups: u64) {
        let gone = self.namespace().forget(ino, lookups);
        if let Some(inode) = gone {
            self.end_orphan(&inode);
        }
    }

    /// Hands the entries behind `after` (0: from the start) to `each` until it says stop. With `refer`, counts a
    /// reference to each entry that was taken.
    pub fn list(
        &self,
        ino: u64,
        after: u64,
        refer: bool,
        mut each: impl FnMut(&ListedEntry, Option<&Attributes>) -> bool,
    ) -> Result<()> {
        /// Entries looked at under one lock.
        const STEP: usize = 64;
        let mut after = after;
        loop {
            let mut namespace = self.namespace();
            let names: Vec<_> = self
                .folder(&mut namespace, ino)?
                .after(after)
                .take(STEP)
                .map(|named| (named.cookie, named.dentry()))
                .collect();
            let Some((last, _)) = names.last() else { return Ok(()) };
            let step_end = *last;
            for (cookie, dentry) in names.into_iter().filter(|(_, dentry)| dentry.ino != 0) {
                let inode = self.inode(&mut namespace, dentry.ino);
                // One damaged entry must not hide its neighbours; a lookup of it says what is wrong.
                let attributes = inode.ok().map(|inode| Attributes::of(dentry.ino, &inode.state.lock()));
                let kind = attributes.as_ref().map_or(Kind::File, |attributes| attributes.kind);
                let entry = ListedEntry { next: cookie, ino: dentry.ino, kind, name: dentry.name.clone() };
                let taken = each(&entry, attributes.as_ref());
                if !taken {
                    return Ok(());
                }
                if refer && attributes.is_some() {
                    namespace.refer(dentry.ino);
                }
            }
            after = step_end;
        }
    }

    /// The folder that lists a folder.
    pub fn parent(&self, ino: u64) -> Result<u64> {
        let inode = self.open_inode(ino)?;
        let parent = inode.state.lock().meta.parent;
        Ok(if parent == 0 { ROOT_INO } else { parent })
    }
}
