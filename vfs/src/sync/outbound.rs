//! Ours goes out: seals what waits for upload, puts its blocks and commits its manifests.
//!
//! Small files first, then folders, children before parents, then large files. A folder waits for the small files and
//! folders that it lists and nobody has seen yet; so a file that replaced another by rename is there when its name
//! is. Sealing runs one piece at a time on the blocking pool, so that at most one thread is taken from whoever uses
//! the machine; a bounded number of pieces is on its way to the storage.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use parsecfs_core::{
    id::{BlockId, VlobId},
    manifest::{BlockAccess, FileManifest, FolderManifest, Manifest},
    storage::{Block, VlobWrite, WriteOutcome},
    time::Timestamp,
};

use super::{
    Engine, Problem,
    abandoned::Abandoned,
    plan::{Readiness, SlotPlan, children_first, larger_blocks, plan, plan_slots},
    remote::blocking,
};
use crate::{
    blocksize::Limits,
    error::{Error, ErrorKind, Result},
    quietly::quietly,
    tree::{ChangeNumber, LocalContent, LocalEntry, LocalTree, PendingEntry, TreeUpdate},
};

/// Clear bytes hashed and sealed in one go, and put together.
const PIECE_BYTES_MAX: u64 = 4 << 20;

/// Blocks in one piece: small files would make many.
const PIECE_BLOCKS_MAX: usize = 256;

/// Pieces on their way to the storage. With [`PIECE_BYTES_MAX`] this bounds memory.
const PIECES_IN_FLIGHT_MAX: usize = 3;

/// Manifest bytes in one commit, about.
const COMMIT_BYTES_MAX: u64 = 4 << 20;

/// Writes in one commit, where the storage would take more.
const COMMIT_WRITES_MAX: usize = 1000;

/// How often one commit is sealed anew because a key or a time was too old.
const COMMIT_TRIES_MAX: usize = 5;

/// What an outbound round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboundReport {
    /// Entries stored.
    pub stored: usize,
    /// Somebody was faster: an inbound round has to come before the next.
    pub conflict: bool,
    /// Something has to be done again at once.
    pub again: bool,
    /// Nanoseconds until something that still changes will be ready.
    pub next_ns: Option<i64>,
}

/// A file on its way up.
struct FileJob {
    entry: LocalEntry,
    slots: VecDeque<SlotPlan>,
    blocks: Vec<BlockAccess>,
    zeros: Option<BlockAccess>,
    /// Blocks of what it was copied from, by digest and length.
    alike: HashMap<([u8; 32], u64), BlockId>,
}

/// Sealed blocks and the files that are complete with them.
#[derive(Default)]
struct Piece {
    bytes: u64,
    blocks: Vec<(BlockId, Block)>,
    complete: Vec<FileJob>,
    /// Files that were written to meanwhile.
    moved_on: Vec<VlobId>,
    refused: Vec<(VlobId, ChangeNumber, Error)>,
}

/// Pieces on their way, in order; they move while something else is waited for.
#[derive(Default)]
struct Sending<'a> {
    in_flight: FuturesOrdered<BoxFuture<'a, Result<Vec<FileJob>>>>,
    /// Files whose blocks are all there.
    arrived: VecDeque<Vec<FileJob>>,
}

impl Sending<'_> {
    /// Waits for the next piece. `false` when none is on its way.
    async fn wait(&mut self) -> Result<bool> {
        match self.in_flight.next().await {
            Some(complete) => self.arrived.push_back(complete?),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Does something while pieces move. It is done even if one of them fails: a commit in the middle is waited for.
    async fn beside<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        let mut failed = None;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return failed.map_or(done, Err),
                sent = self.wait(), if failed.is_none() && !self.in_flight.is_empty() => failed = sent.err(),
            }
        }
    }
}

/// A manifest that waits for the next commit.
struct Staged {
    seen: ChangeNumber,
    manifest: Manifest,
    new_blocks: Vec<BlockId>,
}

