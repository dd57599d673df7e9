//! Deep verify: reads all that a workspace rests on, believes no checkpoint, and names every damaged object.
//!
//! Entries carry their own digest, so any flipped bit in a log shows. What a sealed block or manifest says only its reader
//! can prove: the caller hands in the proof. Objects that nothing references are garbage, not damage.

use std::collections::HashMap;

use parsecfs_core::{
    id::{BlockId, RealmId, VlobId},
    storage::{Block, Bytes, Error, ErrorKind, LogId, Result},
    verify::{Damaged, Item, Part, Proof, Sealed, Verified},
};

use super::{
    Shared, checkpoint,
    entry::{Hash, Head, Payload, RawEntry, Span},
    follow::{RealmLog, RealmState, boundary},
    key,
    memory::DeviceMemory,
    organization::{self, Organization},
    pack::{read_block, read_pack},
    realm::{self, BlockPlace, Certificates, Data, Opened, Rules},
};

/// Whether an error tells of damage, and not of trouble with reading.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Rollback)
}

/// Takes damage down and passes all other trouble on.
fn note<T>(found: &mut Verified, key: &str, result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_damage(&error) => {
            damage(found, key, error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn damage(found: &mut Verified, key: impl Into<String>, why: impl ToString) {
    let key = key.into();
    let (realm, part) = key::part(&key);
    found.damaged.push(Damaged { key, realm, part, why: why.to_string() });
}

/// Walks a log that may have holes: after one, the chain is picked up again but nothing is replayed any more.
struct Walk {
    log: LogId,
    next: u64,
    end: u64,
    prev: Option<Hash>,
    is_whole: bool,
}

impl Walk {
    async fn of(shared: &Shared, log: LogId, from: u64, found: &mut Verified) -> Result<Self> {
        // What this device saw must be there, even if it is the end that is missing.
        let seen = DeviceMemory::open(&shared.options.state_dir, log)?.head();
        let mut end = seen.map_or(from, |seen| seen.seq.max(from));
        for listed in shared.verbs.list_after(&key::log_folder(log), "").await? {
            match key::entry_seq(log, &listed.key).filter(|seq| key::entry(log, *seq) == listed.key) {
                Some(seq) => end = end.max(seq + 1),
                None => found.damaged.push(Damaged {
                    realm: key::part(&listed.key).0,
                    part: Part::Foreign,
                    key: listed.key,
                    why: "not the name of an entry".to_owned(),
                }),
            }
        }
        Ok(Self { log, next: from, end, prev: (from == 0).then_some(Head::EMPTY.hash), is_whole: true })
    }

    async fn next(&mut self, shared: &Shared, found: &mut Verified) -> Result<Option<RawEntry>> {
        while self.next < self.end {
            let (seq, name) = (self.next, key::entry(self.log, self.next));
            self.next += 1;
            found.entries += 1;
            let entry = shared.object(&name).await.and_then(|object| RawEntry::parse(self.log, seq, object)).and_then(
                |entry| {
                    if self.prev.is_none_or(|prev| prev == entry.header.prev) {
                        return Ok(entry);
                    }
                    Err(Error::new(ErrorKind::Rollback, "does not continue the entry before"))
                },
            );
            match note(found, &name, entry)? {
                Some(entry) => {
                    self.prev = Some(entry.hash);
                    return Ok(Some(entry));
                }
                None => (self.prev, self.is_whole) = (None, false),
            }
        }
        Ok(None)
    }
}

impl Shared {
    /// Reads the logs, the checkpoints and every referenced block, and names what is damaged.
    pub(super) async fn verify(&self, realms: &[RealmId], proof: Proof<'_>) -> Result<Verified> {
        let mut found = Verified::default();
        let is_organization_whole = self.verify_organization(&mut found).await?;
        for &realm in realms {
            match self.verify_realm(realm, is_organization_whole, &mut found).await {
                Ok(Some(state)) => self.verify_payloads(realm, &state, proof, &mut found).await?,
                Ok(None) => found.unread.push(realm),
                Err(error) if is_damage(&error) => {
                    found.unread.push(realm);
                    // What is named already is the reason.
                    if found.damaged.is_empty() {
                        damage(&mut found, key::log_folder(LogId::Realm(realm)), error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Whether the log has no hole.
    async fn verify_organization(&self, found: &mut Verified) -> Result<bool> {
        let mut walk = Walk::of(self, LogId::Organization, 0, found).await?;
        let mut state = Organization::empty(self.options.root);
        while let Some(entry) = walk.next(self, found).await? {
            if walk.is_whole {
                state.apply(&entry, &*self.options.keys)?;
                let body = organization::open_body(&entry, &*self.options.keys)?;
                let counts = body.is_some_and(|(_, body)| state.op(body.said.author) == body.said.op);
                found.void += u64::from(!counts);
            }
        }
        if walk.is_whole {
            self.verify_recoveries(&state.recoveries, found).await?;
        }
        Ok(walk.is_whole)
    }

    /// Replays the log; `None` when it has holes, or the organization's, without which nobody can judge an entry.
    async fn verify_realm(
        &self,
        realm: RealmId,
        is_organization_whole: bool,
        found: &mut Verified,
    ) -> Result<Option<Data>> {
        let log = LogId::Realm(realm);
        let from = boundary(&*self.verbs, log).await?;
        let mut blamed = Verified::default();
        let checkpoint = if is_organization_whole { self.verify_checkpoint(realm, &mut blamed).await? } else { None };
        let mut certificates = Certificates::empty(realm, self.options.root);
        let mut data = Data::default();
        let mut compare = None;
        match checkpoint {
            Some(state) if from > 0 => (certificates, data) = (state.certificates, state.data),
            Some(state) => compare = Some(state),
            None => {}
        }
        let mut walk = Walk::of(self, log, from, found).await?;
        // Below a boundary only a checkpoint tells.
        walk.is_whole = is_organization_whole && certificates.head.seq >= from;
        while let Some(entry) = walk.next(self, found).await? {
            if walk.is_whole && entry.header.seq == certificates.head.seq {
                self.replay(&entry, &mut certificates, &mut data, found).await?;
            }
            if let Some(state) = compare.take_if(|state| walk.is_whole && state.data.seq == data.seq)
                && !checkpoint::are_equal(&state.data, &data)
            {
                damage(found, key::hint(log), "the checkpoint says something else than the log");
            }
        }
        // A checkpoint rests on the entry below it: when one is damaged, that one is at fault.
        if !found.damaged.iter().any(|damaged| damaged.realm == Some(realm) && damaged.part == Part::RealmLog) {
            found.damaged.append(&mut blamed.damaged);
        }
        Ok(walk.is_whole.then_some(data))
    }

    async fn verify_checkpoint(&self, realm: RealmId, found: &mut Verified) -> Result<Option<RealmState>> {
        let hint = self.verbs.get(&key::hint(LogId::Realm(realm))).await?.bytes;
        let Some(name) = hint.and_then(|hint| String::from_utf8(hint.to_vec()).ok()) else { return Ok(None) };
        let mut state = RealmLog::open(realm, &self.options)?.state.into_inner();
        let loaded = checkpoint::load(self, realm, &name, &mut state).await;
        Ok(note(found, &name, loaded)?.map(|()| state))
    }

    async fn replay(
        &self,
        entry: &RawEntry,
        certificates: &mut Certificates,
        data: &mut Data,
        found: &mut Verified,
    ) -> Result<()> {
        let (opened, organization) = self.quoted(entry, realm::open(entry, &*self.options.keys)?).await?;
        certificates.apply(entry, &opened, &organization);
        if data.seq == entry.header.seq {
            data.apply(entry, &opened, &Rules { certificates, organization: &organization });
        }
        match opened {
            Opened::Sealed => found.sealed += 1,
            Opened::Void => found.void += 1,
            Opened::Body(_, body) => {
                let (author, op) = (body.said.author, body.said.op);
                found.void += u64::from(certificates.op(author) != op && data.op(author) != op);
            }
        }
        Ok(())
    }

    async fn verify_payloads(&self, realm: RealmId, data: &Data, proof: Proof<'_>, found: &mut Verified) -> Result<()> {
        self.verify_manifests(realm, data, proof, found).await?;
        for (id, place) in data.places.blocks() {
            found.blocks += 1;
            let (name, block) = self.placed_block(realm, *id, place).await;
            let Some(block) = note(found, &name, block)? else { continue };
            let sealed = Sealed { realm, what: Item::Block(*id), key_index: block.key_index, bytes: &block.bytes };
            if !proof(&sealed) {
                damage(found, name, "the block does not open");
            }
        }
        Ok(())
    }

    /// Packs of manifests whole, so that older versions are looked at too, and that the newest are where they should be.
    /// What lies in entries is proved by their digest.
    async fn verify_manifests(
        &self,
        realm: RealmId,
        data: &Data,
        proof: Proof<'_>,
        found: &mut Verified,
    ) -> Result<()> {
        let mut held = HashMap::new();
        for name in &data.manifests {
            let key = key::manifests(realm, name);
            let object = note(found, &key, self.object(&key).await)?;
            let Some(object) = object else { continue };
            let Some(parts) = note(found, &key, read_pack(&object))? else { continue };
            let opens = |(id, key_index, span): &([u8; 16], u64, Span)| {
                let what = Item::Manifest(VlobId::from_bytes(*id));
                span.slice(&object).is_ok_and(|bytes| proof(&Sealed { realm, what, key_index: *key_index, bytes }))
            };
            if !parts.iter().all(opens) {
                damage(found, key, "a manifest in it does not open");
            }
            held.insert(*name, parts);
        }
        for (id, place) in data.places.vlobs() {
            let Payload::Pack(name, span) = place.payload else { continue };
            let part = (*id.as_bytes(), place.key_index, span);
            if held.get(&name).is_some_and(|parts| !parts.contains(&part)) {
                damage(found, key::manifests(realm, &name), "a manifest is not in it where the log says");
            }
        }
        Ok(())
    }

    async fn object(&self, key: &str) -> Result<Bytes> {
        let object = self.verbs.get(key).await?.bytes;
        object.ok_or_else(|| Error::new(ErrorKind::NotFound, "missing"))
    }

    async fn placed_block(&self, realm: RealmId, id: BlockId, place: BlockPlace) -> (String, Result<Block>) {
        match place {
            BlockPlace::Object => {
                let name = key::block(realm, id);
                let object = self.object(&name).await;
                (name, object.and_then(|object| read_block(&object)))
            }
            BlockPlace::Part { key_index, seq, payload } => {
                let name = match payload {
                    Payload::Pack(name, _) => key::pack(realm, &name),
                    Payload::Inline(_) => key::entry(LogId::Realm(realm), seq),
                };
                let bytes = self.payload(realm, seq, payload, &name).await;
                (name, bytes.map(|bytes| Block { key_index, bytes }))
            }
        }
    }
}
