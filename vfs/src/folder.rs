//! The names of a folder, in memory.
//!
//! A cookie is a place in the folder's stream: it rises with each new name and never comes again, so a stream that is
//! read while names come and go neither skips nor repeats the others. Names lie one behind the other in one buffer and
//! places in one array, ordered by cookie: about 80 bytes a name, because folders of a million names are real.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    ops::Range,
    sync::Arc,
};

use hashbrown::HashTable;
use parsecfs_core::id::VlobId;
use serde::{Deserialize, Serialize};

use crate::{error::Result, inode::decode};

/// One name in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Dentry {
    pub(crate) name: Arc<str>,
    pub(crate) id: VlobId,
    /// 0: the entry itself is not known here (yet), and the name is not shown.
    pub(crate) ino: u64,
}

/// A dentry as its row holds it.
#[derive(Serialize, Deserialize)]
struct DentryRow<'a> {
    name: &'a str,
    id: [u8; 16],
    ino: u64,
}

impl Dentry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let row = DentryRow { name: &self.name, id: *self.id.as_bytes(), ino: self.ino };
        postcard::to_stdvec(&row).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let row: DentryRow<'_> = decode(bytes)?;
        Ok(Self { name: Arc::from(row.name), id: VlobId::from_bytes(row.id), ino: row.ino })
    }
}

/// A dentry and its place in the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) cookie: u64,
    pub(crate) name: &'a str,
    pub(crate) id: VlobId,
    pub(crate) ino: u64,
}

impl Named<'_> {
    pub(crate) fn dentry(&self) -> Dentry {
        Dentry { name: Arc::from(self.name), id: self.id, ino: self.ino }
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    cookie: u64,
    ino: u64,
    id: VlobId,
    /// Where its name begins in the buffer.
    start: usize,
    /// 0: the name is gone. Names are never empty.
    length: u8,
}

/// The names of a folder.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    /// By cookie, those that are gone among them.
    places: Vec<Place>,
    names: String,
    /// Indexes of `places`, by name.
    by_name: HashTable<usize>,
    /// Entries that are listed and not shown.
    hidden: HashMap<VlobId, u64>,
    hasher: RandomState,
}

impl Folder {
    /// Names in it, shown or not.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether nothing that is shown is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == self.hidden.len()
    }

    /// Puts a name in, instead of what has this name and of what is at this place.
    pub(crate) fn insert(&mut self, cookie: u64, dentry: &Dentry) {
        self.remove(&dentry.name);
        if let Ok(at) = self.places.binary_search_by_key(&cookie, |place| place.cookie) {
            let name = name_of(&self.names, &self.places[at]).to_owned();
            self.remove(&name);
        }
        self.tidy();
        if dentry.ino == 0 {
            self.hidden.insert(dentry.id, cookie);
        } else {
            self.hidden.remove(&dentry.id);
        }
        #[expect(clippy::cast_possible_truncation, reason = "no name is longer than 255 bytes")]
        let length = dentry.name.len() as u8;
        let place = Place { cookie, ino: dentry.ino, id: dentry.id, start: self.names.len(), length };
        self.names.push_str(&dentry.name);
        match self.places.binary_search_by_key(&cookie, |place| place.cookie) {
            Ok(at) => {
                self.places[at] = place;
                self.enter(at);
            }
            Err(at) if at == self.places.len() => {
                self.places.push(place);
                self.enter(at);
            }
            Err(at) => {
                self.places.insert(at, place);
                self.rebuild();
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Named<'_>> {
        let Self { places, names, by_name, hidden, hasher } = self;
        let same = |at: &usize| name_of(names, &places[*at]) == name;
        let found = by_name.find_entry(hasher.hash_one(name), same).ok()?;
        let (at, _) = found.remove();
        let place = places[at];
        hidden.remove(&place.id);
        places[at].length = 0;
        Some(named(names, &place))
    }

    pub(crate) fn get(&self, name: &str) -> Option<Named<'_>> {
        let same = |at: &usize| name_of(&self.names, &self.places[*at]) == name;
        let at = self.by_name.find(self.hasher.hash_one(name), same)?;
        Some(named(&self.names, &self.places[*at]))
    }

    /// What is at a place.
    pub(crate) fn at(&self, cookie: u64) -> Option<Named<'_>> {
        let at = self.places.binary_search_by_key(&cookie, |place| place.cookie).ok()?;
        Some(&self.places[at]).filter(|place| place.length > 0).map(|place| named(&self.names, place))
    }

    /// The names behind a place, in the order of the stream.
    pub(crate) fn after(&self, cookie: u64) -> impl Iterator<Item = Named<'_>> {
        let from = self.places.partition_point(|place| place.cookie <= cookie);
        self.places[from..].iter().filter(|place| place.length > 0).map(|place| named(&self.names, place))
    }

    /// All names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Named<'_>> {
        self.after(0)
    }

    /// An entry that is listed and not shown.
    pub(crate) fn hidden(&self, id: VlobId) -> Option<Named<'_>> {
        self.at(*self.hidden.get(&id)?)
    }

    /// An entry that is shown.
    pub(crate) fn shown(&self, ino: u64) -> Option<Named<'_>> {
        self.iter().find(|named| named.ino == ino)
    }

    fn enter(&mut self, at: usize) {
        let Self { places, names, by_name, hasher, .. } = self;
        let hash = |at: &usize| hasher.hash_one(name_of(names, &places[*at]));
        by_name.insert_unique(hash(&at), at, hash);
    }

    /// Lets go of what is gone when it is the larger part.
    fn tidy(&mut self) {
        if self.places.len() < 64 || self.places.len() < 2 * self.len() {
            return;
        }
        let old = std::mem::take(&mut self.names);
        self.places.retain_mut(|place| {
            let start = self.names.len();
            self.names.push_str(name_of(&old, place));
            place.start = start;
            place.length > 0
        });
        self.rebuild();
    }

    fn rebuild(&mut self) {
        self.by_name.clear();
        for at in 0..self.places.len() {
            if self.places[at].length > 0 {
                self.enter(at);
            }
        }
    }
}

