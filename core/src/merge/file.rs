//! Files: content is one thing and kept whole, from one side or from both.

use std::collections::{BTreeMap, BTreeSet};

use parsecfs_crypto::sha256;

use super::{Attributes, Origin, attributes};
use crate::manifest::{BlockAccess, Extension, FileManifest};

/// A file's content as it is on this device.
#[derive(Clone, Debug)]
pub struct LocalFile {
    /// Length in bytes.
    pub size: u64,
    /// Bytes in a block slot.
    pub blocksize: u64,
    /// Slots that are not holes.
    pub slots: BTreeMap<u64, LocalSlot>,
}

/// One block slot on this device.
#[derive(Clone, Debug)]
pub enum LocalSlot {
    /// Equal to a stored block.
    Synced(BlockAccess),
    /// Written here. The digest of the whole slot (up to the end of the file) if somebody computed it; without it the
    /// slot counts as different from everything.
    Dirty(Option<[u8; 32]>),
}

/// Whose content the file has after the merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileContent {
    /// The remote version's.
    Remote,
    /// This device's; it waits for upload.
    Local,
    /// Both are the same.
    Equal,
    /// The remote version's; this device's becomes a new file beside it.
    Both,
}

/// A merged file.
#[derive(Clone, Debug)]
pub struct FileMerge {
    /// Whose content.
    pub content: FileContent,
    /// The rest.
    pub attributes: Attributes,
    /// What the remote version's attributes mean after this base.
    pub remote_extension: Extension,
    /// Whether it differs from the remote version.
    pub need_sync: bool,
}

/// Merges a file.
#[must_use]
pub fn file(
    base: Option<&FileManifest>,
    local: &Attributes,
    local_content: &LocalFile,
    remote: &FileManifest,
    origin: Origin,
) -> FileMerge {
    let remote_changed = base.is_none_or(|base| !same_content(base, remote));
    let local_changed = base.is_none_or(|base| !local_content.equals(base));
    let content = match (local_changed, remote_changed, origin) {
        (true, true, _) if local_content.equals(remote) => FileContent::Equal,
        (true, true, Origin::Other) => FileContent::Both,
        (true, _, _) => FileContent::Local,
        (false, _, _) => FileContent::Remote,
    };
    let base_extension = base.map(|base| base.extension.clone().unwrap_or_default());
    let remote_attributes = read_attributes(base_extension.as_ref(), remote, remote_changed);
    let base_attributes = base.map(|base| base.parent).zip(base_extension.as_ref());
    let mut merged = attributes(base_attributes, local, &remote_attributes, origin);
    if content == FileContent::Both {
        // The attributes of this device go with its content.
        merged.extension = remote_attributes.extension.clone();
    }
    let need_sync = content == FileContent::Local
        || merged.parent != remote.parent
        || merged.extension != remote_attributes.extension;
    if !need_sync {
        merged.updated = remote.updated;
    }
    FileMerge { content, attributes: merged, remote_extension: remote_attributes.extension, need_sync }
}

/// What the remote version says beside its content. A client that does not know the extension and changed the content
/// has changed one name of a hard-linked file: that one leaves the group.
fn read_attributes(base: Option<&Extension>, remote: &FileManifest, changed: bool) -> Attributes {
    let FileManifest {
        author: _,
        timestamp: _,
        id: _,
        parent,
        version: _,
        created,
        updated,
        size: _,
        blocksize: _,
        blocks: _,
        extension,
        unknown: _,
    } = remote;
    let mut read = Extension::inherit(base, extension.as_ref());
    if extension.is_none() && changed {
        read.link_group = None;
    }
    Attributes { parent: *parent, created: *created, updated: *updated, extension: read }
}

/// Whether both hold the same bytes, as far as block lists tell. Ids do not matter.
#[must_use]
pub fn same_content(one: &FileManifest, other: &FileManifest) -> bool {
    one.size == other.size
        && one.blocksize == other.blocksize
        && one.blocks.len() == other.blocks.len()
        && one.blocks.iter().zip(&other.blocks).all(|(one, other)| same_block(one, other))
}

fn same_block(one: &BlockAccess, other: &BlockAccess) -> bool {
    let BlockAccess { id: _, offset, size, digest } = one;
    (*offset, *size, *digest) == (other.offset, other.size, other.digest)
}

impl LocalFile {
    /// Whether every digest of a written slot that is missing stands between this content and being equal to
    /// `remote`: then it is worth computing them.
    #[must_use]
    pub fn may_equal(&self, remote: &FileManifest) -> bool {
        self.matches(remote, |_, _| true)
    }

    /// Whether this is the content of `remote`.
    fn equals(&self, remote: &FileManifest) -> bool {
        self.matches(remote, |block, digest| *digest == Some(block.digest))
    }

    /// Compares with a manifest; `dirty` decides about written slots where a block covers the whole slot.
    fn matches(&self, manifest: &FileManifest, dirty: impl Fn(&BlockAccess, &Option<[u8; 32]>) -> bool) -> bool {
        if self.size != manifest.size || self.blocksize != manifest.blocksize || self.blocksize == 0 {
            return false;
        }
        let blocks: BTreeMap<u64, &BlockAccess> =
            manifest.blocks.iter().map(|block| (block.offset / self.blocksize, block)).collect();
        let mut zeros = Zeros::default();
        let slots: BTreeSet<u64> = self.slots.keys().chain(blocks.keys()).copied().collect();
        slots.into_iter().all(|slot| match (self.slots.get(&slot), blocks.get(&slot)) {
            (Some(LocalSlot::Synced(local)), Some(block)) => same_block(local, block),
            (Some(LocalSlot::Dirty(digest)), Some(block)) => {
                block.offset.checked_rem(self.blocksize) == Some(0)
                    && Some(block.size) == self.slot_bytes(slot)
                    && dirty(block, digest)
            }
            (None, Some(block)) => zeros.digest(block.size) == Some(block.digest),
            (Some(_), None) => false,
            (None, None) => true,
        })
    }

    /// Clear bytes in a slot.
    fn slot_bytes(&self, slot: u64) -> Option<u64> {
        let start = slot.checked_mul(self.blocksize)?;
        Some(self.size.checked_sub(start)?.min(self.blocksize))
    }
}

/// Digests of runs of zeros, computed once for each length.
#[derive(Default)]
struct Zeros(BTreeMap<u64, [u8; 32]>);

/// Longest run of zeros worth hashing; no backend that official clients use takes larger blocks, ours are smaller.
const ZEROS_BYTES_MAX: u64 = 16 << 20;

impl Zeros {
    fn digest(&mut self, size: u64) -> Option<[u8; 32]> {
        if size > ZEROS_BYTES_MAX {
            return None;
        }
        let bytes = usize::try_from(size).ok()?;
        Some(*self.0.entry(size).or_insert_with(|| *sha256(&vec![0; bytes]).as_bytes()))
    }
}
