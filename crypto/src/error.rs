//! One error for the crate. It never says which byte was wrong: callers act on the kind alone.

/// What went wrong, chosen by what the caller can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The envelope does not open with this key: wrong key, or changed bytes.
    Decryption,
    /// The signature is not this key's signature over these bytes.
    Signature,
    /// A parameter or an input has an impossible size.
    Size,
    /// A key has the wrong number of bytes or is written wrongly.
    KeySize,
    /// An algorithm or key that is not one of ours.
    Algorithm,
    /// The library failed where it should not: no memory, no randomness.
    Internal,
}

/// Failure of a cryptographic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Error {
    kind: ErrorKind,
}

/// Result of a cryptographic operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the caller branches on.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    const fn text(self) -> &'static str {
        match self.kind {
            ErrorKind::Decryption => "cannot open the sealed bytes",
            ErrorKind::Signature => "the signature does not match",
            ErrorKind::Size => "a parameter has an impossible size",
            ErrorKind::KeySize => "the key is not well formed",
            ErrorKind::Algorithm => "the algorithm is not supported",
            ErrorKind::Internal => "the cryptographic library failed",
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind }
    }
}
