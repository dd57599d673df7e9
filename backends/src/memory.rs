//! A server in memory for tests, stricter than any real one, so that code that leans on luck fails at home.
//!
//! [`MemoryServer`] is the shared storage, [`MemoryServer::connect`] one device's connection to it. It refuses what a
//! Parsec server refuses (order of timestamps, roles, key index, version numbers, sizes) and some of what a real one
//! would let pass: a vlob that names a block which nobody put, an access for somebody who is no member. It checks no
//! signature: that is the reader's duty.
//!
//! Invariant: one mutex protects all state and every method holds it once, so every write is atomic.

mod recovery;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use parsecfs_core::{
    certificate::{Certificate, RealmKeyRotationCertificate, RealmRole, UserProfile},
    id::{BlockId, DeviceId, RealmId, UserId, VlobId},
    storage::{
        Block, BlockStore, Bytes, Capabilities, CertificateBatch, CertificateCursor, CertificateStore, Changes, Error,
        ErrorKind, Event, EventSource, Invitations, KeysBundle, Result, Statement, Storage, VlobRecord, VlobStore,
        VlobWrite, WriteOutcome,
    },
    time::Timestamp,
};
use tokio::sync::broadcast;

use self::recovery::{Recoveries, too_early};
use crate::statement::{claim_of, is_read_only, main_certificate};

/// Events a slow listener may lag behind before it hears `Missed`.
const EVENTS_BEHIND_MAX: usize = 256;

/// An organization in memory that any number of devices connect to.
pub struct MemoryServer {
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
    capabilities: Capabilities,
}

impl MemoryServer {
    /// An empty organization with the limits of a Parsec server.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with_capabilities(Capabilities {
            block_bytes_max: 1 << 20,
            vlob_bytes_max: 1 << 20,
            commit_writes_max: 128,
            atomic_commit: true,
            enforces_roles: true,
            invitations: false,
            event_latency_ms: Some(0),
        })
    }

    /// An empty organization with these limits; without `atomic_commit`, a refused write leaves those before it applied.
    #[must_use]
    pub fn with_capabilities(capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), events: broadcast::Sender::new(EVENTS_BEHIND_MAX), capabilities })
    }

    /// A connection of `device`, which belongs to `user`.
    #[must_use]
    pub fn connect(self: &Arc<Self>, device: DeviceId, user: UserId) -> Arc<MemoryStorage> {
        Arc::new(MemoryStorage { server: Arc::clone(self), device, user })
    }

    /// Forgets a block, as a storage does that lost it.
    pub fn lose_block(&self, realm: RealmId, id: BlockId) {
        if let Some(realm) = self.lock().realms.get_mut(&realm) {
            realm.blocks.remove(&id);
        }
    }

    /// Forgets the blocks of the next `put` at once, as a storage does that sweeps up what no version names yet.
    pub fn lose_next_put(&self) {
        self.lock().loses_next_put = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        // Nobody listening is not a failure.
        let _ = self.events.send(event);
    }
}

/// One device's connection to a [`MemoryServer`].
pub struct MemoryStorage {
    server: Arc<MemoryServer>,
    device: DeviceId,
    user: UserId,
}

#[derive(Default)]
struct State {
    devices: HashMap<DeviceId, UserId>,
    users: HashMap<UserId, UserState>,
    common: Vec<CommonCertificate>,
    realms: BTreeMap<RealmId, Realm>,
    /// Main certificate of every applied statement.
    applied: HashSet<Bytes>,
    recoveries: Recoveries,
    loses_next_put: bool,
}

#[derive(Clone, Copy, Default)]
struct UserState {
    admin: bool,
    outsider: bool,
    revoked: bool,
}

impl UserState {
    fn with(profile: UserProfile) -> Self {
        Self { admin: profile == UserProfile::Admin, outsider: profile == UserProfile::Outsider, revoked: false }
    }
}

struct CommonCertificate {
    timestamp: Timestamp,
    full: Bytes,
    redacted: Bytes,
}

