//! Checkpoints: the replayed state of a realm's log at one number, so that a device need not read the log from 0.
//!
//! A convenience, never a truth: written by any writer, signed, tied to the digest of the log at its number. Without
//! one, or with one that cannot be read, the log is read from the beginning. Certificates are in it as statements,
//! which pass the same rules as in the log. Vlobs and blocks are in shards named by the digest of their plain
//! content, so that unchanged shards are shared by checkpoints; ids are random, so the names tell nothing.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use parsecfs_core::{
    certificate::RealmRole,
    id::{BlockId, DeviceId, RealmId, VlobId},
    storage::{Bytes, Error, ErrorKind, LogId, Result, Statement},
};
use parsecfs_crypto::VerifyKey;

use super::{
    Shared,
    entry::{
        Head, Payload, RawEntry, Said, Span, digest_of, read_doomed, read_statement, write_doomed, write_statement,
    },
    follow::{RealmLog, RealmState, boundary},
    key, random,
    realm::{BlockPlace, Certificates, Data, Marks, Places, VlobPlace, Written},
    wire::{Reader, Writer},
};

const MAGIC: &[u8; 4] = b"PFLC";
const SHARD: &[u8; 4] = b"PFLS";
/// 2: with the last writes of each device, and the marks of the first pass. A reader of format 1 reads the log from its beginning instead.
const FORMAT: u8 = 2;
/// Of shards, which checkpoints of both formats share.
const SHARD_FORMAT: u8 = 1;
const SIGNATURE_BYTES: usize = 64;
/// A checkpoint is due after this many changes, an entry counting as [`ENTRY_CHANGES`],
const CHANGES_DUE: usize = 8192;
/// and when they are at least this part of the state: all that was ever written is then at most five times the state,
/// while whoever reads from the checkpoint on reads at most a quarter more;
const STATE_PART_DUE: usize = 4;
/// in any case after this many entries, each of which is read one by one.
const ENTRIES_DUE: usize = 16_384;
/// What reading an entry costs, in changes that are read with it.
const ENTRY_CHANGES: usize = 8;
/// About this many items in a shard.
const SHARD_ITEMS: usize = 2048;
const SHARDS_MAX: usize = 1024;
/// Shards made and stored, or read, together: a state of millions of items is never in memory twice.
const SHARDS_AT_ONCE: usize = 64;

/// What came after the newest checkpoint that this device knows.
#[derive(Default)]
pub(super) struct Tail {
    /// Number at which reading began.
    pub(super) from: u64,
    entries: usize,
    changes: usize,
    /// The data of a checkpoint whose key is not there yet.
    waiting: Option<SealedData>,
}

impl Tail {
    pub(super) fn count(&mut self, changes: usize) {
        self.entries += 1;
        self.changes += changes;
    }

    fn is_due(&self, data: &Data) -> bool {
        is_due(self.entries, self.changes, data.places.len())
    }
}

/// Whether so many entries with so many changes are enough for a new checkpoint of a state of so many items.
fn is_due(entries: usize, changes: usize, items: usize) -> bool {
    let read = changes + entries * ENTRY_CHANGES;
    entries >= ENTRIES_DUE || read >= CHANGES_DUE.max(items / STATE_PART_DUE)
}

struct SealedData {
    head: Head,
    key_index: u64,
    header: Vec<u8>,
    sealed: Vec<u8>,
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

/// Starts from the newest checkpoint that the hint names, or from 0.
pub(super) async fn boot(shared: &Shared, realm: RealmId, state: &mut RealmState) -> Result<()> {
    let hint = shared.verbs.get(&key::hint(LogId::Realm(realm))).await?.bytes;
    let name = hint.and_then(|hint| String::from_utf8(hint.to_vec()).ok());
    let loaded = match name {
        Some(name) => load(shared, realm, &name, state).await,
        None => Ok(()),
    };
    match loaded {
        Ok(()) => {}
        Err(error) if is_about_content(&error) => {
            tracing::warn!(%realm, "a checkpoint cannot be used, the log is read from its beginning");
            state.certificates = Certificates::empty(realm, shared.options.root);
            state.tail = Tail::default();
        }
        Err(error) => return Err(error),
    }
    if state.tail.from == 0 && boundary(&*shared.verbs, LogId::Realm(realm)).await? > 0 {
        return Err(damaged("the log was truncated and its checkpoint cannot be used"));
    }
    Ok(())
}

fn is_about_content(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Offline | ErrorKind::Throttled | ErrorKind::OutcomeUnknown | ErrorKind::Rollback)
}

