//! Keys in documents: 32 bytes each. What secret ones are read from is wiped.

use parsecfs_crypto::{PrivateKey, PublicKey, SecretKey, SigningKey, VerifyKey};
use rmpv::Value;
use zeroize::Zeroizing;

use super::{Field, malformed};
use crate::error::Result;

macro_rules! keys {
    ($($name:ident from $wrap:ident by $bytes:ident),*) => {$(
        impl Field for $name {
            fn read(value: Value) -> Result<Self> {
                let bytes = Zeroizing::new(Vec::read(value)?);
                let bytes = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| malformed("not a key"))?);
                Ok(Self::$wrap(*bytes))
            }

            fn write(&self) -> Value {
                self.$bytes().write()
            }
        }
    )*};
}

keys!(
    PublicKey from from_bytes by as_bytes,
    VerifyKey from from_bytes by as_bytes,
    SecretKey from from_bytes by expose,
    PrivateKey from from_bytes by expose,
    SigningKey from from_seed by expose
);