/// One outbound round.
struct Outbound<'a> {
    engine: &'a Engine,
    report: OutboundReport,
    staged: Vec<Staged>,
    staged_bytes: u64,
    /// Pending entries whose upload is still to come in this round, or not ready.
    unsent: BTreeSet<VlobId>,
    /// Of these, the large ones.
    large: BTreeSet<VlobId>,
    /// Names of inodes that go up with another name of this round.
    taken_along: BTreeSet<VlobId>,
}

impl Engine {
    /// One outbound round.
    pub(super) async fn outbound_once(&self, readiness: Readiness) -> Result<OutboundReport> {
        // Also when nobody waits for the end any more.
        let trusted = self.abandoned.forgotten_unless_sent();
        let sent = match self.send(readiness).await {
            // The key changed under it.
            Err(error) if error.kind() == ErrorKind::Stale => {
                self.abandoned.clear();
                self.organization.refresh().await?;
                self.send(readiness).await
            }
            sent => sent,
        }?;
        trusted.sent();
        Ok(sent)
    }

    async fn send(&self, readiness: Readiness) -> Result<OutboundReport> {
        let tree = self.tree.clone();
        let mut pending = blocking(&self.handle, move || tree.pending(usize::MAX)).await?;
        let now_ns = self.clock.now_ns();
        let (unsent, planned) = {
            let mut state = self.state.lock();
            pending.retain(|entry| !state.problems.blocks_upload(entry.id, entry.change));
            let unsent: BTreeSet<_> = pending.iter().map(|entry| entry.id).collect();
            state.waiting_since.retain(|id, _| unsent.contains(id));
            for id in &unsent {
                state.waiting_since.entry(*id).or_insert(now_ns);
            }
            let planned = plan(pending, readiness, &state.waiting_since);
            (unsent, planned)
        };
        if unsent.is_empty() {
            return Ok(OutboundReport::default());
        }
        if !self.organization.writable(self.realm) {
            return Err(Error::new(ErrorKind::Denied, "the role in this workspace does not allow writing"));
        }
        self.organization.realm_keys(self.realm).await?;
        let mut round = Outbound {
            engine: self,
            report: OutboundReport { next_ns: planned.next_ns, ..OutboundReport::default() },
            staged: Vec::new(),
            staged_bytes: 0,
            unsent,
            large: planned.large.iter().map(|entry| entry.id).collect(),
            taken_along: BTreeSet::new(),
        };
        round.files(planned.small).await?;
        let later = round.folders(planned.folders).await?;
        round.flush().await?;
        if !planned.large.is_empty() && !round.report.conflict {
            round.files(planned.large).await?;
            round.folders(later).await?;
            round.flush().await?;
        }
        Ok(round.report)
    }
}

