//! RSA envelopes of an organization's sequester services, and signatures of its authority.
//!
//! A client only encrypts and verifies. The private halves are here for the tools of an authority and for tests; their
//! operations are blinded, but the library makes no promise about timing, so keep them away from machines that
//! strangers can measure.

use rsa::{
    Oaep, Pss,
    pkcs8::{DecodePrivateKey, DecodePublicKey},
    traits::PublicKeyParts,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{ErrorKind, Result, SecretKey, random::SystemRng};

const ENCRYPTED_PREFIX: &[u8] = b"RSAES-OAEP-SHA256-XSALSA20-POLY1305:";
const SIGNED_PREFIX: &[u8] = b"RSASSA-PSS-SHA256:";

/// Where members seal copies of keys for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionKey(rsa::PublicKey);

impl EncryptionKey {
    /// Reads a DER `SubjectPublicKeyInfo`.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        rsa::PublicKey::from_public_key_der(der).map(Self).map_err(|_| ErrorKind::Algorithm.into())
    }

    /// Seals `plain` for the service.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>> {
        let key = SecretKey::generate();
        let wrapped =
            self.0.encrypt(&mut SystemRng, Oaep::<Sha256>::new(), key.expose()).map_err(|_| ErrorKind::Algorithm)?;
        Ok([ENCRYPTED_PREFIX, &wrapped, &key.seal(plain)].concat())
    }
}

/// The service's side of an [`EncryptionKey`].
pub struct DecryptionKey(rsa::PrivateKey);

impl DecryptionKey {
    /// Reads a DER PKCS#8 private key.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        rsa::PrivateKey::from_pkcs8_der(der).map(Self).map_err(|_| ErrorKind::Algorithm.into())
    }

    /// Opens what was sealed for the service.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        let (wrapped, body) = split(sealed, ENCRYPTED_PREFIX, self.0.size()).ok_or(ErrorKind::Decryption)?;
        let key = self
            .0
            .decrypt_blinded(&mut SystemRng, Oaep::<Sha256>::new(), wrapped)
            .map(Zeroizing::new)
            .map_err(|_| ErrorKind::Decryption)?;
        SecretKey::try_from(key.as_slice()).map_err(|_| ErrorKind::Decryption)?.open(body)
    }
}

impl std::fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DecryptionKey")
    }
}

/// Checks what the authority signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityVerifyKey(rsa::PublicKey);

impl AuthorityVerifyKey {
    /// Reads a DER `SubjectPublicKeyInfo`.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        rsa::PublicKey::from_public_key_der(der).map(Self).map_err(|_| ErrorKind::Algorithm.into())
    }

    /// The message inside `signed`, if the authority signed it; any salt length is accepted.
    pub fn verify<'a>(&self, signed: &'a [u8]) -> Result<&'a [u8]> {
        let (signature, message) = split(signed, SIGNED_PREFIX, self.0.size()).ok_or(ErrorKind::Signature)?;
        let scheme = Pss { blinded: false, digest: Sha256::new(), salt_len: None };
        self.0.verify(scheme, &Sha256::digest(message), signature).map_err(|_| ErrorKind::Signature)?;
        Ok(message)
    }
}

/// The authority's own key.
pub struct AuthoritySigningKey(rsa::PrivateKey);

impl AuthoritySigningKey {
    /// Reads a DER PKCS#8 private key.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        rsa::PrivateKey::from_pkcs8_der(der).map(Self).map_err(|_| ErrorKind::Algorithm.into())
    }

    /// Signs `message` with the longest salt that fits.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let bits = usize::try_from(self.0.n().bit_width()).map_err(|_| ErrorKind::Algorithm)?;
        let encoded_bytes = (bits - 1).div_ceil(8);
        let salt_bytes = encoded_bytes.checked_sub(Sha256::output_size() + 2).ok_or(ErrorKind::Algorithm)?;
        let scheme = Pss::<Sha256>::new_with_salt(salt_bytes);
        let signature =
            self.0.sign_with_rng(&mut SystemRng, scheme, &Sha256::digest(message)).map_err(|_| ErrorKind::Algorithm)?;
        Ok([SIGNED_PREFIX, &signature, message].concat())
    }
}

impl std::fmt::Debug for AuthoritySigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthoritySigningKey")
    }
}

