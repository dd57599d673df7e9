//! A key as text that a person can copy: 13 groups of 4 base32 symbols.

use zeroize::{Zeroize, Zeroizing};

use crate::{ErrorKind, Result, SecretKey};

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// 256 bits in symbols of 5; the last symbol has 4 spare bits.
const SYMBOLS: usize = 52;
const GROUP: usize = 4;

/// Writes `key` as text. Whoever reads it holds the key.
#[must_use]
pub fn write(key: &SecretKey) -> Zeroizing<String> {
    // Reserved up front, so that no copy of the text is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(SYMBOLS + SYMBOLS / GROUP));
    let (mut bits, mut held) = (0_u16, 0);
    let mut count = 0;
    for byte in key.expose().iter().chain(&[0]) {
        bits = (bits << 8) | u16::from(*byte);
        held += 8;
        while held >= 5 && count < SYMBOLS {
            held -= 5;
            if count > 0 && count % GROUP == 0 {
                text.push('-');
            }
            text.push(char::from(ALPHABET[usize::from((bits >> held) & 31)]));
            count += 1;
        }
    }
    text
}

/// Reads what a person typed: any case, any separators, `0` for `O` and `1` for `I`.
pub fn read(text: &str) -> Result<SecretKey> {
    let mut key = [0; 32];
    let (mut bits, mut held, mut symbols, mut at) = (0_u16, 0, 0, 0);
    for value in text.chars().filter_map(symbol) {
        symbols += 1;
        bits = (bits << 5) | value;
        held += 5;
        if held >= 8 && at < key.len() {
            held -= 8;
            key[at] = (bits >> held).to_le_bytes()[0];
            at += 1;
            bits &= (1 << held) - 1;
        }
        if symbols > SYMBOLS {
            break;
        }
    }
    let parsed = if symbols == SYMBOLS { Ok(SecretKey::from_bytes(key)) } else { Err(ErrorKind::KeySize.into()) };
    key.zeroize();
    parsed
}

fn symbol(typed: char) -> Option<u16> {
    let wanted = match typed.to_ascii_uppercase() {
        '0' => 'O',
        '1' => 'I',
        other => other,
    };
    let at = ALPHABET.iter().position(|symbol| char::from(*symbol) == wanted)?;
    u16::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_being_written_and_typed_in_lower_case_without_hyphens() {
        for key in [SecretKey::from_bytes([0; 32]), SecretKey::from_bytes([255; 32]), SecretKey::generate()] {
            let text = write(&key);
            assert_eq!(text.len(), 64);
            assert_eq!(read(&text).unwrap(), key);
            assert_eq!(read(&text.replace('-', " ").to_lowercase()).unwrap(), key);
        }
    }

    #[test]
    fn one_symbol_too_few_or_too_many_is_refused() {
        let text = write(&SecretKey::generate());
        assert_eq!(read(&text[1..]).unwrap_err().kind(), ErrorKind::KeySize);
        assert_eq!(read(&format!("{}A", *text)).unwrap_err().kind(), ErrorKind::KeySize);
        assert_eq!(read("").unwrap_err().kind(), ErrorKind::KeySize);
    }
}
