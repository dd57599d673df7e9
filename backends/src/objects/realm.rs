//! A realm's log, replayed in two passes: certificates, which every device of the organization can read, and data,
//! which needs the realm's keys.
//!
//! The passes are apart because the keys come out of the first: a device that was just given a role finds its access
//! behind data that it cannot open yet. So the verdict on a certificate entry never depends on a data entry, and each
//! pass has operation numbers of its own. The verdict on a data entry depends on the certificates before it in the
//! log, on the data before it, and on the organization log as far as any of these quotes it.
//!
//! Invariants: `data.seq <= certificates.seq`; a void entry changes nothing but the position.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parsecfs_core::{
    certificate::{Certificate, RealmRole},
    id::{BlockId, DeviceId, RealmId, UserId, VlobId},
    storage::{
        Bytes, CertificateBatch, Error, ErrorKind, KeysBundle, LogKeys, Result, Statement, VlobWrite, WriteOutcome,
    },
    time::Timestamp,
};

use super::{
    entry::{Body, Change, Doomed, Head, Payload, RawEntry, Said, VlobChange},
    gate::Gate,
    key::PackName,
    organization::{Organization, conflict, denied, open_body},
    table::Table,
};
use crate::statement::{claim_of, is_read_only, main_certificate};

/// First pass: who may do what, as of each position.
#[derive(Clone)]
pub(super) struct Certificates {
    realm: RealmId,
    pub(super) head: Head,
    ops: HashMap<DeviceId, u64>,
    gate: Gate,
    /// How many entries of the organization log `gate` knows.
    gate_at: u64,
    /// Highest quoted organization head, with the position from which it holds.
    quotes: Vec<(u64, u64)>,
    roles: Vec<(u64, UserId, Option<RealmRole>)>,
    read_only: Vec<(u64, bool)>,
    /// Position of each rotation; the first is that to key 1.
    rotations: Vec<u64>,
    bundles: Vec<Bundle>,
    certificates: Vec<(u64, Timestamp, Bytes)>,
    applied: HashSet<Bytes>,
    /// Every valid statement in order, with the entry that brought it: what a checkpoint keeps.
    statements: Vec<(u64, Said, Arc<Statement>)>,
}

/// Operation numbers and quoted heads of the first pass, as a checkpoint keeps them: fences leave nothing else.
pub(super) struct Marks {
    pub(super) ops: Vec<(DeviceId, u64)>,
    pub(super) quotes: Vec<(u64, u64)>,
}

#[derive(Clone)]
struct Bundle {
    bytes: Bytes,
    accesses: HashMap<UserId, Bytes>,
}

/// An entry, opened as far as this device can.
pub(super) enum Opened {
    /// Needs a key that this device does not have yet.
    Sealed,
    /// Says nothing.
    Void,
    /// Says this.
    Body(Vec<u8>, Body),
}

pub(super) fn open(raw: &RawEntry, keys: &dyn LogKeys) -> Result<Opened> {
    match open_body(raw, keys) {
        Ok(Some((bytes, body))) => Ok(Opened::Body(bytes, body)),
        Ok(None) => Ok(Opened::Void),
        Err(error) if error.kind() == ErrorKind::NotFound && raw.header.key_index > 0 => Ok(Opened::Sealed),
        Err(error) => Err(error),
    }
}

fn carries_certificates(body: &Body) -> bool {
    body.changes.iter().all(|change| matches!(change, Change::Statement(_) | Change::Fence))
}

impl Certificates {
    pub(super) fn empty(realm: RealmId, root: [u8; 32]) -> Self {
        Self {
            realm,
            head: Head::EMPTY,
            ops: HashMap::new(),
            gate: Gate::new(root),
            gate_at: 0,
            quotes: Vec::new(),
            roles: Vec::new(),
            read_only: Vec::new(),
            rotations: Vec::new(),
            bundles: Vec::new(),
            certificates: Vec::new(),
            applied: HashSet::new(),
            statements: Vec::new(),
        }
    }

    /// Takes the next entry. `organization` reaches at least as far as the entry quotes it.
    pub(super) fn apply(&mut self, raw: &RawEntry, opened: &Opened, organization: &Organization) {
        if let Opened::Body(bytes, body) = opened
            && raw.header.key_index == 0
            && carries_certificates(body)
        {
            let mut next = self.clone();
            if next.admit(raw, bytes, body, organization).is_ok() {
                *self = next;
            }
        }
        self.head = raw.head_after();
    }

