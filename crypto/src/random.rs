//! Random bytes of the operating system, and the generator interface that `rsa` asks for.

use std::convert::Infallible;

use rsa::rand_core::{TryCryptoRng, TryRng};

use crate::start;

/// Fresh random bytes.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

/// Fills `bytes` with fresh random ones.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    start();
    libsodium_rs::random::fill_bytes(bytes);
}

/// A uniform number below `bound`; 0 when `bound` is 0.
#[must_use]
pub fn random_below(bound: u32) -> u32 {
    start();
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
        fill_random(dst);
        Ok(())
    }
}

impl TryCryptoRng for SystemRng {}
