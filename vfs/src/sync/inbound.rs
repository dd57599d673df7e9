//! Theirs comes in: reads what changed on the storage since the checkpoint, merges it and moves the checkpoint.
//!
//! Reads the newest version of each entry once, in bounded pieces. What nobody lists is not kept; what a folder lists
//! and the tree does not know is read with that folder. The checkpoint moves with the last piece, so an interrupted
//! round repeats what it did, which changes nothing. While there is a version that cannot be read it does not move on
//! disk, only in memory: the next process hears of that version again, whatever the storage said to this one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use parsecfs_core::{
    id::VlobId,
    manifest::Manifest,
    storage::{self, VlobRecord},
};

use super::{
    Engine, Problem,
    remote::{blocking, open_all},
    round::{Round, RoundContext, merge_round},
};
use crate::error::{Error, ErrorKind, Result};

/// Entries merged and applied as one. A change of this many entries by another device is seen here as one.
const PIECE_ENTRIES_MAX: usize = 4096;

/// Manifests asked for at once.
const READ_ENTRIES_MAX: usize = 256;

/// How often a piece is merged anew because the tree moved on meanwhile. Someone who writes without a pause makes
/// this happen; the next round tries again.
const STALE_TRIES_MAX: usize = 20;

/// A version that cannot be read is read again after this long: the storage may have been repaired.
const PROBLEM_RETRY_NS: i64 = 600 * 1_000_000_000;

/// What an inbound round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboundReport {
    /// Entries that have a newer version here now.
    pub applied: usize,
    /// Copies made of files that changed on both sides.
    pub conflicts: usize,
    /// Entries that could not be read.
    pub problems: usize,
}

/// Entries still to read.
struct Queue {
    /// Known here, or listed by a folder that is.
    known: VecDeque<VlobId>,
    /// Never heard of: kept only if a folder lists them.
    strange: VecDeque<VlobId>,
    seen: BTreeSet<VlobId>,
    /// The version that the storage named: one before it is not what it has.
    named: BTreeMap<VlobId, u32>,
}

impl Queue {
    fn add_known(&mut self, id: VlobId) {
        if self.seen.insert(id) {
            self.known.push_back(id);
        }
    }

    fn take(&mut self, limit: usize) -> Vec<VlobId> {
        let mut taken: Vec<_> = self.known.drain(..limit.min(self.known.len())).collect();
        while taken.len() < limit {
            let Some(id) = self.strange.pop_front() else { break };
            if self.seen.insert(id) {
                taken.push(id);
            }
        }
        taken
    }

    fn len(&self) -> usize {
        self.known.len() + self.strange.len()
    }
}

impl Engine {
    /// One inbound round.
    pub(super) async fn inbound_once(&self) -> Result<InboundReport> {
        let tree = self.tree.clone();
        let stored = blocking(&self.handle, move || tree.checkpoint()).await?;
        let checkpoint = stored.max(self.state.lock().polled);
        let changes = match self.organization.storage().changes(self.realm, checkpoint).await {
            // What this process heard beyond that may have been a lie.
            Err(error) if error.kind() == storage::ErrorKind::Rollback && checkpoint > stored => {
                self.state.lock().polled = stored;
                self.organization.storage().changes(self.realm, stored).await?
            }
            changes => changes?,
        };
        let mut queue = self.outdated(checkpoint == 0, changes.items).await?;
        let again = {
            let state = self.state.lock();
            let due = state.problems.due_downloads(self.clock.now_ns());
            due.into_iter().chain(state.conflicting.iter().copied()).collect::<Vec<_>>()
        };
        for id in &again {
            queue.add_known(*id);
        }
        let mut report = InboundReport::default();
        if queue.len() > 0 {
            self.organization.realm_keys(self.realm).await?;
        }
        let mut moved = false;
        while queue.len() > 0 {
            self.state.lock().downloads = queue.len() as u64;
            let manifests = self.read_piece(&mut queue, &mut report).await?;
            report.applied += manifests.len();
            let last = queue.len() == 0 && !self.state.lock().problems.any_download();
            report.conflicts += self.merge_piece(manifests, last.then_some(changes.checkpoint)).await?;
            moved |= last;
        }
        let readable = {
            let mut state = self.state.lock();
            state.downloads = 0;
            state.conflicting.retain(|id| !again.contains(id));
            state.polled = changes.checkpoint;
            !state.problems.any_download()
        };
        if changes.checkpoint != stored && !moved && readable {
            let tree = self.tree.clone();
            blocking(&self.handle, move || tree.apply(Vec::new(), Some(changes.checkpoint))).await?;
        }
        Ok(report)
    }

    /// What the tree does not have. On the first round it starts at the root and finds the rest by what folders list,
    /// so that what was removed long ago is never read.
    async fn outdated(&self, first: bool, items: Vec<(VlobId, u32)>) -> Result<Queue> {
        let tree = self.tree.clone();
        let ids: Vec<_> = items.iter().map(|(id, _)| *id).collect();
        let versions = blocking(&self.handle, move || tree.base_versions(&ids)).await?;
        let versions: BTreeMap<_, _> = versions.into_iter().collect();
        let mut queue = Queue {
            known: VecDeque::new(),
            strange: VecDeque::new(),
            seen: BTreeSet::new(),
            named: self.state.lock().problems.named_downloads(),
        };
        queue.named.extend(items.iter().copied());
        for (id, version) in items {
            match versions.get(&id) {
                Some(known) if *known < version => queue.add_known(id),
                Some(_) => {}
                None if id == self.realm.root() => queue.add_known(id),
                None if first => {}
                None => queue.strange.push_back(id),
            }
        }
        Ok(queue)
    }

