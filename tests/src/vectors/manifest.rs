//! Manifests and blocks.

use anyhow::{Context, Result, bail, ensure};
use parsecfs_core::{
    block::{open_block, seal_block},
    error::{Error, ErrorKind},
    id::{BlockId, DeviceId, RealmId, VlobId},
    manifest::{BlockAccess, Expected, Manifest, UserManifest},
    time::Timestamp,
};
use parsecfs_crypto::{SecretKey, SigningKey, VerifyKey};
use serde_json::Value;

use super::{derived, hex, hex_array, judge, tree};

/// Runs a case of one of the `manifest_*` files.
pub fn run(kind: &str, case: &Value) -> Result<()> {
    match kind {
        "file manifest" | "folder manifest" => whole(case),
        "user manifest" => user(case),
        "manifest checks" => checks(case, |manifest| matches!(manifest, Manifest::File(_))),
        "folder manifest checks" => checks(case, |manifest| matches!(manifest, Manifest::Folder(_))),
        "user manifest checks" => user_checks(case),
        _ => bail!("unknown kind {kind}"),
    }
}

/// What a storage would claim, taken from the decoded tree.
fn claimed<'a>(case: &Value, verify_key: &'a VerifyKey) -> Result<Expected<'a>> {
    let fields = &case["decoded"]["map"];
    let id = hex_array(&fields["id"], "uuid")?;
    let root = fields["parent"]["uuid"] == fields["id"]["uuid"];
    Ok(Expected {
        verify_key,
        author: DeviceId::from_bytes(hex_array(&fields["author"], "uuid")?),
        timestamp: time(&fields["timestamp"]["dt"])?,
        realm: RealmId::from_bytes(if root { id } else { [0; 16] }),
        id: VlobId::from_bytes(id),
        version: fields["version"].as_u64().context("version")?.try_into()?,
    })
}

fn expected<'a>(case: &Value, verify_key: &'a VerifyKey) -> Result<Expected<'a>> {
    let fields = &case["expected"];
    Ok(Expected {
        verify_key,
        author: DeviceId::from_bytes(hex_array(fields, "author")?),
        timestamp: time(&fields["timestamp"])?,
        realm: RealmId::from_bytes([0; 16]),
        id: VlobId::from_bytes(hex_array(fields, "id")?),
        version: fields["version"].as_u64().context("version")?.try_into()?,
    })
}

fn time(micros: &Value) -> Result<Timestamp> {
    micros.as_i64().and_then(Timestamp::from_micros).context("time")
}

fn secret(case: &Value, field: &str) -> Result<SecretKey> {
    Ok(SecretKey::from_bytes(hex_array(case, field)?))
}

fn verify_key(case: &Value) -> Result<VerifyKey> {
    Ok(VerifyKey::from_bytes(hex_array(case, "verify_key")?))
}

/// Opens, seals again and opens that.
fn whole(case: &Value) -> Result<()> {
    let (realm_key, key) = (secret(case, "realm_key")?, verify_key(case)?);
    derived(case, &realm_key, "vlob_id")?;
    let expected = claimed(case, &key)?;
    let manifest = Manifest::open(&hex(case, "encrypted")?, &realm_key, &expected)?;
    let author = SigningKey::from_seed(hex_array(case, "signing_seed")?);
    let sealed = manifest.seal(&author, &realm_key);
    ensure!(Manifest::open(&sealed, &realm_key, &expected)? == manifest, "another manifest");
    ensure!(Manifest::from_bytes(&manifest.to_bytes())? == manifest, "another manifest from the local store");
    same_document(case, &secret(case, "derived_key")?, &sealed)
}

fn user(case: &Value) -> Result<()> {
    let (realm_key, key) = (secret(case, "user_realm_key")?, verify_key(case)?);
    let expected = claimed(case, &key)?;
    let manifest = UserManifest::open(&hex(case, "encrypted")?, &realm_key, &expected)?;
    let author = SigningKey::from_seed(hex_array(case, "signing_seed")?);
    same_document(case, &realm_key, &manifest.seal(&author, &realm_key))
}

/// What we sealed says the same as the vector.
fn same_document(case: &Value, key: &SecretKey, sealed: &[u8]) -> Result<()> {
    ensure!(key.open(&hex(case, "encrypted")?)? == hex(case, "signed")?, "something else is sealed");
    let signed = key.open(sealed)?;
    ensure!(tree::of_frame(&signed[64..])? == case["decoded"], "written otherwise");
    Ok(())
}

fn checks(case: &Value, kind: impl Fn(&Manifest) -> bool) -> Result<()> {
    let key = verify_key(case)?;
    let outcome = secret(case, "key")?
        .open(&hex(case, "encrypted")?)
        .map_err(|_| Error::new(ErrorKind::Decryption, "does not open"))
        .and_then(|signed| Manifest::verify(&signed, &expected(case, &key).expect("the vector is whole")))
        // The reader of the vectors wants one kind; ours takes both.
        .and_then(|manifest| match kind(&manifest) {
            true => Ok(manifest),
            false => Err(Error::new(ErrorKind::Deserialization, "another kind")),
        });
    let Some(manifest) = judge(case, outcome)? else { return Ok(()) };
    if let (Manifest::Folder(folder), Some(children)) = (&manifest, case["children"].as_object()) {
        let found = folder.children.iter().map(|(name, id)| (name.reveal().to_owned(), Value::from(id.to_string())));
        ensure!(found.collect::<serde_json::Map<_, _>>() == *children, "other children");
    }
    Ok(())
}

fn user_checks(case: &Value) -> Result<()> {
    let key = verify_key(case)?;
    let outcome = UserManifest::open(&hex(case, "encrypted")?, &secret(case, "key")?, &expected(case, &key)?);
    judge(case, outcome)?;
    Ok(())
}

/// Runs a case of `block`.
pub fn block(case: &Value) -> Result<()> {
    let realm_key = secret(case, "realm_key")?;
    derived(case, &realm_key, "block_id")?;
    let access = BlockAccess {
        id: BlockId::from_bytes(hex_array(case, "block_id")?),
        offset: 0,
        size: case["size"].as_u64().context("size")?,
        digest: hex_array(case, "digest")?,
    };
    let outcome = open_block(&hex(case, "encrypted")?, &access, &realm_key);
    let Some(clear) = judge(case, outcome)? else { return Ok(()) };
    if !case["data"].is_null() {
        ensure!(clear == hex(case, "data")?, "other content");
    }
    let again = open_block(&seal_block(&clear, access.id, &realm_key), &access, &realm_key)?;
    ensure!(again == clear, "sealed otherwise");
    Ok(())
}
