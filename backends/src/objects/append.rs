//! Appends statements to the organization's log or to a realm's.
//!
//! The loop of both: catch up, see whether it holds already, check it as every reader will, create the next entry;
//! whatever the answer, begin again until reading shows that it holds.

use std::{sync::Arc, time::Duration};

use parsecfs_core::{
    certificate::RealmRole,
    id::RealmId,
    storage::{Error, ErrorKind, LogId, Result, Statement},
};

use super::{
    Shared,
    entry::{Change, Draft, Head, Header, RawEntry, Said},
    follow::{OrganizationLog, RealmLog, RealmState},
    key,
    organization::Organization,
    verbs::{Created, Creation},
};
use crate::statement::realm_of;

/// Answers without a verdict before a writer gives up.
pub(super) const UNKNOWN_ANSWERS_MAX: u32 = 8;
/// Pause after an answer without a verdict.
pub(super) const UNKNOWN_PAUSE: Duration = Duration::from_millis(50);

/// What an attempt to create an entry came to.
pub(super) enum Attempt {
    Won(Creation),
    /// Read the log to know.
    Unknown(Option<Error>),
}

/// Decides whether to try again after answers without a verdict.
#[derive(Default)]
pub(super) struct Patience {
    unknown: u32,
}

impl Patience {
    /// Waits after an error; gives up with `OutcomeUnknown` at last.
    pub(super) async fn bear(&mut self, error: Option<Error>) -> Result<()> {
        let Some(error) = error else { return Ok(()) };
        self.unknown += 1;
        if self.unknown >= UNKNOWN_ANSWERS_MAX {
            return Err(Error::new(ErrorKind::OutcomeUnknown, "the storage did not say what became of a write")
                .caused_by(error));
        }
        tokio::time::sleep(UNKNOWN_PAUSE).await;
        Ok(())
    }

    /// After something was sent, trouble with looking for it leaves the outcome open.
    pub(super) fn judge<T>(&self, looked: Result<T>) -> Result<T> {
        looked.map_err(|error| match error.kind() {
            ErrorKind::Offline | ErrorKind::Throttled if self.unknown > 0 => {
                Error::new(ErrorKind::OutcomeUnknown, "the storage went away before it said what became of a write")
                    .caused_by(error)
            }
            _ => error,
        })
    }
}

impl Shared {
    /// Creates an entry. Errors that leave nothing behind come back as errors, all others as `Unknown`.
    pub(super) async fn create_entry(&self, entry: &RawEntry) -> Result<Attempt> {
        let name = key::entry(entry.header.log, entry.header.seq);
        match self.verbs.create(&[(name, entry.object())]).await {
            Ok(creation) if creation.outcomes == [Created::Won] => Ok(Attempt::Won(creation)),
            Ok(_) => Ok(Attempt::Unknown(None)),
            Err(error) => match error.kind() {
                ErrorKind::Full | ErrorKind::Denied | ErrorKind::Unsupported | ErrorKind::Internal => Err(error),
                _ => Ok(Attempt::Unknown(Some(error))),
            },
        }
    }

    pub(super) async fn append(&self, statement: Statement) -> Result<()> {
        match realm_of(&statement) {
            None => match statement {
                Statement::SetUpRecovery { .. } => self.set_up_recovery(statement).await,
                Statement::DeleteRecovery { .. } => {
                    self.append_to_organization(Change::of(statement)).await?;
                    self.sweep_recoveries().await?;
                    self.cancel_recovery_invitations().await
                }
                _ => self.append_to_organization(Change::of(statement)).await,
            },
            Some(realm) => {
                if matches!(statement, Statement::CreateRealm { .. }) {
                    // First, so that nobody can miss a realm that exists; a realm that never comes is an empty log.
                    self.append_to_organization(Change::Realm(realm)).await?;
                }
                self.append_to_realm(realm, statement).await
            }
        }
    }

