//! What FUSE allows: a plain filesystem in memory, mounted as ours is (threads, flags, lifetimes), with nothing behind it.
//! Serves until it is unmounted. Not for data: no links, no xattrs, no checks.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow,
    WriteFlags,
};

const LIFETIME: Duration = Duration::from_secs(24 * 3600);
const GENERATION: Generation = Generation(0);
const REQUEST_BYTES: u32 = 1 << 20;

struct Node {
    attr: FileAttr,
    bytes: Vec<u8>,
    children: BTreeMap<OsString, u64>,
}

type Shared = Arc<RwLock<Node>>;

struct Memory {
    nodes: RwLock<HashMap<u64, Shared>>,
    next: AtomicU64,
}

type Answer<T> = std::result::Result<T, Errno>;

/// Nothing here panics while it holds a lock for writing.
const UNPOISONED: &str = "no holder of this lock panics";

impl Memory {
    fn new() -> Self {
        let root = node(INodeNo::ROOT.0, FileType::Directory, 0o755);
        Self { nodes: RwLock::new(HashMap::from([(INodeNo::ROOT.0, shared(root))])), next: AtomicU64::new(2) }
    }

    fn get(&self, ino: u64) -> Answer<Shared> {
        self.nodes.read().expect(UNPOISONED).get(&ino).cloned().ok_or(Errno::ENOENT)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Answer<u64> {
        self.get(parent.0)?.read().expect(UNPOISONED).children.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn attr(&self, ino: u64) -> Answer<FileAttr> {
        Ok(self.get(ino)?.read().expect(UNPOISONED).attr)
    }

    fn add(&self, parent: INodeNo, name: &OsStr, kind: FileType, mode: u32, bytes: Vec<u8>) -> Answer<FileAttr> {
        let ino = self.next.fetch_add(1, Ordering::Relaxed);
        let perm = u16::try_from(mode & 0o7777).map_err(|_| Errno::EINVAL)?;
        let mut new = node(ino, kind, perm);
        new.attr.size = bytes.len() as u64;
        new.bytes = bytes;
        let attr = new.attr;
        self.nodes.write().expect(UNPOISONED).insert(ino, shared(new));
        self.get(parent.0)?.write().expect(UNPOISONED).children.insert(name.to_owned(), ino);
        Ok(attr)
    }

    /// The node itself goes when the kernel forgets it.
    fn remove(&self, parent: INodeNo, name: &OsStr) -> Answer<()> {
        let ino = self.get(parent.0)?.write().expect(UNPOISONED).children.remove(name).ok_or(Errno::ENOENT)?;
        self.get(ino)?.write().expect(UNPOISONED).attr.nlink = 0;
        Ok(())
    }

    /// Every child with its attributes; children that are just being removed are left out.
    fn list(&self, ino: INodeNo, from: u64) -> Answer<Vec<(u64, OsString, FileAttr)>> {
        let folder = self.get(ino.0)?;
        let children = folder.read().expect(UNPOISONED).children.clone();
        let from = usize::try_from(from).map_err(|_| Errno::EINVAL)?;
        let rest = children.into_iter().enumerate().skip(from);
        Ok(rest.filter_map(|(at, (name, child))| Some((at as u64 + 1, name, self.attr(child).ok()?))).collect())
    }
}

fn shared(node: Node) -> Shared {
    Arc::new(RwLock::new(node))
}

fn node(ino: u64, kind: FileType, perm: u16) -> Node {
    let now = SystemTime::now();
    let attr = FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    };
    Node { attr, bytes: Vec::new(), children: BTreeMap::new() }
}

fn entry(answer: Answer<FileAttr>, reply: ReplyEntry) {
    match answer {
        Ok(attr) => reply.entry(&LIFETIME, &attr, GENERATION),
        Err(errno) => reply.error(errno),
    }
}

fn empty(answer: Answer<()>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Memory {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_BIG_WRITES,
            InitFlags::FUSE_WRITEBACK_CACHE,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        ];
        for flag in wanted {
            // An older kernel lacks some: a lower ceiling, not an error.
            let _ = config.add_capabilities(flag);
        }
        // Limits that the kernel lowers on its own are fine.
        let _ = config.set_max_write(REQUEST_BYTES);
        let _ = config.set_max_readahead(REQUEST_BYTES);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.child(parent, name).and_then(|ino| self.attr(ino)), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, _lookups: u64) {
        if self.attr(ino.0).is_ok_and(|attr| attr.nlink == 0) {
            self.nodes.write().expect(UNPOISONED).remove(&ino.0);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino.0) {
            Ok(attr) => reply.attr(&LIFETIME, &attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let node = match self.get(ino.0) {
            Ok(node) => node,
            Err(errno) => return reply.error(errno),
        };
        let mut node = node.write().expect(UNPOISONED);
        if let Some(length) = size.and_then(|size| usize::try_from(size).ok()) {
            node.bytes.resize(length, 0);
            node.attr.size = length as u64;
        }
        node.attr.perm = mode.and_then(|mode| u16::try_from(mode & 0o7777).ok()).unwrap_or(node.attr.perm);
        node.attr.uid = uid.unwrap_or(node.attr.uid);
        node.attr.gid = gid.unwrap_or(node.attr.gid);
        node.attr.mtime = match mtime {
            Some(TimeOrNow::SpecificTime(time)) => time,
            Some(TimeOrNow::Now) => SystemTime::now(),
            None => node.attr.mtime,
        };
        reply.attr(&LIFETIME, &node.attr);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.get(ino.0) {
            Ok(node) => reply.data(&node.read().expect(UNPOISONED).bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        entry(self.add(parent, name, FileType::Directory, mode & !umask, Vec::new()), reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_encoded_bytes().to_vec();
        entry(self.add(parent, name, FileType::Symlink, 0o777, target), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.remove(parent, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let full = |ino| Ok(!self.get(ino)?.read().expect(UNPOISONED).children.is_empty());
        match self.child(parent, name).and_then(full) {
            Ok(true) => reply.error(Errno::ENOTEMPTY),
            Ok(false) => empty(self.remove(parent, name), reply),
            Err(errno) => reply.error(errno),
        }
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let moved = self.child(parent, name).and_then(|ino| {
            let replaced = self.get(new_parent.0)?.write().expect(UNPOISONED).children.insert(new_name.to_owned(), ino);
            self.get(parent.0)?.write().expect(UNPOISONED).children.remove(name);
            replaced.map_or(Ok(()), |old| {
                self.get(old)?.write().expect(UNPOISONED).attr.nlink = 0;
                Ok(())
            })
        });
        empty(moved, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.add(parent, name, FileType::RegularFile, mode & !umask, Vec::new()) {
            Ok(attr) => reply.created(&LIFETIME, &attr, GENERATION, FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    // ENOSYS once, and the kernel opens by itself from then on.
    fn open(&self, _: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn flush(&self, _: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let node = match self.get(ino.0) {
            Ok(node) => node,
            Err(errno) => return reply.error(errno),
        };
        let node = node.read().expect(UNPOISONED);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(node.bytes.len());
        let end = start.saturating_add(size as usize).min(node.bytes.len());
        reply.data(&node.bytes[start..end]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.get(ino.0).and_then(|node| {
            let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
            let end = start.checked_add(data.len()).ok_or(Errno::EFBIG)?;
            let mut node = node.write().expect(UNPOISONED);
            if node.bytes.len() < end {
                node.bytes.resize(end, 0);
                node.attr.size = end as u64;
            }
            node.bytes[start..end].copy_from_slice(data);
            u32::try_from(data.len()).map_err(|_| Errno::EINVAL)
        });
        match written {
            Ok(count) => reply.written(count),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsync(&self, _: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.list(ino, offset) {
            Ok(children) => {
                for (next, name, attr) in children {
                    if reply.add(attr.ino, next, attr.kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        match self.list(ino, offset) {
            Ok(children) => {
                for (next, name, attr) in children {
                    if reply.add(attr.ino, next, name, &LIFETIME, &attr, GENERATION) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 24, 1 << 23, 1 << 23, 1 << 24, 1 << 23, 4096, 255, 4096);
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mountpoint: PathBuf = arguments.next().context("usage: parsecfs-ceiling MOUNTPOINT")?.into();
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("ceiling".into()), MountOption::DefaultPermissions];
    config.n_threads = Some(2);
    config.clone_fd = true;
    Session::new(Memory::new(), &mountpoint, &config).and_then(Session::run).context("serve the mount")
}
