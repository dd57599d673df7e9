//! First pass: certificates, which every device of the organization can read.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parsecfs_core::{
    certificate::{Certificate, RealmRole},
    id::{DeviceId, RealmId, UserId},
    storage::{Bytes, CertificateBatch, Error, ErrorKind, KeysBundle, Result, Statement},
    time::Timestamp,
};

use super::{Opened, carries_certificates};
use crate::{
    objects::{
        entry::{Body, Change, Head, RawEntry, Said},
        gate::Gate,
        organization::{Organization, conflict, denied},
    },
    statement::{claim_of, is_read_only, main_certificate},
};

/// First pass: who may do what, as of each position.
#[derive(Clone)]
pub(in crate::objects) struct Certificates {
    realm: RealmId,
    pub(in crate::objects) head: Head,
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
pub(in crate::objects) struct Marks {
    pub(in crate::objects) ops: Vec<(DeviceId, u64)>,
    pub(in crate::objects) quotes: Vec<(u64, u64)>,
}

#[derive(Clone)]
struct Bundle {
    bytes: Bytes,
    accesses: HashMap<UserId, Bytes>,
}

impl Certificates {
    pub(in crate::objects) fn empty(realm: RealmId, root: [u8; 32]) -> Self {
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
    pub(in crate::objects) fn apply(&mut self, raw: &RawEntry, opened: &Opened, organization: &Organization) {
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
    pub(in crate::objects) fn admit_changes(
        &mut self,
        said: &Said,
        changes: &[Change],
        organization: &Organization,
    ) -> Result<()> {
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
        let batch =
            CertificateBatch { realm: [(self.realm, vec![certificate.clone()])].into(), ..CertificateBatch::default() };
        // What a member may say is for the rules; a member of any role may become owner when nobody higher is left.
        if self.role_at(caller, self.head.seq).is_none() && !self.certificates.is_empty() {
            return Err(denied("the author is no member"));
        }
        self.gate.admit(&batch)?;
        self.note(statement, &claim);
        self.applied.insert(certificate.clone());
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
        self.certificates.push((seq, claim.timestamp(), main_certificate(statement).clone()));
        match claim {
            Certificate::RealmRole(said) => self.roles.push((seq, said.user_id, said.role)),
            Certificate::RealmArchiving(said) => self.read_only.push((seq, is_read_only(said.configuration))),
            _ => {}
        }
        match statement {
            Statement::Share { recipient, access, .. } => {
                if let Some(bundle) = self.bundles.last_mut() {
                    bundle.accesses.insert(*recipient, access.clone());
                }
            }
            Statement::RotateKey { bundle, accesses, .. } => {
                self.rotations.push(seq);
                let accesses = accesses.iter().map(|(user, access)| (*user, access.clone())).collect();
                self.bundles.push(Bundle { bytes: bundle.clone(), accesses });
            }
            _ => {}
        }
    }

    pub(in crate::objects) fn op(&self, device: DeviceId) -> u64 {
        self.ops.get(&device).copied().unwrap_or(0)
    }

    /// Role at head `at`.
    pub(in crate::objects) fn role_at(&self, user: UserId, at: u64) -> Option<RealmRole> {
        let said = self.roles.iter().rev().find(|(seq, whose, _)| *seq < at && *whose == user);
        said.and_then(|(_, _, role)| *role)
    }

    fn members_at(&self, at: u64) -> HashSet<UserId> {
        let users: HashSet<UserId> = self.roles.iter().map(|(_, user, _)| *user).collect();
        users.into_iter().filter(|user| self.role_at(*user, at).is_some()).collect()
    }

    /// Index of the newest key at head `at`, 0 before the first.
    pub(in crate::objects) fn key_index_at(&self, at: u64) -> u64 {
        self.rotations.iter().filter(|seq| **seq < at).count() as u64
    }

    pub(super) fn read_only_at(&self, at: u64) -> bool {
        self.read_only.iter().rev().find(|(seq, _)| *seq < at).is_some_and(|(_, read_only)| *read_only)
    }

    pub(super) fn quoted_at(&self, at: u64) -> u64 {
        self.quotes.iter().rev().find(|(seq, _)| *seq < at).map_or(0, |(_, quoted)| *quoted)
    }

    /// Whether a member is revoked in `organization`, and nothing in this log says so yet.
    pub(in crate::objects) fn lacks_fence(&self, organization: &Organization) -> bool {
        let at = self.head.seq;
        let quoted = self.quoted_at(at);
        let is_open = |user: &UserId| organization.revoked_by(*user).is_some_and(|since| quoted <= since);
        self.members_at(at).iter().any(is_open)
    }

    pub(super) fn last_timestamp_at(&self, at: u64) -> Option<Timestamp> {
        self.certificates.iter().rev().find(|(seq, _, _)| *seq < at).map(|(_, timestamp, _)| *timestamp)
    }

    pub(in crate::objects) fn has_applied(&self, statement: &Statement) -> bool {
        self.applied.contains(main_certificate(statement))
    }

    /// Certificates after the cursor that `reader` may see: all while he has a role, none after he lost it.
    pub(in crate::objects) fn after(&self, cursor: Option<Timestamp>, reader: UserId) -> Vec<Bytes> {
        let Some((last, _, role)) = self.roles.iter().rev().find(|(_, user, _)| *user == reader) else {
            return Vec::new();
        };
        let until = if role.is_some() { u64::MAX } else { *last };
        let visible = self
            .certificates
            .iter()
            .filter(|(seq, timestamp, _)| *seq <= until && cursor.is_none_or(|from| *timestamp > from));
        visible.map(|(_, _, bytes)| bytes.clone()).collect()
    }

    /// The bundle of a key with the access of `reader`.
    pub(in crate::objects) fn bundle(&self, key_index: u64, reader: UserId) -> Result<KeysBundle> {
        let not_found = |what| Error::new(ErrorKind::NotFound, what);
        let index = key_index.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let bundle = index.and_then(|index| self.bundles.get(index));
        let bundle = bundle.ok_or_else(|| not_found("no such keys bundle"))?;
        let access = bundle.accesses.get(&reader).ok_or_else(|| not_found("no access to this keys bundle"))?;
        Ok(KeysBundle { key_index, bundle: bundle.bytes.clone(), access: access.clone() })
    }

    /// Every valid statement, for a checkpoint.
    pub(in crate::objects) fn statements(&self) -> &[(u64, Said, Arc<Statement>)] {
        &self.statements
    }

    /// What entries left behind that are no statements.
    pub(in crate::objects) fn marks(&self) -> Marks {
        let mut ops: Vec<_> = self.ops.iter().map(|(device, op)| (*device, *op)).collect();
        ops.sort_unstable();
        Marks { ops, quotes: self.quotes.clone() }
    }

    /// Takes the marks from a checkpoint, after its statements.
    pub(in crate::objects) fn restore_marks(&mut self, marks: Marks) {
        self.ops = marks.ops.into_iter().collect();
        self.quotes = marks.quotes;
    }

    /// Takes a statement from a checkpoint: the same rules, but the entry itself is no longer read.
    pub(in crate::objects) fn restore(
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
