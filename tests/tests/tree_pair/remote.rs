//! What another device did, as sync hands it to the trees.

use std::collections::BTreeMap;

use parsecfs_core::{
    id::{DeviceId, VlobId},
    manifest::{BlockAccess, Extension, FileManifest, FolderManifest, Manifest},
    name::EntryName,
};
use parsecfs_vfs::{
    clock::Clock,
    error::ErrorKind,
    tree::{ChangeNumber, LocalContent, LocalEntry, LocalTree, Merged, MergedContent, TreeUpdate},
};
use rand::{Rng, seq::SliceRandom};

use super::{Pair, Place};

/// An update before it is known which state each tree has.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "drafts live as long as one batch")]
enum Draft {
    Put { id: VlobId, base: Option<Manifest>, local: Merged },
    Fork { id: VlobId, copy: VlobId, parent: VlobId, name: EntryName },
}

type Children = BTreeMap<EntryName, VlobId>;

impl Pair {
    /// One change by another device, if there is an entry for it.
    pub(super) fn change_elsewhere(&mut self) {
        let drafts = match self.rng.random_range(0..100) {
            0..14 => self.new_content(),
            14..22 => self.new_attributes(),
            22..36 => self.new_entry(),
            36..46 => self.arrival(),
            46..53 => self.removal(),
            53..60 => self.renaming(),
            60..72 => self.move_elsewhere(),
            72..86 => self.conflict(),
            86..95 => self.return_of_removed(),
            _ => self.change_of_removed(),
        };
        if let Some(mut drafts) = drafts {
            // A copy is announced before its folder lists it; apart from that any order is right.
            let forks = drafts.iter().filter(|draft| matches!(draft, Draft::Fork { .. })).count();
            drafts[forks..].shuffle(&mut self.rng);
            self.apply(&drafts);
        }
    }

    fn apply(&mut self, drafts: &[Draft]) {
        let checkpoint = self.rng.random_bool(0.7).then(|| self.checkpoint + 1);
        if self.rng.random_bool(0.1) {
            let stale = |tree: &dyn LocalTree| {
                let mut updates = made_for(tree, drafts);
                make_stale(&mut updates);
                tree.apply(updates, checkpoint).expect_err("made for another state").kind()
            };
            let said = (stale(&*self.fake), stale(&*self.volume()));
            assert_eq!(said, (ErrorKind::Stale, ErrorKind::Stale), "{self}");
            self.compare();
        }
        self.fake.apply(made_for(&*self.fake, drafts), checkpoint).expect("the fake takes it");
        let volume = self.volume();
        volume.apply(made_for(&*volume, drafts), checkpoint).unwrap_or_else(|error| panic!("{self}: {error:?}"));
        self.checkpoint = checkpoint.unwrap_or(self.checkpoint);
    }

    fn is_clean(&self, (path, id): &Place) -> bool {
        let entry = self.entry(*id);
        !path.is_empty() && !entry.need_sync && entry.base.is_some() && self.lists(entry.parent, *id)
    }

    /// Whether the storage knows a folder, and that it lists the entry.
    pub(super) fn lists(&self, folder: VlobId, id: VlobId) -> bool {
        base_children(&self.entry(folder)).is_some_and(|children| children.values().any(|child| *child == id))
    }

    fn pick_clean(&mut self, folder: Option<bool>) -> Option<LocalEntry> {
        let fits = |pair: &Self, place: &Place| {
            pair.is_clean(place) && folder.is_none_or(|f| pair.fake.is_folder(place.1) == f)
        };
        self.pick(fits).map(|(_, id)| self.entry(id))
    }

    fn pick_stored_folder(&mut self) -> Option<Place> {
        self.pick(|pair, (_, id)| base_children(&pair.entry(*id)).is_some())
    }