#[derive(Default)]
struct Realm {
    certificates: Vec<(Timestamp, Bytes)>,
    roles: HashMap<UserId, RealmRole>,
    /// Index of the last certificate that somebody who once had a role may see.
    left_at: HashMap<UserId, usize>,
    bundles: Vec<Bundle>,
    read_only: bool,
    vlobs: HashMap<VlobId, Vec<VlobRecord>>,
    /// Every stored version in order; a checkpoint is a length of it.
    history: Vec<(VlobId, u32)>,
    blocks: HashMap<BlockId, Block>,
}

struct Bundle {
    bytes: Bytes,
    accesses: HashMap<UserId, Bytes>,
}

fn denied(why: &str) -> Error {
    Error::new(ErrorKind::Denied, why)
}

fn conflict(why: &str) -> Error {
    Error::new(ErrorKind::VersionConflict, why)
}

fn misuse(why: &str) -> Error {
    Error::new(ErrorKind::Internal, why)
}

fn not_found(what: &str) -> Error {
    Error::new(ErrorKind::NotFound, what)
}

fn require(holds: bool, error: impl FnOnce() -> Error) -> Result<()> {
    if holds { Ok(()) } else { Err(error()) }
}

impl State {
    fn caller(&self, device: DeviceId, user: UserId) -> Result<UserState> {
        require(self.devices.get(&device) == Some(&user), || denied("the device is not known here"))?;
        let state = self.users.get(&user).copied().unwrap_or_default();
        require(!state.revoked, || denied("the user is revoked"))?;
        Ok(state)
    }

    fn realm(&self, realm: RealmId, user: UserId) -> Result<(&Realm, RealmRole)> {
        let realm = self.realms.get(&realm).ok_or_else(|| not_found("no such realm"))?;
        let role = realm.roles.get(&user).ok_or_else(|| denied("no role in this realm"))?;
        Ok((realm, *role))
    }

    fn realm_mut(&mut self, realm: RealmId) -> Result<&mut Realm> {
        self.realms.get_mut(&realm).ok_or_else(|| not_found("no such realm"))
    }

    fn push_common(&mut self, timestamp: Timestamp, full: Bytes, redacted: Bytes) {
        self.common.push(CommonCertificate { timestamp, full, redacted });
    }

    fn common_is_after_last(&self, timestamp: Timestamp) -> Result<()> {
        match self.common.last().map(|last| last.timestamp).max(self.last_recovery()) {
            Some(last) if timestamp <= last => Err(too_early(last)),
            _ => Ok(()),
        }
    }

    fn add_user(&mut self, documents: [&Bytes; 4], author: Option<DeviceId>) -> Result<()> {
        let [user_bytes, device_bytes, redacted_user, redacted_device] = documents;
        let (user_claim, device_claim) = (claim_of(user_bytes)?, claim_of(device_bytes)?);
        same_statement(&user_claim, redacted_user)?;
        same_statement(&device_claim, redacted_device)?;
        let (Certificate::User(user), Certificate::Device(device)) = (user_claim, device_claim) else {
            return Err(misuse("a user and a device certificate are needed"));
        };
        require(user.user_id == device.user_id, || misuse("the device belongs to somebody else"))?;
        require(user.author == author && device.author == author, || misuse("signed by somebody else"))?;
        require(user.timestamp == device.timestamp, || misuse("the first device has its user's timestamp"))?;
        require(!self.users.contains_key(&user.user_id), || conflict("the user exists"))?;
        require(!self.devices.contains_key(&device.device_id), || conflict("the device exists"))?;
        self.common_is_after_last(user.timestamp)?;
        self.users.insert(user.user_id, UserState::with(user.profile));
        self.devices.insert(device.device_id, user.user_id);
        self.push_common(user.timestamp, user_bytes.clone(), redacted_user.clone());
        self.push_common(device.timestamp, device_bytes.clone(), redacted_device.clone());
        Ok(())
    }

    fn add_device(&mut self, author: DeviceId, caller: UserId, full: &Bytes, redacted: &Bytes) -> Result<()> {
        let claim = claim_of(full)?;
        same_statement(&claim, redacted)?;
        let Certificate::Device(device) = claim else {
            return Err(misuse("a device certificate is needed"));
        };
        require(device.author == Some(author), || misuse("signed by somebody else"))?;
        require(device.user_id == caller, || denied("devices are added by their own user"))?;
        require(!self.devices.contains_key(&device.device_id), || conflict("the device exists"))?;
        self.common_is_after_last(device.timestamp)?;
        self.devices.insert(device.device_id, device.user_id);
        self.push_common(device.timestamp, full.clone(), redacted.clone());
        Ok(())
    }