fn range(place: &Place) -> Range<usize> {
    place.start..place.start + usize::from(place.length)
}

fn name_of<'a>(names: &'a str, place: &Place) -> &'a str {
    &names[range(place)]
}

fn named<'a>(names: &'a str, place: &Place) -> Named<'a> {
    Named { cookie: place.cookie, name: name_of(names, place), id: place.id, ino: place.ino }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn dentry(name: &str, ino: u64) -> Dentry {
        Dentry { name: Arc::from(name), id: VlobId::from_bytes(u128::from(ino).to_le_bytes()), ino }
    }

    /// Against a map, with so many renames that the buffer is tidied again and again.
    #[test]
    fn names_come_go_and_are_found_as_in_a_map() {
        let mut folder = Folder::default();
        let mut map: BTreeMap<u64, (String, u64)> = BTreeMap::new();
        let mut random = 7_u64;
        for cookie in 1..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let name = format!("{}", (random >> 33) % 300);
            map.retain(|_, (other, _)| *other != name);
            if random >> 63 == 0 {
                folder.insert(cookie, &dentry(&name, cookie));
                map.insert(cookie, (name, cookie));
            } else {
                folder.remove(&name);
            }
            assert_eq!(folder.len(), map.len());
        }
        let all: Vec<_> = folder.iter().map(|named| (named.cookie, (named.name.to_owned(), named.ino))).collect();
        assert_eq!(all, map.clone().into_iter().collect::<Vec<_>>());
        for (cookie, (name, ino)) in &map {
            assert_eq!(folder.get(name).map(|named| (named.cookie, named.ino)), Some((*cookie, *ino)));
            assert_eq!(folder.at(*cookie).map(|named| named.name), Some(name.as_str()));
        }
    }

    #[test]
    fn a_place_can_change_what_is_behind_its_name() {
        let mut folder = Folder::default();
        folder.insert(5, &dentry("a", 1));
        folder.insert(6, &dentry("b", 2));
        folder.insert(5, &dentry("a", 3));
        assert_eq!(folder.iter().map(|named| (named.cookie, named.ino)).collect::<Vec<_>>(), [(5, 3), (6, 2)]);
    }

    #[test]
    fn what_is_listed_and_not_shown_leaves_a_folder_empty() {
        let mut folder = Folder::default();
        let hidden = Dentry { ino: 0, ..dentry("a", 9) };
        folder.insert(1, &hidden);
        assert!(folder.is_empty());
        assert_eq!(folder.hidden(hidden.id).map(|named| named.cookie), Some(1));
        folder.insert(1, &Dentry { ino: 4, ..hidden.clone() });
        assert!(!folder.is_empty());
        assert!(folder.hidden(hidden.id).is_none());
    }
}
