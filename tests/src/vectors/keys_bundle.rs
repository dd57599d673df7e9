//! Keys bundles, realm names, canaries.

use anyhow::{Context, Result, ensure};
use parsecfs_core::{
    certificate::{canary_holds, open_realm_name, seal_canary, seal_realm_name},
    keys_bundle::{KeysBundle, KeysBundleAccess},
};
use parsecfs_crypto::{PrivateKey, SecretKey, VerifyKey};
use serde_json::{Value, json};

use super::{derived, hex, hex_array, judge, text, unhex};

/// Runs a case of `keys_bundle`.
pub fn run(case: &Value) -> Result<()> {
    let recipient = PrivateKey::from_bytes(hex_array(case, "recipient_private_key")?);
    let author = VerifyKey::from_bytes(hex_array(case, "author_verify_key")?);
    let (access, bundle) = (hex(case, "keys_bundle_access")?, hex(case, "keys_bundle")?);
    let outcome = KeysBundleAccess::open(&access, &recipient)
        .and_then(|access| Ok((KeysBundle::open(&bundle, &access, |_, _| Some(&author))?, access)));
    let Some((bundle, access)) = judge(case, outcome)? else { return Ok(()) };
    ensure!(access.keys_bundle_key.expose()[..] == hex(case, "keys_bundle_key")?, "another bundle key");
    let again = KeysBundleAccess::open(&access.seal(&recipient.public_key())?, &recipient)?;
    ensure!(again.keys_bundle_key == access.keys_bundle_key, "access sealed otherwise");
    same_bundle(&bundle, &case["decoded"]["map"])?;
    for (key, canary) in bundle.keys.iter().zip(case["canaries"].as_array().context("canaries")?) {
        ensure!(canary_holds(&unhex(canary)?, key), "canary does not hold");
    }
    Ok(())
}

fn same_bundle(bundle: &KeysBundle, decoded: &Value) -> Result<()> {
    let keys = bundle.keys.iter().map(|key| json!({ "bytes": data_encoding::HEXLOWER.encode(key.expose()) }));
    let found = json!({
        "type": "realm_keys_bundle",
        "author": { "uuid": bundle.author.to_string() },
        "timestamp": { "dt": bundle.timestamp.as_micros() },
        "realm_id": { "uuid": bundle.realm_id.to_string() },
        "keys": keys.collect::<Vec<_>>(),
    });
    ensure!(found == *decoded, "another bundle");
    Ok(())
}

/// Runs a case of `realm_name_canary`.
pub fn name_or_canary(case: &Value) -> Result<()> {
    let key = SecretKey::from_bytes(hex_array(case, "realm_key")?);
    derived(case, &key, "derivation_uuid")?;
    let sealed = hex(case, "encrypted")?;
    let plain = hex(case, "plaintext")?;
    if text(case, "name")?.starts_with("canary") {
        ensure!(canary_holds(&sealed, &key) && canary_holds(&seal_canary(&key), &key), "canary does not hold");
        ensure!(!canary_holds(&sealed, &SecretKey::generate()), "canary holds for any key");
    } else {
        let name = open_realm_name(&sealed, &key)?;
        ensure!(name.reveal().as_bytes() == plain, "another name");
        ensure!(open_realm_name(&seal_realm_name(&name, &key), &key)? == name, "sealed otherwise");
    }
    Ok(())
}