    fn change_user(&mut self, author: DeviceId, caller: UserId, certificate: &Bytes) -> Result<()> {
        let claim = claim_of(certificate)?;
        require(claim.author() == Some(author), || misuse("signed by somebody else"))?;
        require(self.users.get(&caller).is_some_and(|user| user.admin), || denied("needs an administrator"))?;
        let (target, profile) = match &claim {
            Certificate::UserUpdate(said) => (said.user_id, Some(said.new_profile)),
            Certificate::RevokedUser(said) => (said.user_id, None),
            _ => return Err(misuse("a certificate about a user is needed")),
        };
        require(target != caller, || denied("nobody changes himself"))?;
        let mut state = *self.users.get(&target).ok_or_else(|| not_found("no such user"))?;
        require(!state.revoked, || conflict("the user is revoked already"))?;
        match profile.map(UserState::with) {
            Some(new) => {
                let holds = (state.admin, state.outsider) == (new.admin, new.outsider);
                require(!holds, || conflict("the profile holds already"))?;
                state = new;
            }
            None => state.revoked = true,
        }
        self.common_is_after_last(claim.timestamp())?;
        self.users.insert(target, state);
        self.push_common(claim.timestamp(), certificate.clone(), certificate.clone());
        Ok(())
    }

    fn apply(&mut self, author: DeviceId, caller: UserId, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Bootstrap { user, device, redacted_user, redacted_device } => {
                require(self.common.is_empty(), || conflict("the organization is bootstrapped"))?;
                self.add_user([user, device, redacted_user, redacted_device], None)
            }
            Statement::CreateUser { user, device, redacted_user, redacted_device } => {
                require(self.caller(author, caller)?.admin, || denied("needs an administrator"))?;
                self.add_user([user, device, redacted_user, redacted_device], Some(author))
            }
            Statement::CreateDevice { device, redacted_device } => {
                self.caller(author, caller)?;
                self.add_device(author, caller, device, redacted_device)
            }
            Statement::UpdateUser { certificate } | Statement::RevokeUser { certificate } => {
                self.caller(author, caller)?;
                self.change_user(author, caller, certificate)
            }
            Statement::CreateRealm { realm, certificate } => {
                require(!self.caller(author, caller)?.outsider, || denied("outsiders make no realms"))?;
                require(!self.realms.contains_key(realm), || conflict("the realm exists"))?;
                let mut fresh = Realm::default();
                fresh.change_role(author, caller, *realm, certificate, None)?;
                self.realms.insert(*realm, fresh);
                Ok(())
            }
            Statement::Share { realm, certificate, recipient, key_index, access } => {
                self.caller(author, caller)?;
                let target = self.users.get(recipient).ok_or_else(|| not_found("no such user"))?;
                require(!target.revoked, || conflict("the user is revoked"))?;
                let Self { realms, users, .. } = self;
                let realm_state = realms.get_mut(realm).ok_or_else(|| not_found("no such realm"))?;
                require(realm_state.key_index() == *key_index && *key_index > 0, || conflict("not the newest key"))?;
                realm_state.change_role(author, caller, *realm, certificate, Some((*recipient, users)))?;
                let bundle = realm_state.bundles.last_mut().expect("key_index() > 0 was checked above");
                bundle.accesses.insert(*recipient, access.clone());
                Ok(())
            }
            Statement::Unshare { realm, certificate } => {
                self.caller(author, caller)?;
                self.realm_mut(*realm)?.change_role(author, caller, *realm, certificate, None)
            }
            Statement::RotateKey { realm, certificate, key_index, bundle, accesses, services: _ } => {
                self.caller(author, caller)?;
                let bundle = Bundle {
                    bytes: bundle.clone(),
                    accesses: accesses.iter().map(|(user, access)| (*user, access.clone())).collect(),
                };
                self.realm_mut(*realm)?.rotate(author, caller, *realm, certificate, *key_index, bundle)
            }
            Statement::RenameRealm { realm, certificate } | Statement::ArchiveRealm { realm, certificate } => {
                self.caller(author, caller)?;
                self.realm_mut(*realm)?.owner_says(author, caller, *realm, certificate)
            }
            // Nobody is handed the sealed device here: this storage keeps no invitations.
            Statement::SetUpRecovery { brief, shares, .. } => {
                self.caller(author, caller)?;
                self.set_up_recovery(author, caller, (brief, shares))
            }
            Statement::DeleteRecovery { certificate } => {
                self.caller(author, caller)?;
                self.delete_recovery(author, caller, certificate)
            }
        }
    }
}

