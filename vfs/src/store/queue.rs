//! Rows between a change and the index: what a reader sees of them, and how they get there.
//!
//! A logged row is in the overlay, then in `applying` while it is written to SQLite, then only in the index. Lookups ask
//! in that order, so that they never miss a row on its way. A group that cannot be applied goes back and waits again; a
//! row that was logged since wins.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::RangeInclusive,
    sync::Arc,
};

use parsecfs_core::id::VlobId;

use super::{
    Store,
    index::{Index, RowBytes, RowKey, RowValue},
    journal::JournalFrame,
    tape::Tape,
};
use crate::{
    error::{Error, ErrorKind, Result},
    quietly::quietly,
};

/// Rows that wait to be applied before the background thread is woken early.
const APPLY_ROWS: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Rows not applied yet, newest value each.
    pub(super) overlay: BTreeMap<RowKey, RowValue>,
    /// Rows being applied right now.
    pub(super) applying: Arc<BTreeMap<RowKey, RowValue>>,
    /// Rows of `overlay` that are not journaled yet.
    pub(super) unjournaled: BTreeSet<RowKey>,
    /// Entry ids in the inode rows of `overlay` and of `applying`.
    pub(super) ids: HashMap<VlobId, u64>,
    pub(super) applying_ids: HashMap<VlobId, u64>,
    /// Where rows survive this process, if it has a keeper.
    pub(super) tape: Option<Tape>,
}

impl Queue {
    /// How far the tape reaches.
    pub(super) fn tape_end(&self) -> u64 {
        self.tape.as_ref().map_or(0, Tape::end)
    }

    /// What was on the tape before this point is journaled.
    pub(super) fn cut_tape(&mut self, journaled: u64) {
        if let Some(tape) = &mut self.tape {
            tape.cut(journaled);
        }
    }

    /// Whether a queued row says that this inode is that entry; `None` when no row is queued.
    fn is_entry(&self, ino: u64, id: VlobId) -> Option<bool> {
        let key = RowKey::Inode(ino);
        let row = self.overlay.get(&key).or_else(|| self.applying.get(&key))?;
        Some(row.as_ref().is_some_and(|row| row.id == Some(id)))
    }
}

impl Store {
    /// Records changes of rows that belong together; they reach the disk all or not at all.
    pub(crate) fn log(&self, rows: impl IntoIterator<Item = (RowKey, RowValue)>) {
        let waiting = {
            let mut queue = self.queue.lock();
            let rows: Vec<_> = rows.into_iter().collect();
            if let Some(tape) = queue.tape.as_mut().filter(|_| !rows.is_empty()) {
                tape.put(JournalFrame::whole(self.counters(), rows.iter().map(|(key, value)| (key, value))));
            }
            for (key, value) in rows {
                if let (RowKey::Inode(ino), Some(RowBytes { id: Some(id), .. })) = (key, &value) {
                    queue.ids.insert(*id, ino);
                }
                queue.overlay.insert(key, value);
                queue.unjournaled.insert(key);
            }
            queue.overlay.len()
        };
        if waiting == APPLY_ROWS {
            self.wake();
        }
    }

    /// A row as it is now.
    pub(crate) fn row(&self, key: RowKey) -> Result<Option<Vec<u8>>> {
        {
            let queue = self.queue.lock();
            if let Some(value) = queue.overlay.get(&key).or_else(|| queue.applying.get(&key)) {
                return Ok(value.as_ref().map(|row| row.bytes.to_vec()));
            }
        }
        self.reader.lock().get(key)
    }

    /// The names in a folder by cookie, each opened or the reason why not.
    pub(crate) fn dentries(&self, parent: u64) -> Result<BTreeMap<u64, Result<Vec<u8>>>> {
        let range = RowKey::Dentry(parent, 0)..=RowKey::Dentry(parent, u64::MAX);
        self.range(
            range,
            |index| index.dentries(parent),
            |key| match key {
                RowKey::Dentry(_, cookie) => cookie,
                _ => u64::MAX,
            },
        )
    }

    /// The slots of a file with these numbers, each opened or the reason why not.
    pub(crate) fn slots(&self, ino: u64, numbers: RangeInclusive<u64>) -> Result<BTreeMap<u64, Result<Vec<u8>>>> {
        let range = RowKey::Slot(ino, *numbers.start())..=RowKey::Slot(ino, *numbers.end());
        self.range(
            range,
            |index| index.slots(ino, &numbers),
            |key| match key {
                RowKey::Slot(_, slot) => slot,
                _ => u64::MAX,
            },
        )
    }

