//! What reading a whole storage found: its damaged objects, each by name.

use crate::id::{BlockId, RealmId, VlobId};

/// Says whether a sealed thing opens, for the caller that has the keys.
pub type Proof<'a> = &'a (dyn Fn(&Sealed<'_>) -> bool + Sync);

/// What a deep verify cannot prove without a key.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    /// The realm it belongs to.
    pub realm: RealmId,
    /// What it is.
    pub what: Item,
    /// Key of the realm that it is sealed with.
    pub key_index: u64,
    /// As stored.
    pub bytes: &'a [u8],
}

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A block.
    Block(BlockId),
    /// A version of a manifest.
    Manifest(VlobId),
}

/// What a deep verify read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Entries of the organization's log and the realms'.
    pub entries: u64,
    /// Entries without effect: repeats, or somebody wrote who may not.
    pub void: u64,
    /// Entries for which this device has no key.
    pub sealed: u64,
    /// Blocks that the present state names.
    pub blocks: u64,
    /// Realms whose blocks could not be looked at, because a log that leads to them is damaged.
    pub unread: Vec<RealmId>,
    /// What is damaged or missing.
    pub damaged: Vec<Damaged>,
}

/// One damaged object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Its key: names nothing but numbers and random ids.
    pub key: String,
    /// The realm it belongs to; `None` when it is the organization's.
    pub realm: Option<RealmId>,
    /// What it is for.
    pub part: Part,
    /// What is wrong with it.
    pub why: String,
}

/// What an object of a storage is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Users and devices.
    OrganizationLog,
    /// Members, keys and changes of a realm.
    RealmLog,
    /// A state of a realm's log, so that nobody has to read it all.
    Checkpoint,
    /// Manifests that were too large for the log.
    Manifests,
    /// Blocks.
    Blocks,
    /// The sealed device of a recovery by shares.
    Recovery,
    /// Not of this storage.
    Foreign,
}
