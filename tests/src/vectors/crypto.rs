//! Primitives.

use anyhow::{Context, Result, bail, ensure};
use parsecfs_crypto::{
    Argon2id, PrivateKey, PublicKey, SecretKey, Sha256, SigningKey, VerifyKey, account_password_salt, kx, passphrase,
    sas::{SasCode, SasCodes},
    sequester::{AuthoritySigningKey, AuthorityVerifyKey, DecryptionKey, EncryptionKey},
    sha256,
};
use serde_json::Value;

use super::{hex, hex_array, judge, text};

fn secret(case: &Value, field: &str) -> Result<SecretKey> {
    Ok(SecretKey::from_bytes(hex_array(case, field)?))
}

fn private(case: &Value, field: &str) -> Result<PrivateKey> {
    Ok(PrivateKey::from_bytes(hex_array(case, field)?))
}

fn public(case: &Value, field: &str) -> Result<PublicKey> {
    Ok(PublicKey::from_bytes(hex_array(case, field)?))
}

fn number(case: &Value, field: &str) -> Result<u32> {
    Ok(case[field].as_u64().with_context(|| format!("field {field}"))?.try_into()?)
}

/// Runs a case of `crypto_secretbox`.
pub fn secretbox(case: &Value) -> Result<()> {
    let key = secret(case, "key")?;
    let Some(plain) = judge(case, key.open(&hex(case, "ciphertext")?))? else { return Ok(()) };
    ensure!(plain == hex(case, "plaintext")?, "another text");
    ensure!(key.open(&key.seal(&plain))? == plain, "sealed otherwise");
    Ok(())
}

/// Runs a case of `crypto_sealedbox`.
pub fn sealed_box(case: &Value) -> Result<()> {
    let key = private(case, "private_key")?;
    let Some(plain) = judge(case, key.open(&hex(case, "ciphertext")?))? else { return Ok(()) };
    ensure!(plain == hex(case, "plaintext")?, "another text");
    ensure!(key.public_key() == public(case, "public_key")?, "another public key");
    ensure!(key.open(&key.public_key().seal(&plain)?)? == plain, "sealed otherwise");
    Ok(())
}

/// Runs a case of `crypto_sign`.
pub fn sign(case: &Value) -> Result<()> {
    let key = VerifyKey::from_bytes(hex_array(case, "verify_key")?);
    let signed = hex(case, "signed")?;
    let Some(message) = judge(case, key.verify(&signed))? else { return Ok(()) };
    ensure!(message == hex(case, "message")?, "another message");
    let author = SigningKey::from_seed(hex_array(case, "seed")?);
    ensure!(author.verify_key() == key, "another verify key");
    ensure!(author.sign(message) == signed, "signed otherwise");
    Ok(())
}

/// Runs a case of `crypto_mac512`.
pub fn mac512(case: &Value) -> Result<()> {
    ensure!(secret(case, "key")?.mac512(&hex(case, "data")?)[..] == hex(case, "mac")?, "another code");
    Ok(())
}

/// Runs a case of `crypto_hash`: hashed at once and in pieces.
pub fn hash(case: &Value) -> Result<()> {
    let (data, digest) = (hex(case, "data")?, hex_array(case, "digest")?);
    let mut pieces = Sha256::new();
    data.chunks(100).for_each(|piece| pieces.update(piece));
    ensure!(*sha256(&data).as_bytes() == digest, "another digest");
    ensure!(*pieces.finish().as_bytes() == digest, "another digest in pieces");
    Ok(())
}

/// Runs a case of `crypto_kdf`.
pub fn derivation(case: &Value) -> Result<()> {
    let (master, purpose) = (secret(case, "master")?, hex_array(case, "uuid")?);
    ensure!(master.derive(&purpose) == secret(case, "secret_key")?, "another key");
    ensure!(master.derive_uuid(&purpose)[..] == hex(case, "derived_uuid")?, "another identifier");
    Ok(())
}

