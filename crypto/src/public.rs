//! Envelopes to one reader: X25519 with XSalsa20-Poly1305, anonymous sender.

use libsodium_rs::{crypto_box, crypto_scalarmult::curve25519};

use crate::{ErrorKind, Result, start};

secret_bytes! {
    /// The private key of a user, shared by all their devices, or of one side of a key exchange.
    PrivateKey, 32
}

kept_in_documents!(PrivateKey, from_bytes);

impl PrivateKey {
    /// The key that others seal to.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        start();
        PublicKey(curve25519::scalarmult_base(&self.0).expect("the base point has a multiple for every key"))
    }

    /// Opens what was sealed to our public key.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        let public = self.public_key().sodium()?;
        let private = crypto_box::SecretKey::from_bytes(&self.0).map_err(|_| ErrorKind::KeySize)?;
        crypto_box::open_sealed_box(sealed, &public, &private).map_err(|_| ErrorKind::Decryption.into())
    }
}

public_bytes! {
    /// The public half of a [`PrivateKey`].
    PublicKey
}

prints_hex!(PublicKey);

impl PublicKey {
    /// Seals so that only the holder of the private key can open it. `Algorithm` if this is no usable point.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        crypto_box::seal_box(plain, &self.sodium()?).map_err(|_| ErrorKind::Algorithm.into())
    }

    fn sodium(&self) -> Result<crypto_box::PublicKey> {
        start();
        crypto_box::PublicKey::from_bytes(&self.0).map_err(|_| ErrorKind::KeySize.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_addressee_opens_an_envelope() {
        let key = PrivateKey::generate();
        let sealed = key.public_key().seal(b"hello").unwrap();
        assert_eq!(sealed.len(), 5 + 48);
        assert_eq!(key.open(&sealed).unwrap(), b"hello");
        assert_eq!(PrivateKey::generate().open(&sealed).unwrap_err().kind(), ErrorKind::Decryption);
        assert_eq!(key.open(&sealed[..47]).unwrap_err().kind(), ErrorKind::Decryption);
    }

    #[test]
    fn a_point_of_small_order_is_refused() {
        assert_eq!(PublicKey::from_bytes([0; 32]).seal(b"x").unwrap_err().kind(), ErrorKind::Algorithm);
    }
}
