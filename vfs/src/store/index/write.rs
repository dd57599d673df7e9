//! Changes of the index: a group of rows and the journal position that it reaches, all or nothing.
//!
//! Every change of a row's clear columns goes into the sum of [`Keys`](super::seal::Keys) in the same transaction.

use rusqlite::{params, types::Value};

use super::{Counters, Index, RowBytes, RowKey, RowValue, State, key_columns, sql_error};
use crate::{error::Result, store::segment::Position};

impl Index {
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
        let (update, insert) = match key {
            RowKey::Inode(ino) => return self.put_inode(ino, value, sealed),
            RowKey::Checkpoint => ("UPDATE checkpoint SET sealed=?1", "INSERT INTO checkpoint VALUES (0, ?1)"),
            RowKey::Base(_) => ("UPDATE base SET sealed=?1 WHERE ino=?2", "INSERT INTO base VALUES (?2, ?1)"),
            RowKey::Orphan(_) => ("UPDATE orphan SET sealed=?1 WHERE ino=?2", "INSERT INTO orphan VALUES (?2, ?1)"),
            RowKey::Dentry(..) => {
                ("UPDATE dentry SET sealed=?1 WHERE parent=?2 AND cookie=?3", "INSERT INTO dentry VALUES (?2, ?3, ?1)")
            }
            RowKey::Slot(..) => {
                ("UPDATE slot SET sealed=?1 WHERE ino=?2 AND slot=?3", "INSERT INTO slot VALUES (?2, ?3, ?1)")
            }
            RowKey::LinkName(_) => {
                ("UPDATE link_name SET sealed=?1 WHERE id=?2", "INSERT INTO link_name VALUES (?2, ?1)")
            }
            RowKey::LinkGroup(_) => {
                ("UPDATE link_group SET sealed=?1 WHERE id=?2", "INSERT INTO link_group VALUES (?2, ?1)")
            }
        };
        let run = |sql| {
            let values = std::iter::once(Value::Blob(sealed.to_vec())).chain(key_columns(key));
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
        let sql = match key {
            RowKey::Inode(ino) => {
                let sql = "DELETE FROM inode WHERE ino=?1 RETURNING ino, id, pending";
                return self.delete_inodes(sql, params![ino.cast_signed()]);
            }
            RowKey::Checkpoint => "DELETE FROM checkpoint",
            RowKey::Base(_) => "DELETE FROM base WHERE ino=?1",
            RowKey::Dentry(..) => "DELETE FROM dentry WHERE parent=?1 AND cookie=?2",
            RowKey::Slot(..) => "DELETE FROM slot WHERE ino=?1 AND slot=?2",
            RowKey::LinkName(_) => "DELETE FROM link_name WHERE id=?1",
            RowKey::LinkGroup(_) => "DELETE FROM link_group WHERE id=?1",
            RowKey::Orphan(_) => "DELETE FROM orphan WHERE ino=?1",
        };
        let mut delete = self.db.prepare_cached(sql).map_err(sql_error)?;
        if delete.execute(rusqlite::params_from_iter(key_columns(key))).map_err(sql_error)? > 0 {
            self.keys.remove(key, None, false);
        }
        Ok(())
    }
}
