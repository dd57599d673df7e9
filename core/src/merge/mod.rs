//! `merge(base, local, remote)`: what an entry becomes when it changed here and elsewhere (formats.md 7.3, 7.4).
//!
//! Base is the last version that both sides knew, local is the entry as it is on this device, remote is the newest
//! stored version. The functions decide about one entry; what follows for other entries (a copy needs a place, an entry
//! that was removed on one side and changed on the other comes back) is for the caller, who knows the tree.
//!
//! Laws, each held by a property test:
//!
//! * A merge whose result needs no upload leaves exactly the remote version, so devices converge.
//! * Merging the same remote version again changes nothing.
//! * Equal contents never conflict. Content that changed on both sides is kept twice.
//! * An entry leaves a folder only when one side removed it and the other neither moved nor changed it.
//! * What this device stored itself and did not hear back of is its own earlier state, not a change by others.

mod extension;
mod file;
mod folder;
#[cfg(test)]
mod laws;
pub mod names;

pub use extension::merge as extensions;
pub use file::{FileContent, FileMerge, LocalFile, LocalSlot, file, same_content};
pub use folder::{FolderMerge, folder};

use crate::{id::VlobId, manifest::Extension, time::Timestamp};

/// What an entry has beside its content.
#[derive(Clone, Debug, PartialEq)]
pub struct Attributes {
    /// The folder that lists it.
    pub parent: VlobId,
    /// When the entry was made.
    pub created: Timestamp,
    /// When its content last changed.
    pub updated: Timestamp,
    /// POSIX attributes.
    pub extension: Extension,
}

/// Whether the remote version is the one that this device made from its base, stored, and did not hear back of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is: local is what became of it since.
    Own,
    /// Somebody else's, or not the next after base.
    Other,
}

/// Three-way choice where both sides changed to different things: the remote one, which everybody has already.
fn pick<T: PartialEq>(base: Option<&T>, local: T, remote: T) -> T {
    if base == Some(&remote) { local } else { remote }
}

/// Merges everything that is not content. `base` is parent and attributes of the base version.
fn attributes(
    base: Option<(VlobId, &Extension)>,
    local: &Attributes,
    remote: &Attributes,
    origin: Origin,
) -> Attributes {
    let Attributes { parent, created: _, updated, extension } = local;
    if origin == Origin::Own {
        return Attributes { created: remote.created, ..local.clone() };
    }
    Attributes {
        parent: pick(base.map(|(parent, _)| parent).as_ref(), *parent, remote.parent),
        created: remote.created,
        updated: remote.updated.max(*updated),
        extension: extension::merge(base.map(|(_, extension)| extension), extension, &remote.extension),
    }
}