impl Outbound<'_> {
    /// Puts the blocks of these files and stages their manifests.
    async fn files(&mut self, files: Vec<PendingEntry>) -> Result<()> {
        let mut files = VecDeque::from(files);
        let mut current = None;
        let mut sending = Sending::default();
        loop {
            let more = !files.is_empty() || current.is_some();
            if self.report.conflict {
                return Ok(());
            }
            if let Some(complete) = sending.arrived.pop_front() {
                for job in complete {
                    sending.beside(self.stage_file(job)).await?;
                }
            } else if more && sending.in_flight.len() < PIECES_IN_FLIGHT_MAX {
                let piece = sending.beside(self.seal_piece(&mut files, &mut current)).await?;
                let (storage, realm) = (self.engine.organization.storage().clone(), self.engine.realm);
                sending.in_flight.push_back(Box::pin(async move {
                    if !piece.blocks.is_empty() {
                        storage.put(realm, piece.blocks).await?;
                    }
                    Ok(piece.complete)
                }));
            } else if !sending.wait().await? {
                return Ok(());
            }
        }
    }

    /// Seals the next blocks of these files, on the blocking pool.
    async fn seal_piece(&mut self, files: &mut VecDeque<PendingEntry>, current: &mut Option<FileJob>) -> Result<Piece> {
        let engine = self.engine;
        let capabilities = engine.organization.storage().capabilities();
        let sealer = Sealer {
            tree: engine.tree.clone(),
            organization: engine.organization.clone(),
            realm: engine.realm,
            random: engine.random.clone(),
            gone: engine.state.lock().gone_blocks.clone(),
            abandoned: engine.abandoned.clone(),
            limits: Limits {
                block_bytes_max: capabilities.block_bytes_max,
                manifest_bytes_max: capabilities.vlob_bytes_max,
            },
        };
        let (mut todo, mut job) = (std::mem::take(files), current.take());
        let mut taken_along = std::mem::take(&mut self.taken_along);
        let work = move || {
            let mut piece = Piece::default();
            while piece.bytes < PIECE_BYTES_MAX && piece.blocks.len() < PIECE_BLOCKS_MAX {
                let Some(mut next) = sealer.next_job(&mut job, &mut todo, &mut taken_along)? else { break };
                match sealer.fill(&mut piece, &mut next) {
                    Ok(Fill::Complete) => piece.complete.push(next),
                    Ok(Fill::Full) => job = Some(next),
                    // Its new state is pending.
                    Ok(Fill::MovedOn) => {
                        sealer.abandoned.keep(next.entry.id, &next.blocks);
                        piece.moved_on.push(next.entry.id);
                    }
                    Err(error) if hurts_all(&error) => return Err(error),
                    Err(error) => piece.refused.push((next.entry.id, next.entry.change, error)),
                }
            }
            Ok((piece, todo, job, taken_along))
        };
        let (piece, todo, job, taken_along) = blocking(&engine.handle, work).await?;
        (*files, *current, self.taken_along) = (todo, job, taken_along);
        self.report.again |= !piece.moved_on.is_empty();
        let now_ns = engine.clock.now_ns();
        // Whoever writes all the time is not tried again at once: it would hardly get further.
        engine.state.lock().waiting_since.extend(piece.moved_on.iter().map(|id| (*id, now_ns)));
        for (id, change, error) in &piece.refused {
            self.unsent.remove(id);
            engine.refuse_upload(*id, *change, error);
        }
        Ok(piece)
    }

    /// Stages the next version of a file, and of the other names of its inode, which list the same blocks.
    async fn stage_file(&mut self, job: FileJob) -> Result<()> {
        self.engine.abandoned.done(job.entry.id);
        let device = self.engine.organization.device_id();
        let (tree, seen, links) = (self.engine.tree.clone(), job.entry.change, job.entry.links.clone());
        let names = blocking(&self.engine.handle, move || {
            let loaded = links.into_iter().map(|id| tree.load(id));
            loaded.filter_map(Result::transpose).collect::<Result<Vec<_>>>()
        });
        let names = if job.entry.links.is_empty() { Vec::new() } else { names.await? };
        let waiting = names.into_iter().filter(|name| name.need_sync && name.removed.is_none());
        let (same, moved_on): (Vec<_>, Vec<_>) = waiting.partition(|name| name.change == seen);
        self.report.again |= !moved_on.is_empty();
        if self.staged.len() + same.len() >= self.writes_max() {
            // All of them in one commit, where one takes that many.
            self.flush().await?;
        }
        for name in &same {
            if let Some(manifest) = file_manifest(name, &job.blocks, device) {
                self.stage(seen, name.base.as_ref(), manifest).await?;
            }
        }
        match file_manifest(&job.entry, &job.blocks, device) {
            Some(manifest) => self.stage(seen, job.entry.base.as_ref(), manifest).await,
            None => Ok(()),
        }
    }

    fn writes_max(&self) -> usize {
        self.engine.organization.storage().capabilities().commit_writes_max.clamp(1, COMMIT_WRITES_MAX)
    }

    /// Stages folders, children first; returns those that have to wait for a large file.
    async fn folders(&mut self, folders: Vec<PendingEntry>) -> Result<Vec<PendingEntry>> {
        let (tree, ids) = (self.engine.tree.clone(), folders.clone());
        let parents = blocking(&self.engine.handle, move || {
            let loaded = ids.iter().map(|folder| tree.load(folder.id));
            let parents = loaded.filter_map(|entry| entry.map(|entry| entry.map(|e| (e.id, e.parent))).transpose());
            parents.collect::<Result<Vec<_>>>()
        })
        .await?;
        let by_id: BTreeMap<_, _> = folders.into_iter().map(|folder| (folder.id, folder)).collect();
        let mut later = Vec::new();
        for id in children_first(&parents) {
            if self.report.conflict {
                break;
            }
            let tree = self.engine.tree.clone();
            let Some(entry) = blocking(&self.engine.handle, move || tree.load(id)).await? else { continue };
            if !entry.need_sync || entry.removed.is_some() {
                continue;
            }
            match self.blocked(&entry).await? {
                Blocked::No => {
                    let Some(manifest) = folder_manifest(&entry, self.engine.organization.device_id()) else {
                        continue;
                    };
                    self.stage(entry.change, entry.base.as_ref(), manifest).await?;
                }
                Blocked::ByLarge => later.extend(by_id.get(&id)),
                Blocked::BySmall => {}
            }
        }
        Ok(later)
    }

    /// Whether the folder lists something new that has to go up first.
    async fn blocked(&self, entry: &LocalEntry) -> Result<Blocked> {
        let LocalContent::Folder { children } = &entry.content else { return Ok(Blocked::No) };
        let stored = match &entry.base {
            Some(Manifest::Folder(base)) => Some(&base.children),
            _ => None,
        };
        let is_new = |id: &VlobId| self.unsent.contains(id) && *id != entry.id;
        let waiting: Vec<_> =
            children.iter().filter(|(_, id)| is_new(id)).map(|(name, id)| (name.clone(), *id)).collect();
        let (tree, ids) = (self.engine.tree.clone(), waiting.iter().map(|(_, id)| *id).collect::<Vec<_>>());
        let seen = blocking(&self.engine.handle, move || tree.base_versions(&ids)).await?;
        let seen: BTreeSet<_> = seen.into_iter().map(|(id, _)| id).collect();
        let mut blocked = Blocked::No;
        for (name, id) in waiting.iter().filter(|(_, id)| !seen.contains(id)) {
            let replaces = stored.and_then(|stored| stored.get(name)).is_some_and(|other| other != id);
            match (self.large.contains(id), replaces) {
                (false, _) => return Ok(Blocked::BySmall),
                (true, true) => blocked = Blocked::ByLarge,
                (true, false) => {}
            }
        }
        Ok(blocked)
    }

    async fn stage(&mut self, seen: ChangeNumber, base: Option<&Manifest>, manifest: Manifest) -> Result<()> {
        let old: BTreeSet<_> = base.into_iter().flat_map(block_ids).collect();
        let new: BTreeSet<_> = block_ids(&manifest).filter(|id| !old.contains(id)).collect();
        self.staged_bytes += about_bytes(&manifest);
        self.unsent.remove(&manifest.id());
        self.staged.push(Staged { seen, manifest, new_blocks: new.into_iter().collect() });
        if self.staged.len() >= self.writes_max() || self.staged_bytes >= COMMIT_BYTES_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// Commits what is staged.
    async fn flush(&mut self) -> Result<()> {
        let mut staged = std::mem::take(&mut self.staged);
        self.staged_bytes = 0;
        for _ in 0..COMMIT_TRIES_MAX {
            if staged.is_empty() {
                return Ok(());
            }
            staged = self.commit(staged).await?;
            if self.report.conflict {
                return Ok(());
            }
        }
        self.report.again = true;
        Ok(())
    }

    /// Seals and commits; returns what has to be tried again at once.
    async fn commit(&mut self, staged: Vec<Staged>) -> Result<Vec<Staged>> {
        let (staged, writes) = self.seal_manifests(staged).await?;
        if writes.is_empty() {
            return Ok(staged);
        }
        let storage = self.engine.organization.storage();
        let outcomes = storage.commit(self.engine.realm, writes).await?;
        let (mut stored, mut again, mut old_key) = (Vec::new(), Vec::new(), false);
        for (entry, outcome) in staged.into_iter().zip(outcomes) {
            match outcome {
                WriteOutcome::Stored => stored.push(entry),
                WriteOutcome::NotTried => again.push(entry),
                WriteOutcome::Conflict => {
                    self.report.conflict = true;
                    self.engine.state.lock().conflicting.insert(entry.manifest.id());
                }
                WriteOutcome::OldKey => {
                    old_key = true;
                    again.push(entry);
                }
                WriteOutcome::TimestampTooOld(other) => {
                    self.engine.state.lock().not_before = Some(other.next());
                    again.push(entry);
                }
                WriteOutcome::BlockGone(block) => {
                    self.engine.state.lock().gone_blocks.insert(block);
                    self.report.again = true;
                }
            }
        }
        self.record(stored).await?;
        if old_key {
            self.engine.organization.refresh().await?;
            self.engine.organization.realm_keys(self.engine.realm).await?;
        }
        Ok(again)
    }

    async fn record(&mut self, stored: Vec<Staged>) -> Result<()> {
        if stored.is_empty() {
            return Ok(());
        }
        self.report.stored += stored.len();
        {
            let mut state = self.engine.state.lock();
            for entry in &stored {
                state.problems.uploaded(entry.manifest.id());
                state.waiting_since.remove(&entry.manifest.id());
            }
        }
        let tree = self.engine.tree.clone();
        let updates =
            stored.into_iter().map(|entry| TreeUpdate::Uploaded { seen: entry.seen, manifest: entry.manifest });
        let updates = updates.collect();
        blocking(&self.engine.handle, move || tree.apply(updates, None)).await
    }

    /// Signs and seals with the newest key. What no version of the storage could hold is a problem of that entry.
    async fn seal_manifests(&self, staged: Vec<Staged>) -> Result<(Vec<Staged>, Vec<VlobWrite>)> {
        let engine = self.engine;
        let (organization, realm) = (engine.organization.clone(), engine.realm);
        let bytes_max = organization.storage().capabilities().vlob_bytes_max;
        let not_before = engine.state.lock().not_before;
        let work = move || {
            let (mut kept, mut writes, mut refused) = (Vec::new(), Vec::new(), Vec::new());
            for mut entry in staged {
                let now = organization.next_timestamp(realm);
                let timestamp = not_before.map_or(now, |not_before| now.max(not_before));
                set_timestamp(&mut entry.manifest, timestamp);
                let sealed = organization.seal_manifest(realm, &entry.manifest);
                let sealed = sealed.and_then(|sealed| match sealed.bytes.len() as u64 <= bytes_max {
                    true => Ok(sealed),
                    false => Err(Error::new(ErrorKind::TooLarge, "manifest is larger than the storage takes")),
                });
                match sealed {
                    Ok(sealed) => {
                        writes.push(VlobWrite {
                            id: entry.manifest.id(),
                            version: entry.manifest.version(),
                            key_index: sealed.key_index,
                            timestamp,
                            blob: sealed.bytes,
                            new_blocks: entry.new_blocks.clone(),
                        });
                        kept.push(entry);
                    }
                    Err(error) if hurts_all(&error) => return Err(error),
                    Err(error) => refused.push((entry.manifest.id(), entry.seen, error)),
                }
            }
            Ok((kept, writes, refused))
        };
        let (kept, writes, refused) = blocking(&engine.handle, work).await?;
        for (id, seen, error) in refused {
            engine.refuse_upload(id, seen, &error);
        }
        Ok((kept, writes))
    }
}