pub(super) async fn load(shared: &Shared, realm: RealmId, name: &str, state: &mut RealmState) -> Result<()> {
    if !name.starts_with(&format!("r/{realm}/ck/")) {
        return Err(damaged("a hint names no checkpoint of its realm"));
    }
    let object = shared.verbs.get(name).await?.bytes.ok_or_else(|| damaged("a checkpoint is missing"))?;
    let root = Root::decode(&object)?;
    if root.realm != realm {
        return Err(damaged("a checkpoint of another realm"));
    }
    let last = root.head.seq.checked_sub(1).ok_or_else(|| damaged("a checkpoint of an empty log"))?;
    let entry = shared.verbs.get(&key::entry(LogId::Realm(realm), last)).await?.bytes;
    let entry = entry.ok_or_else(|| damaged("the entry below a checkpoint is missing"))?;
    if RawEntry::parse(LogId::Realm(realm), last, entry)?.head_after() != root.head {
        return Err(damaged("a checkpoint of another history"));
    }
    let plain = shared.options.keys.open(LogId::Realm(realm), 0, &root.header, &root.certificates)?;
    let mut certificates = Certificates::empty(realm, shared.options.root);
    restore_certificates(shared, &plain, &mut certificates).await?;
    certificates.head = root.head;
    require_writer(shared, &object, &root, &certificates).await?;
    state.certificates = certificates;
    state.tail = Tail { from: root.head.seq, ..Tail::default() };
    let sealed = SealedData { head: root.head, key_index: root.key_index, header: root.header, sealed: root.data };
    load_data(shared, realm, state, sealed).await
}

async fn require_writer(shared: &Shared, object: &[u8], root: &Root, certificates: &Certificates) -> Result<()> {
    let organization = shared.organization_at(Head::EMPTY).await?;
    let device = organization.device_at(root.author, organization.head.seq.max(1));
    let device = device.ok_or_else(|| damaged("a checkpoint by a device that is unknown or revoked"))?;
    let (said, signature) = object.split_at(object.len() - SIGNATURE_BYTES);
    let signature = signature.try_into().expect("split at the length of a signature");
    VerifyKey::from_bytes(device.verify_key)
        .verify_detached(signature, said)
        .map_err(|_| damaged("the signature of a checkpoint is wrong"))?;
    let role = certificates.role_at(device.user, root.head.seq);
    if role.is_some_and(RealmRole::can_write) {
        return Ok(());
    }
    Err(damaged("a checkpoint by somebody who may not write"))
}

async fn restore_certificates(shared: &Shared, plain: &[u8], certificates: &mut Certificates) -> Result<()> {
    let (statements, marks) = decode_certificates(plain)?;
    for (seq, said, statement) in statements {
        let organization = shared.organization_at(said.organization).await?;
        certificates.restore(seq, &said, &statement, &organization)?;
    }
    certificates.restore_marks(marks);
    Ok(())
}

