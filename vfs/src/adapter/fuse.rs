//! The Linux kernel's side: requests answered by a [`Volume`].
//!
//! A dispatch thread answers from memory and the local store. It never waits for the network: reads and writes that need
//! a block from elsewhere move their reply into a task. At most one of them waits for a device flush, which saves a
//! program that syncs often the way through another thread; further syncs go to the sync thread.
//!
//! Files and folders are opened without a round trip (the first OPEN is answered ENOSYS, after which the kernel asks
//! no more, and so is CREATE, whose files would be released one by one: MKNOD comes instead). A file stays readable while
//! it is referred to, which FORGET tells, so handles are not needed. The kernel keeps pages, names and attributes until
//! [`crate::notify`] says otherwise.

use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::{
    errno::errno,
    name,
    reply::{Entries, Reply},
    request::{Operation, Request},
    seek::{Seek, Seeker},
    session::REQUEST_BYTES,
    wire::{
        Attr, AttrOut, CreatedOut, EntryOut, OPEN_KEEP_CACHE, SetAttrIn, SizeOut, StatFsOut, WRITE_KILL_SUIDGID, valid,
    },
};
use crate::{
    error::{Error, ErrorKind, Result},
    fs::{
        Attributes, FallocateMode, Fetched, Maker, NewKind, ReadOutcome, RenameMode, SetAttributes, SetTime, Times,
        Volume, WriteOutcome, XattrFlags,
    },
    inode::Kind,
};

/// How long the kernel may believe what it was told, in seconds: until it is told otherwise.
pub(super) const LIFETIME: u64 = 365 * 24 * 3600;
/// Cookies of `.` and `..`; those of entries follow.
const DOTS: u64 = 2;
/// Bytes that stat counts files in, and that programs had best write at once.
const BLOCK: u32 = 4096;

/// The adapter.
#[derive(Debug)]
pub(super) struct Fuse {
    volume: Arc<Volume>,
    syncs: mpsc::Sender<Reply>,
    /// Held by who waits for a device flush.
    syncing: Arc<Mutex<()>>,
    seeker: Seeker,
}

impl Fuse {
    /// An adapter with its sync thread, which ends with it.
    pub(super) fn new(volume: Arc<Volume>) -> Result<Self> {
        let (syncs, requests) = mpsc::channel();
        let store = volume.store().clone();
        let syncing = Arc::new(Mutex::new(()));
        let alone = syncing.clone();
        std::thread::Builder::new()
            .name("parsecfs-sync".into())
            .spawn(move || {
                answer_syncs(&requests, || {
                    let _alone = alone.lock();
                    store.sync()
                });
            })
            .map_err(|e| Error::new(ErrorKind::Internal, "start the sync thread").caused_by(e))?;
        let seeker = Seeker::start(volume.clone())?;
        Ok(Self { volume, syncs, syncing, seeker })
    }

    pub(super) fn count_defect(&self) {
        self.volume.count_defect();
    }

