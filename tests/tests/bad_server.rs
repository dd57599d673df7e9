//! A server that lies: each lie is found out and named, costs nothing that is here, and what waited goes on when the
//! server is sane again. What garbles or stalls instead is in `cli_server.rs`.

use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use parsecfs_backends::parsec::{Limits, Options, ParsecStorage, command::Request, server::Family, server::Server};
use parsecfs_core::{
    certificate::DevicePurpose,
    id::{BlockId, RealmId, VlobId},
    local_device::LocalDevice,
    name::{DeviceLabel, Email, EntryName, HumanHandle, OrganizationId},
    storage::{
        Block, BlockStore, Capabilities, CertificateBatch, CertificateCursor, CertificateStore, Changes, ErrorKind,
        Event, EventSource, Invitations, KeysBundle, Result as Stored, Statement, Storage, VlobRecord, VlobStore,
        VlobWrite, WriteOutcome,
    },
    url::ServerAddr,
};
use parsecfs_crypto::SigningKey;
use parsecfs_tests::{
    parsec_server::ParsecServer,
    world::{Files as _, content},
};
use parsecfs_vfs::{
    Workspace, WorkspaceOptions,
    clock::{Clock, SystemClock},
    error::ErrorKind as Seen,
    organization::{Founding, NewOrganization, Organization, OrganizationKeys},
};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// What the server does instead of telling the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// None.
    No,
    /// It hides every certificate that it has not shown yet.
    HidesCertificates,
    /// Of each manifest, it gives the first version and calls it the newest.
    ReplaysManifests,
    /// It gives the first version of each manifest under the number of the newest.
    CallsOldNew,
    /// It gives the root folder for whatever else is asked for.
    SwapsManifests,
    /// It names the newest version of everything but the root folder, and gives none.
    LeavesOut,
    /// It names a version of the root folder, and a number of changes, that never were.
    NamesTooMuch,
    /// It gives one block for another.
    SwapsBlocks(BlockId, BlockId),
    /// It went back to an earlier state.
    GoesBack,
}

/// A connection to the real server through somebody who lies.
struct Liar {
    inner: Arc<ParsecStorage>,
    lie: Mutex<Lie>,
    /// Ids of the blocks that were put.
    put: Mutex<Vec<BlockId>>,
}

impl Liar {
    fn new(inner: Arc<ParsecStorage>) -> Arc<Self> {
        Arc::new(Self { inner, lie: Mutex::new(Lie::No), put: Mutex::default() })
    }

    fn tell(&self, lie: Lie) {
        *self.lie.lock().unwrap_or_else(PoisonError::into_inner) = lie;
    }

    fn lie(&self) -> Lie {
        *self.lie.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CertificateStore for Liar {
    fn certificates<'a>(&'a self, cursor: &'a CertificateCursor) -> BoxFuture<'a, Stored<CertificateBatch>> {
        if self.lie() == Lie::HidesCertificates {
            return async { Ok(CertificateBatch::default()) }.boxed();
        }
        self.inner.certificates(cursor)
    }

    fn append<'a>(&'a self, statement: Statement) -> BoxFuture<'a, Stored<()>> {
        self.inner.append(statement)
    }

    fn keys_bundle<'a>(&'a self, realm: RealmId, key_index: u64) -> BoxFuture<'a, Stored<KeysBundle>> {
        self.inner.keys_bundle(realm, key_index)
    }
}

impl VlobStore for Liar {
    fn read<'a>(&'a self, realm: RealmId, ids: &'a [VlobId]) -> BoxFuture<'a, Stored<Vec<VlobRecord>>> {
        async move {
            let mut records = self.inner.read(realm, ids).await?;
            let first: Vec<_> = ids.iter().map(|id| (*id, 1)).collect();
            match self.lie() {
                Lie::ReplaysManifests => records = self.inner.read_versions(realm, &first).await?,
                Lie::CallsOldNew => {
                    for (record, old) in records.iter_mut().zip(self.inner.read_versions(realm, &first).await?) {
                        record.blob = old.blob;
                    }
                }
                Lie::LeavesOut => records.retain(|record| record.id == realm.root()),
                Lie::SwapsManifests => {
                    let root = self.inner.read(realm, &[realm.root()]).await?;
                    for record in records.iter_mut().filter(|record| record.id != realm.root()) {
                        record.blob = root[0].blob.clone();
                    }
                }
                _ => {}
            }
            Ok(records)
        }
        .boxed()
    }