/// Loads the second half of a checkpoint, or keeps it until its key is there.
async fn load_data(shared: &Shared, realm: RealmId, state: &mut RealmState, sealed: SealedData) -> Result<()> {
    let keys = &shared.options.keys;
    let plain = match keys.open(LogId::Realm(realm), sealed.key_index, &sealed.header, &sealed.sealed) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            state.tail.waiting = Some(sealed);
            return Ok(());
        }
        opened => opened?,
    };
    let (mut data, shards) = decode_root_data(&plain)?;
    data.begin_at(sealed.head.seq);
    let names: Vec<String> = shards.iter().map(|hash| key::shard(realm, hash)).collect();
    for (hashes, names) in shards.chunks(SHARDS_AT_ONCE).zip(names.chunks(SHARDS_AT_ONCE)) {
        let objects = try_join_all(names.iter().map(|name| shared.verbs.get(name))).await?;
        for (hash, object) in hashes.iter().zip(objects) {
            let object = object.bytes.ok_or_else(|| damaged("a shard of a checkpoint is missing"))?;
            let mut reader = Reader::new(&object);
            let key_index = reader.u64()?;
            let plain =
                keys.open(LogId::Realm(realm), key_index, &shard_header(realm), &object[reader.position()..])?;
            if digest_of(&plain) != *hash {
                return Err(damaged("a shard of a checkpoint is another one"));
            }
            decode_shard(&plain, &mut data)?;
        }
    }
    if data.places.vlobs().any(|(_, place)| place.author as usize >= data.authors.len()) {
        return Err(damaged("a checkpoint names an author that it does not list"));
    }
    state.data = data;
    state.data_head = sealed.head;
    Ok(())
}

/// Loads what waited for a key that may be there now.
pub(super) async fn load_waiting(shared: &Shared, realm: RealmId, state: &mut RealmState) -> Result<()> {
    match state.tail.waiting.take() {
        Some(sealed) => load_data(shared, realm, state, sealed).await,
        None => Ok(()),
    }
}

impl Tail {
    /// Whether the data of the checkpoint still waits for its key.
    pub(super) fn waits(&self) -> bool {
        self.waiting.is_some()
    }
}

/// Writes a checkpoint when enough has changed. Failure costs nothing but time at a later start.
pub(super) async fn write_when_due(shared: &Shared, log: &RealmLog, state: &mut RealmState) {
    if !state.tail.is_due(&state.data) {
        return;
    }
    if let Err(error) = write(shared, log.realm, state).await {
        tracing::warn!(realm = %log.realm, kind = ?error.kind(), "a checkpoint was not written");
    }
    state.tail = Tail { from: state.tail.from, ..Tail::default() };
}

/// Writes a checkpoint of the present state.
pub(super) async fn write(shared: &Shared, realm: RealmId, state: &RealmState) -> Result<()> {
    let head = state.head();
    if state.data.seq != head.seq || head.seq == 0 {
        return Err(Error::new(ErrorKind::NotFound, "not every entry can be read, so no checkpoint can be written"));
    }
    let log = LogId::Realm(realm);
    let key_index = state.certificates.key_index_at(head.seq);
    let keys = &shared.options.keys;
    let mut hashes = Vec::new();
    let mut objects: Vec<(String, Bytes)> = Vec::with_capacity(SHARDS_AT_ONCE);
    for plain in encode_shards(&state.data) {
        let hash = digest_of(&plain);
        let mut object = Writer::default();
        object.u64(key_index).raw(&keys.seal(log, key_index, &shard_header(realm), &plain)?);
        objects.push((key::shard(realm, &hash), object.0.into()));
        hashes.push(hash);
        if objects.len() == SHARDS_AT_ONCE {
            shared.verbs.create(&objects).await?;
            objects.clear();
        }
    }
    shared.verbs.create(&objects).await?;

    let header = Root::header(realm, head, shared.options.signer.device_id(), key_index);
    let certificates = keys.seal(log, 0, &header, &encode_certificates(&state.certificates))?;
    let data = keys.seal(log, key_index, &header, &encode_root_data(&state.data, &hashes))?;
    let mut root = Writer(header);
    root.bytes(&certificates).bytes(&data);
    let signature = shared.options.signer.sign(&root.0);
    root.raw(&signature);
    let name = key::checkpoint(realm, head.seq, &random());
    shared.verbs.create(&[(name.clone(), root.0.into())]).await?;
    // The hint comes last: it may only name what is there.
    shared.verbs.put_hint(&key::hint(log), name.into_bytes().into()).await
}

/// Whether two states would give the same checkpoint.
pub(super) fn are_equal(one: &Data, other: &Data) -> bool {
    encode_root_data(one, &[]) == encode_root_data(other, &[]) && encode_shards(one).eq(encode_shards(other))
}

/// The root object, its parts still sealed.
struct Root {
    realm: RealmId,
    head: Head,
    author: DeviceId,
    key_index: u64,
    header: Vec<u8>,
    certificates: Vec<u8>,
    data: Vec<u8>,
}