/// Whether an error says nothing about the entry that met it: then all wait.
fn hurts_all(error: &Error) -> bool {
    use ErrorKind::{Busy, Denied, Locked, NoSpace, Offline, Stale};
    matches!(error.kind(), Busy | Denied | Locked | NoSpace | Offline | Stale)
}

/// What a folder waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocked {
    No,
    BySmall,
    ByLarge,
}

impl Engine {
    fn refuse_upload(&self, id: VlobId, change: ChangeNumber, error: &Error) {
        tracing::warn!(entry = %id, %error, "an entry cannot be stored");
        let problem = Problem { id, kind: error.kind(), reason: error.to_string(), upload: true, next_try_ns: None };
        self.state.lock().problems.add_upload(change, problem);
    }
}

/// What sealing needs, on the blocking pool.
struct Sealer {
    tree: Arc<dyn LocalTree>,
    organization: Arc<crate::organization::Organization>,
    realm: parsecfs_core::id::RealmId,
    random: super::Random,
    gone: BTreeSet<BlockId>,
    abandoned: Arc<Abandoned>,
    limits: Limits,
}

enum Fill {
    Complete,
    Full,
    MovedOn,
}

impl Sealer {
    fn next_job(
        &self,
        job: &mut Option<FileJob>,
        todo: &mut VecDeque<PendingEntry>,
        taken_along: &mut BTreeSet<VlobId>,
    ) -> Result<Option<FileJob>> {
        if let Some(job) = job.take() {
            return Ok(Some(job));
        }
        while let Some(pending) = todo.pop_front() {
            if taken_along.contains(&pending.id) {
                continue;
            }
            let Some(mut entry) = self.tree.load(pending.id)? else { continue };
            if entry.need_sync && entry.removed.is_none() {
                let source = self.tree.blocks_of_source(entry.id)?;
                // A copy has the blocks of its source, until it outgrows that.
                if slot_count(&entry) > source.len()
                    && let Some(blocksize) = larger_blocks(&entry, self.limits)
                    && self.tree.set_blocksize(entry.id, entry.change, blocksize)?
                {
                    let Some(again) = self.tree.load(pending.id)? else { continue };
                    entry = again;
                }
                taken_along.extend(&entry.links);
                let slots = plan_slots(&entry, &self.gone).into();
                let there = source.iter().filter(|block| !self.gone.contains(&block.id));
                let alike = there.map(|block| ((block.digest, block.size), block.id)).collect();
                return Ok(Some(FileJob { entry, slots, blocks: Vec::new(), zeros: None, alike }));
            }
        }
        Ok(None)
    }