fn split<'a>(armoured: &'a [u8], prefix: &[u8], rsa_bytes: usize) -> Option<(&'a [u8], &'a [u8])> {
    armoured.strip_prefix(prefix)?.split_at_checked(rsa_bytes)
}

#[cfg(test)]
mod tests {
    use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey};

    use super::*;

    /// Private and public half in DER. The smallest that the library takes, since making one is slow.
    fn key() -> (Vec<u8>, Vec<u8>) {
        let key = rsa::PrivateKey::new(&mut SystemRng, 1024).unwrap();
        let public = rsa::PublicKey::from(&key).to_public_key_der().unwrap().into_vec();
        (key.to_pkcs8_der().unwrap().as_bytes().to_vec(), public)
    }

    #[test]
    fn only_the_service_opens_and_only_whole_envelopes() {
        let (private, public) = key();
        let (service, sealed) = (
            DecryptionKey::from_der(&private).unwrap(),
            EncryptionKey::from_der(&public).unwrap().seal(b"bundle").unwrap(),
        );
        assert_eq!(service.open(&sealed).unwrap(), b"bundle");
        assert_eq!(DecryptionKey::from_der(&key().0).unwrap().open(&sealed).unwrap_err().kind(), ErrorKind::Decryption);
        for len in [0, ENCRYPTED_PREFIX.len() - 1, ENCRYPTED_PREFIX.len(), sealed.len() - 1] {
            assert_eq!(service.open(&sealed[..len]).unwrap_err().kind(), ErrorKind::Decryption);
        }
        for at in [0, ENCRYPTED_PREFIX.len(), sealed.len() - 1] {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(service.open(&bad).unwrap_err().kind(), ErrorKind::Decryption);
        }
    }

    #[test]
    fn a_signature_holds_for_its_message_and_authority_only() {
        let (private, public) = key();
        let signed = AuthoritySigningKey::from_der(&private).unwrap().sign(b"message").unwrap();
        let authority = AuthorityVerifyKey::from_der(&public).unwrap();
        assert_eq!(authority.verify(&signed).unwrap(), b"message");
        assert_eq!(signed.len(), SIGNED_PREFIX.len() + 128 + 7);
        assert!(AuthorityVerifyKey::from_der(&key().1).unwrap().verify(&signed).is_err());
        for at in [0, SIGNED_PREFIX.len(), signed.len() - 1] {
            let mut bad = signed.clone();
            bad[at] ^= 1;
            assert_eq!(authority.verify(&bad).unwrap_err().kind(), ErrorKind::Signature);
        }
        assert_eq!(authority.verify(&signed[..SIGNED_PREFIX.len() + 127]).unwrap_err().kind(), ErrorKind::Signature);
    }

    #[test]
    fn shorter_salts_of_other_writers_are_accepted() {
        let (private, public) = key();
        let private = rsa::PrivateKey::from_pkcs8_der(&private).unwrap();
        let scheme = Pss::<Sha256>::new_with_salt(32);
        let signature = private.sign_with_rng(&mut SystemRng, scheme, &Sha256::digest(b"message")).unwrap();
        let signed = [SIGNED_PREFIX, &signature, b"message"].concat();
        assert_eq!(AuthorityVerifyKey::from_der(&public).unwrap().verify(&signed).unwrap(), b"message");
    }

    #[test]
    fn bytes_that_are_no_key_are_refused_and_private_keys_do_not_print() {
        for der in [&b""[..], b"x", &[0x30, 0x82, 0xff, 0xff], &[0x30; 300]] {
            assert_eq!(EncryptionKey::from_der(der).unwrap_err().kind(), ErrorKind::Algorithm);
            assert_eq!(AuthorityVerifyKey::from_der(der).unwrap_err().kind(), ErrorKind::Algorithm);
            assert_eq!(DecryptionKey::from_der(der).unwrap_err().kind(), ErrorKind::Algorithm);
            assert_eq!(AuthoritySigningKey::from_der(der).unwrap_err().kind(), ErrorKind::Algorithm);
        }
        let private = key().0;
        assert_eq!(format!("{:?}", DecryptionKey::from_der(&private).unwrap()), "DecryptionKey");
        assert_eq!(format!("{:?}", AuthoritySigningKey::from_der(&private).unwrap()), "AuthoritySigningKey");
    }
}
