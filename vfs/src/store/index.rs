//! The index: a SQLite database of sealed rows, in write-ahead mode.
//!
//! It is behind the journal in the segments, never before it: a commit is made only for rows whose journal frames are
//! on stable storage, and names the journal position up to which it is complete. So it may lose its last commits in a
//! power cut, and the journal brings them back.
//!
//! In clear: row numbers, which entry ids exist, and which rows wait for upload. Names, sizes, times, content: sealed,
//! with table and key as associated data, so that rows cannot be swapped.

use std::{ops::RangeInclusive, path::Path};

use parsecfs_core::id::VlobId;
use parsecfs_crypto::{
    local::{LOCAL_TAG_BYTES, LocalKey, LocalNonce},
    sha256,
};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params, types::Value};
use serde::{Deserialize, Serialize};

use super::segment::Position;
use crate::error::{Error, ErrorKind, Result};

/// Raised with every change of the tables or of what is sealed in them.
const FORMAT_VERSION: i64 = 2;
const NONCE_BYTES: usize = 24;

/// Names one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RowKey {
    /// How far inbound sync has read.
    Checkpoint,
    /// An inode: its attributes.
    Inode(u64),
    /// The remote manifest an inode was made from.
    Base(u64),
    /// (folder, cookie): one name in a folder.
    Dentry(u64, u64),
    /// (inode, slot): where a stretch of content is.
    Slot(u64, u64),
}

/// A row's content; `None` is its absence.
pub(crate) type RowValue = Option<RowBytes>;

/// Encoded content of a row with the columns that are in clear.
#[derive(Clone, Debug)]
pub(crate) struct RowBytes {
    /// Entry id, of inodes only.
    pub(crate) id: Option<VlobId>,
    /// Whether an inode waits for upload.
    pub(crate) pending: bool,
    /// What gets sealed.
    pub(crate) bytes: std::sync::Arc<[u8]>,
}

/// Highest numbers given out, so that none is ever used again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) ino: u64,
    pub(crate) cookie: u64,
    pub(crate) change: u64,
    /// Groups of changes that damage to the journal took.
    pub(crate) lost: u64,
}

/// One connection to the index.
#[derive(Debug)]
pub(crate) struct Index {
    db: Connection,
    key: LocalKey,
    session: [u8; 16],
    next_nonce: u64,
    /// Which rows there are, see [`Keys`].
    keys: Keys,
    /// It was made at this opening.
    is_new: bool,
}

/// The sum of the digests of all rows' clear columns. Sealed in the state, it tells when a row has gone, or got another
/// key, by damage to the pages of the database: such a row would not fail but be missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Keys(u128);

impl Keys {
    fn digest(key: RowKey, id: Option<&[u8]>, pending: bool) -> u128 {
        let mut clear = associated(key).to_vec();
        clear.push(u8::from(pending));
        clear.extend_from_slice(id.unwrap_or_default());
        let digest = sha256(&clear);
        digest.as_bytes().iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte))
    }

    fn add(&mut self, key: RowKey, id: Option<&[u8]>, pending: bool) {
        self.0 = self.0.wrapping_add(Self::digest(key, id, pending));
    }

    fn remove(&mut self, key: RowKey, id: Option<&[u8]>, pending: bool) {
        self.0 = self.0.wrapping_sub(Self::digest(key, id, pending));
    }
}

/// What the one row of `state` holds.
#[derive(Default, Serialize, Deserialize)]
struct State {
    segment: u32,
    offset: u64,
    ino: u64,
    cookie: u64,
    change: u64,
    lost: u64,
    keys: Keys,
}

