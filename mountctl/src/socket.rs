//! The address of the agent's socket: a file in the home, reached through a descriptor of its folder.
//!
//! A socket address holds 108 bytes and a home can be deeper than that. `/proc/self/fd/N/agent.sock` is short wherever
//! the home is, needs no second folder in a place that others can write to, and is the same for every shell of a user
//! (a path under `$XDG_RUNTIME_DIR` would not be).

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{MetadataExt, OpenOptionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

/// Name of the socket in the agent's folder.
pub const NAME: &str = "agent.sock";
/// Name of the file whose lock says who may listen there.
const LOCK_NAME: &str = "agent.lock";

/// The right to listen in a folder, which one process has.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes it; `None` when another process has it.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(LOCK_NAME);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self(lock))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// One that a process before took and somebody kept.
    pub fn kept(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }

    /// Whether it counts in this folder: one that was deleted and made anew is somebody else's.
    fn is_of(&self, folder: &Path) -> io::Result<bool> {
        let own = self.0.metadata()?;
        match std::fs::metadata(folder.join(LOCK_NAME)) {
            Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn address(folder: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(NAME)
}

/// Connects to the agent of this folder.
pub fn connect(folder: &Path) -> io::Result<UnixStream> {
    let folder = File::open(folder)?;
    UnixStream::connect(address(&folder))
}

/// Listens in this folder. A socket that is there already is removed: call it only while holding the [`Lock`].
pub fn listen(folder: &Path) -> io::Result<UnixListener> {
    let folder = File::open(folder)?;
    let address = address(&folder);
    match std::fs::remove_file(&address) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(address)
}

/// Takes the socket from this folder, if it is of who has this lock.
pub fn remove(folder: &Path, lock: &Lock) -> io::Result<()> {
    if !lock.is_of(folder)? {
        return Ok(());
    }
    std::fs::remove_file(folder.join(NAME)).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_folder_is_no_obstacle_and_a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        drop(listen(&deep).unwrap());
        assert_eq!(connect(&deep).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let _listener = listen(&deep).unwrap();
        connect(&deep).unwrap();
    }

    #[test]
    fn the_lock_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(Lock::take(dir.path()).unwrap().is_none());
        drop(first);
        assert!(Lock::take(dir.path()).unwrap().is_some());
    }

    #[test]
    fn who_ends_leaves_the_socket_of_a_home_that_was_deleted_and_made_anew_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("home");
        let start = || {
            std::fs::create_dir(&folder).unwrap();
            let lock = Lock::take(&folder).unwrap().unwrap();
            (lock, listen(&folder).unwrap())
        };
        let (first, _listener) = start();
        std::fs::remove_dir_all(&folder).unwrap();
        remove(&folder, &first).unwrap();
        let (second, _other) = start();
        remove(&folder, &first).unwrap();
        connect(&folder).unwrap();
        remove(&folder, &second).unwrap();
        assert_eq!(connect(&folder).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
