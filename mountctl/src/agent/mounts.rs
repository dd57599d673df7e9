//! The workspaces that are mounted: mounting, unmounting, how they are.
//!
//! One change at a time (`changing`), so that two commands never mount one workspace twice. `live` is locked for
//! moments only and never across an await.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use parsecfs_core::id::RealmId;
use parsecfs_vfs::{
    LastChange, Mount, MountOptions, Workspace, WorkspaceOptions,
    error::ErrorKind,
    fs::Damage,
    organization::{Organization, WorkspaceSummary},
};
use tokio::{runtime::Handle, sync::watch};

use super::{
    record,
    session::blocking,
    survival::{self, LeftMount},
    views, work,
};
use crate::{
    daemon,
    exit::Kind,
    failure::{Failure, Result},
    home::{self, Home},
    keeper::Kept,
    mountpoint,
    rpc::{MountRequest, MountView, PathView, StatusView},
};

/// An unmount gives changes that are on their way so long to arrive before it refuses; and programs that are losing
/// their mount so long to let go before it is ended behind their back.
const GRACE: Duration = Duration::from_secs(10);

/// The local store of a workspace takes at most so much of the disk, unless `-o cache=` says otherwise.
const CACHE_BYTES_MAX: u64 = 20 << 30;

/// A mounted workspace.
struct Live {
    view: MountView,
    workspace: Arc<Workspace>,
    mount: Arc<Mount>,
}

/// All mounts of a home.
pub(super) struct Mounts {
    home: Home,
    kept: Arc<Kept>,
    live: Mutex<BTreeMap<RealmId, Arc<Live>>>,
    changing: tokio::sync::Mutex<()>,
    /// Rings when a mount ended.
    ended: watch::Sender<()>,
}

impl Mounts {
    pub(super) fn new(home: Home, kept: Arc<Kept>) -> Self {
        Self {
            home,
            kept,
            live: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            ended: watch::Sender::new(()),
        }
    }

