//! One answer to one request. An answer that is dropped says EIO: nobody waits for ever. Only when another process goes on
//! with the mount it says nothing: that process is asked again.

use std::sync::Arc;

use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use super::{
    device::Device,
    wire::{Dirent, EntryOut},
};

/// Where an answer goes. May move to another thread or task.
#[derive(Debug)]
pub(super) struct Reply {
    device: Arc<Device>,
    unique: u64,
    answered: bool,
}

impl Reply {
    pub(super) fn new(device: &Arc<Device>, unique: u64) -> Self {
        Self { device: device.clone(), unique, answered: false }
    }

    /// The kernel that waits for it.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// The request failed.
    pub(super) fn error(mut self, errno: Errno) {
        self.send(-errno.raw_os_error(), &[]);
    }

    /// Done, and nothing to say.
    pub(super) fn ok(mut self) {
        self.send(0, &[]);
    }

    /// Done, with one of the structures of [`super::wire`].
    pub(super) fn body<T: IntoBytes + Immutable>(mut self, body: &T) {
        self.send(0, &[body.as_bytes()]);
    }

    /// Done, with bytes.
    pub(super) fn data(mut self, data: &[u8]) {
        self.send(0, &[data]);
    }

    /// Nothing was asked that has an answer.
    pub(super) fn none(mut self) {
        self.answered = true;
    }

    fn send(&mut self, error: i32, parts: &[&[u8]]) {
        self.answered = true;
        match self.device.send(self.unique, error, parts) {
            Ok(()) => {}
            // The request was interrupted, or the mount is over.
            Err(gone) if matches!(gone.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {}
            Err(error) => tracing::warn!(%error, "the kernel did not take an answer"),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered && !self.device.is_stopping() {
            self.send(-Errno::IO.raw_os_error(), &[]);
        }
    }
}

/// The names of a folder as the kernel takes them, up to the size that it asked for.
#[derive(Debug)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Entries {
    /// Alignment of each entry.
    const ALIGN: usize = 8;

    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes_max), bytes_max }
    }

    /// Adds a name, with its attributes if `entry` is there; `false` when it does not fit any more.
    pub(super) fn add(&mut self, ino: u64, next: u64, kind: u32, name: &[u8], entry: Option<&EntryOut>) -> bool {
        let head = entry.map_or(0, |_| size_of::<EntryOut>()) + size_of::<Dirent>();
        let whole = (head + name.len()).next_multiple_of(Self::ALIGN);
        if self.bytes.len() + whole > self.bytes_max {
            return false;
        }
        let end = self.bytes.len() + whole;
        // A name has at most 255 bytes.
        let name_len = u32::try_from(name.len()).unwrap_or(0);
        if let Some(entry) = entry {
            self.bytes.extend_from_slice(entry.as_bytes());
        }
        self.bytes.extend_from_slice(Dirent { ino, offset: next, name_len, kind }.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        true
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
