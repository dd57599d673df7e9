//! Folders: children are merged one by one, by id.

use std::collections::{BTreeMap, BTreeSet};

use super::{Attributes, Origin, attributes, names::name_conflict};
use crate::{
    id::VlobId,
    manifest::{Extension, FolderManifest},
    name::EntryName,
};

/// A merged folder.
#[derive(Clone, Debug)]
pub struct FolderMerge {
    /// What it lists.
    pub children: BTreeMap<EntryName, VlobId>,
    /// The rest.
    pub attributes: Attributes,
    /// What the remote version's attributes mean after this base.
    pub remote_extension: Extension,
    /// Whether it differs from the remote version.
    pub need_sync: bool,
}

/// Merges a folder. `keep` says of a child that was removed on the storage and not here whether something in it is
/// not stored yet; such a child stays.
#[must_use]
pub fn folder(
    base: Option<&FolderManifest>,
    local: &Attributes,
    local_children: &BTreeMap<EntryName, VlobId>,
    remote: &FolderManifest,
    origin: Origin,
    keep: impl Fn(VlobId) -> bool,
) -> FolderMerge {
    let FolderManifest {
        author: _,
        timestamp: _,
        id: _,
        parent,
        version: _,
        created,
        updated,
        children: remote_children,
        extension,
        unknown: _,
    } = remote;
    let base_extension = base.map(|base| base.extension.clone().unwrap_or_default());
    let remote_attributes = Attributes {
        parent: *parent,
        created: *created,
        updated: *updated,
        extension: Extension::inherit(base_extension.as_ref(), extension.as_ref()),
    };
    let base_attributes = base.map(|base| base.parent).zip(base_extension.as_ref());
    let mut merged = attributes(base_attributes, local, &remote_attributes, origin);
    let children = match origin {
        Origin::Own => local_children.clone(),
        Origin::Other => {
            let none = BTreeMap::new();
            children(base.map_or(&none, |base| &base.children), local_children, remote_children, keep)
        }
    };
    let need_sync = children != *remote_children
        || merged.parent != remote.parent
        || merged.extension != remote_attributes.extension;
    if !need_sync {
        merged.updated = remote.updated;
    }
    FolderMerge { children, attributes: merged, remote_extension: remote_attributes.extension, need_sync }
}

type Children = BTreeMap<EntryName, VlobId>;

fn children(base: &Children, local: &Children, remote: &Children, keep: impl Fn(VlobId) -> bool) -> Children {
    let (base_names, local_names, remote_names) = (by_id(base), by_id(local), by_id(remote));
    let ids: BTreeSet<VlobId> = local_names.keys().chain(remote_names.keys()).copied().collect();
    let mut merged = if local == base {
        // Takes over even what should not be there (one entry under two names): it is not ours to repair.
        remote.clone()
    } else {
        Children::new()
    };
    let mut of_local = Vec::new();
    for id in ids {
        let remote_name = remote_names.get(&id).copied();
        let name = name(base_names.get(&id).copied(), local_names.get(&id).copied(), remote_name, || keep(id));
        match name {
            Some(name) if Some(name) == remote_name => {
                merged.insert(name.clone(), id);
            }
            Some(name) => of_local.push((name, id)),
            None => {}
        }
    }
    of_local.sort();
    let wanted: BTreeSet<&EntryName> = local.keys().chain(remote.keys()).collect();
    for (name, id) in of_local {
        let free = !merged.contains_key(name);
        let name = if free {
            name.clone()
        } else {
            name_conflict(name, |name| wanted.contains(name) || merged.contains_key(name))
        };
        merged.insert(name, id);
    }
    merged
}

/// First name of each id.
fn by_id(children: &Children) -> BTreeMap<VlobId, &EntryName> {
    children.iter().rev().map(|(name, id)| (*id, name)).collect()
}

/// The table of formats.md 7.4, with one row more: what is not stored yet is not removed.
fn name<'a>(
    base: Option<&'a EntryName>,
    local: Option<&'a EntryName>,
    remote: Option<&'a EntryName>,
    keep: impl Fn() -> bool,
) -> Option<&'a EntryName> {
    match (base, local, remote) {
        (base, Some(local), Some(remote)) => Some(if base == Some(remote) { local } else { remote }),
        (None, Some(local), None) => Some(local),
        (Some(base), Some(local), None) => (base != local || keep()).then_some(local),
        (None, None, Some(remote)) => Some(remote),
        (Some(base), None, Some(remote)) => (base != remote).then_some(remote),
        (_, None, None) => None,
    }
}
