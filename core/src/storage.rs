//! The storage contract: what a backend promises, in enough detail that a stranger can implement one.
//!
//! A backend keeps sealed bytes under ids. It sees no path, no plaintext and no key; one that must prove who is
//! asking is handed a [`Signer`], one that keeps a sealed log of its own is handed [`LogKeys`].
//!
//! Rules that hold for every method:
//!
//! * **Repeatable.** The answer to a write may be lost after it was applied. The same write again succeeds with the
//!   same meaning and is counted once. What cannot be known is [`ErrorKind::OutcomeUnknown`]: look, then repeat.
//! * **Durable.** A write that returned `Ok` survives a crash of this process and of the storage.
//! * **Cancellable.** A dropped future leaves the write either done or not done, never half.
//! * **Bounded.** Limits are declared in [`Capabilities`]; exceeding one is the caller's mistake (`Internal`).
//! * **No trust.** Callers verify every byte that comes back. A backend that notices damage says `Corrupt`.

mod invitation;

use std::{collections::BTreeMap, fmt};

use futures::{future::BoxFuture, stream::BoxStream};

use crate::{
    id::{BlockId, DeviceId, RealmId, RevealToken, SequesterServiceId, UserId, VlobId},
    time::Timestamp,
    verify::{Proof, Verified},
};

pub use invitation::{
    Greeter, Invitation, InvitationInfo, InvitationStatus, Invitations, Invited, Invitee, Notice, StepAnswer,
};

/// Sealed bytes, shared without copying.
pub use bytes::Bytes;

/// The answer of every storage method.
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller does next; nobody parses text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It is not there. Do without it or report it.
    NotFound,
    /// Somebody was faster. Read, merge, try again.
    VersionConflict,
    /// Role, credential or medium does not allow it. Do not repeat; tell the person.
    Denied,
    /// Cannot be reached now. Wait for it and repeat.
    Offline,
    /// Asked to slow down. Wait and repeat.
    Throttled,
    /// The storage is full. Wait until there is space and repeat; nothing was changed.
    Full,
    /// What came back is damaged or forged. Fail this one entry loudly, go on with the others.
    Corrupt,
    /// It may or may not have been applied. Look before repeating.
    OutcomeUnknown,
    /// The store's history went backwards, forked or lost an entry. Stop writing; tell the person.
    Rollback,
    /// Needs a newer version of this program.
    Unsupported,
    /// A mistake of this program.
    Internal,
}

/// Why a storage that can be reached does not serve this device. All but the last may end without anything done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// The organization ran out of time on its server.
    Expired,
    /// The server's operator put this user on hold.
    Frozen,
    /// The terms of service wait to be accepted.
    TermsOfService,
    /// The clocks of this machine and of the storage are minutes apart.
    WrongClock,
    /// The user does not belong to the organization any more.
    Revoked,
}

/// A failed storage operation: its kind, one line of context (ids, never names or content), and its cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    after: Option<Timestamp>,
    barred: Option<Barred>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a deeper cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), after: None, barred: None, source: None }
    }

    /// The same with what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same for a document whose timestamp has to be after this one.
    #[must_use]
    pub fn only_after(mut self, last: Timestamp) -> Self {
        self.after = Some(last);
        self
    }

    /// After which time the document would have to be signed, where that was what stood in the way.
    #[must_use]
    pub fn after(&self) -> Option<Timestamp> {
        self.after
    }

    /// The same for a storage that does not serve this device at all.
    #[must_use]
    pub fn barred_by(mut self, state: Barred) -> Self {
        self.barred = Some(state);
        self
    }

    /// Why the storage does not serve this device at all, where that is so.
    #[must_use]
    pub fn barred(&self) -> Option<Barred> {
        self.barred
    }

    /// What to do next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// What a backend can do, declared instead of discovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Largest sealed block in bytes.
    pub block_bytes_max: u64,
    /// Largest sealed vlob in bytes.
    pub vlob_bytes_max: u64,
    /// Most vlobs that one [`VlobStore::commit`] takes.
    pub commit_writes_max: usize,
    /// Whether a commit is all or nothing. Otherwise a prefix of it may be applied.
    pub atomic_commit: bool,
    /// Whether the storage itself refuses what a role does not allow. Otherwise readers reject it.
    pub enforces_roles: bool,
    /// Whether it keeps [`Invitations`]; otherwise each of their calls is `Unsupported`.
    pub invitations: bool,
    /// How long a reader may wait to hear of another device's change by [`EventSource::events`], in ms;
    /// `None`: it never hears and must poll.
    pub event_latency_ms: Option<u64>,
}