    /// Answers one request, now or from another thread.
    pub(super) fn answer(&self, request: &Request<'_>, reply: Reply) {
        let (volume, ino) = (&self.volume, request.ino);
        name::forget_kept(volume, request);
        if request.is_resent() && volume.store().inheritance().done.contains(&request.number()) {
            return self.answer_done(request, reply);
        }
        match request.operation {
            Operation::Lookup { name } => answer_lookup(reply, name, volume.lookup(ino, name)),
            Operation::Forget { lookups } => {
                volume.forget(ino, lookups);
                reply.none();
            }
            Operation::BatchForget(all) => {
                for one in all {
                    volume.forget(one.nodeid, one.lookups);
                }
                reply.none();
            }
            Operation::GetAttr => answer_attributes("getattr", reply, volume.attributes(ino)),
            Operation::SetAttr(set) => answer_attributes("setattr", reply, set_attributes(volume, ino, &set)),
            Operation::ReadLink => read(volume, ino, 0, REQUEST_BYTES, reply),
            Operation::Symlink { name, target } => self.make(request, name, NewKind::Symlink(target), 0o777, reply),
            Operation::MakeNode { name, mode, rdev } => match node_kind(mode, rdev) {
                Some(kind) => self.make(request, name, kind, mode, reply),
                None => reply.error(Errno::INVAL),
            },
            Operation::MakeUnnamed { mode } => {
                let maker = Maker { uid: request.uid, gid: request.gid };
                match volume.create_unnamed(ino, mode, maker) {
                    Ok(made) => {
                        let entry = entry(&made);
                        reply.body(&CreatedOut { entry, open_flags: OPEN_KEEP_CACHE, ..CreatedOut::default() });
                    }
                    Err(error) => reply.error(refuse("tmpfile", &error)),
                }
            }
            Operation::MakeFolder { name, mode } => self.make(request, name, NewKind::Folder, mode, reply),
            Operation::Unlink { name } => answer("unlink", reply, volume.unlink(ino, name)),
            Operation::RemoveFolder { name } => answer("rmdir", reply, volume.rmdir(ino, name)),
            Operation::Rename { name, new_parent, new_name, flags } => match rename_mode(flags) {
                Some(mode) => answer("rename", reply, volume.rename(ino, name, new_parent, new_name, mode)),
                None => reply.error(Errno::INVAL),
            },
            Operation::Link { inode, name } => match volume.link(inode, ino, name) {
                Ok(attributes) => reply.body(&named(name, &attributes)),
                Err(error) => reply.error(refuse("link", &error)),
            },
            Operation::Read { offset, size } => read(volume, ino, offset, size, reply),
            Operation::Write { offset, flags, data } => self.write(ino, offset, flags, data, reply),
            Operation::StatFs => self.space(reply),
            Operation::Sync => self.sync(reply),
            Operation::SetXattr { name, value, flags } => {
                answer("setxattr", reply, volume.set_xattr(ino, name, value, xattr_flags(flags)));
            }
            Operation::GetXattr { name, size } => match volume.xattr(ino, name) {
                Ok(value) => answer_xattr(&value, size, reply),
                Err(error) => reply.error(refuse("getxattr", &error)),
            },
            Operation::ListXattr { size } => match volume.xattrs(ino) {
                Ok(names) => {
                    let list: Vec<u8> = names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect();
                    answer_xattr(&list, size, reply);
                }
                Err(error) => reply.error(refuse("listxattr", &error)),
            },
            Operation::RemoveXattr { name } => answer("removexattr", reply, volume.remove_xattr(ino, name)),
            Operation::List { offset, size, with_attributes } => {
                let mut entries = Entries::new(size.min(REQUEST_BYTES) as usize);
                match self.list(ino, offset, with_attributes, &mut entries) {
                    Ok(()) => reply.data(entries.bytes()),
                    Err(error) => reply.error(refuse("readdir", &error)),
                }
            }
            Operation::Access { mask } => answer("access", reply, may_access(volume, ino, mask)),
            Operation::Allocate { offset, length, mode } => self.allocate(ino, offset, length, mode, reply),
            Operation::Seek { offset, whence } => self.seek(ino, offset, whence, reply),
            Operation::Copy { target } => {
                if let Err(error) = volume.note_copy(ino, target) {
                    // What is wrong with them is told to who reads and writes them.
                    tracing::debug!(%error, "a copy is not remembered");
                }
                // Then the kernel copies.
                reply.error(Errno::OPNOTSUPP);
            }
            Operation::Release | Operation::Destroy => reply.ok(),
            // Opening, closing, locking, polling: the kernel does them without us from the first ENOSYS on.
            Operation::Init(_) | Operation::Interrupt | Operation::Other => reply.error(Errno::NOSYS),
        }
    }

    /// Answers a request that the process before has done and not answered. What comes to the same when it is done twice
    /// is done again: of two files without a name, the kernel does not know the first, which ends therefore.
    fn answer_done(&self, request: &Request<'_>, reply: Reply) {
        match request.operation {
            // Who makes a name holds its folder until the answer: only sync may have moved it meanwhile.
            Operation::Symlink { name, .. }
            | Operation::MakeNode { name, .. }
            | Operation::MakeFolder { name, .. }
            | Operation::Link { name, .. } => match self.volume.lookup(request.ino, name) {
                Ok(attributes) => reply.body(&named(name, &attributes)),
                Err(error) => reply.error(refuse("create", &error)),
            },
            Operation::Unlink { .. }
            | Operation::RemoveFolder { .. }
            | Operation::Rename { .. }
            | Operation::SetXattr { .. }
            | Operation::RemoveXattr { .. } => reply.ok(),
            _ => self.answer(&Request { unique: request.number(), ..*request }, reply),
        }
    }