    fn admit(&mut self, raw: &RawEntry, bytes: &[u8], body: &Body, organization: &Organization) -> Result<()> {
        self.admit_changes(&body.said, &body.changes, organization)?;
        let device = organization.device_at(body.said.author, body.said.organization.seq);
        raw.verify(bytes, &device.ok_or_else(|| denied("unknown device"))?.verify_key)
    }

    /// Checks and takes what `said.author` says on top of this state. Used by readers and, beforehand, by the writer.
    pub(super) fn admit_changes(&mut self, said: &Said, changes: &[Change], organization: &Organization) -> Result<()> {
        let quoted = said.organization.seq;
        if quoted < self.quoted_at(self.head.seq) {
            return Err(conflict("quotes an older organization than the log does already"));
        }
        let Some(author) = organization.device_at(said.author, quoted) else {
            return Err(denied("the device is unknown or revoked"));
        };
        if self.op(said.author) >= said.op {
            return Err(conflict("the operation is known already"));
        }
        self.advance_gate(quoted, organization)?;
        for change in changes {
            match change {
                Change::Statement(statement) => self.admit_statement(said, author.user, statement)?,
                Change::Fence => {}
                _ => return Err(denied("certificates and data do not share an entry")),
            }
        }
        self.ops.insert(said.author, said.op);
        self.quotes.push((self.head.seq, quoted));
        Ok(())
    }

    /// Lets the rules see the organization as it was at the quoted head.
    fn advance_gate(&mut self, quoted: u64, organization: &Organization) -> Result<()> {
        if quoted > self.gate_at {
            let common = organization.common_between(self.gate_at, quoted);
            self.gate.admit(&CertificateBatch { common, ..CertificateBatch::default() })?;
            self.gate_at = quoted;
        }
        Ok(())
    }

    fn admit_statement(&mut self, said: &Said, caller: UserId, statement: &Statement) -> Result<()> {
        let certificate = main_certificate(statement);
        let claim = claim_of(certificate)?;
        if claim.author() != Some(said.author) {
            return Err(denied("signed by another device than the entry"));
        }
        self.check_place(statement, &claim)?;
        let batch = CertificateBatch {
            realm: [(self.realm, vec![Arc::clone(certificate)])].into(),
            ..CertificateBatch::default()
        };
        if self.role_at(caller, self.head.seq).is_none_or(|role| role < RealmRole::Manager)
            && !self.certificates.is_empty()
        {
            return Err(denied("the role does not allow it"));
        }
        self.gate.admit(&batch)?;
        self.note(statement, &claim);
        self.applied.insert(Arc::clone(certificate));
        self.statements.push((self.head.seq, *said, Arc::new(statement.clone())));
        Ok(())
    }

    /// What another writer may have changed since the caller looked, and that the statement says what it claims.
    fn check_place(&self, statement: &Statement, claim: &Certificate) -> Result<()> {
        let realm = self.realm;
        let seq = self.head.seq;
        let holds = match (statement, claim) {
            (Statement::CreateRealm { realm: claimed, .. }, Certificate::RealmRole(said)) => {
                if !self.certificates.is_empty() {
                    return Err(conflict("the realm exists"));
                }
                *claimed == realm && said.realm_id == realm
            }
            (Statement::Share { recipient, key_index, .. }, Certificate::RealmRole(said)) if said.role.is_some() => {
                if *key_index != self.key_index_at(seq) || self.role_at(said.user_id, seq) == said.role {
                    return Err(conflict("the key is not the newest, or the role holds already"));
                }
                said.realm_id == realm && *recipient == said.user_id
            }
            (Statement::Unshare { .. }, Certificate::RealmRole(said)) => {
                if self.role_at(said.user_id, seq) == said.role {
                    return Err(conflict("the role holds already"));
                }
                said.realm_id == realm
            }
            (Statement::RotateKey { key_index, accesses, .. }, Certificate::RealmKeyRotation(said)) => {
                if *key_index != self.key_index_at(seq) + 1 {
                    return Err(conflict("not the next key index"));
                }
                if accesses.keys().copied().collect::<HashSet<_>>() != self.members_at(seq) {
                    return Err(conflict("the members are others"));
                }
                said.realm_id == realm && *key_index == said.key_index
            }
            (Statement::RenameRealm { .. }, Certificate::RealmName(said)) => said.realm_id == realm,
            (Statement::ArchiveRealm { .. }, Certificate::RealmArchiving(said)) => said.realm_id == realm,
            _ => false,
        };
        if !holds {
            return Err(denied("the certificate does not say what the statement claims"));
        }
        if self.certificates.last().is_some_and(|(_, last, _)| claim.timestamp() <= *last) {
            return Err(conflict("the timestamp is not after the last one"));
        }
        Ok(())
    }