    /// Seals blocks of the file into the piece until one of them is full.
    fn fill(&self, piece: &mut Piece, job: &mut FileJob) -> Result<Fill> {
        while let Some(slot) = job.slots.front().copied() {
            if piece.bytes >= PIECE_BYTES_MAX || piece.blocks.len() >= PIECE_BLOCKS_MAX {
                return Ok(Fill::Full);
            }
            job.slots.pop_front();
            match slot {
                SlotPlan::Reuse(block) => job.blocks.push(block),
                SlotPlan::Zero(slot) => self.zeros(piece, job, slot)?,
                SlotPlan::Write(slot) => {
                    let Some(bytes) = self.tree.slot(job.entry.id, job.entry.change, slot)? else {
                        return Ok(Fill::MovedOn);
                    };
                    if !bytes.is_empty() {
                        let block = self.block(piece, job, slot, &bytes)?;
                        job.blocks.push(block);
                    }
                }
            }
        }
        Ok(Fill::Complete)
    }

    fn block(&self, piece: &mut Piece, job: &FileJob, slot: u64, bytes: &[u8]) -> Result<BlockAccess> {
        let entry = &job.entry;
        let LocalContent::File { blocksize, .. } = &entry.content else {
            return Err(Error::new(ErrorKind::Internal, "a file was expected"));
        };
        let offset = slot.checked_mul(*blocksize).ok_or(ErrorKind::TooLarge)?;
        let digest = quietly(|| *parsecfs_crypto::sha256(bytes).as_bytes());
        let size = bytes.len() as u64;
        piece.bytes += size;
        if let Some(id) = job.alike.get(&(digest, size)) {
            return Ok(BlockAccess { id: *id, offset, size, digest });
        }
        if let Some(Manifest::File(base)) = &entry.base {
            let same = |block: &&BlockAccess| (block.offset, block.size, block.digest) == (offset, size, digest);
            // Written again with what was there before.
            let at = base.blocks.partition_point(|block| block.offset < offset);
            let there = base.blocks.get(at).filter(same);
            if let Some(block) = there.filter(|block| !self.gone.contains(&block.id)) {
                return Ok(*block);
            }
        }
        let there = self.abandoned.find(entry.id, offset, size, &digest);
        if let Some(block) = there.filter(|block| !self.gone.contains(&block.id)) {
            return Ok(block);
        }
        let id = BlockId::from_bytes((self.random)());
        let block = quietly(|| self.organization.seal_block(self.realm, id, bytes))?;
        if block.bytes.len() as u64 > self.limits.block_bytes_max {
            return Err(Error::new(ErrorKind::TooLarge, "block is larger than the storage takes"));
        }
        piece.blocks.push((id, block));
        Ok(BlockAccess { id, offset, size, digest })
    }

