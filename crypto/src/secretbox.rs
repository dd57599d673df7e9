//! XSalsa20-Poly1305 straight from libsodium: what sealing and opening a block of half a MiB costs is mostly memory.
//!
//! The safe wrapper makes a vector without room for the nonce, which has to be copied behind it, and zeroes what it is
//! about to overwrite. [`SecretKey`](crate::SecretKey) is the face of this module.
#![allow(unsafe_code, reason = "calls the C library without a copy; every block says why it is sound")]

use libsodium_sys as sodium;

use crate::start;

pub(crate) const KEY_BYTES: usize = 32;
pub(crate) const NONCE_BYTES: usize = 24;
pub(crate) const TAG_BYTES: usize = 16;

/// Nonce ‖ tag ‖ ciphertext.
pub(crate) fn seal(key: &[u8; KEY_BYTES], nonce: &[u8; NONCE_BYTES], plain: &[u8]) -> Vec<u8> {
    start();
    let bytes = NONCE_BYTES + TAG_BYTES + plain.len();
    let mut sealed = Vec::with_capacity(bytes);
    sealed.extend_from_slice(nonce);
    // SAFETY: `with_capacity` made room for `bytes`, of which the nonce takes the first; the library writes exactly the
    // rest: a tag of 16 and the ciphertext, as long as `plain`. `plain`, `nonce` and `key` are borrowed slices of the
    // stated lengths and cannot overlap a new vector. The call returns 0 always for lengths that fit into memory;
    // `set_len` covers bytes that it has just initialised.
    unsafe {
        sodium::crypto_secretbox_easy(
            sealed.as_mut_ptr().add(NONCE_BYTES),
            plain.as_ptr(),
            plain.len() as u64,
            nonce.as_ptr(),
            key.as_ptr(),
        );
        sealed.set_len(bytes);
    }
    sealed
}

/// Opens what [`seal`] made; `None` for anything else.
pub(crate) fn open(key: &[u8; KEY_BYTES], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let bytes = body.len().checked_sub(TAG_BYTES)?;
    start();
    let mut plain = Vec::with_capacity(bytes);
    // SAFETY: the library writes `body.len() - 16` bytes, for which `with_capacity` made room, and all of them when it
    // returns 0; only then does `set_len` cover them. The inputs are borrowed slices of the stated lengths and cannot
    // overlap a new vector.
    unsafe {
        let status = sodium::crypto_secretbox_open_easy(
            plain.as_mut_ptr(),
            body.as_ptr(),
            body.len() as u64,
            nonce.as_ptr(),
            key.as_ptr(),
        );
        if status != 0 {
            return None;
        }
        plain.set_len(bytes);
    }
    Some(plain)
}
