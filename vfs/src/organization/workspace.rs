//! Workspaces of this user: making, listing, finding.
//!
//! A workspace comes into being in three statements: the realm with its owner, the first key, the name. A device that
//! stops between them leaves a realm that [`Organization::refresh`] finishes, on this device or, but for the name, on
//! any other of an owner: only the maker knows the name, so it lies on disk before the first statement is sent.
//! The root folder's manifest is no part of this; whoever syncs first uploads it.

use std::collections::BTreeMap;

use parsecfs_core::{
    certificate::{ArchivingConfiguration, RealmRole, open_realm_name},
    id::RealmId,
    name::EntryName,
    statement,
    storage::Barred,
    trust::{RealmTrust, Trust},
};

use super::{Organization, certificate_store::RecordKind, documents, random_id};
use crate::error::{Error, ErrorKind, Result};

/// Shortest beginning of an id that stands for it.
const ID_PREFIX_MIN: usize = 4;

/// A workspace as this user sees it.
#[derive(Clone, Debug)]
pub struct WorkspaceSummary {
    /// Its realm.
    pub realm: RealmId,
    /// Its name; `None` when it has none or it cannot be opened here.
    pub name: Option<EntryName>,
    /// This user's role.
    pub role: RealmRole,
    /// Archived or planned for deletion: read-only for everybody.
    pub archived: bool,
    /// Index of the newest key; `None` before the first.
    pub key_index: Option<u64>,
}

impl WorkspaceSummary {
    /// Whether this user may change something in it.
    #[must_use]
    pub fn writable(&self) -> bool {
        !self.archived && self.role.can_write()
    }
}

impl Organization {
    /// Makes a workspace and returns when it can be used. `Exists` when this user sees one of that name. A call that
    /// was interrupted is carried on by the same call again or by [`Self::refresh`].
    pub async fn create_workspace(&self, name: EntryName) -> Result<RealmId> {
        self.poll().await?;
        let started = self.pending_names().await?.into_iter().find(|(_, pending)| *pending == name);
        let realm = match started {
            Some((realm, _)) => realm,
            None => self.start_workspace(&name).await?,
        };
        self.found_realm(realm).await?;
        self.finish_workspace(realm, Some(name)).await?;
        Ok(realm)
    }

    async fn start_workspace(&self, name: &EntryName) -> Result<RealmId> {
        if self.workspaces().await?.iter().any(|workspace| workspace.name.as_ref() == Some(name)) {
            return Err(Error::new(ErrorKind::Exists, "a workspace of that name exists"));
        }
        let realm = RealmId::from_bytes(random_id());
        let clear = name.reveal().as_bytes().to_vec();
        self.on_disk(move |disk| disk.put_record(RecordKind::PendingName, realm, &clear)).await?;
        Ok(realm)
    }

    async fn found_realm(&self, realm: RealmId) -> Result<()> {
        let made = self.append(|trust| {
            if trust.realm(realm).is_some() {
                return Ok(None);
            }
            let author = self.author(trust, Some(realm));
            self.allowed(trust.may_create_realm(self.user_id(), author.timestamp))?;
            Ok(Some(statement::create_realm(realm, self.user_id(), &author)))
        });
        match made.await {
            Err(error) if error.kind() == ErrorKind::Denied => {
                self.on_disk(move |disk| disk.remove_record(RecordKind::PendingName, realm)).await?;
                Err(error)
            }
            answer => answer,
        }
    }

    /// What an owner owes to a realm: a key that nobody has who is gone, and its name where it is known.
    async fn finish_workspace(&self, realm: RealmId, name: Option<EntryName>) -> Result<()> {
        self.fulfil_duties(realm).await?;
        let Some(name) = name else { return Ok(()) };
        let keys = self.realm_keys(realm).await?;
        let key = documents::newest(realm, &keys)?;
        self.append(|trust| {
            let nameless = trust.realm(realm).is_none_or(|realm| realm.name().is_none());
            Ok(nameless.then(|| statement::rename_realm(realm, &name, key, &self.author(trust, Some(realm)))))
        })
        .await?;
        self.on_disk(move |disk| disk.remove_record(RecordKind::PendingName, realm)).await
    }

