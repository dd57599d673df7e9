//! Commits vlobs and blocks: gathers what several callers want, and puts it into one entry.
//!
//! A caller's commit is idempotent by content: a version that is there with the same bytes counts as stored, whichever
//! try brought it there. So after any answer the writer reads the log, judges again, and goes on.
//!
//! Blocks up to [`INLINE_BYTES_MAX`] travel in the entry; others that wait (`staging`) are packed for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parsecfs_core::{
    id::{BlockId, RealmId, VlobId},
    storage::{Block, Bytes, Error, ErrorKind, LogId, Result, VlobWrite, WriteOutcome},
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    COMMIT_WRITES_MAX, Shared, VLOB_BYTES_MAX,
    append::{Attempt, Patience},
    checkpoint,
    entry::{Draft, Header, Payload, RawEntry, Said, VlobChange},
    follow::{RealmLog, RealmState, boundary},
    key, lock, misuse,
    organization::Organization,
    pack::{PACK_BYTES_MAX, PackDraft},
    random,
    realm::{BlockPlace, Rules},
    verbs::Creation,
};

/// Largest block that travels in an entry.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// Largest manifest that travels in an entry.
const INLINE_VLOB_BYTES_MAX: usize = 64 << 10;
/// An entry takes no more inline bytes from here on; with its changes it stays near 1 MiB.
const INLINE_TOTAL_BYTES_MAX: usize = 768 << 10;
/// While others write to the same log, a winner pauses at least this long.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Others count as writing for this long after their last entry.
const OTHERS_WRITE_FOR: Duration = Duration::from_secs(2);
/// A pause in round trips.
const PAUSE_ROUND_TRIPS: u32 = 6;
/// See `follow::BOUNDARY_AFTER_MS`: the same rule for the time until a create was answered.
const BOUNDARY_AFTER_MS: i64 = 3_600_000;

/// A caller's commit that waits for its turn.
pub(super) struct Queued {
    pub(super) writes: Arc<Vec<VlobWrite>>,
    pub(super) answer: oneshot::Sender<Result<Vec<WriteOutcome>>>,
}

/// A round of the group: who is still in it, and where the parts that were uploaded for it are.
pub(super) struct Group {
    pub(super) queued: Vec<Queued>,
    /// Manifests that were uploaded because they do not fit into the entry.
    uploaded: HashMap<(VlobId, u32), Payload>,
}

