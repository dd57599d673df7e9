//! Garbage and truncation: run by one client now and then, safe whatever the others do meanwhile.
//!
//! Garbage is named in an entry before it is deleted. A commit succeeds only on top of everything before it, so
//! whoever commits after that entry sees its blocks doomed and puts them again. No clock decides about safety.

use parsecfs_core::{
    id::RealmId,
    storage::{Bytes, LogId, Result},
};

use super::{
    ObjectStorage, Shared,
    append::{Attempt, Patience},
    checkpoint,
    entry::{Change, Doomed, Draft, Header, Payload, RawEntry, Said},
    follow::{RealmLog, RealmState, boundary},
    key,
    realm::BlockPlace,
    verbs::StoreTime,
};

/// Names in one entry.
const DOOMED_MAX: usize = 60_000;

/// How careful to be.
#[derive(Clone, Copy, Debug)]
pub struct Patient {
    /// Unreferenced objects younger than this are left alone: their commit may be on its way.
    pub unreferenced_ms: i64,
    /// Time from naming an object to deleting it, for readers that still have it open.
    pub grace_ms: i64,
    /// Log entries younger than this are not truncated.
    pub entries_ms: i64,
}

impl Default for Patient {
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 3_600_000;
        Self { unreferenced_ms: 7 * DAY_MS, grace_ms: DAY_MS, entries_ms: 30 * DAY_MS }
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects that were named for deletion.
    pub doomed: usize,
    /// Objects that were deleted.
    pub deleted: usize,
}

impl ObjectStorage {
    /// Names objects that nothing references, and deletes those that were named long enough ago.
    ///
    /// # Errors
    /// As a commit.
    pub async fn collect_garbage(&self, realm: RealmId, patient: Patient) -> Result<Collected> {
        self.shared.collect_garbage(realm, patient).await
    }

    /// Writes a checkpoint now.
    ///
    /// # Errors
    /// `NotFound` when a key of the realm is missing here.
    pub async fn write_checkpoint(&self, realm: RealmId) -> Result<()> {
        let log = self.shared.realm(realm)?;
        let mut state = log.state.lock().await;
        self.shared.follow_realm(&log, &mut state).await?;
        checkpoint::write(&self.shared, realm, &state).await
    }

    /// Deletes old entries that hold nothing of the present state; older versions go with them. Returns how many.
    ///
    /// # Errors
    /// As a read. What was not deleted is deleted by the next run.
    pub async fn truncate(&self, realm: RealmId, patient: Patient) -> Result<usize> {
        self.shared.truncate(realm, patient).await
    }
}

impl Shared {
    async fn collect_garbage(&self, realm: RealmId, patient: Patient) -> Result<Collected> {
        let log = self.realm(realm)?;
        let mut state = log.state.lock().await;
        self.follow_realm(&log, &mut state).await?;
        self.require_member(&state)?;
        let now = self.verbs.now().await?;
        let stored = self.stored(realm).await?;
        let old: Vec<Doomed> = stored
            .iter()
            .filter(|(_, _, modified)| now.since_ms(*modified) > patient.unreferenced_ms)
            .map(|(doomed, _, _)| *doomed)
            .collect();
        let doomed = self.doom(&log, &mut state, &old).await?;
        let mut deleted = 0;
        for (name, key, _) in &stored {
            let since = state.data.doomed.get(name);
            if since.is_some_and(|since| now.0 - since.as_micros() / 1000 >= patient.grace_ms) {
                self.verbs.delete(key).await?;
                deleted += 1;
            }
        }
        Ok(Collected { doomed, deleted })
    }

    /// Every object of a realm that may be garbage.
    async fn stored(&self, realm: RealmId) -> Result<Vec<(Doomed, String, StoreTime)>> {
        let mut stored = Vec::new();
        for folder in [key::block_folder(realm), key::pack_folder(realm), key::manifests_folder(realm)] {
            for listed in self.verbs.list_after(&folder, "").await? {
                let Some(name) = key::last_name(&listed.key) else { continue };
                let doomed = if folder == key::block_folder(realm) {
                    Doomed::Block(parsecfs_core::id::BlockId::from_bytes(name))
                } else if folder == key::pack_folder(realm) {
                    Doomed::Pack(name)
                } else {
                    Doomed::Manifests(name)
                };
                stored.push((doomed, listed.key, listed.modified));
            }
        }
        Ok(stored)
    }

