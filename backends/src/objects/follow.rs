//! Catching up with a log: read forward, judge each entry, notice a store that went back.
//!
//! Whatever answer a write got, this is what decides: read the log and look.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use parsecfs_core::{
    id::RealmId,
    storage::{Bytes, CertificateBatch, CertificateCursor, Changes, Error, ErrorKind, KeysBundle, LogId, Result},
};
use tokio::time::Instant;

use super::{
    Options, Shared, aside,
    chain::{Forward, broken},
    checkpoint,
    commit::Queued,
    entry::{Head, RawEntry},
    heads::{Compared, Shown, shown_below},
    key,
    memory::DeviceMemory,
    organization::Organization,
    realm::{self, Certificates, Data, Opened, Rules},
    staging::Staging,
    verbs::{StoreTime, Verbs},
};

/// After this much of the store's time without a look at the end of a log, entries below a boundary may be gone.
const BOUNDARY_AFTER_MS: i64 = 3_600_000;

/// The organization's log as far as it was read.
pub(super) struct OrganizationLog {
    pub(super) state: Arc<Organization>,
    pub(super) memory: DeviceMemory,
    /// The alarm checks of the first catch-up are done.
    is_checked: bool,
    pub(super) compared: Compared,
    /// A realm quoted this head, and the storage did not show it.
    unseen: Option<Head>,
}

impl OrganizationLog {
    pub(super) fn open(options: &Options) -> Result<Self> {
        Ok(Self {
            state: Arc::new(Organization::empty(options.root)),
            memory: DeviceMemory::open(&options.state_dir, LogId::Organization)?,
            is_checked: false,
            compared: Compared::default(),
            unseen: None,
        })
    }
}

/// One realm's log, what waits to be written to it, and blocks that wait for their commit.
pub(super) struct RealmLog {
    pub(super) realm: RealmId,
    pub(super) state: tokio::sync::Mutex<RealmState>,
    pub(super) queue: Mutex<Vec<Queued>>,
    pub(super) staging: Mutex<Staging>,
}

/// One realm's log as far as it was read.
pub(super) struct RealmState {
    pub(super) certificates: Certificates,
    pub(super) data: Data,
    /// Head behind the entries that `data` took.
    pub(super) data_head: Head,
    pub(super) memory: DeviceMemory,
    /// When the store last said that there is nothing behind the head.
    pub(super) end_seen: Option<StoreTime>,
    pub(super) pace: Pace,
    is_booted: bool,
    is_checked: bool,
    pub(super) compared: Compared,
    /// Entries and changes since the newest checkpoint.
    pub(super) tail: checkpoint::Tail,
}

/// Who writes here, to give others a turn.
#[derive(Default)]
pub(super) struct Pace {
    pub(super) others_seen: Option<Instant>,
    pub(super) next_after: Option<Instant>,
}

impl RealmLog {
    pub(super) fn open(realm: RealmId, options: &Options) -> Result<Self> {
        let state = RealmState {
            certificates: Certificates::empty(realm, options.root),
            data: Data::default(),
            data_head: Head::EMPTY,
            memory: DeviceMemory::open(&options.state_dir, LogId::Realm(realm))?,
            end_seen: None,
            pace: Pace::default(),
            is_booted: false,
            is_checked: false,
            compared: Compared::default(),
            tail: checkpoint::Tail::default(),
        };
        Ok(Self { realm, state: tokio::sync::Mutex::new(state), queue: Mutex::default(), staging: Mutex::default() })
    }
}

impl RealmState {
    pub(super) fn head(&self) -> Head {
        self.certificates.head
    }

    fn forget(&mut self, realm: RealmId, root: [u8; 32]) {
        self.certificates = Certificates::empty(realm, root);
        self.data = Data::default();
        self.data_head = Head::EMPTY;
        self.is_booted = false;
        self.end_seen = None;
        self.tail = checkpoint::Tail::default();
    }
}

/// Compares a chain that was just read with the head that the device remembers.
struct Remembered {
    head: Option<Head>,
}

impl Remembered {
    /// `Rollback` when the chain passes the remembered number with another digest.
    fn pass(&self, head: Head) -> Result<()> {
        match self.head {
            Some(remembered) if remembered.seq == head.seq && remembered.hash != head.hash => Err(another_history()),
            _ => Ok(()),
        }
    }

