//! What both trees say.

use std::collections::{BTreeMap, BTreeSet};

use parsecfs_core::{id::VlobId, name::EntryName};
use parsecfs_tests::local_model::{ROOT, read};
use parsecfs_vfs::{
    Kind,
    tree::{BlockSource, ChangeNumber, LocalContent, LocalEntry, LocalTree, SlotState},
};
use rand::Rng;

use super::{Pair, Place};

impl Pair {
    pub(super) fn compare(&mut self) {
        let volume = self.volume();
        assert_eq!(volume.checkpoint().unwrap(), self.fake.checkpoint().unwrap(), "{self}");
        let places = self.places();
        let here: BTreeSet<VlobId> = places.iter().map(|(_, id)| *id).collect();
        for id in self.known.clone() {
            let (fake, real) = (self.fake.load(id).unwrap(), volume.load(id).unwrap());
            match (fake, real) {
                (Some(fake), Some(real)) if here.contains(&id) => self.compare_entry(&fake, &real),
                (fake, None) => {
                    assert!(!here.contains(&id), "{self}: {id:?} is not known");
                    self.may_forget(fake);
                }
                (Some(fake), Some(real)) => {
                    assert!(real.removed.is_some(), "{self}: {id:?} is removed, or in no folder");
                    assert_eq!((&real.removed, &real.base), (&fake.removed, &fake.base), "{self}: {id:?}");
                }
                (None, Some(_)) => panic!("{self}: {id:?} is known"),
            }
        }
        let ids: Vec<VlobId> = here.iter().copied().collect();
        let versions = |tree: &dyn LocalTree| BTreeSet::from_iter(tree.base_versions(&ids).unwrap());
        assert_eq!(versions(&*volume), versions(&*self.fake), "{self}: base versions");
        let waiting = |tree: &dyn LocalTree| -> BTreeMap<VlobId, bool> {
            tree.pending(usize::MAX).unwrap().iter().map(|entry| (entry.id, entry.folder)).collect()
        };
        assert_eq!(waiting(&*volume), waiting(&*self.fake), "{self}: what waits");
        assert_eq!(volume.pending_total().unwrap().0, self.fake.pending_total().unwrap().0, "{self}");
        self.compare_names(&places);
        if let Some(file) = self.pick_file() {
            self.compare_bytes(&file);
        }
    }

    pub(super) fn compare_files(&mut self) {
        for place in self.places() {
            if !self.fake.is_folder(place.1) {
                self.compare_bytes(&place);
            }
        }
    }

    /// A removed entry has to be known as long as its folder on the storage lists it.
    fn may_forget(&self, fake: Option<LocalEntry>) {
        let Some(entry) = fake.filter(|entry| entry.base.is_some()) else { return };
        let listed =
            self.places().iter().any(|(_, folder)| *folder == entry.parent) && self.lists(entry.parent, entry.id);
        assert!(!listed, "{self}: the removal of {:?} is not on the storage", entry.id);
    }

    fn compare_entry(&mut self, fake: &LocalEntry, real: &LocalEntry) {
        let id = fake.id;
        assert_eq!(real.base, fake.base, "{self}: base of {id:?}");
        let facts =
            |e: &LocalEntry| (e.need_sync, e.parent, e.removed.clone(), e.created, e.updated, e.extension.clone());
        assert_eq!(facts(real), facts(fake), "{self}: facts of {id:?}");
        for (is_fake, entry) in [(true, fake), (false, real)] {
            let said = said(entry);
            let before = self.states.entry((is_fake, id, entry.change.0)).or_insert_with(|| said.clone());
            let same = *before == said;
            assert!(same, "{self}: {id:?} changed, its number did not, fake: {is_fake}");
        }
        match (&fake.content, &real.content) {
            (LocalContent::Folder { children: fake }, LocalContent::Folder { children: real }) => {
                assert_eq!(real, fake, "{self}: children of {id:?}");
            }
            (
                LocalContent::File { size: fake_size, blocksize: fake_blocksize, slots: fake_slots },
                LocalContent::File { size, blocksize, slots },
            ) => {
                assert_eq!((size, blocksize), (fake_size, fake_blocksize), "{self}: shape of {id:?}");
                let numbers: BTreeSet<u64> = fake_slots.keys().chain(slots.keys()).copied().collect();
                for number in numbers {
                    let states = (slots.get(&number), fake_slots.get(&number));
                    self.compare_slot(id, number, states, (real.change, fake.change));
                }
            }
            _ => panic!("{self}: {id:?} is a file in one and a folder in the other"),
        }
    }

