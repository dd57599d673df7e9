//! Recovery by shares.

use anyhow::{Context, Result, ensure};
use parsecfs_core::{
    id::DeviceId,
    shamir::{ShamirRecoverySecret, ShamirRecoveryShareData},
    time::Timestamp,
};
use parsecfs_crypto::{PrivateKey, SigningKey, VerifyKey};
use serde_json::Value;

use super::{hex, hex_array, judge, tree, unhex};

/// Runs a case of `shamir`.
pub fn secret(case: &Value) -> Result<()> {
    let shares = case["shares"].as_array().context("shares")?.iter().map(unhex).collect::<Result<Vec<_>>>()?;
    let threshold = case["threshold"].as_u64().context("threshold")?.try_into()?;
    let Some(secret) = judge(case, ShamirRecoverySecret::recover(&shares, threshold))? else { return Ok(()) };
    ensure!(tree::of_frame(&hex(case, "secret")?)? == case["decoded"], "the vector itself decodes otherwise");
    // The only share of one is the secret behind its place.
    let whole = secret.split(1, 1)?.remove(0);
    ensure!(tree::of_frame(&whole[1..])? == case["decoded"], "another secret");
    let again = ShamirRecoverySecret::recover(&secret.split(threshold, 255)?, threshold)?;
    ensure!(again.data_key == secret.data_key && again.reveal_token == secret.reveal_token, "split otherwise");
    Ok(())
}

/// Runs a case of `shamir_share_data`.
pub fn share(case: &Value) -> Result<()> {
    let recipient = PrivateKey::from_bytes(hex_array(case, "recipient_private_key")?);
    let author = VerifyKey::from_bytes(hex_array(case, "author_verify_key")?);
    let fields = &case["decoded"]["map"];
    let device = DeviceId::from_bytes(hex_array(&fields["author"], "uuid").unwrap_or_default());
    let time = Timestamp::from_micros(fields["timestamp"]["dt"].as_i64().unwrap_or_default()).context("time")?;
    let sealed = hex(case, "ciphered_share")?;
    let outcome = ShamirRecoveryShareData::open(&sealed, &recipient, &author, device, time);
    let Some(share) = judge(case, outcome)? else { return Ok(()) };
    let again = recipient.open(&share.seal(&SigningKey::generate(), &recipient.public_key())?)?;
    ensure!(tree::of_frame(&again[64..])? == case["decoded"], "written otherwise");
    Ok(())
}
