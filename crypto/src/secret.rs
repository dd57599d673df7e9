//! The symmetric key of realms, bundles, device files and envelopes: XSalsa20-Poly1305, and BLAKE2b for what follows from it.

use libsodium_rs::{crypto_generichash, crypto_kdf};
use zeroize::Zeroize;

use crate::{ErrorKind, Result, random_bytes, secretbox, start};

/// What sealing adds: nonce and authentication tag.
pub const SEAL_OVERHEAD_BYTES: usize = secretbox::NONCE_BYTES + secretbox::TAG_BYTES;

secret_bytes! {
    /// A 32-byte symmetric key. `Clone`, because bundles hold several and hand them out.
    SecretKey, 32
}

kept_in_documents!(SecretKey, from_bytes);

impl SecretKey {
    /// Seals under a fresh random nonce: nonce ‖ tag ‖ ciphertext.
    #[must_use]
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        secretbox::seal(&self.0, &random_bytes(), plain)
    }

    /// Opens what [`seal`](Self::seal) made. `Decryption` for anything else.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        secretbox::open(&self.0, sealed).ok_or_else(|| ErrorKind::Decryption.into())
    }

    /// The key for one purpose, named by a UUID (a vlob, a block, or a constant).
    #[must_use]
    pub fn derive(&self, purpose: &[u8; 16]) -> Self {
        Self(self.derive_bytes(purpose))
    }

    /// A 16-byte identifier for one purpose, which says nothing about the key.
    #[must_use]
    pub fn derive_uuid(&self, purpose: &[u8; 16]) -> [u8; 16] {
        self.derive_bytes(purpose)
    }

    /// Keyed BLAKE2b with a 64-byte result.
    #[must_use]
    pub fn mac512(&self, data: &[u8]) -> [u8; 64] {
        start();
        crypto_generichash::generichash(data, Some(&self.0), 64)
            .ok()
            .and_then(|mac| mac.try_into().ok())
            .expect("BLAKE2b makes 64 bytes under a key of 32")
    }

    fn derive_bytes<const N: usize>(&self, purpose: &[u8; 16]) -> [u8; N] {
        start();
        let (id, context) = purpose.split_at(8);
        let id = u64::from_le_bytes(id.try_into().expect("half of 16 bytes is 8"));
        let key = crypto_kdf::Key::from_slice(&self.0).expect("a derivation key has 32 bytes");
        let mut derived =
            crypto_kdf::derive_from_key(N, id, context, &key).expect("16 and 32 are sizes that BLAKE2b can make");
        let mut out = [0; N];
        out.copy_from_slice(&derived);
        derived.zeroize();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_a_flipped_byte_does_not() {
        let key = SecretKey::generate();
        for len in [0, 1, 4096] {
            let mut sealed = key.seal(&vec![7; len]);
            assert_eq!(sealed.len(), len + SEAL_OVERHEAD_BYTES);
            assert_eq!(key.open(&sealed).unwrap(), vec![7; len]);
            for at in [0, 24, sealed.len() - 1] {
                sealed[at] ^= 1;
                assert_eq!(key.open(&sealed).unwrap_err().kind(), ErrorKind::Decryption);
                sealed[at] ^= 1;
            }
        }
    }

    #[test]
    fn two_seals_of_one_text_differ() {
        let key = SecretKey::generate();
        assert_ne!(key.seal(b"x"), key.seal(b"x"));
    }

    #[test]
    fn a_secret_prints_only_its_name() {
        assert_eq!(format!("{:?}", SecretKey::from_bytes([7; 32])), "SecretKey");
    }

    #[test]
    fn shorter_than_the_overhead_never_opens() {
        let key = SecretKey::generate();
        for len in 0..SEAL_OVERHEAD_BYTES {
            assert!(key.open(&vec![0; len]).is_err());
        }
    }
}