    /// Either may call more dirty than the other, or a hole what is zeros, when the bytes are equal.
    fn compare_slot(
        &self,
        id: VlobId,
        slot: u64,
        (real, fake): (Option<&SlotState>, Option<&SlotState>),
        (real_change, fake_change): (ChangeNumber, ChangeNumber),
    ) {
        if let (Some(SlotState::Synced(real)), Some(SlotState::Synced(fake))) = (real, fake) {
            assert_eq!(real, fake, "{self}: slot {slot} of {id:?}");
            return;
        }
        let volume = self.volume();
        let real = self.slot_bytes(&*volume, id, real_change, slot, real);
        let fake = self.slot_bytes(&*self.fake, id, fake_change, slot, fake);
        assert!(real == fake, "{self}: bytes of slot {slot} of {id:?}");
    }

    /// The bytes of a slot as they would be uploaded, without the zeros at the end.
    fn slot_bytes(
        &self,
        tree: &dyn LocalTree,
        id: VlobId,
        change: ChangeNumber,
        slot: u64,
        state: Option<&SlotState>,
    ) -> Vec<u8> {
        let mut bytes = match state {
            None => Vec::new(),
            Some(SlotState::Synced(block)) => self.runtime.block_on(self.blocks.fetch(block)).expect("a stored block"),
            Some(SlotState::Dirty) => {
                let stale = tree.slot(id, ChangeNumber(change.0 + 1), slot).unwrap();
                assert!(stale.is_none(), "{self}: a slot of another state");
                let bytes = tree.slot(id, change, slot).unwrap().expect("its present state");
                assert!(!bytes.is_empty(), "{self}: slot {slot} of {id:?} is behind the end");
                bytes
            }
        };
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end);
        bytes
    }

    /// The kernel sees what the fake calls reachable.
    fn compare_names(&self, places: &[Place]) {
        let volume = self.volume();
        let (mut found, mut todo) = (BTreeSet::new(), vec![(Vec::new(), ROOT)]);
        while let Some((path, ino)) = todo.pop() {
            if volume.attributes(ino).unwrap().kind == Kind::Folder {
                let listed = volume.list(ino, 0, false, |entry, _| {
                    let mut path = path.clone();
                    path.push(EntryName::new(&entry.name).unwrap());
                    todo.push((path, entry.ino));
                    true
                });
                listed.unwrap_or_else(|error| panic!("{self}: list {path:?}: {error:?}"));
            }
            found.insert(path);
        }
        let expected: BTreeSet<_> = places.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(found, expected, "{self}: names");
    }

    fn compare_bytes(&mut self, (path, id): &Place) {
        let ino = self.ino(path);
        let fake = self.runtime.block_on(self.fake.read(*id, &*self.blocks)).expect("the fake reads");
        // From somewhere to the end, and then all: what was fetched for the first is kept.
        let from = self.rng.random_range(0..=fake.len());
        for from in [from, 0] {
            let real = read(&self.volume(), &self.blocks, ino, from as u64, fake.len() + 1 - from).expect("it reads");
            assert!(real == fake[from..], "{self}: bytes of {path:?} {id:?} from {from}");
        }
    }
}

/// What an entry is, apart from what a completed upload changes.
fn said(entry: &LocalEntry) -> String {
    let content = match &entry.content {
        LocalContent::Folder { children } => format!("{children:?}"),
        LocalContent::File { size, blocksize, .. } => format!("{size} {blocksize}"),
    };
    let mode = entry.extension.mode;
    format!("{:?} {:?} {:?} {mode:?} {content}", entry.parent, entry.removed, entry.updated)
}
