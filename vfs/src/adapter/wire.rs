//! Messages between the kernel and a FUSE filesystem, as `linux/fuse.h` lays them out (protocol 7). Only the parts that
//! are used here. Numbers are in the machine's byte order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Protocol that is spoken: what newer kernels add is not used.
pub(super) const MAJOR: u32 = 7;
/// See [`MAJOR`].
pub(super) const MINOR: u32 = 38;
/// The oldest kernel that has all that is relied on: opening without a request for files and folders (Linux 5.1).
pub(super) const MINOR_MIN: u32 = 29;

/// What a request asks for.
pub(super) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const ACCESS: u32 = 34;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const TMPFILE: u32 = 51;
    pub(crate) const COPY_FILE_RANGE_64: u32 = 53;
}

/// What kernel and filesystem can do, in [`InitIn`] and [`InitOut`].
pub(super) mod capability {
    pub(crate) const ASYNC_READ: u32 = 1;
    pub(crate) const BIG_WRITES: u32 = 1 << 5;
    pub(crate) const DO_READDIRPLUS: u32 = 1 << 13;
    pub(crate) const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub(crate) const ASYNC_DIO: u32 = 1 << 15;
    pub(crate) const WRITEBACK_CACHE: u32 = 1 << 16;
    pub(crate) const NO_OPEN_SUPPORT: u32 = 1 << 17;
    pub(crate) const PARALLEL_DIROPS: u32 = 1 << 18;
    pub(crate) const MAX_PAGES: u32 = 1 << 22;
    pub(crate) const CACHE_SYMLINKS: u32 = 1 << 23;
    pub(crate) const NO_OPENDIR_SUPPORT: u32 = 1 << 24;
    pub(crate) const EXPLICIT_INVAL_DATA: u32 = 1 << 25;
    pub(crate) const HANDLE_KILLPRIV_V2: u32 = 1 << 28;
    /// Of the upper 32: requests that nobody answered are asked again on demand (Linux 6.9).
    pub(crate) const UPPER_HAS_RESEND: u32 = 1 << 7;
}

/// In a request's number: it was asked before, of a process that did not answer it.
pub(super) const RESENT: u64 = 1 << 63;

/// Which fields of [`SetAttrIn`] count.
pub(super) mod valid {
    pub(crate) const MODE: u32 = 1;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
    pub(crate) const CTIME: u32 = 1 << 10;
    pub(crate) const KILL_SUIDGID: u32 = 1 << 11;
}

/// In [`WriteIn::write_flags`]: the writer may not keep set-user and set-group bits.
pub(super) const WRITE_KILL_SUIDGID: u32 = 1 << 2;

/// Before every request.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct InHeader {
    pub(super) len: u32,
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) nodeid: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: u32,
    pub(super) extensions: u16,
    pub(super) padding: u16,
}