    fn note(&mut self, statement: &Statement, claim: &Certificate) {
        let seq = self.head.seq;
        self.certificates.push((seq, claim.timestamp(), Arc::clone(main_certificate(statement))));
        match claim {
            Certificate::RealmRole(said) => self.roles.push((seq, said.user_id, said.role)),
            Certificate::RealmArchiving(said) => self.read_only.push((seq, is_read_only(said.configuration))),
            _ => {}
        }
        match statement {
            Statement::Share { recipient, access, .. } => {
                if let Some(bundle) = self.bundles.last_mut() {
                    bundle.accesses.insert(*recipient, Arc::clone(access));
                }
            }
            Statement::RotateKey { bundle, accesses, .. } => {
                self.rotations.push(seq);
                let accesses = accesses.iter().map(|(user, access)| (*user, Arc::clone(access))).collect();
                self.bundles.push(Bundle { bytes: Arc::clone(bundle), accesses });
            }
            _ => {}
        }
    }

    pub(super) fn op(&self, device: DeviceId) -> u64 {
        self.ops.get(&device).copied().unwrap_or(0)
    }

    /// Role at head `at`.
    pub(super) fn role_at(&self, user: UserId, at: u64) -> Option<RealmRole> {
        let said = self.roles.iter().rev().find(|(seq, whose, _)| *seq < at && *whose == user);
        said.and_then(|(_, _, role)| *role)
    }

    fn members_at(&self, at: u64) -> HashSet<UserId> {
        let users: HashSet<UserId> = self.roles.iter().map(|(_, user, _)| *user).collect();
        users.into_iter().filter(|user| self.role_at(*user, at).is_some()).collect()
    }

    /// Index of the newest key at head `at`, 0 before the first.
    pub(super) fn key_index_at(&self, at: u64) -> u64 {
        self.rotations.iter().filter(|seq| **seq < at).count() as u64
    }

    fn read_only_at(&self, at: u64) -> bool {
        self.read_only.iter().rev().find(|(seq, _)| *seq < at).is_some_and(|(_, read_only)| *read_only)
    }

    fn quoted_at(&self, at: u64) -> u64 {
        self.quotes.iter().rev().find(|(seq, _)| *seq < at).map_or(0, |(_, quoted)| *quoted)
    }

    /// Whether a member is revoked in `organization`, and nothing in this log says so yet.
    pub(super) fn lacks_fence(&self, organization: &Organization) -> bool {
        let at = self.head.seq;
        let quoted = self.quoted_at(at);
        let is_open = |user: &UserId| organization.revoked_by(*user).is_some_and(|since| quoted <= since);
        self.members_at(at).iter().any(is_open)
    }

    fn last_timestamp_at(&self, at: u64) -> Option<Timestamp> {
        self.certificates.iter().rev().find(|(seq, _, _)| *seq < at).map(|(_, timestamp, _)| *timestamp)
    }

    pub(super) fn has_applied(&self, statement: &Statement) -> bool {
        self.applied.contains(main_certificate(statement))
    }

    /// Certificates after the cursor that `reader` may see: all while he has a role, none after he lost it.
    pub(super) fn after(&self, cursor: Option<Timestamp>, reader: UserId) -> Vec<Bytes> {
        let Some((last, _, role)) = self.roles.iter().rev().find(|(_, user, _)| *user == reader) else {
            return Vec::new();
        };
        let until = if role.is_some() { u64::MAX } else { *last };
        let visible = self
            .certificates
            .iter()
            .filter(|(seq, timestamp, _)| *seq <= until && cursor.is_none_or(|from| *timestamp > from));
        visible.map(|(_, _, bytes)| Arc::clone(bytes)).collect()
    }

