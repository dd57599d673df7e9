//! The index: a SQLite database of sealed rows, in write-ahead mode.
//!
//! It is behind the journal in the segments, never before it: a commit is made only for rows whose journal frames are
//! on stable storage, and names the journal position up to which it is complete. So it may lose its last commits in a
//! power cut, and the journal brings them back.
//!
//! In clear: row numbers, which entry ids exist, and which rows wait for upload. Names, sizes, times, content: sealed,
//! with table and key as associated data, so that rows cannot be swapped.

use std::path::Path;

use parsecfs_core::id::VlobId;
use parsecfs_crypto::local::{LOCAL_TAG_BYTES, LocalKey, LocalNonce};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

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
}

impl Index {
    /// Opens or makes the database. `session` is fresh random bytes: it makes this connection's nonces unique.
    pub(crate) fn open(path: &Path, key: LocalKey, session: [u8; 16]) -> Result<Self> {
        let db = Connection::open(path).map_err(sql_error)?;
        db.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-8192;
             PRAGMA wal_autocheckpoint=4000;",
        )
        .map_err(sql_error)?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql_error)?;
        match version {
            0 => create_tables(&db)?,
            FORMAT_VERSION => {}
            other => {
                let text = format!("local store format {other}, this program knows {FORMAT_VERSION}");
                return Err(Error::new(ErrorKind::UnsupportedVersion, text));
            }
        }
        Ok(Self { db, key, session, next_nonce: 0 })
    }

    /// A second connection that only reads.
    pub(crate) fn open_reader(path: &Path, key: LocalKey) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(sql_error)?;
        db.execute_batch("PRAGMA query_only=1; PRAGMA cache_size=-16384;").map_err(sql_error)?;
        Ok(Self { db, key, session: [0; 16], next_nonce: 0 })
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
        let number = |name: &str| -> Result<u64> {
            let value: Option<i64> = self
                .db
                .prepare_cached("SELECT value FROM state WHERE name=?1")
                .and_then(|mut query| query.query_row([name], |row| row.get(0)).optional())
                .map_err(sql_error)?;
            Ok(value.map_or(0, i64::cast_unsigned))
        };
        let segment = u32::try_from(number("segment")?).map_err(|_| Error::from(ErrorKind::Corrupt))?;
        let position = Position { segment, offset: number("offset")? };
        Ok((
            position,
            Counters {
                ino: number("ino")?,
                cookie: number("cookie")?,
                change: number("change")?,
                lost: number("lost")?,
            },
        ))
    }

    /// Applies rows and moves the position, as one transaction.
    pub(crate) fn apply<'a>(
        &mut self,
        rows: impl Iterator<Item = (&'a RowKey, &'a RowValue)>,
        position: Position,
        counters: Counters,
    ) -> Result<()> {
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(sql_error)?;
        let outcome =
            self.apply_rows(rows, position, counters).and_then(|()| self.db.execute_batch("COMMIT").map_err(sql_error));
        if outcome.is_err() && !self.db.is_autocommit() {
            // The error that led here is the one to report.
            let _ = self.db.execute_batch("ROLLBACK");
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
        let mut set = self.db.prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2)").map_err(sql_error)?;
        for (name, value) in [
            ("segment", u64::from(position.segment)),
            ("offset", position.offset),
            ("ino", counters.ino),
            ("cookie", counters.cookie),
            ("change", counters.change),
            ("lost", counters.lost),
        ] {
            set.execute(params![name, value.cast_signed()]).map_err(sql_error)?;
        }
        Ok(())
    }

    fn put(&self, key: RowKey, value: &RowBytes, sealed: &[u8]) -> Result<()> {
        let db = &self.db;
        let done = match key {
            RowKey::Checkpoint => db
                .prepare_cached("INSERT OR REPLACE INTO checkpoint VALUES (0, ?1)")
                .and_then(|mut put| put.execute(params![sealed])),
            RowKey::Inode(ino) => {
                db.prepare_cached("INSERT OR REPLACE INTO inode VALUES (?1, ?2, ?3, ?4)").and_then(|mut put| {
                    let id = value.id.map(|id| id.as_bytes().to_vec());
                    put.execute(params![ino.cast_signed(), id, value.pending, sealed])
                })
            }
            RowKey::Base(ino) => db
                .prepare_cached("INSERT OR REPLACE INTO base VALUES (?1, ?2)")
                .and_then(|mut put| put.execute(params![ino.cast_signed(), sealed])),
            RowKey::Dentry(parent, cookie) => db
                .prepare_cached("INSERT OR REPLACE INTO dentry VALUES (?1, ?2, ?3)")
                .and_then(|mut put| put.execute(params![parent.cast_signed(), cookie.cast_signed(), sealed])),
            RowKey::Slot(ino, slot) => db
                .prepare_cached("INSERT OR REPLACE INTO slot VALUES (?1, ?2, ?3)")
                .and_then(|mut put| put.execute(params![ino.cast_signed(), slot.cast_signed(), sealed])),
        };
        done.map(drop).map_err(sql_error)
    }

    fn delete(&self, key: RowKey) -> Result<()> {
        let (sql, a, b) = match key {
            RowKey::Checkpoint => ("DELETE FROM checkpoint", None, None),
            RowKey::Inode(ino) => ("DELETE FROM inode WHERE ino=?1", Some(ino), None),
            RowKey::Base(ino) => ("DELETE FROM base WHERE ino=?1", Some(ino), None),
            RowKey::Dentry(parent, cookie) => {
                ("DELETE FROM dentry WHERE parent=?1 AND cookie=?2", Some(parent), Some(cookie))
            }
            RowKey::Slot(ino, slot) => ("DELETE FROM slot WHERE ino=?1 AND slot=?2", Some(ino), Some(slot)),
        };
        let values = [a, b].into_iter().flatten().map(u64::cast_signed);
        let mut delete = self.db.prepare_cached(sql).map_err(sql_error)?;
        delete.execute(rusqlite::params_from_iter(values)).map(drop).map_err(sql_error)
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
        self.range("SELECT cookie, sealed FROM dentry WHERE parent=?1", parent, |n| RowKey::Dentry(parent, n))
    }

    /// All slots of a file.
    pub(crate) fn slots(&self, ino: u64) -> Result<Vec<(u64, Result<Vec<u8>>)>> {
        self.range("SELECT slot, sealed FROM slot WHERE ino=?1", ino, |n| RowKey::Slot(ino, n))
    }

    fn range(&self, sql: &str, of: u64, key: impl Fn(u64) -> RowKey) -> Result<Vec<(u64, Result<Vec<u8>>)>> {
        let mut query = self.db.prepare_cached(sql).map_err(sql_error)?;
        let mut rows = query.query([of.cast_signed()]).map_err(sql_error)?;
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

    fn numbers(&self, sql: &str) -> Result<Vec<u64>> {
        let mut query = self.db.prepare_cached(sql).map_err(sql_error)?;
        let numbers = query.query_map([], |row| row.get::<_, i64>(0)).map_err(sql_error)?;
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
        let number = self.next_nonce;
        self.next_nonce += 1;
        let mut out = Vec::with_capacity(NONCE_BYTES + plain.len() + LOCAL_TAG_BYTES);
        out.extend_from_slice(&self.session);
        out.extend_from_slice(&number.to_le_bytes());
        self.key.seal_into(&LocalNonce::new(self.session, number, ROW_PART), &associated(key), plain, &mut out);
        out
    }

    fn unseal(&self, key: RowKey, sealed: &[u8]) -> Result<Vec<u8>> {
        let damaged = || Error::new(ErrorKind::Corrupt, format!("row {key:?} of the local store does not open"));
        let length = sealed.len().checked_sub(NONCE_BYTES + LOCAL_TAG_BYTES).ok_or_else(damaged)?;
        let (nonce, body) = sealed.split_at(NONCE_BYTES);
        let mut session = [0u8; 16];
        session.copy_from_slice(&nonce[..16]);
        let mut number = [0u8; 8];
        number.copy_from_slice(&nonce[16..]);
        let mut plain = vec![0u8; length];
        let nonce = LocalNonce::new(session, u64::from_le_bytes(number), ROW_PART);
        self.key.open_into(&nonce, &associated(key), body, &mut plain).map_err(|e| damaged().caused_by(e))?;
        Ok(plain)
    }
}

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
         CREATE TABLE state (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
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
    use rusqlite::ErrorCode;
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => ErrorKind::ReadOnly,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, "the local index").caused_by(error)
}
