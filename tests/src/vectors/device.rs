//! Device files with the devices in them, and what invitations hand over.

use anyhow::{Context, Result, bail, ensure};
use parsecfs_core::{
    device_file::{DeviceFile, FileProtection},
    error::{Error, ErrorKind},
    invite::{InviteDeviceConfirmation, InviteDeviceData, InviteUserConfirmation, InviteUserData},
};
use parsecfs_crypto::SecretKey;
use serde_json::Value;

use super::{hex, hex_array, judge, text, tree};

/// Runs a case of `device_file`.
pub fn file(case: &Value) -> Result<()> {
    let outcome = DeviceFile::from_bytes(&hex(case, "file")?).and_then(|file| {
        let key = key(case, &file)?;
        file.open(&key).map(|device| (file, key, device))
    });
    let Some((file, key, device)) = judge(case, outcome)? else { return Ok(()) };
    ensure!(tree::of_msgpack(&key.open(&device.seal(&key))?)? == case["local_device"], "another device");
    ensure!(DeviceFile::from_bytes(&file.to_bytes())? == file, "written otherwise");
    let lenient = ["extra", "absent", "positional"].iter().any(|word| text(case, "name").unwrap_or("").contains(word));
    ensure!(lenient || file.to_bytes() == hex(case, "file")?, "written with other bytes");
    if let (FileProtection::Keyring { .. }, Ok(expected)) = (&file.protection, hex_array(case, "key")) {
        ensure!(key == SecretKey::from_bytes(expected), "another key");
    }
    Ok(())
}

fn key(case: &Value, file: &DeviceFile) -> Result<SecretKey, Error> {
    let secret = ["password", "passphrase", "keyring_secret"].iter().find_map(|field| case[*field].as_str());
    match secret {
        Some(secret) => file.key_from(secret),
        None => hex_array(case, "key")
            .map(SecretKey::from_bytes)
            .map_err(|_| Error::new(ErrorKind::Unsupported, "the case has no key")),
    }
}

/// Runs a case of `invite_payloads`.
pub fn invite(case: &Value) -> Result<()> {
    let key = SecretKey::from_bytes(hex_array(case, "shared_key")?);
    let sealed = hex(case, "payload")?;
    let name = text(case, "name")?;
    let again = match name.trim_start_matches("neg-") {
        kind if kind.starts_with("user-data") => InviteUserData::open(&sealed, &key).map(|data| data.seal(&key)),
        kind if kind.starts_with("user-confirmation") => {
            InviteUserConfirmation::open(&sealed, &key).map(|data| data.seal(&key))
        }
        kind if kind.starts_with("device-data") => InviteDeviceData::open(&sealed, &key).map(|data| data.seal(&key)),
        kind if kind.starts_with("device-confirmation") => {
            InviteDeviceConfirmation::open(&sealed, &key).map(|data| data.seal(&key))
        }
        _ => bail!("unknown payload"),
    };
    let Some(again) = judge(case, again)? else { return Ok(()) };
    let (again, original) = (key.open(&again)?, key.open(&sealed).context("opened before")?);
    ensure!(tree::of_frame(&again)? == case["decoded"], "written otherwise");
    ensure!(tree::unpack(&again)? == tree::unpack(&original)?, "fields are in another order");
    Ok(())
}