    /// The bundle of a key with the access of `reader`.
    pub(super) fn bundle(&self, key_index: Option<u64>, reader: UserId) -> Result<KeysBundle> {
        let not_found = |what| Error::new(ErrorKind::NotFound, what);
        let key_index = key_index.unwrap_or(self.bundles.len() as u64);
        let index = key_index.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let bundle = index.and_then(|index| self.bundles.get(index));
        let bundle = bundle.ok_or_else(|| not_found("no such keys bundle"))?;
        let access = bundle.accesses.get(&reader).ok_or_else(|| not_found("no access to this keys bundle"))?;
        Ok(KeysBundle { key_index, bundle: Arc::clone(&bundle.bytes), access: Arc::clone(access) })
    }

    /// Every valid statement, for a checkpoint.
    pub(super) fn statements(&self) -> &[(u64, Said, Arc<Statement>)] {
        &self.statements
    }

    /// What entries left behind that are no statements.
    pub(super) fn marks(&self) -> Marks {
        let mut ops: Vec<_> = self.ops.iter().map(|(device, op)| (*device, *op)).collect();
        ops.sort_unstable();
        Marks { ops, quotes: self.quotes.clone() }
    }

    /// Takes the marks from a checkpoint, after its statements.
    pub(super) fn restore_marks(&mut self, marks: Marks) {
        self.ops = marks.ops.into_iter().collect();
        self.quotes = marks.quotes;
    }

    /// Takes a statement from a checkpoint: the same rules, but the entry itself is no longer read.
    pub(super) fn restore(
        &mut self,
        seq: u64,
        said: &Said,
        statement: &Statement,
        organization: &Organization,
    ) -> Result<()> {
        self.head.seq = seq;
        self.admit_changes(said, &[Change::Statement(Box::new(statement.clone()))], organization)
    }
}

/// Where the newest version of a vlob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VlobPlace {
    pub(super) version: u32,
    pub(super) key_index: u64,
    /// Index into `Data::authors`.
    pub(super) author: u32,
    pub(super) timestamp: Timestamp,
    /// Entry that brought it.
    pub(super) seq: u64,
    pub(super) payload: Payload,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockPlace {
    /// An object of its own, named for the block.
    Object,
    /// In an entry or a pack.
    Part { key_index: u64, seq: u64, payload: Payload },
}

/// Second pass: what is stored.
#[derive(Default)]
pub(super) struct Data {
    /// How many entries were taken.
    pub(super) seq: u64,
    pub(super) ops: HashMap<DeviceId, u64>,
    pub(super) quoted: u64,
    pub(super) last_said: Option<Timestamp>,
    pub(super) authors: Vec<DeviceId>,
    pub(super) vlobs: Table<VlobId, VlobPlace>,
    pub(super) blocks: Table<BlockId, BlockPlace>,
    /// Packs of manifests of any version.
    pub(super) manifests: HashSet<PackName>,
    /// Objects that are going to be deleted, and since when.
    pub(super) doomed: HashMap<Doomed, Timestamp>,
    /// What the last entry of each device wrote: a device that comes back after truncation took that entry learns from
    /// it that its write had landed.
    pub(super) last_writes: HashMap<DeviceId, Vec<Written>>,
}

/// Tells one write of a device from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) id: VlobId,
    pub(super) version: u32,
    pub(super) timestamp: Timestamp,
    /// Length of its bytes.
    pub(super) length: u32,
}

impl Written {
    fn by(change: &VlobChange) -> Self {
        let (Payload::Inline(span) | Payload::Pack(_, span)) = change.payload;
        Self { id: change.id, version: change.version, timestamp: change.timestamp, length: span.length }
    }
}

/// What an entry would make of a vlob, while it is being checked.
type Overlay = HashMap<VlobId, (u32, Timestamp)>;

/// What a data entry is checked against.
pub(super) struct Rules<'a> {
    pub(super) certificates: &'a Certificates,
    pub(super) organization: &'a Organization,
}

impl Data {
    /// Takes the next entry; `false` when that needs a key which is not there yet.
    pub(super) fn apply(&mut self, raw: &RawEntry, opened: &Opened, rules: &Rules<'_>) -> bool {
        match opened {
            Opened::Sealed => return false,
            Opened::Body(bytes, body) if !carries_certificates(body) => {
                if self.check(raw, bytes, body, rules).is_ok() {
                    self.take(&body.said, &body.changes);
                }
            }
            Opened::Void | Opened::Body(..) => {}
        }
        self.seq += 1;
        true
    }

    fn check(&self, raw: &RawEntry, bytes: &[u8], body: &Body, rules: &Rules<'_>) -> Result<()> {
        let said = &body.said;
        let author = self.check_author(said, raw.header.key_index, rules)?;
        raw.verify(bytes, &author)?;
        if self.op(said.author) >= said.op {
            return Err(conflict("the operation is known already"));
        }
        self.check_changes(&body.changes, rules)
    }

