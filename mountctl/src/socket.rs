//! The address of the agent's socket: a file in the home, reached through a descriptor of its folder.
//!
//! A socket address holds 108 bytes and a home can be deeper than that. `/proc/self/fd/N/agent.sock` is short wherever
//! the home is, needs no second folder in a place that others can write to, and is the same for every shell of a user
//! (a path under `$XDG_RUNTIME_DIR` would not be).

use std::{
    fs::File,
    io,
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Name of the socket in the agent's folder.
pub const NAME: &str = "agent.sock";

fn address(folder: &File) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(NAME)
}

/// Connects to the agent of this folder.
pub fn connect(folder: &Path) -> io::Result<UnixStream> {
    let folder = File::open(folder)?;
    UnixStream::connect(address(&folder))
}

/// Listens in this folder. A socket that is there already is removed: call it only while holding the agent's lock.
pub fn listen(folder: &Path) -> io::Result<UnixListener> {
    let folder = File::open(folder)?;
    let address = address(&folder);
    match std::fs::remove_file(&address) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(address)
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
}