impl Root {
    fn header(realm: RealmId, head: Head, author: DeviceId, key_index: u64) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(MAGIC).u8(FORMAT).raw(realm.as_bytes()).u64(head.seq).raw(&head.hash);
        writer.raw(author.as_bytes()).u64(key_index);
        writer.0
    }

    fn decode(object: &[u8]) -> Result<Self> {
        let end = object.len().checked_sub(SIGNATURE_BYTES).ok_or_else(|| damaged("a checkpoint is too short"))?;
        let mut reader = Reader::new(&object[..end]);
        if reader.raw(4)? != MAGIC {
            return Err(damaged("a checkpoint does not start as one"));
        }
        if reader.u8()? != FORMAT {
            return Err(Error::new(ErrorKind::Unsupported, "a checkpoint of a newer format"));
        }
        let realm = RealmId::from_bytes(reader.array()?);
        let head = Head { seq: reader.u64()?, hash: reader.array()? };
        let author = DeviceId::from_bytes(reader.array()?);
        let key_index = reader.u64()?;
        let header = object[..reader.position()].to_vec();
        let (certificates, data) = (reader.bytes()?.to_vec(), reader.bytes()?.to_vec());
        Ok(Self { realm, head, author, key_index, header, certificates, data })
    }
}

fn shard_header(realm: RealmId) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.raw(SHARD).u8(SHARD_FORMAT).raw(realm.as_bytes());
    writer.0
}

fn write_said(writer: &mut Writer, said: &Said) {
    writer.raw(said.author.as_bytes()).u64(said.op).time(said.timestamp);
    writer.u64(said.organization.seq).raw(&said.organization.hash);
}

fn read_said(reader: &mut Reader<'_>) -> Result<Said> {
    Ok(Said {
        author: DeviceId::from_bytes(reader.array()?),
        op: reader.u64()?,
        timestamp: reader.time()?,
        organization: Head { seq: reader.u64()?, hash: reader.array()? },
    })
}

fn encode_certificates(certificates: &Certificates) -> Vec<u8> {
    let mut writer = Writer::default();
    let statements = certificates.statements();
    writer.length(statements.len());
    for (seq, said, statement) in statements {
        writer.u64(*seq);
        write_said(&mut writer, said);
        let statement: &Statement = statement;
        write_statement(&mut writer, statement);
    }
    let Marks { ops, quotes } = certificates.marks();
    writer.length(ops.len());
    for (device, op) in ops {
        writer.raw(device.as_bytes()).u64(op);
    }
    writer.length(quotes.len());
    for (seq, quoted) in quotes {
        writer.u64(seq).u64(quoted);
    }
    writer.0
}

/// Entry, what it said, and a statement in it.
type Stated = (u64, Said, Statement);

fn decode_certificates(plain: &[u8]) -> Result<(Vec<Stated>, Marks)> {
    let mut reader = Reader::new(plain);
    let statements = reader.list(|reader| Ok((reader.u64()?, read_said(reader)?, read_statement(reader)?)))?;
    let ops = reader.list(|reader| Ok((DeviceId::from_bytes(reader.array()?), reader.u64()?)))?;
    let quotes = reader.list(|reader| Ok((reader.u64()?, reader.u64()?)))?;
    Ok((statements, Marks { ops, quotes }))
}

fn encode_root_data(data: &Data, shards: &[[u8; 32]]) -> Vec<u8> {
    let mut writer = Writer::default();
    let ops: BTreeMap<_, _> = data.ops.iter().collect();
    writer.length(ops.len());
    for (device, op) in ops {
        writer.raw(device.as_bytes()).u64(*op);
    }
    writer.u64(data.quoted).u8(u8::from(data.last_said.is_some()));
    if let Some(last) = data.last_said {
        writer.time(last);
    }
    writer.length(data.authors.len());
    for author in &data.authors {
        writer.raw(author.as_bytes());
    }
    let mut manifests: Vec<_> = data.manifests.iter().collect();
    manifests.sort_unstable();
    writer.length(manifests.len());
    for name in manifests {
        writer.raw(name);
    }
    let doomed: BTreeMap<_, _> = data.doomed.iter().collect();
    writer.length(doomed.len());
    for (doomed, since) in doomed {
        write_doomed(&mut writer, doomed);
        writer.time(*since);
    }
    write_last_writes(&mut writer, data);
    writer.length(shards.len());
    for shard in shards {
        writer.raw(shard);
    }
    writer.0
}