    fn zeros(&self, piece: &mut Piece, job: &mut FileJob, slot: u64) -> Result<()> {
        let LocalContent::File { blocksize, .. } = &job.entry.content else { return Ok(()) };
        let offset = slot.checked_mul(*blocksize).ok_or(ErrorKind::TooLarge)?;
        let zeros = match job.zeros {
            Some(zeros) => zeros,
            None => {
                let bytes = vec![0; usize::try_from(*blocksize).map_err(|_| ErrorKind::TooLarge)?];
                self.block(piece, job, slot, &bytes)?
            }
        };
        job.zeros = Some(zeros);
        job.blocks.push(BlockAccess { offset, ..zeros });
        Ok(())
    }
}

fn slot_count(entry: &LocalEntry) -> usize {
    match &entry.content {
        LocalContent::File { slots, .. } => slots.len(),
        LocalContent::Folder { .. } => 0,
    }
}

fn next_version(entry: &LocalEntry) -> Option<u32> {
    entry.base.as_ref().map_or(0, Manifest::version).checked_add(1)
}

/// The next version of a file with these blocks, still without the time of signing. `None` when there can be none.
fn file_manifest(entry: &LocalEntry, blocks: &[BlockAccess], author: parsecfs_core::id::DeviceId) -> Option<Manifest> {
    let LocalContent::File { size, blocksize, .. } = &entry.content else { return None };
    Some(Manifest::File(FileManifest {
        author,
        timestamp: entry.updated,
        id: entry.id,
        parent: entry.parent,
        version: next_version(entry)?,
        created: entry.created,
        updated: entry.updated,
        size: *size,
        blocksize: *blocksize,
        blocks: blocks.to_vec(),
        extension: entry.extension.to_write(entry.base.as_ref().and_then(Manifest::extension)),
        unknown: entry.base.as_ref().map(|base| base.unknown().clone()).unwrap_or_default(),
    }))
}