    /// Whether the author may write data here; returns his key.
    pub(super) fn check_author(&self, said: &Said, key_index: u64, rules: &Rules<'_>) -> Result<[u8; 32]> {
        let quoted = said.organization.seq;
        if quoted < self.quoted.max(rules.certificates.quoted_at(self.seq)) {
            return Err(conflict("quotes an older organization than the log does already"));
        }
        let device = rules.organization.device_at(said.author, quoted);
        let device = device.ok_or_else(|| denied("the device is unknown or revoked"))?;
        let may_write = rules.certificates.role_at(device.user, self.seq).is_some_and(RealmRole::can_write);
        if !may_write || rules.certificates.read_only_at(self.seq) {
            return Err(denied("the role does not allow writing"));
        }
        if key_index != rules.certificates.key_index_at(self.seq) {
            return Err(conflict("sealed with an older key"));
        }
        Ok(device.verify_key)
    }

    fn check_changes(&self, changes: &[Change], rules: &Rules<'_>) -> Result<()> {
        let mut overlay = Overlay::new();
        for change in changes {
            match change {
                Change::Vlob(vlob) => self.check_vlob(vlob, &mut overlay, rules)?,
                Change::Place { payload, .. } => self.check_payload(*payload)?,
                Change::GcIntent(_) | Change::Fence => {}
                Change::Statement(_) | Change::Realm(_) => {
                    return Err(denied("certificates and data do not share an entry"));
                }
            }
        }
        Ok(())
    }

    fn check_payload(&self, payload: Payload) -> Result<()> {
        match payload {
            Payload::Pack(name, _) if self.doomed.contains_key(&Doomed::Pack(name)) => {
                Err(conflict("uses a doomed pack"))
            }
            _ => Ok(()),
        }
    }

    fn check_vlob(&self, vlob: &VlobChange, overlay: &mut Overlay, rules: &Rules<'_>) -> Result<()> {
        let known = self.vlobs.get(&vlob.id).map(|place| (place.version, place.timestamp));
        let last = overlay.get(&vlob.id).copied().or(known);
        let key_index = rules.certificates.key_index_at(self.seq);
        let previous_is_right = match (overlay.get(&vlob.id), self.vlobs.get(&vlob.id)) {
            (Some(_), _) => vlob.previous == self.seq,
            (None, Some(place)) => vlob.previous == place.seq,
            (None, None) => true,
        };
        let floor = last.map(|(_, timestamp)| timestamp).max(rules.certificates.last_timestamp_at(self.seq));
        let doomed_payload = match vlob.payload {
            Payload::Pack(name, _) => self.doomed.contains_key(&Doomed::Manifests(name)),
            Payload::Inline(_) => false,
        };
        let holds = last.map_or(Some(1), |(version, _)| version.checked_add(1)) == Some(vlob.version)
            && vlob.key_index == key_index
            && previous_is_right
            && floor.is_none_or(|floor| vlob.timestamp > floor)
            && !doomed_payload
            && !vlob.new_blocks.iter().any(|block| self.doomed.contains_key(&Doomed::Block(*block)));
        if !holds {
            return Err(conflict("a version does not follow the one before"));
        }
        overlay.insert(vlob.id, (vlob.version, vlob.timestamp));
        Ok(())
    }

