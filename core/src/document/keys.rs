//! Keys in documents: 32 bytes each.

use parsecfs_crypto::{PublicKey, SecretKey, VerifyKey};
use rmpv::Value;

use super::Field;
use crate::error::Result;

macro_rules! keys {
    ($($name:ident by $bytes:ident),*) => {$(
        impl Field for $name {
            fn read(value: Value) -> Result<Self> {
                Field::read(value).map(Self::from_bytes)
            }

            fn write(&self) -> Value {
                self.$bytes().write()
            }
        }
    )*};
}

keys!(PublicKey by as_bytes, VerifyKey by as_bytes, SecretKey by expose);
