//! What a mount needs to go on in another process, given to the [`keeper`](crate::keeper).
//!
//! Of a mount: its descriptor, the tape of its store, and how it was mounted. Of a device: its keys, sealed with a key that
//! lies in a pipe, which is memory of the system that never goes to a disk; neither the keeper nor anybody else has it in
//! a process. Of the agent: its lock and its socket, so that commands wait for the next one instead of finding none.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
};

use parsecfs_core::{
    id::{DeviceId, RealmId},
    local_device::LocalDevice,
};
use parsecfs_crypto::SecretKey;
use parsecfs_vfs::{Agreed, Mount};
use rustix::pipe::{PipeFlags, SpliceFlags};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, Result},
    keeper::{Kept, MOUNT, Thing},
    rpc::MountRequest,
    socket::Lock,
};

const LOCK: &str = "lock";
const SOCKET: &str = "socket";
const DEVICE: &str = "device/";
const KEY_BYTES: usize = 32;

/// How a mount was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MountNote {
    /// The device, 32 hexadecimal digits.
    pub(super) device: String,
    /// The workspace, 32 hexadecimal digits.
    pub(super) workspace: String,
    pub(super) dir: PathBuf,
    pub(super) options: MountRequest,
    pub(super) agreed: Agreed,
}

/// A mount whose process is gone.
#[derive(Debug)]
pub(super) struct LeftMount {
    pub(super) note: MountNote,
    pub(super) descriptor: OwnedFd,
    pub(super) tape: File,
}

/// What the agents before this one left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// The lock and the socket, if there was an agent before.
    pub(super) place: Option<(Lock, UnixListener)>,
    pub(super) devices: BTreeMap<String, LocalDevice>,
    pub(super) mounts: Vec<LeftMount>,
}

impl Left {
    /// Understands what was kept.
    pub(super) fn of(things: Vec<Thing>) -> io::Result<Self> {
        let (mut left, mut lock, mut socket) = (Self::default(), None, None);
        for mut thing in things {
            let mut next = || {
                let first = (!thing.descriptors.is_empty()).then(|| thing.descriptors.remove(0));
                first.ok_or(io::ErrorKind::InvalidData)
            };
            if thing.name == LOCK {
                lock = Some(Lock::kept(next()?));
            } else if thing.name == SOCKET {
                socket = Some(UnixListener::from(next()?));
            } else if let Some(id) = thing.name.strip_prefix(DEVICE) {
                let device = open_device(next()?, &thing.note)?;
                left.devices.insert(id.to_owned(), device);
            } else if thing.name.starts_with(MOUNT) {
                let (descriptor, tape) = (next()?, next()?.into());
                left.mounts.push(LeftMount { note: serde_json::from_slice(&thing.note)?, descriptor, tape });
            }
        }
        left.place = lock.zip(socket);
        Ok(left)
    }
}

/// Has the lock and the socket kept.
pub(super) fn keep_place(kept: &Kept, lock: &Lock, socket: &UnixListener) {
    kept.put(LOCK, &[], &[lock.as_fd()]);
    kept.put(SOCKET, &[], &[socket.as_fd()]);
}

/// A new tape for a store.
pub(super) fn new_tape() -> Result<File> {
    let tape = rustix::fs::memfd_create("parsecfs-tape", rustix::fs::MemfdFlags::CLOEXEC);
    tape.map(File::from).map_err(|error| Failure::io("cannot make room in memory", &error.into()))
}

/// Has a mount kept, with the keys that it needs. A kernel that does not ask again what a process left unanswered would
/// leave programs waiting for ever: there the mount ends with its agent.
pub(super) fn keep_mount(
    kept: &Kept,
    mount: &Mount,
    tape: &File,
    device: &LocalDevice,
    workspace: RealmId,
    options: MountRequest,
) -> Result<()> {
    let Some((descriptor, agreed)) = mount.keepsake()? else {
        tracing::warn!("this kernel does not let a mount survive its agent");
        return Ok(());
    };
    let failed = |error: io::Error| Failure::io("cannot let the mount survive", &error);
    let id = device.device_id.to_string();
    let (key, sealed) = seal_device(device).map_err(failed)?;
    kept.put(&format!("{DEVICE}{id}"), &sealed, &[key.as_fd()]);
    let note = MountNote { device: id, workspace: workspace.to_string(), dir: mount.dir().to_owned(), options, agreed };
    let note = serde_json::to_vec(&note).map_err(|error| failed(error.into()))?;
    kept.put(&name_of(workspace), &note, &[descriptor.as_fd(), tape.as_fd()]);
    Ok(())
}

/// Lets go of a mount that has ended.
pub(super) fn drop_mount(kept: &Kept, workspace: RealmId) {
    kept.drop(&name_of(workspace));
}

/// Lets go of the keys of a device that nothing mounted needs.
pub(super) fn drop_device(kept: &Kept, device: DeviceId) {
    kept.drop(&format!("{DEVICE}{device}"));
}

fn name_of(workspace: RealmId) -> String {
    format!("{MOUNT}{workspace}")
}

/// A device sealed with a new key, and a pipe that holds the key.
fn seal_device(device: &LocalDevice) -> io::Result<(OwnedFd, Vec<u8>)> {
    let key = SecretKey::generate();
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::write(&write, key.expose())?;
    Ok((read, device.seal(&key)))
}

fn open_device(pipe: OwnedFd, sealed: &[u8]) -> io::Result<LocalDevice> {
    let refused = |_| io::Error::from(io::ErrorKind::InvalidData);
    // A copy: the next process needs it too.
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::pipe::tee(&pipe, &write, KEY_BYTES, SpliceFlags::NONBLOCK)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if rustix::io::read(&read, &mut *key)? != KEY_BYTES {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    LocalDevice::open(sealed, &SecretKey::from_bytes(*key)).map_err(refused)
}