    /// The next version of a clean entry, as it is there.
    fn put(&mut self, mut manifest: Manifest) -> Draft {
        let now = self.clock.now();
        let extension = match &mut manifest {
            Manifest::File(file) => {
                (file.version, file.timestamp) = (file.version + 1, now);
                file.extension.clone()
            }
            Manifest::Folder(folder) => {
                (folder.version, folder.timestamp) = (folder.version + 1, now);
                folder.extension.clone()
            }
        };
        let (parent, created, updated, content) = match &manifest {
            Manifest::File(file) => (file.parent, file.created, file.updated, MergedContent::RemoteFile),
            Manifest::Folder(f) => (f.parent, f.created, f.updated, MergedContent::Folder(f.children.clone())),
        };
        let extension = extension.unwrap_or_default();
        let local = Merged { parent, created, updated, extension, content, need_sync: false };
        Draft::Put { id: manifest.id(), base: Some(manifest), local }
    }

    /// A folder changed there. What changed in it here stays and waits.
    fn put_folder(&mut self, id: VlobId, edit: impl Fn(&mut Children)) -> Draft {
        let entry = self.entry(id);
        let Some(Manifest::Folder(mut folder)) = entry.base.clone() else { panic!("a folder that the storage has") };
        edit(&mut folder.children);
        folder.updated = self.clock.now();
        let mut draft = self.put(Manifest::Folder(folder));
        if let (Draft::Put { local, .. }, true) = (&mut draft, entry.need_sync) {
            *local = kept(&entry, edit);
        }
        draft
    }

    /// A name that is free in a folder here and there.
    fn free_name(&mut self, folder: VlobId) -> Option<EntryName> {
        let (entry, name) = (self.entry(folder), self.pick_name());
        let there = base_children(&entry).is_some_and(|children| children.contains_key(&name));
        (!there && !children(&entry).contains_key(&name)).then_some(name)
    }

    fn blocks_of(&mut self, blocksize: u64) -> (u64, Vec<BlockAccess>) {
        let bytes = self.some_bytes(blocksize * 3);
        let slot = usize::try_from(blocksize).expect("not much");
        let mut blocks = Vec::new();
        for (number, part) in (0..).zip(bytes.chunks(slot)) {
            if self.rng.random_bool(0.9) {
                blocks.push(self.blocks.store(number * blocksize, part.to_vec()));
            }
        }
        (bytes.len() as u64, blocks)
    }

    fn new_content(&mut self) -> Option<Vec<Draft>> {
        let entry = self.pick_clean(Some(false))?;
        let Some(Manifest::File(mut file)) = entry.base else { return None };
        (file.size, file.blocks) = self.blocks_of(file.blocksize);
        file.updated = self.clock.now();
        self.note(format!("content elsewhere: {:?}", file.id));
        Some(vec![self.put(Manifest::File(file))])
    }

    /// Attributes changed there; a file that changed here keeps what it has.
    fn new_attributes(&mut self) -> Option<Vec<Draft>> {
        let (_, id) = self.pick(|pair, (path, id)| !path.is_empty() && pair.entry(*id).base.is_some())?;
        let entry = self.entry(id);
        let mode = [None, Some(0o640), Some(0o711)][self.rng.random_range(0..3)];
        let extension = Some(Extension { mode, ..entry.extension.clone() });
        let base = match entry.base.clone()? {
            Manifest::File(file) => Manifest::File(FileManifest { extension, ..file }),
            Manifest::Folder(folder) => Manifest::Folder(FolderManifest { extension, ..folder }),
        };
        self.note(format!("attributes elsewhere: {id:?}"));
        let mut draft = self.put(base);
        if let (Draft::Put { local, .. }, true) = (&mut draft, entry.need_sync) {
            *local = kept(&entry, |_| {});
        }
        Some(vec![draft])
    }

