//! One entry of a log: a clear header, a sealed body, and the digest that the next entry quotes.
//!
//! ```text
//! object    = header ‖ sealed ‖ SHA-256(header ‖ sealed)
//! header    = "PFLE" ‖ format u8 ‖ log kind u8 ‖ log id [16] ‖ seq u64 ‖ prev [32] ‖ key index u64
//! body      = author [16] ‖ op u64 ‖ timestamp i64 ‖ org head u64 ‖ org hash [32] ‖ features u64 ‖ changes ‖ signature [64]
//! ```
//!
//! The signature covers header and body before it; the seal has the header as associated data. So an entry says
//! nothing anywhere but at its place in its log. The digest tells damage (digest wrong: stop) from a forgery
//! (digest right, seal or signature wrong: void).

use std::collections::BTreeMap;

use parsecfs_core::{
    id::{BlockId, DeviceId, RealmId, UserId, VlobId},
    storage::{Bytes, Error, ErrorKind, LogId, LogKeys, Result, Signer, Statement},
    time::Timestamp,
};
use parsecfs_crypto::{VerifyKey, sha256};

use super::{
    key::PackName,
    recovery::{RecoveryObject, RecoverySetup},
    wire::{Reader, Writer},
};

const MAGIC: &[u8; 4] = b"PFLE";
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 70;
const DIGEST_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
/// Features that a reader of this version knows, as bits: none yet.
const FEATURES_KNOWN: u64 = 0;

/// SHA-256 of an entry, quoted by the next one.
pub(super) type Hash = [u8; 32];

/// How far a log goes: number of entries, and digest of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) hash: Hash,
}

impl Head {
    /// Of an empty log.
    pub(super) const EMPTY: Self = Self { seq: 0, hash: [0; 32] };
}

/// A log as bytes: its kind, and the id of its realm.
pub(super) fn log_bytes(log: LogId) -> (u8, [u8; 16]) {
    match log {
        LogId::Organization => (0, [0; 16]),
        LogId::Realm(realm) => (1, *realm.as_bytes()),
    }
}

/// The clear part of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) log: LogId,
    pub(super) seq: u64,
    pub(super) prev: Hash,
    pub(super) key_index: u64,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let (kind, id) = log_bytes(self.log);
        let mut writer = Writer::default();
        writer.raw(MAGIC).u8(FORMAT).u8(kind).raw(&id).u64(self.seq).raw(&self.prev).u64(self.key_index);
        writer.0
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.raw(4)? != MAGIC {
            return Err(damaged("a log entry does not start as one"));
        }
        if reader.u8()? != FORMAT {
            return Err(Error::new(ErrorKind::Unsupported, "a log entry of a newer format"));
        }
        let log = match (reader.u8()?, reader.array()?) {
            (0, _) => LogId::Organization,
            (1, realm) => LogId::Realm(RealmId::from_bytes(realm)),
            _ => return Err(damaged("a log entry of an unknown log")),
        };
        Ok(Self { log, seq: reader.u64()?, prev: reader.array()?, key_index: reader.u64()? })
    }
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

/// An entry as it lies in the store, whole and at its place, its body unread.
#[derive(Clone)]
pub(super) struct RawEntry {
    pub(super) header: Header,
    pub(super) hash: Hash,
    object: Bytes,
}

impl RawEntry {
    /// Checks that the object is undamaged and is entry `seq` of `log`.
    pub(super) fn parse(log: LogId, seq: u64, object: Bytes) -> Result<Self> {
        if object.len() < HEADER_BYTES + DIGEST_BYTES {
            return Err(damaged("a log entry is too short"));
        }
        let (content, digest) = object.split_at(object.len() - DIGEST_BYTES);
        let hash: Hash = digest.try_into().expect("split at the length of a digest");
        let header = Header::decode(content)?;
        if digest_of(content) != hash {
            return Err(damaged("a log entry is damaged"));
        }
        if (header.log, header.seq) != (log, seq) {
            return Err(damaged("a log entry lies at another's place"));
        }
        Ok(Self { header, hash, object })
    }