    /// Reads entries until the piece is full, following what their folders list.
    async fn read_piece(&self, queue: &mut Queue, report: &mut InboundReport) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        while manifests.len() < PIECE_ENTRIES_MAX {
            let ids = queue.take(READ_ENTRIES_MAX.min(PIECE_ENTRIES_MAX - manifests.len()));
            if ids.is_empty() {
                break;
            }
            let records = self.organization.storage().read(self.realm, &ids).await?;
            self.refuse_missing(queue, &ids, &records, report);
            let opened = open_all(&self.organization, self.realm, &self.handle, records).await?;
            let mut read = Vec::new();
            for (id, result) in opened {
                let named = queue.named.get(&id).copied();
                let stale = |manifest: &Manifest| named.is_some_and(|named| manifest.version() < named);
                let error = match result {
                    Ok(manifest) if stale(&manifest) => {
                        Error::new(ErrorKind::Untrusted, "the storage gives an older version than it named")
                    }
                    Ok(manifest) => {
                        read.push(manifest);
                        continue;
                    }
                    Err(error) => error,
                };
                report.problems += 1;
                self.refuse_download(id, named, &error);
            }
            self.queue_unknown_children(queue, &read).await?;
            manifests.extend(read);
        }
        Ok(manifests)
    }

    /// A version that the storage named is there. One that only a folder lists may come later: others may upload the
    /// folder first.
    fn refuse_missing(&self, queue: &Queue, asked: &[VlobId], given: &[VlobRecord], report: &mut InboundReport) {
        let given: BTreeSet<_> = given.iter().map(|record| record.id).collect();
        for id in asked.iter().filter(|id| !given.contains(id)) {
            if let Some(named) = queue.named.get(id) {
                report.problems += 1;
                let error = Error::new(ErrorKind::Untrusted, "the storage does not give a version that it named");
                self.refuse_download(*id, Some(*named), &error);
            }
        }
    }

    async fn queue_unknown_children(&self, queue: &mut Queue, read: &[Manifest]) -> Result<()> {
        let folders = read.iter().filter_map(|manifest| match manifest {
            Manifest::Folder(folder) => Some(folder),
            Manifest::File(_) => None,
        });
        let listed = folders.flat_map(|folder| folder.children.values().copied());
        let listed: Vec<_> = listed.filter(|id| !queue.seen.contains(id)).collect();
        if listed.is_empty() {
            return Ok(());
        }
        let (tree, ids) = (self.tree.clone(), listed.clone());
        let known = blocking(&self.handle, move || tree.base_versions(&ids)).await?;
        let known: BTreeSet<_> = known.into_iter().map(|(id, _)| id).collect();
        for id in listed.into_iter().filter(|id| !known.contains(id)) {
            queue.add_known(id);
        }
        Ok(())
    }

    /// Merges and applies, again while the tree moves under it.
    async fn merge_piece(&self, manifests: Vec<Manifest>, checkpoint: Option<u64>) -> Result<usize> {
        let manifests = std::sync::Arc::new(manifests);
        for _ in 0..STALE_TRIES_MAX {
            let (tree, random, manifests) = (self.tree.clone(), self.random.clone(), manifests.clone());
            let (device, root) = (self.organization.device_id(), self.realm.root());
            let merge_and_apply = move || {
                let context = RoundContext { tree: &*tree, device, root, random: &*random };
                let Round { updates, conflicts, contradictory } = merge_round(&context, &manifests)?;
                tree.apply(updates, checkpoint)?;
                let good = manifests.iter().map(Manifest::id).filter(|id| !contradictory.contains(id)).collect();
                Ok((conflicts, contradictory, good))
            };
            let merged: Result<(usize, Vec<VlobId>, Vec<VlobId>)> = blocking(&self.handle, merge_and_apply).await;
            match merged {
                Err(error) if error.kind() == ErrorKind::Stale => tokio::task::yield_now().await,
                Err(error) => return Err(error),
                Ok((conflicts, contradictory, good)) => {
                    for id in contradictory {
                        self.refuse_download(
                            id,
                            None,
                            &Error::new(ErrorKind::Corrupt, "was a folder or a file before"),
                        );
                    }
                    let mut state = self.state.lock();
                    for id in good {
                        state.problems.downloaded(id);
                    }
                    return Ok(conflicts);
                }
            }
        }
        Err(Error::new(ErrorKind::Busy, "entries change faster than they can be merged"))
    }

    fn refuse_download(&self, id: VlobId, named: Option<u32>, error: &Error) {
        tracing::warn!(entry = %id, %error, "a version cannot be read");
        let problem = Problem {
            id,
            kind: error.kind(),
            reason: error.to_string(),
            upload: false,
            next_try_ns: Some(self.clock.now_ns().saturating_add(PROBLEM_RETRY_NS)),
        };
        self.state.lock().problems.add_download(named, problem);
    }
}
