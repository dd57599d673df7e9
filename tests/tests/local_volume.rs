//! What was once wrong in the local half, each as a small story.

use std::sync::Arc;

use parsecfs_core::{id::VlobId, manifest::Manifest, name::EntryName};
use parsecfs_tests::local_model::{Blocks, REALM, ROOT, StepClock, open, read};
use parsecfs_vfs::{
    error::ErrorKind,
    fs::{FallocateMode, Fetched, ListedEntry, Maker, NewKind, RenameMode, SetAttributes, Times, Volume},
    tree::{ChangeNumber, LocalContent, LocalEntry, LocalTree, Merged, MergedContent, TreeUpdate},
};
use tempfile::TempDir;

/// So little that content the storage has goes at each reclaim.
const ROOM: u64 = 100 << 20;

struct World {
    dir: TempDir,
    volume: Arc<Volume>,
    blocks: Blocks,
}

impl World {
    fn new() -> Self {
        Self::with_room(ROOM)
    }

    fn with_room(bytes: u64) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let volume = open(dir.path(), Arc::new(StepClock::default()), bytes).expect("a new store");
        Self { dir, volume, blocks: Blocks::default() }
    }

    fn reopen(self) -> Self {
        let Self { dir, volume, blocks } = self;
        volume.store().close().expect("close");
        drop(volume);
        let volume = open(dir.path(), Arc::new(StepClock::default()), ROOM).expect("it was closed");
        Self { dir, volume, blocks }
    }

    fn create(&self, name: &str, kind: NewKind<'_>) -> u64 {
        let maker = Maker { uid: 0, gid: 0 };
        self.volume.create(ROOT, name.as_bytes(), kind, 0o755, maker).expect("create").ino
    }

    fn file(&self, name: &str, bytes: &[u8]) -> u64 {
        let ino = self.create(name, NewKind::File);
        self.volume.write(ino, 0, bytes, &Fetched::new(), Times::Now).expect("write");
        ino
    }

    fn truncate(&self, ino: u64, size: u64) {
        let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
        self.volume.set_attributes(ino, set).expect("truncate");
    }

    fn read(&self, ino: u64) -> Vec<u8> {
        read(&self.volume, &self.blocks, ino, 0, 1 << 20).expect("read")
    }

    fn id(&self, name: &str) -> VlobId {
        match self.volume.load(REALM.root()).expect("load").expect("the root").content {
            LocalContent::Folder { children } => children[&EntryName::new(name).expect("a name")],
            other => panic!("{other:?}"),
        }
    }

    fn upload(&self, id: VlobId) -> (ChangeNumber, Manifest) {
        self.blocks.upload(&self.volume, id)
    }

    fn uploaded(&self, (seen, manifest): (ChangeNumber, Manifest)) {
        self.volume.apply(vec![TreeUpdate::Uploaded { seen, manifest }], None).expect("uploaded");
    }

    fn upload_all(&self) {
        for entry in self.volume.pending(100).expect("pending") {
            self.uploaded(self.upload(entry.id));
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let each = |entry: &ListedEntry, _: Option<&_>| {
            names.push(entry.name.to_string());
            true
        };
        self.volume.list(ROOT, 0, false, each).expect("list");
        names
    }
}

#[test]
fn bytes_cut_off_during_an_upload_do_not_come_back_with_it() {
    let world = World::new();
    let ino = world.file("a", &[1; 9000]);
    let on_its_way = world.upload(world.id("a"));
    world.truncate(ino, 5000);
    world.truncate(ino, 9000);
    world.uploaded(on_its_way);
    let mut wanted = vec![1; 5000];
    wanted.resize(9000, 0);
    assert_eq!(world.read(ino), wanted);
}

#[test]
fn bytes_punched_during_an_upload_do_not_come_back_with_it() {
    let world = World::new();
    let ino = world.file("a", &[1; 8192]);
    let on_its_way = world.upload(world.id("a"));
    world.volume.fallocate(ino, 0, 4096, FallocateMode::Punch, &Fetched::new(), Times::Now).expect("punch");
    world.uploaded(on_its_way);
    assert_eq!(world.read(ino), [[0; 4096], [1; 4096]].concat());
}

#[test]
fn a_removed_open_file_that_is_only_on_the_storage_stays_readable() {
    let world = World::new();
    let ino = world.file("a", &[1; 8192]);
    world.upload_all();
    world.volume.count_usage().expect("count");
    world.volume.reclaim().expect("reclaim");
    world.volume.unlink(ROOT, b"a").expect("unlink");
    // The folder's new version forgets the removed entry.
    world.upload_all();
    assert_eq!(world.read(ino), [1; 8192]);
}

/// What another device makes of the version that was on its way is merged with what this device remembers: that it
/// removed the entry, under which name, and which version it knew.
#[test]
fn an_entry_removed_while_its_first_version_is_on_its_way_stays_known_as_removed() {
    let world = World::new();
    let ino = world.file("a", &[1; 9000]);
    let id = world.id("a");
    let on_its_way = world.upload(id);
    world.volume.unlink(ROOT, b"a").expect("unlink");
    let removed = |world: &World| {
        let entry = world.volume.load(id).expect("load").expect("it is known");
        (entry.removed.expect("it is removed").reveal().to_owned(), entry.base.map(|base| base.version()))
    };
    assert_eq!(removed(&world), ("a".to_owned(), None));
    world.uploaded(on_its_way);
    assert_eq!(removed(&world), ("a".to_owned(), Some(1)));
    assert_eq!(world.read(ino), [1; 9000], "who has it open goes on with it");
    assert!(world.volume.pending(100).expect("pending").iter().all(|entry| entry.id != id), "nothing of it waits");
    assert_eq!(removed(&world.reopen()), ("a".to_owned(), Some(1)));
}

