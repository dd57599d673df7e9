//! What the agent does for each request.

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::BASE64;
use futures::future::BoxFuture;
use parsecfs_core::{
    id::{DeviceId, RealmId},
    name::EntryName,
};
use parsecfs_vfs::{
    error::ErrorKind,
    organization::{Organization, WorkspaceSummary},
};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::{
    audit, check, dialogs::Dialogs, invitations, mounts::Mounts, people, recovery, server::Answer, session,
    session::Sessions, survival::Left, views,
};
use crate::{
    daemon,
    exit::Kind,
    failure::{Failure, Result},
    home::Home,
    keeper::Kept,
    rpc::{DeviceCall, MountView, RecoveryView, Request, WorkspaceView},
    secret::Secret,
};

/// Everything an agent has: organizations that are open, and mounts.
pub(super) struct Work {
    sessions: Sessions,
    mounts: Arc<Mounts>,
    dialogs: Dialogs,
    /// The program that is to go on in place of this one.
    next: watch::Sender<Option<Arc<File>>>,
}

impl Work {
    pub(super) fn new(home: Home, kept: Arc<Kept>) -> Self {
        Self {
            sessions: Sessions::new(home.clone(), daemon::clock()),
            mounts: Arc::new(Mounts::new(home, kept)),
            dialogs: Dialogs::default(),
            next: watch::Sender::new(None),
        }
    }

