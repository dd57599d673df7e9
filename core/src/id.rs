//! Identifiers as types, so that a user is never passed where a device is meant.
//!
//! All are 16 bytes, random (UUID version 4) when we make them, any 16 bytes when somebody else did.
//! Making one needs randomness, which this crate does not have: callers bring the bytes.

use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Wraps the 16 bytes as they stand in a document.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes as they stand in a document.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Reads 32 hexadecimal digits, with or without hyphens.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                uuid::Uuid::try_parse(text).ok().map(|id| Self(*id.as_bytes()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }
    )*};
}

macro_rules! prints_hex {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    )*};
}

ids! {
    /// A person.
    UserId,
    /// One key holder of a person on one machine.
    DeviceId,
    /// A group of members with roles; users call it a workspace.
    RealmId,
    /// A versioned encrypted blob: the identity of an entry. The root folder's is its realm's.
    VlobId,
    /// An immutable encrypted piece of a file.
    BlockId,
    /// A sequester service.
    SequesterServiceId,
    /// A key that a service keeps for those who prove themselves with a second factor.
    OpaqueKeyId,
    /// An invitation; whoever has it may use it.
    InvitationToken,
    /// Makes a storage hand out the sealed device of a recovery by shares.
    RevealToken,
    /// One attempt of two sides of an invitation to come together.
    GreetingAttemptId,
}

prints_hex!(UserId, DeviceId, RealmId, VlobId, BlockId, SequesterServiceId, OpaqueKeyId, GreetingAttemptId);

macro_rules! prints_its_name {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}

// Whoever knows the token of an open invitation, or of a recovery, can use it.
prints_its_name!(InvitationToken, RevealToken);

impl RealmId {
    /// The vlob that holds the root folder of this realm.
    #[must_use]
    pub const fn root(self) -> VlobId {
        VlobId(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_in_hexadecimal_and_a_token_does_not() {
        assert_eq!(format!("{:?}", BlockId::from_bytes([0xab; 16])), format!("BlockId({})", "ab".repeat(16)));
        assert_eq!(format!("{:?}", InvitationToken::from_bytes([0xab; 16])), "InvitationToken");
    }
}