    /// Commits the names of old objects that the state does not reference.
    async fn doom(&self, log: &RealmLog, state: &mut RealmState, old: &[Doomed]) -> Result<usize> {
        let mut patience = Patience::default();
        let mut named = 0;
        loop {
            let live = state.data.live();
            let is_new = |name: &&Doomed| !live.contains(name) && !state.data.doomed.contains_key(name);
            let names: Vec<Doomed> = old.iter().filter(is_new).take(DOOMED_MAX).copied().collect();
            if names.is_empty() {
                return Ok(named);
            }
            let count = names.len();
            let entry = self.draft_intent(log, state, Change::GcIntent(names)).await?;
            match self.create_entry(&entry).await? {
                Attempt::Won(_) => named += count,
                Attempt::Unknown(error) => patience.bear(error).await?,
            }
            patience.judge(self.follow_realm(log, state).await)?;
        }
    }

    async fn draft_intent(&self, log: &RealmLog, state: &mut RealmState, change: Change) -> Result<RawEntry> {
        let organization = self.organization_now().await?;
        let author = self.options.signer.device_id();
        let head = state.head();
        let said = Said {
            author,
            op: state.memory.next_op(state.data.op(author).max(state.certificates.op(author)))?,
            timestamp: state.data.next_timestamp((self.options.clock)()),
            organization: organization.head,
        };
        let key_index = state.certificates.key_index_at(head.seq);
        let rules = super::realm::Rules { certificates: &state.certificates, organization: &organization };
        state.data.check_author(&said, key_index, &rules)?;
        let mut draft = Draft::default();
        draft.push(&change);
        let header = Header { log: LogId::Realm(log.realm), seq: head.seq, prev: head.hash, key_index };
        draft.finish(&header, &said, &*self.options.signer, &*self.options.keys)
    }

    async fn truncate(&self, realm: RealmId, patient: Patient) -> Result<usize> {
        let log = self.realm(realm)?;
        let log_id = LogId::Realm(realm);
        let mut state = log.state.lock().await;
        self.follow_realm(&log, &mut state).await?;
        checkpoint::write(self, realm, &state).await?;
        // The entry below the checkpoint stays: it proves that both belong together.
        let kept_from = lowest_needed(&state).min(state.head().seq - 1);
        let now = self.verbs.now().await?;
        let listed = self.verbs.list_after(&key::log_folder(log_id), "").await?;
        let entries: Vec<(u64, String, StoreTime)> = listed
            .into_iter()
            .filter_map(|listed| Some((key::entry_seq(log_id, &listed.key)?, listed.key, listed.modified)))
            .collect();
        let is_old = |modified: StoreTime| now.since_ms(modified) > patient.entries_ms;
        let cut = entries.iter().take_while(|(seq, _, modified)| *seq < kept_from && is_old(*modified)).last();
        let Some(cut) = cut.map(|(seq, _, _)| seq + 1) else { return Ok(0) };
        // First the boundary, then the deletes: who creates a deleted number finds out.
        if cut > boundary(&*self.verbs, log_id).await? {
            self.verbs.put_hint(&key::boundary(log_id), Bytes::copy_from_slice(&cut.to_le_bytes())).await?;
        }
        let mut deleted = 0;
        for (_, name, _) in entries.iter().filter(|(seq, _, _)| *seq < cut) {
            self.verbs.delete(name).await?;
            deleted += 1;
        }
        Ok(deleted)
    }
}

/// The lowest entry that holds bytes of the present state.
fn lowest_needed(state: &RealmState) -> u64 {
    let vlobs = state.data.places.vlobs().map(|(_, place)| place.seq);
    let blocks = state.data.places.blocks().filter_map(|(_, place)| match place {
        BlockPlace::Part { seq, payload: Payload::Inline(_), .. } => Some(seq),
        BlockPlace::Part { .. } | BlockPlace::Object => None,
    });
    vlobs.chain(blocks).min().unwrap_or(u64::MAX)
}

impl Patient {
    /// No patience at all: for tests.
    #[must_use]
    pub fn none() -> Self {
        Self { unreferenced_ms: -1, grace_ms: -1, entries_ms: -1 }
    }
}
