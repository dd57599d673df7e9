//! The copy of an organization's certificates that lets a device open it without network.
//!
//! `certificates.sqlite` holds what was accepted, one row for each accepted batch in order, and a few small records:
//! the newest keys bundle of each realm and the name of a workspace that is not published yet. Every row is sealed
//! with the device's local key and bound to its place, so a row that was changed, moved or removed from the middle is
//! noticed. It is a cache of the storage: one that is damaged is put aside and fetched again.
//!
//! Not here: verification. What is read back goes through [`Trust`](parsecfs_core::trust::Trust) like a fresh answer.
//!
//! Several processes of one device may have it open: a batch is added only behind the last row its process has seen.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use parsecfs_core::{
    id::RealmId,
    storage::{Bytes, CertificateBatch},
};
use parsecfs_crypto::{
    SecretKey,
    local::{LOCAL_TAG_BYTES, LocalKey, LocalNonce},
};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::error::{Error, ErrorKind, Result};

const FILE: &str = "certificates.sqlite";
const KEY_PURPOSE: &[u8; 8] = b"orgstore";
/// Raised when an older program could not read what this one writes.
const SCHEMA_VERSION: i64 = 1;
/// Another process holds the lock for one small transaction only; longer means that it hangs.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A random nonce stands in front of what it seals.
const NONCE_BYTES: usize = 32;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS batch (seq INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS record (kind INTEGER NOT NULL, realm BLOB NOT NULL, sealed BLOB NOT NULL,
                                       PRIMARY KEY (kind, realm)) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// What a record of a realm holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// The newest keys bundle that was validated, with this user's access.
    KeysBundle = 1,
    /// The name that the creator of a workspace gave it, until it is published.
    PendingName = 2,
}

/// One accepted answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Whether it is everything from the beginning, in the place of the rows before it.
    pub(super) afresh: bool,
    pub(super) batch: CertificateBatch,
}

/// Whether a row was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// It is row `seq` now.
    Yes,
    /// Another process added rows first: load them and look again.
    Behind,
}

pub(super) struct CertificateDatabase {
    connection: Mutex<Connection>,
    key: LocalKey,
}