    /// Goes on with what the agents before this one left; returns where. A mount that may not be had any more is let go.
    /// Any other failure is the end of this process: the next one tries again.
    pub(super) async fn restore(&self, left: Left) -> Result<BTreeSet<PathBuf>> {
        let mut restored = BTreeSet::new();
        for mount in left.mounts {
            let device = left.devices.get(&mount.note.device).ok_or_else(garbled)?;
            let organization = self.sessions.with(device.clone()).await?;
            let dir = mount.note.dir.clone();
            match organization.find_workspace(&mount.note.workspace).await {
                Ok(summary) => self.mounts.resume(&organization, &summary, mount).await?,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    tracing::error!("a workspace that was mounted is not there any more");
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            restored.insert(dir);
        }
        Ok(restored)
    }

    fn restart(&self, program: &Path) -> Result<()> {
        let opened =
            File::open(program).map_err(|error| Failure::io("cannot open the program to go on with", &error))?;
        self.next.send_replace(Some(Arc::new(opened)));
        Ok(())
    }

    async fn request(&self, request: Request) -> Result<Value> {
        match request {
            Request::CreateOrganization { organization, backend, email, name, device, permission } => {
                let person = session::person(&email, &name)?;
                let made = self.sessions.found(&organization, backend, (person, device), permission).await?;
                done(&views::organization(&made))
            }
            Request::ImportRecovery { file, passphrase, device } => {
                let file = BASE64.decode(file.as_bytes()).map_err(|_| garbled())?;
                done(&self.sessions.import(file, passphrase, device).await?)
            }
            Request::Invited { link } => done(&invitations::invited(link.reveal()).await?),
            Request::Join(request) => done(&self.dialogs.join(&self.sessions, request).await?),
            Request::Device { device, password, call } => {
                let device = DeviceId::parse(&device).ok_or_else(garbled)?;
                if let DeviceCall::Terms { accept } = call {
                    let terms = self.sessions.terms(device, password, accept).await?;
                    if terms.accepted {
                        self.mounts.go_on();
                    }
                    return done(&terms);
                }
                let organization = self.sessions.organization(device, password).await?;
                self.call(&organization, call).await
            }
            Request::Mounts => done(&self.mounts.list()),
            Request::Unmount { workspace, flush, force } => {
                done(&self.mounts.unmount(realm(&workspace)?, flush, force).await?)
            }
            Request::Status { workspace } => done(&self.mounts.status(realm(&workspace)?).await?),
            Request::PathStatus { workspace, inode } => {
                done(&self.mounts.path_status(realm(&workspace)?, inode).await?)
            }
            Request::Sync { workspace } => done(&self.mounts.sync(realm(&workspace)?).await?),
            Request::WaitSynced { workspace, timeout_ms } => {
                done(&self.mounts.wait_synced(realm(&workspace)?, timeout_ms).await?)
            }
            Request::Restart { program } => done(&self.restart(&program)?),
            Request::WaitUnmounted { workspace } => done(&self.mounts.wait_unmounted(realm(&workspace)?).await),
        }
    }

    async fn call(&self, organization: &Arc<Organization>, call: DeviceCall) -> Result<Value> {
        match call {
            // Answered before an organization is opened.
            DeviceCall::Terms { .. } => Err(garbled()),
            DeviceCall::Organization => {
                refresh(organization).await?;
                done(&views::organization(organization))
            }
            DeviceCall::Workspaces => done(&self.workspaces(organization).await?),
            DeviceCall::CreateWorkspace { name } => done(&self.create_workspace(organization, &name).await?),
            DeviceCall::Invite(wish) => done(&invitations::invite(organization, wish).await?),
            DeviceCall::Invitations => done(&invitations::list(organization).await?),
            DeviceCall::CancelInvitation { invitation } => done(&invitations::cancel(organization, &invitation).await?),
            DeviceCall::Greet { invitation, profile, said } => {
                done(&self.dialogs.greet(organization, &invitation, profile, said).await?)
            }
            DeviceCall::Members { workspace } => {
                let summary = self.find(organization, &workspace).await?;
                done(&people::members(organization, &summary))
            }
            DeviceCall::ChangeMember { workspace, change } => {
                let summary = self.find(organization, &workspace).await?;
                done(&people::change_member(organization, &summary, change).await?)
            }
            DeviceCall::ChangeWorkspace { workspace, change } => {
                let summary = self.find(organization, &workspace).await?;
                people::change_workspace(organization, &summary, change).await?;
                let changed = organization.find_workspace(&summary.realm.to_string()).await?;
                done(&views::workspace(&changed, self.mounts.dir(summary.realm)))
            }
            DeviceCall::Users => {
                refresh(organization).await?;
                done(&organization.users().into_iter().map(views::user).collect::<Vec<_>>())
            }
            DeviceCall::ChangeUser(change) => {
                refresh(organization).await?;
                done(&people::change_user(organization, change).await?)
            }
            DeviceCall::Mount { workspace, dir, options } => {
                let summary = self.find(organization, &workspace).await?;
                done(&self.mounts.mount(organization, &summary, dir, options).await?)
            }
            DeviceCall::SyncOnce { workspace } => {
                let summary = self.find(organization, &workspace).await?;
                done(&self.mounts.sync_once(organization, &summary).await?)
            }
            DeviceCall::Protect { protection } => done(&self.sessions.protect(organization, protection).await?),
            DeviceCall::ExportRecovery => {
                let recovery = organization.export_recovery().await?;
                done(&RecoveryView {
                    file: BASE64.encode(&recovery.file),
                    passphrase: Secret::from(recovery.passphrase),
                })
            }
            DeviceCall::SetUpRecovery { threshold, recipients } => {
                refresh(organization).await?;
                done(&recovery::set_up(organization, threshold, &recipients).await?)
            }
            DeviceCall::RecoveryShares => {
                refresh(organization).await?;
                done(&recovery::shares(organization))
            }
            DeviceCall::DeleteRecovery => done(&recovery::delete(organization).await?),
            DeviceCall::Audit { workspace } => {
                news(organization).await?;
                let only = match workspace {
                    Some(text) => Some(self.find(organization, &text).await?),
                    None => None,
                };
                done(&audit::run(organization, &self.mounts, only.as_ref()).await?)
            }
            DeviceCall::Check { deep } => done(&check::run(organization, &self.mounts, deep).await),
        }
    }

    async fn workspaces(&self, organization: &Arc<Organization>) -> Result<Vec<WorkspaceView>> {
        refresh(organization).await?;
        let summaries = organization.workspaces().await?;
        Ok(summaries.iter().map(|summary| views::workspace(summary, self.mounts.dir(summary.realm))).collect())
    }

    async fn create_workspace(&self, organization: &Arc<Organization>, name: &str) -> Result<WorkspaceView> {
        let entry = EntryName::new(name)
            .map_err(|_| Failure::new(Kind::Usage, "a workspace name has 1 to 255 bytes and no slash"))?;
        refresh(organization).await?;
        let taken = |summary: &WorkspaceSummary| summary.name.as_ref() == Some(&entry);
        if organization.workspaces().await?.iter().any(taken) {
            return Err(Failure::new(Kind::Exists, format!("there is a workspace called {name:?} already"))
                .hint("choose another name"));
        }
        let realm = organization.create_workspace(entry).await?;
        let summary = organization.find_workspace(&realm.to_string()).await?;
        Ok(views::workspace(&summary, None))
    }

    /// The workspace that the person means, after a look at what is new.
    async fn find(&self, organization: &Arc<Organization>, text: &str) -> Result<WorkspaceSummary> {
        news(organization).await?;
        organization.find_workspace(text).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failure::new(Kind::NotFound, format!("there is no workspace {text:?}"))
                .hint("`mountctl workspace list` shows those that are"),
            ErrorKind::InvalidArgument => Failure { kind: Kind::Ambiguous, ..Failure::from(error) }.hint("use the id"),
            _ => error.into(),
        })
    }
}