/// The redacted variant must differ in what it hides only.
fn same_statement(full: &Certificate, redacted: &Bytes) -> Result<()> {
    require(claim_of(redacted)? == full.redacted(), || misuse("the redacted certificate says something else"))
}

impl Realm {
    fn key_index(&self) -> u64 {
        self.bundles.len() as u64
    }

    fn check(&self, author: DeviceId, certificate: &Bytes) -> Result<Certificate> {
        let claim = claim_of(certificate)?;
        require(claim.author() == Some(author), || misuse("signed by somebody else"))?;
        let last = self.certificates.last().map(|(last, _)| *last);
        require(last.is_none_or(|last| claim.timestamp() > last), || {
            conflict("the timestamp is not after the last one")
        })?;
        Ok(claim)
    }

    fn change_role(
        &mut self,
        author: DeviceId,
        caller: UserId,
        realm: RealmId,
        certificate: &Bytes,
        share: Option<(UserId, &HashMap<UserId, UserState>)>,
    ) -> Result<()> {
        let Certificate::RealmRole(said) = self.check(author, certificate)? else {
            return Err(misuse("a role certificate is needed"));
        };
        let (user, role) = (said.user_id, said.role);
        require(said.realm_id == realm, || misuse("the certificate is about another realm"))?;
        require(share.is_none_or(|(recipient, _)| recipient == user && role.is_some()), || {
            misuse("the certificate gives no role to the recipient")
        })?;
        if self.certificates.is_empty() {
            require(user == caller && role == Some(RealmRole::Owner), || denied("a realm starts with its owner"))?;
        } else if let Some((_, users)) = share.filter(|_| caller == user) {
            self.may_take_over(caller, role, users)?;
        } else {
            self.may_change_role(caller, user, role)?;
        }
        let outsider = share.is_some_and(|(_, users)| users.get(&user).is_some_and(|user| user.outsider));
        require(!outsider || role < Some(RealmRole::Manager), || denied("outsiders are neither owner nor manager"))?;
        require(self.roles.get(&user).copied() != role, || conflict("the role holds already"))?;
        self.certificates.push((said.timestamp, certificate.clone()));
        match role {
            Some(role) => {
                self.roles.insert(user, role);
                self.left_at.remove(&user);
            }
            None => {
                self.roles.remove(&user);
                self.left_at.insert(user, self.certificates.len());
            }
        }
        Ok(())
    }

    fn may_change_role(&self, caller: UserId, target: UserId, new: Option<RealmRole>) -> Result<()> {
        let own = *self.roles.get(&caller).ok_or_else(|| denied("no role in this realm"))?;
        require(caller != target, || denied("nobody changes his own role"))?;
        let highest = new.max(self.roles.get(&target).copied());
        let needed = if highest >= Some(RealmRole::Manager) { RealmRole::Owner } else { RealmRole::Manager };
        require(own >= needed, || denied("the role does not allow it"))
    }

    fn may_take_over(&self, caller: UserId, new: Option<RealmRole>, users: &HashMap<UserId, UserState>) -> Result<()> {
        let own = *self.roles.get(&caller).ok_or_else(|| denied("no role in this realm"))?;
        require(new == Some(RealmRole::Owner), || denied("nobody changes his own role"))?;
        let standing = |user| users.get(user).is_some_and(|user| !user.revoked && !user.outsider);
        let higher_left = self.roles.iter().any(|(user, role)| *role > own && standing(user));
        require(!higher_left, || denied("somebody with a higher role is left"))
    }

    fn require_owner(&self, caller: UserId) -> Result<()> {
        require(self.roles.get(&caller) == Some(&RealmRole::Owner), || denied("needs an owner"))
    }

