//! An organization without a server: the same documents in any object store with create-if-absent.
//!
//! One log for the organization and one for each realm, each entry created under the next number, chained by digest,
//! sealed and signed. The log is the only commit point. Nobody refuses a write on a plain store, so every reader
//! checks each entry and leaves a void one without effect (`docs/format.md`, "Organization without a server").
//!
//! | module | holds |
//! |---|---|
//! | [`verbs`], [`directory`], [`in_memory`] | the seven things a store must do, over a directory, over a map |
//! | `entry`, `pack`, `key`, `wire` | bytes and names of objects |
//! | `chain`, `organization`, `realm`, `gate` | reading the logs and the verdict on each entry |
//! | `follow` | catching up: alarms, boundary, remembered heads |
//! | `heads` | what other devices say they saw, against a store that shows each another history |
//! | `aside` | entries that a tool for synchronizing folders renamed |
//! | `append`, `commit` | the two kinds of writers |
//! | `staging`, `judge` | blocks before their commit; what becomes of each commit |
//! | `read` | manifests and blocks out of entries, packs and objects |
//! | [`invitation`] | what the two sides of an invitation leave each other |
//! | `checkpoint`, [`maintenance`] | starting without reading it all; garbage and truncation |
//! | `recovery` | the sealed device of a recovery by shares, for who knows its token |
//! | `verify` | reading everything to find damage |
//! | `memory` | what the device remembers between runs |
//!
//! Locks, in this order: a realm's log, the organization's log, short `std` locks that are never held across an await.

mod append;
mod aside;
mod chain;
mod checkpoint;
mod commit;
pub mod directory;
mod entry;
mod follow;
mod format;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod heads;
pub mod in_memory;
pub mod invitation;
mod judge;
mod key;
pub mod maintenance;
mod memory;
mod organization;
mod pack;
mod read;
mod realm;
mod recovery;
mod staging;
mod table;
pub mod verbs;
mod verify;
mod watch;
mod wire;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use parsecfs_core::{
    block::BLOCK_OVERHEAD_BYTES,
    id::{BlockId, RealmId, VlobId},
    storage::{
        Block, BlockStore, Capabilities, CertificateBatch, CertificateCursor, CertificateStore, Changes, Error,
        ErrorKind, Event, EventSource, KeysBundle, LogKeys, Result, Signer, Statement, Storage, VlobRecord, VlobStore,
        VlobWrite, WriteOutcome,
    },
    time::Timestamp,
    verify::{Proof, Verified},
};

pub use self::format::Format;
use self::{
    directory::DirectoryVerbs,
    follow::{OrganizationLog, RealmLog},
    read::Bodies,
    verbs::Verbs,
};
use crate::layer::lazy::Lazy;

/// Largest sealed block: about half of what a pack takes.
const BLOCK_BYTES_MAX: u64 = (4 << 20) + BLOCK_OVERHEAD_BYTES;
/// Largest sealed vlob.
const VLOB_BYTES_MAX: u64 = 64 << 20;
/// Most changes of an entry.
const COMMIT_WRITES_MAX: usize = 4096;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a device brings along to open an organization without a server.
#[derive(Clone)]
pub struct Options {
    /// Where this device keeps its notes about the storage; its own, never shared between machines.
    pub state_dir: PathBuf,
    /// Signs entries.
    pub signer: Arc<dyn Signer>,
    /// Seals and opens entries.
    pub keys: Arc<dyn LogKeys>,
    /// The organization that must be there.
    pub organization: String,
    /// The organization's root verify key: what all trust starts from.
    pub root: [u8; 32],
    /// Tells the time.
    pub clock: Clock,
}

/// One device's connection to an organization without a server.
pub struct ObjectStorage {
    shared: Arc<Shared>,
}

struct Shared {
    verbs: Arc<dyn Verbs>,
    options: Options,
    /// Directory to watch for other devices' bells.
    watched: Option<PathBuf>,
    organization: tokio::sync::Mutex<OrganizationLog>,
    realms: Mutex<HashMap<RealmId, Arc<RealmLog>>>,
    bodies: Bodies,
    rung: tokio::sync::broadcast::Sender<Event>,
}

