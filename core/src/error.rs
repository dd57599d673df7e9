//! What can be wrong with a document or with what it claims.

use std::fmt;

/// The answer of everything in this crate that reads a document.
pub type Result<T> = std::result::Result<T, Error>;

/// The step at which a document was refused. Steps run in a fixed order and the first failing one is told, so a
/// reader of the error knows that everything before it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A name, label, address or number that breaks its rules.
    Invalid,
    /// A name or label that is longer than its rules allow.
    TooLong,
    /// Does not open with this key.
    Decryption,
    /// Not signed by this key.
    Signature,
    /// The version byte is not one that we know.
    Format,
    /// Not a legal zstd stream, or larger than we accept.
    Zstd,
    /// Fields are missing, of the wrong type, or of the wrong kind of document.
    Deserialization,
    /// Fields contradict each other.
    Integrity,
    /// Signed by another device than claimed.
    Author,
    /// Signed for another time than claimed.
    Timestamp,
    /// Another vlob than claimed.
    Id,
    /// Another version than claimed.
    Version,
    /// Another user than expected.
    UserId,
    /// Another realm than expected.
    RealmId,
    /// Another device than expected.
    DeviceId,
    /// A password derivation with parameters that are refused.
    Algorithm,
    /// A block is not as long as its manifest says.
    Size,
    /// A block is not what its manifest says.
    Digest,
    /// The rules of trust do not allow it: who signed was not entitled to.
    Untrusted,
    /// Needs a newer version of this program.
    Unsupported,
}

/// A refused document: the failing step and one line of context, which never holds names, content or keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    context: &'static str,
}

impl Error {
    /// An error of this kind.
    #[must_use]
    pub const fn new(kind: ErrorKind, context: &'static str) -> Self {
        Self { kind, context }
    }

    /// The failing step.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.context)
    }
}

impl std::error::Error for Error {}