impl CertificateDatabase {
    /// Opens or creates the file in `dir`.
    pub(super) fn open(dir: &Path, local_key: &SecretKey) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|error| disk(error, "the directory of the certificates cannot be made"))?;
        let connection = connect(&dir.join(FILE))?;
        Ok(Self { connection: Mutex::new(connection), key: LocalKey::derive(local_key, KEY_PURPOSE) })
    }

    /// Renames a damaged file out of the way, so that the next [`Self::open`] starts anew.
    pub(super) fn put_aside(dir: &Path) -> Result<()> {
        for suffix in ["", "-wal", "-shm"] {
            let from = dir.join(format!("{FILE}{suffix}"));
            match fs::rename(&from, dir.join(format!("{FILE}.damaged{suffix}"))) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(disk(error, "the damaged certificates cannot be put aside")),
            }
        }
        Ok(())
    }

    /// The rows behind row `seq`, in order. `Corrupt` when one was changed or is missing.
    pub(super) fn rows_after(&self, seq: u64) -> Result<Vec<Row>> {
        let connection = self.connection.lock();
        let mut statement =
            connection.prepare_cached("SELECT seq, sealed FROM batch WHERE seq > ?1 ORDER BY seq").map_err(sql)?;
        let rows = statement
            .query_map([to_sql(seq)], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .map_err(sql)?;
        let mut accepted = Vec::new();
        for (expected, row) in (to_sql(seq) + 1..).zip(rows) {
            let (found, sealed) = row.map_err(sql)?;
            if found != expected {
                return Err(Error::new(ErrorKind::Corrupt, format!("row {expected} of the certificates is missing")));
            }
            accepted.push(Row::decode(&self.open_sealed(&batch_place(found), &sealed)?)?);
        }
        Ok(accepted)
    }

    /// Adds row `seq + 1`.
    pub(super) fn append(&self, seq: u64, row: &Row) -> Result<Appended> {
        let next = to_sql(seq) + 1;
        let sealed = self.seal(&batch_place(next), &row.encode())?;
        let mut connection = self.connection.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        let last: i64 =
            transaction.query_row("SELECT coalesce(max(seq), 0) FROM batch", [], |row| row.get(0)).map_err(sql)?;
        if last != to_sql(seq) {
            return Ok(Appended::Behind);
        }
        transaction.execute("INSERT INTO batch (seq, sealed) VALUES (?1, ?2)", params![next, sealed]).map_err(sql)?;
        transaction.commit().map_err(sql)?;
        Ok(Appended::Yes)
    }

    pub(super) fn record(&self, kind: RecordKind, realm: RealmId) -> Result<Option<Vec<u8>>> {
        let sealed: Option<Vec<u8>> = self
            .connection
            .lock()
            .query_row(
                "SELECT sealed FROM record WHERE kind = ?1 AND realm = ?2",
                params![kind as i64, realm.as_bytes()],
                |row| row.get(0),
            )
            .optional()
            .map_err(sql)?;
        sealed.map(|sealed| self.open_sealed(&record_place(kind, realm), &sealed)).transpose()
    }

    pub(super) fn records(&self, kind: RecordKind) -> Result<BTreeMap<RealmId, Vec<u8>>> {
        let connection = self.connection.lock();
        let mut statement =
            connection.prepare_cached("SELECT realm, sealed FROM record WHERE kind = ?1").map_err(sql)?;
        let rows = statement
            .query_map([kind as i64], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .map_err(sql)?;
        let mut records = BTreeMap::new();
        for row in rows {
            let (realm, sealed) = row.map_err(sql)?;
            let realm = RealmId::from_bytes(realm);
            records.insert(realm, self.open_sealed(&record_place(kind, realm), &sealed)?);
        }
        Ok(records)
    }

    pub(super) fn put_record(&self, kind: RecordKind, realm: RealmId, clear: &[u8]) -> Result<()> {
        let sealed = self.seal(&record_place(kind, realm), clear)?;
        self.connection
            .lock()
            .execute(
                "INSERT OR REPLACE INTO record (kind, realm, sealed) VALUES (?1, ?2, ?3)",
                params![kind as i64, realm.as_bytes(), sealed],
            )
            .map_err(sql)?;
        Ok(())
    }

    pub(super) fn remove_record(&self, kind: RecordKind, realm: RealmId) -> Result<()> {
        self.connection
            .lock()
            .execute("DELETE FROM record WHERE kind = ?1 AND realm = ?2", params![kind as i64, realm.as_bytes()])
            .map_err(sql)?;
        Ok(())
    }

    fn seal(&self, place: &[u8], clear: &[u8]) -> Result<Vec<u8>> {
        let nonce = LocalNonce::random();
        let mut sealed = Vec::with_capacity(NONCE_BYTES + clear.len() + LOCAL_TAG_BYTES);
        sealed.extend_from_slice(nonce.as_bytes());
        self.key.seal_into(&nonce, place, clear, &mut sealed);
        Ok(sealed)
    }

    fn open_sealed(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let damaged = || Error::new(ErrorKind::Corrupt, "a row of the local certificates does not open");
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
        let length = sealed.len().checked_sub(LOCAL_TAG_BYTES).ok_or_else(damaged)?;
        let mut clear = vec![0; length];
        self.key
            .open_into(&LocalNonce::from_bytes(*nonce), place, sealed, &mut clear)
            .map_err(|error| damaged().caused_by(error))?;
        Ok(clear)
    }
}

fn connect(path: &PathBuf) -> Result<Connection> {
    let connection = Connection::open(path).map_err(sql)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sql)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql)?;
    if version > SCHEMA_VERSION {
        return Err(Error::new(ErrorKind::UnsupportedVersion, "the local certificates are of a newer version"));
    }
    // FULL: a batch that was accepted is remembered after a power cut, so a storage cannot take it back unnoticed.
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").map_err(sql)?;
    if version < SCHEMA_VERSION {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;")).map_err(sql)?;
    }
    Ok(connection)
}

fn batch_place(seq: i64) -> Vec<u8> {
    [b"batch".as_slice(), &seq.to_le_bytes()].concat()
}

fn record_place(kind: RecordKind, realm: RealmId) -> Vec<u8> {
    [b"record".as_slice(), &[kind as u8], realm.as_bytes()].concat()
}

fn to_sql(seq: u64) -> i64 {
    i64::try_from(seq).expect("one row per accepted batch: never 2^63 of them")
}

fn disk(error: std::io::Error, what: &str) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, what).caused_by(error)
}

fn sql(error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        Some(ErrorCode::DiskFull) => ErrorKind::NoSpace,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, "local certificates").caused_by(error)
}

// A row: one byte where it stands in the place of those before it; then for each certificate its topic (one byte, for a
// realm 16 more), its length (u32, little endian) and its bytes.

const SEQUESTER: u8 = 0;
const COMMON: u8 = 1;
const REALM: u8 = 2;
const SHAMIR: u8 = 3;
const AFRESH: u8 = 4;

