//! The journal: rows as frames in the segments, before they are in the index.
//!
//! Rows that were logged together may take several frames; replay takes them only when the last one is there, and takes
//! the newest value of each row. Rows arrive in the order in which they were logged: see the lock `journal`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parsecfs_core::id::VlobId;
use serde::{Deserialize, Serialize};

use super::{
    Store,
    index::{Counters, RowBytes, RowKey, RowValue},
};
use crate::error::{Error, ErrorKind, Result};

/// Journal frames of rows are cut at this size.
const JOURNAL_FRAME_BYTES: usize = 4 << 20;

#[derive(Serialize, Deserialize)]
pub(super) struct JournalFrame {
    /// More frames follow that belong to the same group of changes.
    pub(super) more: bool,
    pub(super) counters: [u64; 3],
    pub(super) rows: Vec<JournalRow>,
}

impl JournalFrame {
    /// The frame of a whole group.
    pub(super) fn whole<'a>(counters: Counters, rows: impl Iterator<Item = (&'a RowKey, &'a RowValue)>) -> Self {
        Self {
            more: false,
            counters: [counters.ino, counters.cookie, counters.change],
            rows: rows.map(|(key, value)| journal_row(key, value)).collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct JournalRow {
    table: u8,
    a: u64,
    b: u64,
    value: Option<(Option<[u8; 16]>, bool, Vec<u8>)>,
}

impl Store {
    /// Makes everything logged and appended so far durable.
    pub fn sync(&self) -> Result<()> {
        self.journal_rows()?;
        self.segments.sync()
    }

    fn journal_rows(&self) -> Result<()> {
        let _journal = self.journal.lock();
        self.journal_rows_locked()
    }

    fn journal_rows_locked(&self) -> Result<()> {
        let on_tape;
        let rows: Vec<(RowKey, RowValue)> = {
            let mut queue = self.queue.lock();
            on_tape = queue.tape_end();
            let keys = std::mem::take(&mut queue.unjournaled);
            keys.into_iter().filter_map(|key| queue.overlay.get(&key).map(|value| (key, value.clone()))).collect()
        };
        if rows.is_empty() {
            return Ok(());
        }
        let outcome = self.append_rows(&rows);
        let mut queue = self.queue.lock();
        match &outcome {
            Ok(()) => queue.cut_tape(on_tape),
            Err(_) => queue.unjournaled.extend(rows.iter().map(|(key, _)| *key)),
        }
        outcome
    }

    pub(super) fn append_rows(&self, rows: &[(RowKey, RowValue)]) -> Result<()> {
        let counters = self.counters();
        let mut rest = rows;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(_, value)| {
                bytes += 48 + value.as_ref().map_or(0, |row| row.bytes.len());
                bytes <= JOURNAL_FRAME_BYTES
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            let frame = JournalFrame {
                more: !later.is_empty(),
                counters: [counters.ino, counters.cookie, counters.change],
                rows: now.iter().map(|(key, value)| journal_row(key, value)).collect(),
            };
            let encoded = postcard::to_stdvec(&frame)
                .map_err(|e| Error::new(ErrorKind::Internal, "encode a journal frame").caused_by(e))?;
            self.segments.append_rows(&encoded)?;
            rest = later;
        }
        Ok(())
    }

    pub(super) fn counters(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let lost = self.recovery.lost;
        Counters { ino: load(&self.ino), cookie: load(&self.cookie), change: load(&self.change), lost }
    }
}

impl JournalRow {
    /// Which row; `None` for a table that is not known.
    pub(super) fn key(&self) -> Option<RowKey> {
        RowKey::from_parts(self.table, self.a, self.b)
    }
}

fn journal_row(key: &RowKey, value: &RowValue) -> JournalRow {
    let (table, a, b) = key.parts();
    let value = value.as_ref().map(|row| (row.id.map(|id| *id.as_bytes()), row.pending, row.bytes.to_vec()));
    JournalRow { table, a, b, value }
}

/// Collects the rows of one frame; they count once their group is complete.
pub(super) fn replay_frame(
    bytes: &[u8],
    group: &mut Vec<JournalRow>,
    rows: &mut BTreeMap<RowKey, RowValue>,
    counters: &mut Counters,
) -> Result<()> {
    let damaged = |e| Error::new(ErrorKind::Corrupt, "a journal frame cannot be read").caused_by(e);
    let frame: JournalFrame = postcard::from_bytes(bytes).map_err(damaged)?;
    take_frame(frame, group, rows, counters)
}

/// See [`replay_frame`].
pub(super) fn take_frame(
    frame: JournalFrame,
    group: &mut Vec<JournalRow>,
    rows: &mut BTreeMap<RowKey, RowValue>,
    counters: &mut Counters,
) -> Result<()> {
    group.extend(frame.rows);
    if frame.more {
        return Ok(());
    }
    let [ino, cookie, change] = frame.counters;
    counters.ino = counters.ino.max(ino);
    counters.cookie = counters.cookie.max(cookie);
    counters.change = counters.change.max(change);
    for row in group.drain(..) {
        let unknown = || Error::new(ErrorKind::Corrupt, "a journal row of an unknown table");
        let key = row.key().ok_or_else(unknown)?;
        let value = row.value.map(|(id, pending, bytes)| RowBytes {
            id: id.map(VlobId::from_bytes),
            pending,
            bytes: Arc::from(bytes),
        });
        rows.insert(key, value);
    }
    Ok(())
}