    fn live<T>(&self, look: impl FnOnce(&mut BTreeMap<RealmId, Arc<Live>>) -> T) -> T {
        look(&mut self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, realm: RealmId) -> Result<Arc<Live>> {
        self.live(|live| live.get(&realm).cloned()).ok_or_else(work::not_mounted)
    }

    pub(super) fn list(&self) -> Vec<MountView> {
        let now = |live: &Arc<Live>| {
            let writable = live.workspace.organization().writable(live.workspace.realm());
            MountView { read_only: live.view.read_only || !writable, ..live.view.clone() }
        };
        self.live(|live| live.values().map(now).collect())
    }

    /// Where this workspace is mounted.
    pub(super) fn dir(&self, realm: RealmId) -> Option<PathBuf> {
        self.live(|live| live.get(&realm).map(|live| live.view.mount.clone()))
    }

    pub(super) async fn mount(
        self: &Arc<Self>,
        organization: &Arc<Organization>,
        summary: &WorkspaceSummary,
        dir: Option<PathBuf>,
        options: MountRequest,
    ) -> Result<MountView> {
        let _turn = self.changing.lock().await;
        if let Ok(live) = self.find(summary.realm) {
            return Err(work::already(&live.view));
        }
        let dir = self.mount_point(summary, dir)?;
        // A role may change while it is mounted: what it allows is for the volume to say, not for the kernel.
        let read_only = options.read_only;
        let tape = survival::new_tape()?;
        let workspace = self.open(organization, summary.realm, options.cache_bytes, Some(&tape)).await?;
        let (folder, noted) = (self.home.agent_folder().to_owned(), dir.clone());
        blocking(move || {
            record::remember(&folder, &noted).map_err(|error| Failure::io("cannot note the mount", &error))
        })
        .await?;
        let mount = match mount_on(
            &workspace,
            &dir,
            MountOptions { read_only: options.read_only, allow_other: options.allow_other },
        )
        .await
        {
            Ok(mount) => mount,
            Err(error) => {
                self.forget(dir.clone()).await;
                workspace.close().await?;
                return Err(error);
            }
        };
        let view = self.go_live(organization, summary, workspace, mount.clone(), read_only);
        let kept = survival::keep_mount(&self.kept, &mount, &tape, organization.device(), summary.realm, options);
        if let Err(failure) = kept {
            tracing::error!(kind = failure.kind.name(), "the mount will not survive this process");
        }
        tracing::info!(realm = %summary.realm, read_only, "mounted");
        Ok(view)
    }

    /// Goes on with a mount that the agent before this one left.
    pub(super) async fn resume(
        self: &Arc<Self>,
        organization: &Arc<Organization>,
        summary: &WorkspaceSummary,
        left: LeftMount,
    ) -> Result<()> {
        let LeftMount { note, descriptor, tape } = left;
        let read_only = note.options.read_only;
        let workspace = self.open(organization, summary.realm, note.options.cache_bytes, Some(&tape)).await?;
        let resumed = workspace.clone();
        let mount = blocking(move || Ok(resumed.resume(&note.dir, descriptor, note.agreed)?)).await?;
        self.go_live(organization, summary, workspace, mount, read_only);
        tracing::info!(realm = %summary.realm, read_only, "going on with a mount");
        Ok(())
    }

    fn go_live(
        self: &Arc<Self>,
        organization: &Organization,
        summary: &WorkspaceSummary,
        workspace: Arc<Workspace>,
        mount: Arc<Mount>,
        read_only: bool,
    ) -> MountView {
        let view = MountView {
            workspace_id: summary.realm.to_string(),
            workspace: views::name(summary),
            organization: organization.organization_id().to_string(),
            device_id: organization.device_id().to_string(),
            mount: mount.dir().to_owned(),
            read_only,
        };
        let live = Arc::new(Live { view: view.clone(), workspace, mount });
        self.live(|all| all.insert(summary.realm, live.clone()));
        tokio::spawn(self.clone().watch(summary.realm, live));
        view
    }

    /// Stops all mounts, for another process to go on with them. `false` when there is nobody to do so.
    pub(super) async fn hand_over(&self) -> bool {
        let _turn = self.changing.lock().await;
        if !self.kept.is_there() {
            tracing::error!("there is no keeper, so no other process can go on with the mounts");
            return false;
        }
        for live in self.live(|live| live.values().cloned().collect::<Vec<_>>()) {
            if let Err(error) = live.workspace.hand_over().await {
                // What is on the tape is not lost, and the next process opens the store as after a kill.
                tracing::error!(realm = %live.workspace.realm(), %error, "a workspace was not put away in order");
            }
        }
        true
    }

    /// The directory asked for, which the command has checked, or the default one, made and checked here.
    fn mount_point(&self, summary: &WorkspaceSummary, dir: Option<PathBuf>) -> Result<PathBuf> {
        if let Some(dir) = dir {
            return Ok(dir);
        }
        let dir = mountpoint::resolve(&self.home.default_mount(&views::name(summary)))?;
        if mountpoint::mounted_on(&dir)?.is_none() {
            home::make_private(&dir)?;
        }
        mountpoint::check(&dir)?;
        Ok(dir)
    }

    async fn open(
        &self,
        organization: &Arc<Organization>,
        realm: RealmId,
        cache_bytes: Option<u64>,
        tape: Option<&File>,
    ) -> Result<Arc<Workspace>> {
        let tape = tape.map(File::try_clone).transpose();
        let options = WorkspaceOptions {
            dir: self.home.workspace_store(organization.device_id(), realm),
            cache_bytes_max: cache_bytes.unwrap_or(CACHE_BYTES_MAX),
            owner: daemon::owner(),
            tape: tape.map_err(|error| Failure::io("cannot make room in memory", &error))?,
        };
        Ok(Workspace::open(organization.clone(), realm, options, &Handle::current()).await?)
    }

    /// Opens a workspace that is not mounted for as long as `work` takes.
    async fn opened<T, F>(
        &self,
        organization: &Arc<Organization>,
        realm: RealmId,
        work: impl FnOnce(Arc<Workspace>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let workspace = self.open(organization, realm, None, None).await?;
        let done = work(workspace.clone()).await;
        workspace.close().await?;
        done
    }

    /// Waits for the end of a mount, whoever brought it about, and puts everything away.
    async fn watch(self: Arc<Self>, realm: RealmId, live: Arc<Live>) {
        live.mount.ended().await;
        if let Err(error) = live.workspace.close().await {
            tracing::error!(%realm, %error, "a workspace did not close");
        }
        self.forget(live.view.mount.clone()).await;
        let device = live.workspace.organization().device_id();
        drop(live);
        self.live(|all| all.remove(&realm));
        survival::drop_mount(&self.kept, realm);
        if self.live(|all| all.values().all(|live| live.workspace.organization().device_id() != device)) {
            survival::drop_device(&self.kept, device);
        }
        self.ended.send_replace(());
        tracing::info!(%realm, "unmounted");
    }

    async fn forget(&self, dir: PathBuf) {
        let folder = self.home.agent_folder().to_owned();
        let forgotten = blocking(move || {
            record::forget(&folder, &dir).map_err(|error| Failure::io("cannot note the end of a mount", &error))
        })
        .await;
        if forgotten.is_err() {
            tracing::warn!("the end of a mount could not be noted");
        }
    }

    pub(super) async fn unmount(&self, realm: RealmId, flush: bool, force: bool) -> Result<MountView> {
        let _turn = self.changing.lock().await;
        let live = self.find(realm)?;
        let view = live.view.clone();
        match (flush, force) {
            (true, false) => flush_now(&live.workspace).await?,
            (false, true) => {}
            // What cannot be brought there in this time is counted below, or forced.
            _ => drop(tokio::time::timeout(GRACE, live.workspace.sync()).await),
        }
        if !force && pending(&live.workspace).await? > 0 {
            return Err(unsynced(&view));
        }
        let workspace = live.workspace.clone();
        drop(live);
        self.end(realm, &view.mount, force).await?;
        drop(workspace);
        Ok(view)
    }

    /// Takes the mount away from the kernel and waits until everything is put away. With `lazy` programs that use it
    /// may go on until they let go; then it ends in the background.
    async fn end(&self, realm: RealmId, dir: &Path, lazy: bool) -> Result<()> {
        let dir = dir.to_owned();
        let detached = blocking(move || Ok(mountpoint::unmount(&dir, lazy))).await?;
        match detached {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(Failure::new(Kind::Busy, "the mount is in use"));
            }
            Err(error) => return Err(Failure::io("cannot unmount", &error)),
            Ok(()) => {}
        }
        let ended = self.wait_unmounted(realm);
        if lazy {
            tokio::time::timeout(GRACE, ended).await.unwrap_or(())
        } else {
            ended.await
        }
        Ok(())
    }

    pub(super) async fn wait_unmounted(&self, realm: RealmId) {
        let mut ended = self.ended.subscribe();
        while self.find(realm).is_ok() {
            if ended.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn status(&self, realm: RealmId) -> Result<StatusView> {
        let live = self.find(realm)?;
        self.status_of(&live).await
    }

    async fn status_of(&self, live: &Live) -> Result<StatusView> {
        views::status(&live.view.workspace, Some(&live.view), &live.workspace, &self.kept).await
    }

    pub(super) async fn path_status(&self, realm: RealmId, inode: u64) -> Result<PathView> {
        let live = self.find(realm)?;
        let state = match (live.workspace.volume().waits(inode), self.status_of(&live).await?.online) {
            (false, _) => "synced",
            (true, true) => "uploading",
            (true, false) => "local",
        };
        Ok(PathView { path: PathBuf::new(), state: state.to_owned() })
    }

    pub(super) async fn sync(&self, realm: RealmId) -> Result<StatusView> {
        let live = self.find(realm)?;
        live.workspace.sync().await?;
        self.status_of(&live).await
    }

    /// What stood in the way is gone, for all we know: nobody waits for the next try.
    pub(super) fn go_on(&self) {
        for live in self.live(|live| live.values().cloned().collect::<Vec<_>>()) {
            // Its status tells how it ended.
            tokio::spawn(async move { drop(live.workspace.sync().await) });
        }
    }

    /// How a workspace is, mounted or not; `None` when this device has nothing of it.
    pub(super) async fn look(
        &self,
        organization: &Arc<Organization>,
        summary: &WorkspaceSummary,
    ) -> Result<Option<(StatusView, Vec<Damage>)>> {
        let _turn = self.changing.lock().await;
        if let Ok(live) = self.find(summary.realm) {
            let damage = live.workspace.check().await?;
            return Ok(Some((self.status_of(&live).await?, damage)));
        }
        if !self.home.workspace_store(organization.device_id(), summary.realm).exists() {
            return Ok(None);
        }
        let looked = self.opened(organization, summary.realm, |workspace| async move {
            let damage = workspace.check().await;
            let status = views::status(&views::name(summary), None, &workspace, &self.kept).await;
            Ok((status?, damage?))
        });
        looked.await.map(Some)
    }

    /// Who changed each entry last; empty when nothing of the workspace is kept here.
    pub(super) async fn last_changes(
        &self,
        organization: &Arc<Organization>,
        realm: RealmId,
    ) -> Result<Vec<LastChange>> {
        let _turn = self.changing.lock().await;
        let ask = |workspace: Arc<Workspace>| blocking(move || Ok(workspace.last_changes()?));
        if let Ok(live) = self.find(realm) {
            return ask(live.workspace.clone()).await;
        }
        if !self.home.workspace_store(organization.device_id(), realm).exists() {
            return Ok(Vec::new());
        }
        self.opened(organization, realm, ask).await
    }

    /// Syncs a workspace that is not mounted.
    pub(super) async fn sync_once(
        &self,
        organization: &Arc<Organization>,
        summary: &WorkspaceSummary,
    ) -> Result<StatusView> {
        let _turn = self.changing.lock().await;
        if self.find(summary.realm).is_ok() {
            return self.sync(summary.realm).await;
        }
        let synced = self.opened(organization, summary.realm, |workspace| async move {
            let synced = workspace.sync().await;
            let status = views::status(&views::name(summary), None, &workspace, &self.kept).await;
            synced?;
            status
        });
        synced.await
    }

    pub(super) async fn wait_synced(&self, realm: RealmId, timeout_ms: Option<u64>) -> Result<StatusView> {
        let live = self.find(realm)?;
        let limit = timeout_ms.map_or(Duration::MAX, Duration::from_millis);
        if !live.workspace.wait_synced(limit).await? {
            let status = self.status_of(&live).await?;
            let why = status.waiting.first().map_or_else(String::new, |waiting| format!(": {}", waiting.reason));
            return Err(Failure::new(Kind::Timeout, format!("{} entries still wait{why}", status.upload.items))
                .hint("`mountctl status` tells why and when it is tried again"));
        }
        self.status_of(&live).await
    }

    /// Ends all mounts; what is not synced stays in the local stores.
    pub(super) async fn close(&self) {
        for view in self.list() {
            let Some(realm) = RealmId::parse(&view.workspace_id) else { continue };
            let _turn = self.changing.lock().await;
            if let Err(failure) = self.end(realm, &view.mount, true).await {
                tracing::error!(kind = failure.kind.name(), "a mount did not end");
            }
        }
    }
}

async fn pending(workspace: &Arc<Workspace>) -> Result<u64> {
    let workspace = workspace.clone();
    blocking(move || Ok(workspace.status()?.sync.upload_entries)).await
}

async fn mount_on(workspace: &Arc<Workspace>, dir: &Path, options: MountOptions) -> Result<Arc<Mount>> {
    let (workspace, dir) = (workspace.clone(), dir.to_owned());
    blocking(move || workspace.mount(&dir, mountpoint::SOURCE, &options).map_err(|error| mount_failure(error, &dir)))
        .await
}

async fn flush_now(workspace: &Workspace) -> Result<()> {
    workspace.sync().await.map_err(|error| Failure::from(error).context("cannot bring all changes to the storage"))?;
    Ok(())
}

fn unsynced(view: &MountView) -> Failure {
    Failure::new(Kind::Unsynced, format!("{} has changes that are not on the storage yet", view.workspace)).hint(
        "wait with `mountctl wait --synced`, or use --force: the changes stay on this device and go up after the next mount",
    )
}

fn mount_failure(error: parsecfs_vfs::error::Error, dir: &Path) -> Failure {
    let kind = match error.kind() {
        ErrorKind::Internal | ErrorKind::NotPermitted | ErrorKind::Denied => Kind::MountPoint,
        ErrorKind::Busy => Kind::AlreadyMounted,
        _ => return error.into(),
    };
    Failure { kind, ..Failure::from(error) }
        .context(format_args!("cannot mount on {}", dir.display()))
        .hint("`mountctl doctor` looks at what mounting needs")
}
