//! Documents with a signature.

use parsecfs_crypto::{SigningKey, VerifyKey};
use zeroize::Zeroizing;

use super::{Document, to_secret_frame};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a signature, which stands before what is signed.
const SIGNATURE_BYTES: usize = 64;

/// Frames and signs.
pub(crate) fn sign(document: &impl Document, key: &SigningKey) -> Vec<u8> {
    key.sign(&document.to_frame())
}

/// The same for a document that holds secrets: what it passes through is wiped, and so is the result.
pub(crate) fn sign_secret(document: &impl Document, key: &SigningKey) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(key.sign(&to_secret_frame(document.write())))
}

/// The framed document, once its signature holds.
pub(crate) fn verify<'a>(signed: &'a [u8], key: &VerifyKey) -> Result<&'a [u8]> {
    key.verify(signed).map_err(|_| Error::new(ErrorKind::Signature, "not signed by this key"))
}

/// The framed document, whoever signed it: only to learn who claims to have.
pub(crate) fn without_trust(signed: &[u8]) -> Result<&[u8]> {
    signed.get(SIGNATURE_BYTES..).ok_or(Error::new(ErrorKind::Signature, "too short for a signature"))
}
