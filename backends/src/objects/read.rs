//! Manifests and blocks out of entries, packs and objects of their own.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use futures::future::try_join_all;
use lru::LruCache;
use parsecfs_core::{
    id::{BlockId, RealmId, VlobId},
    storage::{Block, Bytes, Error, ErrorKind, LogId, Result, VlobRecord},
};

use super::{
    Shared,
    entry::{Body, Change, Payload, RawEntry, VlobChange},
    follow::{RealmLog, RealmState, boundary},
    key, lock,
    pack::read_block,
    realm::BlockPlace,
};

/// Opened bodies that are kept for the next reader.
const BODIES_BYTES_MAX: usize = 4 << 20;
/// Objects read at once.
const PARALLEL_READS: usize = 16;

/// Opened bodies of entries, the most recently used ones.
pub(super) struct Bodies(Mutex<Kept>);

struct Kept {
    bodies: LruCache<(RealmId, u64), Arc<[u8]>>,
    bytes: usize,
}

impl Default for Bodies {
    fn default() -> Self {
        Self(Mutex::new(Kept { bodies: LruCache::unbounded(), bytes: 0 }))
    }
}

impl Bodies {
    pub(super) fn keep(&self, realm: RealmId, seq: u64, body: &[u8]) {
        let mut kept = lock(&self.0);
        kept.bytes += body.len();
        if let Some(replaced) = kept.bodies.put((realm, seq), body.into()) {
            kept.bytes -= replaced.len();
        }
        while kept.bytes > BODIES_BYTES_MAX {
            let Some((_, dropped)) = kept.bodies.pop_lru() else { break };
            kept.bytes -= dropped.len();
        }
    }

    fn get(&self, realm: RealmId, seq: u64) -> Option<Arc<[u8]>> {
        lock(&self.0).bodies.get(&(realm, seq)).map(Arc::clone)
    }
}

/// A version of a vlob, found but not read.
struct Found {
    id: VlobId,
    version: u32,
    key_index: u64,
    author: parsecfs_core::id::DeviceId,
    timestamp: parsecfs_core::time::Timestamp,
    seq: u64,
    payload: Payload,
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

impl Shared {
    async fn body(&self, realm: RealmId, seq: u64) -> Result<Arc<[u8]>> {
        if let Some(body) = self.bodies.get(realm, seq) {
            return Ok(body);
        }
        let log = LogId::Realm(realm);
        let object = self.verbs.get(&key::entry(log, seq)).await?.bytes;
        let object = object.ok_or_else(|| Error::new(ErrorKind::NotFound, "a log entry is missing"))?;
        let body = RawEntry::parse(log, seq, object)?.open(&*self.options.keys)?;
        self.bodies.keep(realm, seq, &body);
        Ok(body.into())
    }

    pub(super) async fn payload(&self, realm: RealmId, seq: u64, payload: Payload, pack: &str) -> Result<Bytes> {
        match payload {
            Payload::Inline(span) => {
                let body = self.body(realm, seq).await;
                let lost = |error: Error| missing("a log entry cannot be read").caused_by(error);
                Ok(Bytes::copy_from_slice(span.slice(&body.map_err(lost)?)?))
            }
            Payload::Pack(_, span) => {
                let part = self.verbs.get_range(pack, span.offset.into(), span.length.into()).await?;
                let part = part.ok_or_else(|| missing("a pack is missing"))?;
                if part.len() != span.length as usize {
                    return Err(missing("a pack is too short"));
                }
                Ok(part)
            }
        }
    }

    async fn record(&self, realm: RealmId, found: Found) -> Result<VlobRecord> {
        let pack = match found.payload {
            Payload::Pack(name, _) => key::manifests(realm, &name),
            Payload::Inline(_) => String::new(),
        };
        Ok(VlobRecord {
            id: found.id,
            version: found.version,
            key_index: found.key_index,
            author: found.author,
            timestamp: found.timestamp,
            blob: self.payload(realm, found.seq, found.payload, &pack).await?,
        })
    }

    /// Reads many records, entry by entry in parallel.
    async fn records(&self, realm: RealmId, mut found: Vec<Found>) -> Result<Vec<VlobRecord>> {
        // Neighbours in one entry share its one read.
        found.sort_by_key(|found| found.seq);
        let seqs: BTreeSet<u64> = found.iter().filter_map(Found::inline_seq).collect();
        let mut seqs: Vec<u64> = seqs.into_iter().collect();
        let mut records = Vec::with_capacity(found.len());
        let mut found = found.into_iter().peekable();
        while found.peek().is_some() {
            let batch: Vec<u64> = seqs.drain(..seqs.len().min(PARALLEL_READS)).collect();
            try_join_all(batch.iter().map(|seq| self.body(realm, *seq)).collect::<Vec<_>>()).await?;
            let last = if seqs.is_empty() { u64::MAX } else { batch.last().copied().unwrap_or(u64::MAX) };
            while let Some(item) = found.next_if(|item| item.seq <= last) {
                records.push(self.record(realm, item).await?);
            }
        }
        Ok(records)
    }