    /// Workspaces that were begun and not finished, or of which somebody is gone. Never in the way of reading: what fails
    /// now is tried next time.
    pub(super) async fn finish_workspaces(&self) -> Result<()> {
        let mut names = self.pending_names().await?;
        let trust = self.trust();
        for (realm, role) in self.own_realms(&trust) {
            let (id, name) = (realm.id(), names.remove(&realm.id()));
            let (remove, rotate) = trust.owner_duties(realm);
            if role != RealmRole::Owner || (remove.is_empty() && !rotate && name.is_none()) {
                continue;
            }
            if let Err(error) = self.finish_workspace(id, name).await {
                tracing::warn!(realm = %id, kind = ?error.kind(), "a workspace could not be finished");
            }
        }
        Ok(())
    }

    /// Realms in which this user has a role, but for the user's own.
    pub(super) fn own_realms<'a>(&self, trust: &'a Trust) -> Vec<(&'a RealmTrust, RealmRole)> {
        let shared = trust.realms().filter(|realm| realm.id() != self.device.user_realm_id);
        shared.filter_map(|realm| Some((realm, realm.role(self.user_id())?))).collect()
    }

    /// Names that were chosen here and are not published yet.
    async fn pending_names(&self) -> Result<BTreeMap<RealmId, EntryName>> {
        let records = self.on_disk(|disk| disk.records(RecordKind::PendingName)).await?;
        Ok(records
            .into_iter()
            .filter_map(|(realm, clear)| Some((realm, EntryName::new(std::str::from_utf8(&clear).ok()?).ok()?)))
            .collect())
    }

    /// Every workspace in which this user has a role. Keys are fetched where they are missing; one whose keys cannot be
    /// had now (no network, not finished, damaged) is listed without a name.
    pub async fn workspaces(&self) -> Result<Vec<WorkspaceSummary>> {
        let trust = self.trust();
        let mut pending = self.pending_names().await?;
        let mut workspaces = Vec::new();
        for (realm, role) in self.own_realms(&trust) {
            workspaces.push(WorkspaceSummary {
                realm: realm.id(),
                name: self.workspace_name(realm).await.or_else(|| pending.remove(&realm.id())),
                role,
                archived: realm.archiving() != ArchivingConfiguration::Available,
                key_index: Some(realm.key_index()).filter(|index| *index > 0),
            });
        }
        Ok(workspaces)
    }

    async fn workspace_name(&self, realm: &RealmTrust) -> Option<EntryName> {
        let certificate = realm.name()?;
        let keys = self.realm_keys(realm.id()).await.ok()?;
        open_realm_name(&certificate.encrypted_name, keys.key(certificate.key_index)?).ok()
    }

    /// This user's role in a realm now.
    #[must_use]
    pub fn role(&self, realm: RealmId) -> Option<RealmRole> {
        self.trust().realm(realm)?.role(self.user_id())
    }

    /// Whether this user may change something in a realm now. A server that says that the user is revoked is believed so
    /// far, since it shows no certificates to whoever is.
    #[must_use]
    pub fn writable(&self, realm: RealmId) -> bool {
        let available = |realm: &RealmTrust| realm.archiving() == ArchivingConfiguration::Available;
        let standing = self.barred() != Some(Barred::Revoked);
        standing
            && self.role(realm).is_some_and(RealmRole::can_write)
            && self.trust().realm(realm).is_some_and(available)
    }

    /// The workspace with this name, id, or unique beginning of an id (from 4 digits). Several of one name are
    /// `InvalidArgument`; the error lists their ids.
    pub async fn find_workspace(&self, text: &str) -> Result<WorkspaceSummary> {
        let all = self.workspaces().await?;
        let named: Vec<_> =
            all.iter().filter(|one| one.name.as_ref().is_some_and(|name| name.reveal() == text)).collect();
        let found = if named.is_empty() {
            all.iter().filter(|one| is_id_start(&one.realm.to_string(), text)).collect()
        } else {
            named
        };
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(Error::new(ErrorKind::NotFound, "no such workspace")),
            several => {
                let ids: Vec<_> = several.iter().map(|one| one.realm.to_string()).collect();
                Err(Error::new(ErrorKind::InvalidArgument, format!("several workspaces match: {}", ids.join(", "))))
            }
        }
    }
}

/// Whether `text` is this id or a beginning of it.
pub(super) fn is_id_start(id: &str, text: &str) -> bool {
    let digits = text.replace('-', "").to_ascii_lowercase();
    digits.len() >= ID_PREFIX_MIN && id.starts_with(&digits)
}
