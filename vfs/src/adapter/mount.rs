//! One mount of a volume on Linux, from the first answer to the last.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use fuser::{Config, INodeNo, MountOption, Notifier, Session, SessionACL, SessionUnmounter};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::fuse::Fuse;
use crate::{
    error::{Error, ErrorKind, Result},
    fs::Volume,
    notify::{Notice, Notices},
};

/// Threads that take requests from the kernel.
const DISPATCH_THREADS: usize = 2;
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

/// A mounted volume. Dropping it leaves the mount; see [`Mount::unmount`].
#[derive(Debug)]
pub struct Mount {
    dir: PathBuf,
    unmounter: Mutex<SessionUnmounter>,
    notices: Notices,
    ended: watch::Receiver<bool>,
}

impl std::fmt::Debug for Fuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fuse").finish_non_exhaustive()
    }
}

impl Mount {
    /// Mounts a volume on an empty folder. Returns when the kernel has been answered for the first time.
    pub fn start(volume: &Arc<Volume>, dir: &Path, name: &str, options: &MountOptions) -> Result<Self> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(name.to_owned()),
            MountOption::Subtype("parsecfs".into()),
            MountOption::DefaultPermissions,
            MountOption::NoAtime,
            MountOption::NoSuid,
            MountOption::NoDev,
            if options.read_only { MountOption::RO } else { MountOption::RW },
        ];
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(DISPATCH_THREADS);
        config.clone_fd = true;
        let dir = &dir.canonicalize().map_err(|e| Error::new(ErrorKind::NotFound, "the mount point").caused_by(e))?;
        let notices = volume.notices().clone();
        let heard = notices.listen();
        let fuse = Fuse::new(volume.clone())?;
        let mut session = Session::new(fuse, dir, &config)
            .map_err(|e| Error::new(ErrorKind::Busy, "cannot mount here").caused_by(e))?;
        read_ahead(dir);
        let notifier = session.notifier();
        let unmounter = Mutex::new(session.unmount_callable());
        let (ends, ended) = watch::channel(false);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .map_err(|e| Error::new(ErrorKind::Internal, "start a thread").caused_by(e))
        };
        spawn("parsecfs-notify", Box::new(move || tell_kernel(&heard, &notifier)))?;
        let silent = notices.clone();
        spawn(
            "parsecfs-mount",
            Box::new(move || {
                if let Err(error) = session.run() {
                    tracing::warn!(%error, "the mount ended with an error");
                }
                silent.silence();
                ends.send_replace(true);
            }),
        )?;
        Ok(Self { dir: dir.to_owned(), unmounter, notices, ended })
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it is over, by [`Mount::unmount`] or because somebody else unmounted it.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Returns when it is over.
    pub async fn ended(&self) {
        // An error means that the thread is gone, and the mount with it.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Has the kernel hand over the changed pages that it holds. Waits, so not for a thread that requests need. A page
    /// that was refused since the last time fails this once, also when the program that wrote it never asked.
    pub fn flush(&self) -> Result<()> {
        let flush = || rustix::fs::syncfs(std::fs::File::open(&self.dir)?).map_err(std::io::Error::from);
        match flush() {
            // Somebody unmounted it meanwhile, which flushes too.
            Err(_) if self.has_ended() => Ok(()),
            outcome => outcome.map_err(|error| {
                let full = error.kind() == std::io::ErrorKind::StorageFull;
                let kind = if full { ErrorKind::NoSpace } else { ErrorKind::Internal };
                Error::new(kind, "a program's write was refused").caused_by(error)
            }),
        }
    }

    /// Unmounts; `Busy` while something in it is in use. The kernel has handed over all it had when this returns.
    pub fn unmount(&self) -> Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        self.unmounter.lock().unmount().map_err(|e| Error::new(ErrorKind::Busy, "cannot unmount").caused_by(e))?;
        self.notices.silence();
        Ok(())
    }
}

/// Passes announcements on; ends when nobody announces any more.
fn tell_kernel(heard: &mpsc::Receiver<Notice>, notifier: &Notifier) {
    for notice in heard {
        let told = match notice {
            Notice::Entry { folder, name } => notifier.inval_entry(INodeNo(folder), OsStr::new(&*name)),
            Notice::Inode { ino } => notifier.inval_inode(INodeNo(ino), 0, 0),
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
