//! The Linux kernel's side: fuser on a [`Volume`].
//!
//! A dispatch thread answers from memory and the local store. It never waits for the network or for a device flush:
//! reads and writes that need a block from elsewhere move their reply into a task, syncs into the sync thread.
//!
//! Files and folders are opened without a round trip (the first `open` is answered ENOSYS, after which the kernel asks
//! no more): a file stays readable while it is referred to, which `forget` tells, so handles are not needed. The kernel
//! keeps pages, names and attributes until [`crate::notify`] says otherwise.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::errno::errno;
use crate::{
    error::{Error, ErrorKind, Result},
    fs::{
        Attributes, FallocateMode, Fetched, Maker, NewKind, ReadOutcome, RenameMode, SetAttributes, SetTime, Volume,
        WriteOutcome, XattrFlags,
    },
    inode::Kind,
};

/// How long the kernel may believe what it was told: until it is told otherwise.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Nothing here is ever reached by an old number.
const GENERATION: Generation = Generation(0);
/// Largest write request and read-ahead.
const REQUEST_BYTES: u32 = 1 << 20;
/// Requests that the kernel keeps in flight by itself (read-ahead and write-back).
const BACKGROUND_REQUESTS: u16 = 64;
/// Cookies of `.` and `..`; those of entries follow.
const DOTS: u64 = 2;

/// A sync that a program waits for.
struct SyncRequest(ReplyEmpty);

/// The adapter.
pub(crate) struct Fuse {
    volume: Arc<Volume>,
    syncs: mpsc::Sender<SyncRequest>,
}

impl Fuse {
    /// An adapter with its sync thread, which ends with it.
    pub(crate) fn new(volume: Arc<Volume>) -> Result<Self> {
        let (syncs, requests) = mpsc::channel();
        let store = volume.store().clone();
        std::thread::Builder::new()
            .name("parsecfs-sync".into())
            .spawn(move || answer_syncs(&requests, || store.sync()))
            .map_err(|e| Error::new(ErrorKind::Internal, "start the sync thread").caused_by(e))?;
        Ok(Self { volume, syncs })
    }

    fn sync(&self, reply: ReplyEmpty) {
        if let Err(mpsc::SendError(SyncRequest(reply))) = self.syncs.send(SyncRequest(reply)) {
            reply.error(Errno::EIO);
        }
    }

    fn make(&self, request: &Request, parent: INodeNo, name: &OsStr, kind: NewKind<'_>, mode: u32, reply: ReplyEntry) {
        let maker = Maker { uid: request.uid(), gid: request.gid() };
        match self.volume.create(parent.0, name.as_bytes(), kind, mode, maker) {
            Ok(attributes) => reply.entry(&LIFETIME, &file_attr(&attributes), GENERATION),
            Err(error) => reply.error(refuse("create", &error)),
        }
    }

    fn list(
        &self,
        ino: u64,
        offset: u64,
        refer: bool,
        mut add: impl FnMut(u64, &OsStr, Kind, Option<&Attributes>, u64) -> bool,
    ) -> Result<()> {
        if offset == 0 {
            let here = self.volume.attributes(ino)?;
            if add(ino, OsStr::new("."), Kind::Folder, Some(&here), 1) {
                return Ok(());
            }
        }
        if offset <= 1 {
            let parent = self.volume.parent(ino)?;
            let there = self.volume.attributes(parent)?;
            if add(parent, OsStr::new(".."), Kind::Folder, Some(&there), DOTS) {
                return Ok(());
            }
        }
        self.volume.list(ino, offset.saturating_sub(DOTS), refer, |entry, attributes| {
            !add(entry.ino, OsStr::new(&*entry.name), entry.kind, attributes, entry.next + DOTS)
        })
    }
}