/// Runs a case of `crypto_argon2id`, which also holds salts of account passwords.
pub fn argon2id(case: &Value) -> Result<()> {
    let salt = hex_array(case, "salt")?;
    if let Some(email) = case["email"].as_str() {
        ensure!(account_password_salt(email) == salt, "another salt");
        return Ok(());
    }
    let argon = Argon2id {
        memlimit_kb: number(case, "memlimit_kb")?,
        opslimit: number(case, "opslimit")?,
        parallelism: number(case, "parallelism")?,
        salt,
    };
    let Some(key) = judge(case, argon.derive(text(case, "password")?.as_bytes()))? else { return Ok(()) };
    ensure!(key == secret(case, "key")?, "another key");
    Ok(())
}

/// Runs a case of `crypto_kx`.
pub fn shared_secret(case: &Value) -> Result<()> {
    let (claimer, greeter) = (private(case, "claimer_private")?, private(case, "greeter_private")?);
    ensure!(claimer.public_key() == public(case, "claimer_public")?, "another key of the claimer");
    ensure!(greeter.public_key() == public(case, "greeter_public")?, "another key of the greeter");
    let shared = secret(case, "shared_key")?;
    ensure!(kx::greeter_shared_key(&greeter, &claimer.public_key())? == shared, "the greeter has another key");
    ensure!(kx::claimer_shared_key(&claimer, &greeter.public_key())? == shared, "the claimer has another key");
    Ok(())
}

/// Runs a case of `sas`, which also holds numbers and their codes.
pub fn sas(case: &Value) -> Result<()> {
    if !case["int"].is_null() {
        let code = SasCode::from_number(number(case, "int")?)?;
        ensure!(code.to_string() == text(case, "code")?, "another code");
        ensure!(SasCode::parse(text(case, "code")?)? == code, "read otherwise");
        return Ok(());
    }
    let codes = SasCodes::new(&secret(case, "shared_key")?, &hex(case, "claimer_nonce")?, &hex(case, "greeter_nonce")?);
    ensure!(codes.claimer.to_string() == text(case, "claimer_sas")?, "another code of the claimer");
    ensure!(codes.greeter.to_string() == text(case, "greeter_sas")?, "another code of the greeter");
    Ok(())
}

/// Runs a case of `passphrase`.
pub fn recovery_passphrase(case: &Value) -> Result<()> {
    let written = text(case, "passphrase")?;
    let Some(key) = judge(case, passphrase::read(written))? else { return Ok(()) };
    ensure!(key == secret(case, "key")?, "another key");
    let again = passphrase::write(&key);
    ensure!(passphrase::read(&again)? == key, "written otherwise");
    // What another program wrote, and a person did not retype.
    let as_written = written.len() == again.len() && !written.contains(char::is_lowercase);
    ensure!(!as_written || *again == written, "written otherwise");
    Ok(())
}

/// Runs a case of `sequester_crypto`.
pub fn sequester(case: &Value) -> Result<()> {
    if !case["ciphertext"].is_null() {
        sequester_envelope(case)
    } else if !case["signed"].is_null() {
        sequester_signature(case)
    } else {
        bail!("neither an envelope nor a signature")
    }
}

fn sequester_envelope(case: &Value) -> Result<()> {
    let key = DecryptionKey::from_der(&hex(case, "private_key_der")?)?;
    let Some(plain) = judge(case, key.open(&hex(case, "ciphertext")?))? else { return Ok(()) };
    ensure!(plain == hex(case, "plaintext")?, "another text");
    let service = EncryptionKey::from_der(&hex(case, "public_key_der")?)?;
    ensure!(key.open(&service.seal(&plain)?)? == plain, "sealed otherwise");
    Ok(())
}

fn sequester_signature(case: &Value) -> Result<()> {
    let key = AuthorityVerifyKey::from_der(&hex(case, "verify_key_der")?)?;
    let signed = hex(case, "signed")?;
    let Some(message) = judge(case, key.verify(&signed))? else { return Ok(()) };
    ensure!(message == hex(case, "message")?, "another message");
    let again = AuthoritySigningKey::from_der(&hex(case, "signing_key_der")?)?.sign(message)?;
    ensure!(again.len() == signed.len() && key.verify(&again)? == message, "signed otherwise");
    Ok(())
}
