//! Runs the cases of the test vectors of formats.md 11, one module for each kind of thing.

pub mod certificate;
pub mod device;
pub mod keys_bundle;
pub mod manifest;
pub mod scalar;
pub mod shamir;
pub mod snapshot;
pub mod tree;
pub mod trust;
pub mod url;

use anyhow::{Context, Result, anyhow, bail, ensure};
use parsecfs_core::error::{Error, ErrorKind};
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

/// The name that the vectors give to a failing step.
pub fn step(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid | ErrorKind::TooLong => "invalid",
        ErrorKind::Decryption => "decryption",
        ErrorKind::Signature => "signature",
        ErrorKind::Format => "format",
        ErrorKind::Zstd => "zstd",
        ErrorKind::Deserialization => "deserialization",
        ErrorKind::Integrity => "integrity",
        ErrorKind::Author => "author",
        ErrorKind::Timestamp => "timestamp",
        ErrorKind::Id => "id",
        ErrorKind::Version => "version",
        ErrorKind::UserId => "user_id",
        ErrorKind::RealmId => "realm_id",
        ErrorKind::DeviceId => "device_id",
        ErrorKind::Algorithm => "algorithm",
        ErrorKind::Size => "size",
        ErrorKind::Digest => "digest",
        ErrorKind::Untrusted => "untrusted",
        ErrorKind::Unsupported => "unsupported",
    }
}

/// Holds an outcome against the step at which the case says that it must fail; `Some` when it rightly succeeded.
pub fn judge<T>(case: &Value, outcome: Result<T, Error>) -> Result<Option<T>> {
    match (case["error"].as_str(), outcome) {
        (None, Ok(value)) => Ok(Some(value)),
        (None, Err(error)) => bail!("refused: {error:?}"),
        (Some(expected), Ok(_)) => bail!("accepted, should fail at {expected}"),
        (Some(expected), Err(error)) => {
            ensure!(step(error.kind()) == expected, "{error:?}, should fail at {expected}");
            Ok(None)
        }
    }
}