    /// The head of the log once this entry is in it.
    pub(super) fn head_after(&self) -> Head {
        Head { seq: self.header.seq + 1, hash: self.hash }
    }

    /// Opens the body. `NotFound` when the key is not there yet, `Corrupt` when it is a forgery.
    pub(super) fn open(&self, keys: &dyn LogKeys) -> Result<Vec<u8>> {
        let (header, rest) = self.object.split_at(HEADER_BYTES);
        keys.open(self.header.log, self.header.key_index, header, &rest[..rest.len() - DIGEST_BYTES])
    }

    /// Checks the author's signature of an opened body.
    pub(super) fn verify(&self, body: &[u8], key: &[u8; 32]) -> Result<()> {
        let at = body.len().checked_sub(SIGNATURE_BYTES).ok_or_else(|| damaged("a log entry has no signature"))?;
        let (said, signature) = body.split_at(at);
        let message = [&self.object[..HEADER_BYTES], said].concat();
        let signature = signature.try_into().expect("split at the length of a signature");
        let key = VerifyKey::from_bytes(*key);
        key.verify_detached(signature, &message).map_err(|_| damaged("the signature of a log entry is wrong"))
    }
}

pub(super) fn digest_of(bytes: &[u8]) -> Hash {
    *sha256(bytes).as_bytes()
}

/// Bytes within an opened body or a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl Span {
    pub(super) fn of(offset: usize, length: usize) -> Self {
        let narrow = |value| u32::try_from(value).expect("entries and packs are far below 4 GiB");
        Self { offset: narrow(offset), length: narrow(length) }
    }

    pub(super) fn slice(self, bytes: &[u8]) -> Result<&[u8]> {
        let from = self.offset as usize;
        let end = from.checked_add(self.length as usize);
        end.and_then(|end| bytes.get(from..end)).ok_or_else(|| damaged("a place points outside its object"))
    }

    pub(super) fn write(self, writer: &mut Writer) {
        writer.u32(self.offset).u32(self.length);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { offset: reader.u32()?, length: reader.u32()? })
    }
}

/// Where the sealed bytes of a manifest or block are, as an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// In this entry's own body.
    Inline(Span),
    /// In a pack.
    Pack(PackName, Span),
}

/// An object that garbage collection removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Doomed {
    Block(BlockId),
    Pack(PackName),
    Manifests(PackName),
}

/// One new version of a vlob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VlobChange {
    pub(super) id: VlobId,
    pub(super) version: u32,
    pub(super) key_index: u64,
    pub(super) timestamp: Timestamp,
    /// Entry that holds the version before; meaningless for version 1.
    pub(super) previous: u64,
    pub(super) new_blocks: Vec<BlockId>,
    pub(super) payload: Payload,
}

/// What an entry changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Certificates and what belongs to them.
    Statement(Box<Statement>),
    /// A realm exists: where to look for more logs. Organization log only.
    Realm(RealmId),
    /// A new version.
    Vlob(VlobChange),
    /// Where a block is.
    Place { id: BlockId, key_index: u64, payload: Payload },
    /// These objects are going to be deleted: nothing after this may use them.
    GcIntent(Vec<Doomed>),
    /// Nothing: quotes the organization's head.
    Fence,
    /// A user can be recovered by shares. Organization log only.
    Recovery(Box<RecoverySetup>),
}

/// Who says it, and on top of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) author: DeviceId,
    pub(super) op: u64,
    pub(super) timestamp: Timestamp,
    pub(super) organization: Head,
}

/// An opened body.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) said: Said,
    pub(super) changes: Vec<Change>,
}

