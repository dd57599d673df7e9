//! Starts libsodium before anything else of it is called.
//!
//! Without it the library works, but runs AEGIS in portable code, and two threads that ask for their first random bytes
//! at once would race inside it.

use std::sync::Once;

/// Starts the library the first time; after that one atomic load.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| libsodium_rs::ensure_init().expect("libsodium starts on any machine that has randomness"));
}