fn misuse(what: &str) -> Error {
    Error::new(ErrorKind::Internal, what)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fresh random bytes: names of objects.
fn random<const N: usize>() -> [u8; N] {
    parsecfs_crypto::random_bytes::<N>()
}

/// The directory that a `file://` address or a plain path names.
///
/// # Errors
/// `Unsupported` for an address of another kind.
pub fn directory_of(location: &str) -> Result<&Path> {
    match location.split_once("://") {
        Some(("file", path)) => Ok(Path::new(path)),
        Some(_) => Err(Error::new(ErrorKind::Unsupported, "this kind of storage address is not known")),
        None => Ok(Path::new(location)),
    }
}

/// Says what organization lies in a directory, without opening it.
///
/// # Errors
/// `NotFound` when there is none, `Corrupt` when something else is there, `Unsupported` when it needs a newer program,
/// `Offline` when the directory is not there.
pub async fn inspect(location: &str) -> Result<Format> {
    format::read(&DirectoryVerbs::open(directory_of(location)?)?).await
}

/// What every organization without a server can do.
#[must_use]
pub fn capabilities() -> Capabilities {
    Capabilities {
        block_bytes_max: BLOCK_BYTES_MAX,
        vlob_bytes_max: VLOB_BYTES_MAX,
        commit_writes_max: COMMIT_WRITES_MAX,
        atomic_commit: true,
        enforces_roles: false,
        invitations: true,
        event_latency_ms: Some(u64::try_from(POLL.as_millis()).expect("half a minute")),
    }
}

/// [`open`], or when the directory is not there, once it is: until then every call is `Offline`.
///
/// # Errors
/// Those of [`open`] but `Offline`.
pub async fn open_or_wait(location: &str, options: Options) -> Result<Arc<dyn Storage>> {
    match open(location, options.clone()).await {
        Err(error) if error.kind() == ErrorKind::Offline => {
            let location = location.to_owned();
            Ok(Lazy::new(capabilities(), move || {
                let (location, options) = (location.clone(), options.clone());
                async move { Ok(open(&location, options).await? as Arc<dyn Storage>) }.boxed()
            }))
        }
        opened => Ok(opened?),
    }
}

/// Makes an organization in a directory that is missing or holds none. Byte-equal repeats succeed.
///
/// # Errors
/// `VersionConflict` when another organization is there, and those of [`DirectoryVerbs::create`].
pub async fn create(location: &str, options: Options) -> Result<Arc<ObjectStorage>> {
    let folder = directory_of(location)?;
    let verbs = Arc::new(DirectoryVerbs::create(folder)?);
    let watched = verbs.root().to_owned();
    create_over(verbs, Some(watched), options).await
}

/// Opens the organization in a directory.
///
/// # Errors
/// Those of [`inspect`], and `Denied` when it is another organization than the one asked for.
pub async fn open(location: &str, options: Options) -> Result<Arc<ObjectStorage>> {
    let verbs = Arc::new(DirectoryVerbs::open(directory_of(location)?)?);
    let watched = verbs.root().to_owned();
    open_over(verbs, Some(watched), options).await
}

/// [`create`] over any store. `watched` is the directory whose `hint/` tells of others' changes, if there is one.
///
/// # Errors
/// As [`create`].
pub async fn create_over(
    verbs: Arc<dyn Verbs>,
    watched: Option<PathBuf>,
    options: Options,
) -> Result<Arc<ObjectStorage>> {
    format::write(&*verbs, &Format::of(&options)).await?;
    open_over(verbs, watched, options).await
}

/// [`open`] over any store.
///
/// # Errors
/// As [`open`].
pub async fn open_over(
    verbs: Arc<dyn Verbs>,
    watched: Option<PathBuf>,
    options: Options,
) -> Result<Arc<ObjectStorage>> {
    format::read(&*verbs).await?.require(&options)?;
    let organization = tokio::sync::Mutex::new(OrganizationLog::open(&options)?);
    let shared = Shared {
        verbs,
        watched,
        organization,
        realms: Mutex::default(),
        bodies: Bodies::default(),
        rung: tokio::sync::broadcast::Sender::new(256),
        options,
    };
    Ok(Arc::new(ObjectStorage { shared: Arc::new(shared) }))
}

impl Shared {
    fn realm(&self, realm: RealmId) -> Result<Arc<RealmLog>> {
        let mut realms = lock(&self.realms);
        if let Some(log) = realms.get(&realm) {
            return Ok(Arc::clone(log));
        }
        let log = Arc::new(RealmLog::open(realm, &self.options)?);
        realms.insert(realm, Arc::clone(&log));
        Ok(log)
    }
}

impl CertificateStore for ObjectStorage {
    fn certificates<'a>(&'a self, cursor: &'a CertificateCursor) -> BoxFuture<'a, Result<CertificateBatch>> {
        self.shared.certificates(cursor).boxed()
    }

    fn append<'a>(&'a self, statement: Statement) -> BoxFuture<'a, Result<()>> {
        self.shared.append(statement).boxed()
    }

    fn keys_bundle<'a>(&'a self, realm: RealmId, key_index: u64) -> BoxFuture<'a, Result<KeysBundle>> {
        self.shared.keys_bundle(realm, key_index).boxed()
    }
}

impl VlobStore for ObjectStorage {
    fn read<'a>(&'a self, realm: RealmId, ids: &'a [VlobId]) -> BoxFuture<'a, Result<Vec<VlobRecord>>> {
        self.shared.read_newest(realm, ids).boxed()
    }

    fn read_versions<'a>(
        &'a self,
        realm: RealmId,
        items: &'a [(VlobId, u32)],
    ) -> BoxFuture<'a, Result<Vec<VlobRecord>>> {
        self.shared.read_exactly(realm, items).boxed()
    }

    fn commit<'a>(&'a self, realm: RealmId, writes: Vec<VlobWrite>) -> BoxFuture<'a, Result<Vec<WriteOutcome>>> {
        self.shared.commit(realm, writes).boxed()
    }

    fn changes<'a>(&'a self, realm: RealmId, checkpoint: u64) -> BoxFuture<'a, Result<Changes>> {
        self.shared.changes(realm, checkpoint).boxed()
    }
}

impl BlockStore for ObjectStorage {
    fn put<'a>(&'a self, realm: RealmId, blocks: Vec<(BlockId, Block)>) -> BoxFuture<'a, Result<()>> {
        self.shared.put_blocks(realm, blocks).boxed()
    }

    fn get<'a>(&'a self, realm: RealmId, id: BlockId) -> BoxFuture<'a, Result<Block>> {
        self.shared.get_block(realm, id).boxed()
    }
}

impl EventSource for ObjectStorage {
    fn events(&self) -> BoxStream<'static, Event> {
        watch::events(
            self.shared.watched.as_deref(),
            *self.shared.options.signer.device_id().as_bytes(),
            self.shared.rung.subscribe(),
        )
    }
}

/// Without a bell to hear, changes of others are looked for this often.
const POLL: Duration = Duration::from_secs(30);

impl Storage for ObjectStorage {
    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn verify<'a>(&'a self, realms: &'a [RealmId], proof: Proof<'a>) -> BoxFuture<'a, Result<Option<Verified>>> {
        async move { Ok(Some(self.shared.verify(realms, proof).await?)) }.boxed()
    }
}