    fn rotate(
        &mut self,
        author: DeviceId,
        caller: UserId,
        realm: RealmId,
        certificate: &Bytes,
        key_index: u64,
        bundle: Bundle,
    ) -> Result<()> {
        self.require_owner(caller)?;
        let claim = claim_of(certificate)?;
        let says = |said: &RealmKeyRotationCertificate| said.realm_id == realm && said.key_index == key_index;
        let holds = matches!(&claim, Certificate::RealmKeyRotation(said) if says(said));
        require(holds, || misuse("a rotation of this key is needed"))?;
        require(key_index == self.key_index() + 1, || conflict("not the next key index"))?;
        self.check(author, certificate)?;
        let members: HashSet<_> = self.roles.keys().collect();
        require(bundle.accesses.keys().collect::<HashSet<_>>() == members, || conflict("the members are others"))?;
        self.certificates.push((claim.timestamp(), certificate.clone()));
        self.bundles.push(bundle);
        Ok(())
    }

    fn owner_says(&mut self, author: DeviceId, caller: UserId, realm: RealmId, certificate: &Bytes) -> Result<()> {
        self.require_owner(caller)?;
        let claim = self.check(author, certificate)?;
        match &claim {
            Certificate::RealmName(said) if said.realm_id == realm => {}
            Certificate::RealmArchiving(said) if said.realm_id == realm => {
                self.read_only = is_read_only(said.configuration);
            }
            _ => return Err(misuse("a name or archiving certificate of this realm is needed")),
        }
        self.certificates.push((claim.timestamp(), certificate.clone()));
        Ok(())
    }

    fn outcome(&self, write: &VlobWrite, author: DeviceId) -> WriteOutcome {
        let versions = self.vlobs.get(&write.id).map_or(&[][..], Vec::as_slice);
        if let Some(stored) = write.version.checked_sub(1).and_then(|index| versions.get(index as usize)) {
            let repeat = stored.blob == write.blob && stored.timestamp == write.timestamp && stored.author == author;
            return if repeat { WriteOutcome::Stored } else { WriteOutcome::Conflict };
        }
        if write.version as usize != versions.len() + 1 {
            return WriteOutcome::Conflict;
        }
        if write.key_index != self.key_index() {
            return WriteOutcome::OldKey;
        }
        let last = versions.last().map(|stored| stored.timestamp).max(self.certificates.last().map(|(last, _)| *last));
        if let Some(last) = last.filter(|last| write.timestamp <= *last) {
            return WriteOutcome::TimestampTooOld(last);
        }
        match write.new_blocks.iter().find(|id| !self.blocks.contains_key(id)) {
            Some(gone) => WriteOutcome::BlockGone(*gone),
            None => WriteOutcome::Stored,
        }
    }

    fn store(&mut self, write: &VlobWrite, author: DeviceId) {
        let versions = self.vlobs.entry(write.id).or_default();
        if versions.len() >= write.version as usize {
            return;
        }
        versions.push(VlobRecord {
            id: write.id,
            version: write.version,
            key_index: write.key_index,
            author,
            timestamp: write.timestamp,
            blob: write.blob.clone(),
        });
        self.history.push((write.id, write.version));
    }

    /// Applies writes in order up to the first that is refused.
    fn commit(&mut self, writes: &[VlobWrite], author: DeviceId) -> Vec<WriteOutcome> {
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            let outcome = self.outcome(write, author);
            outcomes.push(outcome);
            if outcome != WriteOutcome::Stored {
                break;
            }
            self.store(write, author);
        }
        outcomes.resize(writes.len(), WriteOutcome::NotTried);
        outcomes
    }

    /// Takes back everything since `history` had this length.
    fn roll_back(&mut self, length: usize) {
        for (id, _) in self.history.drain(length..) {
            let versions = self.vlobs.get_mut(&id).expect("history names stored vlobs");
            versions.pop();
            if versions.is_empty() {
                self.vlobs.remove(&id);
            }
        }
    }
}

impl MemoryStorage {
    fn writable(&self, state: &State, realm: RealmId) -> Result<()> {
        state.caller(self.device, self.user)?;
        let (realm, role) = state.realm(realm, self.user)?;
        require(role.can_write() && !realm.read_only, || denied("the role does not allow writing"))
    }

