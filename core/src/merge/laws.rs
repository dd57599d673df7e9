//! The laws of merging, for any base, local and remote.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::btree_map, option, prelude::*};

use super::{Attributes, FileContent, FileMerge, FolderMerge, LocalFile, LocalSlot, Origin};
use crate::{
    id::{BlockId, DeviceId, VlobId},
    manifest::{BlockAccess, Extension, FileManifest, FolderManifest},
    name::EntryName,
    time::Timestamp,
};

type Children = BTreeMap<EntryName, VlobId>;

const SLOT: u64 = 16;

fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn vlob(n: u8) -> VlobId {
    VlobId::from_bytes([n; 16])
}

/// Few names and few ids, so that they meet. An id stands under one name only.
fn children() -> impl Strategy<Value = Children> {
    btree_map(0_u8..6, 0_u8..4, 0..6).prop_map(|names_by_id| {
        names_by_id.into_iter().map(|(id, name)| (EntryName::new(&format!("{name}.x")).unwrap(), vlob(id))).collect()
    })
}

fn extension() -> impl Strategy<Value = Extension> {
    (option::of(0_u32..3), option::of(0_i64..3), btree_map(any::<bool>(), 0_u8..3, 0..3)).prop_map(
        |(mode, mtime_ns, xattrs)| Extension {
            mode,
            mtime_ns,
            xattrs: xattrs.into_iter().map(|(key, value)| (vec![u8::from(key)], vec![value])).collect(),
            ..Extension::default()
        },
    )
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (100_u8..103, 0_i64..5, extension()).prop_map(|(parent, updated, extension)| Attributes {
        parent: vlob(parent),
        created: time(0),
        updated: time(updated),
        extension,
    })
}

/// What a device holds of a folder.
type Folder = (Attributes, Children);

fn folder() -> impl Strategy<Value = Folder> {
    (attributes(), children())
}

fn folder_manifest(version: u32, (attributes, children): &Folder) -> FolderManifest {
    FolderManifest {
        author: DeviceId::from_bytes([1; 16]),
        timestamp: time(0),
        id: vlob(200),
        parent: attributes.parent,
        version,
        created: attributes.created,
        updated: attributes.updated,
        children: children.clone(),
        extension: Some(attributes.extension.clone()),
        unknown: Default::default(),
    }
}

fn merge_folder(base: &Folder, local: &Folder, remote: &Folder, kept: &BTreeSet<VlobId>) -> FolderMerge {
    let (base, remote) = (folder_manifest(1, base), folder_manifest(2, remote));
    super::folder(Some(&base), &local.0, &local.1, &remote, Origin::Other, |id| kept.contains(&id))
}

/// Each slot: a hole, or a block that holds this value everywhere.
type Content = (u64, Vec<Option<u8>>);

fn content() -> impl Strategy<Value = Content> {
    proptest::collection::vec(option::weighted(0.8, 0_u8..3), 0..4)
        .prop_map(|slots| (u64::try_from(slots.len()).unwrap() * SLOT, slots))
}

fn digest(value: u8) -> [u8; 32] {
    *parsecfs_crypto::sha256(&[value; 16]).as_bytes()
}

fn file_manifest(version: u32, attributes: &Attributes, (size, slots): &Content) -> FileManifest {
    let blocks = (0_u64..).zip(slots).filter_map(|(slot, value)| {
        let digest = digest((*value)?);
        let id = BlockId::from_bytes([u8::try_from(version * 16).unwrap() + u8::try_from(slot).unwrap(); 16]);
        Some(BlockAccess { id, offset: slot * SLOT, size: SLOT, digest })
    });
    FileManifest {
        author: DeviceId::from_bytes([1; 16]),
        timestamp: time(0),
        id: vlob(201),
        parent: attributes.parent,
        version,
        created: attributes.created,
        updated: attributes.updated,
        size: *size,
        blocksize: SLOT,
        blocks: blocks.collect(),
        extension: Some(attributes.extension.clone()),
        unknown: Default::default(),
    }
}

/// The file on a device that wrote every slot itself.
fn written((size, slots): &Content) -> LocalFile {
    let slots =
        (0_u64..).zip(slots).filter_map(|(slot, value)| Some((slot, LocalSlot::Dirty(Some(digest((*value)?))))));
    LocalFile { size: *size, blocksize: SLOT, slots: slots.collect() }
}

/// Bytes, where a hole and zeros are the same.
fn bytes((_, slots): &Content) -> Vec<u8> {
    slots.iter().map(|value| value.unwrap_or(0)).collect()
}

type File = (Attributes, Content);

fn file() -> impl Strategy<Value = File> {
    (attributes(), content())
}

fn merge_file(base: &File, local: &File, remote: &File) -> FileMerge {
    let (base, remote) = (file_manifest(1, &base.0, &base.1), file_manifest(2, &remote.0, &remote.1));
    super::file(Some(&base), &local.0, &written(&local.1), &remote, Origin::Other)
}

