//! Where each vlob and block of a realm is, packed: of a million files this is most of what a device keeps in memory.
//!
//! What many share (a pack, an author with a key) is kept once and numbered. Nothing is ever taken out: a vlob keeps one
//! entry whatever its version, and a block that nobody references any more is known until the next opening.

use std::{collections::HashMap, hash::Hash};

use parsecfs_core::{
    id::{BlockId, VlobId},
    time::Timestamp,
};

use super::data::{BlockPlace, VlobPlace};
use crate::objects::{
    entry::{Payload, Span},
    key::PackName,
    table::Table,
};

/// In the place of a pack's number: in the entry itself.
const INLINE: u32 = u32::MAX;
/// The same: an object of its own.
const OBJECT: u32 = u32::MAX - 1;
/// In the place of an author: a block says nothing about who made it.
const NOBODY: u32 = u32::MAX;

/// Places of vlobs and blocks.
#[derive(Default)]
pub(in crate::objects) struct Places {
    vlobs: Table<VlobId, PackedVlob>,
    blocks: Table<BlockId, PackedBlock>,
    packs: Numbered<PackName>,
    /// Author and key index.
    issues: Numbered<(u32, u64)>,
}

/// 36 bytes instead of 64.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
struct PackedVlob {
    timestamp: Timestamp,
    seq: u64,
    version: u32,
    issue: u32,
    payload: PackedPayload,
}

/// 24 bytes instead of 48.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
struct PackedBlock {
    seq: u64,
    issue: u32,
    payload: PackedPayload,
}

#[derive(Clone, Copy)]
struct PackedPayload {
    pack: u32,
    span: Span,
}

impl Places {
    /// How many there are of both.
    pub(in crate::objects) fn len(&self) -> usize {
        self.vlobs.len() + self.blocks.len()
    }

    pub(in crate::objects) fn vlob(&self, id: &VlobId) -> Option<VlobPlace> {
        self.vlobs.get(id).map(|packed| self.unpack_vlob(packed))
    }

    pub(in crate::objects) fn block(&self, id: &BlockId) -> Option<BlockPlace> {
        self.blocks.get(id).map(|packed| self.unpack_block(packed))
    }

    pub(in crate::objects) fn has_block(&self, id: &BlockId) -> bool {
        self.blocks.get(id).is_some()
    }

    pub(in crate::objects) fn vlobs(&self) -> impl Iterator<Item = (&VlobId, VlobPlace)> {
        self.vlobs.iter().map(|(id, packed)| (id, self.unpack_vlob(packed)))
    }

    pub(in crate::objects) fn blocks(&self) -> impl Iterator<Item = (&BlockId, BlockPlace)> {
        self.blocks.iter().map(|(id, packed)| (id, self.unpack_block(packed)))
    }

    /// Puts a vlob, in the place of its last version.
    pub(in crate::objects) fn put_vlob(&mut self, id: VlobId, place: &VlobPlace) {
        let issue = self.issues.number((place.author, place.key_index));
        let payload = self.pack(place.payload);
        let (timestamp, seq, version) = (place.timestamp, place.seq, place.version);
        self.vlobs.insert(id, PackedVlob { timestamp, seq, version, issue, payload });
    }

    /// Puts a block; the first place stays.
    pub(in crate::objects) fn put_block(&mut self, id: BlockId, place: &BlockPlace) {
        let packed = match *place {
            BlockPlace::Object => {
                let payload = PackedPayload { pack: OBJECT, span: Span { offset: 0, length: 0 } };
                PackedBlock { seq: 0, issue: 0, payload }
            }
            BlockPlace::Part { key_index, seq, payload } => {
                let issue = self.issues.number((NOBODY, key_index));
                PackedBlock { seq, issue, payload: self.pack(payload) }
            }
        };
        self.blocks.insert_new(id, packed);
    }

    fn pack(&mut self, payload: Payload) -> PackedPayload {
        match payload {
            Payload::Inline(span) => PackedPayload { pack: INLINE, span },
            Payload::Pack(name, span) => PackedPayload { pack: self.packs.number(name), span },
        }
    }

    fn unpack(&self, packed: PackedPayload) -> Payload {
        match packed.pack {
            INLINE => Payload::Inline(packed.span),
            pack => Payload::Pack(self.packs.get(pack), packed.span),
        }
    }

    fn unpack_vlob(&self, packed: &PackedVlob) -> VlobPlace {
        let (author, key_index) = self.issues.get(packed.issue);
        VlobPlace {
            version: packed.version,
            key_index,
            author,
            timestamp: packed.timestamp,
            seq: packed.seq,
            payload: self.unpack(packed.payload),
        }
    }

    fn unpack_block(&self, packed: &PackedBlock) -> BlockPlace {
        match packed.payload.pack {
            OBJECT => BlockPlace::Object,
            _ => BlockPlace::Part {
                key_index: self.issues.get(packed.issue).1,
                seq: packed.seq,
                payload: self.unpack(packed.payload),
            },
        }
    }
}

/// Values that are kept once, by number.
struct Numbered<T> {
    values: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Copy + Eq + Hash> Numbered<T> {
    fn number(&mut self, value: T) -> u32 {
        *self.numbers.entry(value).or_insert_with(|| {
            self.values.push(value);
            u32::try_from(self.values.len() - 1).ok().filter(|number| *number < OBJECT).expect("they fit memory")
        })
    }

    fn get(&self, number: u32) -> T {
        self.values[number as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_what_is_found() {
        let mut places = Places::default();
        let span = |n: u32| Span { offset: n, length: n + 1 };
        let payload = |n: u32| match n % 3 {
            0 => Payload::Inline(span(n)),
            _ => Payload::Pack(u128::from(n % 5).to_le_bytes(), span(n)),
        };
        let time = |n: u32| Timestamp::from_micros(i64::from(n) << 20).expect("a time");
        let vlob = |n: u32| VlobPlace {
            version: n + 1,
            key_index: u64::from(n % 3),
            author: n % 7,
            timestamp: time(n),
            seq: u64::from(n) << 33,
            payload: payload(n),
        };
        let block = |n: u32| match n % 4 {
            0 => BlockPlace::Object,
            _ => BlockPlace::Part { key_index: u64::from(n % 3), seq: u64::from(n) << 33, payload: payload(n) },
        };
        let id = |n: u32| u128::from(n).to_le_bytes();
        for n in 0..1000 {
            places.put_vlob(VlobId::from_bytes(id(n % 500)), &vlob(n));
            places.put_block(BlockId::from_bytes(id(n % 500)), &block(n));
        }
        assert_eq!(places.len(), 1000);
        for n in 0..500 {
            assert_eq!(places.vlob(&VlobId::from_bytes(id(n))), Some(vlob(n + 500)));
            assert_eq!(places.block(&BlockId::from_bytes(id(n))), Some(block(n)));
        }
        assert_eq!(places.vlobs().count() + places.blocks().count(), 1000);
        assert!(!places.has_block(&BlockId::from_bytes(id(500))));
    }

    /// What a million files cost in memory; a reader of this test knows what it is to grow.
    #[test]
    fn a_file_takes_92_bytes_and_two_index_entries() {
        let of_vlob = size_of::<(VlobId, PackedVlob)>();
        let of_block = size_of::<(BlockId, PackedBlock)>();
        assert_eq!(of_vlob + of_block, 92);
    }
}