    fn new_entry(&mut self) -> Option<Vec<Draft>> {
        let (_, parent) = self.pick_stored_folder()?;
        let (name, id, now) = (self.free_name(parent)?, self.pick_id(), self.clock.now());
        let author = DeviceId::from_bytes([8; 16]);
        let manifest = if self.rng.random_bool(0.3) {
            Manifest::Folder(FolderManifest {
                author,
                timestamp: now,
                id,
                parent,
                version: 0,
                created: now,
                updated: now,
                children: Children::new(),
                extension: None,
                unknown: Default::default(),
            })
        } else {
            let blocksize = [4096, 6000, 65536][self.rng.random_range(0..3)];
            let (size, blocks) = self.blocks_of(blocksize);
            Manifest::File(FileManifest {
                author,
                timestamp: now,
                id,
                parent,
                version: 0,
                created: now,
                updated: now,
                size,
                blocksize,
                blocks,
                extension: None,
                unknown: Default::default(),
            })
        };
        let later = self.rng.random_bool(0.3);
        self.note(format!("new elsewhere: {name:?} {id:?} in {parent:?}, manifest later: {later}"));
        let folder = self.put_folder(parent, |children| relist(children, &name, id));
        if later {
            self.coming.push(manifest);
            return Some(vec![folder]);
        }
        Some(vec![self.put(manifest), folder])
    }

    /// The manifest of an entry that a folder lists already. Without a place it is no news for the trees.
    fn arrival(&mut self) -> Option<Vec<Draft>> {
        let manifest = self.coming.pop()?;
        let parent = manifest.parent();
        let (_, folder) = self.pick(|_, (_, id)| *id == parent)?;
        let listed = children(&self.entry(folder)).values().any(|id| *id == manifest.id());
        self.note(format!("arrival: {:?}, listed {listed}", manifest.id()));
        listed.then(|| vec![self.put(manifest)])
    }

    /// A clean entry, and everything below it clean, is gone there.
    fn removal(&mut self) -> Option<Vec<Draft>> {
        let (path, id) = self.pick(|pair, (path, _)| {
            let places = pair.places();
            let mut below = places.iter().filter(|(other, _)| other.starts_with(path));
            !path.is_empty() && below.all(|place| pair.is_clean(place))
        })?;
        let parent = self.entry(id).parent;
        self.note(format!("removal elsewhere: {path:?} {id:?}"));
        Some(vec![self.put_folder(parent, |children| children.retain(|_, child| *child != id))])
    }

    fn renaming(&mut self) -> Option<Vec<Draft>> {
        let entry = self.pick_clean(None)?;
        let name = self.free_name(entry.parent)?;
        self.note(format!("renaming elsewhere: {:?} to {name:?}", entry.id));
        Some(vec![self.put_folder(entry.parent, |children| relist(children, &name, entry.id))])
    }

    fn move_elsewhere(&mut self) -> Option<Vec<Draft>> {
        let (path, id) = self.pick(Self::is_clean)?;
        let (into, to) = self.pick_stored_folder()?;
        let entry = self.entry(id);
        let name = self.free_name(to)?;
        if into.starts_with(&path) || to == entry.parent {
            return None;
        }
        self.note(format!("move elsewhere: {path:?} {id:?} to {into:?} {name:?}"));
        let moved = match entry.base? {
            Manifest::File(file) => Manifest::File(FileManifest { parent: to, ..file }),
            Manifest::Folder(folder) => Manifest::Folder(FolderManifest { parent: to, ..folder }),
        };
        let left = self.put_folder(entry.parent, |children| children.retain(|_, child| *child != id));
        let entered = self.put_folder(to, |children| relist(children, &name, id));
        Some(vec![self.put(moved), left, entered])
    }

    /// A file changed here and there: both stay, what is here under another name.
    fn conflict(&mut self) -> Option<Vec<Draft>> {
        let (path, id) = self.pick(|pair, (_, id)| {
            let entry = pair.entry(*id);
            entry.need_sync
                && entry.base.as_ref().is_some_and(|base| base.parent() == entry.parent)
                && !pair.fake.is_folder(*id)
        })?;
        let Some(Manifest::File(mut file)) = self.entry(id).base else { return None };
        let (parent, copy) = (file.parent, self.pick_id());
        let name = self.free_name(parent)?;
        (file.size, file.blocks) = self.blocks_of(file.blocksize);
        self.note(format!("conflict: {path:?} {id:?}, kept as {name:?} {copy:?}"));
        let local = kept(&self.entry(parent), |children| relist(children, &name, copy));
        let lists = Draft::Put { id: parent, base: None, local };
        Some(vec![Draft::Fork { id, copy, parent, name }, self.put(Manifest::File(file)), lists])
    }