impl Index {
    /// Opens or makes the database. `session` is fresh random bytes: it makes this connection's nonces unique.
    pub(crate) fn open(path: &Path, key: LocalKey, session: [u8; 16]) -> Result<Self> {
        let db = Connection::open(path).map_err(sql_error)?;
        db.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY; PRAGMA cell_size_check=ON; PRAGMA cache_size=-8192;
             PRAGMA wal_autocheckpoint=4000;",
        )
        .map_err(sql_error)?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql_error)?;
        let is_new = version == 0;
        match version {
            0 => create_tables(&db)?,
            FORMAT_VERSION => {}
            other => {
                let text = format!("local store format {other}, this program knows {FORMAT_VERSION}");
                return Err(Error::new(ErrorKind::UnsupportedVersion, text));
            }
        }
        let mut index = Self { db, key, session, next_nonce: 0, keys: Keys::default(), is_new };
        if is_new {
            index.put_state(&State::default())?;
            index.checkpoint()?;
        }
        index.keys = index.read_state()?.keys;
        Ok(index)
    }

    /// Whether it was made at this opening.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the database is whole: its pages agree with each other, and exactly the rows are there that were put there.
    /// What a row seals is not opened; that tells of its damage when it is read.
    pub(crate) fn verify(&self) -> Result<()> {
        let damaged = || Error::new(ErrorKind::Corrupt, "rows of the index are missing or out of place");
        let said: String = self.db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(sql_error)?;
        if said != "ok" {
            return Err(damaged());
        }
        let mut keys = Keys::default();
        type KeyOf = fn(u64, u64) -> RowKey;
        let every: [(&str, KeyOf); 5] = [
            ("SELECT one, 0, NULL, 0 FROM checkpoint", |_, _| RowKey::Checkpoint),
            ("SELECT ino, 0, id, pending FROM inode NOT INDEXED", |a, _| RowKey::Inode(a)),
            ("SELECT ino, 0, NULL, 0 FROM base", |a, _| RowKey::Base(a)),
            ("SELECT parent, cookie, NULL, 0 FROM dentry", RowKey::Dentry),
            ("SELECT ino, slot, NULL, 0 FROM slot", RowKey::Slot),
        ];
        for (sql, key) in every {
            let mut query = self.db.prepare(sql).map_err(sql_error)?;
            let mut rows = query.query([]).map_err(sql_error)?;
            while let Some(row) = rows.next().map_err(sql_error)? {
                let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned).map_err(sql_error);
                let id = row.get_ref(2).and_then(|id| id.as_blob_or_null().map_err(Into::into)).map_err(sql_error)?;
                keys.add(key(number(0)?, number(1)?), id, number(3)? != 0);
            }
        }
        if keys == self.keys { Ok(()) } else { Err(damaged()) }
    }

    /// A second connection that only reads.
    pub(crate) fn open_reader(path: &Path, key: LocalKey) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(sql_error)?;
        db.execute_batch("PRAGMA query_only=1; PRAGMA cache_size=-16384;").map_err(sql_error)?;
        Ok(Self { db, key, session: [0; 16], next_nonce: 0, keys: Keys::default(), is_new: false })
    }

    /// Keeps seeing the database as it is now.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.db.execute_batch("BEGIN").map_err(sql_error)?;
        self.state().map(drop)
    }

    /// Hands every slot that can be read to `each`.
    pub(crate) fn all_slots(&self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut query = self.db.prepare("SELECT ino, slot, sealed FROM slot").map_err(sql_error)?;
        let mut rows = query.query([]).map_err(sql_error)?;
        while let Some(row) = rows.next().map_err(sql_error)? {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned).map_err(sql_error);
            let key = RowKey::Slot(number(0)?, number(1)?);
            let sealed = row.get_ref(2).and_then(|value| value.as_blob().map_err(Into::into)).map_err(sql_error)?;
            match self.unseal(key, sealed).and_then(|row| each(&row)) {
                // What only this row knew is out of reach already; the others must still be counted.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::error!(?key, %error, "a row cannot be read")
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Where the journal has to be read from, and the highest numbers given out.
    pub(crate) fn state(&self) -> Result<(Position, Counters)> {
        let State { segment, offset, ino, cookie, change, lost, keys: _ } = self.read_state()?;
        Ok((Position { segment, offset }, Counters { ino, cookie, change, lost }))
    }

    fn read_state(&self) -> Result<State> {
        let sealed: Option<Vec<u8>> =
            self.db.query_row("SELECT sealed FROM state", [], |row| row.get(0)).optional().map_err(sql_error)?;
        let damaged = || Error::new(ErrorKind::Corrupt, "the state of the index does not open");
        let plain = sealed.and_then(|sealed| self.unseal_as(&STATE, &sealed)).ok_or_else(damaged)?;
        postcard::from_bytes(&plain).map_err(|e| damaged().caused_by(e))
    }

    fn put_state(&mut self, state: &State) -> Result<()> {
        let plain = postcard::to_stdvec(state)
            .map_err(|e| Error::new(ErrorKind::Internal, "encode the state of the index").caused_by(e))?;
        let sealed = self.seal_as(&STATE, &plain);
        let put = self.db.execute("INSERT OR REPLACE INTO state VALUES (0, ?1)", params![sealed]);
        put.map(drop).map_err(sql_error)
    }

    /// Applies rows and moves the position, as one transaction.
    pub(crate) fn apply<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a RowKey, &'a RowValue)>,
        position: Position,
        counters: Counters,
    ) -> Result<()> {
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(sql_error)?;
        let keys = self.keys;
        let outcome =
            self.apply_rows(rows, position, counters).and_then(|()| self.db.execute_batch("COMMIT").map_err(sql_error));
        if outcome.is_err() {
            self.keys = keys;
            if !self.db.is_autocommit() {
                // The error that led here is the one to report.
                let _ = self.db.execute_batch("ROLLBACK");
            }
        }
        outcome
    }

    fn apply_rows<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a RowKey, &'a RowValue)>,
        position: Position,
        counters: Counters,
    ) -> Result<()> {
        for (key, value) in rows {
            match value {
                Some(value) => {
                    let sealed = self.seal(*key, &value.bytes);
                    self.put(*key, value, &sealed)?;
                }
                None => self.delete(*key)?,
            }
        }
        let Position { segment, offset } = position;
        let Counters { ino, cookie, change, lost } = counters;
        self.put_state(&State { segment, offset, ino, cookie, change, lost, keys: self.keys })
    }

    fn put(&mut self, key: RowKey, value: &RowBytes, sealed: &[u8]) -> Result<()> {
        let (update, insert, a, b) = match key {
            RowKey::Inode(ino) => return self.put_inode(ino, value, sealed),
            RowKey::Checkpoint => {
                ("UPDATE checkpoint SET sealed=?1", "INSERT INTO checkpoint VALUES (0, ?1)", None, None)
            }
            RowKey::Base(ino) => {
                ("UPDATE base SET sealed=?1 WHERE ino=?2", "INSERT INTO base VALUES (?2, ?1)", Some(ino), None)
            }
            RowKey::Dentry(parent, cookie) => (
                "UPDATE dentry SET sealed=?1 WHERE parent=?2 AND cookie=?3",
                "INSERT INTO dentry VALUES (?2, ?3, ?1)",
                Some(parent),
                Some(cookie),
            ),
            RowKey::Slot(ino, slot) => (
                "UPDATE slot SET sealed=?1 WHERE ino=?2 AND slot=?3",
                "INSERT INTO slot VALUES (?2, ?3, ?1)",
                Some(ino),
                Some(slot),
            ),
        };
        let run = |sql| {
            let numbers = [a, b].into_iter().flatten().map(|number| Value::Integer(number.cast_signed()));
            let values = std::iter::once(Value::Blob(sealed.to_vec())).chain(numbers);
            self.db
                .prepare_cached(sql)
                .and_then(|mut put| put.execute(rusqlite::params_from_iter(values)))
                .map_err(sql_error)
        };
        if run(update)? == 0 {
            run(insert)?;
            self.keys.add(key, None, false);
        }
        Ok(())
    }

    /// The row of an inode, in place of the one it had and of any that had its entry.
    fn put_inode(&mut self, ino: u64, value: &RowBytes, sealed: &[u8]) -> Result<()> {
        let id = value.id.map(|id| id.as_bytes().to_vec());
        self.delete_inodes(
            "DELETE FROM inode WHERE ino=?1 OR id=?2 RETURNING ino, id, pending",
            params![ino.cast_signed(), id],
        )?;
        self.db
            .prepare_cached("INSERT INTO inode VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut put| put.execute(params![ino.cast_signed(), id, value.pending, sealed]))
            .map_err(sql_error)?;
        self.keys.add(RowKey::Inode(ino), id.as_deref(), value.pending);
        Ok(())
    }

    fn delete_inodes(&mut self, sql: &str, values: impl rusqlite::Params) -> Result<()> {
        let mut delete = self.db.prepare_cached(sql).map_err(sql_error)?;
        let mut rows = delete.query(values).map_err(sql_error)?;
        while let Some(row) = rows.next().map_err(sql_error)? {
            let ino = row.get::<_, i64>(0).map_err(sql_error)?.cast_unsigned();
            let id: Option<Vec<u8>> = row.get(1).map_err(sql_error)?;
            let pending = row.get::<_, i64>(2).map_err(sql_error)? != 0;
            self.keys.remove(RowKey::Inode(ino), id.as_deref(), pending);
        }
        Ok(())
    }

    fn delete(&mut self, key: RowKey) -> Result<()> {
        let (sql, a, b) = match key {
            RowKey::Inode(ino) => {
                let sql = "DELETE FROM inode WHERE ino=?1 RETURNING ino, id, pending";
                return self.delete_inodes(sql, params![ino.cast_signed()]);
            }
            RowKey::Checkpoint => ("DELETE FROM checkpoint", None, None),
            RowKey::Base(ino) => ("DELETE FROM base WHERE ino=?1", Some(ino), None),
            RowKey::Dentry(parent, cookie) => {
                ("DELETE FROM dentry WHERE parent=?1 AND cookie=?2", Some(parent), Some(cookie))
            }
            RowKey::Slot(ino, slot) => ("DELETE FROM slot WHERE ino=?1 AND slot=?2", Some(ino), Some(slot)),
        };
        let values = [a, b].into_iter().flatten().map(u64::cast_signed);
        let mut delete = self.db.prepare_cached(sql).map_err(sql_error)?;
        if delete.execute(rusqlite::params_from_iter(values)).map_err(sql_error)? > 0 {
            self.keys.remove(key, None, false);
        }
        Ok(())
    }

    /// One row, opened.
    pub(crate) fn get(&self, key: RowKey) -> Result<Option<Vec<u8>>> {
        let (sql, a, b) = match key {
            RowKey::Checkpoint => ("SELECT sealed FROM checkpoint", None, None),
            RowKey::Inode(ino) => ("SELECT sealed FROM inode WHERE ino=?1", Some(ino), None),
            RowKey::Base(ino) => ("SELECT sealed FROM base WHERE ino=?1", Some(ino), None),
            RowKey::Dentry(parent, cookie) => {
                ("SELECT sealed FROM dentry WHERE parent=?1 AND cookie=?2", Some(parent), Some(cookie))
            }
            RowKey::Slot(ino, slot) => ("SELECT sealed FROM slot WHERE ino=?1 AND slot=?2", Some(ino), Some(slot)),
        };
        let values = [a, b].into_iter().flatten().map(u64::cast_signed);
        let mut query = self.db.prepare_cached(sql).map_err(sql_error)?;
        let sealed: Option<Vec<u8>> =
            query.query_row(rusqlite::params_from_iter(values), |row| row.get(0)).optional().map_err(sql_error)?;
        sealed.map(|sealed| self.unseal(key, &sealed)).transpose()
    }

    /// The names in a folder, by cookie.
    pub(crate) fn dentries(&self, parent: u64) -> Result<Vec<(u64, Result<Vec<u8>>)>> {
        let sql = "SELECT cookie, sealed FROM dentry WHERE parent=?1";
        self.range(sql, &[parent], |n| RowKey::Dentry(parent, n))
    }

    /// Slots of a file, from one number to another.
    pub(crate) fn slots(&self, ino: u64, numbers: &RangeInclusive<u64>) -> Result<Vec<(u64, Result<Vec<u8>>)>> {
        // Numbers of slots stay far below 2^63, where SQLite would count them as negative.
        let end = (*numbers.end()).min(i64::MAX.cast_unsigned());
        let sql = "SELECT slot, sealed FROM slot WHERE ino=?1 AND slot BETWEEN ?2 AND ?3";
        self.range(sql, &[ino, *numbers.start(), end], |n| RowKey::Slot(ino, n))
    }

    fn range(&self, sql: &str, of: &[u64], key: impl Fn(u64) -> RowKey) -> Result<Vec<(u64, Result<Vec<u8>>)>> {
        let mut query = self.db.prepare_cached(sql).map_err(sql_error)?;
        let of = rusqlite::params_from_iter(of.iter().map(|number| number.cast_signed()));
        let mut rows = query.query(of).map_err(sql_error)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(sql_error)? {
            let number = row.get::<_, i64>(0).map_err(sql_error)?.cast_unsigned();
            let sealed = row.get_ref(1).and_then(|value| value.as_blob().map_err(Into::into)).map_err(sql_error)?;
            found.push((number, self.unseal(key(number), sealed)));
        }
        Ok(found)
    }

    /// The inode of an entry.
    pub(crate) fn ino_of(&self, id: VlobId) -> Result<Option<u64>> {
        let mut query = self.db.prepare_cached("SELECT ino FROM inode WHERE id=?1").map_err(sql_error)?;
        let ino: Option<i64> =
            query.query_row([id.as_bytes().as_slice()], |row| row.get(0)).optional().map_err(sql_error)?;
        Ok(ino.map(i64::cast_unsigned))
    }

    /// Inodes that wait for upload.
    pub(crate) fn pending(&self) -> Result<Vec<u64>> {
        self.numbers("SELECT ino FROM inode WHERE pending")
    }

    /// Every inode number.
    pub(crate) fn inodes(&self) -> Result<Vec<u64>> {
        self.numbers("SELECT ino FROM inode")
    }

    /// The next inode numbers, in order.
    pub(crate) fn inodes_after(&self, ino: u64, limit: usize) -> Result<Vec<u64>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.numbers_of("SELECT ino FROM inode WHERE ino>?1 ORDER BY ino LIMIT ?2", params![ino.cast_signed(), limit])
    }

    fn numbers(&self, sql: &str) -> Result<Vec<u64>> {
        self.numbers_of(sql, [])
    }

    fn numbers_of(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<u64>> {
        let mut query = self.db.prepare_cached(sql).map_err(sql_error)?;
        let numbers = query.query_map(values, |row| row.get::<_, i64>(0)).map_err(sql_error)?;
        numbers.map(|ino| ino.map(i64::cast_unsigned).map_err(sql_error)).collect()
    }

    /// Makes everything applied durable in the database itself, so that older journal is not needed any more.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        self.db.execute_batch("PRAGMA synchronous=FULL").map_err(sql_error)?;
        let outcome = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        self.db.execute_batch("PRAGMA synchronous=NORMAL").map_err(sql_error)?;
        match outcome.map_err(sql_error)? {
            0 => Ok(()),
            _ => Err(Error::new(ErrorKind::Busy, "the index is being read")),
        }
    }

    fn seal(&mut self, key: RowKey, plain: &[u8]) -> Vec<u8> {
        self.seal_as(&associated(key), plain)
    }

    fn seal_as(&mut self, associated: &[u8; 17], plain: &[u8]) -> Vec<u8> {
        let number = self.next_nonce;
        self.next_nonce += 1;
        let mut out = Vec::with_capacity(NONCE_BYTES + plain.len() + LOCAL_TAG_BYTES);
        out.extend_from_slice(&self.session);
        out.extend_from_slice(&number.to_le_bytes());
        self.key.seal_into(&LocalNonce::new(self.session, number, ROW_PART), associated, plain, &mut out);
        out
    }

    fn unseal(&self, key: RowKey, sealed: &[u8]) -> Result<Vec<u8>> {
        let damaged = || Error::new(ErrorKind::Corrupt, format!("row {key:?} of the local store does not open"));
        self.unseal_as(&associated(key), sealed).ok_or_else(damaged)
    }

    /// `None` when it does not open.
    fn unseal_as(&self, associated: &[u8; 17], sealed: &[u8]) -> Option<Vec<u8>> {
        let length = sealed.len().checked_sub(NONCE_BYTES + LOCAL_TAG_BYTES)?;
        let (nonce, body) = sealed.split_at(NONCE_BYTES);
        let mut session = [0u8; 16];
        session.copy_from_slice(&nonce[..16]);
        let mut number = [0u8; 8];
        number.copy_from_slice(&nonce[16..]);
        let mut plain = vec![0u8; length];
        let nonce = LocalNonce::new(session, u64::from_le_bytes(number), ROW_PART);
        self.key.open_into(&nonce, associated, body, &mut plain).is_ok().then_some(plain)
    }
}

