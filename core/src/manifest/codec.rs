//! How manifests stand in documents, and the rules that their fields keep (formats.md 5.1 to 5.4).

use std::collections::BTreeMap;

use rmpv::Value;

use super::{BLOCKSIZE_MIN, BlockAccess, FileManifest, FolderManifest, Kind, Manifest, UserManifest};
use crate::{
    document::{Document, Field, Fields, Writer, malformed, read_list, type_of},
    error::{Error, ErrorKind, Result},
    manifest::Extension,
    name::EntryName,
};

/// The field of our own in file and folder manifests.
const EXTENSION: &str = "parsecfs";
/// A change that older readers must not misread raises it; an added field does not.
const EXTENSION_VERSION: u32 = 1;
const MODE_MAX: u32 = 0o7777;

impl Document for FileManifest {
    const KIND: &'static str = "file_manifest";

    fn read(document: Value) -> Result<Self> {
        const NAMES: &[&str] = &[
            "author",
            "timestamp",
            "id",
            "parent",
            "version",
            "created",
            "updated",
            "size",
            "blocksize",
            "blocks",
            // Of later official clients. It describes the content of one version, so it is not carried over.
            "origin",
            EXTENSION,
        ];
        let mut fields = Fields::document(document, Self::KIND, NAMES)?;
        let file = Self {
            author: fields.get("author")?,
            timestamp: fields.get("timestamp")?,
            id: fields.get("id")?,
            parent: fields.get("parent")?,
            version: fields.get("version")?,
            created: fields.get("created")?,
            updated: fields.get("updated")?,
            size: fields.get("size")?,
            blocksize: fields.get("blocksize")?,
            blocks: fields.get_with("blocks", read_list)?,
            extension: fields.get_if_there(EXTENSION)?,
            unknown: fields.unknown(),
        };
        if file.blocksize < BLOCKSIZE_MIN {
            return Err(malformed("block slot is too small"));
        }
        Ok(file)
    }

    fn write(&self) -> Value {
        Writer::document(Self::KIND)
            .field("author", &self.author)
            .field("timestamp", &self.timestamp)
            .field("id", &self.id)
            .field("parent", &self.parent)
            .field("version", &self.version)
            .field("created", &self.created)
            .field("updated", &self.updated)
            .field("size", &self.size)
            .field("blocksize", &self.blocksize)
            .value("blocks", Value::Array(self.blocks.iter().map(Field::write).collect()))
            .field_if_some(EXTENSION, self.extension.as_ref())
            .unknown(&self.unknown)
            .finish()
    }
}

impl Document for FolderManifest {
    const KIND: &'static str = "folder_manifest";

    fn read(document: Value) -> Result<Self> {
        const NAMES: &[&str] =
            &["author", "timestamp", "id", "parent", "version", "created", "updated", "children", EXTENSION];
        let mut fields = Fields::document(document, Self::KIND, NAMES)?;
        Ok(Self {
            author: fields.get("author")?,
            timestamp: fields.get("timestamp")?,
            id: fields.get("id")?,
            parent: fields.get("parent")?,
            version: fields.get("version")?,
            created: fields.get("created")?,
            updated: fields.get("updated")?,
            children: fields.get::<BTreeMap<EntryName, _>>("children")?,
            extension: fields.get_if_there(EXTENSION)?,
            unknown: fields.unknown(),
        })
    }

    fn write(&self) -> Value {
        Writer::document(Self::KIND)
            .field("author", &self.author)
            .field("timestamp", &self.timestamp)
            .field("id", &self.id)
            .field("parent", &self.parent)
            .field("version", &self.version)
            .field("created", &self.created)
            .field("updated", &self.updated)
            .field("children", &self.children)
            .field_if_some(EXTENSION, self.extension.as_ref())
            .unknown(&self.unknown)
            .finish()
    }
}

impl Document for UserManifest {
    const KIND: &'static str = "user_manifest";

    fn read(document: Value) -> Result<Self> {
        const NAMES: &[&str] = &["author", "timestamp", "id", "version", "created", "updated"];
        let mut fields = Fields::document(document, Self::KIND, NAMES)?;
        Ok(Self {
            author: fields.get("author")?,
            timestamp: fields.get("timestamp")?,
            id: fields.get("id")?,
            version: fields.get("version")?,
            created: fields.get("created")?,
            updated: fields.get("updated")?,
            unknown: fields.unknown(),
        })
    }

    fn write(&self) -> Value {
        Writer::document(Self::KIND)
            .field("author", &self.author)
            .field("timestamp", &self.timestamp)
            .field("id", &self.id)
            .field("version", &self.version)
            .field("created", &self.created)
            .field("updated", &self.updated)
            .unknown(&self.unknown)
            .finish()
    }
}

