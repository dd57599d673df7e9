//! The form that all documents share: a map of named fields in msgpack, compressed, behind a version byte
//! (formats.md 2).

use std::fmt;

use rmpv::Value;

/// Fields of a document that this version does not know, kept to be written back.
#[derive(Clone, Default, PartialEq)]
pub struct UnknownFields(Vec<(String, Value)>);

impl UnknownFields {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Anything may be in them: only their number prints.
impl fmt::Debug for UnknownFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnknownFields({})", self.0.len())
    }
}
