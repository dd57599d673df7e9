//! SHA-256, the digest that authenticates blocks.

public_bytes! {
    /// SHA-256 of something.
    HashDigest
}

/// SHA-256 of `data`.
#[must_use]
pub fn sha256(data: &[u8]) -> HashDigest {
    HashDigest::from_bytes(libsodium_rs::crypto_hash::sha256::hash(data))
}

/// SHA-256 of something that arrives in pieces.
pub struct Sha256(libsodium_rs::crypto_hash::sha256::State);

impl Sha256 {
    /// Nothing hashed yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a hash in progress has no meaningful default")]
    pub fn new() -> Self {
        Self(libsodium_rs::crypto_hash::sha256::State::new())
    }

    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(mut self) -> HashDigest {
        HashDigest::from_bytes(self.0.finalize())
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256")
    }
}
