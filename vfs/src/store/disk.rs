//! What segments ask of the disk. A seam, so that a test can let it fail or cut its power.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

/// Writes and flushes of files. `path` is only a name for the file; it may have been replaced meanwhile.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`, or fails; then any part of them may be there.
    fn write(&self, path: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Puts what was written to a file on stable storage. After a failure nothing is known of what was written since
    /// the last success, and a later success says nothing about it: the system forgets what it could not write.
    fn sync(&self, path: &Path, file: &File) -> io::Result<()>;
}

/// The disk itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write(&self, _: &Path, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&self, _: &Path, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}
