//! Shamir's secret sharing, byte by byte over GF(2⁸) with x⁸+x⁴+x³+x²+1.
//!
//! A share is its place `x` (1 to 255) followed by one value for each byte of the secret. The secret is the value at 0.
//! Multiplication uses neither tables nor branches that depend on secrets, so that timing tells nothing.

use zeroize::{Zeroize, Zeroizing};

use crate::{ErrorKind, Result, random::fill_random};

/// The polynomial without its highest bit.
const REDUCE: u8 = 0x1d;

/// Splits `secret` into `count` shares of which any `threshold` recover it. `Size` unless 1 ≤ threshold ≤ count.
pub fn split(secret: &[u8], threshold: u8, count: u8) -> Result<Vec<Zeroizing<Vec<u8>>>> {
    if threshold == 0 || count < threshold {
        return Err(ErrorKind::Size.into());
    }
    let mut shares: Vec<_> = (1..=count)
        .map(|x| {
            let mut share = Zeroizing::new(Vec::with_capacity(1 + secret.len()));
            share.push(x);
            share
        })
        .collect();
    let mut higher = Zeroizing::new(vec![0; usize::from(threshold) - 1]);
    for byte in secret {
        fill_random(&mut higher);
        for share in &mut shares {
            let x = share[0];
            let sum = higher.iter().fold(0, |sum, coefficient| multiply(sum ^ coefficient, x));
            share.push(sum ^ byte);
        }
    }
    Ok(shares)
}

/// Recovers the secret from the first `threshold` of `shares`.
///
/// `Decryption` if there are too few, if they differ in length, or if two have the same place. A wrong but well formed
/// share gives a wrong secret: what was shared must be able to tell.
pub fn recover<S: AsRef<[u8]>>(shares: &[S], threshold: u8) -> Result<Zeroizing<Vec<u8>>> {
    let used: Vec<&[u8]> = shares.iter().take(usize::from(threshold)).map(AsRef::as_ref).collect();
    let (places, len) = places(&used, threshold)?;
    let mut weights: Vec<u8> = (0..places.len()).map(|at| weight_at_zero(&places, at)).collect();
    let mut secret = Zeroizing::new(Vec::with_capacity(len));
    for at in 1..len {
        secret.push(used.iter().zip(&weights).fold(0, |sum, (share, weight)| sum ^ multiply(share[at], *weight)));
    }
    weights.zeroize();
    Ok(secret)
}

/// The places of the shares, all different and not 0, and the common length.
fn places(shares: &[&[u8]], threshold: u8) -> Result<(Vec<u8>, usize)> {
    let len = shares.first().map_or(0, |share| share.len());
    if threshold == 0 || shares.len() < usize::from(threshold) || len < 2 {
        return Err(ErrorKind::Decryption.into());
    }
    let mut places = Vec::with_capacity(shares.len());
    for share in shares {
        if share.len() != len || share[0] == 0 || places.contains(&share[0]) {
            return Err(ErrorKind::Decryption.into());
        }
        places.push(share[0]);
    }
    Ok((places, len))
}

/// Lagrange's factor of the share at `places[at]` for the value at 0.
fn weight_at_zero(places: &[u8], at: usize) -> u8 {
    let own = places[at];
    places
        .iter()
        .filter(|other| **other != own)
        .fold(1, |product, other| multiply(product, multiply(*other, invert(*other ^ own))))
}

const fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut product, mut bit) = (a, 0, 0);
    while bit < 8 {
        product ^= a & ((b >> bit) & 1).wrapping_neg();
        a = (a << 1) ^ (REDUCE & (a >> 7).wrapping_neg());
        bit += 1;
    }
    product
}

/// a²⁵⁴, which is 1/a for every a but 0.
fn invert(a: u8) -> u8 {
    (0..253).fold(a, |power, _| multiply(power, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_but_zero_has_an_inverse() {
        for a in 1..=255 {
            assert_eq!(multiply(a, invert(a)), 1);
        }
    }

    #[test]
    fn any_threshold_of_shares_recovers_the_secret_and_fewer_do_not() {
        let secret = b"what was shared";
        let shares = split(secret, 3, 5).unwrap();
        for pick in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
            let picked: Vec<_> = pick.iter().map(|at| shares[*at].as_slice()).collect();
            assert_eq!(*recover(&picked, 3).unwrap(), secret);
            assert_ne!(*recover(&picked[..2], 2).unwrap(), secret);
            assert_eq!(recover(&picked[..2], 3).unwrap_err().kind(), ErrorKind::Decryption);
        }
    }

    #[test]
    fn impossible_thresholds_are_refused() {
        assert_eq!(split(b"x", 0, 1).unwrap_err().kind(), ErrorKind::Size);
        assert_eq!(split(b"x", 3, 2).unwrap_err().kind(), ErrorKind::Size);
        assert_eq!(split(b"x", 255, 255).unwrap().len(), 255);
    }
}
