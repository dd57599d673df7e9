//! Making entries.

use std::{ops::Range, sync::Arc};

use parking_lot::Mutex;
use parsecfs_crypto::random_bytes;

use super::{Attributes, Touch, Volume, dentry_row, orphan::orphan_row, valid_name};
use crate::{
    content::PAGE_BYTES,
    error::{ErrorKind, Result},
    folder::{Dentry, Folder},
    inode::{Inode, Kind, Meta, Standing, State},
    namespace::Namespace,
    store::{RowKey, RowValue},
};

/// Longest target of a symbolic link, as Linux has it.
const TARGET_BYTES: Range<usize> = 1..PAGE_BYTES;

/// Who makes an entry.
#[derive(Clone, Copy, Debug)]
pub struct Maker {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub enum NewKind<'a> {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A named pipe, socket or device.
    Special(Kind, u64),
}

impl Volume {
    /// Makes an entry in a folder and counts one reference of the kernel to it. `mode` is what it shall be after the
    /// umask.
    pub fn create(&self, folder: u64, name: &[u8], kind: NewKind<'_>, mode: u32, maker: Maker) -> Result<Attributes> {
        let _changing = self.store.changing();
        let name = valid_name(name)?;
        if matches!(kind, NewKind::Symlink(target) if !TARGET_BYTES.contains(&target.len())) {
            return Err(ErrorKind::NameTooLong.into());
        }
        // Removing needs room for rows too, so making must not use up the last of it.
        self.store.check_space(PAGE_BYTES as u64)?;
        let mut namespace = self.namespace();
        let parent = self.folder_to_change(&mut namespace, folder)?;
        let hidden = self.free_name(&mut namespace, folder, name.reveal())?;
        let mut parent_state = parent.state.lock();
        let (kind, target, rdev) = match kind {
            NewKind::Folder => (Kind::Folder, None, 0),
            NewKind::File => (Kind::File, None, 0),
            NewKind::Symlink(target) => (Kind::Symlink, Some(target), 0),
            NewKind::Special(kind, rdev) => (kind, None, rdev),
        };
        let mut meta = self.meta_in(&parent_state.meta, kind, mode, maker);
        (meta.parent, meta.parent_id, meta.rdev) = (folder, parent_state.meta.id, rdev);
        let id = meta.entry_id();
        let ino = self.store.new_ino();
        let mut state = State::new(meta, true);
        let mut rows = Vec::with_capacity(4);
        if let Some(target) = target {
            rows.extend(self.put_pages(ino, &mut state, 0, target)?);
            state.meta.size = target.len() as u64;
        }
        let dentry = Dentry { name: Arc::from(name.reveal()), id, ino };
        let cookie = self.store.new_cookie();
        rows.extend(hidden);
        rows.push(dentry_row(folder, cookie, &dentry));
        rows.extend(self.changed_row(ino, &state));
        parent_state.meta.subfolders += u32::from(kind == Kind::Folder);
        rows.extend(self.touch(&parent, &mut parent_state, Touch::Content));
        drop(parent_state);
        self.store.log(rows);
        let names = self.folder(&mut namespace, folder)?;
        names.insert(cookie, &dentry);
        let attributes = Attributes::of(ino, &state);
        let inode = Arc::new(Inode { ino, state: Mutex::new(state) });
        namespace.keep(inode);
        namespace.refer(ino);
        if kind == Kind::Folder {
            namespace.keep_folder(ino, Folder::default());
        }
        Ok(attributes)
    }

    /// Refuses a name that is taken. A name whose entry never arrived gives way, with the row that is returned; the
    /// folder's next version does not list it any more.
    pub(super) fn free_name(
        &self,
        namespace: &mut Namespace,
        folder: u64,
        name: &str,
    ) -> Result<Option<(RowKey, RowValue)>> {
        match self.folder(namespace, folder)?.get(name) {
            Some(there) if there.ino != 0 => Err(ErrorKind::Exists.into()),
            there => Ok(there.map(|there| (RowKey::Dentry(folder, there.cookie), None))),
        }
    }

    /// Makes a regular file that has no name in a folder, and counts one reference of the kernel to it. It lives as long as
    /// that, unless it is given a name ([`Volume::link`]).
    pub fn create_unnamed(&self, folder: u64, mode: u32, maker: Maker) -> Result<Attributes> {
        self.store.check_space(PAGE_BYTES as u64)?;
        let mut namespace = self.namespace();
        let parent = self.folder_to_change(&mut namespace, folder)?;
        let meta = self.meta_in(&parent.state.lock().meta, Kind::File, mode, maker);
        let ino = self.store.new_ino();
        let mut state = State::new(meta, true);
        state.standing = Standing::Orphan { base_row: 0 };
        self.store.log([orphan_row(ino, &state.meta, 0)]);
        let attributes = Attributes::of(ino, &state);
        namespace.keep(Arc::new(Inode { ino, state: Mutex::new(state) }));
        namespace.refer(ino);
        Ok(attributes)
    }

    /// A new entry in a folder, not placed yet.
    fn meta_in(&self, folder: &Meta, kind: Kind, mode: u32, maker: Maker) -> Meta {
        let inherits = folder.mode & 0o2000 != 0;
        let gid = if inherits { folder.gid } else { maker.gid };
        let mode = if inherits && kind == Kind::Folder { mode | 0o2000 } else { mode };
        self.new_meta(random_bytes(), kind, mode & 0o7777, (maker.uid, gid))
    }
}