impl Filesystem for Fuse {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_WRITEBACK_CACHE,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        ];
        for flag in wanted {
            if let Err(missing) = config.add_capabilities(flag) {
                tracing::debug!(?missing, "the kernel lacks a capability");
            }
        }
        // Limits that the kernel lowers on its own are fine.
        let _ = config.set_max_write(REQUEST_BYTES);
        let _ = config.set_max_readahead(REQUEST_BYTES);
        let _ = config.set_max_background(BACKGROUND_REQUESTS);
        let _ = config.set_congestion_threshold(BACKGROUND_REQUESTS);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.volume.lookup(parent.0, name.as_bytes()) {
            Ok(attributes) => reply.entry(&LIFETIME, &file_attr(&attributes), GENERATION),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Inode 0: the kernel remembers that there is nothing.
                reply.entry(&LIFETIME, &NOTHING, GENERATION);
            }
            Err(error) => reply.error(refuse("lookup", &error)),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, lookups: u64) {
        self.volume.forget(ino.0, lookups);
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.volume.attributes(ino.0) {
            Ok(attributes) => reply.attr(&LIFETIME, &file_attr(&attributes)),
            Err(error) => reply.error(refuse("getattr", &error)),
        }
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _created: Option<SystemTime>,
        _changed: Option<SystemTime>,
        _backup: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttributes { mode, uid, gid, size, atime: atime.map(set_time), mtime: mtime.map(set_time) };
        let privileged = mode.is_none() && (uid.is_some() || gid.is_some() || size.is_some());
        let outcome = self.volume.set_attributes(ino.0, set).and_then(|attributes| {
            if privileged && attributes.kind == Kind::File && attributes.mode & 0o6000 != 0 {
                self.volume.clear_privileges(ino.0)?;
                return self.volume.attributes(ino.0);
            }
            Ok(attributes)
        });
        match outcome {
            Ok(attributes) => reply.attr(&LIFETIME, &file_attr(&attributes)),
            Err(error) => reply.error(refuse("setattr", &error)),
        }
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        read(&self.volume, ino.0, 0, REQUEST_BYTES as usize, reply);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let rdev = u64::from(rdev);
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => NewKind::File,
            libc::S_IFIFO => NewKind::Special(Kind::Fifo, 0),
            libc::S_IFSOCK => NewKind::Special(Kind::Socket, 0),
            libc::S_IFCHR => NewKind::Special(Kind::CharDevice, rdev),
            libc::S_IFBLK => NewKind::Special(Kind::BlockDevice, rdev),
            _ => return reply.error(Errno::EINVAL),
        };
        self.make(request, parent, name, kind, mode, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        self.make(request, parent, name, NewKind::Folder, mode, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        self.make(request, parent, name, NewKind::Symlink(target), 0o777, reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let maker = Maker { uid: request.uid(), gid: request.gid() };
        match self.volume.create(parent.0, name.as_bytes(), NewKind::File, mode, maker) {
            Ok(attributes) => {
                let flags = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&LIFETIME, &file_attr(&attributes), GENERATION, FileHandle(0), flags);
            }
            Err(error) => reply.error(refuse("create", &error)),
        }
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer("unlink", reply, self.volume.unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer("rmdir", reply, self.volume.rmdir(parent.0, name.as_bytes()));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            RenameFlags::RENAME_NOREPLACE => RenameMode::Keep,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            none if none.is_empty() => RenameMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let moved = self.volume.rename(parent.0, name.as_bytes(), new_parent.0, new_name.as_bytes(), mode);
        answer("rename", reply, moved);
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        read(&self.volume, ino.0, offset, size as usize, reply);
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
            && let Err(error) = self.volume.clear_privileges(ino.0)
        {
            return reply.error(refuse("write", &error));
        }
        let written = u32::try_from(data.len()).unwrap_or(u32::MAX);
        match self.volume.write(ino.0, offset, data, &Fetched::new()) {
            Ok(WriteOutcome::Done) => reply.written(written),
            Ok(WriteOutcome::Missing(blocks)) => {
                let data = data.to_vec();
                let volume = self.volume.clone();
                let reply = move |outcome| match outcome {
                    Ok(()) => reply.written(written),
                    Err(error) => reply.error(refuse("write", &error)),
                };
                let again = move |volume: &Volume, fetched: &Fetched| volume.write(ino.0, offset, &data, fetched);
                change_later(&volume, blocks, again, reply);
            }
            Err(error) => reply.error(refuse("write", &error)),
        }
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let mode = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => FallocateMode::Allocate { keep_size },
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => FallocateMode::Punch,
            libc::FALLOC_FL_ZERO_RANGE => FallocateMode::Zero { keep_size },
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        match self.volume.fallocate(ino.0, offset, length, mode, &Fetched::new()) {
            Ok(WriteOutcome::Done) => reply.ok(),
            Ok(WriteOutcome::Missing(blocks)) => {
                let again =
                    move |volume: &Volume, fetched: &Fetched| volume.fallocate(ino.0, offset, length, mode, fetched);
                change_later(&self.volume, blocks, again, move |outcome| answer("fallocate", reply, outcome));
            }
            Err(error) => reply.error(refuse("fallocate", &error)),
        }
    }

    fn lseek(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let outcome = match (u64::try_from(offset), whence) {
            (Ok(offset), libc::SEEK_DATA) => self.volume.seek(ino.0, offset, true),
            (Ok(offset), libc::SEEK_HOLE) => self.volume.seek(ino.0, offset, false),
            _ => Err(ErrorKind::InvalidArgument.into()),
        };
        match outcome {
            Ok(Some(at)) => reply.offset(at.cast_signed()),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(refuse("lseek", &error)),
        }
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // Nothing to do at close; the kernel asks no more, and hands its dirty pages over all the same.
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        self.sync(reply);
    }

    fn fsyncdir(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _data_only: bool, reply: ReplyEmpty) {
        self.sync(reply);
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.list(ino.0, offset, false, |ino, name, kind, _, next| {
            reply.add(INodeNo(ino), next, file_type(kind), name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(refuse("readdir", &error)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.list(ino.0, offset, true, |ino, name, _, attributes, next| match attributes {
            Some(attributes) => reply.add(INodeNo(ino), next, name, &LIFETIME, &file_attr(attributes), GENERATION),
            // Number 0: a name whose attributes the kernel has to ask for, and is told then what is wrong.
            None => reply.add(INodeNo(0), next, name, &Duration::ZERO, &NOTHING, GENERATION),
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(refuse("readdirplus", &error)),
        }
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_bytes: u32,
        reply: ReplyIoctl,
    ) {
        // Programs ask whether a file is a terminal.
        reply.error(Errno::ENOTTY);
    }

    fn link(&self, _request: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _from: INodeNo,
        _from_handle: FileHandle,
        _from_offset: u64,
        _to: INodeNo,
        _to_handle: FileHandle,
        _to_offset: u64,
        _length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel copies by reading and writing then, and asks no more.
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Files are always ready; the kernel asks no more.
        reply.error(Errno::ENOSYS);
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u64 = 4096;
        match self.volume.store().space() {
            Ok((free, total)) => {
                let (free, total) = (free / BLOCK, total / BLOCK);
                reply.statfs(total, free, free, u64::from(u32::MAX), u64::from(u32::MAX), 4096, 255, 4096);
            }
            Err(error) => reply.error(refuse("statfs", &error)),
        }
    }

    fn setxattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let flags = match flags {
            libc::XATTR_CREATE => XattrFlags::Create,
            libc::XATTR_REPLACE => XattrFlags::Replace,
            _ => XattrFlags::Any,
        };
        answer("setxattr", reply, self.volume.set_xattr(ino.0, name.as_bytes(), value, flags));
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.volume.xattr(ino.0, name.as_bytes()) {
            Ok(value) => answer_xattr(&value, size, reply),
            Err(error) => reply.error(refuse("getxattr", &error)),
        }
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.volume.xattrs(ino.0) {
            Ok(names) => {
                let list: Vec<u8> = names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect();
                answer_xattr(&list, size, reply);
            }
            Err(error) => reply.error(refuse("listxattr", &error)),
        }
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer("removexattr", reply, self.volume.remove_xattr(ino.0, name.as_bytes()));
    }
}

/// The attributes behind "there is nothing".
const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 4096,
    flags: 0,
};

fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino),
        size: attributes.size,
        blocks: attributes.size.div_ceil(512),
        atime: system_time(attributes.atime_ns),
        mtime: system_time(attributes.mtime_ns),
        ctime: system_time(attributes.ctime_ns),
        crtime: system_time(attributes.created_ns),
        kind: file_type(attributes.kind),
        perm: u16::try_from(attributes.mode & 0o7777).unwrap_or(0),
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        // Linux packs device numbers into 32 bits here.
        rdev: u32::try_from(attributes.rdev).unwrap_or(0),
        blksize: 4096,
        flags: 0,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Folder => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

fn system_time(ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(ns.unsigned_abs());
    if ns >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
}

fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(match time.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
        }),
    }
}