impl Body {
    /// Reads an opened body. `Unsupported` when it needs a newer program.
    pub(super) fn decode(body: &[u8]) -> Result<Self> {
        let end = body.len().checked_sub(SIGNATURE_BYTES).ok_or_else(|| damaged("a log entry has no signature"))?;
        let mut reader = Reader::new(&body[..end]);
        let said = Said {
            author: DeviceId::from_bytes(reader.array()?),
            op: reader.u64()?,
            timestamp: reader.time()?,
            organization: Head { seq: reader.u64()?, hash: reader.array()? },
        };
        if reader.u64()? & !FEATURES_KNOWN != 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a log entry needs a feature that this program does not know",
            ));
        }
        let changes = reader.list(read_change)?;
        if !reader.is_empty() {
            return Err(damaged("a log entry has something behind its changes"));
        }
        Ok(Self { said, changes })
    }
}

/// Collects the changes of an entry.
#[derive(Default)]
pub(super) struct Draft {
    changes: Writer,
    count: u32,
}

impl Draft {
    pub(super) fn push(&mut self, change: &Change) {
        write_change(&mut self.changes, change);
        self.count += 1;
    }

    /// Adds raw bytes for a payload and says where they will be in the body.
    pub(super) fn push_vlob(&mut self, mut change: VlobChange, inline: Option<&[u8]>) {
        if let Some(bytes) = inline {
            change.payload = Payload::Inline(Span::of(0, bytes.len()));
        }
        self.push(&Change::Vlob(change));
        self.append(inline);
    }

    /// The same for a block.
    pub(super) fn push_block(&mut self, id: BlockId, key_index: u64, bytes: &[u8]) {
        self.push(&Change::Place { id, key_index, payload: Payload::Inline(Span::of(0, bytes.len())) });
        self.append(Some(bytes));
    }

    fn append(&mut self, inline: Option<&[u8]>) {
        if let Some(bytes) = inline {
            self.changes.raw(bytes);
        }
    }

    /// Signs and seals the entry for its place: its hash, its object, and its body as a reader opens it.
    pub(super) fn finish(
        &self,
        header: &Header,
        said: &Said,
        signer: &dyn Signer,
        keys: &dyn LogKeys,
    ) -> Result<RawEntry> {
        let mut body = Writer::default();
        body.raw(said.author.as_bytes()).u64(said.op).time(said.timestamp);
        body.u64(said.organization.seq).raw(&said.organization.hash).u64(0);
        body.u32(self.count).raw(&self.changes.0);
        let header_bytes = header.encode();
        let signature = signer.sign(&[header_bytes.as_slice(), &body.0].concat());
        body.raw(&signature);
        let mut object = header_bytes.clone();
        object.extend(keys.seal(header.log, header.key_index, &header_bytes, &body.0)?);
        let hash = digest_of(&object);
        object.extend(hash);
        Ok(RawEntry { header: *header, hash, object: object.into() })
    }
}

impl RawEntry {
    /// The object to store.
    pub(super) fn object(&self) -> Bytes {
        self.object.clone()
    }
}

const STATEMENT: u8 = 1;
const REALM: u8 = 2;
const VLOB: u8 = 3;
const PLACE: u8 = 4;
const GC_INTENT: u8 = 5;
const FENCE: u8 = 6;
const RECOVERY: u8 = 7;

fn write_payload(writer: &mut Writer, payload: Payload) {
    match payload {
        // The bytes follow the change at once, so the offset needs no writing.
        Payload::Inline(span) => writer.u8(0).u32(span.length),
        Payload::Pack(name, span) => writer.u8(1).raw(&name).u32(span.offset).u32(span.length),
    };
}

/// Reads a payload that ends its change, and steps over inline bytes.
fn read_payload(reader: &mut Reader<'_>) -> Result<Payload> {
    match reader.u8()? {
        0 => {
            let length = reader.length()?;
            let offset = reader.position();
            reader.raw(length)?;
            Ok(Payload::Inline(Span::of(offset, length)))
        }
        1 => Ok(Payload::Pack(reader.array()?, Span::read(reader)?)),
        _ => Err(damaged("a payload of an unknown kind")),
    }
}