impl Answer for Work {
    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Result<Value>> {
        Box::pin(async move { self.request(request).await })
    }

    fn engaged(&self) -> bool {
        // Dialogs first: asking them is what makes them forget, also while something is mounted.
        self.dialogs.engaged() || !self.mounts.list().is_empty()
    }

    fn close(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.mounts.close().await })
    }

    fn restart_asked(self: Arc<Self>) -> BoxFuture<'static, File> {
        Box::pin(async move {
            let mut next = self.next.subscribe();
            loop {
                // The sender lives in `self`.
                let program = next.wait_for(Option::is_some).await.ok().and_then(|program| program.clone());
                self.next.send_replace(None);
                match program.map(|program| program.try_clone()) {
                    Some(Ok(program)) => return program,
                    Some(Err(error)) => tracing::error!(%error, "cannot restart"),
                    None => {}
                }
            }
        })
    }

    fn hand_over(self: Arc<Self>) -> BoxFuture<'static, bool> {
        Box::pin(async move { self.mounts.hand_over().await })
    }
}

/// Looks at what is new. Offline is a normal state: what is known stays true.
async fn refresh(organization: &Organization) -> Result<()> {
    match organization.refresh().await {
        Err(error) if error.kind() == ErrorKind::Offline => Ok(()),
        answer => Ok(answer?),
    }
}

/// Looks at what is new, if the storage can be read and serves this device. What is wrong there keeps nobody from what is
/// here: status, sync and the doctor tell of it.
async fn news(organization: &Organization) -> Result<()> {
    match refresh(organization).await {
        Err(failure) if failure.kind == Kind::Corrupt || organization.barred().is_some() => {
            tracing::warn!(kind = failure.kind.name(), "the storage cannot be used; using what is known");
            Ok(())
        }
        answer => answer,
    }
}

fn done<T: Serialize>(view: &T) -> Result<Value> {
    serde_json::to_value(view).map_err(|_| Failure::new(Kind::Failed, "the answer cannot be told"))
}

fn realm(text: &str) -> Result<RealmId> {
    RealmId::parse(text).ok_or_else(garbled)
}

fn garbled() -> Failure {
    Failure::new(Kind::Usage, "the agent does not understand this command")
}

/// Nothing is mounted there any more, or never was.
pub(super) fn not_mounted() -> Failure {
    Failure::new(Kind::NotMounted, "this workspace is not mounted").hint("`mountctl status` shows what is")
}

/// It is mounted already.
pub(super) fn already(mount: &MountView) -> Failure {
    let dir = mount.mount.display();
    Failure::new(Kind::AlreadyMounted, format!("{} is mounted on {dir} already", mount.workspace))
        .hint(format!("use it there, or `mountctl umount {dir}` first"))
}
