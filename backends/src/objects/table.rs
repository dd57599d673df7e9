//! Where millions of vlobs and blocks are: a map that keeps its entries in one array, without the gaps that a hash map has
//! in its own. What is found by hash is four bytes.

use std::hash::{BuildHasher as _, Hash, RandomState};

use hashbrown::{HashTable, hash_table::Entry};

/// Entries in one allocation: growing never copies what is there.
const CHUNK: usize = 4096;

/// A map for many entries that come and never go.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    chunks: Vec<Vec<(K, V)>>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), index: HashTable::new(), hasher: RandomState::new() }
    }
}

fn entry<K, V>(chunks: &[Vec<(K, V)>], at: u32) -> &(K, V) {
    let at = at as usize;
    &chunks[at / CHUNK][at % CHUNK]
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let at = self.index.find(self.hasher.hash_one(key), |at| entry(&self.chunks, *at).0 == *key)?;
        Some(&entry(&self.chunks, *at).1)
    }

    /// Puts an entry in, instead of the one with this key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.put(key, value, true);
    }

    /// Puts an entry in if there is none with this key.
    pub(super) fn insert_new(&mut self, key: K, value: V) {
        self.put(key, value, false);
    }

    fn put(&mut self, key: K, value: V, replaces: bool) {
        let Self { chunks, index, hasher } = self;
        let len = u32::try_from(index.len()).expect("fewer than four thousand million entries fit memory");
        let found = index.entry(
            hasher.hash_one(key),
            |at| entry(chunks, *at).0 == key,
            |at| hasher.hash_one(entry(chunks, *at).0),
        );
        match found {
            Entry::Occupied(at) if replaces => {
                let at = *at.get() as usize;
                chunks[at / CHUNK][at % CHUNK].1 = value;
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(len);
                match chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
                    Some(chunk) => chunk.push((key, value)),
                    None => {
                        let mut chunk = Vec::with_capacity(if chunks.is_empty() { 4 } else { CHUNK });
                        chunk.push((key, value));
                        chunks.push(chunk);
                    }
                }
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flatten().map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_is_a_map() {
        let (mut table, mut map) = (Table::default(), BTreeMap::new());
        let mut random = 1_u64;
        for value in 0..30_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (random >> 40) % 20_000;
            if random >> 63 == 0 {
                table.insert(key, value);
                map.insert(key, value);
            } else {
                table.insert_new(key, value);
                map.entry(key).or_insert(value);
            }
        }
        assert_eq!(table.len(), map.len());
        assert_eq!(table.iter().map(|(key, value)| (*key, *value)).collect::<BTreeMap<_, _>>(), map);
        assert!((0..20_000).all(|key| table.get(&key) == map.get(&key)));
    }
}