/// The same for a folder.
fn folder_manifest(entry: &LocalEntry, author: parsecfs_core::id::DeviceId) -> Option<Manifest> {
    let LocalContent::Folder { children } = &entry.content else { return None };
    Some(Manifest::Folder(FolderManifest {
        author,
        timestamp: entry.updated,
        id: entry.id,
        parent: entry.parent,
        version: next_version(entry)?,
        created: entry.created,
        updated: entry.updated,
        children: children.clone(),
        extension: entry.extension.to_write(entry.base.as_ref().and_then(Manifest::extension)),
        unknown: entry.base.as_ref().map(|base| base.unknown().clone()).unwrap_or_default(),
    }))
}

fn set_timestamp(manifest: &mut Manifest, time: Timestamp) {
    match manifest {
        Manifest::File(file) => file.timestamp = time,
        Manifest::Folder(folder) => folder.timestamp = time,
    }
}

fn block_ids(manifest: &Manifest) -> impl Iterator<Item = BlockId> {
    let blocks = match manifest {
        Manifest::File(file) => file.blocks.as_slice(),
        Manifest::Folder(_) => &[],
    };
    blocks.iter().map(|block| block.id)
}

/// Sealed size, about and rather too much.
fn about_bytes(manifest: &Manifest) -> u64 {
    let (items, item_bytes) = match manifest {
        Manifest::File(file) => (file.blocks.len(), 64),
        Manifest::Folder(folder) => (folder.children.len(), 64),
    };
    400 + items as u64 * item_bytes
}