/// Before every answer, and every notification (`unique` 0, `error` says which).
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct OutHeader {
    pub(super) len: u32,
    pub(super) error: i32,
    pub(super) unique: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct InitIn {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
    /// The upper 32 capabilities; 0 from a kernel that has none.
    pub(super) flags2: u32,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct InitOut {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
    pub(super) max_background: u16,
    pub(super) congestion_threshold: u16,
    pub(super) max_write: u32,
    pub(super) time_gran: u32,
    pub(super) max_pages: u16,
    pub(super) map_alignment: u16,
    pub(super) flags2: u32,
    pub(super) unused: [u32; 7],
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Attr {
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) atime: i64,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
    pub(super) atime_ns: u32,
    pub(super) mtime_ns: u32,
    pub(super) ctime_ns: u32,
    pub(super) mode: u32,
    pub(super) nlink: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) blksize: u32,
    pub(super) flags: u32,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct EntryOut {
    pub(super) nodeid: u64,
    pub(super) generation: u64,
    pub(super) entry_valid: u64,
    pub(super) attr_valid: u64,
    pub(super) entry_valid_ns: u32,
    pub(super) attr_valid_ns: u32,
    pub(super) attr: Attr,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct AttrOut {
    pub(super) valid: u64,
    pub(super) valid_ns: u32,
    pub(super) dummy: u32,
    pub(super) attr: Attr,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct SetAttrIn {
    pub(super) valid: u32,
    pub(super) padding: u32,
    pub(super) fh: u64,
    pub(super) size: u64,
    pub(super) lock_owner: u64,
    pub(super) atime: i64,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
    pub(super) atime_ns: u32,
    pub(super) mtime_ns: u32,
    pub(super) ctime_ns: u32,
    pub(super) mode: u32,
    pub(super) unused4: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) unused5: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct MknodIn {
    pub(super) mode: u32,
    pub(super) rdev: u32,
    pub(super) umask: u32,
    pub(super) padding: u32,
}

/// Of CREATE and TMPFILE.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct CreateIn {
    pub(super) flags: u32,
    pub(super) mode: u32,
    pub(super) umask: u32,
    pub(super) open_flags: u32,
}

/// Answer to TMPFILE: an entry, opened.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct CreatedOut {
    pub(super) entry: EntryOut,
    pub(super) fh: u64,
    pub(super) open_flags: u32,
    pub(super) backing: i32,
}

/// In [`CreatedOut::open_flags`]: the pages that the kernel has stay.
pub(super) const OPEN_KEEP_CACHE: u32 = 1 << 1;

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct MkdirIn {
    pub(super) mode: u32,
    pub(super) umask: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Rename2In {
    pub(super) new_dir: u64,
    pub(super) flags: u32,
    pub(super) padding: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct LinkIn {
    pub(super) old_nodeid: u64,
}

/// Also of READDIR and READDIRPLUS.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct ReadIn {
    pub(super) fh: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
    pub(super) read_flags: u32,
    pub(super) lock_owner: u64,
    pub(super) flags: u32,
    pub(super) padding: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct WriteIn {
    pub(super) fh: u64,
    pub(super) offset: u64,
    pub(super) size: u32,
    pub(super) write_flags: u32,
    pub(super) lock_owner: u64,
    pub(super) flags: u32,
    pub(super) padding: u32,
}

/// Also of GETXATTR with size 0.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct SizeOut {
    pub(super) size: u32,
    pub(super) padding: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct SetXattrIn {
    pub(super) size: u32,
    pub(super) flags: u32,
}

/// Also of LISTXATTR.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct GetXattrIn {
    pub(super) size: u32,
    pub(super) padding: u32,
}

#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct StatFsOut {
    pub(super) blocks: u64,
    pub(super) blocks_free: u64,
    pub(super) blocks_available: u64,
    pub(super) files: u64,
    pub(super) files_free: u64,
    pub(super) block_bytes: u32,
    pub(super) name_bytes_max: u32,
    pub(super) fragment_bytes: u32,
    pub(super) padding: u32,
    pub(super) spare: [u32; 6],
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct BatchForgetIn {
    pub(super) count: u32,
    pub(super) dummy: u32,
}

/// One of the references that BATCH_FORGET takes back. Read in place, wherever the buffer begins.
#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub(super) struct ForgetOne {
    pub(super) nodeid: u64,
    pub(super) lookups: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct AccessIn {
    pub(super) mask: u32,
    pub(super) padding: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct FallocateIn {
    pub(super) fh: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) mode: u32,
    pub(super) padding: u32,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct CopyFileRangeIn {
    pub(super) fh_in: u64,
    pub(super) offset_in: u64,
    pub(super) nodeid_out: u64,
    pub(super) fh_out: u64,
    pub(super) offset_out: u64,
    pub(super) length: u64,
    pub(super) flags: u64,
}

#[derive(Clone, Copy, Debug, FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct LseekIn {
    pub(super) fh: u64,
    pub(super) offset: u64,
    pub(super) whence: u32,
    pub(super) padding: u32,
}

/// Before a name in the answer to READDIR; in that to READDIRPLUS behind an [`EntryOut`].
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Dirent {
    pub(super) ino: u64,
    pub(super) offset: u64,
    pub(super) name_len: u32,
    pub(super) kind: u32,
}

/// Notification: forget the attributes and pages of an inode.
pub(super) const NOTIFY_INVAL_INODE: i32 = 2;
/// Notification: forget a name in a folder.
pub(super) const NOTIFY_INVAL_ENTRY: i32 = 3;

/// Notification: ask again what was not answered.
pub(super) const NOTIFY_RESEND: i32 = 7;
/// Notification: look every name up again (Linux 6.16).
pub(super) const NOTIFY_INC_EPOCH: i32 = 8;

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct NotifyInvalInode {
    pub(super) ino: u64,
    pub(super) offset: i64,
    pub(super) length: i64,
}

#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct NotifyInvalEntry {
    pub(super) parent: u64,
    pub(super) name_len: u32,
    pub(super) flags: u32,
}
