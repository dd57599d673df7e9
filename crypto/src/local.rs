//! The local form: how everything in the local store is sealed. AEGIS-256, fast enough for every page.
//!
//! Unlike the remote form, the caller brings the nonce and says, as associated data, which place the bytes belong to.
//! Bytes that are moved to another place do not open there.
//!
//! Invariant kept by callers: under one key, a nonce is used for one text only.

use crate::{ErrorKind, Result, SecretKey, aegis, random_bytes};

/// What sealing adds.
pub const LOCAL_TAG_BYTES: usize = aegis::BYTES;

secret_bytes! {
    /// A key for the local form.
    LocalKey, 32
}

impl LocalKey {
    /// Wraps a key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key for one kind of local data, from the device's local key.
    #[must_use]
    pub fn derive(device: &SecretKey, purpose: &[u8; 8]) -> Self {
        let mut name = *b"local-1 ........";
        name[8..].copy_from_slice(purpose);
        Self::from_bytes(*device.derive(&name).expose())
    }

    /// Appends ciphertext ‖ tag to `out`.
    pub fn seal_into(&self, nonce: &LocalNonce, ad: &[u8], plain: &[u8], out: &mut Vec<u8>) {
        aegis::seal_append(&self.0, &nonce.0, ad, plain, out);
    }

    /// Opens into `out`, whose length is that of `sealed` without the tag. On failure `out` holds zeros.
    pub fn open_into(&self, nonce: &LocalNonce, ad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<()> {
        if aegis::open(&self.0, &nonce.0, ad, sealed, out) { Ok(()) } else { Err(ErrorKind::Decryption.into()) }
    }
}

/// What makes one sealing different from every other under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalNonce([u8; 32]);

impl LocalNonce {
    /// Made of an identity and two counters, which the caller never repeats together.
    #[must_use]
    pub fn new(id: [u8; 16], a: u64, b: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&id);
        bytes[16..24].copy_from_slice(&a.to_le_bytes());
        bytes[24..].copy_from_slice(&b.to_le_bytes());
        Self(bytes)
    }

    /// Random: 256 bits never repeat. To be stored beside what it sealed.
    #[must_use]
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// A nonce that was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> LocalKey {
        LocalKey::derive(&SecretKey::generate(), b"page    ")
    }

    #[test]
    fn what_is_sealed_opens_at_its_place_only() {
        let (key, nonce) = (key(), LocalNonce::new([1; 16], 2, 3));
        for len in [0, 1, 4095, 4096, 4097, 65536] {
            let plain = vec![9; len];
            let mut sealed = b"head".to_vec();
            key.seal_into(&nonce, b"place", &plain, &mut sealed);
            assert_eq!(sealed.len(), 4 + len + LOCAL_TAG_BYTES);
            let mut out = vec![1; len];
            key.open_into(&nonce, b"place", &sealed[4..], &mut out).unwrap();
            assert_eq!(out, plain);
            assert!(key.open_into(&nonce, b"other", &sealed[4..], &mut out).is_err());
            assert!(out.iter().all(|byte| *byte == 0), "nothing unauthenticated is handed out");
            assert!(key.open_into(&LocalNonce::new([1; 16], 2, 4), b"place", &sealed[4..], &mut out).is_err());
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let (key, nonce) = (key(), LocalNonce::random());
        let mut sealed = Vec::new();
        key.seal_into(&nonce, b"", &[5; 40], &mut sealed);
        for at in 0..sealed.len() {
            sealed[at] ^= 0x80;
            assert!(key.open_into(&nonce, b"", &sealed, &mut [0; 40]).is_err());
            sealed[at] ^= 0x80;
        }
        key.open_into(&nonce, b"", &sealed, &mut [0; 40]).unwrap();
    }

    #[test]
    fn an_output_of_another_size_is_refused() {
        let (key, nonce) = (key(), LocalNonce::random());
        let mut sealed = Vec::new();
        key.seal_into(&nonce, b"", &[5; 40], &mut sealed);
        for len in [0, 39, 41] {
            assert!(key.open_into(&nonce, b"", &sealed, &mut vec![0; len]).is_err());
        }
        assert!(key.open_into(&nonce, b"", &sealed[..31], &mut []).is_err());
    }

    #[test]
    fn purposes_have_keys_of_their_own() {
        let device = SecretKey::generate();
        assert_ne!(LocalKey::derive(&device, b"page    "), LocalKey::derive(&device, b"chunk   "));
    }

    /// First test vector of the AEGIS-256 draft (draft-irtf-cfrg-aegis-aead, 256-bit tag): the local store written by one
    /// library is read by another.
    #[test]
    fn the_bytes_are_those_of_the_published_algorithm() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let array = |text: &str| <[u8; 32]>::try_from(hex(text)).unwrap();
        let key = LocalKey::from_bytes(array("1001000000000000000000000000000000000000000000000000000000000000"));
        let nonce = LocalNonce::from_bytes(array("1000020000000000000000000000000000000000000000000000000000000000"));
        let mut sealed = Vec::new();
        key.seal_into(&nonce, b"", &[0; 16], &mut sealed);
        let expected =
            "754fc3d8c973246dcc6d741412a4b2361181a1d18091082bf0266f66297d167d2e68b845f61a3b0527d31fc7b7b89f13";
        assert_eq!(data_encoding::HEXLOWER.encode(&sealed), expected);
    }
}