pub(super) fn write_doomed(writer: &mut Writer, doomed: &Doomed) {
    match doomed {
        Doomed::Block(id) => writer.u8(0).raw(id.as_bytes()),
        Doomed::Pack(name) => writer.u8(1).raw(name),
        Doomed::Manifests(name) => writer.u8(2).raw(name),
    };
}

pub(super) fn read_doomed(reader: &mut Reader<'_>) -> Result<Doomed> {
    Ok(match (reader.u8()?, reader.array()?) {
        (0, id) => Doomed::Block(BlockId::from_bytes(id)),
        (1, name) => Doomed::Pack(name),
        (2, name) => Doomed::Manifests(name),
        _ => return Err(damaged("a doomed object of an unknown kind")),
    })
}

fn write_change(writer: &mut Writer, change: &Change) {
    match change {
        Change::Statement(statement) => write_statement(writer.u8(STATEMENT), statement),
        Change::Realm(realm) => {
            writer.u8(REALM).raw(realm.as_bytes());
        }
        Change::Vlob(vlob) => {
            writer.u8(VLOB).raw(vlob.id.as_bytes()).u32(vlob.version).u64(vlob.key_index).time(vlob.timestamp);
            writer.u64(vlob.previous).length(vlob.new_blocks.len());
            for block in &vlob.new_blocks {
                writer.raw(block.as_bytes());
            }
            write_payload(writer, vlob.payload);
        }
        Change::Place { id, key_index, payload } => {
            write_payload(writer.u8(PLACE).raw(id.as_bytes()).u64(*key_index), *payload);
        }
        Change::GcIntent(doomed) => {
            writer.u8(GC_INTENT).length(doomed.len());
            for doomed in doomed {
                write_doomed(writer, doomed);
            }
        }
        Change::Fence => {
            writer.u8(FENCE);
        }
        Change::Recovery(setup) => {
            writer.u8(RECOVERY).bytes(&setup.brief).length(setup.shares.len());
            for share in &setup.shares {
                writer.bytes(share);
            }
            writer.raw(&setup.object.name).raw(&setup.object.digest);
        }
    }
}

fn read_change(reader: &mut Reader<'_>) -> Result<Change> {
    Ok(match reader.u8()? {
        STATEMENT => Change::Statement(Box::new(read_statement(reader)?)),
        REALM => Change::Realm(RealmId::from_bytes(reader.array()?)),
        VLOB => Change::Vlob(VlobChange {
            id: VlobId::from_bytes(reader.array()?),
            version: reader.u32()?,
            key_index: reader.u64()?,
            timestamp: reader.time()?,
            previous: reader.u64()?,
            new_blocks: reader.list(|reader| reader.array().map(BlockId::from_bytes))?,
            payload: read_payload(reader)?,
        }),
        PLACE => Change::Place {
            id: BlockId::from_bytes(reader.array()?),
            key_index: reader.u64()?,
            payload: read_payload(reader)?,
        },
        GC_INTENT => Change::GcIntent(reader.list(read_doomed)?),
        FENCE => Change::Fence,
        RECOVERY => Change::Recovery(Box::new(RecoverySetup {
            brief: Bytes::copy_from_slice(reader.bytes()?),
            shares: reader.list(|reader| reader.bytes().map(Bytes::copy_from_slice))?,
            object: RecoveryObject { name: reader.array()?, digest: reader.array()? },
        })),
        _ => return Err(damaged("a change of an unknown kind")),
    })
}

