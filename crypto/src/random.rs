//! Random bytes of the operating system, and the generator interface that `rsa` asks for.

use std::convert::Infallible;

use rsa::rand_core::{TryCryptoRng, TryRng};

/// Fresh random bytes.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    libsodium_rs::random::fill_bytes(&mut bytes);
    bytes
}

/// A uniform number below `bound`; 0 when `bound` is 0.
#[must_use]
pub fn random_below(bound: u32) -> u32 {
    libsodium_rs::random::uniform(bound)
}

/// libsodium's generator, as `rsa` wants to see one.
pub(crate) struct SystemRng;

impl TryRng for SystemRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(random_bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(random_bytes()))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        libsodium_rs::random::fill_bytes(dst);
        Ok(())
    }
}

impl TryCryptoRng for SystemRng {}
