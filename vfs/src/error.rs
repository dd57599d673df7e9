//! What can go wrong in a mounted workspace, told by what the caller does next.

use std::fmt;

use parsecfs_core::storage;

/// The answer of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Each kind has exactly one row in `adapter/errno.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such entry.
    NotFound,
    /// The name is taken.
    Exists,
    /// A folder was needed.
    NotDirectory,
    /// Something else than a folder was needed.
    IsDirectory,
    /// The folder still has entries.
    NotEmpty,
    /// Over 255 bytes.
    NameTooLong,
    /// Not a name that can be stored (not UTF-8).
    InvalidName,
    /// Arguments make no sense together.
    InvalidArgument,
    /// Not permitted by the rules of files.
    NotPermitted,
    /// The role or the mount does not allow writing.
    ReadOnly,
    /// The role does not allow it at all.
    Denied,
    /// The cache limit or the disk is full; nothing acknowledged was lost.
    NoSpace,
    /// The inode has as many names as it may.
    TooManyLinks,
    /// Larger than the backend can hold.
    TooLarge,
    /// No such extended attribute.
    NoAttribute,
    /// This operation does not exist here.
    Unsupported,
    /// Not in the local store, and the backend cannot be reached.
    Offline,
    /// Damaged or forged data: this one entry fails, the others go on.
    Corrupt,
    /// A signature, role or history does not hold.
    Untrusted,
    /// Wrong password, or a key file or keyring entry that does not open the device.
    Locked,
    /// The entry changed since it was looked at: look again.
    Stale,
    /// In use by another process or mounted already.
    Busy,
    /// Written by a newer version of this program.
    UnsupportedVersion,
    /// A mistake of this program or an unexpected failure of the machine.
    Internal,
}

/// A failure: its kind, one line of context (ids, never names or content), and its cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a deeper cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// The same with what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl Error {
    /// Why the storage does not serve this device at all, where that is the cause.
    #[must_use]
    pub fn barred(&self) -> Option<storage::Barred> {
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            match error.downcast_ref::<storage::Error>() {
                Some(error) => return error.barred(),
                None => cause = error.source(),
            }
        }
        None
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind, format!("{kind:?}"))
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        let kind = match error.kind() {
            storage::ErrorKind::NotFound => ErrorKind::NotFound,
            storage::ErrorKind::VersionConflict => ErrorKind::Stale,
            storage::ErrorKind::Denied => ErrorKind::Denied,
            storage::ErrorKind::Offline | storage::ErrorKind::Throttled | storage::ErrorKind::OutcomeUnknown => {
                ErrorKind::Offline
            }
            storage::ErrorKind::Full => ErrorKind::NoSpace,
            storage::ErrorKind::Corrupt => ErrorKind::Corrupt,
            storage::ErrorKind::Rollback => ErrorKind::Untrusted,
            storage::ErrorKind::Unsupported => ErrorKind::UnsupportedVersion,
            storage::ErrorKind::Internal => ErrorKind::Internal,
        };
        Self::new(kind, "storage").caused_by(error)
    }
}