#[cfg(test)]
mod tests {
    use parsecfs_core::{id::DeviceId, manifest::Extension};
    use parsecfs_crypto::{SecretKey, SigningKey, random_bytes};

    use super::*;
    use crate::tree::SlotState;

    /// A file with content everywhere, all of which is stored but for one page.
    fn changed_page(size: u64, blocksize: u64) -> LocalEntry {
        let block = |offset| BlockAccess {
            id: BlockId::from_bytes(random_bytes()),
            offset,
            size: blocksize,
            digest: random_bytes(),
        };
        let synced = (0..size / blocksize).map(|slot| (slot, SlotState::Synced(block(slot * blocksize))));
        let mut slots: BTreeMap<u64, SlotState> = synced.collect();
        slots.insert(size / blocksize / 2, SlotState::Dirty);
        let time = Timestamp::from_micros(0).unwrap();
        LocalEntry {
            id: VlobId::from_bytes([1; 16]),
            base: None,
            change: ChangeNumber(1),
            need_sync: true,
            parent: VlobId::from_bytes([2; 16]),
            removed: None,
            created: time,
            updated: time,
            extension: Extension::default(),
            links: Vec::new(),
            content: LocalContent::File { size, blocksize, slots },
        }
    }

    /// Blocks to write and bytes to send for a changed page.
    fn cost(size: u64, blocksize: u64) -> (usize, u64) {
        let entry = changed_page(size, blocksize);
        let mut blocks = Vec::new();
        let mut written = 0;
        for slot in plan_slots(&entry, &BTreeSet::new()) {
            match slot {
                SlotPlan::Reuse(block) => blocks.push(block),
                SlotPlan::Write(slot) => {
                    written += 1;
                    let id = BlockId::from_bytes(random_bytes());
                    let (offset, size) = (slot * blocksize, blocksize);
                    blocks.push(BlockAccess { id, offset, size, digest: random_bytes() });
                }
                SlotPlan::Zero(_) => panic!("it has no holes"),
            }
        }
        let manifest = file_manifest(&entry, &blocks, DeviceId::from_bytes([3; 16])).unwrap();
        let sealed = manifest.seal(&SigningKey::generate(), &SecretKey::generate());
        (written, written as u64 * blocksize + sealed.len() as u64)
    }

    #[test]
    fn a_changed_page_of_100_gib_sends_one_block_and_a_list_no_longer_than_that() {
        let size = 100 << 30;
        // As it is after a copy, and after it grew bit by bit.
        for (blocksize, bytes_max) in [(4 << 20, 5_800_000), (2 << 20, 5_100_000)] {
            let (blocks, bytes) = cost(size, blocksize);
            assert_eq!(blocks, 1);
            assert!(bytes < bytes_max, "{bytes} bytes to send");
            assert!(bytes - blocksize < 2 * blocksize, "a list of {} bytes", bytes - blocksize);
        }
    }
}
