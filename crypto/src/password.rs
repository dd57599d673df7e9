//! Keys made from passwords. Slow on purpose: call it from a thread that may block.

use libsodium_rs::{crypto_generichash, crypto_pwhash::argon2id};
use zeroize::Zeroize;

use crate::{ErrorKind, Result, SecretKey, random_bytes};

/// Cost and salt of one password derivation (Argon2id 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2id {
    /// Memory in KiB, at least 8.
    pub memlimit_kb: u32,
    /// Passes, at least 1.
    pub opslimit: u32,
    /// Lanes; only 1 exists.
    pub parallelism: u32,
    /// Random, kept beside what the key seals.
    pub salt: [u8; 16],
}

impl Argon2id {
    /// What new device files are written with: 128 MiB, 3 passes, fresh salt.
    #[must_use]
    pub fn generate() -> Self {
        Self { memlimit_kb: 131_072, opslimit: 3, parallelism: 1, salt: random_bytes() }
    }

    /// The key that belongs to `password`, as typed (no normalization). `Size` if the parameters are out of range.
    pub fn derive(&self, password: &[u8]) -> Result<SecretKey> {
        self.check()?;
        let memory =
            usize::try_from(self.memlimit_kb).ok().and_then(|kb| kb.checked_mul(1024)).ok_or(ErrorKind::Size)?;
        let mut derived = argon2id::pwhash(32, password, &self.salt, u64::from(self.opslimit), memory)
            .map_err(|_| ErrorKind::Size)?;
        let key = SecretKey::try_from(derived.as_slice());
        derived.zeroize();
        key
    }

    fn check(&self) -> Result<()> {
        if self.opslimit < 1 || self.memlimit_kb < 8 || self.parallelism != 1 {
            return Err(ErrorKind::Size.into());
        }
        Ok(())
    }
}

/// The salt of an account password, which follows from the e-mail address.
#[must_use]
pub fn account_password_salt(email: &str) -> [u8; 16] {
    let mut input = b"PARSEC_PASSWORD_ARGON2ID.".to_vec();
    input.extend_from_slice(email.as_bytes());
    crypto_generichash::generichash(&input, None, 16)
        .ok()
        .and_then(|salt| salt.try_into().ok())
        .expect("BLAKE2b makes 16 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_out_of_range_are_refused() {
        let good = Argon2id { memlimit_kb: 8, opslimit: 1, parallelism: 1, salt: [1; 16] };
        assert!(good.derive(b"").is_ok());
        for bad in [
            Argon2id { memlimit_kb: 7, ..good },
            Argon2id { opslimit: 0, ..good },
            Argon2id { parallelism: 0, ..good },
            Argon2id { parallelism: 2, ..good },
        ] {
            assert_eq!(bad.derive(b"x").unwrap_err().kind(), ErrorKind::Size);
        }
    }
}