/// Associated data of the state; the first byte is no table of rows.
const STATE: [u8; 17] = [255; 17];

/// Keeps row nonces apart from those of segments, whatever their session.
const ROW_PART: u64 = u64::MAX - 2;

/// Table and key of a row.
fn associated(key: RowKey) -> [u8; 17] {
    let (table, a, b) = match key {
        RowKey::Checkpoint => (0, 0, 0),
        RowKey::Inode(ino) => (1, ino, 0),
        RowKey::Base(ino) => (2, ino, 0),
        RowKey::Dentry(parent, cookie) => (3, parent, cookie),
        RowKey::Slot(ino, slot) => (4, ino, slot),
    };
    let mut out = [0u8; 17];
    out[0] = table;
    out[1..9].copy_from_slice(&a.to_le_bytes());
    out[9..].copy_from_slice(&b.to_le_bytes());
    out
}

fn create_tables(db: &Connection) -> Result<()> {
    db.execute_batch(&format!(
        "BEGIN;
         CREATE TABLE state (one INTEGER PRIMARY KEY, sealed BLOB);
         CREATE TABLE checkpoint (one INTEGER PRIMARY KEY, sealed BLOB);
         CREATE TABLE inode (ino INTEGER PRIMARY KEY, id BLOB UNIQUE, pending INTEGER, sealed BLOB);
         CREATE INDEX inode_pending ON inode (ino) WHERE pending;
         CREATE TABLE base (ino INTEGER PRIMARY KEY, sealed BLOB);
         CREATE TABLE dentry (parent INTEGER, cookie INTEGER, sealed BLOB, PRIMARY KEY (parent, cookie)) WITHOUT ROWID;
         CREATE TABLE slot (ino INTEGER, slot INTEGER, sealed BLOB, PRIMARY KEY (ino, slot)) WITHOUT ROWID;
         PRAGMA user_version={FORMAT_VERSION};
         COMMIT;"
    ))
    .map_err(sql_error)
}

/// A failed statement: a full disk and a damaged file have their own meaning for the caller.
pub(crate) fn sql_error(error: rusqlite::Error) -> Error {
    use rusqlite::{Error as Sql, ErrorCode};
    let kind = match error.sqlite_error_code() {
        // A column that holds something else than was put there.
        None if matches!(
            error,
            Sql::FromSqlConversionFailure(..) | Sql::InvalidColumnType(..) | Sql::IntegralValueOutOfRange(..)
        ) =>
        {
            ErrorKind::Corrupt
        }
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => ErrorKind::ReadOnly,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, "the local index").caused_by(error)
}