pub(super) fn write_statement(writer: &mut Writer, statement: &Statement) {
    let accesses_of = |writer: &mut Writer, accesses: &BTreeMap<UserId, Bytes>| {
        writer.length(accesses.len());
        for (user, access) in accesses {
            writer.raw(user.as_bytes()).bytes(access);
        }
    };
    match statement {
        Statement::Bootstrap { user, device, redacted_user, redacted_device } => {
            writer.u8(0).bytes(user).bytes(device).bytes(redacted_user).bytes(redacted_device);
        }
        Statement::CreateUser { user, device, redacted_user, redacted_device } => {
            writer.u8(1).bytes(user).bytes(device).bytes(redacted_user).bytes(redacted_device);
        }
        Statement::CreateDevice { device, redacted_device } => {
            writer.u8(2).bytes(device).bytes(redacted_device);
        }
        Statement::UpdateUser { certificate } => {
            writer.u8(3).bytes(certificate);
        }
        Statement::RevokeUser { certificate } => {
            writer.u8(4).bytes(certificate);
        }
        Statement::CreateRealm { realm, certificate } => {
            writer.u8(5).raw(realm.as_bytes()).bytes(certificate);
        }
        Statement::Share { realm, certificate, recipient, key_index, access } => {
            writer.u8(6).raw(realm.as_bytes()).bytes(certificate);
            writer.raw(recipient.as_bytes()).u64(*key_index).bytes(access);
        }
        Statement::Unshare { realm, certificate } => {
            writer.u8(7).raw(realm.as_bytes()).bytes(certificate);
        }
        // Sequester services need a server.
        Statement::RotateKey { realm, certificate, key_index, bundle, accesses, services: _ } => {
            writer.u8(8).raw(realm.as_bytes()).bytes(certificate).u64(*key_index).bytes(bundle);
            accesses_of(writer, accesses);
        }
        Statement::RenameRealm { realm, certificate } => {
            writer.u8(9).raw(realm.as_bytes()).bytes(certificate);
        }
        Statement::ArchiveRealm { realm, certificate } => {
            writer.u8(10).raw(realm.as_bytes()).bytes(certificate);
        }
        Statement::SetUpRecovery { .. } => unreachable!("`Change::of` makes a change of its own of it"),
        Statement::DeleteRecovery { certificate } => {
            writer.u8(11).bytes(certificate);
        }
    }
}

pub(super) fn read_statement(reader: &mut Reader<'_>) -> Result<Statement> {
    fn bytes(reader: &mut Reader<'_>) -> Result<Bytes> {
        reader.bytes().map(Bytes::copy_from_slice)
    }
    fn realm(reader: &mut Reader<'_>) -> Result<RealmId> {
        reader.array().map(RealmId::from_bytes)
    }
    fn user(reader: &mut Reader<'_>) -> Result<UserId> {
        reader.array().map(UserId::from_bytes)
    }
    let r = reader;
    Ok(match r.u8()? {
        0 => Statement::Bootstrap {
            user: bytes(r)?,
            device: bytes(r)?,
            redacted_user: bytes(r)?,
            redacted_device: bytes(r)?,
        },
        1 => Statement::CreateUser {
            user: bytes(r)?,
            device: bytes(r)?,
            redacted_user: bytes(r)?,
            redacted_device: bytes(r)?,
        },
        2 => Statement::CreateDevice { device: bytes(r)?, redacted_device: bytes(r)? },
        3 => Statement::UpdateUser { certificate: bytes(r)? },
        4 => Statement::RevokeUser { certificate: bytes(r)? },
        5 => Statement::CreateRealm { realm: realm(r)?, certificate: bytes(r)? },
        6 => Statement::Share {
            realm: realm(r)?,
            certificate: bytes(r)?,
            recipient: user(r)?,
            key_index: r.u64()?,
            access: bytes(r)?,
        },
        7 => Statement::Unshare { realm: realm(r)?, certificate: bytes(r)? },
        8 => Statement::RotateKey {
            realm: realm(r)?,
            certificate: bytes(r)?,
            key_index: r.u64()?,
            bundle: bytes(r)?,
            accesses: r.list(|r| Ok((user(r)?, bytes(r)?)))?.into_iter().collect(),
            services: None,
        },
        9 => Statement::RenameRealm { realm: realm(r)?, certificate: bytes(r)? },
        10 => Statement::ArchiveRealm { realm: realm(r)?, certificate: bytes(r)? },
        11 => Statement::DeleteRecovery { certificate: bytes(r)? },
        _ => return Err(damaged("a statement of an unknown kind")),
    })
}
