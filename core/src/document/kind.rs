//! Kinds of documents, described by their fields.

use rmpv::Value;

use super::{from_frame, to_frame};
use crate::error::Result;

/// A kind of document.
pub(crate) trait Document: Sized {
    /// The value of its `type`.
    const KIND: &'static str;

    /// Reads and checks all fields.
    fn read(document: Value) -> Result<Self>;

    /// Writes all fields, in the order of the format.
    fn write(&self) -> Value;

    /// Reads a framed document.
    fn from_frame(frame: &[u8]) -> Result<Self> {
        Self::read(from_frame(frame)?)
    }

    /// Writes a framed document.
    fn to_frame(&self) -> Vec<u8> {
        to_frame(&self.write())
    }
}

/// Declares a struct and how it stands in a document: its fields in the order of the format. `[default]` behind a
/// field: it may be missing, or nil, and then has its default. `[absent]`: it is `None` where it is missing, and is not
/// written then. `checked by f`: `f` refuses contradictions.
macro_rules! documents {
    ($(
        $(#[$attribute:meta])*
        $name:ident = $kind:literal $(checked by $check:path)? {
            $($(#[$field_attribute:meta])* $field:ident: $type:ty $([$mode:ident])?),* $(,)?
        }
    )*) => {$(
        $(#[$attribute])*
        pub struct $name {
            $($(#[$field_attribute])* pub $field: $type,)*
        }

        impl $crate::document::Document for $name {
            const KIND: &'static str = $kind;

            fn read(document: rmpv::Value) -> $crate::error::Result<Self> {
                const NAMES: &[&str] = &[$(stringify!($field)),*];
                let mut fields = $crate::document::Fields::document(document, $kind, NAMES)?;
                let document = Self {
                    $($field: $crate::document::documents!(@get fields $field $($mode)?),)*
                };
                $($check(&document)?;)?
                Ok(document)
            }

            fn write(&self) -> rmpv::Value {
                let writer = $crate::document::Writer::document($kind);
                $(let writer = $crate::document::documents!(@put writer (&self.$field) $field $($mode)?);)*
                writer.finish()
            }
        }
    )*};
    (@get $fields:ident $field:ident) => { $fields.get(stringify!($field))? };
    (@get $fields:ident $field:ident default) => {
        $fields.get_if_there(stringify!($field))?.unwrap_or_default()
    };
    (@get $fields:ident $field:ident absent) => { $fields.get_if_there(stringify!($field))? };
    (@put $writer:ident ($value:expr) $field:ident absent) => {
        $writer.field_if_some(stringify!($field), $value.as_ref())
    };
    (@put $writer:ident ($value:expr) $field:ident $($default:ident)?) => {
        $writer.field(stringify!($field), $value)
    };
}
pub(crate) use documents;
