//! The descriptor of `/dev/fuse` behind a mount: mounting, receiving, sending, unmounting.
//!
//! Waiting for a request spins for a moment before it sleeps. A program that works on the mount asks the next thing
//! within microseconds, and waking a sleeping thread costs more than most answers (`benches/LEDGER.md`). On a machine whose
//! processors are all wanted it sleeps at once: who gives way there waits a time slice for his turn.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
    mount::{MountFlags, UnmountFlags},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
};
use zerocopy::IntoBytes;

use super::wire::OutHeader;

/// How long a thread that has answered looks for the next request before it sleeps.
const SPIN: Duration = Duration::from_micros(30);
/// Giving way for so long means that others have work for the processor, and keep it for a time slice.
const GIVEN_AWAY: Duration = Duration::from_micros(200);
/// Waits without spinning after that.
const RESTS: u32 = 512;

/// An open `/dev/fuse`.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    /// With one processor, spinning would only keep the program from asking.
    spin: Duration,
    /// Waits that shall not spin: while others want the processors, the kernel wakes us sooner than they give way.
    rests: AtomicU32,
    /// Nothing more is received or refused here: another process goes on.
    stopping: AtomicBool,
    /// Readable once stopping.
    stop: OwnedFd,
}

/// How to wait for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Spinning for a moment.
    Awake,
    /// Asleep at once.
    Asleep,
}

/// What came of waiting for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// One of so many bytes, which was there at once or not.
    Request { length: usize, at_once: bool },
    /// It is somebody else's turn.
    Pause,
    /// The mount is over, or another process goes on.
    End,
}

/// How a mount shows itself.
#[derive(Debug)]
pub(super) struct Options<'a> {
    /// Shown as the source.
    pub(super) name: &'a str,
    pub(super) read_only: bool,
    pub(super) allow_other: bool,
}

