//! Manifests on a server: read in batches, written one after the other, files two at a time.
//!
//! Writes of one realm contend on the server, so more gain nothing; and the order of a commit is what a reader may rely
//! on: a folder comes after all that it lists. A failure behind the first write leaves the rest `NotTried`, so what was
//! stored is remembered.

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesOrdered};
use parsecfs_core::{
    document::{Field, read_list},
    id::{RealmId, VlobId},
    storage::{Changes, Error, ErrorKind, Result, VlobRecord, VlobStore, VlobWrite, WriteOutcome},
};
use rmpv::Value;

use super::{
    ParsecStorage,
    command::{Reply, Request},
    http::Oversized,
};

/// Manifests of files on their way up at once: the server has something to do while an answer is read.
const VLOB_WRITES_MAX: usize = 2;
/// The server's limit.
const BATCH_IDS_MAX: usize = 1000;
/// What a batch should answer, about: large enough to be worth a request.
const BATCH_BYTES: usize = 4 << 20;
/// Ids in the first batch, whose answer is small enough even if each is as large as can be.
const FIRST_BATCH_IDS: usize = 48;

/// How many ids the next batch asks for, from how large the last answer was.
struct Batches {
    ids: usize,
}

impl Batches {
    fn new() -> Self {
        Self { ids: FIRST_BATCH_IDS }
    }

    fn answered(&mut self, records: &[VlobRecord]) {
        let bytes: usize = records.iter().map(|record| record.blob.len()).sum();
        let average = (bytes / records.len().max(1)).max(1);
        self.ids = (BATCH_BYTES / average).clamp(1, BATCH_IDS_MAX).min(self.ids * 8);
    }
}

impl VlobStore for ParsecStorage {
    fn read<'a>(&'a self, realm: RealmId, ids: &'a [VlobId]) -> BoxFuture<'a, Result<Vec<VlobRecord>>> {
        let request = move |ids: &[VlobId]| {
            let ids = Value::Array(ids.iter().map(Field::write).collect());
            Request::new("vlob_read_batch")
                .with("realm_id", &realm)
                .with_value("vlobs", ids)
                .with_value("at", Value::Nil)
        };
        self.read_in_batches(ids, request).boxed()
    }

    fn read_versions<'a>(
        &'a self,
        realm: RealmId,
        items: &'a [(VlobId, u32)],
    ) -> BoxFuture<'a, Result<Vec<VlobRecord>>> {
        let request = move |items: &[(VlobId, u32)]| {
            let pair = |(id, version): &(VlobId, u32)| Value::Array(vec![id.write(), version.write()]);
            let items = Value::Array(items.iter().map(pair).collect());
            Request::new("vlob_read_versions").with("realm_id", &realm).with_value("items", items)
        };
        self.read_in_batches(items, request).boxed()
    }

    fn commit<'a>(&'a self, realm: RealmId, writes: Vec<VlobWrite>) -> BoxFuture<'a, Result<Vec<WriteOutcome>>> {
        async move {
            let mut outcomes = Vec::with_capacity(writes.len());
            let mut rest = writes.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(free_of_order(rest));
                if !self.write_several(realm, now, &mut outcomes).await? {
                    break;
                }
                rest = later;
            }
            outcomes.resize(writes.len(), WriteOutcome::NotTried);
            Ok(outcomes)
        }
        .boxed()
    }

    fn changes<'a>(&'a self, realm: RealmId, checkpoint: u64) -> BoxFuture<'a, Result<Changes>> {
        async move {
            let changes = self.poll(realm, checkpoint).await?;
            if changes.checkpoint < checkpoint {
                return Err(went_back(realm, checkpoint));
            }
            // Each change is a version of something that it names. A number from nowhere would make the true ones, later,
            // look like a server that went back.
            let versions: u64 = changes.items.iter().map(|(_, version)| u64::from(*version)).sum();
            if changes.checkpoint - checkpoint > versions {
                let what = format!("the server counts more changes of realm {realm} than it names");
                return Err(Error::new(ErrorKind::Corrupt, what));
            }
            // Some servers say yes to any number: the change that has this one is there if they did not go back.
            let quiet = changes.checkpoint == checkpoint && changes.items.is_empty();
            if quiet && checkpoint > 0 && self.poll(realm, checkpoint - 1).await?.items.is_empty() {
                return Err(went_back(realm, checkpoint));
            }
            Ok(changes)
        }
        .boxed()
    }
}

/// How many of the next writes may go at once: content, which nothing else of the commit rests on; one of anything else.
fn free_of_order(writes: &[VlobWrite]) -> usize {
    writes.iter().take_while(|write| !write.new_blocks.is_empty()).count().max(1)
}

fn went_back(realm: RealmId, checkpoint: u64) -> Error {
    let what = format!("the server has less of realm {realm} than it had: it was at change {checkpoint}");
    Error::new(ErrorKind::Rollback, what)
}

impl ParsecStorage {
    async fn poll(&self, realm: RealmId, checkpoint: u64) -> Result<Changes> {
        let request = Request::new("vlob_poll_changes").with("realm_id", &realm).with("last_checkpoint", &checkpoint);
        let mut reply = self.call(request).await?.ok()?;
        let items = list(&mut reply, "changes")?.into_iter().map(read_change).collect::<Result<_>>()?;
        Ok(Changes { checkpoint: reply.get("current_checkpoint")?, items })
    }