    fn take(&mut self, said: &Said, changes: &[Change]) {
        let author = self.author_index(said.author);
        for change in changes {
            match change {
                Change::Vlob(vlob) => {
                    for block in &vlob.new_blocks {
                        self.blocks.insert_new(*block, BlockPlace::Object);
                    }
                    if let Payload::Pack(name, _) = vlob.payload {
                        self.manifests.insert(name);
                    }
                    self.vlobs.insert(
                        vlob.id,
                        VlobPlace {
                            version: vlob.version,
                            key_index: vlob.key_index,
                            author,
                            timestamp: vlob.timestamp,
                            seq: self.seq,
                            payload: vlob.payload,
                        },
                    );
                }
                Change::Place { id, key_index, payload } => {
                    let place = BlockPlace::Part { key_index: *key_index, seq: self.seq, payload: *payload };
                    self.blocks.insert_new(*id, place);
                }
                Change::GcIntent(names) => self.doom(names, said.timestamp),
                Change::Fence | Change::Statement(_) | Change::Realm(_) => {}
            }
        }
        let written: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Vlob(vlob) => Some(Written::by(vlob)),
                _ => None,
            })
            .collect();
        if !written.is_empty() {
            self.last_writes.insert(said.author, written);
        }
        self.ops.insert(said.author, said.op);
        self.quoted = self.quoted.max(said.organization.seq);
        self.last_said = self.last_said.max(Some(said.timestamp));
    }

    /// What the state references is never doomed, whoever says so.
    fn doom(&mut self, names: &[Doomed], since: Timestamp) {
        let live = self.live();
        for name in names.iter().filter(|name| !live.contains(name)) {
            self.doomed.entry(*name).or_insert(since);
        }
    }

    /// Every object that the state references.
    pub(super) fn live(&self) -> HashSet<Doomed> {
        let mut live: HashSet<Doomed> = self.manifests.iter().map(|name| Doomed::Manifests(*name)).collect();
        for (id, place) in self.blocks.iter() {
            match place {
                BlockPlace::Object => live.insert(Doomed::Block(*id)),
                BlockPlace::Part { payload: Payload::Pack(name, _), .. } => live.insert(Doomed::Pack(*name)),
                BlockPlace::Part { payload: Payload::Inline(_), .. } => continue,
            };
        }
        live
    }

    fn author_index(&mut self, author: DeviceId) -> u32 {
        let index = self.authors.iter().position(|known| *known == author).unwrap_or_else(|| {
            self.authors.push(author);
            self.authors.len() - 1
        });
        u32::try_from(index).expect("an organization has far fewer than 2^32 devices")
    }

    pub(super) fn op(&self, device: DeviceId) -> u64 {
        self.ops.get(&device).copied().unwrap_or(0)
    }

    pub(super) fn author_of(&self, place: &VlobPlace) -> DeviceId {
        self.authors[place.author as usize]
    }

    /// Whether the last entry of `author` held this write. Asked only when its bytes cannot be compared any more.
    pub(super) fn has_written_last(&self, author: DeviceId, write: &VlobWrite) -> bool {
        self.last_writes.get(&author).is_some_and(|written| {
            written.iter().any(|written| {
                (written.id, written.version, written.timestamp) == (write.id, write.version, write.timestamp)
                    && written.length as usize == write.blob.len()
            })
        })
    }

    /// A timestamp for the next entry: `now`, but after every entry before.
    pub(super) fn next_timestamp(&self, now: Timestamp) -> Timestamp {
        self.last_said.map_or(now, |last| now.max(last.next()))
    }

    /// Vlobs that changed from entry `from` on.
    pub(super) fn changed_since(&self, from: u64) -> Vec<(VlobId, u32)> {
        if from >= self.seq {
            return Vec::new();
        }
        let changed = self.vlobs.iter().filter(|(_, place)| place.seq >= from);
        changed.map(|(id, place)| (*id, place.version)).collect()
    }

    /// What would become of a write as the next one, `None` when that depends on whether its version is a repeat.
    pub(super) fn judge(&self, write: &VlobWrite, pending: &Pending, rules: &Rules<'_>) -> Judgement {
        let known = self.vlobs.get(&write.id).map(|place| (place.version, place.timestamp));
        let last = pending.versions.get(&write.id).copied().or(known);
        let last_version = last.map_or(0, |(version, _)| version);
        if write.version <= last_version && write.version > 0 {
            return Judgement::PerhapsRepeat;
        }
        if last_version.checked_add(1) != Some(write.version) {
            return Judgement::Is(WriteOutcome::Conflict);
        }
        if write.key_index != rules.certificates.key_index_at(self.seq) {
            return Judgement::Is(WriteOutcome::OldKey);
        }
        let floor = last.map(|(_, timestamp)| timestamp).max(rules.certificates.last_timestamp_at(self.seq));
        if let Some(floor) = floor.filter(|floor| write.timestamp <= *floor) {
            return Judgement::Is(WriteOutcome::TimestampTooOld(floor));
        }
        Judgement::Is(WriteOutcome::Stored)
    }
}

/// Versions of writes that are to go into the same entry.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) versions: Overlay,
}

/// What is known of a write before its blocks are looked at.
pub(super) enum Judgement {
    /// This.
    Is(WriteOutcome),
    /// The version exists: compare the bytes.
    PerhapsRepeat,
}
