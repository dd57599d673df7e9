//! How fixed-size byte types of this crate look: secrets hide and wipe, public keys print.

/// A secret of `$n` bytes: wiped on drop, prints only its name, equal in constant time.
macro_rules! secret_bytes {
    ($(#[$doc:meta])* $name:ident, $n:literal) => {
        $(#[$doc])*
        #[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
        pub struct $name([u8; $n]);

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                libsodium_rs::utils::memcmp(&self.0, &other.0)
            }
        }

        impl Eq for $name {}

        impl TryFrom<&[u8]> for $name {
            type Error = $crate::Error;

            fn try_from(bytes: &[u8]) -> $crate::Result<Self> {
                Ok(Self(bytes.try_into().map_err(|_| $crate::ErrorKind::KeySize)?))
            }
        }
    };
}

/// What all secrets have that are made at random and kept in documents.
macro_rules! kept_in_documents {
    ($name:ident, $from:ident) => {
        impl $name {
            /// A fresh random key.
            #[must_use]
            pub fn generate() -> Self {
                Self($crate::random_bytes())
            }

            /// Wraps the bytes as they stand in a document.
            #[must_use]
            pub const fn $from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes, to be written into something that is itself sealed.
            #[must_use]
            pub const fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }
    };
}

/// A value of 32 bytes that needs no wiping.
macro_rules! public_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps the bytes as they stand in a document; any 32 bytes are accepted.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes as they stand in a document.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = $crate::Error;

            fn try_from(bytes: &[u8]) -> $crate::Result<Self> {
                Ok(Self(bytes.try_into().map_err(|_| $crate::ErrorKind::KeySize)?))
            }
        }
    };
}

/// Prints a public key in hexadecimal.
macro_rules! prints_hex {
    ($name:ident) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), data_encoding::HEXLOWER.encode(&self.0))
            }
        }
    };
}
