//! One mount of a volume on Linux, from the first answer to the last.

use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Weak, mpsc},
    thread::JoinHandle,
};

use parking_lot::Mutex;
use tokio::sync::watch;
use zerocopy::IntoBytes;

use super::{
    device::{self, Device},
    fuse::Fuse,
    session::{self, Agreed},
    wire::{NOTIFY_INC_EPOCH, NOTIFY_INVAL_ENTRY, NOTIFY_INVAL_INODE, NotifyInvalEntry, NotifyInvalInode},
};
use crate::{
    error::{Error, ErrorKind, Result},
    fs::Volume,
    notify::{Notice, Notices},
};

/// What the kernel reads ahead, where we may say so, in KiB.
const READ_AHEAD_KIB: &str = "1024";

/// How to mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// Refuse changes.
    pub read_only: bool,
    /// Let other users of this machine in, as the permission bits say.
    pub allow_other: bool,
}

/// How far a mount is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Another process goes on with it.
    HandedOver,
    /// Unmounted.
    Ended,
}

/// A mounted volume. Dropping it leaves the mount; see [`Mount::unmount`].
#[derive(Debug)]
pub struct Mount {
    dir: PathBuf,
    notices: Notices,
    device: Arc<Device>,
    agreed: Agreed,
    phase: watch::Receiver<Phase>,
    telling: Mutex<Option<JoinHandle<()>>>,
}

impl Mount {
    /// Mounts a volume on an empty folder. Returns when the kernel has been answered for the first time.
    pub fn start(volume: &Arc<Volume>, dir: &Path, name: &str, options: &MountOptions) -> Result<Self> {
        let dir = dir.canonicalize().map_err(|e| Error::new(ErrorKind::NotFound, "the mount point").caused_by(e))?;
        let mounted = device::Options { name, read_only: options.read_only, allow_other: options.allow_other };
        let cannot = |e| Error::new(ErrorKind::Busy, "cannot mount here").caused_by(e);
        let device = Arc::new(Device::mount(&dir, &mounted).map_err(cannot)?);
        let agreed = session::agree(&device).map_err(cannot)?;
        read_ahead(&dir);
        Self::serve(volume, dir, device, agreed)
    }

    /// Goes on with a mount whose process is gone: what that one did not answer is asked again, and what it may not have
    /// told the kernel to forget is told now.
    pub fn resume(volume: &Arc<Volume>, dir: &Path, descriptor: OwnedFd, agreed: Agreed) -> Result<Self> {
        let cannot = |e| Error::new(ErrorKind::Internal, "cannot go on with a mount").caused_by(e);
        let device = Arc::new(Device::of(descriptor.into()).map_err(cannot)?);
        session::resume(&device).map_err(cannot)?;
        let mount = Self::serve(volume, dir.to_owned(), device, agreed)?;
        let inheritance = volume.store().inheritance();
        for ino in inheritance.inodes_changed.iter().copied().collect::<BTreeSet<_>>() {
            mount.notices.tell(Notice::Inode { ino });
        }
        if inheritance.names_changed {
            mount.notices.tell(Notice::Names);
        }
        volume.ask_for_orphans();
        Ok(mount)
    }

