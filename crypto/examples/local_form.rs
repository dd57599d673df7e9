//! How fast the local form is, beside the safe wrapper of `libsodium-rs`, whose
//! result must be copied to where it is wanted.
//!
//! `cargo run --release -p parsecfs-crypto --example local_form`: fastest of 15 rounds, since other load only adds;
//! one core, data in caches.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "measuring takes a clock and says what it found")]

use std::{hint::black_box, time::Instant};

use libsodium_rs::crypto_aead::aegis256;
use parsecfs_crypto::{
    SecretKey,
    local::{LOCAL_TAG_BYTES, LocalKey, LocalNonce},
};

const ROUNDS: usize = 15;
const BYTES_PER_ROUND: usize = 64 << 20;

fn main() {
    println!("{:>6}  {:<14} {:>9} {:>9}", "bytes", "", "ns", "GB/s");
    for len in [4 << 10, 64 << 10, 512 << 10] {
        ours(len);
        wrapper(len);
    }
}

fn ours(len: usize) {
    let key = LocalKey::derive(&SecretKey::generate(), b"measure ");
    let (plain, mut sealed, mut out) = (vec![7; len], Vec::new(), vec![0; len]);
    let mut count = 0;
    report(len, "seal_into", || {
        count += 1;
        sealed.clear();
        key.seal_into(&LocalNonce::new([1; 16], count, 0), b"page", black_box(&plain), &mut sealed);
    });
    let nonce = LocalNonce::new([1; 16], count, 0);
    report(len, "open_into", || {
        key.open_into(&nonce, b"page", black_box(&sealed), &mut out).expect("just sealed");
    });
    assert_eq!(sealed.len(), len + LOCAL_TAG_BYTES);
}

fn wrapper(len: usize) {
    let (key, nonce, plain) = (aegis256::Key::generate(), aegis256::Nonce::generate(), vec![7; len]);
    let (mut sealed, mut out) = (Vec::new(), vec![0; len]);
    let seal = || aegis256::encrypt(black_box(&plain), Some(b"page"), &nonce, &key).expect("any text is sealed");
    report(len, "wrapper seal", || {
        sealed.clear();
        sealed.extend_from_slice(&seal());
    });
    let open = |sealed: &[u8]| aegis256::decrypt(sealed, Some(b"page"), &nonce, &key).expect("just sealed");
    report(len, "wrapper open", || out.copy_from_slice(&open(black_box(&sealed))));
}

fn report(len: usize, what: &str, mut run: impl FnMut()) {
    let count = BYTES_PER_ROUND / len;
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        (0..count).for_each(|_| run());
        start.elapsed().as_secs_f64() / count as f64
    });
    let seconds = rounds.fold(f64::INFINITY, f64::min);
    println!("{len:>6}  {what:<14} {:>9.0} {:>9.2}", seconds * 1e9, len as f64 / seconds / 1e9);
}