    /// Rows that are not applied win over those in the index; they are looked at first, since they move there.
    fn range(
        &self,
        keys: RangeInclusive<RowKey>,
        read: impl FnOnce(&Index) -> Result<Vec<(u64, Result<Vec<u8>>)>>,
        number: impl Fn(RowKey) -> u64,
    ) -> Result<BTreeMap<u64, Result<Vec<u8>>>> {
        let newer: BTreeMap<u64, RowValue> = {
            let queue = self.queue.lock();
            let applying = queue.applying.range(keys.clone());
            let overlay = queue.overlay.range(keys);
            applying.chain(overlay).map(|(key, value)| (number(*key), value.clone())).collect()
        };
        let mut found: BTreeMap<_, _> = read(&self.reader.lock())?.into_iter().collect();
        for (number, value) in newer {
            match value {
                Some(row) => found.insert(number, Ok(row.bytes.to_vec())),
                None => found.remove(&number),
            };
        }
        Ok(found)
    }

    /// The inode of an entry.
    pub(crate) fn ino_of(&self, id: VlobId) -> Result<Option<u64>> {
        {
            let queue = self.queue.lock();
            let queued = queue.ids.get(&id).or_else(|| queue.applying_ids.get(&id));
            if let Some(ino) = queued.filter(|ino| queue.is_entry(**ino, id) == Some(true)) {
                return Ok(Some(*ino));
            }
        }
        let indexed = self.reader.lock().ino_of(id)?;
        let queue = self.queue.lock();
        Ok(indexed.filter(|ino| queue.is_entry(*ino, id) != Some(false)))
    }

    /// The inode that a row of links names.
    pub(crate) fn link(&self, key: RowKey) -> Result<Option<u64>> {
        let Some(row) = self.row(key)? else { return Ok(None) };
        let damaged = |e| Error::new(ErrorKind::Corrupt, "a link in the local store").caused_by(e);
        <[u8; 8]>::try_from(row.as_slice()).map(|ino| Some(u64::from_le_bytes(ino))).map_err(damaged)
    }

    /// Inodes that waited for upload when the store was opened.
    pub(crate) fn pending(&self) -> Result<Vec<u64>> {
        self.reader.lock().pending()
    }

    /// Inodes in no folder when the store was opened.
    pub(crate) fn orphans(&self) -> Result<Vec<u64>> {
        self.reader.lock().orphans()
    }

    /// The next inode numbers in the index, in order.
    pub(crate) fn inodes_after(&self, ino: u64, limit: usize) -> Result<Vec<u64>> {
        self.reader.lock().inodes_after(ino, limit)
    }

    /// Every inode number in the index.
    pub(crate) fn inodes(&self) -> Result<Vec<u64>> {
        self.reader.lock().inodes()
    }

    /// Brings the index up to date. Called by the background thread and at the end.
    pub fn apply(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        let on_tape;
        let (rows, position, counters) = {
            let _journal = self.journal.lock();
            // In one step: a row logged between journaling and taking would be applied without being in the journal.
            let (rows, unjournaled) = {
                let mut queue = self.queue.lock();
                if queue.overlay.is_empty() {
                    if let Some(tape) = &mut queue.tape {
                        tape.restart();
                    }
                    return Ok(());
                }
                on_tape = queue.tape_end();
                queue.applying = Arc::new(std::mem::take(&mut queue.overlay));
                queue.applying_ids = std::mem::take(&mut queue.ids);
                (queue.applying.clone(), std::mem::take(&mut queue.unjournaled))
            };
            let journal: Vec<_> =
                unjournaled.iter().filter_map(|key| rows.get(key).map(|value| (*key, value.clone()))).collect();
            if let Err(error) = self.append_rows(&journal) {
                self.end_apply(false, unjournaled);
                return Err(error);
            }
            (rows, self.segments.position(), self.counters())
        };
        let index = &mut *writer;
        let mut into_index = || index.apply(rows.iter(), position, counters);
        self.queue.lock().cut_tape(on_tape);
        let outcome = self.segments.sync().and_then(|()| match rows.len() {
            // Not at the cost of who makes the changes, unless they come faster than that.
            ..=APPLY_ROWS => quietly(into_index),
            _ => into_index(),
        });
        self.end_apply(outcome.is_ok(), BTreeSet::new());
        outcome
    }

    /// The rows that were taken to be applied are in the index, or have to wait again.
    fn end_apply(&self, done: bool, unjournaled: BTreeSet<RowKey>) {
        let mut queue = self.queue.lock();
        let rows = std::mem::take(&mut queue.applying);
        let ids = std::mem::take(&mut queue.applying_ids);
        if done {
            return;
        }
        queue.unjournaled.extend(unjournaled);
        for (id, ino) in ids {
            queue.ids.entry(id).or_insert(ino);
        }
        for (key, value) in rows.iter() {
            queue.overlay.entry(*key).or_insert_with(|| value.clone());
        }
    }
}