    pub(super) async fn append_to_organization(&self, change: Change) -> Result<()> {
        let mut log = self.organization.lock().await;
        let mut patience = Patience::default();
        loop {
            patience.judge(self.follow_organization(&mut log).await)?;
            if log.state.has_applied(&change) {
                break;
            }
            let entry = self.draft_for_organization(&mut log, &change)?;
            match self.create_entry(&entry).await? {
                // The next turn reads it back like anybody else's.
                Attempt::Won(_) => {}
                Attempt::Unknown(error) => patience.bear(error).await?,
            }
        }
        let head = log.state.head;
        drop(log);
        self.ring(LogId::Organization, head, Head::EMPTY).await;
        Ok(())
    }

    fn draft_for_organization(&self, log: &mut OrganizationLog, change: &Change) -> Result<RawEntry> {
        let said = self.said_in_organization(log)?;
        (*log.state).clone().admit_changes(&said, std::slice::from_ref(change))?;
        self.finish(LogId::Organization, log.state.head, &said, change)
    }

    pub(super) fn said_in_organization(&self, log: &mut OrganizationLog) -> Result<Said> {
        let author = self.options.signer.device_id();
        Ok(Said {
            author,
            op: log.memory.next_op(log.state.op(author))?,
            timestamp: log.state.next_timestamp((self.options.clock)()),
            organization: Head::EMPTY,
        })
    }

    /// The entry that comes after `head`.
    pub(super) fn finish(&self, log: LogId, head: Head, said: &Said, change: &Change) -> Result<RawEntry> {
        let mut draft = Draft::default();
        draft.push(change);
        let header = Header { log, seq: head.seq, prev: head.hash, key_index: 0 };
        draft.finish(&header, said, &*self.options.signer, &*self.options.keys)
    }

    async fn append_to_realm(&self, realm: RealmId, statement: Statement) -> Result<()> {
        let log = self.realm(realm)?;
        let mut state = log.state.lock().await;
        let change = Change::Statement(Box::new(statement));
        let mut patience = Patience::default();
        // As fresh as it can be: rules look at the organization as the entry quotes it.
        self.organization_now().await?;
        loop {
            patience.judge(self.follow_realm(&log, &mut state).await)?;
            let Change::Statement(statement) = &change else { unreachable!("made above") };
            if state.certificates.has_applied(statement) {
                break;
            }
            let entry = self.draft_for_realm(&log, &mut state, &change).await?;
            match self.create_entry(&entry).await? {
                Attempt::Won(_) => {}
                Attempt::Unknown(error) => patience.bear(error).await?,
            }
        }
        let head = state.head();
        drop(state);
        self.ring_realm(realm, head).await;
        Ok(())
    }

    /// Quotes the newest organization when a member was revoked since the log last did, so that no entry of his counts
    /// from here on. Every client that may write does it as soon as it sees the revocation.
    pub(super) async fn fence(&self, log: &RealmLog, state: &mut RealmState) -> Result<()> {
        let mut patience = Patience::default();
        let mut is_written = false;
        loop {
            let organization = Arc::clone(&self.organization.lock().await.state);
            let role = state.certificates.role_at(self.options.signer.user_id(), state.head().seq);
            if !role.is_some_and(RealmRole::can_write) || !state.certificates.lacks_fence(&organization) {
                break;
            }
            let entry = self.draft_for_realm(log, state, &Change::Fence).await?;
            match self.create_entry(&entry).await? {
                Attempt::Won(_) => is_written = true,
                Attempt::Unknown(error) => patience.bear(error).await?,
            }
            patience.judge(self.follow_realm(log, state).await)?;
        }
        if is_written {
            self.ring_realm(log.realm, state.head()).await;
        }
        Ok(())
    }

    async fn draft_for_realm(&self, log: &RealmLog, state: &mut RealmState, change: &Change) -> Result<RawEntry> {
        let organization = Arc::clone(&self.organization.lock().await.state);
        let said = self.said_in_realm(state, &organization)?;
        state.certificates.clone().admit_changes(&said, std::slice::from_ref(change), &organization)?;
        self.finish(LogId::Realm(log.realm), state.head(), &said, change)
    }

    pub(super) fn said_in_realm(&self, state: &mut RealmState, organization: &Organization) -> Result<Said> {
        let author = self.options.signer.device_id();
        Ok(Said {
            author,
            op: state.memory.next_op(state.certificates.op(author).max(state.data.op(author)))?,
            timestamp: state.data.next_timestamp((self.options.clock)()),
            organization: organization.head,
        })
    }
}
