//! The form that all documents share: a map of named fields in msgpack, compressed, behind a version byte
//! (formats.md 2).
//!
//! Readers take bytes from anybody: they never panic, hold at most [`DOCUMENT_BYTES_MAX`] of clear text, and tell at
//! which step a document failed. Fields that they do not know are kept in [`UnknownFields`] where the document may be
//! written back, and ignored elsewhere.

mod field;
mod fields;
mod frame;
mod keys;
mod kind;
mod signed;

use std::fmt;

use rmpv::Value;

pub(crate) use field::field_enum;
pub use field::{Field, read_list};
pub(crate) use fields::{Fields, Writer, take_type, type_of};
pub use frame::{DOCUMENT_BYTES_MAX, from_msgpack, to_msgpack};
pub(crate) use frame::{from_frame, from_secret_frame, to_frame, to_secret_frame, to_secret_msgpack};
pub(crate) use kind::{Document, documents};
pub(crate) use signed::{sign, sign_secret, verify, without_trust};

use crate::error::{Error, ErrorKind};

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

/// A document whose fields are not what its kind needs.
pub(crate) const fn malformed(context: &'static str) -> Error {
    Error::new(ErrorKind::Deserialization, context)
}
