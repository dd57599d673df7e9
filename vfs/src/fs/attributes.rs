//! Attributes: what stat shows, and what chmod, chown, utimes, truncate and xattr change.

use super::{Touch, Volume};
use crate::{
    content::PAGE,
    error::{Error, ErrorKind, Result},
    inode::{Kind, State},
};

/// What is known about an entry without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Inode.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Names, as stat counts them.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of devices.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes that are no holes, in units of 512.
    pub blocks: u64,
    /// Last access, ns since the epoch.
    pub atime_ns: i64,
    /// Last modification.
    pub mtime_ns: i64,
    /// Last change of attributes or content.
    pub ctime_ns: i64,
    /// When it was made.
    pub created_ns: i64,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present.
    Now,
    /// Nanoseconds since the epoch.
    At(i64),
}

/// Attributes to set; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last modification.
    pub mtime: Option<SetTime>,
    /// Last change, from who knows it better than the clock here, ns since the epoch.
    pub ctime_ns: Option<i64>,
}

/// Whether an attribute must, or must not, be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrFlags {
    /// Either way.
    Any,
    /// Must be new.
    Create,
    /// Must exist.
    Replace,
}

/// Longest value of an extended attribute, as Linux has it.
const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// All extended attributes of one entry: they travel in its manifest.
const XATTRS_BYTES_MAX: usize = 128 << 10;

/// In which stat counts what a file takes.
const UNIT: u64 = 512;

impl Attributes {
    pub(super) fn of(ino: u64, state: &State) -> Self {
        let meta = &state.meta;
        Self {
            ino,
            kind: meta.kind,
            mode: meta.mode,
            links: match (state.is_unlinked(), meta.kind) {
                (true, _) => 0,
                (false, Kind::Folder) => meta.subfolders.saturating_add(2),
                (false, _) => meta.name_count(),
            },
            uid: meta.uid,
            gid: meta.gid,
            rdev: meta.rdev,
            size: meta.size,
            blocks: meta.allocated.map_or(meta.size.div_ceil(UNIT), |allocated| allocated.pages * (PAGE / UNIT)),
            atime_ns: meta.atime_ns,
            mtime_ns: meta.mtime_ns,
            ctime_ns: meta.ctime_ns,
            created_ns: meta.created_us.saturating_mul(1000),
        }
    }
}

impl Volume {
    /// Sets attributes and returns all of them.
    pub fn set_attributes(&self, ino: u64, set: SetAttributes) -> Result<Attributes> {
        self.may_write()?;
        let _changing = self.store.changing();
        let inode = self.open_inode(ino)?;
        let mut state = inode.state.lock();
        let mut rows = Vec::new();
        if let Some(size) = set.size {
            rows = self.resize(ino, &mut state, size)?;
        }
        let now = self.clock.now_ns();
        let time = |set: SetTime| match set {
            SetTime::Now => now,
            SetTime::At(ns) => ns,
        };
        let only_atime = set == SetAttributes { atime: set.atime, ctime_ns: set.ctime_ns, ..SetAttributes::default() };
        let touch = match set.size {
            Some(_) => Touch::Content,
            None if only_atime => Touch::Access,
            None => Touch::Attributes,
        };
        rows.extend(self.touch(&inode, &mut state, touch));
        let meta = &mut state.meta;
        meta.mode = set.mode.map_or(meta.mode, |mode| mode & 0o7777);
        meta.uid = set.uid.unwrap_or(meta.uid);
        meta.gid = set.gid.unwrap_or(meta.gid);
        meta.atime_ns = set.atime.map_or(meta.atime_ns, time);
        if let Some(mtime) = set.mtime {
            meta.mtime_ns = time(mtime);
        }
        meta.ctime_ns = set.ctime_ns.unwrap_or(meta.ctime_ns);
        rows.extend(self.changed_row(ino, &state));
        self.store.log(rows);
        Ok(Attributes::of(ino, &state))
    }

    /// Clears the set-user and set-group bits, as a write by somebody else does.
    pub fn clear_privileges(&self, ino: u64) -> Result<()> {
        let mode = self.attributes(ino)?.mode;
        let group = if mode & 0o010 == 0 { 0 } else { 0o2000 };
        let cleared = mode & !(0o4000 | group);
        if cleared != mode {
            self.set_attributes(ino, SetAttributes { mode: Some(cleared), ..SetAttributes::default() })?;
        }
        Ok(())
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        let inode = self.open_inode(ino)?;
        let state = inode.state.lock();
        state.meta.xattrs.get(name).cloned().ok_or_else(|| ErrorKind::NoAttribute.into())
    }

    /// The names of all extended attributes.
    pub fn xattrs(&self, ino: u64) -> Result<Vec<Vec<u8>>> {
        let inode = self.open_inode(ino)?;
        let state = inode.state.lock();
        Ok(state.meta.xattrs.keys().cloned().collect())
    }

    /// Sets an extended attribute of the `user` space.
    pub fn set_xattr(&self, ino: u64, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        self.may_write()?;
        if !name.starts_with(b"user.") {
            return Err(ErrorKind::Unsupported.into());
        }
        if name == b"user." {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let inode = self.open_inode(ino)?;
        let mut state = inode.state.lock();
        match (flags, state.meta.xattrs.contains_key(name)) {
            (XattrFlags::Create, true) => return Err(ErrorKind::Exists.into()),
            (XattrFlags::Replace, false) => return Err(ErrorKind::NoAttribute.into()),
            _ => {}
        }
        let others = state.meta.xattrs.iter().filter(|(other, _)| other.as_slice() != name);
        let bytes: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if value.len() > XATTR_VALUE_BYTES_MAX || bytes + name.len() + value.len() > XATTRS_BYTES_MAX {
            return Err(Error::new(ErrorKind::NoSpace, "too many bytes of extended attributes"));
        }
        state.meta.xattrs.insert(name.to_owned(), value.to_owned());
        let row = self.touch(&inode, &mut state, Touch::Attributes);
        self.store.log(row);
        Ok(())
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, ino: u64, name: &[u8]) -> Result<()> {
        self.may_write()?;
        if !name.starts_with(b"user.") {
            return Err(ErrorKind::Unsupported.into());
        }
        let inode = self.open_inode(ino)?;
        let mut state = inode.state.lock();
        state.meta.xattrs.remove(name).ok_or(ErrorKind::NoAttribute)?;
        let row = self.touch(&inode, &mut state, Touch::Attributes);
        self.store.log(row);
        Ok(())
    }
}
