//! For fuzzers.

/// Reads a record of the certificate store.
pub fn read_record(bytes: &[u8]) {
    drop(super::realm_keys::decode(bytes));
}