impl Manifest {
    /// Reads either kind.
    pub(super) fn read(document: Value) -> Result<Self> {
        if type_of(&document) == Some(FolderManifest::KIND) {
            FolderManifest::read(document).map(Self::Folder)
        } else {
            FileManifest::read(document).map(Self::File)
        }
    }

    pub(super) fn write(&self) -> Value {
        match self {
            Self::File(file) => file.write(),
            Self::Folder(folder) => folder.write(),
        }
    }
}

impl FileManifest {
    /// Blocks lie in the file, each in one slot, at most one in a slot, ascending; nothing may overflow.
    pub(super) fn check_blocks(&self) -> Result<()> {
        let wrong = |context| Error::new(ErrorKind::Integrity, context);
        let mut last_slot = None;
        for block in &self.blocks {
            let end = block.offset.checked_add(block.size).ok_or(wrong("block ends beyond all files"))?;
            if end > self.size {
                return Err(wrong("block ends beyond the file"));
            }
            let slot = block.offset / self.blocksize;
            if slot != (end - 1) / self.blocksize {
                return Err(wrong("block crosses its slot"));
            }
            if last_slot.is_some_and(|last| last >= slot) {
                return Err(wrong("blocks are out of order or share a slot"));
            }
            last_slot = Some(slot);
        }
        Ok(())
    }
}

impl Field for BlockAccess {
    fn read(value: Value) -> Result<Self> {
        let mut fields = Fields::structure(value, &["id", "offset", "size", "digest"])?;
        let block = Self {
            id: fields.get("id")?,
            offset: fields.get("offset")?,
            size: fields.get("size")?,
            digest: fields.get("digest")?,
        };
        if block.size == 0 { Err(malformed("block is empty")) } else { Ok(block) }
    }

    fn write(&self) -> Value {
        Writer::structure()
            .field("id", &self.id)
            .field("offset", &self.offset)
            .field("size", &self.size)
            .field("digest", &self.digest)
            .finish()
    }
}

impl Field for Extension {
    fn read(value: Value) -> Result<Self> {
        const NAMES: &[&str] = &["v", "kind", "rdev", "mode", "mtime", "xattrs", "link"];
        let mut fields = Fields::structure(value, NAMES)?;
        match fields.get("v")? {
            0 => return Err(malformed("extension has no version")),
            EXTENSION_VERSION => {}
            _ => return Err(Error::new(ErrorKind::Unsupported, "extension of a newer version")),
        }
        let kind = fields.get_if_there::<String>("kind")?;
        let rdev = fields.get_if_there("rdev")?;
        let extension = Self {
            kind: kind_named(kind.as_deref(), rdev)?,
            mode: fields.get_if_there("mode")?,
            mtime_ns: fields.get_if_there("mtime")?,
            xattrs: fields.get_if_there("xattrs")?.unwrap_or_default(),
            link_group: fields.get_if_there("link")?,
            unknown: fields.unknown(),
        };
        if extension.mode.is_some_and(|mode| mode > MODE_MAX) {
            return Err(malformed("mode has more than permission bits"));
        }
        Ok(extension)
    }

    fn write(&self) -> Value {
        let Self { kind, mode, mtime_ns, xattrs, link_group, unknown } = self;
        let (kind, rdev) = match kind {
            Kind::Regular => (None, None),
            Kind::Symlink => (Some("symlink"), None),
            Kind::Fifo => (Some("fifo"), None),
            Kind::Socket => (Some("socket"), None),
            Kind::CharDevice { rdev } => (Some("char"), Some(rdev)),
            Kind::BlockDevice { rdev } => (Some("block"), Some(rdev)),
        };
        Writer::structure()
            .field("v", &EXTENSION_VERSION)
            .field_if_some("kind", kind.map(str::to_owned).as_ref())
            .field_if_some("rdev", rdev)
            .field_if_some("mode", mode.as_ref())
            .field_if_some("mtime", mtime_ns.as_ref())
            .field_if_some("xattrs", Some(xattrs).filter(|xattrs| !xattrs.is_empty()))
            .field_if_some("link", link_group.as_ref())
            .unknown(unknown)
            .finish()
    }
}

fn kind_named(name: Option<&str>, rdev: Option<u64>) -> Result<Kind> {
    match (name, rdev) {
        (None, None) => Ok(Kind::Regular),
        (Some("symlink"), None) => Ok(Kind::Symlink),
        (Some("fifo"), None) => Ok(Kind::Fifo),
        (Some("socket"), None) => Ok(Kind::Socket),
        (Some("char"), Some(rdev)) => Ok(Kind::CharDevice { rdev }),
        (Some("block"), Some(rdev)) => Ok(Kind::BlockDevice { rdev }),
        _ => Err(malformed("unknown kind of entry")),
    }
}