    fn read_versions<'a>(
        &'a self,
        realm: RealmId,
        items: &'a [(VlobId, u32)],
    ) -> BoxFuture<'a, Stored<Vec<VlobRecord>>> {
        self.inner.read_versions(realm, items)
    }

    fn commit<'a>(&'a self, realm: RealmId, writes: Vec<VlobWrite>) -> BoxFuture<'a, Stored<Vec<WriteOutcome>>> {
        self.inner.commit(realm, writes)
    }

    fn changes<'a>(&'a self, realm: RealmId, checkpoint: u64) -> BoxFuture<'a, Stored<Changes>> {
        async move {
            // A server that went back is asked for more than it has.
            let ahead = if self.lie() == Lie::GoesBack { 1000 } else { 0 };
            let mut changes = self.inner.changes(realm, checkpoint + ahead).await?;
            if self.lie() == Lie::NamesTooMuch {
                changes.checkpoint += 1000;
                changes.items = vec![(realm.root(), 1000)];
            }
            Ok(changes)
        }
        .boxed()
    }
}

impl BlockStore for Liar {
    fn put<'a>(&'a self, realm: RealmId, blocks: Vec<(BlockId, Block)>) -> BoxFuture<'a, Stored<()>> {
        self.put.lock().unwrap_or_else(PoisonError::into_inner).extend(blocks.iter().map(|(id, _)| *id));
        self.inner.put(realm, blocks)
    }

    fn get<'a>(&'a self, realm: RealmId, id: BlockId) -> BoxFuture<'a, Stored<Block>> {
        let id = match self.lie() {
            Lie::SwapsBlocks(one, other) if id == one => other,
            Lie::SwapsBlocks(one, other) if id == other => one,
            _ => id,
        };
        self.inner.get(realm, id)
    }
}

impl Invitations for Liar {}

impl EventSource for Liar {
    fn events(&self) -> BoxStream<'static, Event> {
        self.inner.events()
    }
}

impl Storage for Liar {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

/// A device's connection and what it sees through it.
struct Device {
    storage: Arc<Liar>,
    organization: Arc<Organization>,
    home: TempDir,
}

async fn open(server: &ParsecServer, token: Option<[u8; 16]>, device: &LocalDevice) -> Result<Arc<Liar>> {
    let clock = SystemClock;
    let options = Options {
        server: server.address(),
        organization: device.organization_id.clone(),
        root: *device.root_verify_key.as_bytes(),
        bootstrap_token: token,
        signer: OrganizationKeys::new(device).signer(),
        clock: Arc::new(move || clock.now()),
        limits: Limits::default(),
    };
    Ok(Liar::new(ParsecStorage::open(options)?))
}

impl Device {
    async fn new(storage: Arc<Liar>, device: LocalDevice) -> Result<Self> {
        let home = TempDir::new()?;
        let keys = OrganizationKeys::new(&device);
        let clock = Arc::new(SystemClock);
        let organization = Organization::open(device, keys, storage.clone(), home.path(), clock).await?;
        Ok(Self { storage, organization, home })
    }

    async fn workspace(&self, realm: RealmId) -> Result<Arc<Workspace>> {
        self.organization.realm_keys(realm).await?;
        let dir = self.home.path().join(realm.to_string());
        let options = WorkspaceOptions { dir, cache_bytes_max: u64::MAX, owner: (0, 0), tape: None };
        Ok(Workspace::open(self.organization.clone(), realm, options, &Handle::current()).await?)
    }
}

/// A workspace with a file, on two devices.
struct Scene {
    server: ParsecServer,
    realm: RealmId,
    one: Device,
    two: Device,
    here: Arc<Workspace>,
    there: Arc<Workspace>,
}

fn founding(server: &ParsecServer) -> Result<Founding> {
    let new = NewOrganization {
        organization_id: OrganizationId::new("Org")?,
        human_handle: HumanHandle::new(Email::new("alice@example.com")?, "Alice")?,
        device_label: DeviceLabel::new("laptop")?,
        server_url: server.address().http_url(),
    };
    Ok(Founding::prepare(new, &SystemClock)?)
}

impl Scene {
    async fn new() -> Result<Option<Self>> {
        let Some(server) = ParsecServer::start() else { return Ok(None) };
        let token = server.bootstrap_token("Org").await;
        let founding = founding(&server)?;
        let storage = open(&server, Some(token), founding.device()).await?;
        founding.publish(&*storage).await?;
        let one = Device::new(storage, founding.device().clone()).await?;
        let realm = one.organization.create_workspace(EntryName::new("notes")?).await?;
        let second = one.organization.create_device(DeviceLabel::new("desktop")?, DevicePurpose::Standard).await?;
        let two = Device::new(open(&server, None, &second).await?, second).await?;
        let (here, there) = (one.workspace(realm).await?, two.workspace(realm).await?);
        here.volume().put("file", b"first")?;
        here.sync().await?;
        there.sync().await?;
        Ok(Some(Self { server, realm, one, two, here, there }))
    }

