//! The index: a SQLite database of sealed rows, in write-ahead mode.
//!
//! It is behind the journal in the segments, never before it: a commit is made only for rows whose journal frames are
//! on stable storage, and names the journal position up to which it is complete. So it may lose its last commits in a
//! power cut, and the journal brings them back.
//!
//! In clear: row numbers, which entry ids and link groups exist, and which rows wait for upload. Names, sizes, times, content: sealed,
//! with table and key as associated data, so that rows cannot be swapped.

mod read;
mod seal;
mod write;

use std::path::Path;

use parsecfs_core::id::VlobId;
use parsecfs_crypto::local::LocalKey;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params, types::Value};
use serde::{Deserialize, Serialize};

use self::seal::{Keys, STATE};
use super::segment::Position;
use crate::error::{Error, ErrorKind, Result};

/// Raised with every change of the tables or of what is sealed in them.
const FORMAT_VERSION: i64 = 4;
/// The last format without files that are open and have no name: it lacks their table only.
const WITHOUT_ORPHANS: i64 = 3;

const ORPHAN_TABLE: &str = "CREATE TABLE orphan (ino INTEGER PRIMARY KEY, sealed BLOB);";

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
    /// An entry that is one of several names of an inode: which inode.
    LinkName([u8; 16]),
    /// A link group: its inode.
    LinkGroup([u8; 16]),
    /// An inode that is in no folder and that the kernel refers to: its attributes, and where its base is.
    Orphan(u64),
}

impl RowKey {
    /// Table and key as numbers: for associated data and the journal.
    pub(super) fn parts(self) -> (u8, u64, u64) {
        let halves = |id: [u8; 16]| {
            let half = |at: usize| id.iter().skip(at).take(8).rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            (half(0), half(8))
        };
        match self {
            Self::Checkpoint => (0, 0, 0),
            Self::Inode(ino) => (1, ino, 0),
            Self::Base(ino) => (2, ino, 0),
            Self::Dentry(parent, cookie) => (3, parent, cookie),
            Self::Slot(ino, slot) => (4, ino, slot),
            Self::LinkName(id) => (5, halves(id).0, halves(id).1),
            Self::LinkGroup(id) => (6, halves(id).0, halves(id).1),
            Self::Orphan(ino) => (7, ino, 0),
        }
    }

    /// The key of these parts, if there is such a table.
    pub(super) fn from_parts(table: u8, a: u64, b: u64) -> Option<Self> {
        let id = (u128::from(b) << 64 | u128::from(a)).to_le_bytes();
        Some(match table {
            0 => Self::Checkpoint,
            1 => Self::Inode(a),
            2 => Self::Base(a),
            3 => Self::Dentry(a, b),
            4 => Self::Slot(a, b),
            5 => Self::LinkName(id),
            6 => Self::LinkGroup(id),
            7 => Self::Orphan(a),
            _ => return None,
        })
    }
}