    pub(super) async fn read_newest(&self, realm: RealmId, ids: &[VlobId]) -> Result<Vec<VlobRecord>> {
        let log = self.realm(realm)?;
        let found = {
            let mut state = log.state.lock().await;
            self.follow_realm(&log, &mut state).await?;
            self.require_member(&state)?;
            ids.iter().filter_map(|id| Found::newest(&state, *id)).collect()
        };
        self.records(realm, found).await
    }

    pub(super) async fn read_exactly(&self, realm: RealmId, items: &[(VlobId, u32)]) -> Result<Vec<VlobRecord>> {
        let log = self.realm(realm)?;
        let mut state = log.state.lock().await;
        let is_known =
            |(id, version): &(VlobId, u32)| state.data.places.vlob(id).is_some_and(|place| place.version >= *version);
        if !items.iter().all(is_known) {
            self.follow_realm(&log, &mut state).await?;
        }
        self.require_member(&state)?;
        let mut newest = Vec::new();
        let mut records = Vec::new();
        for (id, version) in items {
            match Found::newest(&state, *id) {
                Some(found) if found.version == *version => newest.push(found),
                _ => records.extend(self.version_of(&log, &state, *id, *version).await?),
            }
        }
        drop(state);
        records.extend(self.records(realm, newest).await?);
        Ok(records)
    }

    /// Reads one version, walking back from the newest.
    pub(super) async fn version_of(
        &self,
        log: &RealmLog,
        state: &RealmState,
        id: VlobId,
        version: u32,
    ) -> Result<Option<VlobRecord>> {
        let Some(mut found) = Found::newest(state, id).filter(|newest| (1..=newest.version).contains(&version)) else {
            return Ok(None);
        };
        while found.version > version {
            found = match self.version_before(log.realm, &found).await {
                // Truncated.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                before => before?,
            };
        }
        self.record(log.realm, found).await.map(Some)
    }

    async fn version_before(&self, realm: RealmId, found: &Found) -> Result<Found> {
        let lost = || missing("an entry does not hold the version that a later one continues");
        let this = self.vlob_change(realm, found.seq, found.id, found.version).await?.ok_or_else(lost)?.1;
        let before = self.vlob_change(realm, this.previous, found.id, found.version - 1).await;
        // Asked after reading: below the boundary, a create that was late may have put anything into a number that the
        // store forgot.
        if this.previous < boundary(&*self.verbs, LogId::Realm(realm)).await? {
            return Err(Error::new(ErrorKind::NotFound, "this version was truncated"));
        }
        let (author, change) = before?.ok_or_else(lost)?;
        Ok(Found {
            id: change.id,
            version: change.version,
            key_index: change.key_index,
            author,
            timestamp: change.timestamp,
            seq: this.previous,
            payload: change.payload,
        })
    }

    async fn vlob_change(
        &self,
        realm: RealmId,
        seq: u64,
        id: VlobId,
        version: u32,
    ) -> Result<Option<(parsecfs_core::id::DeviceId, VlobChange)>> {
        let body = Body::decode(&self.body(realm, seq).await?)?;
        let author = body.said.author;
        let changes = body.changes.into_iter().filter_map(|change| match change {
            Change::Vlob(vlob) if vlob.id == id && vlob.version == version => Some(vlob),
            _ => None,
        });
        Ok(changes.last().map(|vlob| (author, vlob)))
    }

    pub(super) async fn get_block(&self, realm: RealmId, id: BlockId) -> Result<Block> {
        let log = self.realm(realm)?;
        let staged = {
            let staging = lock(&log.staging);
            if let Some(block) = staging.waiting(id) {
                return Ok(block.clone());
            }
            staging.placed.get(&id).copied()
        };
        let place = match staged {
            Some(place) => Some(place),
            None => self.place_of(&log, id).await?,
        };
        match place {
            Some(BlockPlace::Part { key_index, seq, payload }) => {
                let pack = match payload {
                    Payload::Pack(name, _) => key::pack(realm, &name),
                    Payload::Inline(_) => String::new(),
                };
                Ok(Block { key_index, bytes: self.payload(realm, seq, payload, &pack).await? })
            }
            // Not named yet, but perhaps there: put by another connection of this device.
            Some(BlockPlace::Object) | None => self.read_object(realm, id).await,
        }
    }

    async fn place_of(&self, log: &RealmLog, id: BlockId) -> Result<Option<BlockPlace>> {
        let mut state = log.state.lock().await;
        if !state.data.places.has_block(&id) {
            self.follow_realm(log, &mut state).await?;
        }
        self.require_member(&state)?;
        Ok(state.data.places.block(&id))
    }

    async fn read_object(&self, realm: RealmId, id: BlockId) -> Result<Block> {
        let object = self.verbs.get(&key::block(realm, id)).await?.bytes;
        read_block(&object.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such block"))?)
    }
}

impl Found {
    fn newest(state: &RealmState, id: VlobId) -> Option<Self> {
        let place = state.data.places.vlob(&id)?;
        Some(Self {
            id,
            version: place.version,
            key_index: place.key_index,
            author: state.data.author_of(&place),
            timestamp: place.timestamp,
            seq: place.seq,
            payload: place.payload,
        })
    }

    fn inline_seq(&self) -> Option<u64> {
        match self.payload {
            Payload::Inline(_) => Some(self.seq),
            Payload::Pack(..) => None,
        }
    }
}
