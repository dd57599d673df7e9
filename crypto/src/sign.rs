//! Ed25519: who said it.

use libsodium_rs::crypto_sign;

use crate::{ErrorKind, Result, start};

/// Size of a signature.
pub const SIGNATURE_BYTES: usize = 64;

secret_bytes! {
    /// The signing key of a device or of an organization's root, kept as its 32-byte seed.
    SigningKey, 32
}

kept_in_documents!(SigningKey, from_seed);

impl SigningKey {
    /// The key that others check our signatures with.
    #[must_use]
    pub fn verify_key(&self) -> VerifyKey {
        VerifyKey::from_bytes(*self.sodium().public_key.as_bytes())
    }

    /// Signs: signature ‖ message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signed = Vec::with_capacity(SIGNATURE_BYTES + message.len());
        signed.extend_from_slice(&self.sign_detached(message));
        signed.extend_from_slice(message);
        signed
    }

    /// The signature alone.
    #[must_use]
    pub fn sign_detached(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        crypto_sign::sign_detached(message, &self.sodium().secret_key).expect("Ed25519 signs any message")
    }

    fn sodium(&self) -> crypto_sign::KeyPair {
        start();
        crypto_sign::KeyPair::from_seed(&self.0).expect("any 32 bytes are an Ed25519 seed")
    }
}

public_bytes! {
    /// The public half of a [`SigningKey`].
    VerifyKey
}

prints_hex!(VerifyKey);

impl VerifyKey {
    /// The message inside `signed`, if this key signed it.
    pub fn verify<'a>(&self, signed: &'a [u8]) -> Result<&'a [u8]> {
        let (signature, message) = signed.split_first_chunk().ok_or(ErrorKind::Signature)?;
        self.verify_detached(signature, message)?;
        Ok(message)
    }

    /// Whether this key made `signature` over `message`.
    pub fn verify_detached(&self, signature: &[u8; SIGNATURE_BYTES], message: &[u8]) -> Result<()> {
        start();
        let key = crypto_sign::PublicKey::from_bytes(&self.0).map_err(|_| ErrorKind::Signature)?;
        if crypto_sign::verify_detached(signature, message, &key) { Ok(()) } else { Err(ErrorKind::Signature.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let key = SigningKey::generate();
        let signed = key.sign(b"message");
        assert_eq!(key.verify_key().verify(&signed).unwrap(), b"message");
        assert_eq!(signed[..SIGNATURE_BYTES], key.sign_detached(b"message"));
        assert!(SigningKey::generate().verify_key().verify(&signed).is_err());
        for at in [0, 63, 64, signed.len() - 1] {
            let mut bad = signed.clone();
            bad[at] ^= 1;
            assert_eq!(key.verify_key().verify(&bad).unwrap_err().kind(), ErrorKind::Signature);
        }
        assert!(key.verify_key().verify(&signed[..63]).is_err());
    }
}
