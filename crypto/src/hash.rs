//! SHA-256, the digest that authenticates blocks.
//!
//! Of `sha2`, which uses the processor's own instructions where there are some: there it is several times as fast as
//! libsodium's.

use std::fmt;

use sha2::Digest as _;

public_bytes! {
    /// SHA-256 of something.
    HashDigest
}

/// Does not print: with the digest of clear bytes anybody could tell which known file they are.
impl fmt::Debug for HashDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashDigest")
    }
}

/// SHA-256 of `data`.
#[must_use]
pub fn sha256(data: &[u8]) -> HashDigest {
    HashDigest::from_bytes(sha2::Sha256::digest(data).into())
}

/// SHA-256 of something that arrives in pieces.
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Nothing hashed yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a hash in progress has no meaningful default")]
    pub fn new() -> Self {
        Self(sha2::Sha256::new())
    }

    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> HashDigest {
        HashDigest::from_bytes(self.0.finalize().into())
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hash_like_the_whole_and_a_digest_does_not_print() {
        let mut pieces = Sha256::new();
        pieces.update(b"ab");
        pieces.update(b"");
        pieces.update(b"c");
        let digest = pieces.finish();
        assert_eq!(digest, sha256(b"abc"));
        assert_eq!(digest.as_bytes()[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(format!("{digest:?}"), "HashDigest");
    }
}