    fn serve(volume: &Arc<Volume>, dir: PathBuf, device: Arc<Device>, agreed: Agreed) -> Result<Self> {
        let notices = volume.notices().clone();
        let heard = notices.listen();
        let fuse = Fuse::new(volume.clone())?;
        let (enters, phase) = watch::channel(Phase::Serving);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .map_err(|e| Error::new(ErrorKind::Internal, "start a thread").caused_by(e))
        };
        let told = device.clone();
        let known_to = Arc::downgrade(volume);
        let telling = spawn("parsecfs-notify", Box::new(move || tell_kernel(&heard, &told, &known_to)))?;
        let (silent, served) = (notices.clone(), device.clone());
        spawn(
            "parsecfs-mount",
            Box::new(move || {
                if let Err(error) = session::serve(&served, &fuse) {
                    tracing::warn!(%error, "the mount ended with an error");
                }
                silent.silence();
                enters.send_replace(if served.is_stopping() { Phase::HandedOver } else { Phase::Ended });
            }),
        )?;
        Ok(Self { dir, notices, device, agreed, phase, telling: Mutex::new(Some(telling)) })
    }

    /// What another process needs to go on with this mount: a descriptor that keeps it alive, and what was agreed on with
    /// the kernel. `None` where the kernel does not ask again what a process left unanswered.
    pub fn keepsake(&self) -> Result<Option<(OwnedFd, Agreed)>> {
        if !self.agreed.resends {
            return Ok(None);
        }
        let shared = self.device.share();
        let shared = shared.map_err(|e| Error::new(ErrorKind::Internal, "share the mount").caused_by(e))?;
        Ok(Some((shared, self.agreed)))
    }

    /// Stops answering, for another process to go on. Returns when every request that was taken is answered, but for
    /// those that wait for the storage: they are asked again there. Announcements come to their end first, since the
    /// kernel may need answers for them: whoever announces has stopped before.
    pub async fn hand_over(&self) -> Result<()> {
        self.notices.silence();
        let telling = self.telling.lock().take();
        let told = tokio::task::spawn_blocking(move || telling.map(JoinHandle::join));
        if !matches!(told.await, Ok(None | Some(Ok(())))) {
            tracing::error!("the kernel was not told everything");
        }
        self.device.stop().map_err(|e| Error::new(ErrorKind::Internal, "stop answering").caused_by(e))?;
        // An error means that the thread is gone, which is as good.
        let _ = self.phase.clone().wait_for(|phase| *phase != Phase::Serving).await;
        Ok(())
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it is over, by [`Mount::unmount`] or because somebody else unmounted it.
    pub fn has_ended(&self) -> bool {
        *self.phase.borrow() == Phase::Ended
    }

    /// Returns when it is over. Not here, when another process goes on with it.
    pub async fn ended(&self) {
        let mut phase = self.phase.clone();
        // An error means that the thread is gone, with its last word.
        let _ = phase.wait_for(|phase| *phase == Phase::Ended).await;
        if *phase.borrow() == Phase::HandedOver {
            std::future::pending().await
        }
    }

    /// Has the kernel hand over the changed pages that it holds. Waits, so not for a thread that requests need. A page
    /// that was refused since the last time fails this once, also when the program that wrote it never asked.
    pub fn flush(&self) -> Result<()> {
        let flush = || rustix::fs::syncfs(std::fs::File::open(&self.dir)?).map_err(std::io::Error::from);
        match flush() {
            // Somebody unmounted it meanwhile, which flushes too.
            Err(_) if self.has_ended() => Ok(()),
            outcome => outcome.map_err(|error| {
                let kind = match error.kind() {
                    std::io::ErrorKind::StorageFull => ErrorKind::NoSpace,
                    std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnly,
                    _ => ErrorKind::Internal,
                };
                Error::new(kind, "a program's write was refused").caused_by(error)
            }),
        }
    }

    /// Unmounts; `Busy` while something in it is in use. The kernel has handed over all it had when this returns.
    pub fn unmount(&self) -> Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        match device::unmount(&self.dir) {
            // Somebody else was faster.
            Err(_) if self.has_ended() => {}
            outcome => outcome.map_err(|e| Error::new(ErrorKind::Busy, "cannot unmount").caused_by(e))?,
        }
        self.notices.silence();
        Ok(())
    }
}

/// Passes announcements on; ends when nobody announces any more.
fn tell_kernel(heard: &mpsc::Receiver<Notice>, device: &Device, volume: &Weak<Volume>) {
    for notice in heard {
        let told = match notice {
            Notice::Entry { folder, name } => {
                // A name has at most 255 bytes.
                let name_len = u32::try_from(name.len()).unwrap_or(0);
                let head = NotifyInvalEntry { parent: folder, name_len, flags: 0 };
                device.send(0, NOTIFY_INVAL_ENTRY, &[head.as_bytes(), name.as_bytes(), &[0]])
            }
            Notice::Inode { ino } => {
                let all = NotifyInvalInode { ino, offset: 0, length: 0 };
                device.send(0, NOTIFY_INVAL_INODE, &[all.as_bytes()])
            }
            Notice::Attributes { ino } => {
                // No page is before byte 0: only attributes are forgotten.
                let none = NotifyInvalInode { ino, offset: -1, length: 0 };
                let told = device.send(0, NOTIFY_INVAL_INODE, &[none.as_bytes()]);
                let unknown = told.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
                if let Some(volume) = volume.upgrade().filter(|_| unknown) {
                    volume.forget_unknown(ino);
                }
                told
            }
            Notice::Names => device.send(0, NOTIFY_INC_EPOCH, &[]),
        };
        if let Err(error) = told {
            // The kernel does not know it, or the mount is just ending: either way there is nothing to forget.
            tracing::trace!(%error, "the kernel had nothing to forget");
        }
    }
}

/// Asks the kernel to read further ahead than its default, where this user may. The mount table tells the device: a stat
/// of the mount would be a request to ourselves that nobody answers yet.
fn read_ahead(dir: &Path) {
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return };
    let place = escape(dir);
    let device = table.lines().rev().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(4) == Some(&place.as_str())).then(|| fields.get(2).copied()).flatten()
    });
    let Some(device) = device else { return };
    if let Err(error) = std::fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), READ_AHEAD_KIB) {
        tracing::debug!(%error, "the kernel's default read-ahead stays");
    }
}

/// A path as the mount table writes it.
fn escape(dir: &Path) -> String {
    let text = dir.to_string_lossy();
    text.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012")
}
