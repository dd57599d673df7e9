//! Second pass: data, which needs the realm's keys.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use parsecfs_core::{
    certificate::RealmRole,
    id::{DeviceId, VlobId},
    storage::{Result, VlobWrite, WriteOutcome},
    time::Timestamp,
};

use super::{Certificates, Opened, carries_certificates, places::Places};
use crate::objects::{
    entry::{Body, Change, Doomed, Payload, RawEntry, Said, VlobChange},
    key::PackName,
    organization::{Organization, conflict, denied},
};

/// Where the newest version of a vlob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::objects) struct VlobPlace {
    pub(in crate::objects) version: u32,
    pub(in crate::objects) key_index: u64,
    /// Index into `Data::authors`.
    pub(in crate::objects) author: u32,
    pub(in crate::objects) timestamp: Timestamp,
    /// Entry that brought it.
    pub(in crate::objects) seq: u64,
    pub(in crate::objects) payload: Payload,
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::objects) enum BlockPlace {
    /// An object of its own, named for the block.
    Object,
    /// In an entry or a pack.
    Part { key_index: u64, seq: u64, payload: Payload },
}

/// Second pass: what is stored.
#[derive(Default)]
pub(in crate::objects) struct Data {
    /// How many entries were taken.
    pub(in crate::objects) seq: u64,
    pub(in crate::objects) ops: HashMap<DeviceId, u64>,
    pub(in crate::objects) quoted: u64,
    pub(in crate::objects) last_said: Option<Timestamp>,
    pub(in crate::objects) authors: Vec<DeviceId>,
    pub(in crate::objects) places: Places,
    /// Packs of manifests of any version.
    pub(in crate::objects) manifests: HashSet<PackName>,
    /// Objects that are going to be deleted, and since when.
    pub(in crate::objects) doomed: HashMap<Doomed, Timestamp>,
    /// What the last entry of each device wrote: a device that comes back after truncation took that entry learns from
    /// it that its write had landed.
    pub(in crate::objects) last_writes: HashMap<DeviceId, Vec<Written>>,
    pub(in crate::objects) recent: Recent,
}

/// Vlobs that changed last, so that who asks again and again what is new does not go through all there are.
#[derive(Default)]
pub(in crate::objects) struct Recent {
    /// Entry and vlob; all of the entries from this number on.
    changes: VecDeque<(u64, VlobId)>,
    from: u64,
}

/// Changes that are kept in [`Recent`].
const RECENT_MAX: usize = 8192;

impl Recent {
    fn put(&mut self, seq: u64, id: VlobId) {
        self.changes.push_back((seq, id));
        if self.changes.len() > RECENT_MAX
            && let Some((gone, _)) = self.changes.pop_front()
        {
            self.from = gone + 1;
        }
    }

    /// What changed from an entry on; `None` when that was too long ago.
    fn since(&self, from: u64) -> Option<BTreeSet<VlobId>> {
        let first = self.changes.partition_point(|(seq, _)| *seq < from);
        (from >= self.from).then(|| self.changes.range(first..).map(|(_, id)| *id).collect())
    }
}

/// Tells one write of a device from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::objects) struct Written {
    pub(in crate::objects) id: VlobId,
    pub(in crate::objects) version: u32,
    pub(in crate::objects) timestamp: Timestamp,
    /// Length of its bytes.
    pub(in crate::objects) length: u32,
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
pub(in crate::objects) struct Rules<'a> {
    pub(in crate::objects) certificates: &'a Certificates,
    pub(in crate::objects) organization: &'a Organization,
}