/// The same error for another caller.
fn copy_of(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

impl Shared {
    pub(super) async fn commit(&self, realm: RealmId, writes: Vec<VlobWrite>) -> Result<Vec<WriteOutcome>> {
        if writes.len() > COMMIT_WRITES_MAX {
            return Err(misuse("more writes than a commit takes"));
        }
        if writes.iter().any(|write| write.blob.len() as u64 > VLOB_BYTES_MAX) {
            return Err(misuse("a vlob is too large"));
        }
        let log = self.realm(realm)?;
        let writes = Arc::new(writes);
        loop {
            let (answer, mut answered) = oneshot::channel();
            lock(&log.queue).push(Queued { writes: Arc::clone(&writes), answer });
            let mut state = log.state.lock().await;
            match answered.try_recv() {
                Ok(answer) => return answer,
                // Whoever took this commit along was cancelled: once more, repeats count once.
                Err(oneshot::error::TryRecvError::Closed) => continue,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            self.pause(&state).await;
            let queued = take_group(&log);
            self.commit_group(&log, &mut state, Group { queued, uploaded: HashMap::new() }).await;
            if let Ok(answer) = answered.try_recv() {
                return answer;
            }
        }
    }

    /// Gives others their turn after a win.
    async fn pause(&self, state: &RealmState) {
        if let Some(next) = state.pace.next_after {
            tokio::time::sleep_until(next).await;
        }
    }

    async fn commit_group(&self, log: &RealmLog, state: &mut RealmState, mut group: Group) {
        if let Err(error) = self.commit_until_done(log, state, &mut group).await {
            for queued in group.queued {
                // A caller that went away does not need its answer.
                let _ = queued.answer.send(Err(copy_of(&error)));
            }
        }
    }

    async fn commit_until_done(&self, log: &RealmLog, state: &mut RealmState, group: &mut Group) -> Result<()> {
        let mut patience = Patience::default();
        loop {
            patience.judge(self.follow_realm(log, state).await)?;
            self.require_clock(state)?;
            let organization = Arc::clone(&self.organization.lock().await.state);
            self.require_writer(state, &organization)?;
            let chosen = self.judge_group(log, state, &organization, group).await?;
            if chosen.is_empty() {
                return Ok(());
            }
            let entry = self.build(log, state, &organization, group, &chosen).await?;
            let started = Instant::now();
            match self.create_entry(&entry).await? {
                Attempt::Unknown(error) => patience.bear(error).await?,
                Attempt::Won(creation) => {
                    if self.landed_too_late(log, state, &entry, &creation).await? {
                        continue;
                    }
                    self.finish_commit(log, state, &entry, &creation, started).await?;
                    for queued in group.queued.drain(..) {
                        let outcomes = vec![WriteOutcome::Stored; queued.writes.len()];
                        // A caller that went away does not need its answer.
                        let _ = queued.answer.send(Ok(outcomes));
                    }
                    checkpoint::write_when_due(self, log, state).await;
                    return Ok(());
                }
            }
        }
    }

    /// A create forgets what truncation deleted: it may have won a number that is long gone.
    async fn landed_too_late(
        &self,
        log: &RealmLog,
        state: &RealmState,
        entry: &RawEntry,
        creation: &Creation,
    ) -> Result<bool> {
        let waited = state.end_seen.is_none_or(|seen| creation.at.since_ms(seen) > BOUNDARY_AFTER_MS);
        Ok(waited && entry.header.seq < boundary(&*self.verbs, LogId::Realm(log.realm)).await?)
    }

    async fn finish_commit(
        &self,
        log: &RealmLog,
        state: &mut RealmState,
        entry: &RawEntry,
        creation: &Creation,
        started: Instant,
    ) -> Result<()> {
        let round_trip = started.elapsed();
        self.step(log.realm, state, entry).await?;
        state.end_seen = Some(creation.at);
        log.drop_committed(state);
        state.memory.remember(state.certificates.head)?;
        let others_write = state.pace.others_seen.is_some_and(|seen| seen.elapsed() < OTHERS_WRITE_FOR);
        let pause = PAUSE_MIN.max(round_trip * PAUSE_ROUND_TRIPS);
        state.pace.next_after = others_write.then(|| Instant::now() + pause);
        self.ring_realm(log.realm, state.head()).await;
        Ok(())
    }

    fn require_clock(&self, state: &RealmState) -> Result<()> {
        const SKEW_MAX_MS: i64 = 5 * 60 * 1000;
        let now_ms = (self.options.clock)().as_micros() / 1000;
        match state.end_seen {
            Some(seen) if (now_ms - seen.0).abs() > SKEW_MAX_MS => Err(Error::new(
                ErrorKind::Denied,
                "this machine's clock and the storage's differ by more than five minutes",
            )),
            _ => Ok(()),
        }
    }

    fn require_writer(&self, state: &RealmState, organization: &Organization) -> Result<()> {
        self.require_member(state)?;
        if state.data.seq < state.head().seq {
            // Entries sealed with a key that this device has not got yet.
            return Ok(());
        }
        let rules = Rules { certificates: &state.certificates, organization };
        let said = self.say(state, organization, 0);
        let key_index = state.certificates.key_index_at(state.head().seq);
        state.data.check_author(&said, key_index, &rules).map(drop)
    }

    fn say(&self, state: &RealmState, organization: &Organization, op: u64) -> Said {
        Said {
            author: self.options.signer.device_id(),
            op,
            timestamp: state.data.next_timestamp((self.options.clock)()),
            organization: organization.head,
        }
    }

    /// Uploads what does not fit, then builds the entry on the present head.
    async fn build(
        &self,
        log: &RealmLog,
        state: &mut RealmState,
        organization: &Organization,
        group: &mut Group,
        chosen: &[Vec<usize>],
    ) -> Result<RawEntry> {
        let writes: Vec<(Arc<Vec<VlobWrite>>, usize)> = group
            .queued
            .iter()
            .zip(chosen)
            .flat_map(|(queued, indexes)| indexes.iter().map(|index| (Arc::clone(&queued.writes), *index)))
            .collect();
        let writes: Vec<&VlobWrite> = writes.iter().map(|(writes, index)| &writes[*index]).collect();
        let mut room = INLINE_TOTAL_BYTES_MAX;
        let inline_vlobs = self.upload_manifests(log, group, &writes, &mut room).await?;
        let inline_blocks = self.pack_named(log, state, &writes, &mut room).await?;

        let head = state.head();
        let mut draft = Draft::default();
        write_places(&mut draft, log, state, &writes, &inline_blocks);
        let mut previous: HashMap<VlobId, u64> = HashMap::new();
        for write in &writes {
            let before = state.data.places.vlob(&write.id).map_or(0, |place| place.seq);
            let payload = group.uploaded.get(&(write.id, write.version)).copied();
            let inline = inline_vlobs.contains(&(write.id, write.version)).then_some(&*write.blob);
            let change = VlobChange {
                id: write.id,
                version: write.version,
                key_index: write.key_index,
                timestamp: write.timestamp,
                previous: previous.insert(write.id, head.seq).unwrap_or(before),
                new_blocks: write.new_blocks.clone(),
                // Replaced when the bytes are inline.
                payload: payload.unwrap_or(Payload::Pack([0; 16], super::entry::Span::of(0, 0))),
            };
            draft.push_vlob(change, inline);
        }
        let author = self.options.signer.device_id();
        let op = state.memory.next_op(state.data.op(author).max(state.certificates.op(author)))?;
        let said = self.say(state, organization, op);
        let key_index = state.certificates.key_index_at(head.seq);
        let header = Header { log: LogId::Realm(log.realm), seq: head.seq, prev: head.hash, key_index };
        draft.finish(&header, &said, &*self.options.signer, &*self.options.keys)
    }

    /// Uploads the manifests that do not fit into the entry; returns those that do.
    async fn upload_manifests(
        &self,
        log: &RealmLog,
        group: &mut Group,
        writes: &[&VlobWrite],
        room: &mut usize,
    ) -> Result<HashSet<(VlobId, u32)>> {
        let mut inline = HashSet::new();
        let mut packs: Vec<([u8; 16], PackDraft)> = Vec::new();
        for write in writes {
            let item = (write.id, write.version);
            if group.uploaded.contains_key(&item) {
                continue;
            }
            if write.blob.len() <= INLINE_VLOB_BYTES_MAX && write.blob.len() <= *room {
                *room -= write.blob.len();
                inline.insert(item);
                continue;
            }
            if packs.last().is_none_or(|(_, pack)| !pack.is_empty() && pack.len() + write.blob.len() > PACK_BYTES_MAX) {
                packs.push((random(), PackDraft::new()));
            }
            let (name, pack) = packs.last_mut().expect("pushed above when there was none");
            let span = pack.push(*write.id.as_bytes(), write.key_index, &write.blob);
            group.uploaded.insert(item, Payload::Pack(*name, span));
        }
        if packs.is_empty() {
            return Ok(inline);
        }
        let objects: Vec<(String, Bytes)> =
            packs.into_iter().map(|(name, pack)| (key::manifests(log.realm, &name), pack.finish())).collect();
        if let Err(error) = self.verbs.create(&objects).await {
            // What is not confirmed must not be referenced.
            group.uploaded.clear();
            return Err(error);
        }
        Ok(inline)
    }

    /// Packs the named blocks that do not fit into the entry; returns those that do.
    async fn pack_named(
        &self,
        log: &RealmLog,
        state: &RealmState,
        writes: &[&VlobWrite],
        room: &mut usize,
    ) -> Result<BTreeMap<BlockId, Block>> {
        let mut inline = BTreeMap::new();
        let mut packed = Vec::new();
        {
            let staging = lock(&log.staging);
            for id in writes.iter().flat_map(|write| &write.new_blocks) {
                let Some(block) = staging.waiting(*id) else { continue };
                if state.data.places.has_block(id) {
                    continue;
                }
                if block.bytes.len() <= INLINE_BYTES_MAX && block.bytes.len() <= *room {
                    *room -= block.bytes.len();
                    inline.insert(*id, block.clone());
                } else {
                    packed.push(*id);
                }
            }
        }
        packed.sort_unstable();
        packed.dedup();
        self.pack(log, &packed).await?;
        Ok(inline)
    }
}

/// Says where the new blocks are that are no objects of their own.
fn write_places(
    draft: &mut Draft,
    log: &RealmLog,
    state: &RealmState,
    writes: &[&VlobWrite],
    inline: &BTreeMap<BlockId, Block>,
) {
    let staging = lock(&log.staging);
    let mut done = HashSet::new();
    for id in writes.iter().flat_map(|write| &write.new_blocks) {
        if !done.insert(*id) || state.data.places.has_block(id) {
            continue;
        }
        if let Some(block) = inline.get(id) {
            draft.push_block(*id, block.key_index, &block.bytes);
        } else if let Some(BlockPlace::Part { key_index, payload, .. }) = staging.placed.get(id) {
            draft.push(&super::entry::Change::Place { id: *id, key_index: *key_index, payload: *payload });
        }
    }
}

/// As many waiting commits as an entry takes.
fn take_group(log: &RealmLog) -> Vec<Queued> {
    let mut queue = lock(&log.queue);
    let mut writes = 0;
    let fits = queue.iter().take_while(|queued| {
        writes += queued.writes.len();
        writes <= COMMIT_WRITES_MAX
    });
    let count = fits.count();
    queue.drain(..count).collect()
}