fn write_last_writes(writer: &mut Writer, data: &Data) {
    let last_writes: BTreeMap<_, _> = data.last_writes.iter().collect();
    writer.length(last_writes.len());
    for (device, written) in last_writes {
        writer.raw(device.as_bytes()).length(written.len());
        for written in written {
            writer.raw(written.id.as_bytes()).u32(written.version).time(written.timestamp).u32(written.length);
        }
    }
}

fn read_written(reader: &mut Reader<'_>) -> Result<Written> {
    Ok(Written {
        id: VlobId::from_bytes(reader.array()?),
        version: reader.u32()?,
        timestamp: reader.time()?,
        length: reader.u32()?,
    })
}

fn decode_root_data(plain: &[u8]) -> Result<(Data, Vec<[u8; 32]>)> {
    let mut reader = Reader::new(plain);
    let ops = reader.list(|reader| Ok((DeviceId::from_bytes(reader.array()?), reader.u64()?)))?;
    let quoted = reader.u64()?;
    let last_said = if reader.u8()? == 1 { Some(reader.time()?) } else { None };
    let authors = reader.list(|reader| reader.array().map(DeviceId::from_bytes))?;
    let manifests = reader.list(Reader::array)?;
    let doomed = reader.list(|reader| Ok((read_doomed(reader)?, reader.time()?)))?;
    let last_writes = reader.list(|reader| {
        let device = DeviceId::from_bytes(reader.array()?);
        Ok((device, reader.list(read_written)?))
    })?;
    let shards = reader.list(Reader::array)?;
    let data = Data {
        ops: ops.into_iter().collect(),
        quoted,
        last_said,
        authors,
        manifests: manifests.into_iter().collect(),
        doomed: doomed.into_iter().collect(),
        last_writes: last_writes.into_iter().collect(),
        ..Data::default()
    };
    Ok((data, shards))
}

/// Reads the bytes as each part of a checkpoint, for fuzzers.
#[cfg(feature = "fuzzing")]
pub(super) fn read_parts(bytes: &[u8]) {
    drop(Root::decode(bytes));
    drop(decode_certificates(bytes));
    drop(decode_root_data(bytes));
    drop(decode_shard(bytes, &mut Data::default()));
}

/// Part of the state. Canonical: by id, so that equal states give equal shards.
struct Shard<'a> {
    vlobs: &'a [&'a VlobId],
    blocks: &'a [&'a BlockId],
}

/// The state in parts, one after the other.
fn encode_shards(data: &Data) -> impl Iterator<Item = Vec<u8>> {
    let items = data.places.len();
    let count = (items / SHARD_ITEMS).next_power_of_two().min(SHARDS_MAX);
    let shard_of = move |id: &[u8; 16]| (usize::from(id[0]) << 8 | usize::from(id[1])) % count;
    let mut vlobs: Vec<_> = data.places.vlobs().map(|(id, _)| id).collect();
    vlobs.sort_unstable_by_key(|id| (shard_of(id.as_bytes()), **id));
    let mut blocks: Vec<_> = data.places.blocks().map(|(id, _)| id).collect();
    blocks.sort_unstable_by_key(|id| (shard_of(id.as_bytes()), **id));
    let (mut vlobs_done, mut blocks_done) = (0, 0);
    (0..count).filter_map(move |index| {
        let (vlobs, blocks) = (&vlobs[vlobs_done..], &blocks[blocks_done..]);
        let vlobs = &vlobs[..vlobs.partition_point(|id| shard_of(id.as_bytes()) == index)];
        let blocks = &blocks[..blocks.partition_point(|id| shard_of(id.as_bytes()) == index)];
        (vlobs_done, blocks_done) = (vlobs_done + vlobs.len(), blocks_done + blocks.len());
        (!vlobs.is_empty() || !blocks.is_empty()).then(|| encode_shard(&data.places, &Shard { vlobs, blocks }))
    })
}

