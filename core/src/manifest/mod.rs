//! Manifests: the signed content of vlobs. A folder lists its children, a file lists its blocks.
//!
//! These are *remote* manifests, as signed (formats.md 5). They prove nothing about themselves: whoever opened them
//! checked them.

mod codec;
mod extension;
mod sealed;

use std::{collections::BTreeMap, fmt};

pub use extension::{Extension, Kind};
pub use sealed::Expected;

use crate::{
    document::UnknownFields,
    id::{BlockId, DeviceId, VlobId},
    name::EntryName,
    time::Timestamp,
};

/// Smallest legal block slot in bytes.
pub const BLOCKSIZE_MIN: u64 = 8;

/// A piece of a file: where its block goes, and the digest that proves the block.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockAccess {
    /// Block that holds the bytes.
    pub id: BlockId,
    /// Place of the first byte in the file.
    pub offset: u64,
    /// Clear bytes, at least 1.
    pub size: u64,
    /// SHA-256 of the clear bytes.
    pub digest: [u8; 32],
}

/// Without the digest: with it anybody could tell which known bytes the block holds.
impl fmt::Debug for BlockAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockAccess")
            .field("id", &self.id)
            .field("offset", &self.offset)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// A file, or whatever its extension says.
#[derive(Clone, Debug, PartialEq)]
pub struct FileManifest {
    /// Device that signed.
    pub author: DeviceId,
    /// When it was signed.
    pub timestamp: Timestamp,
    /// The entry.
    pub id: VlobId,
    /// The folder that lists it.
    pub parent: VlobId,
    /// From 1.
    pub version: u32,
    /// When the entry was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// Length of the file in bytes.
    pub size: u64,
    /// Bytes in a block slot, at least [`BLOCKSIZE_MIN`].
    pub blocksize: u64,
    /// At most one for each slot, ascending; what no block covers is zeros.
    pub blocks: Vec<BlockAccess>,
    /// POSIX attributes, if the author's client knows them.
    pub extension: Option<Extension>,
    /// Fields that we do not know; carry them over when rewriting.
    pub unknown: UnknownFields,
}

/// A folder.
#[derive(Clone, Debug, PartialEq)]
pub struct FolderManifest {
    /// Device that signed.
    pub author: DeviceId,
    /// When it was signed.
    pub timestamp: Timestamp,
    /// The entry. For the root folder, the realm's id.
    pub id: VlobId,
    /// The folder that lists it. For the root folder, itself.
    pub parent: VlobId,
    /// From 1.
    pub version: u32,
    /// When the entry was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// What the folder lists; an entry exists when it also names this folder as its parent.
    pub children: BTreeMap<EntryName, VlobId>,
    /// POSIX attributes, if the author's client knows them.
    pub extension: Option<Extension>,
    /// Fields that we do not know; carry them over when rewriting.
    pub unknown: UnknownFields,
}

/// The content of a user realm: nothing but its existence, since workspaces follow from certificates.
#[derive(Clone, Debug, PartialEq)]
pub struct UserManifest {
    /// Device that signed.
    pub author: DeviceId,
    /// When it was signed.
    pub timestamp: Timestamp,
    /// The user realm.
    pub id: VlobId,
    /// From 1.
    pub version: u32,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// Fields that we do not know; carry them over when rewriting.
    pub unknown: UnknownFields,
}

/// An entry of a workspace.
#[derive(Clone, Debug, PartialEq)]
pub enum Manifest {
    /// A file, or whatever its extension says.
    File(FileManifest),
    /// A folder.
    Folder(FolderManifest),
}

macro_rules! common {
    ($($(#[$doc:meta])* $field:ident: $type:ty),* $(,)?) => {
        impl Manifest {$(
            $(#[$doc])*
            #[must_use]
            pub fn $field(&self) -> $type {
                match self {
                    Self::File(file) => file.$field,
                    Self::Folder(folder) => folder.$field,
                }
            }
        )*}
    };
}

common! {
    /// Device that signed.
    author: DeviceId,
    /// When it was signed.
    timestamp: Timestamp,
    /// The entry.
    id: VlobId,
    /// The folder that lists it.
    parent: VlobId,
    /// From 1.
    version: u32,
    /// When the entry was made.
    created: Timestamp,
    /// When it last changed.
    updated: Timestamp,
}

impl Manifest {
    /// POSIX attributes, if the author's client knows them.
    #[must_use]
    pub fn extension(&self) -> Option<&Extension> {
        match self {
            Self::File(file) => file.extension.as_ref(),
            Self::Folder(folder) => folder.extension.as_ref(),
        }
    }

    /// The same place for writing.
    pub fn extension_mut(&mut self) -> &mut Option<Extension> {
        match self {
            Self::File(file) => &mut file.extension,
            Self::Folder(folder) => &mut folder.extension,
        }
    }

    /// Fields that we do not know; carry them over when rewriting.
    #[must_use]
    pub fn unknown(&self) -> &UnknownFields {
        match self {
            Self::File(file) => &file.unknown,
            Self::Folder(folder) => &folder.unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_clear_bytes_do_not_print() {
        let access = BlockAccess { id: BlockId::from_bytes([1; 16]), offset: 0, size: 1, digest: [0xab; 32] };
        let printed = format!("{access:?}");
        assert!(!printed.contains("171") && !printed.contains("digest") && printed.contains("size: 1"));
    }
}
