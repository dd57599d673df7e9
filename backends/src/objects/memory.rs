//! What a device remembers of each log between runs: its operation numbers and the head it saw.
//!
//! Operation numbers are reserved in ranges, each on stable storage before its first use, so that no number is ever
//! used twice. The head is written after each change without a sync: after a power cut it may be an older one, which
//! weakens the alarm by a moment and never makes a false one.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use parsecfs_core::storage::{Error, ErrorKind, LogId, Result};

use super::{
    entry::{Head, digest_of},
    wire::{Reader, Writer},
};

/// Operation numbers that one sync reserves.
const RESERVED: u64 = 256;

/// A device's notes about one log.
pub(super) struct DeviceMemory {
    folder: PathBuf,
    name: String,
    next_op: u64,
    reserved_op: u64,
    head: Option<Head>,
}

fn failed(error: io::Error) -> Error {
    let kind = if error.kind() == io::ErrorKind::StorageFull { ErrorKind::Full } else { ErrorKind::Internal };
    Error::new(kind, "the device's notes about the storage cannot be written").caused_by(error)
}

impl DeviceMemory {
    /// Opens the notes about `log`; missing or unreadable ones count as none.
    pub(super) fn open(folder: &Path, log: LogId) -> Result<Self> {
        fs::create_dir_all(folder).map_err(failed)?;
        let name = match log {
            LogId::Organization => "organization".to_owned(),
            LogId::Realm(realm) => realm.to_string(),
        };
        let mut memory = Self { folder: folder.to_owned(), name, next_op: 1, reserved_op: 1, head: None };
        if let Some(body) = memory.read("op") {
            memory.next_op = Reader::new(&body).u64().unwrap_or(1);
            memory.reserved_op = memory.next_op;
        }
        memory.head = memory.read("head").and_then(|body| {
            let mut reader = Reader::new(&body);
            Some(Head { seq: reader.u64().ok()?, hash: reader.array().ok()? })
        });
        Ok(memory)
    }

    /// An operation number that was never used, above `seen`.
    pub(super) fn next_op(&mut self, seen: u64) -> Result<u64> {
        let op = self.next_op.max(seen + 1);
        if op >= self.reserved_op {
            let mut writer = Writer::default();
            writer.u64(op + RESERVED);
            self.write("op", &writer.0, true)?;
            self.reserved_op = op + RESERVED;
        }
        self.next_op = op + 1;
        Ok(op)
    }

    /// The head this device saw last.
    pub(super) fn head(&self) -> Option<Head> {
        self.head
    }

    /// Remembers a head that is not lower than the one before.
    pub(super) fn remember(&mut self, head: Head) -> Result<()> {
        if self.head != Some(head) && head.seq > 0 {
            let mut writer = Writer::default();
            writer.u64(head.seq).raw(&head.hash);
            self.write("head", &writer.0, false)?;
            self.head = Some(head);
        }
        Ok(())
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.name))
    }

    fn read(&self, kind: &str) -> Option<Vec<u8>> {
        let bytes = fs::read(self.path(kind)).ok()?;
        let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        (digest_of(body) == digest).then(|| body.to_vec())
    }

    fn write(&self, kind: &str, body: &[u8], sync: bool) -> Result<()> {
        // Named for the process too: two processes of one device must not share a temporary file.
        let tmp = self.path(&format!("{kind}.{}", std::process::id()));
        let mut file = File::create(&tmp).map_err(failed)?;
        file.write_all(&[body, &digest_of(body)].concat()).map_err(failed)?;
        if sync {
            file.sync_all().map_err(failed)?;
        }
        fs::rename(&tmp, self.path(kind)).map_err(failed)?;
        if sync {
            File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_number_is_never_used_twice() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut used = Vec::new();
        for _ in 0..3 {
            let mut memory = DeviceMemory::open(folder.path(), LogId::Organization).expect("opens");
            used.extend((0..300).map(|_| memory.next_op(0).expect("a number")));
        }
        assert!(used.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_damaged_head_counts_as_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let head = Head { seq: 3, hash: [1; 32] };
        let open = || DeviceMemory::open(folder.path(), LogId::Organization).expect("opens");
        open().remember(head).expect("remembers");
        assert_eq!(open().head(), Some(head));
        fs::write(folder.path().join("organization.head"), b"torn").expect("writes");
        assert_eq!(open().head(), None);
    }
}