    /// A file that was removed here, and that both trees still know.
    fn removed_file(&mut self) -> Option<FileManifest> {
        let volume = self.volume();
        let removed = |id: &VlobId| {
            {
                let entry = volume.load(*id).expect("it loads")?;
                matches!(entry.base, Some(Manifest::File(_))) && entry.removed.is_some()
            }
            .then_some(*id)
        };
        let found: Vec<VlobId> = self.known.iter().filter_map(removed).collect();
        let id = (!found.is_empty()).then(|| found[self.rng.random_range(0..found.len())])?;
        match self.entry(id).base {
            Some(Manifest::File(mut file)) => {
                (file.size, file.blocks) = self.blocks_of(file.blocksize);
                Some(file)
            }
            _ => None,
        }
    }

    /// It changed there meanwhile, so it is back.
    fn return_of_removed(&mut self) -> Option<Vec<Draft>> {
        let file = self.removed_file()?;
        let (_, parent) = self.pick_stored_folder()?;
        let (id, name) = (file.id, self.free_name(parent)?);
        if self.lists_other(id, parent) {
            return None;
        }
        self.note(format!("return of removed {id:?} as {name:?} in {parent:?}"));
        let back = self.put(Manifest::File(FileManifest { parent, ..file }));
        Some(vec![back, self.put_folder(parent, |children| relist(children, &name, id))])
    }

    /// Whether a folder other than this lists the entry on the storage.
    fn lists_other(&self, id: VlobId, folder: VlobId) -> bool {
        self.places().iter().any(|(_, other)| *other != folder && self.fake.is_folder(*other) && self.lists(*other, id))
    }

    fn change_of_removed(&mut self) -> Option<Vec<Draft>> {
        let file = self.removed_file()?;
        self.note(format!("change of removed {:?}", file.id));
        Some(vec![self.put(Manifest::File(file))])
    }
}

/// What is here stays and waits for upload; of a folder, with an edit.
fn kept(entry: &LocalEntry, edit: impl Fn(&mut Children)) -> Merged {
    let content = match entry.content.clone() {
        LocalContent::Folder { mut children } => {
            edit(&mut children);
            MergedContent::Folder(children)
        }
        LocalContent::File { .. } => MergedContent::LocalFile,
    };
    let LocalEntry { parent, created, updated, extension, .. } = entry.clone();
    Merged { parent, created, updated, extension, content, need_sync: true }
}

fn relist(children: &mut Children, name: &EntryName, id: VlobId) {
    children.retain(|_, child| *child != id);
    children.insert(name.clone(), id);
}

fn children(entry: &LocalEntry) -> Children {
    match &entry.content {
        LocalContent::Folder { children } => children.clone(),
        LocalContent::File { .. } => Children::new(),
    }
}

fn base_children(entry: &LocalEntry) -> Option<&Children> {
    match &entry.base {
        Some(Manifest::Folder(folder)) => Some(&folder.children),
        _ => None,
    }
}

/// The updates for the state that a tree has now.
fn made_for(tree: &dyn LocalTree, drafts: &[Draft]) -> Vec<TreeUpdate> {
    let seen = |id: VlobId| tree.load(id).expect("it loads").map(|entry| entry.change);
    let update = |draft: Draft| match draft {
        Draft::Put { id, base, local } => TreeUpdate::Put { id, seen: seen(id), base, local },
        Draft::Fork { id, copy, parent, name } => {
            TreeUpdate::Fork { id, seen: seen(id).expect("it is known"), copy, parent, name }
        }
    };
    drafts.iter().cloned().map(update).collect()
}

fn make_stale(updates: &mut [TreeUpdate]) {
    if let Some(TreeUpdate::Put { seen, .. }) = updates.last_mut() {
        *seen = Some(seen.map_or(ChangeNumber(1), |ChangeNumber(seen)| ChangeNumber(seen + 1)));
    }
}