    /// What is here stays as it is and goes up when the server is sane; what was hidden comes.
    async fn goes_on(&self, expected: &[u8]) -> Result<()> {
        self.two.storage.tell(Lie::No);
        let deadline = Instant::now() + Duration::from_secs(30);
        self.there.sync().await?;
        while content(self.there.volume(), "file").await.ok().as_deref() != Some(expected) {
            ensure!(Instant::now() < deadline, "the truth does not arrive");
            self.there.sync().await?;
        }
        self.here.sync().await?;
        ensure!(content(self.here.volume(), "own").await? == b"of the second device", "what waited goes up");
        Ok(())
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", chain(cause)))
}

/// The second device writes something of its own and syncs with a server that lies; returns what it made of it.
async fn lied_to(scene: &Scene) -> Result<String> {
    scene.there.volume().put("own", b"of the second device")?;
    let said = match scene.there.sync().await {
        Ok(_) => {
            let status = scene.there.status()?;
            status.sync.problems.iter().map(|problem| format!("{:?}: {}", problem.kind, problem.reason)).collect()
        }
        Err(error) => chain(&error),
    };
    ensure!(content(scene.there.volume(), "own").await? == b"of the second device", "nothing that is here is lost");
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_goes_back_changes_nothing() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    scene.here.volume().put("file", b"second")?;
    scene.here.sync().await?;
    scene.there.sync().await?;
    scene.two.storage.tell(Lie::ReplaysManifests);
    scene.here.volume().put("file", b"third")?;
    scene.here.sync().await?;
    let said = lied_to(&scene).await?;
    assert!(said.contains("older version than it named"), "{said}");
    assert_eq!(content(scene.there.volume(), "file").await?, b"second", "what was seen is not taken back");
    scene.goes_on(b"third").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_under_a_new_number_is_refused() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    scene.two.storage.tell(Lie::CallsOldNew);
    scene.here.volume().put("file", b"second")?;
    scene.here.sync().await?;
    let said = lied_to(&scene).await?;
    assert!(said.contains("Untrusted") || said.contains("version"), "{said}");
    assert_eq!(content(scene.there.volume(), "file").await?, b"first");
    scene.goes_on(b"second").await
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_were_swapped_are_refused() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    scene.two.storage.tell(Lie::SwapsManifests);
    scene.here.volume().put("file", b"second")?;
    scene.here.volume().put("other", b"other")?;
    scene.here.sync().await?;
    let said = lied_to(&scene).await?;
    assert!(!said.is_empty(), "it is named");
    assert_eq!(content(scene.there.volume(), "file").await?, b"first");
    scene.goes_on(b"second").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_named_and_not_given_is_a_problem_until_it_comes() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    scene.two.storage.tell(Lie::LeavesOut);
    scene.here.volume().put("file", b"second")?;
    scene.here.sync().await?;
    let said = lied_to(&scene).await?;
    assert!(said.contains("does not give a version that it named"), "{said}");
    assert_eq!(content(scene.there.volume(), "file").await?, b"first");
    scene.goes_on(b"second").await
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_never_were_do_not_make_the_truth_look_like_a_step_back() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    scene.two.storage.tell(Lie::NamesTooMuch);
    let said = lied_to(&scene).await?;
    assert!(said.contains("older version than it named"), "{said}");
    scene.here.volume().put("file", b"second")?;
    scene.here.sync().await?;
    scene.goes_on(b"second").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_called_done_and_does_not_show_is_named() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    scene.two.storage.tell(Lie::HidesCertificates);
    let made = scene.two.organization.create_device(DeviceLabel::new("tablet")?, DevicePurpose::Standard).await;
    let error = made.err().context("nobody believes it")?;
    assert_eq!(error.kind(), Seen::Untrusted, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_was_swapped_is_an_error_of_that_file_alone() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    scene.here.volume().put("file", b"second")?;
    scene.here.volume().put("other", b"other")?;
    scene.here.sync().await?;
    scene.there.sync().await?;
    let put = scene.one.storage.put.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let [.., one, other] = put[..] else { anyhow::bail!("two blocks were put") };
    scene.two.storage.tell(Lie::SwapsBlocks(one, other));
    let error = content(scene.there.volume(), "file").await.expect_err("it is not what was signed");
    let kind = error.downcast_ref::<parsecfs_vfs::error::Error>().map(parsecfs_vfs::error::Error::kind);
    assert!(matches!(kind, None | Some(Seen::Corrupt | Seen::Untrusted)), "{error:?}");
    scene.there.volume().put("own", b"of the second device")?;
    scene.goes_on(b"second").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rests_on_a_hidden_certificate_waits_until_it_is_shown() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    // The lie comes before what it is about: the device also looks by itself.
    scene.two.storage.tell(Lie::HidesCertificates);
    let third = scene.one.organization.create_device(DeviceLabel::new("tablet")?, DevicePurpose::Standard).await?;
    let third = Device::new(open(&scene.server, None, &third).await?, third).await?;
    let tablet = third.workspace(scene.realm).await?;
    tablet.sync().await?;
    tablet.volume().put("file", b"of the tablet")?;
    tablet.sync().await?;
    let said = lied_to(&scene).await?;
    assert!(said.contains("Untrusted"), "{said}");
    assert_eq!(content(scene.there.volume(), "file").await?, b"first", "nobody known signed the new one");
    scene.goes_on(b"of the tablet").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_went_back_is_named_and_not_written_to() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    scene.two.storage.tell(Lie::GoesBack);
    let said = lied_to(&scene).await?;
    assert!(said.contains("less of realm"), "{said}");
    scene.goes_on(b"first").await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organization_is_not_taken_for_this_one() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    let device = scene.one.organization.device();
    // Its name is another's on this server.
    let other = LocalDevice { organization_id: OrganizationId::new("Other")?, ..device.clone() };
    let token = scene.server.bootstrap_token("Other").await;
    let error = Device::new(open(&scene.server, Some(token), &other).await?, other).await.err().context("refused")?;
    // One that nobody founded yet is there on some servers.
    let said = format!("{error:#}");
    assert!(said.contains("does not know this device") || said.contains("no such organization"), "{said}");
    // Its founder is not ours.
    let forged = LocalDevice { root_verify_key: SigningKey::generate().verify_key(), ..device.clone() };
    let error = Device::new(open(&scene.server, None, &forged).await?, forged).await.err().context("refused")?;
    let kind = error.downcast_ref::<parsecfs_vfs::error::Error>().map(parsecfs_vfs::error::Error::kind);
    assert_eq!(kind, Some(Seen::Untrusted), "{error:#}");
    Ok(())
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_prove_its_name_is_not_spoken_to() -> Result<()> {
    let folder = TempDir::new()?;
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let make = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
                -keyout key -out certificate";
    if !openssl(make).status().is_ok_and(|made| made.success()) {
        assert!(std::env::var_os("CI").is_none(), "openssl is missing in CI");
        eprintln!("SKIP: openssl is not here");
        return Ok(());
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let _server = Running(openssl(&format!("s_server -accept {port} -key key -cert certificate -quiet")).spawn()?);
    let address = ServerAddr::parse(&format!("parsec3://127.0.0.1:{port}"))?;
    let clock = SystemClock;
    let server = Server::new(&address, None, Arc::new(move || clock.now()), Limits::default())?;
    let deadline = Instant::now() + Duration::from_secs(30);
    let error = loop {
        let error =
            server.call(Family::AnonymousServer, Request::new("server_config")).await.err().context("refused")?;
        if !error.to_string().contains("cannot be reached") || Instant::now() > deadline {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Offline);
    assert!(error.to_string().contains("TLS certificate does not verify"), "{}", chain(&error));
    Ok(())
}
