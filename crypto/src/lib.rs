//! The cryptography of parsecfs: keys, signatures, sealed envelopes, derivations. All of it is libsodium except RSA.
//!
//! The only crate that names primitive crates. It knows no document: what the bytes mean is `parsecfs-core`'s business.
//!
//! Invariants: a secret is its own type, wiped when dropped, prints as its type name, and is compared in constant time.
//! Clear text is handed out only after its authentication succeeded. All randomness is the operating system's.
//!
//! | module | holds |
//! |---|---|
//! | [`SecretKey`] | symmetric sealing, derivation, keyed hash |
//! | [`SigningKey`], [`VerifyKey`] | Ed25519 |
//! | [`PrivateKey`], [`PublicKey`] | envelopes to one reader |
//! | [`Argon2id`], [`passphrase`] | keys that people hold |
//! | [`kx`], [`sas`] | the two sides of an invitation |
//! | [`sequester`] | RSA envelopes and signatures of an organization's authority |
//! | [`shamir`] | one secret in many hands |
//! | [`local`] | the fast form of everything in the local store |

#[macro_use]
mod bytes;
mod aegis;
mod error;
mod hash;
pub mod kx;
pub mod local;
pub mod passphrase;
mod password;
mod public;
mod random;
pub mod sas;
mod secret;
mod secretbox;
pub mod sequester;
pub mod shamir;
mod sign;
mod start;

pub use error::{Error, ErrorKind, Result};
pub use hash::{HashDigest, Sha256, sha256};
pub use password::{Argon2id, account_password_salt};
pub use public::{PrivateKey, PublicKey};
pub use random::{random_below, random_bytes};
pub use secret::{SEAL_OVERHEAD_BYTES, SecretKey};
pub use sign::{SIGNATURE_BYTES, SigningKey, VerifyKey};
use start::start;