/// How far the certificates of each topic are known: the timestamp of the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateCursor {
    /// Users and devices.
    pub common: Option<Timestamp>,
    /// Sequester authority and services.
    pub sequester: Option<Timestamp>,
    /// Recovery by shares.
    pub shamir: Option<Timestamp>,
    /// Each realm.
    pub realm: BTreeMap<RealmId, Timestamp>,
}

/// Signed certificates, each topic in the order in which it must be checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateBatch {
    /// Sequester authority and services; checked first.
    pub sequester: Vec<Bytes>,
    /// Users and devices.
    pub common: Vec<Bytes>,
    /// Each realm.
    pub realm: BTreeMap<RealmId, Vec<Bytes>>,
    /// Recovery by shares; checked last.
    pub shamir: Vec<Bytes>,
}

/// A statement about the organization with the documents that belong to it, applied as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// First user and first device, signed by the root key. Only on an empty organization.
    Bootstrap {
        /// User certificate.
        user: Bytes,
        /// Device certificate.
        device: Bytes,
        /// The same without the person's name and address.
        redacted_user: Bytes,
        /// The same without the label.
        redacted_device: Bytes,
    },
    /// A further user with the first device.
    CreateUser {
        /// User certificate.
        user: Bytes,
        /// Device certificate.
        device: Bytes,
        /// The same without the person's name and address.
        redacted_user: Bytes,
        /// The same without the label.
        redacted_device: Bytes,
    },
    /// A further device of a user, signed by one of that user's devices.
    CreateDevice {
        /// Device certificate.
        device: Bytes,
        /// The same without the label.
        redacted_device: Bytes,
    },
    /// Another profile for a user.
    UpdateUser {
        /// User update certificate.
        certificate: Bytes,
    },
    /// The end of a user.
    RevokeUser {
        /// Revoked user certificate.
        certificate: Bytes,
    },
    /// A new realm: the author's own OWNER role.
    CreateRealm {
        /// The realm.
        realm: RealmId,
        /// Realm role certificate.
        certificate: Bytes,
    },
    /// A role for a user, with access to the keys bundle of `key_index`.
    Share {
        /// The realm.
        realm: RealmId,
        /// Realm role certificate.
        certificate: Bytes,
        /// Who receives the role.
        recipient: UserId,
        /// The keys bundle that `access` opens.
        key_index: u64,
        /// Keys bundle access, sealed for the recipient.
        access: Bytes,
    },
    /// The end of a role.
    Unshare {
        /// The realm.
        realm: RealmId,
        /// Realm role certificate.
        certificate: Bytes,
    },
    /// A new key, with the bundle of all keys and an access to it for every member.
    RotateKey {
        /// The realm.
        realm: RealmId,
        /// Key rotation certificate.
        certificate: Bytes,
        /// Index of the new key, from 1.
        key_index: u64,
        /// Sealed keys bundle.
        bundle: Bytes,
        /// Access to the bundle for each member.
        accesses: BTreeMap<UserId, Bytes>,
        /// Access to the bundle for each sequester service; `None` where the organization is not sequestered, as is
        /// every one without a server.
        services: Option<BTreeMap<SequesterServiceId, Bytes>>,
    },
    /// A name for the workspace.
    RenameRealm {
        /// The realm.
        realm: RealmId,
        /// Realm name certificate.
        certificate: Bytes,
    },
    /// Archived, planned for deletion, or available again.
    ArchiveRealm {
        /// The realm.
        realm: RealmId,
        /// Archiving certificate.
        certificate: Bytes,
    },
    /// A way to get the author's user back by shares.
    SetUpRecovery {
        /// Brief certificate.
        brief: Bytes,
        /// Share certificate of each recipient.
        shares: Vec<Bytes>,
        /// Whoever tells it is handed `sealed_device`, until the recovery is deleted.
        reveal_token: RevealToken,
        /// The device that gets the user back, sealed with what the shares make.
        sealed_device: Bytes,
    },
    /// The end of that way.
    DeleteRecovery {
        /// Deletion certificate.
        certificate: Bytes,
    },
}