    /// `Rollback` when the whole chain is shorter than the remembered one.
    fn end(&self, head: Head) -> Result<()> {
        match self.head {
            Some(remembered) if remembered.seq > head.seq => {
                Err(broken("the storage lost entries that this device saw before"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the last known entry is still there.
async fn has_tip(verbs: &dyn Verbs, log: LogId, head: Head) -> Result<bool> {
    let Some(last) = head.seq.checked_sub(1) else { return Ok(true) };
    Ok(verbs.get_range(&key::entry(log, last), 0, 1).await?.is_some())
}

/// Whether an error tells of one log and not of the way to the storage.
fn is_alarm(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Rollback | ErrorKind::Corrupt | ErrorKind::Unsupported)
}

fn unseen() -> Error {
    broken("a realm quotes an organization that the storage does not show")
}

fn another_history() -> Error {
    broken("the storage shows another history than this device saw before")
}

fn lost_tip() -> Error {
    broken("the storage lost the last entry that this device saw")
}

/// The lowest entry that still exists.
pub(super) async fn boundary(verbs: &dyn Verbs, log: LogId) -> Result<u64> {
    let object = verbs.get(&key::boundary(log)).await?.bytes;
    Ok(object.and_then(|object| Some(u64::from_le_bytes((&*object).try_into().ok()?))).unwrap_or(0))
}

impl Shared {
    /// The organization as far as the log goes now.
    pub(super) async fn organization_now(&self) -> Result<Arc<Organization>> {
        let mut log = self.organization.lock().await;
        self.follow_organization(&mut log).await?;
        Ok(Arc::clone(&log.state))
    }

    /// The organization as far as it was read, or further when `head` lies beyond.
    pub(super) async fn organization_at(&self, head: Head) -> Result<Arc<Organization>> {
        let mut log = self.organization.lock().await;
        if log.state.contains(head).is_none() || log.state.head.seq == 0 {
            self.follow_organization(&mut log).await?;
        }
        if log.state.contains(head) == Some(true) {
            return Ok(Arc::clone(&log.state));
        }
        log.unseen = Some(head);
        Err(unseen())
    }

    pub(super) async fn follow_organization(&self, log: &mut OrganizationLog) -> Result<()> {
        self.read_organization(log).await?;
        self.compare_organization(log).await
    }

    pub(super) async fn read_organization(&self, log: &mut OrganizationLog) -> Result<()> {
        let remembered = Remembered { head: log.memory.head() };
        let before = log.state.head;
        let mut forward = Forward::from(LogId::Organization, before);
        loop {
            let window = forward.read(&*self.verbs).await?;
            for entry in &window.entries {
                remembered.pass(entry.head_after())?;
                Arc::make_mut(&mut log.state).apply(entry, &*self.options.keys)?;
            }
            if window.end.is_some() {
                break;
            }
        }
        if !log.is_checked {
            remembered.end(log.state.head)?;
            aside::refuse(&*self.verbs, LogId::Organization, log.state.head).await?;
            log.is_checked = true;
        } else if log.state.head == before && !has_tip(&*self.verbs, LogId::Organization, before).await? {
            return Err(lost_tip());
        }
        log.memory.remember(log.state.head)
    }

    /// Catches up with a realm's log.
    pub(super) async fn follow_realm(&self, log: &RealmLog, state: &mut RealmState) -> Result<()> {
        self.read_realm_to_its_end(log, state).await?;
        self.compare_realm(log, state).await
    }

    pub(super) async fn read_realm_to_its_end(&self, log: &RealmLog, state: &mut RealmState) -> Result<()> {
        loop {
            if !state.is_booted {
                checkpoint::boot(self, log.realm, state).await?;
                state.is_booted = true;
            }
            let before = state.head();
            let read = self.read_realm(log, state).await;
            if let Err(error) = &read
                && !matches!(error.kind(), ErrorKind::Rollback | ErrorKind::Corrupt)
            {
                return read.map(drop);
            }
            if self.fell_behind(log.realm, state, before, &read).await? {
                state.forget(log.realm, self.options.root);
                continue;
            }
            let end = read?;
            if state.is_checked
                && state.head() == before
                && !has_tip(&*self.verbs, LogId::Realm(log.realm), before).await?
            {
                // Truncation never takes the last entry: below the boundary, others wrote on while we looked.
                if before.seq > boundary(&*self.verbs, LogId::Realm(log.realm)).await? {
                    return Err(lost_tip());
                }
                state.forget(log.realm, self.options.root);
                continue;
            }
            if !state.is_checked {
                self.check_remembered(log.realm, state).await?;
                aside::refuse(&*self.verbs, LogId::Realm(log.realm), state.head()).await?;
                state.is_checked = true;
            }
            state.end_seen = Some(end);
            self.follow_data(log, state).await?;
            return state.memory.remember(state.certificates.head);
        }
    }

    /// Whether the log was truncated beyond where this device had read: then what it read since is not the log.
    async fn fell_behind(
        &self,
        realm: RealmId,
        state: &RealmState,
        before: Head,
        read: &Result<StoreTime>,
    ) -> Result<bool> {
        let looked_long_ago = match (read, state.end_seen) {
            (Err(_), _) | (_, None) => true,
            (Ok(end), Some(seen)) => end.since_ms(seen) > BOUNDARY_AFTER_MS,
        };
        Ok(looked_long_ago && before.seq < boundary(&*self.verbs, LogId::Realm(realm)).await?)
    }

    async fn read_realm(&self, log: &RealmLog, state: &mut RealmState) -> Result<StoreTime> {
        let remembered = Remembered { head: state.memory.head().filter(|_| !state.is_checked) };
        let mut forward = Forward::from(LogId::Realm(log.realm), state.head());
        loop {
            let window = forward.read(&*self.verbs).await?;
            for entry in &window.entries {
                remembered.pass(entry.head_after())?;
                self.step(log.realm, state, entry).await?;
            }
            if let Some(end) = window.end {
                return Ok(end);
            }
        }
    }

    /// After the first catch-up: the head this device remembers must be on the chain.
    async fn check_remembered(&self, realm: RealmId, state: &RealmState) -> Result<()> {
        let remembered = Remembered { head: state.memory.head() };
        remembered.end(state.head())?;
        // A chain that began at a checkpoint did not pass the remembered number: look at that entry alone.
        let Some(head) = remembered.head.filter(|head| head.seq < state.tail.from) else { return Ok(()) };
        match shown_below(&*self.verbs, LogId::Realm(realm), head).await? {
            Shown::Same | Shown::Truncated => Ok(()),
            Shown::Other => Err(another_history()),
            Shown::Nothing => Err(broken("the storage lost an entry that this device saw before")),
        }
    }

    /// Judges the next entry.
    pub(super) async fn step(&self, realm: RealmId, state: &mut RealmState, entry: &RawEntry) -> Result<()> {
        let (opened, organization) = self.quoted(entry, realm::open(entry, &*self.options.keys)?).await?;
        state.certificates.apply(entry, &opened, &organization);
        if state.data_head.seq == entry.header.seq {
            self.step_data(realm, state, entry, &opened, &organization);
        }
        if let Opened::Body(_, body) = &opened
            && body.said.author != self.options.signer.device_id()
        {
            state.pace.others_seen = Some(Instant::now());
        }
        Ok(())
    }

    /// What an entry says, with the organization that it quotes. One that is not shown is an alarm, unless whoever has
    /// the realm's key made up the entry: what the device that it names did not sign counts for nobody, whatever it
    /// quotes. Of a device that is not known here nothing can be told, so that stays an alarm.
    pub(super) async fn quoted(&self, entry: &RawEntry, opened: Opened) -> Result<(Opened, Arc<Organization>)> {
        let Opened::Body(bytes, body) = &opened else {
            return Ok((opened, self.organization_at(Head::EMPTY).await?));
        };
        let unseen_before = self.organization.lock().await.unseen;
        match self.organization_at(body.said.organization).await {
            Err(error) if error.kind() == ErrorKind::Rollback => {
                let mut log = self.organization.lock().await;
                let author = log.state.device_at(body.said.author, log.state.head.seq);
                if author.is_none_or(|author| entry.verify(bytes, &author.verify_key).is_ok()) {
                    return Err(error);
                }
                log.unseen = unseen_before;
                Ok((Opened::Void, Arc::clone(&log.state)))
            }
            organization => organization.map(|organization| (opened, organization)),
        }
    }

    /// Lets the second pass take an entry; `false` when its key is not there yet.
    fn step_data(
        &self,
        realm: RealmId,
        state: &mut RealmState,
        entry: &RawEntry,
        opened: &Opened,
        organization: &Organization,
    ) -> bool {
        let rules = Rules { certificates: &state.certificates, organization };
        if !state.data.apply(entry, opened, &rules) {
            return false;
        }
        state.data_head = entry.head_after();
        if let Opened::Body(bytes, body) = opened {
            state.tail.count(body.changes.len());
            self.bodies.keep(realm, entry.header.seq, bytes);
        }
        true
    }

    /// Catches the second pass up with the first, as far as the keys go.
    async fn follow_data(&self, log: &RealmLog, state: &mut RealmState) -> Result<()> {
        checkpoint::load_waiting(self, log.realm, state).await?;
        if state.tail.waits() {
            return Ok(());
        }
        let mut forward = Forward::from(LogId::Realm(log.realm), state.data_head);
        while state.data_head.seq < state.head().seq {
            let window = forward.read(&*self.verbs).await?;
            let until = state.head().seq;
            for entry in window.entries.iter().filter(|entry| entry.header.seq < until) {
                let opened = realm::open(entry, &*self.options.keys)?;
                let (opened, organization) = self.quoted(entry, opened).await?;
                if !self.step_data(log.realm, state, entry, &opened, &organization) {
                    return Ok(());
                }
            }
            if window.end.is_some() {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn certificates(&self, cursor: &CertificateCursor) -> Result<CertificateBatch> {
        let mut realm_certificates = BTreeMap::new();
        let organization = self.organization_now().await?;
        for realm in organization.realms() {
            match self.realm_certificates(*realm, cursor).await {
                Ok(new) if new.is_empty() => {}
                Ok(new) => drop(realm_certificates.insert(*realm, new)),
                Err(error) if is_alarm(&error) => {
                    // Who uses this realm hears of it; the others can be used.
                    tracing::warn!(%realm, %error, "the log of a workspace is not what it was");
                }
                Err(error) => return Err(error),
            }
        }
        // Again: a realm may have quoted a newer organization, and its certificates need it.
        let log = self.organization.lock().await;
        if log.unseen.is_some_and(|head| log.state.contains(head) != Some(true)) {
            return Err(unseen());
        }
        let common = log.state.certificates(cursor, self.options.signer.user_id());
        let shamir = log.state.recoveries.shown_to(self.options.signer.user_id(), cursor.shamir);
        Ok(CertificateBatch { common, realm: realm_certificates, shamir, ..CertificateBatch::default() })
    }

    async fn realm_certificates(&self, realm: RealmId, cursor: &CertificateCursor) -> Result<Vec<Bytes>> {
        let log = self.realm(realm)?;
        let mut state = log.state.lock().await;
        self.follow_realm(&log, &mut state).await?;
        if let Err(error) = self.fence(&log, &mut state).await {
            // Reading goes on without: the next client that can writes it.
            tracing::warn!(%realm, kind = ?error.kind(), "a revoked member could not be fenced out yet");
        }
        Ok(state.certificates.after(cursor.realm.get(&realm).copied(), self.options.signer.user_id()))
    }

    pub(super) async fn keys_bundle(&self, realm: RealmId, key_index: u64) -> Result<KeysBundle> {
        let log = self.realm(realm)?;
        let mut state = log.state.lock().await;
        self.follow_realm(&log, &mut state).await?;
        state.certificates.bundle(key_index, self.options.signer.user_id())
    }

    pub(super) async fn changes(&self, realm: RealmId, checkpoint: u64) -> Result<Changes> {
        let log = self.realm(realm)?;
        let mut state = log.state.lock().await;
        self.follow_realm(&log, &mut state).await?;
        self.require_member(&state)?;
        if checkpoint > state.head().seq {
            return Err(broken("the storage lost entries that this device saw before"));
        }
        let items = state.data.changed_since(checkpoint);
        Ok(Changes { checkpoint: checkpoint.max(state.data.seq), items })
    }

    /// `NotFound` for a realm that does not exist, `Denied` without a role in it.
    pub(super) fn require_member(&self, state: &RealmState) -> Result<()> {
        let head = state.head();
        if head.seq == 0 {
            return Err(Error::new(ErrorKind::NotFound, "no such realm"));
        }
        match state.certificates.role_at(self.options.signer.user_id(), head.seq) {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::Denied, "no role in this realm")),
        }
    }
}
