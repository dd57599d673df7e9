//! The organization log, replayed: who exists, since when, until when.
//!
//! Same verdict on every client for ever: nothing here looks at a clock or at anything outside the log.
//!
//! Invariant: positions are numbers of entries. "At head `n`" means after the entries `0..n`.

use std::collections::{HashMap, HashSet};

use parsecfs_core::{
    certificate::{Certificate, UserProfile},
    id::{DeviceId, RealmId, UserId},
    storage::{Bytes, CertificateBatch, CertificateCursor, Error, ErrorKind, LogKeys, Result, Statement},
    time::Timestamp,
};

use super::{
    entry::{Body, Change, Hash, Head, RawEntry, Said},
    gate::Gate,
    recovery::{Recoveries, RecoverySetup},
};
use crate::{
    recovery::RecoveryCertificate,
    statement::{claim_of, main_certificate},
};

/// One device as the log says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Device {
    pub(super) user: UserId,
    pub(super) verify_key: [u8; 32],
    /// Number of the entry that made it.
    since: u64,
}

#[derive(Clone)]
struct CommonCertificate {
    timestamp: Timestamp,
    /// Number of the entry that brought it.
    seq: u64,
    full: Bytes,
    redacted: Bytes,
}

/// Replayed state.
#[derive(Clone)]
pub(super) struct Organization {
    pub(super) head: Head,
    hashes: Vec<Hash>,
    ops: HashMap<DeviceId, u64>,
    last_said: Option<Timestamp>,
    gate: Gate,
    devices: HashMap<DeviceId, Device>,
    revoked: HashMap<UserId, u64>,
    outsiders: HashSet<UserId>,
    certificates: Vec<CommonCertificate>,
    pub(super) recoveries: Recoveries,
    realms: Vec<RealmId>,
    applied: HashSet<Bytes>,
}

pub(super) fn conflict(why: &str) -> Error {
    Error::new(ErrorKind::VersionConflict, why)
}

pub(super) fn denied(why: &str) -> Error {
    Error::new(ErrorKind::Denied, why)
}

/// Opens and reads the body of an entry: `None` when the entry is void whatever else it says.
///
/// # Errors
/// `NotFound` when the key is not there, `Unsupported` when the entry needs a newer program.
pub(super) fn open_body(raw: &RawEntry, keys: &dyn LogKeys) -> Result<Option<(Vec<u8>, Body)>> {
    let void_when_corrupt = |error: Error| match error.kind() {
        ErrorKind::Corrupt => Ok(None),
        _ => Err(error),
    };
    let body = match raw.open(keys) {
        Ok(body) => body,
        Err(error) => return void_when_corrupt(error),
    };
    match Body::decode(&body) {
        Ok(decoded) => Ok(Some((body, decoded))),
        Err(error) => void_when_corrupt(error),
    }
}

impl Organization {
    pub(super) fn empty(root: [u8; 32]) -> Self {
        Self {
            head: Head::EMPTY,
            hashes: Vec::new(),
            ops: HashMap::new(),
            last_said: None,
            gate: Gate::new(root),
            devices: HashMap::new(),
            revoked: HashMap::new(),
            outsiders: HashSet::new(),
            certificates: Vec::new(),
            recoveries: Recoveries::default(),
            realms: Vec::new(),
            applied: HashSet::new(),
        }
    }

    /// Takes the next entry; a void one only lengthens the chain.
    pub(super) fn apply(&mut self, raw: &RawEntry, keys: &dyn LogKeys) -> Result<()> {
        if let Some((bytes, body)) = open_body(raw, keys)? {
            let mut next = self.clone();
            if next.admit(raw, &bytes, &body).is_ok() {
                *self = next;
            }
        }
        self.head = raw.head_after();
        self.hashes.push(raw.hash);
        Ok(())
    }

    fn admit(&mut self, raw: &RawEntry, bytes: &[u8], body: &Body) -> Result<()> {
        let said = &body.said;
        self.admit_changes(said, &body.changes)?;
        // After the changes, because the first entry makes the device that signs it.
        let device = self.device_at(said.author, self.head.seq + 1).ok_or_else(|| denied("unknown device"))?;
        raw.verify(bytes, &device.verify_key)
    }

