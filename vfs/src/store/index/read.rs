//! Lookups in the index. A row that does not open is told by itself, and does not hide the others.

use std::ops::RangeInclusive;

use parsecfs_core::id::VlobId;
use rusqlite::{OptionalExtension, params};

use super::{Index, RowKey, key_columns, sql_error};
use crate::error::{ErrorKind, Result};

impl Index {
    /// One row, opened.
    pub(crate) fn get(&self, key: RowKey) -> Result<Option<Vec<u8>>> {
        let sql = match key {
            RowKey::Checkpoint => "SELECT sealed FROM checkpoint",
            RowKey::Inode(_) => "SELECT sealed FROM inode WHERE ino=?1",
            RowKey::Base(_) => "SELECT sealed FROM base WHERE ino=?1",
            RowKey::Dentry(..) => "SELECT sealed FROM dentry WHERE parent=?1 AND cookie=?2",
            RowKey::Slot(..) => "SELECT sealed FROM slot WHERE ino=?1 AND slot=?2",
            RowKey::LinkName(_) => "SELECT sealed FROM link_name WHERE id=?1",
            RowKey::LinkGroup(_) => "SELECT sealed FROM link_group WHERE id=?1",
            RowKey::Orphan(_) => "SELECT sealed FROM orphan WHERE ino=?1",
        };
        let values = key_columns(key);
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

    /// Inodes in no folder.
    pub(crate) fn orphans(&self) -> Result<Vec<u64>> {
        self.numbers("SELECT ino FROM orphan")
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
}