    async fn read_in_batches<T>(&self, asked: &[T], request: impl Fn(&[T]) -> Request) -> Result<Vec<VlobRecord>> {
        let mut records = Vec::with_capacity(asked.len());
        let (mut rest, mut batches) = (asked, Batches::new());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batches.ids.min(rest.len()));
            let mut reply = match self.call(request(now)).await {
                Err(error) if now.len() > 1 && is_oversized(&error) => {
                    batches.ids = now.len() / 2;
                    continue;
                }
                reply => reply?.ok()?,
            };
            let read = list(&mut reply, "items")?.into_iter().map(read_record).collect::<Result<Vec<_>>>()?;
            batches.answered(&read);
            records.extend(read);
            rest = later;
        }
        Ok(records)
    }

    /// Writes these, a few at a time. `false` when one was not stored: those that were on their way by then are waited for,
    /// and no further one is begun. An error only if it is the answer to the very first write.
    async fn write_several(
        &self,
        realm: RealmId,
        writes: &[VlobWrite],
        outcomes: &mut Vec<WriteOutcome>,
    ) -> Result<bool> {
        let mut to_come = writes.iter();
        let mut on_their_way: FuturesOrdered<_> =
            to_come.by_ref().take(VLOB_WRITES_MAX).map(|write| self.write(realm, write)).collect();
        let mut all_stored = true;
        while let Some(answer) = on_their_way.next().await {
            let outcome = match answer {
                Ok(outcome) => outcome,
                Err(error) if outcomes.is_empty() => return Err(error),
                // The next commit begins with this one and tells why.
                Err(_) => WriteOutcome::NotTried,
            };
            outcomes.push(outcome);
            all_stored &= outcome == WriteOutcome::Stored;
            if all_stored {
                on_their_way.extend(to_come.next().map(|write| self.write(realm, write)));
            }
        }
        Ok(all_stored)
    }

    async fn write(&self, realm: RealmId, write: &VlobWrite) -> Result<WriteOutcome> {
        let request = match write.version {
            // Versions count from 1: nobody has to be asked.
            0 => return Ok(WriteOutcome::Conflict),
            1 => Request::new("vlob_create"),
            version => Request::new("vlob_update").with("version", &version),
        };
        let request = request
            .with("realm_id", &realm)
            .with("vlob_id", &write.id)
            .with("key_index", &write.key_index)
            .with("timestamp", &write.timestamp)
            .with_bytes("blob", &write.blob);
        let mut reply = self.call(request).await?;
        match reply.status() {
            "ok" => Ok(WriteOutcome::Stored),
            "bad_key_index" => self.old_key_or_repeat(realm, write).await,
            "require_greater_timestamp" => match self.stored(realm, write).await? {
                true => Ok(WriteOutcome::Stored),
                false => Ok(WriteOutcome::TimestampTooOld(self.server.near(reply.get("strictly_greater_than")?)?)),
            },
            "vlob_already_exists" | "bad_vlob_version" | "vlob_not_found" => match self.stored(realm, write).await? {
                true => Ok(WriteOutcome::Stored),
                false => Ok(WriteOutcome::Conflict),
            },
            _ => Err(reply.refusal()),
        }
    }

    async fn old_key_or_repeat(&self, realm: RealmId, write: &VlobWrite) -> Result<WriteOutcome> {
        Ok(if self.stored(realm, write).await? { WriteOutcome::Stored } else { WriteOutcome::OldKey })
    }

    /// Whether the server holds exactly this write of this device: its answer was lost.
    async fn stored(&self, realm: RealmId, write: &VlobWrite) -> Result<bool> {
        let there = self.read_versions(realm, &[(write.id, write.version)]).await?;
        Ok(there.iter().any(|record| {
            record.author == self.signer.device_id() && record.timestamp == write.timestamp && record.blob == write.blob
        }))
    }
}

fn is_oversized(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<Oversized>())
}

fn list(reply: &mut Reply, name: &str) -> Result<Vec<Value>> {
    match reply.take(name)? {
        Value::Array(values) => Ok(values),
        _ => Err(malformed(name)),
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the server's answer has no list of {what}"))
}

fn tuple<const N: usize>(value: Value) -> Result<[Value; N]> {
    let Value::Array(values) = value else { return Err(malformed("fields")) };
    values.try_into().map_err(|_| malformed("fields"))
}

fn field<T: Field>(value: Value) -> Result<T> {
    T::read(value).map_err(|error| malformed("fields").caused_by(error))
}

fn read_change(value: Value) -> Result<(VlobId, u32)> {
    let [id, version] = tuple(value)?;
    Ok((field(id)?, field(version)?))
}

fn read_record(value: Value) -> Result<VlobRecord> {
    let [id, key_index, author, version, timestamp, blob] = tuple(value)?;
    let blob: Vec<u8> = field(blob)?;
    Ok(VlobRecord {
        id: field(id)?,
        version: field(version)?,
        key_index: field(key_index)?,
        author: field(author)?,
        timestamp: field(timestamp)?,
        blob: blob.into(),
    })
}

/// A list of one type.
pub(super) fn typed_list<T: Field>(reply: &mut Reply, name: &str) -> Result<Vec<T>> {
    read_list(reply.take(name)?).map_err(|error| malformed(name).caused_by(error))
}
