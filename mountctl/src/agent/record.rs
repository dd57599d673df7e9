//! Remembers which mounts this home made, so that those left behind by a killed agent can be told from foreign ones.
//!
//! The record is a file of directories. A dead mount is taken away only when it is in the record, is of our
//! kind and nobody answers behind it; whoever calls holds the agent's lock, so the one who made it is gone.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::mountpoint;

fn record(folder: &Path) -> PathBuf {
    folder.join("mounts.json")
}

/// The directories that this home mounted and did not unmount.
#[must_use]
pub(super) fn remembered(folder: &Path) -> BTreeSet<PathBuf> {
    // A record that cannot be read only means that dead mounts stay until somebody removes them.
    fs::read(record(folder)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Adds a directory before it is mounted.
pub(super) fn remember(folder: &Path, dir: &Path) -> io::Result<()> {
    let mut dirs = remembered(folder);
    dirs.insert(dir.to_owned());
    write(folder, &dirs)
}

/// Takes a directory out after it was unmounted.
pub(super) fn forget(folder: &Path, dir: &Path) -> io::Result<()> {
    let mut dirs = remembered(folder);
    if dirs.remove(dir) { write(folder, &dirs) } else { Ok(()) }
}

fn write(folder: &Path, dirs: &BTreeSet<PathBuf>) -> io::Result<()> {
    let staged = folder.join("mounts.json.new");
    fs::write(&staged, serde_json::to_vec(dirs)?)?;
    fs::rename(staged, record(folder))
}

/// Takes away what a killed agent of this home left mounted, but for what is `served` again.
pub(super) fn clean_stale(folder: &Path, served: &BTreeSet<PathBuf>) {
    for dir in remembered(folder).difference(served).cloned().collect::<Vec<_>>() {
        if let Err(error) = clean(folder, &dir) {
            tracing::warn!(%error, "a dead mount stays");
        }
    }
}

fn clean(folder: &Path, dir: &Path) -> io::Result<()> {
    let entry = mountpoint::mounted_on(dir).map_err(|failure| io::Error::other(failure.message))?;
    if entry.is_some_and(|entry| entry.is_ours()) {
        if !mountpoint::is_dead(dir) {
            return Ok(());
        }
        mountpoint::unmount(dir, true)?;
        tracing::info!("took away a dead mount");
    }
    forget(folder, dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_found_again_until_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        assert!(remembered(dir.path()).is_empty());
        remember(dir.path(), Path::new("/a")).unwrap();
        remember(dir.path(), Path::new("/b")).unwrap();
        forget(dir.path(), Path::new("/a")).unwrap();
        assert_eq!(remembered(dir.path()), BTreeSet::from([PathBuf::from("/b")]));
    }

    #[test]
    fn a_foreign_mount_is_not_touched_and_leaves_the_record() {
        let dir = tempfile::tempdir().unwrap();
        remember(dir.path(), Path::new("/proc")).unwrap();
        clean_stale(dir.path(), &BTreeSet::new());
        assert!(remembered(dir.path()).is_empty());
        assert!(mountpoint::mounted_on(Path::new("/proc")).unwrap().is_some());
    }
}