proptest! {
    #[test]
    fn an_unchanged_folder_becomes_the_remote_one(base in folder(), remote in folder()) {
        let merged = merge_folder(&base, &base, &remote, &BTreeSet::new());
        prop_assert!(!merged.need_sync);
        prop_assert_eq!((merged.attributes, merged.children), remote);
    }

    #[test]
    fn a_folder_that_needs_no_upload_is_the_remote_one(base in folder(), local in folder(), remote in folder()) {
        let merged = merge_folder(&base, &local, &remote, &BTreeSet::new());
        prop_assert_eq!(merged.need_sync, merged.children != remote.1
            || merged.attributes.parent != remote.0.parent || merged.attributes.extension != remote.0.extension);
    }

    #[test]
    fn merging_a_folder_again_changes_nothing(base in folder(), local in folder(), remote in folder()) {
        let once = merge_folder(&base, &local, &remote, &BTreeSet::new());
        let result = (once.attributes.clone(), once.children.clone());
        let again = merge_folder(&remote, &result, &remote, &BTreeSet::new());
        prop_assert_eq!((again.attributes, again.children, again.need_sync), (result.0, result.1, once.need_sync));
    }

    #[test]
    fn both_sides_end_with_the_same_folder(base in folder(), one in folder(), other in folder()) {
        // `one` was stored first; `other` merges and stores the result, which `one` reads without a change of its own.
        let merged = merge_folder(&base, &other, &one, &BTreeSet::new());
        let stored = (merged.attributes, merged.children);
        let read = merge_folder(&one, &one, &stored, &BTreeSet::new());
        prop_assert!(!read.need_sync);
        prop_assert_eq!((read.attributes, read.children), stored);
    }

    #[test]
    fn a_child_leaves_only_when_one_side_removed_it_and_the_other_left_it_alone(
        base in folder(), local in folder(), remote in folder(), kept in proptest::collection::btree_set(0_u8..6, 0..3)
    ) {
        let kept: BTreeSet<VlobId> = kept.into_iter().map(vlob).collect();
        let merged = merge_folder(&base, &local, &remote, &kept);
        let name = |children: &Children, id: VlobId| children.iter().find(|(_, child)| **child == id).map(|(n, _)| n.clone());
        for id in (0..6).map(vlob) {
            let (b, l, r) = (name(&base.1, id), name(&local.1, id), name(&remote.1, id));
            let removed = (l.is_none() && (r == b || r.is_none())) || (r.is_none() && l == b && !kept.contains(&id));
            prop_assert_eq!(name(&merged.children, id).is_some(), !removed, "{:?}", id);
        }
        let ids: BTreeSet<_> = merged.children.values().collect();
        prop_assert_eq!(ids.len(), merged.children.len(), "an entry under two names");
    }

    #[test]
    fn an_unchanged_file_becomes_the_remote_one(base in file(), remote in file()) {
        let merged = merge_file(&base, &base, &remote);
        prop_assert!(!merged.need_sync);
        prop_assert_ne!(merged.content, FileContent::Both);
        prop_assert_eq!(merged.attributes, remote.0);
    }

    #[test]
    fn equal_contents_never_conflict(base in file(), local in attributes(), remote in file()) {
        let merged = merge_file(&base, &(local, remote.1.clone()), &remote);
        prop_assert_ne!(merged.content, FileContent::Both);
    }

    #[test]
    fn no_content_is_lost(base in file(), local in file(), remote in file()) {
        let merged = merge_file(&base, &local, &remote);
        let (b, l, r) = (bytes(&base.1), bytes(&local.1), bytes(&remote.1));
        let kept: Vec<&Vec<u8>> = match merged.content {
            FileContent::Remote => vec![&r],
            FileContent::Local => vec![&l],
            FileContent::Equal => { prop_assert_eq!(&l, &r); vec![&r] }
            FileContent::Both => vec![&l, &r],
        };
        prop_assert!(l == b || kept.contains(&&l));
        prop_assert!(r == b || kept.contains(&&r));
    }

    #[test]
    fn merging_a_file_again_changes_nothing(base in file(), local in file(), remote in file()) {
        let once = merge_file(&base, &local, &remote);
        let content = if once.content == FileContent::Local { local.1 } else { remote.1.clone() };
        let again = merge_file(&remote, &(once.attributes.clone(), content), &remote);
        prop_assert_eq!((again.attributes, again.need_sync), (once.attributes, once.need_sync));
    }

    #[test]
    fn a_client_without_the_extension_changes_no_attribute(base in file(), remote in file()) {
        let (base_manifest, mut unaware) = (file_manifest(1, &base.0, &base.1), file_manifest(2, &remote.0, &remote.1));
        unaware.extension = None;
        let merged = super::file(Some(&base_manifest), &base.0, &written(&base.1), &unaware, Origin::Other);
        prop_assert_eq!(&merged.attributes.extension, &base.0.extension);
        prop_assert!(!merged.need_sync);
    }

    #[test]
    fn what_this_device_stored_itself_is_no_conflict(base in file(), stored in file(), local in file()) {
        let (base, remote) = (file_manifest(1, &base.0, &base.1), file_manifest(2, &stored.0, &stored.1));
        let merged = super::file(Some(&base), &local.0, &written(&local.1), &remote, Origin::Own);
        prop_assert_ne!(merged.content, FileContent::Both);
    }
}