    /// Checks and takes what `said.author` says on top of this state. Used by readers and, beforehand, by the writer.
    pub(super) fn admit_changes(&mut self, said: &Said, changes: &[Change]) -> Result<()> {
        let author = self.device_at(said.author, self.head.seq);
        if author.is_none() && self.head.seq > 0 {
            return Err(denied("the device is unknown or revoked"));
        }
        if self.op(said.author) >= said.op {
            return Err(conflict("the operation is known already"));
        }
        for change in changes {
            match change {
                Change::Statement(statement) => self.admit_statement(said.author, statement)?,
                Change::Realm(realm) if self.head.seq > 0 => self.realms.push(*realm),
                Change::Recovery(setup) => self.admit_recovery(said.author, setup)?,
                Change::Fence => {}
                _ => return Err(denied("this does not belong into the organization log")),
            }
        }
        self.ops.insert(said.author, said.op);
        self.last_said = self.last_said.max(Some(said.timestamp));
        Ok(())
    }

    fn admit_statement(&mut self, author: DeviceId, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Bootstrap { user, device, redacted_user, redacted_device } => {
                if self.head.seq != 0 {
                    return Err(conflict("the organization is bootstrapped"));
                }
                self.take(None, vec![(user, redacted_user), (device, redacted_device)])?;
                if self.devices.contains_key(&author) { Ok(()) } else { Err(denied("bootstrapped by another device")) }
            }
            Statement::CreateUser { user, device, redacted_user, redacted_device } => {
                self.take(Some(author), vec![(user, redacted_user), (device, redacted_device)])
            }
            Statement::CreateDevice { device, redacted_device } => {
                self.take(Some(author), vec![(device, redacted_device)])
            }
            Statement::UpdateUser { certificate } | Statement::RevokeUser { certificate } => {
                self.take(Some(author), vec![(certificate, certificate)])
            }
            Statement::DeleteRecovery { certificate } => self.end_recovery(author, certificate),
            _ => return Err(denied("this does not belong into the organization log")),
        }?;
        self.applied.insert(main_certificate(statement).clone());
        Ok(())
    }

    fn admit_recovery(&mut self, author: DeviceId, setup: &RecoverySetup) -> Result<()> {
        self.check_recovery(author, &setup.brief)?;
        self.gate.admit_recovery(&setup.brief, &setup.shares)?;
        let certificate = RecoveryCertificate::setup(&setup.brief, &setup.shares)?;
        self.recoveries.push(certificate, Some(setup.object));
        self.applied.insert(setup.brief.clone());
        Ok(())
    }

    fn end_recovery(&mut self, author: DeviceId, certificate: &Bytes) -> Result<()> {
        self.check_recovery(author, certificate)?;
        self.gate.admit(&CertificateBatch { shamir: vec![certificate.clone()], ..Default::default() })?;
        self.recoveries.push(RecoveryCertificate::deletion(certificate)?, None);
        Ok(())
    }

    fn check_recovery(&self, author: DeviceId, certificate: &Bytes) -> Result<()> {
        let claim = claim_of(certificate)?;
        if claim.author() != Some(author) {
            return Err(denied("signed by another device than the entry"));
        }
        self.check_time(claim.timestamp())?;
        // Somebody may have been faster.
        match &claim {
            Certificate::ShamirRecoveryBrief(brief) if self.recoveries.setup(brief.user_id).is_some() => {
                Err(conflict("there is a recovery already"))
            }
            Certificate::ShamirRecoveryDeletion(said)
                if self.recoveries.setup(said.setup_to_delete_user_id).map(|setup| setup.timestamp)
                    != Some(said.setup_to_delete_timestamp) =>
            {
                Err(conflict("there is no such recovery any more"))
            }
            _ => Ok(()),
        }
    }

    /// People and recovery are one sequence: what a reader is shown of both must hold in whatever order it is checked.
    fn check_time(&self, timestamp: Timestamp) -> Result<()> {
        match self.certificates.last().map(|last| last.timestamp).max(self.recoveries.last()) {
            Some(last) if timestamp <= last => {
                Err(conflict("the timestamp is not after the last one").only_after(last))
            }
            _ => Ok(()),
        }
    }

    fn take(&mut self, author: Option<DeviceId>, certificates: Vec<(&Bytes, &Bytes)>) -> Result<()> {
        let mut batch = CertificateBatch::default();
        for (full, redacted) in certificates {
            let claim = claim_of(full)?;
            if claim.author() != author {
                return Err(denied("signed by another device than the entry"));
            }
            if claim_of(redacted)? != claim.redacted() {
                return Err(denied("the redacted certificate says something else"));
            }
            self.check_order(&claim, batch.common.is_empty())?;
            batch.common.push(full.clone());
            self.note(&claim);
            self.certificates.push(CommonCertificate {
                timestamp: claim.timestamp(),
                seq: self.head.seq,
                full: full.clone(),
                redacted: redacted.clone(),
            });
        }
        self.gate.admit(&batch)
    }

    /// What another writer may have changed since the caller looked.
    fn check_order(&self, claim: &Certificate, is_first: bool) -> Result<()> {
        if is_first {
            self.check_time(claim.timestamp())?;
        }
        let holds_already = match claim {
            Certificate::Device(said) => self.devices.contains_key(&said.device_id),
            Certificate::RevokedUser(said) => self.revoked.contains_key(&said.user_id),
            Certificate::User(_) | Certificate::UserUpdate(_) => false,
            _ => return Err(denied("this does not belong into the organization log")),
        };
        if holds_already { Err(conflict("it holds already")) } else { Ok(()) }
    }

    fn note(&mut self, claim: &Certificate) {
        let since = self.head.seq;
        match claim {
            Certificate::Device(said) => {
                let device = Device { user: said.user_id, verify_key: *said.verify_key.as_bytes(), since };
                self.devices.insert(said.device_id, device);
            }
            Certificate::RevokedUser(said) => {
                self.revoked.insert(said.user_id, since);
            }
            Certificate::User(said) => self.note_profile(said.user_id, said.profile),
            Certificate::UserUpdate(said) => self.note_profile(said.user_id, said.new_profile),
            _ => {}
        }
    }

    fn note_profile(&mut self, user: UserId, profile: UserProfile) {
        if profile == UserProfile::Outsider {
            self.outsiders.insert(user);
        } else {
            self.outsiders.remove(&user);
        }
    }

    /// The device, when it exists and its user is not revoked at head `at`.
    pub(super) fn device_at(&self, device: DeviceId, at: u64) -> Option<Device> {
        let found = self.devices.get(&device).filter(|found| found.since < at)?;
        let revoked = self.revoked.get(&found.user).is_some_and(|since| *since < at);
        (!revoked).then_some(*found)
    }

    /// All devices that exist now and whose users are not revoked.
    pub(super) fn devices(&self) -> impl Iterator<Item = (DeviceId, Device)> + '_ {
        self.devices.keys().filter_map(|id| Some((*id, self.device_at(*id, self.head.seq)?)))
    }

    /// Number of the entry that revoked a user.
    pub(super) fn revoked_by(&self, user: UserId) -> Option<u64> {
        self.revoked.get(&user).copied()
    }

    /// Whether `head` is on this chain; `None` when this state does not reach so far.
    pub(super) fn contains(&self, head: Head) -> Option<bool> {
        match head.seq.checked_sub(1) {
            None => Some(head == Head::EMPTY),
            Some(last) => self.hashes.get(usize::try_from(last).ok()?).map(|hash| *hash == head.hash),
        }
    }

    pub(super) fn op(&self, device: DeviceId) -> u64 {
        self.ops.get(&device).copied().unwrap_or(0)
    }

    /// A timestamp for the next entry: `now`, but after every entry before.
    pub(super) fn next_timestamp(&self, now: Timestamp) -> Timestamp {
        self.last_said.map_or(now, |last| now.max(last.next()))
    }

    /// Whether a change is part of this state.
    pub(super) fn has_applied(&self, change: &Change) -> bool {
        match change {
            Change::Statement(statement) => self.applied.contains(main_certificate(statement)),
            Change::Recovery(setup) => self.applied.contains(&setup.brief),
            Change::Realm(realm) => self.realms.contains(realm),
            Change::Vlob(_) | Change::Place { .. } | Change::GcIntent(_) | Change::Fence => false,
        }
    }

    pub(super) fn realms(&self) -> &[RealmId] {
        &self.realms
    }

    /// Common certificates that entries in `from..to` brought, as rules see them.
    pub(super) fn common_between(&self, from: u64, to: u64) -> Vec<Bytes> {
        let between = self.certificates.iter().filter(|certificate| (from..to).contains(&certificate.seq));
        between.map(|certificate| certificate.full.clone()).collect()
    }

    /// Common certificates after the cursor, redacted for outsiders.
    pub(super) fn certificates(&self, cursor: &CertificateCursor, reader: UserId) -> Vec<Bytes> {
        let redacted = self.outsiders.contains(&reader);
        let is_new = |c: &&CommonCertificate| cursor.common.is_none_or(|from| c.timestamp > from);
        let new = self.certificates.iter().filter(is_new);
        new.map(|c| if redacted { c.redacted.clone() } else { c.full.clone() }).collect()
    }
}