/// A keys bundle with the caller's access to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysBundle {
    /// Index of the newest key in it.
    pub key_index: u64,
    /// Sealed bundle.
    pub bundle: Bytes,
    /// Sealed access of the calling user.
    pub access: Bytes,
}

/// Signed statements about users, devices and realms, append-only and in total order.
pub trait CertificateStore: Send + Sync {
    /// Returns every certificate after `cursor` that the caller may see, of every topic.
    fn certificates<'a>(&'a self, cursor: &'a CertificateCursor) -> BoxFuture<'a, Result<CertificateBatch>>;

    /// Appends one statement. `VersionConflict` when its timestamp is not after the last one of its topic, when the
    /// key index is not the next one, or when it says what already holds: read the certificates, decide anew.
    /// A byte-equal repeat of an applied statement is `Ok`.
    fn append<'a>(&'a self, statement: Statement) -> BoxFuture<'a, Result<()>>;

    /// Returns the bundle that was put with the key of this index. `NotFound` when there is none, or no access to it.
    fn keys_bundle<'a>(&'a self, realm: RealmId, key_index: u64) -> BoxFuture<'a, Result<KeysBundle>>;
}

/// One stored version of a vlob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlobRecord {
    /// Which.
    pub id: VlobId,
    /// From 1, without gaps.
    pub version: u32,
    /// Key that seals `blob`.
    pub key_index: u64,
    /// Who stored it, as the storage says.
    pub author: DeviceId,
    /// When, as the author said; equal to the signed one.
    pub timestamp: Timestamp,
    /// Sealed manifest.
    pub blob: Bytes,
}

/// A new version of a vlob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlobWrite {
    /// Which.
    pub id: VlobId,
    /// The version this becomes: last stored version + 1.
    pub version: u32,
    /// Key that seals `blob`.
    pub key_index: u64,
    /// Timestamp inside the signed manifest.
    pub timestamp: Timestamp,
    /// Sealed manifest.
    pub blob: Bytes,
    /// Blocks that this version references and the version before did not. Each was `put` before.
    pub new_blocks: Vec<BlockId>,
}

/// What became of one [`VlobWrite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Stored.
    Stored,
    /// Another version with that number exists.
    Conflict,
    /// `key_index` is no longer the newest key: read certificates, seal again.
    OldKey,
    /// The timestamp must be greater than this one: sign again.
    TimestampTooOld(Timestamp),
    /// A block in `new_blocks` is no longer there: put it again under a new id.
    BlockGone(BlockId),
    /// Not tried, because another write of the commit was refused.
    NotTried,
}

/// What changed in a realm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ask from here next time.
    pub checkpoint: u64,
    /// Newest version of every vlob that changed since the asked checkpoint.
    pub items: Vec<(VlobId, u32)>,
}

/// Versioned manifests.
pub trait VlobStore: Send + Sync {
    /// Returns the newest version of each; those that do not exist are left out.
    fn read<'a>(&'a self, realm: RealmId, ids: &'a [VlobId]) -> BoxFuture<'a, Result<Vec<VlobRecord>>>;