impl Device {
    /// Mounts on a folder, by the system call or, without the right to, by `fusermount3`.
    pub(super) fn mount(dir: &Path, options: &Options<'_>) -> io::Result<Self> {
        let file = match mount_directly(dir, options) {
            Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied) => mount_by_helper(dir, options)?,
            outcome => outcome?,
        };
        Self::of(file)
    }

    /// One that only takes answers.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn over(file: File) -> io::Result<Self> {
        Self::new(file, Duration::ZERO)
    }

    /// Goes on with a mount whose process is gone.
    pub(super) fn of(file: File) -> io::Result<Self> {
        rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? | rustix::fs::OFlags::NONBLOCK)?;
        let several = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        Self::new(file, if several { SPIN } else { Duration::ZERO })
    }

    fn new(file: File, spin: Duration) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self { file, spin, rests: AtomicU32::new(0), stopping: AtomicBool::new(false), stop })
    }

    /// Whether threads on several processors can answer.
    pub(super) fn has_several_processors(&self) -> bool {
        !self.spin.is_zero()
    }

    /// Another descriptor of the same mount: while one is open, the mount lives.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Leaves what was not answered yet to another process. Nothing more is received from now on.
    pub(super) fn stop(&self) -> io::Result<()> {
        self.stopping.store(true, Ordering::Release);
        rustix::io::write(&self.stop, &1u64.to_ne_bytes())?;
        Ok(())
    }

    /// Whether another process goes on.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether a request waits for somebody to take it.
    pub(super) fn is_asked(&self) -> bool {
        let mut ready = [PollFd::new(&self.file, PollFlags::IN)];
        poll(&mut ready, Some(&Timespec::default())).is_ok()
            && ready.iter().any(|it| it.revents().contains(PollFlags::IN))
    }

    /// Waits for the next request, as long as `goes_on` says so.
    pub(super) fn receive(&self, buffer: &mut [u8], wait: Wait, goes_on: impl Fn() -> bool) -> io::Result<Received> {
        let spin = if wait == Wait::Awake { self.spin } else { Duration::ZERO };
        let mut since: Option<Instant> = None;
        let mut at_once = true;
        loop {
            if self.is_stopping() {
                return Ok(Received::End);
            }
            if !goes_on() {
                return Ok(Received::Pause);
            }
            match rustix::io::read(&self.file, &mut *buffer) {
                Ok(length) => return Ok(Received::Request { length, at_once }),
                Err(Errno::NODEV) => return Ok(Received::End),
                // Who asked does not wait any more, or a signal came, or the kernel had no memory and refused it itself.
                Err(Errno::NOENT | Errno::INTR | Errno::NOMEM) => {}
                Err(Errno::AGAIN) => {
                    at_once = false;
                    let spent = since.get_or_insert_with(Instant::now).elapsed();
                    if self.rests.load(Ordering::Relaxed) == 0 && spent < spin {
                        // Who waits for this processor, perhaps for the answer just sent, goes first.
                        std::thread::yield_now();
                        if since.is_some_and(|since| since.elapsed() > spent + GIVEN_AWAY) {
                            self.rests.store(RESTS, Ordering::Relaxed);
                        }
                    } else {
                        let _ = self.rests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                        let mut ready =
                            [PollFd::new(&self.file, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
                        match poll(&mut ready, None) {
                            Ok(_) | Err(Errno::INTR) => since = None,
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends an answer (or, with `unique` 0, a notification).
    pub(super) fn send(&self, unique: u64, error: i32, parts: &[&[u8]]) -> io::Result<()> {
        /// Parts that anything here sends.
        const PARTS: usize = 3;
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let len = u32::try_from(size_of::<OutHeader>() + body).map_err(|_| io::Error::from(Errno::TOOBIG))?;
        let header = OutHeader { len, error, unique };
        let mut slices = [IoSlice::new(&[]); PARTS + 1];
        slices[0] = IoSlice::new(header.as_bytes());
        for (slice, part) in slices[1..].iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        let used = slices.get(..=parts.len()).ok_or_else(|| io::Error::from(Errno::TOOBIG))?;
        rustix::io::writev(&self.file, used)?;
        Ok(())
    }
}

/// Unmounts; an error of kind `ResourceBusy` while something in it is in use.
pub(super) fn unmount(dir: &Path) -> io::Result<()> {
    match rustix::mount::unmount(dir, UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => unmount_by_helper(dir),
        outcome => outcome.map_err(Into::into),
    }
}

fn mount_directly(dir: &Path, options: &Options<'_>) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    // Where nobody but root gets in, permission bits stop nobody, and checking them would cost a request after every
    // change of a folder. ACCESS answers for the one that stops root too.
    let checked = options.allow_other || !user.is_root();
    let data = format!(
        "fd={},rootmode={:o},user_id={},group_id={}{}{}",
        file.as_raw_fd(),
        std::fs::metadata(dir)?.mode(),
        user.as_raw(),
        group.as_raw(),
        if checked { ",default_permissions" } else { "" },
        if options.allow_other { ",allow_other" } else { "" },
    );
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    flags.set(MountFlags::RDONLY, options.read_only);
    let data = CString::new(data)?;
    rustix::mount::mount(options.name, dir, "fuse", flags, Some(data.as_c_str()))?;
    Ok(file)
}

/// `fusermount3` mounts for ordinary users and sends the descriptor over a socket, its standard input here.
fn mount_by_helper(dir: &Path, options: &Options<'_>) -> io::Result<File> {
    let (ours, theirs) = UnixStream::pair()?;
    // A comma or backslash would begin another option.
    let name = options.name.replace('\\', "\\\\").replace(',', "\\,");
    let text = format!(
        "{},nosuid,nodev,noatime,default_permissions{},fsname={name},subtype=parsecfs",
        if options.read_only { "ro" } else { "rw" },
        if options.allow_other { ",allow_other" } else { "" },
    );
    let child = Command::new("fusermount3")
        .args(["-o", &text, "--"])
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let received = receive_descriptor(&ours);
    drop(ours);
    let output = child.wait_with_output()?;
    match received {
        Ok(Some(file)) => Ok(file),
        // It says why on standard error.
        _ => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<File>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    let into = &mut [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket.as_fd(), into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptor.map(File::from))
}

fn unmount_by_helper(dir: &Path) -> io::Result<()> {
    let output = Command::new("fusermount3").args(["-u", "-q", "--"]).arg(dir).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