impl Data {
    /// Takes the next entry; `false` when that needs a key which is not there yet.
    pub(in crate::objects) fn apply(&mut self, raw: &RawEntry, opened: &Opened, rules: &Rules<'_>) -> bool {
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
    pub(in crate::objects) fn check_author(&self, said: &Said, key_index: u64, rules: &Rules<'_>) -> Result<[u8; 32]> {
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
                Change::Statement(_) | Change::Realm(_) | Change::Recovery(_) => {
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
        let known = self.places.vlob(&vlob.id).map(|place| (place.version, place.timestamp));
        let last = overlay.get(&vlob.id).copied().or(known);
        let key_index = rules.certificates.key_index_at(self.seq);
        let previous_is_right = match (overlay.get(&vlob.id), self.places.vlob(&vlob.id)) {
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
                        self.places.put_block(*block, &BlockPlace::Object);
                    }
                    if let Payload::Pack(name, _) = vlob.payload {
                        self.manifests.insert(name);
                    }
                    let place = VlobPlace {
                        version: vlob.version,
                        key_index: vlob.key_index,
                        author,
                        timestamp: vlob.timestamp,
                        seq: self.seq,
                        payload: vlob.payload,
                    };
                    self.places.put_vlob(vlob.id, &place);
                    self.recent.put(self.seq, vlob.id);
                }
                Change::Place { id, key_index, payload } => {
                    let place = BlockPlace::Part { key_index: *key_index, seq: self.seq, payload: *payload };
                    self.places.put_block(*id, &place);
                }
                Change::GcIntent(names) => self.doom(names, said.timestamp),
                Change::Fence | Change::Statement(_) | Change::Realm(_) | Change::Recovery(_) => {}
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
    pub(in crate::objects) fn live(&self) -> HashSet<Doomed> {
        let mut live: HashSet<Doomed> = self.manifests.iter().map(|name| Doomed::Manifests(*name)).collect();
        for (id, place) in self.places.blocks() {
            match place {
                BlockPlace::Object => live.insert(Doomed::Block(*id)),
                BlockPlace::Part { payload: Payload::Pack(name, _), .. } => live.insert(Doomed::Pack(name)),
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

    pub(in crate::objects) fn op(&self, device: DeviceId) -> u64 {
        self.ops.get(&device).copied().unwrap_or(0)
    }

    pub(in crate::objects) fn author_of(&self, place: &VlobPlace) -> DeviceId {
        self.authors[place.author as usize]
    }

    /// Whether the last entry of `author` held this write. Asked only when its bytes cannot be compared any more.
    pub(in crate::objects) fn has_written_last(&self, author: DeviceId, write: &VlobWrite) -> bool {
        self.last_writes.get(&author).is_some_and(|written| {
            written.iter().any(|written| {
                (written.id, written.version, written.timestamp) == (write.id, write.version, write.timestamp)
                    && written.length as usize == write.blob.len()
            })
        })
    }

    /// A timestamp for the next entry: `now`, but after every entry before.
    pub(in crate::objects) fn next_timestamp(&self, now: Timestamp) -> Timestamp {
        self.last_said.map_or(now, |last| now.max(last.next()))
    }

    /// As it stands in a checkpoint behind so many entries.
    pub(in crate::objects) fn begin_at(&mut self, seq: u64) {
        self.seq = seq;
        self.recent = Recent { changes: VecDeque::new(), from: seq };
    }

    /// Vlobs that changed from entry `from` on.
    pub(in crate::objects) fn changed_since(&self, from: u64) -> Vec<(VlobId, u32)> {
        if from >= self.seq {
            return Vec::new();
        }
        if let Some(recent) = self.recent.since(from) {
            return recent.into_iter().filter_map(|id| Some((id, self.places.vlob(&id)?.version))).collect();
        }
        let changed = self.places.vlobs().filter(|(_, place)| place.seq >= from);
        changed.map(|(id, place)| (*id, place.version)).collect()
    }

    /// What would become of a write as the next one, `None` when that depends on whether its version is a repeat.
    pub(in crate::objects) fn judge(&self, write: &VlobWrite, pending: &Pending, rules: &Rules<'_>) -> Judgement {
        let known = self.places.vlob(&write.id).map(|place| (place.version, place.timestamp));
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
pub(in crate::objects) struct Pending {
    pub(in crate::objects) versions: Overlay,
}

/// What is known of a write before its blocks are looked at.
pub(in crate::objects) enum Judgement {
    /// This.
    Is(WriteOutcome),
    /// The version exists: compare the bytes.
    PerhapsRepeat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_lately_is_known_as_far_as_it_is_kept() {
        let id = |n: u64| VlobId::from_bytes(u128::from(n % 100).to_le_bytes());
        let mut recent = Recent { changes: VecDeque::new(), from: 5 };
        // Three changes in each entry.
        for n in 0..30 {
            recent.put(5 + n / 3, id(n));
        }
        assert_eq!(recent.since(4), None, "what a checkpoint took");
        assert_eq!(recent.since(5).map(|all| all.len()), Some(30));
        assert_eq!(recent.since(14), Some([27, 28, 29].map(id).into()));
        assert_eq!(recent.since(15), Some(BTreeSet::new()));
        for n in 30..20_000 {
            recent.put(5 + n / 3, id(n));
        }
        let oldest = recent.from;
        assert_eq!(recent.since(oldest - 1), None);
        assert_eq!(recent.since(oldest).map(|all| all.len()), Some(100), "each of them once");
        assert!(recent.changes.len() <= RECENT_MAX && recent.changes.iter().any(|(seq, _)| *seq == oldest));
    }
}