    fn sync(&self, reply: Reply) {
        if let Some(_alone) = self.syncing.try_lock() {
            answer("fsync", reply, self.volume.store().sync());
        } else if let Err(mpsc::SendError(reply)) = self.syncs.send(reply) {
            reply.error(Errno::IO);
        }
    }

    fn make(&self, request: &Request<'_>, name: &[u8], kind: NewKind<'_>, mode: u32, reply: Reply) {
        let maker = Maker { uid: request.uid, gid: request.gid };
        match self.volume.create(request.ino, name, kind, mode, maker) {
            Ok(attributes) => reply.body(&named(name, &attributes)),
            Err(error) => reply.error(refuse("create", &error)),
        }
    }

    fn write(&self, ino: u64, offset: u64, flags: u32, data: &[u8], reply: Reply) {
        if flags & WRITE_KILL_SUIDGID != 0
            && let Err(error) = self.volume.clear_privileges(ino)
        {
            return reply.error(refuse("write", &error));
        }
        let written = SizeOut { size: u32::try_from(data.len()).unwrap_or(u32::MAX), padding: 0 };
        // With its write-back cache the kernel keeps the times of files, and sends them.
        match self.volume.write(ino, offset, data, &Fetched::new(), Times::Kept) {
            Ok(WriteOutcome::Done) => reply.body(&written),
            Ok(WriteOutcome::Missing(blocks)) => {
                let data = data.to_vec();
                let again =
                    move |volume: &Volume, fetched: &Fetched| volume.write(ino, offset, &data, fetched, Times::Kept);
                change_later(&self.volume, blocks, again, move |outcome| match outcome {
                    Ok(()) => reply.body(&written),
                    Err(error) => reply.error(refuse("write", &error)),
                });
            }
            Err(error) => reply.error(refuse("write", &error)),
        }
    }

    fn allocate(&self, ino: u64, offset: u64, length: u64, mode: u32, reply: Reply) {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE.cast_unsigned() != 0;
        let mode = match (mode & !libc::FALLOC_FL_KEEP_SIZE.cast_unsigned()).cast_signed() {
            0 => FallocateMode::Allocate { keep_size },
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => FallocateMode::Punch,
            libc::FALLOC_FL_ZERO_RANGE => FallocateMode::Zero { keep_size },
            _ => return reply.error(Errno::OPNOTSUPP),
        };
        match self.volume.fallocate(ino, offset, length, mode, &Fetched::new(), Times::Kept) {
            Ok(WriteOutcome::Done) => reply.ok(),
            Ok(WriteOutcome::Missing(blocks)) => {
                let again = move |volume: &Volume, fetched: &Fetched| {
                    volume.fallocate(ino, offset, length, mode, fetched, Times::Kept)
                };
                change_later(&self.volume, blocks, again, move |outcome| answer("fallocate", reply, outcome));
            }
            Err(error) => reply.error(refuse("fallocate", &error)),
        }
    }

    fn seek(&self, ino: u64, offset: u64, whence: u32, reply: Reply) {
        let data = match whence.cast_signed() {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return reply.error(Errno::INVAL),
        };
        self.seeker.search(&self.volume, Seek { ino, offset, data }, reply);
    }

    fn space(&self, reply: Reply) {
        match self.volume.space() {
            Ok((free, total)) => {
                let free = free / u64::from(BLOCK);
                reply.body(&StatFsOut {
                    blocks: total / u64::from(BLOCK),
                    blocks_free: free,
                    blocks_available: free,
                    files: u64::from(u32::MAX),
                    files_free: u64::from(u32::MAX),
                    block_bytes: BLOCK,
                    fragment_bytes: BLOCK,
                    name_bytes_max: 255,
                    ..StatFsOut::default()
                });
            }
            Err(error) => reply.error(refuse("statfs", &error)),
        }
    }