    fn readable<'a>(&self, state: &'a State, realm: RealmId) -> Result<&'a Realm> {
        state.caller(self.device, self.user)?;
        Ok(state.realm(realm, self.user)?.0)
    }

    fn list_certificates(&self, cursor: &CertificateCursor) -> Result<CertificateBatch> {
        let state = self.server.lock();
        let outsider = state.caller(self.device, self.user)?.outsider;
        let after = |from: Option<Timestamp>| move |timestamp: Timestamp| from.is_none_or(|from| timestamp > from);
        let is_new = after(cursor.common);
        let common = state.common.iter().filter(|certificate| is_new(certificate.timestamp));
        let mut batch = CertificateBatch {
            common: common.map(|c| if outsider { c.redacted.clone() } else { c.full.clone() }).collect(),
            shamir: state.recoveries.shown_to(self.user, cursor.shamir),
            ..CertificateBatch::default()
        };
        for (id, realm) in &state.realms {
            let visible = match (realm.roles.get(&self.user), realm.left_at.get(&self.user)) {
                (Some(_), _) => realm.certificates.len(),
                (None, Some(left)) => *left,
                (None, None) => continue,
            };
            let is_new = after(cursor.realm.get(id).copied());
            let new = realm.certificates[..visible].iter().filter(|(timestamp, _)| is_new(*timestamp));
            let new: Vec<Bytes> = new.map(|(_, bytes)| bytes.clone()).collect();
            if !new.is_empty() {
                batch.realm.insert(*id, new);
            }
        }
        Ok(batch)
    }

    fn append_statement(&self, statement: &Statement) -> Result<()> {
        let mut state = self.server.lock();
        let main = main_certificate(statement).clone();
        if state.applied.contains(&main) {
            return Ok(());
        }
        state.apply(self.device, self.user, statement)?;
        state.applied.insert(main);
        drop(state);
        self.server.tell(Event::Certificates);
        Ok(())
    }

    fn bundle(&self, realm: RealmId, key_index: u64) -> Result<KeysBundle> {
        let state = self.server.lock();
        let realm = self.readable(&state, realm)?;
        let bundle = key_index
            .checked_sub(1)
            .and_then(|index| realm.bundles.get(usize::try_from(index).ok()?))
            .ok_or_else(|| not_found("no such keys bundle"))?;
        let access = bundle.accesses.get(&self.user).ok_or_else(|| not_found("no access to this keys bundle"))?;
        Ok(KeysBundle { key_index, bundle: bundle.bytes.clone(), access: access.clone() })
    }

    fn commit_now(&self, realm: RealmId, writes: &[VlobWrite]) -> Result<Vec<WriteOutcome>> {
        let capabilities = &self.server.capabilities;
        require(writes.len() <= capabilities.commit_writes_max, || misuse("more writes than a commit takes"))?;
        let fits = |write: &VlobWrite| write.blob.len() as u64 <= capabilities.vlob_bytes_max;
        require(writes.iter().all(fits), || misuse("a vlob is larger than declared"))?;
        let mut state = self.server.lock();
        self.writable(&state, realm)?;
        let stored = state.realm_mut(realm)?;
        let before = stored.history.len();
        let mut outcomes = stored.commit(writes, self.device);
        if capabilities.atomic_commit && outcomes.iter().any(|outcome| *outcome != WriteOutcome::Stored) {
            stored.roll_back(before);
            for outcome in outcomes.iter_mut().filter(|outcome| **outcome == WriteOutcome::Stored) {
                *outcome = WriteOutcome::NotTried;
            }
        }
        let changed = stored.history.len() > before;
        drop(state);
        if changed {
            self.server.tell(Event::Vlobs(realm));
        }
        Ok(outcomes)
    }

    fn list_changes(&self, realm: RealmId, checkpoint: u64) -> Result<Changes> {
        let state = self.server.lock();
        let realm = self.readable(&state, realm)?;
        let from = usize::try_from(checkpoint).ok().filter(|from| *from <= realm.history.len());
        let from = from.ok_or_else(|| Error::new(ErrorKind::Rollback, "the checkpoint is ahead of the storage"))?;
        let newest: BTreeMap<VlobId, u32> = realm.history[from..].iter().copied().collect();
        Ok(Changes { checkpoint: realm.history.len() as u64, items: newest.into_iter().collect() })
    }

    fn put_now(&self, realm: RealmId, blocks: Vec<(BlockId, Block)>) -> Result<()> {
        let max = self.server.capabilities.block_bytes_max;
        require(blocks.iter().all(|(_, block)| block.bytes.len() as u64 <= max), || misuse("a block is too large"))?;
        let mut state = self.server.lock();
        self.writable(&state, realm)?;
        let stored = state.realm_mut(realm)?;
        let newest = stored.key_index();
        require(blocks.iter().all(|(_, block)| block.key_index >= 1 && block.key_index <= newest), || {
            misuse("a block is sealed with a key that does not exist")
        })?;
        let clash = |(id, block): &(BlockId, Block)| stored.blocks.get(id).is_some_and(|there| there != block);
        require(!blocks.iter().any(clash), || conflict("another block has this id"))?;
        if !std::mem::take(&mut state.loses_next_put) {
            state.realm_mut(realm)?.blocks.extend(blocks);
        }
        Ok(())
    }
}

