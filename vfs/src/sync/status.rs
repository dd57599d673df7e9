//! What sync is doing and what it waits for, for `status`.

use std::collections::BTreeMap;

use parsecfs_core::id::VlobId;

use crate::{error::ErrorKind, tree::ChangeNumber};

/// What sync is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncStatus {
    /// Whether the storage answered last time.
    pub online: bool,
    /// Entries that wait for upload.
    pub upload_entries: u64,
    /// Bytes that wait for upload, about.
    pub upload_bytes: u64,
    /// Entries whose newer version is known but not here yet.
    pub download_entries: u64,
    /// Single entries that cannot be synced.
    pub problems: Vec<Problem>,
    /// Why everything waits, when it does.
    pub waiting: Option<Waiting>,
    /// End of the last complete round, in nanoseconds since the epoch.
    pub last_success_ns: Option<i64>,
}

/// Why everything waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The same in one line, without names or content.
    pub reason: String,
    /// When it is tried again, in nanoseconds since the epoch.
    pub next_try_ns: i64,
}

/// An entry that cannot be synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub id: VlobId,
    /// What is wrong.
    pub kind: ErrorKind,
    /// The same in one line, without names or content.
    pub reason: String,
    /// Whether our version cannot go up, or theirs cannot come down.
    pub upload: bool,
    /// When it is tried again, in nanoseconds since the epoch; `None`: when the entry changes.
    pub next_try_ns: Option<i64>,
}

/// Problems by entry and direction.
#[derive(Debug, Default)]
pub(super) struct Problems {
    uploads: BTreeMap<VlobId, (ChangeNumber, Problem)>,
    /// With the version that the storage named, as far as it is known.
    downloads: BTreeMap<VlobId, (Option<u32>, Problem)>,
}

impl Problems {
    pub(super) fn add_upload(&mut self, change: ChangeNumber, problem: Problem) {
        self.uploads.insert(problem.id, (change, problem));
    }

    pub(super) fn add_download(&mut self, named: Option<u32>, problem: Problem) {
        self.downloads.insert(problem.id, (named, problem));
    }

    /// Whether some version cannot be read.
    pub(super) fn any_download(&self) -> bool {
        !self.downloads.is_empty()
    }

    /// The versions that the storage named and that could not be read.
    pub(super) fn named_downloads(&self) -> BTreeMap<VlobId, u32> {
        self.downloads.iter().filter_map(|(id, (named, _))| Some((*id, (*named)?))).collect()
    }

    /// Whoever asks for a sync does not wait for the next try.
    pub(super) fn retry_downloads(&mut self) {
        for (_, problem) in self.downloads.values_mut() {
            problem.next_try_ns = Some(i64::MIN);
        }
    }

    /// The other direction is not touched: a version that came down says nothing about one that cannot go up.
    pub(super) fn downloaded(&mut self, id: VlobId) {
        self.downloads.remove(&id);
    }

    pub(super) fn uploaded(&mut self, id: VlobId) {
        self.uploads.remove(&id);
    }

    /// Whether this state of the entry is known not to go up.
    pub(super) fn blocks_upload(&self, id: VlobId, change: ChangeNumber) -> bool {
        self.uploads.get(&id).is_some_and(|(refused, _)| *refused == change)
    }

    /// Entries to be read again by now.
    pub(super) fn due_downloads(&self, now_ns: i64) -> Vec<VlobId> {
        let due = |problem: &Problem| problem.next_try_ns.is_some_and(|at| at <= now_ns);
        self.downloads.values().filter(|(_, problem)| due(problem)).map(|(_, problem)| problem.id).collect()
    }

    pub(super) fn list(&self) -> Vec<Problem> {
        self.uploads
            .values()
            .map(|(_, problem)| problem)
            .chain(self.downloads.values().map(|(_, problem)| problem))
            .cloned()
            .collect()
    }
}
