//! Hard links: an inode with several names, each of which is an entry of its own to the storage.
//!
//! An ordinary inode is one entry, and its row says all about both. An inode with links has no entry: content and shared
//! attributes are its own, and [`Links`] in its row says of each name where it is and what the storage knows of it. The
//! base of the inode is then the newest manifest that its *content* was brought to, whichever name that belongs to; what
//! each name's own vlob holds is in a base row beside it.
//!
//! An inode that once had links keeps that form, also with one name left.

use parsecfs_core::{id::VlobId, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::inode::Meta;

/// Names of one inode at most: each is a manifest that goes up with every change.
pub(crate) const LINKS_MAX: usize = 1000;

/// The names of an inode with links.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Links {
    /// The change that the inode's base was made from: content never goes back to an older manifest.
    pub(crate) content_seen: u64,
    /// At least one.
    pub(crate) names: Vec<Link>,
}

/// One name of an inode: an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) id: [u8; 16],
    /// The row number under which its own base is kept; never that of an inode while it is a name.
    pub(crate) base_row: u64,
    /// The folder that lists it: inode and entry.
    pub(crate) parent: u64,
    pub(crate) parent_id: [u8; 16],
    pub(crate) created_us: i64,
    /// Version of its own base, 0 without one.
    pub(crate) base_version: u32,
    /// Whether its vlob lacks something of the inode or of this name.
    pub(crate) need_sync: bool,
}

impl Link {
    pub(crate) fn entry_id(&self) -> VlobId {
        VlobId::from_bytes(self.id)
    }
}

impl Meta {
    /// The entries that this inode is.
    pub(crate) fn entries(&self) -> Vec<VlobId> {
        match &self.links {
            Some(links) => links.names.iter().map(Link::entry_id).collect(),
            None => vec![self.entry_id()],
        }
    }

    /// How many names it has while it has any.
    pub(crate) fn name_count(&self) -> u32 {
        self.links.as_ref().map_or(1, |links| u32::try_from(links.names.len()).unwrap_or(u32::MAX))
    }

    /// What is known of one of several names.
    pub(crate) fn link(&self, id: VlobId) -> Option<&Link> {
        self.links.as_ref()?.names.iter().find(|link| link.entry_id() == id)
    }

    pub(crate) fn link_mut(&mut self, id: VlobId) -> Option<&mut Link> {
        self.links.as_mut()?.names.iter_mut().find(|link| link.entry_id() == id)
    }

    /// Takes one of several names away.
    pub(crate) fn take_link(&mut self, id: VlobId) -> Option<Link> {
        let names = &mut self.links.as_mut()?.names;
        let at = names.iter().position(|link| link.entry_id() == id)?;
        Some(names.remove(at))
    }

    /// Whether any name of it waits for upload.
    pub(crate) fn waits(&self) -> bool {
        match &self.links {
            Some(links) => links.names.iter().any(|link| link.need_sync),
            None => self.need_sync,
        }
    }

    /// Something changed that every name has to tell the storage.
    pub(crate) fn set_need_sync(&mut self) {
        self.need_sync = true;
        for link in self.links.iter_mut().flat_map(|links| &mut links.names) {
            link.need_sync = true;
        }
    }

    /// The folder that lists an entry of this inode: inode and entry.
    pub(crate) fn place(&self, id: VlobId) -> (u64, [u8; 16]) {
        self.link(id).map_or((self.parent, self.parent_id), |link| (link.parent, link.parent_id))
    }

    pub(crate) fn set_place(&mut self, id: VlobId, parent: u64, parent_id: [u8; 16]) {
        match self.link_mut(id) {
            Some(link) => (link.parent, link.parent_id) = (parent, parent_id),
            None => (self.parent, self.parent_id) = (parent, parent_id),
        }
    }

    /// The row of an entry's own base.
    pub(crate) fn base_row(&self, ino: u64, id: VlobId) -> u64 {
        self.link(id).map_or(ino, |link| link.base_row)
    }

    /// An ordinary inode becomes one with links, of which its entry is the first.
    pub(crate) fn start_links(&mut self, base_row: u64) {
        let first = Link {
            id: self.id,
            base_row,
            parent: self.parent,
            parent_id: self.parent_id,
            created_us: self.created_us,
            base_version: self.base_version,
            need_sync: self.need_sync,
        };
        self.links = Some(Box::new(Links { content_seen: 0, names: vec![first] }));
    }

    /// One of several names as an ordinary entry, of which this inode had the attributes.
    pub(crate) fn of_link(&self, link: &Link) -> Self {
        Self {
            id: link.id,
            parent: link.parent,
            parent_id: link.parent_id,
            created_us: link.created_us,
            base_version: link.base_version,
            need_sync: link.need_sync,
            links: None,
            ..self.clone()
        }
    }

    /// When the entry was made.
    pub(crate) fn created(&self, id: VlobId) -> Timestamp {
        let us = self.link(id).map_or(self.created_us, |link| link.created_us);
        Timestamp::from_micros(us).unwrap_or(Timestamp::MAX)
    }
}