impl CertificateStore for MemoryStorage {
    fn certificates<'a>(&'a self, cursor: &'a CertificateCursor) -> BoxFuture<'a, Result<CertificateBatch>> {
        async { self.list_certificates(cursor) }.boxed()
    }

    fn append<'a>(&'a self, statement: Statement) -> BoxFuture<'a, Result<()>> {
        async move { self.append_statement(&statement) }.boxed()
    }

    fn keys_bundle<'a>(&'a self, realm: RealmId, key_index: u64) -> BoxFuture<'a, Result<KeysBundle>> {
        async move { self.bundle(realm, key_index) }.boxed()
    }
}

impl VlobStore for MemoryStorage {
    fn read<'a>(&'a self, realm: RealmId, ids: &'a [VlobId]) -> BoxFuture<'a, Result<Vec<VlobRecord>>> {
        async move {
            let state = self.server.lock();
            let realm = self.readable(&state, realm)?;
            Ok(ids.iter().filter_map(|id| realm.vlobs.get(id)?.last().cloned()).collect())
        }
        .boxed()
    }

    fn read_versions<'a>(
        &'a self,
        realm: RealmId,
        items: &'a [(VlobId, u32)],
    ) -> BoxFuture<'a, Result<Vec<VlobRecord>>> {
        async move {
            let state = self.server.lock();
            let realm = self.readable(&state, realm)?;
            let find = |(id, version): &(VlobId, u32)| {
                realm.vlobs.get(id)?.get(usize::try_from(version.checked_sub(1)?).ok()?).cloned()
            };
            Ok(items.iter().filter_map(find).collect())
        }
        .boxed()
    }

    fn commit<'a>(&'a self, realm: RealmId, writes: Vec<VlobWrite>) -> BoxFuture<'a, Result<Vec<WriteOutcome>>> {
        async move { self.commit_now(realm, &writes) }.boxed()
    }

    fn changes<'a>(&'a self, realm: RealmId, checkpoint: u64) -> BoxFuture<'a, Result<Changes>> {
        async move { self.list_changes(realm, checkpoint) }.boxed()
    }
}

impl BlockStore for MemoryStorage {
    fn put<'a>(&'a self, realm: RealmId, blocks: Vec<(BlockId, Block)>) -> BoxFuture<'a, Result<()>> {
        async move { self.put_now(realm, blocks) }.boxed()
    }

    fn get<'a>(&'a self, realm: RealmId, id: BlockId) -> BoxFuture<'a, Result<Block>> {
        async move {
            let state = self.server.lock();
            let realm = self.readable(&state, realm)?;
            realm.blocks.get(&id).cloned().ok_or_else(|| not_found("no such block"))
        }
        .boxed()
    }
}

impl Invitations for MemoryStorage {}

impl EventSource for MemoryStorage {
    fn events(&self) -> BoxStream<'static, Event> {
        let listening = (Arc::clone(&self.server), self.server.events.subscribe());
        let heard = futures::stream::unfold(listening, |(server, mut receiver)| async {
            let event = match receiver.recv().await {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(_)) => Event::Missed,
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            Some((event, (server, receiver)))
        });
        futures::stream::once(async { Event::Missed }).chain(heard).boxed()
    }
}

impl Storage for MemoryStorage {
    fn capabilities(&self) -> Capabilities {
        self.server.capabilities.clone()
    }
}
