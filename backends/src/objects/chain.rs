//! Reads a log forward and checks that it is one chain.

use futures::future::try_join_all;
use parsecfs_core::storage::{Error, ErrorKind, LogId, Result};

use super::{
    entry::{Head, RawEntry},
    key,
    verbs::{StoreTime, Verbs},
};

/// First window of parallel reads; it doubles while every read finds an entry.
const WINDOW_MIN: u64 = 1;
/// Widest window.
pub(super) const WINDOW_MAX: u64 = 64;

/// Where reading goes on.
pub(super) struct Forward {
    log: LogId,
    head: Head,
    window: u64,
}

/// What one window of reads found.
pub(super) struct Window {
    /// Entries that follow the head, in order.
    pub(super) entries: Vec<RawEntry>,
    /// When the store said that there is nothing behind them; `None` while there is more.
    pub(super) end: Option<StoreTime>,
}

impl Forward {
    pub(super) fn from(log: LogId, head: Head) -> Self {
        Self { log, head, window: WINDOW_MIN }
    }

    /// Reads the next entries. `Rollback` when the chain is broken, `Corrupt` when an entry is damaged.
    pub(super) async fn read(&mut self, verbs: &dyn Verbs) -> Result<Window> {
        let keys: Vec<_> = (0..self.window).map(|ahead| key::entry(self.log, self.head.seq + ahead)).collect();
        let answers = try_join_all(keys.iter().map(|key| verbs.get(key))).await?;
        let mut window = Window { entries: Vec::new(), end: None };
        for answer in answers {
            let Some(object) = answer.bytes else {
                window.end = Some(answer.at);
                break;
            };
            let entry = RawEntry::parse(self.log, self.head.seq, object)?;
            if entry.header.prev != self.head.hash {
                return Err(broken("an entry does not continue the log that this device knows"));
            }
            self.head = entry.head_after();
            window.entries.push(entry);
        }
        self.window = (self.window * 4).min(WINDOW_MAX);
        Ok(window)
    }
}

/// The store's history is not the one that was seen before.
pub(super) fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Rollback, what)
}