/// The process ended between sending and hearing of it.
#[test]
fn an_entry_removed_after_a_restart_stays_known_as_its_first_version_may_have_been_sent() {
    let world = World::new();
    world.file("a", b"a");
    let id = world.id("a");
    let world = world.reopen();
    world.volume.unlink(ROOT, b"a").expect("unlink");
    let world = world.reopen();
    assert!(world.volume.load(id).expect("load").expect("it is known").removed.is_some());
}

#[test]
fn an_entry_that_sync_never_looked_at_is_forgotten_when_it_is_removed() {
    let world = World::new();
    world.file("a", b"a");
    let id = world.id("a");
    world.volume.unlink(ROOT, b"a").expect("unlink");
    assert!(world.volume.load(id).expect("load").is_none());
}

/// Its content went with the removal here, and the storage has none: it must not come back as zeros, and go up so.
#[test]
fn a_removed_file_without_any_version_is_not_brought_back_by_a_folder_that_lists_it() {
    for folder_first in [false, true] {
        let world = World::new();
        world.file("a", &[1; 9000]);
        let (id, root) = (world.id("a"), REALM.root());
        world.upload(id);
        world.volume.unlink(ROOT, b"a").expect("unlink");
        let name = EntryName::new("a").expect("a name");
        let put = |id, content| {
            let entry = world.volume.load(id).expect("load").expect("it is known");
            let LocalEntry { parent, created, updated, extension, .. } = entry;
            let local = Merged { parent, created, updated, extension, content, need_sync: true };
            TreeUpdate::Put { id, seen: Some(entry.change), base: None, local }
        };
        let mut updates =
            vec![put(id, MergedContent::LocalFile), put(root, MergedContent::Folder([(name, id)].into()))];
        if folder_first {
            updates.reverse();
        }
        world.volume.apply(updates, None).expect("it is taken");
        let world = world.reopen();
        assert!(world.names().is_empty());
        assert!(world.volume.load(id).expect("load").is_none());
        assert_eq!(world.id("a"), id, "its name waits for what the storage gets");
    }
}

#[test]
fn what_was_removed_a_moment_ago_is_no_damage() {
    let world = World::new();
    let (closed, open) = (world.file("closed", b"x"), world.file("open", b"x"));
    world.volume.store().apply().expect("apply");
    world.volume.forget(closed, 1);
    world.volume.unlink(ROOT, b"closed").expect("unlink");
    world.volume.unlink(ROOT, b"open").expect("unlink");
    assert!(world.volume.check().expect("check").is_empty());
    assert_eq!(world.read(open), b"x");
}

#[test]
fn a_rename_that_must_not_replace_refuses_its_own_name() {
    let world = World::new();
    world.file("a", b"a");
    let outcome = world.volume.rename(ROOT, b"a", ROOT, b"a", RenameMode::Keep);
    assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::Exists));
}

#[test]
fn a_rename_onto_a_name_whose_entry_never_came_leaves_one_name() {
    let world = World::new();
    world.file("a", b"a");
    let root = world.volume.load(REALM.root()).expect("load").expect("the root");
    let name = |name| EntryName::new(name).expect("a name");
    let children = [(name("a"), world.id("a")), (name("b"), VlobId::from_bytes([8; 16]))].into();
    let local = Merged {
        parent: root.parent,
        created: root.created,
        updated: root.updated,
        extension: root.extension,
        content: MergedContent::Folder(children),
        need_sync: true,
    };
    let put = TreeUpdate::Put { id: root.id, seen: Some(root.change), base: None, local };
    world.volume.apply(vec![put], None).expect("a folder that lists an entry which is not here");
    world.volume.rename(ROOT, b"a", ROOT, b"b", RenameMode::Replace).expect("rename");
    let world = world.reopen();
    assert_eq!(world.names(), ["b"]);
    world.volume.unlink(ROOT, b"b").expect("unlink");
    let world = world.reopen();
    assert!(world.names().is_empty());
    let root = world.volume.load(REALM.root()).expect("load").expect("the root");
    assert!(matches!(root.content, LocalContent::Folder { children } if children.is_empty()));
}

#[test]
fn content_that_waits_for_upload_takes_from_the_room_that_is_told() {
    const MIB: u64 = 1 << 20;
    let world = World::with_room(100 * MIB);
    let (free, total) = world.volume.space().expect("space");
    assert_eq!((free, total), (100 * MIB, 100 * MIB));
    world.file("a", &vec![1; 10 << 20]);
    let (free, total) = world.volume.space().expect("space");
    assert!(total == 100 * MIB && free <= 90 * MIB, "{free} of {total}");
    world.upload_all();
    assert_eq!(world.volume.space().expect("space"), (100 * MIB, 100 * MIB));
}

#[test]
fn content_that_the_storage_has_makes_room_before_a_write_is_refused() {
    let world = World::with_room(8 << 20);
    for number in 0..40_u8 {
        let bytes = vec![number | 1; 1 << 20];
        let ino = world.file(&number.to_string(), &bytes);
        assert!(world.read(ino) == bytes, "file {number}");
        world.upload_all();
    }
    assert!(world.volume.store().bytes() <= 8 << 20, "the limit holds");
}