    /// The entries of a folder from `offset` on. With attributes each counts as looked up, but for the dots.
    fn list(&self, ino: u64, offset: u64, with_attributes: bool, entries: &mut Entries) -> Result<()> {
        for (dot, name, number) in [(1, b".".as_slice(), ino), (DOTS, b"..", 0)] {
            if offset >= dot {
                continue;
            }
            let number = if number == 0 { self.volume.parent(ino)? } else { number };
            let attributes = self.volume.attributes(number)?;
            let shown = with_attributes.then(|| entry(&attributes));
            if !entries.add(number, dot, Kind::Folder.dirent(), name, shown.as_ref()) {
                return Ok(());
            }
        }
        self.volume.list(ino, offset.saturating_sub(DOTS), with_attributes, |found, attributes| {
            // Number 0: a name whose attributes the kernel has to ask for, and is told then what is wrong.
            let shown = with_attributes.then(|| attributes.map_or_else(EntryOut::default, entry));
            entries.add(found.ino, found.next + DOTS, found.kind.dirent(), found.name.as_bytes(), shown.as_ref())
        })
    }
}

impl Kind {
    /// File type bits of a mode.
    fn bits(self) -> u32 {
        match self {
            Self::Folder => libc::S_IFDIR,
            Self::File => libc::S_IFREG,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }

    /// The type as a directory entry says it.
    fn dirent(self) -> u32 {
        self.bits() >> 12
    }
}

/// What `access(2)` says to root, the only one who is asked about here: all, but to execute what nobody may execute. The
/// kernel answers for everybody else.
fn may_access(volume: &Volume, ino: u64, mask: u32) -> Result<()> {
    if mask & libc::X_OK.cast_unsigned() == 0 {
        return Ok(());
    }
    let attributes = volume.attributes(ino)?;
    match attributes.kind == Kind::File && attributes.mode & 0o111 == 0 {
        true => Err(ErrorKind::Denied.into()),
        false => Ok(()),
    }
}

fn node_kind(mode: u32, rdev: u32) -> Option<NewKind<'static>> {
    let rdev = u64::from(rdev);
    Some(match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => NewKind::File,
        libc::S_IFIFO => NewKind::Special(Kind::Fifo, 0),
        libc::S_IFSOCK => NewKind::Special(Kind::Socket, 0),
        libc::S_IFCHR => NewKind::Special(Kind::CharDevice, rdev),
        libc::S_IFBLK => NewKind::Special(Kind::BlockDevice, rdev),
        _ => return None,
    })
}

fn rename_mode(flags: u32) -> Option<RenameMode> {
    Some(match flags {
        0 => RenameMode::Replace,
        libc::RENAME_NOREPLACE => RenameMode::Keep,
        libc::RENAME_EXCHANGE => RenameMode::Exchange,
        _ => return None,
    })
}

fn xattr_flags(flags: u32) -> XattrFlags {
    match flags.cast_signed() {
        libc::XATTR_CREATE => XattrFlags::Create,
        libc::XATTR_REPLACE => XattrFlags::Replace,
        _ => XattrFlags::Any,
    }
}

fn set_attributes(volume: &Volume, ino: u64, set: &SetAttrIn) -> Result<Attributes> {
    let has = |field: u32| set.valid & field != 0;
    let time = |field: u32, now: u32, seconds: i64, ns: u32| match (has(field), has(now)) {
        (_, true) => Some(SetTime::Now),
        (true, false) => Some(SetTime::At(nanoseconds(seconds, ns))),
        (false, false) => None,
    };
    let wanted = SetAttributes {
        mode: has(valid::MODE).then_some(set.mode),
        uid: has(valid::UID).then_some(set.uid),
        gid: has(valid::GID).then_some(set.gid),
        size: has(valid::SIZE).then_some(set.size),
        atime: time(valid::ATIME, valid::ATIME_NOW, set.atime, set.atime_ns),
        mtime: time(valid::MTIME, valid::MTIME_NOW, set.mtime, set.mtime_ns),
        // The kernel keeps the times of the pages that it holds.
        ctime_ns: has(valid::CTIME).then(|| nanoseconds(set.ctime, set.ctime_ns)),
    };
    let attributes = volume.set_attributes(ino, wanted)?;
    // A change of owner takes them from everybody, a change of length from who may not keep them: the kernel says so.
    let privileged = has(valid::UID) || has(valid::GID) || has(valid::KILL_SUIDGID);
    if privileged && wanted.mode.is_none() && attributes.kind == Kind::File && attributes.mode & 0o6000 != 0 {
        volume.clear_privileges(ino)?;
        return volume.attributes(ino);
    }
    Ok(attributes)
}