    /// Returns exactly these versions; those that do not exist are left out.
    fn read_versions<'a>(
        &'a self,
        realm: RealmId,
        items: &'a [(VlobId, u32)],
    ) -> BoxFuture<'a, Result<Vec<VlobRecord>>>;

    /// Stores new versions, in order, and tells what became of each. With `atomic_commit`, all are `Stored` or none
    /// is; without, the first that is refused leaves those behind it `NotTried`, but for files that were on their way
    /// already. Blocks named in `new_blocks` are
    /// readable by everybody once the commit returned.
    fn commit<'a>(&'a self, realm: RealmId, writes: Vec<VlobWrite>) -> BoxFuture<'a, Result<Vec<WriteOutcome>>>;

    /// Returns what changed after `checkpoint`; 0 asks for everything.
    fn changes<'a>(&'a self, realm: RealmId, checkpoint: u64) -> BoxFuture<'a, Result<Changes>>;
}

/// A sealed block and the key that seals it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Key that seals `bytes`.
    pub key_index: u64,
    /// Sealed content.
    pub bytes: Bytes,
}

/// Immutable pieces of files.
pub trait BlockStore: Send + Sync {
    /// Stores blocks under random ids. The same id again with the same bytes is `Ok`. Others can read them after the
    /// commit that names them; the same store object can read them at once.
    ///
    /// Durable at the latest with the commit that names them: a crash before it may lose them, and the commit then says
    /// [`WriteOutcome::BlockGone`].
    fn put<'a>(&'a self, realm: RealmId, blocks: Vec<(BlockId, Block)>) -> BoxFuture<'a, Result<()>>;

    /// Returns one block.
    fn get<'a>(&'a self, realm: RealmId, id: BlockId) -> BoxFuture<'a, Result<Block>>;
}

/// Something happened at the storage; ask what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Certificates may have been added.
    Certificates,
    /// Vlobs of this realm may have changed.
    Vlobs(RealmId),
    /// Events may have been missed: ask for everything.
    Missed,
    /// The storage can be reached.
    Online,
    /// The storage cannot be reached.
    Offline,
}

/// Hears of changes made elsewhere.
pub trait EventSource: Send + Sync {
    /// Starts to listen. The stream is endless; `Missed` comes first and after every interruption.
    fn events(&self) -> BoxStream<'static, Event>;
}

/// Everything an organization needs.
pub trait Storage: CertificateStore + VlobStore + BlockStore + Invitations + EventSource {
    /// What this storage can do.
    fn capabilities(&self) -> Capabilities;

    /// Reads everything that these realms and the organization rest on, and names what is damaged; damage is no error.
    /// `None` when the storage looks after that itself, as a server does.
    fn verify<'a>(&'a self, realms: &'a [RealmId], proof: Proof<'a>) -> BoxFuture<'a, Result<Option<Verified>>> {
        let _ = (realms, proof);
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// Proves to a backend which device is asking, without giving it the key.
pub trait Signer: Send + Sync {
    /// The device that signs.
    fn device_id(&self) -> DeviceId;
    /// Its user.
    fn user_id(&self) -> UserId;
    /// Ed25519 signature of `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// Which sealed log of an organization without a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogId {
    /// Users and devices.
    Organization,
    /// One realm.
    Realm(RealmId),
}

/// Seals and opens the entries of logs, without giving the backend a key. Key index 0 is the organization's key, which
/// every device has: it seals the organization log and all entries that carry certificates or keys bundles. From 1 on
/// they are the realm's keys: they seal entries that carry vlobs, blocks and what belongs to them.
pub trait LogKeys: Send + Sync {
    /// Seals with associated data. `NotFound` when this device does not have that key.
    fn seal(&self, log: LogId, key_index: u64, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>>;
    /// Opens. `NotFound` when this device does not have that key (yet), `Corrupt` when it does not open.
    fn open(&self, log: LogId, key_index: u64, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>>;
}
