//! Runs the cases of the test vectors of formats.md 11, one module for each kind of thing.

pub mod certificate;
pub mod crypto;
pub mod device;
pub mod keys_bundle;
pub mod manifest;
pub mod merge;
pub mod scalar;
pub mod shamir;
pub mod snapshot;
pub mod tree;
pub mod trust;
pub mod url;

use std::fmt::Debug;

use anyhow::{Context, Result, anyhow, bail, ensure};
use parsecfs_core::error::ErrorKind as CoreKind;
use parsecfs_crypto::{ErrorKind as CryptoKind, SecretKey};
use serde_json::Value;

/// The bytes of a field in hexadecimal.
pub fn hex(case: &Value, field: &str) -> Result<Vec<u8>> {
    unhex(&case[field]).with_context(|| format!("field {field}"))
}

/// The bytes of a text in hexadecimal, hyphens ignored.
pub fn unhex(value: &Value) -> Result<Vec<u8>> {
    let text = value.as_str().context("not text")?.replace('-', "");
    Ok(data_encoding::HEXLOWER.decode(text.as_bytes())?)
}

/// The same, of a known length.
pub fn hex_array<const N: usize>(case: &Value, field: &str) -> Result<[u8; N]> {
    hex(case, field)?.try_into().map_err(|_| anyhow!("field {field} has another length"))
}

/// A field that is text.
pub fn text<'a>(case: &'a Value, field: &str) -> Result<&'a str> {
    case[field].as_str().with_context(|| format!("field {field}"))
}

/// Compares a derived key, where the case has one, with the key that follows from the realm key.
pub fn derived(case: &Value, realm_key: &SecretKey, purpose: &str) -> Result<()> {
    if case["derived_key"].is_null() {
        return Ok(());
    }
    let expected = SecretKey::from_bytes(hex_array(case, "derived_key")?);
    ensure!(realm_key.derive(&hex_array(case, purpose)?) == expected, "another derived key");
    Ok(())
}

/// An error of which the vectors name the step.
pub trait Failure: Debug {
    /// The name that the vectors give to the failing step.
    fn step(&self) -> &'static str;
}

impl Failure for parsecfs_core::error::Error {
    fn step(&self) -> &'static str {
        match self.kind() {
            CoreKind::Invalid | CoreKind::TooLong => "invalid",
            CoreKind::Decryption => "decryption",
            CoreKind::Signature => "signature",
            CoreKind::Format => "format",
            CoreKind::Zstd => "zstd",
            CoreKind::Deserialization => "deserialization",
            CoreKind::Integrity => "integrity",
            CoreKind::Author => "author",
            CoreKind::Timestamp => "timestamp",
            CoreKind::Id => "id",
            CoreKind::Version => "version",
            CoreKind::UserId => "user_id",
            CoreKind::RealmId => "realm_id",
            CoreKind::DeviceId => "device_id",
            CoreKind::Algorithm => "algorithm",
            CoreKind::Size => "size",
            CoreKind::Digest => "digest",
            CoreKind::Untrusted => "untrusted",
            CoreKind::Unsupported => "unsupported",
        }
    }
}

impl Failure for parsecfs_crypto::Error {
    fn step(&self) -> &'static str {
        match self.kind() {
            CryptoKind::Decryption => "decryption",
            CryptoKind::Signature => "signature",
            CryptoKind::Size => "size",
            CryptoKind::KeySize => "key_size",
            CryptoKind::Algorithm => "algorithm",
            CryptoKind::Internal => "internal",
        }
    }
}

/// Holds an outcome against the step at which the case says that it must fail; `Some` when it rightly succeeded.
pub fn judge<T>(case: &Value, outcome: Result<T, impl Failure>) -> Result<Option<T>> {
    match (case["error"].as_str(), outcome) {
        (None, Ok(value)) => Ok(Some(value)),
        (None, Err(error)) => bail!("refused: {error:?}"),
        (Some(expected), Ok(_)) => bail!("accepted, should fail at {expected}"),
        (Some(expected), Err(error)) => {
            ensure!(error.step() == expected, "{error:?}, should fail at {expected}");
            Ok(None)
        }
    }
}
