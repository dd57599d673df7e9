//! Keys made from passwords. Slow on purpose: call it from a thread that may block.

use libsodium_rs::{crypto_generichash, crypto_pwhash::argon2id};
use zeroize::Zeroize;

use crate::{ErrorKind, Result, SecretKey, random_bytes, start};

/// Most memory that a derivation may ask for: 4 GiB. Whoever can write a device file or answers for an account could
/// otherwise have this machine run out of memory.
const MEMLIMIT_KB_MAX: u32 = 4 << 20;
/// Most work, in KiB times passes: about 170 times what new files ask for, which is half a minute.
const WORK_MAX: u64 = 64 << 20;

/// Cost and salt of one password derivation (Argon2id 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argon2id {
    /// Memory in KiB, 8 to 4 Mi.
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

    /// The key that belongs to `password`, as typed (no normalization). `Size` if the parameters are out of range,
    /// `Internal` if this machine has not the memory.
    pub fn derive(&self, password: &[u8]) -> Result<SecretKey> {
        self.check()?;
        start();
        let memory =
            usize::try_from(self.memlimit_kb).ok().and_then(|kb| kb.checked_mul(1024)).ok_or(ErrorKind::Size)?;
        let mut derived = argon2id::pwhash(32, password, &self.salt, u64::from(self.opslimit), memory)
            .map_err(|_| ErrorKind::Internal)?;
        let key = SecretKey::try_from(derived.as_slice());
        derived.zeroize();
        key
    }

    fn check(&self) -> Result<()> {
        let work = u64::from(self.memlimit_kb) * u64::from(self.opslimit);
        let known = self.opslimit >= 1
            && (8..=MEMLIMIT_KB_MAX).contains(&self.memlimit_kb)
            && work <= WORK_MAX
            && self.parallelism == 1;
        if !known {
            return Err(ErrorKind::Size.into());
        }
        Ok(())
    }
}

/// The salt of an account password, which follows from the e-mail address.
#[must_use]
pub fn account_password_salt(email: &str) -> [u8; 16] {
    start();
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
            Argon2id { memlimit_kb: MEMLIMIT_KB_MAX + 1, ..good },
            Argon2id { memlimit_kb: u32::MAX, ..good },
            Argon2id { opslimit: u32::MAX, ..good },
            Argon2id { parallelism: 0, ..good },
            Argon2id { parallelism: 2, ..good },
        ] {
            assert_eq!(bad.derive(b"x").unwrap_err().kind(), ErrorKind::Size);
        }
    }

    #[test]
    fn key_and_salt_are_those_of_every_other_implementation() {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let salt = data_encoding::HEXLOWER.decode(b"f52e1e5f03d585cd11c69e7f071b1a96").unwrap();
        let argon = Argon2id { memlimit_kb: 1024, opslimit: 2, parallelism: 1, salt: salt.try_into().unwrap() };
        let key = argon.derive("x".repeat(200).as_bytes()).unwrap();
        assert_eq!(hex(key.expose()), "e763ae2992f1bc3a8a2cd7fcdb87fbe8ec4fc81093abebe90d69e14fd3b6a2cf");
        assert_eq!(hex(&account_password_salt("alice@example.com")), "58403066db4ea4b72f2527ea4e5977b2");
        assert_ne!(account_password_salt("alice@example.com"), account_password_salt("Alice@example.com"));
    }
}
