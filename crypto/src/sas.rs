//! Short authentication strings: the four-character codes that two people read to each other.

use std::fmt;

use crate::{ErrorKind, Result, SecretKey, random_below};

/// No I, O, 0, 1: they are misheard.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const CODE_BITS: u32 = 20;
const CODES: u32 = 1 << CODE_BITS;

/// One code of 20 bits. Printed least significant symbol first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SasCode(u32);

impl SasCode {
    /// The code for a number below 2²⁰.
    pub fn from_number(number: u32) -> Result<Self> {
        if number < CODES { Ok(Self(number)) } else { Err(ErrorKind::Size.into()) }
    }

    /// Reads four symbols. Letter case counts.
    pub fn parse(text: &str) -> Result<Self> {
        let symbols: [u8; 4] = text.as_bytes().try_into().map_err(|_| ErrorKind::Size)?;
        let mut number = 0;
        for symbol in symbols.iter().rev() {
            let at = ALPHABET.iter().position(|known| known == symbol).ok_or(ErrorKind::Size)?;
            number = (number << 5) | u32::try_from(at).map_err(|_| ErrorKind::Size)?;
        }
        Ok(Self(number))
    }

    /// `count` different codes in random order, this one among them: what the listening side chooses from.
    #[must_use]
    pub fn candidates(self, count: usize) -> Vec<Self> {
        let mut codes = vec![self];
        while codes.len() < count {
            let other = Self(random_below(CODES));
            if !codes.contains(&other) {
                codes.push(other);
            }
        }
        // All but the first are random already, so one swap hides the right one.
        let place = random_below(u32::try_from(codes.len()).unwrap_or(1));
        codes.swap(0, usize::try_from(place).unwrap_or(0));
        codes
    }
}

impl fmt::Display for SasCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in 0..4 {
            let symbol = ALPHABET[(self.0 >> (5 * place)) as usize & 31];
            write!(f, "{}", char::from(symbol))?;
        }
        Ok(())
    }
}

/// The two codes of one exchange: each side reads its own aloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SasCodes {
    /// Read aloud by the invited side.
    pub claimer: SasCode,
    /// Read aloud by the inviting side.
    pub greeter: SasCode,
}

impl SasCodes {
    /// The codes that both sides see when nobody sits between them.
    #[must_use]
    pub fn new(shared: &SecretKey, claimer_nonce: &[u8], greeter_nonce: &[u8]) -> Self {
        let mac = shared.mac512(&[claimer_nonce, greeter_nonce].concat());
        let mut wide = [0; 8];
        wide[3..].copy_from_slice(&mac[..5]);
        let number = u64::from_be_bytes(wide);
        let code = |shift: u32| {
            let bits = (number >> shift) & u64::from(CODES - 1);
            SasCode(u32::try_from(bits).expect("20 bits fit in 32"))
        };
        Self { claimer: code(0), greeter: code(CODE_BITS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_symbol_reads_back() {
        for number in [0, 1, 32, 0x12345, CODES - 1] {
            let code = SasCode::from_number(number).unwrap();
            assert_eq!(SasCode::parse(&code.to_string()).unwrap(), code);
        }
        assert!(SasCode::from_number(CODES).is_err());
        for wrong in ["", "AAA", "AAAAA", "aaaa", "AAI0"] {
            assert!(SasCode::parse(wrong).is_err());
        }
    }

    #[test]
    fn candidates_hold_the_right_code_once() {
        let right = SasCode::from_number(5).unwrap();
        for count in [1, 3, 4] {
            let codes = right.candidates(count);
            assert_eq!(codes.len(), count);
            assert_eq!(codes.iter().filter(|code| **code == right).count(), 1);
        }
    }
}
