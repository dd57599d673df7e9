//! The object that says what lies here: plain text, so that a person who finds the directory can read it.

use parsecfs_core::storage::{Error, ErrorKind, Result};

use super::{
    Options,
    entry::digest_of,
    key,
    verbs::{Created, Verbs},
};

const MAGIC: &str = "parsecfs organization";
const VERSION: &str = "1";

/// What organization lies at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its identifier.
    pub organization: String,
    /// SHA-256 of its root verify key, in hexadecimal.
    pub root_fingerprint: String,
}

impl Format {
    pub(super) fn of(options: &Options) -> Self {
        let root_fingerprint = data_encoding::HEXLOWER.encode(&digest_of(&options.root));
        Self { organization: options.organization.clone(), root_fingerprint }
    }

    fn encode(&self) -> String {
        format!(
            "{MAGIC}\nversion {VERSION}\norganization {}\nroot {}\nfeatures\n",
            self.organization, self.root_fingerprint
        )
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_prefix(MAGIC)?.strip_prefix('\n'));
        let text = text.ok_or_else(|| Error::new(ErrorKind::Corrupt, "what lies here is no parsecfs organization"))?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        if field("version ") != Some(VERSION) || field("features") != Some("") {
            return Err(Error::new(ErrorKind::Unsupported, "the organization was made by a newer version"));
        }
        match (field("organization "), field("root ")) {
            (Some(organization), Some(root)) => {
                Ok(Self { organization: organization.to_owned(), root_fingerprint: root.to_owned() })
            }
            _ => Err(Error::new(ErrorKind::Corrupt, "the organization's format object is damaged")),
        }
    }

    /// `Denied` unless this is the organization that `options` ask for.
    pub(super) fn require(&self, options: &Options) -> Result<()> {
        if *self == Self::of(options) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Denied, "another organization lies here than the one that this device belongs to"))
    }
}

pub(super) async fn read(verbs: &dyn Verbs) -> Result<Format> {
    let object = verbs.get(key::FORMAT).await?.bytes;
    let object = object.ok_or_else(|| Error::new(ErrorKind::NotFound, "no organization lies here"))?;
    Format::decode(&object)
}

pub(super) async fn write(verbs: &dyn Verbs, format: &Format) -> Result<()> {
    let created = verbs.create(&[(key::FORMAT.to_owned(), format.encode().into_bytes().into())]).await?;
    if created.outcomes == [Created::Won] || read(verbs).await? == *format {
        return Ok(());
    }
    Err(Error::new(ErrorKind::VersionConflict, "another organization lies here already"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format() -> Format {
        Format { organization: "acme".to_owned(), root_fingerprint: "00".repeat(32) }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Format::decode(format().encode().as_bytes()).expect("reads"), format());
    }

    #[test]
    fn foreign_newer_and_damaged_are_told_apart() {
        let kind = |text: &str| Format::decode(text.as_bytes()).expect_err("refused").kind();
        assert_eq!(kind("something else"), ErrorKind::Corrupt);
        assert_eq!(kind(&format().encode().replace("version 1", "version 2")), ErrorKind::Unsupported);
        assert_eq!(kind(&format().encode().replace("features", "features sharding")), ErrorKind::Unsupported);
        assert_eq!(kind(&format().encode().replace("root ", "toor ")), ErrorKind::Corrupt);
    }
}
