//! What POSIX knows of an entry and a Parsec manifest has no field for (docs/format.md).

use std::{collections::BTreeMap, fmt};

use crate::document::UnknownFields;

/// What an entry is to the kernel, where its manifest alone does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A folder or an ordinary file, as the manifest says.
    #[default]
    Regular,
    /// A file whose content is the target.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Device number.
        rdev: u64,
    },
    /// A block device.
    BlockDevice {
        /// Device number.
        rdev: u64,
    },
}

/// POSIX attributes of an entry. The default says nothing: an ordinary entry with the mount's mode and the manifest's
/// time.
#[derive(Clone, Default, PartialEq)]
pub struct Extension {
    /// What the entry is.
    pub kind: Kind,
    /// Permission bits (07777), when they are not the mount's default.
    pub mode: Option<u32>,
    /// Time of the last modification in ns since the epoch, when it is not `updated`.
    pub mtime_ns: Option<i64>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Shared by the hard links of one inode.
    pub link_group: Option<[u8; 16]>,
    /// Fields that a later version of this program added.
    pub unknown: UnknownFields,
}

impl Extension {
    /// The attributes that hold for a version which was read with `read` and follows one with `base`. Clients that do
    /// not know the field drop it, so absent means unchanged.
    #[must_use]
    pub fn inherit(base: Option<&Self>, read: Option<&Self>) -> Self {
        read.or(base).cloned().unwrap_or_default()
    }

    /// What to write so that every reader ends up with `self`, given what holds for the version before. Nothing when
    /// there was nothing and is nothing; otherwise the field must be there, even when it says nothing, because absent
    /// would mean unchanged.
    #[must_use]
    pub fn to_write(&self, base: Option<&Self>) -> Option<Self> {
        let silent = *self == Self::default() && base.is_none_or(|base| *base == Self::default());
        (!silent).then(|| self.clone())
    }
}

/// Extended attributes may hold anything: only their number prints.
impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extension")
            .field("kind", &self.kind)
            .field("mode", &self.mode)
            .field("mtime_ns", &self.mtime_ns)
            .field("xattrs", &self.xattrs.len())
            .field("link_group", &self.link_group)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_means_unchanged() {
        let base = Extension { mode: Some(0o600), ..Extension::default() };
        assert_eq!(Extension::inherit(Some(&base), None), base);
        assert_eq!(Extension::inherit(Some(&base), Some(&Extension::default())), Extension::default());
        assert_eq!(Extension::inherit(None, None), Extension::default());
    }

    #[test]
    fn going_back_to_the_default_is_written() {
        let base = Extension { mode: Some(0o600), ..Extension::default() };
        assert_eq!(Extension::default().to_write(Some(&base)), Some(Extension::default()));
        assert_eq!(Extension::default().to_write(None), None);
        assert_eq!(base.to_write(Some(&base)), Some(base));
    }
}
