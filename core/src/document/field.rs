//! How each type of value stands in a document (formats.md 2.2).

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU8,
};

use rmpv::Value;

use super::malformed;
use crate::{
    error::Result,
    id::{
        BlockId, DeviceId, GreetingAttemptId, InvitationToken, OpaqueKeyId, RealmId, RevealToken, SequesterServiceId,
        UserId, VlobId,
    },
    name::{DeviceLabel, Email, EntryName, HumanHandle, OrganizationId},
    time::Timestamp,
};

const EXT_TIME: i8 = 1;
const EXT_UUID: i8 = 2;

/// A value of a document, or of a message to a Parsec server.
pub trait Field: Sized {
    /// Reads it; nil is an error unless the type is optional.
    fn read(value: Value) -> Result<Self>;
    /// Writes it.
    fn write(&self) -> Value;
}

impl<T: Field> Field for Option<T> {
    fn read(value: Value) -> Result<Self> {
        if value.is_nil() { Ok(None) } else { T::read(value).map(Some) }
    }

    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Nil, T::write)
    }
}

macro_rules! ids {
    ($($name:ident),*) => {$(
        impl Field for $name {
            fn read(value: Value) -> Result<Self> {
                let bytes = match value {
                    Value::Ext(EXT_UUID, bytes) => bytes,
                    _ => return Err(malformed("not a UUID")),
                };
                Ok(Self::from_bytes(bytes.try_into().map_err(|_| malformed("not a UUID"))?))
            }

            fn write(&self) -> Value {
                Value::Ext(EXT_UUID, self.as_bytes().to_vec())
            }
        }
    )*};
}

ids!(UserId, DeviceId, RealmId, VlobId, BlockId, SequesterServiceId, OpaqueKeyId, GreetingAttemptId);

macro_rules! tokens {
    ($($name:ident),*) => {$(
        /// Bare bytes, unlike other ids.
        impl Field for $name {
            fn read(value: Value) -> Result<Self> {
                Field::read(value).map(Self::from_bytes)
            }

            fn write(&self) -> Value {
                self.as_bytes().write()
            }
        }
    )*};
}

tokens!(InvitationToken, RevealToken);

impl Field for Timestamp {
    fn read(value: Value) -> Result<Self> {
        let Value::Ext(EXT_TIME, bytes) = value else {
            return Err(malformed("not a time"));
        };
        let bytes = bytes.try_into().map_err(|_| malformed("not a time"))?;
        Self::from_micros(i64::from_be_bytes(bytes)).ok_or(malformed("time is out of range"))
    }

    fn write(&self) -> Value {
        Value::Ext(EXT_TIME, self.as_micros().to_be_bytes().to_vec())
    }
}

macro_rules! unsigned {
    ($($name:ident),*) => {$(
        impl Field for $name {
            fn read(value: Value) -> Result<Self> {
                let number = value.as_u64().ok_or(malformed("not an unsigned integer"))?;
                number.try_into().map_err(|_| malformed("integer is out of range"))
            }

            fn write(&self) -> Value {
                (*self).into()
            }
        }
    )*};
}

unsigned!(u8, u32, u64);

impl Field for NonZeroU8 {
    fn read(value: Value) -> Result<Self> {
        Self::new(u8::read(value)?).ok_or(malformed("number is 0"))
    }

    fn write(&self) -> Value {
        self.get().into()
    }
}

