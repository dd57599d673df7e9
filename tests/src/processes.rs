//! What a test of several processes and its processes must agree on.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use parsecfs_backends::conformance::Identity;
use parsecfs_core::{
    id::{DeviceId, RealmId, UserId, VlobId},
    time::Timestamp,
};
use parsecfs_crypto::{PrivateKey, SecretKey, SigningKey};

/// The workspace that all write to.
pub const REALM: RealmId = RealmId::from_bytes([7; 16]);
/// The one file that all write to.
pub const FILE: VlobId = VlobId::from_bytes([1; 16]);

/// What a device's write of this number says.
#[must_use]
pub fn content(device: DeviceId, number: u32) -> Vec<u8> {
    format!("{device}.{number}").into_bytes()
}

/// The machine's time.
///
/// # Panics
/// When the machine's clock is before 1970.
#[must_use]
pub fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_micros(i64::try_from(now.as_micros()).expect("in range")).expect("in range")
}

/// Hands an identity to another process.
///
/// # Errors
/// When the file cannot be written.
pub fn write_identity(path: &Path, identity: &Identity) -> Result<()> {
    let parts: [&[u8]; 6] = [
        identity.device.as_bytes(),
        identity.user.as_bytes(),
        identity.signing_key.expose(),
        identity.private_key.expose(),
        identity.root.expose(),
        identity.organization_key.expose(),
    ];
    Ok(fs::write(path, parts.concat())?)
}

/// Takes an identity from another process.
///
/// # Errors
/// When the file is no identity.
pub fn read_identity(path: &Path) -> Result<Identity> {
    let bytes = fs::read(path)?;
    let id = |at: usize| bytes.get(at..at + 16).and_then(|id| id.try_into().ok()).context("an id");
    let key = |index: usize| {
        let at = 32 + 32 * index;
        bytes.get(at..at + 32).and_then(|key| key.try_into().ok()).context("a key")
    };
    Ok(Identity {
        device: DeviceId::from_bytes(id(0)?),
        user: UserId::from_bytes(id(16)?),
        signing_key: SigningKey::from_seed(key(0)?),
        private_key: PrivateKey::from_bytes(key(1)?),
        root: SigningKey::from_seed(key(2)?),
        organization_key: SecretKey::from_bytes(key(3)?),
    })
}