fn nanoseconds(seconds: i64, ns: u32) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(ns))
}

fn attr(attributes: &Attributes) -> Attr {
    const SECOND: i64 = 1_000_000_000;
    // Below a second there is nothing negative, and nothing that 32 bits do not hold.
    let part = |ns: i64| u32::try_from(ns.rem_euclid(SECOND)).unwrap_or(0);
    Attr {
        ino: attributes.ino,
        size: attributes.size,
        blocks: attributes.blocks,
        atime: attributes.atime_ns.div_euclid(SECOND),
        mtime: attributes.mtime_ns.div_euclid(SECOND),
        ctime: attributes.ctime_ns.div_euclid(SECOND),
        atime_ns: part(attributes.atime_ns),
        mtime_ns: part(attributes.mtime_ns),
        ctime_ns: part(attributes.ctime_ns),
        mode: attributes.kind.bits() | attributes.mode & 0o7777,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        // Linux packs device numbers into 32 bits here.
        rdev: u32::try_from(attributes.rdev).unwrap_or(0),
        blksize: BLOCK,
        flags: 0,
    }
}

fn entry(attributes: &Attributes) -> EntryOut {
    EntryOut {
        nodeid: attributes.ino,
        entry_valid: LIFETIME,
        attr_valid: LIFETIME,
        attr: attr(attributes),
        ..EntryOut::default()
    }
}

/// What a name leads to, now.
fn named(name: &[u8], attributes: &Attributes) -> EntryOut {
    EntryOut { entry_valid: name::lifetime(name), ..entry(attributes) }
}

fn answer_lookup(reply: Reply, name: &[u8], found: Result<Attributes>) {
    match found {
        Ok(attributes) => reply.body(&named(name, &attributes)),
        // Inode 0: the kernel remembers that there is nothing.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            reply.body(&EntryOut { entry_valid: name::absent_lifetime(name), ..EntryOut::default() });
        }
        Err(error) => reply.error(refuse("lookup", &error)),
    }
}

fn answer_attributes(operation: &'static str, reply: Reply, outcome: Result<Attributes>) {
    match outcome {
        Ok(attributes) => {
            reply.body(&AttrOut { valid: LIFETIME, valid_ns: 0, dummy: 0, attr: attr(&attributes) });
        }
        Err(error) => reply.error(refuse(operation, &error)),
    }
}

/// The errno of a refused operation; what nobody expects is logged, once and without names.
pub(super) fn refuse(operation: &'static str, error: &Error) -> Errno {
    match error.kind() {
        ErrorKind::Internal => tracing::error!(operation, ?error, "operation failed"),
        ErrorKind::Corrupt | ErrorKind::Untrusted => tracing::warn!(operation, ?error, "damaged data"),
        _ => tracing::debug!(operation, %error, "refused"),
    }
    errno(error)
}

fn answer(operation: &'static str, reply: Reply, outcome: Result<()>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(refuse(operation, &error)),
    }
}

fn answer_xattr(value: &[u8], size: u32, reply: Reply) {
    match (u32::try_from(value.len()), size) {
        (Ok(size), 0) => reply.body(&SizeOut { size, padding: 0 }),
        (Ok(length), size) if length <= size => reply.data(value),
        _ => reply.error(Errno::RANGE),
    }
}

/// Answers a read, in a task if something has to be fetched.
fn read(volume: &Arc<Volume>, ino: u64, offset: u64, size: u32, reply: Reply) {
    let size = size.min(REQUEST_BYTES) as usize;
    match volume.read(ino, offset, size, &Fetched::new()) {
        Ok(ReadOutcome::Data(data)) => reply.data(&data),
        Err(error) => reply.error(refuse("read", &error)),
        Ok(ReadOutcome::Missing(blocks)) => {
            let Some(runtime) = volume.runtime() else { return reply.error(Errno::HOSTUNREACH) };
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
fn answer_syncs(requests: &mpsc::Receiver<Reply>, sync: impl Fn() -> Result<()>) {
    while let Ok(first) = requests.recv() {
        let waiting: Vec<Reply> = std::iter::once(first).chain(requests.try_iter()).collect();
        let outcome = sync();
        for reply in waiting {
            match &outcome {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(refuse("fsync", error)),
            }
        }
    }
}