impl Field for i64 {
    fn read(value: Value) -> Result<Self> {
        value.as_i64().ok_or(malformed("not an integer"))
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl Field for bool {
    fn read(value: Value) -> Result<Self> {
        value.as_bool().ok_or(malformed("not a truth value"))
    }

    fn write(&self) -> Value {
        (*self).into()
    }
}

impl Field for String {
    fn read(value: Value) -> Result<Self> {
        match value {
            Value::String(text) => text.into_str().ok_or(malformed("text is not UTF-8")),
            _ => Err(malformed("not text")),
        }
    }

    fn write(&self) -> Value {
        self.as_str().into()
    }
}

impl Field for Vec<u8> {
    fn read(value: Value) -> Result<Self> {
        match value {
            Value::Binary(bytes) => Ok(bytes),
            _ => Err(malformed("not bytes")),
        }
    }

    fn write(&self) -> Value {
        self.as_slice().into()
    }
}

impl<const N: usize> Field for [u8; N] {
    fn read(value: Value) -> Result<Self> {
        Vec::read(value)?.try_into().map_err(|_| malformed("wrong number of bytes"))
    }

    fn write(&self) -> Value {
        self.as_slice().into()
    }
}

macro_rules! texts {
    ($($name:ident by $text:ident),*) => {$(
        impl Field for $name {
            fn read(value: Value) -> Result<Self> {
                Self::new(&String::read(value)?).map_err(|_| malformed("not a legal name"))
            }

            fn write(&self) -> Value {
                self.$text().into()
            }
        }
    )*};
}

texts!(EntryName by reveal, OrganizationId by as_str, DeviceLabel by as_str, Email by as_str);

impl Field for HumanHandle {
    fn read(value: Value) -> Result<Self> {
        let Value::Array(pair) = value else {
            return Err(malformed("not a human handle"));
        };
        let [email, label]: [Value; 2] = pair.try_into().map_err(|_| malformed("not a human handle"))?;
        Self::new(Email::read(email)?, &String::read(label)?).map_err(|_| malformed("not a human handle"))
    }

    fn write(&self) -> Value {
        Value::Array(vec![self.email().write(), self.label().into()])
    }
}

/// Sets, in their order when written.
impl<T: Field + Ord> Field for BTreeSet<T> {
    fn read(value: Value) -> Result<Self> {
        Ok(read_list(value)?.into_iter().collect())
    }

    fn write(&self) -> Value {
        Value::Array(self.iter().map(T::write).collect())
    }
}

/// Maps. Of two equal keys the last wins, which is what a normalized name may need.
impl<K: Field + Ord, V: Field> Field for BTreeMap<K, V> {
    fn read(value: Value) -> Result<Self> {
        let Value::Map(entries) = value else {
            return Err(malformed("not a map"));
        };
        entries.into_iter().map(|(key, value)| Ok((K::read(key)?, V::read(value)?))).collect()
    }

    fn write(&self) -> Value {
        Value::Map(self.iter().map(|(key, value)| (key.write(), value.write())).collect())
    }
}

/// A list of any length.
pub fn read_list<T: Field>(value: Value) -> Result<Vec<T>> {
    let Value::Array(values) = value else {
        return Err(malformed("not a list"));
    };
    values.into_iter().map(T::read).collect()
}

/// Gives an enum its names in documents; an unknown name is an error for the whole document.
macro_rules! field_enum {
    ($name:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        impl $crate::document::Field for $name {
            fn read(value: rmpv::Value) -> $crate::error::Result<Self> {
                match value.as_str() {
                    $(Some($text) => Ok(Self::$variant),)*
                    _ => Err($crate::document::malformed("unknown enum value")),
                }
            }

            fn write(&self) -> rmpv::Value {
                match self {
                    $(Self::$variant => $text.into(),)*
                }
            }
        }
    };
}
pub(crate) use field_enum;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{from_msgpack, to_msgpack};

    #[test]
    fn time_and_uuid_are_read_with_both_headers() {
        let time = Timestamp::from_micros(1).unwrap();
        assert_eq!(to_msgpack(&time.write()), [0xd7, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        let ext8 = from_msgpack(&[0xc7, 8, 1, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
        assert_eq!(Timestamp::read(ext8), Ok(time));
    }

    #[test]
    fn numbers_keep_to_their_range() {
        assert!(u32::read((1_u64 << 32).into()).is_err());
        assert!(u64::read((-1).into()).is_err());
        assert!(u64::read(Value::F64(1.0)).is_err());
        assert!(u8::read(256.into()).is_err());
    }

    #[test]
    fn bytes_are_not_an_id() {
        assert!(VlobId::read(Value::Binary(vec![0; 16])).is_err());
        assert!(VlobId::read(Value::Ext(2, vec![0; 15])).is_err());
        assert!(VlobId::read(Value::Ext(1, vec![0; 16])).is_err());
    }
}