fn encode_shard(places: &Places, shard: &Shard<'_>) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.length(shard.vlobs.len());
    for (id, place) in shard.vlobs.iter().filter_map(|id| Some((id, places.vlob(id)?))) {
        writer.raw(id.as_bytes()).u32(place.version).u64(place.key_index).u32(place.author);
        writer.time(place.timestamp).u64(place.seq);
        write_payload(&mut writer, place.payload);
    }
    writer.length(shard.blocks.len());
    for (id, place) in shard.blocks.iter().filter_map(|id| Some((id, places.block(id)?))) {
        writer.raw(id.as_bytes());
        match place {
            BlockPlace::Object => {
                writer.u8(0);
            }
            BlockPlace::Part { key_index, seq, payload } => {
                writer.u8(1).u64(key_index).u64(seq);
                write_payload(&mut writer, payload);
            }
        }
    }
    writer.0
}

fn decode_shard(plain: &[u8], data: &mut Data) -> Result<()> {
    let mut reader = Reader::new(plain);
    let vlobs = reader.list(|reader| {
        let id = VlobId::from_bytes(reader.array()?);
        let place = VlobPlace {
            version: reader.u32()?,
            key_index: reader.u64()?,
            author: reader.u32()?,
            timestamp: reader.time()?,
            seq: reader.u64()?,
            payload: read_payload(reader)?,
        };
        Ok((id, place))
    })?;
    let blocks = reader.list(|reader| {
        let id = BlockId::from_bytes(reader.array()?);
        let place = match reader.u8()? {
            0 => BlockPlace::Object,
            _ => BlockPlace::Part { key_index: reader.u64()?, seq: reader.u64()?, payload: read_payload(reader)? },
        };
        Ok((id, place))
    })?;
    for (id, place) in vlobs {
        data.places.put_vlob(id, &place);
    }
    for (id, place) in blocks {
        data.places.put_block(id, &place);
    }
    Ok(())
}

fn write_payload(writer: &mut Writer, payload: Payload) {
    match payload {
        Payload::Inline(span) => {
            writer.u8(0);
            span.write(writer);
        }
        Payload::Pack(name, span) => {
            writer.u8(1).raw(&name);
            span.write(writer);
        }
    }
}

fn read_payload(reader: &mut Reader<'_>) -> Result<Payload> {
    Ok(match reader.u8()? {
        0 => Payload::Inline(Span::read(reader)?),
        _ => Payload::Pack(reader.array()?, Span::read(reader)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items written by all checkpoints together while a million files come in entries of so many, each a vlob and a block.
    fn items_written(files_in_entry: usize) -> (usize, usize) {
        let (mut items, mut written, mut tail_max) = (0, 0, 0);
        let (mut entries, mut changes) = (0, 0);
        while items < 2_000_000 {
            (items, entries, changes) = (items + 2 * files_in_entry, entries + 1, changes + 2 * files_in_entry);
            if is_due(entries, changes, items) {
                tail_max = tail_max.max(entries);
                written += items;
                (entries, changes) = (0, 0);
            }
        }
        (written, tail_max)
    }

    #[test]
    fn a_million_files_write_their_places_five_times_over() {
        let (written, tail_max) = items_written(1000);
        assert!(written <= 10_000_000, "{written} items in all checkpoints");
        assert!(tail_max <= 256, "{tail_max} entries behind a checkpoint");
    }

    /// Each change an entry of its own, as in a workspace that is worked in: what it costs does not grow with the workspace
    /// beyond 128 items written for each entry.
    #[test]
    fn small_changes_of_a_large_workspace_do_not_write_it_anew_each_time() {
        let (entries, items) = (100_000, 2_000_000);
        let (mut tail, mut written) = (0, 0);
        for _ in 0..entries {
            tail += 1;
            if is_due(tail, tail, items) {
                (tail, written) = (0, written + items);
            }
        }
        assert!(written / entries <= 128, "{} items for each entry", written / entries);
    }
}