impl Row {
    fn encode(&self) -> Vec<u8> {
        let CertificateBatch { sequester, common, realm, shamir } = &self.batch;
        let mut out = if self.afresh { vec![AFRESH] } else { Vec::new() };
        let mut topic = |head: &[u8], certificates: &[Bytes]| {
            for certificate in certificates {
                out.extend_from_slice(head);
                let length = u32::try_from(certificate.len()).expect("a certificate is far below 4 GiB");
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(certificate);
            }
        };
        topic(&[SEQUESTER], sequester);
        topic(&[COMMON], common);
        for (id, certificates) in realm {
            topic(&[&[REALM], id.as_bytes().as_slice()].concat(), certificates);
        }
        topic(&[SHAMIR], shamir);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let (afresh, mut bytes) = bytes.strip_prefix(&[AFRESH]).map_or((false, bytes), |rest| (true, rest));
        let mut batch = CertificateBatch::default();
        while !bytes.is_empty() {
            let malformed = || Error::new(ErrorKind::Corrupt, "a row of the local certificates is malformed");
            let list = match take(&mut bytes, 1).ok_or_else(malformed)? {
                [SEQUESTER] => &mut batch.sequester,
                [COMMON] => &mut batch.common,
                [SHAMIR] => &mut batch.shamir,
                [REALM] => {
                    let id = take(&mut bytes, 16).and_then(|id| id.try_into().ok()).ok_or_else(malformed)?;
                    batch.realm.entry(RealmId::from_bytes(id)).or_default()
                }
                _ => return Err(malformed()),
            };
            let length = take(&mut bytes, 4).and_then(|length| length.try_into().ok()).ok_or_else(malformed)?;
            let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| malformed())?;
            list.push(Bytes::copy_from_slice(take(&mut bytes, length).ok_or_else(malformed)?));
        }
        Ok(Self { afresh, batch })
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(length)?;
    *bytes = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(text: &[u8]) -> Row {
        let batch = CertificateBatch {
            sequester: vec![Bytes::copy_from_slice(text)],
            common: vec![Bytes::from_static(b"user"), Bytes::from_static(b"")],
            realm: BTreeMap::from([(RealmId::from_bytes([7; 16]), vec![Bytes::from_static(b"role")])]),
            shamir: vec![Bytes::from_static(b"brief")],
        };
        Row { afresh: text == b"two", batch }
    }

    fn key() -> SecretKey {
        SecretKey::from_bytes([1; 32])
    }

    #[test]
    fn batches_come_back_in_order_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let store = CertificateDatabase::open(dir.path(), &key()).unwrap();
        assert_eq!(store.append(0, &batch(b"one")).unwrap(), Appended::Yes);
        assert_eq!(store.append(1, &batch(b"two")).unwrap(), Appended::Yes);
        drop(store);
        let store = CertificateDatabase::open(dir.path(), &key()).unwrap();
        assert_eq!(store.rows_after(0).unwrap(), [batch(b"one"), batch(b"two")]);
        assert_eq!(store.rows_after(1).unwrap(), [batch(b"two")]);
    }

    #[test]
    fn a_second_process_cannot_add_behind_rows_it_has_not_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (
            CertificateDatabase::open(dir.path(), &key()).unwrap(),
            CertificateDatabase::open(dir.path(), &key()).unwrap(),
        );
        assert_eq!(one.append(0, &batch(b"one")).unwrap(), Appended::Yes);
        assert_eq!(two.append(0, &batch(b"two")).unwrap(), Appended::Behind);
        assert_eq!(two.rows_after(0).unwrap(), [batch(b"one")]);
    }

    #[test]
    fn a_changed_swapped_or_missing_row_is_noticed() {
        for damage in [
            "UPDATE batch SET sealed = zeroblob(length(sealed)) WHERE seq = 2",
            "UPDATE batch SET sealed = (SELECT sealed FROM batch WHERE seq = 1) WHERE seq = 2",
            "UPDATE batch SET sealed = x'00' WHERE seq = 1",
            "DELETE FROM batch WHERE seq = 2",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let store = CertificateDatabase::open(dir.path(), &key()).unwrap();
            for seq in 0..3 {
                store.append(seq, &batch(b"some")).unwrap();
            }
            store.connection.lock().execute_batch(damage).unwrap();
            assert_eq!(store.rows_after(0).unwrap_err().kind(), ErrorKind::Corrupt, "{damage}");
        }
    }

    #[test]
    fn records_are_kept_by_kind_and_realm_and_are_unreadable_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = CertificateDatabase::open(dir.path(), &key()).unwrap();
        let realm = RealmId::from_bytes([3; 16]);
        store.put_record(RecordKind::PendingName, realm, b"plain words").unwrap();
        assert_eq!(store.record(RecordKind::PendingName, realm).unwrap().unwrap(), b"plain words");
        assert_eq!(store.record(RecordKind::KeysBundle, realm).unwrap(), None);
        assert_eq!(store.records(RecordKind::PendingName).unwrap().len(), 1);
        for entry in fs::read_dir(dir.path()).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(11).any(|window| window == b"plain words"));
        }
        store.remove_record(RecordKind::PendingName, realm).unwrap();
        assert_eq!(store.record(RecordKind::PendingName, realm).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_no_database_can_be_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), [7; 8192]).unwrap();
        assert_eq!(CertificateDatabase::open(dir.path(), &key()).err().unwrap().kind(), ErrorKind::Corrupt);
        CertificateDatabase::put_aside(dir.path()).unwrap();
        assert!(CertificateDatabase::open(dir.path(), &key()).unwrap().rows_after(0).unwrap().is_empty());
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = CertificateDatabase::open(dir.path(), &key()).unwrap();
        store.connection.lock().execute_batch("PRAGMA user_version = 99").unwrap();
        drop(store);
        let error = CertificateDatabase::open(dir.path(), &key()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    }
}
