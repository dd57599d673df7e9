//! Manifests of a member who may be mad, brought into the tree as sync does: whatever they say, the entries are listed, and
//! can be read, changed and removed, or refuse it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use parsecfs_core::{id::VlobId, manifest::Manifest, name::EntryName};
use parsecfs_vfs::{
    Kind,
    fs::{Attributes, FallocateMode, Fetched, RenameMode, SetAttributes, Times, Volume},
    tree::{LocalTree, Merged, MergedContent, TreeUpdate},
};
use tempfile::TempDir;

use crate::local_model::{REALM, ROOT, StepClock, open};

/// Manifests that one input brings at most.
const MANIFESTS_MAX: usize = 8;

/// Documents one after the other, each behind its length in two bytes. Each comes in an update of its own.
pub(super) fn update(bytes: &[u8]) {
    let manifests = manifests(bytes);
    if manifests.is_empty() {
        return;
    }
    let memory = Path::new("/dev/shm");
    let world = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a temporary directory");
    let volume = open(world.path(), Arc::new(StepClock::default()), u64::MAX).expect("it opens");
    let mut listed = BTreeMap::new();
    for manifest in manifests {
        let name = EntryName::new(&format!("entry {}", manifest.id())).expect("a name");
        listed.insert(name, manifest.id());
        let mut updates = vec![put_root(&volume, listed.clone())];
        updates.push(put(&volume, manifest));
        // Refusing is right; a tree that cannot be read afterwards is not.
        drop(volume.apply(updates, None));
        touch(&volume);
    }
    assert!(volume.check().expect("the store can be read").is_empty(), "something is damaged");
    volume.store().sync().expect("sync");
    let before = listing(&volume);
    drop(volume);
    let volume = open(world.path(), Arc::new(StepClock::default()), u64::MAX).expect("it opens");
    assert!(before == listing(&volume), "the next process sees something else");
}

/// What stands in the root: content is elsewhere.
fn listing(volume: &Volume) -> BTreeMap<String, (Kind, u32, u64, i64)> {
    let mut found = BTreeMap::new();
    let list = volume.list(ROOT, 0, true, |entry, attributes| {
        let facts = attributes.expect("what is listed has attributes");
        found.insert(entry.name.to_string(), (facts.kind, facts.mode, facts.size, facts.mtime_ns));
        true
    });
    list.expect("the root is listed");
    found
}

fn manifests(bytes: &[u8]) -> Vec<Manifest> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (document, behind) = behind.split_at(usize::from(u16::from_le_bytes(*length)).min(behind.len()));
        rest = behind;
        // Its root is put by ourselves.
        found.extend(Manifest::from_bytes(document).ok().filter(|manifest| manifest.id() != REALM.root()));
        if found.len() == MANIFESTS_MAX {
            break;
        }
    }
    found
}

fn seen(volume: &Volume, id: VlobId) -> Option<parsecfs_vfs::tree::ChangeNumber> {
    volume.load(id).ok().flatten().map(|entry| entry.change)
}

fn put_root(volume: &Volume, children: BTreeMap<EntryName, VlobId>) -> TreeUpdate {
    let id = REALM.root();
    let root = volume.load(id).expect("load").expect("the root is always known");
    let (created, updated, extension) = (root.created, root.updated, root.extension);
    let content = MergedContent::Folder(children);
    let local = Merged { parent: id, created, updated, extension, content, need_sync: true };
    TreeUpdate::Put { id, seen: Some(root.change), base: None, local }
}

fn put(volume: &Volume, manifest: Manifest) -> TreeUpdate {
    let id = manifest.id();
    let content = match &manifest {
        Manifest::File(_) => MergedContent::RemoteFile,
        Manifest::Folder(folder) => MergedContent::Folder(folder.children.clone()),
    };
    let local = Merged {
        parent: REALM.root(),
        created: manifest.created(),
        updated: manifest.updated(),
        extension: manifest.extension().cloned().unwrap_or_default(),
        content,
        need_sync: false,
    };
    TreeUpdate::Put { id, seen: seen(volume, id), base: Some(manifest), local }
}

/// What programs do to every entry that is listed. Each may be refused.
fn touch(volume: &Volume) {
    let mut found: Vec<(u64, String)> = Vec::new();
    volume
        .list(ROOT, 0, true, |entry, _| {
            found.push((entry.ino, entry.name.to_string()));
            true
        })
        .expect("the root is listed");
    for (number, (ino, name)) in found.into_iter().enumerate() {
        let attributes = volume.attributes(ino).expect("what is listed has attributes");
        assert!(volume.lookup(ROOT, name.as_bytes()).is_ok(), "what is listed is found");
        for name in volume.xattrs(ino).expect("extended attributes are listed") {
            volume.xattr(ino, &name).expect("it was listed");
        }
        if attributes.kind == Kind::Folder {
            volume.list(ino, 0, true, |_, _| true).expect("a folder is listed");
        } else {
            read_and_write(volume, &attributes);
        }
        if number % 3 == 1 {
            drop(volume.rename(ROOT, name.as_bytes(), ROOT, b"renamed", RenameMode::Replace));
        }
        if number % 5 == 4 {
            drop(volume.unlink(ROOT, name.as_bytes()));
        }
    }
}

fn read_and_write(volume: &Volume, attributes: &Attributes) {
    let (ino, size) = (attributes.ino, attributes.size);
    for at in [0, size / 2, size.saturating_sub(1), size] {
        drop(volume.read(ino, at, 9000, &Fetched::new()));
        drop(volume.seek(ino, at, true));
        drop(volume.seek(ino, at, false));
        drop(volume.write(ino, at, b"written here", &Fetched::new(), Times::Now));
    }
    drop(volume.fallocate(ino, size / 3, 10_000, FallocateMode::Punch, &Fetched::new(), Times::Now));
    drop(volume.set_attributes(ino, SetAttributes { size: Some(size / 2), ..SetAttributes::default() }));
    drop(volume.load(attributes_id(volume, ino)));
}

fn attributes_id(volume: &Volume, ino: u64) -> VlobId {
    volume.damage(ino, parsecfs_vfs::error::ErrorKind::Internal.into()).id.expect("it is known")
}