/// The columns that a row is found by.
fn key_columns(key: RowKey) -> impl Iterator<Item = Value> {
    let number = |number: u64| Some(Value::Integer(number.cast_signed()));
    let (a, b) = match key {
        RowKey::Checkpoint => (None, None),
        RowKey::Inode(ino) | RowKey::Base(ino) | RowKey::Orphan(ino) => (number(ino), None),
        RowKey::Dentry(a, b) | RowKey::Slot(a, b) => (number(a), number(b)),
        RowKey::LinkName(id) | RowKey::LinkGroup(id) => (Some(Value::Blob(id.to_vec())), None),
    };
    [a, b].into_iter().flatten()
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
            WITHOUT_ORPHANS => db.execute_batch(&with_version(ORPHAN_TABLE)).map_err(sql_error)?,
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
        let every: [(&str, KeyOf); 6] = [
            ("SELECT one, 0, NULL, 0 FROM checkpoint", |_, _| RowKey::Checkpoint),
            ("SELECT ino, 0, id, pending FROM inode NOT INDEXED", |a, _| RowKey::Inode(a)),
            ("SELECT ino, 0, NULL, 0 FROM base", |a, _| RowKey::Base(a)),
            ("SELECT parent, cookie, NULL, 0 FROM dentry", RowKey::Dentry),
            ("SELECT ino, slot, NULL, 0 FROM slot", RowKey::Slot),
            ("SELECT ino, 0, NULL, 0 FROM orphan", |a, _| RowKey::Orphan(a)),
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
        type KeyOfId = fn([u8; 16]) -> RowKey;
        let links: [(&str, KeyOfId); 2] =
            [("SELECT id FROM link_name", RowKey::LinkName), ("SELECT id FROM link_group", RowKey::LinkGroup)];
        for (sql, key) in links {
            let mut query = self.db.prepare(sql).map_err(sql_error)?;
            let mut rows = query.query([]).map_err(sql_error)?;
            while let Some(row) = rows.next().map_err(sql_error)? {
                keys.add(key(row.get(0).map_err(sql_error)?), None, false);
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
}

fn create_tables(db: &Connection) -> Result<()> {
    let tables = format!(
        "CREATE TABLE state (one INTEGER PRIMARY KEY, sealed BLOB);
         CREATE TABLE checkpoint (one INTEGER PRIMARY KEY, sealed BLOB);
         CREATE TABLE inode (ino INTEGER PRIMARY KEY, id BLOB UNIQUE, pending INTEGER, sealed BLOB);
         CREATE INDEX inode_pending ON inode (ino) WHERE pending;
         CREATE TABLE base (ino INTEGER PRIMARY KEY, sealed BLOB);
         CREATE TABLE dentry (parent INTEGER, cookie INTEGER, sealed BLOB, PRIMARY KEY (parent, cookie)) WITHOUT ROWID;
         CREATE TABLE slot (ino INTEGER, slot INTEGER, sealed BLOB, PRIMARY KEY (ino, slot)) WITHOUT ROWID;
         CREATE TABLE link_name (id BLOB PRIMARY KEY, sealed BLOB) WITHOUT ROWID;
         CREATE TABLE link_group (id BLOB PRIMARY KEY, sealed BLOB) WITHOUT ROWID;
         {ORPHAN_TABLE}"
    );
    db.execute_batch(&with_version(&tables)).map_err(sql_error)
}

/// A change of tables and the number of the format that it makes, all or nothing.
fn with_version(change: &str) -> String {
    format!("BEGIN; {change} PRAGMA user_version={FORMAT_VERSION}; COMMIT;")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_parts() {
        let id = std::array::from_fn(|at| u8::try_from(at + 200).unwrap_or(7));
        let keys = [
            RowKey::Checkpoint,
            RowKey::Inode(1),
            RowKey::Base(u64::MAX),
            RowKey::Dentry(2, 3),
            RowKey::Slot(4, u64::MAX),
            RowKey::LinkName(id),
            RowKey::LinkGroup(id),
            RowKey::Orphan(5),
        ];
        for key in keys {
            let (table, a, b) = key.parts();
            assert_eq!(RowKey::from_parts(table, a, b), Some(key));
        }
        assert_eq!(RowKey::from_parts(8, 0, 0), None);
    }

    #[test]
    fn an_index_of_the_format_before_is_taken_over_with_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.sqlite");
        let open = || Index::open(&path, LocalKey::from_bytes([3; 32]), [1; 16]).unwrap();
        let row = || Some(RowBytes { id: None, pending: false, bytes: vec![7; 9].into() });
        open().apply([(&RowKey::Base(4), &row())].into_iter(), Position::default(), Counters::default()).unwrap();
        let before = Connection::open(&path).unwrap();
        before.execute_batch("DROP TABLE orphan; PRAGMA user_version=3;").unwrap();
        drop(before);
        let mut index = open();
        index.verify().unwrap();
        index.apply([(&RowKey::Orphan(5), &row())].into_iter(), Position::default(), Counters::default()).unwrap();
        assert_eq!((index.orphans().unwrap(), index.get(RowKey::Base(4)).unwrap()), (vec![5], Some(vec![7; 9])));
        open().verify().unwrap();
    }
}