/// The errno of a refused operation; what nobody expects is logged, once and without names.
fn refuse(operation: &'static str, error: &Error) -> Errno {
    match error.kind() {
        ErrorKind::Internal => tracing::error!(operation, ?error, "operation failed"),
        ErrorKind::Corrupt | ErrorKind::Untrusted => tracing::warn!(operation, ?error, "damaged data"),
        _ => tracing::debug!(operation, %error, "refused"),
    }
    errno(error)
}

fn answer(operation: &'static str, reply: ReplyEmpty, outcome: Result<()>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(refuse(operation, &error)),
    }
}

fn answer_xattr(value: &[u8], size: u32, reply: ReplyXattr) {
    match (u32::try_from(value.len()), size) {
        (Ok(length), 0) => reply.size(length),
        (Ok(length), size) if length <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

/// Answers a read, in a task if something has to be fetched.
fn read(volume: &Arc<Volume>, ino: u64, offset: u64, size: usize, reply: ReplyData) {
    match volume.read(ino, offset, size, &Fetched::new()) {
        Ok(ReadOutcome::Data(data)) => reply.data(&data),
        Err(error) => reply.error(refuse("read", &error)),
        Ok(ReadOutcome::Missing(blocks)) => {
            let Some(runtime) = volume.runtime() else { return reply.error(Errno::EHOSTUNREACH) };
            let task_volume = volume.clone();
            runtime.spawn(async move {
                match task_volume.read_fetching(ino, offset, size, blocks).await {
                    Ok(data) => reply.data(&data),
                    Err(error) => reply.error(refuse("read", &error)),
                }
            });
        }
    }
}

/// Does a change again once the blocks that it needs are here, and answers from the task.
fn change_later(
    volume: &Arc<Volume>,
    blocks: Vec<parsecfs_core::manifest::BlockAccess>,
    again: impl Fn(&Volume, &Fetched) -> Result<WriteOutcome> + Send + Sync + 'static,
    reply: impl FnOnce(Result<()>) + Send + 'static,
) {
    let Some(runtime) = volume.runtime() else {
        return reply(Err(Error::new(ErrorKind::Offline, "no storage to fetch from")));
    };
    let volume = volume.clone();
    runtime.spawn(async move { reply(volume.change_fetching(blocks, again).await) });
}

/// Answers syncs: all that wait at one time with one flush of the device.
fn answer_syncs(requests: &mpsc::Receiver<SyncRequest>, sync: impl Fn() -> Result<()>) {
    while let Ok(first) = requests.recv() {
        let waiting: Vec<SyncRequest> = std::iter::once(first).chain(requests.try_iter()).collect();
        let outcome = sync();
        for SyncRequest(reply) in waiting {
            match &outcome {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(refuse("fsync", error)),
            }
        }
    }
}
