//! Whole certificate answers.

use anyhow::{Context, Result, bail, ensure};
use parsecfs_core::{
    id::{RealmId, UserId},
    storage::{Bytes, CertificateBatch},
    trust::Trust,
};
use parsecfs_crypto::VerifyKey;
use serde_json::Value;

use super::{hex_array, unhex};

/// Runs a case of `certificate_chains`: the outcome counts, not the reason. Where official clients are lenient and
/// the case allows to refuse, we do.
pub fn run(case: &Value) -> Result<()> {
    let root = VerifyKey::from_bytes(hex_array(case, "root_verify_key")?);
    let empty = Trust::new(root, UserId::from_bytes(hex_array(case, "reader")?));
    let batch = batch(&case["certificates"])?;
    let refusal = case["error"].is_string() || case["may_reject"] == true;
    match (refusal, empty.apply(&batch)) {
        (false, Ok(trust)) => one_by_one(&empty, &trust, &batch),
        (false, Err(error)) => bail!("refused: {error:?}"),
        (true, Ok(_)) => bail!("accepted, should be refused: {}", case["error"]),
        (true, Err(_)) => Ok(()),
    }
}

/// The certificates of a whole answer.
pub fn batch(certificates: &Value) -> Result<CertificateBatch> {
    let list = |topic: &Value| -> Result<Vec<Bytes>> {
        topic.as_array().context("topic")?.iter().map(|signed| Ok(unhex(signed)?.into())).collect()
    };
    let realms = certificates["realm"].as_object().context("realm")?;
    let realm = realms.iter().map(|(id, topic)| Ok((RealmId::parse(id).context("realm id")?, list(topic)?)));
    Ok(CertificateBatch {
        sequester: list(&certificates["sequester"])?,
        common: list(&certificates["common"])?,
        realm: realm.collect::<Result<_>>()?,
        shamir: list(&certificates["shamir_recovery"])?,
    })
}

/// Realm certificates that arrive later, one at a time, lead to the same trust; a repeat is refused.
fn one_by_one(empty: &Trust, whole: &Trust, batch: &CertificateBatch) -> Result<()> {
    let mut trust = empty.apply(&CertificateBatch { realm: Default::default(), ..batch.clone() })?;
    for (id, certificates) in &batch.realm {
        for certificate in certificates {
            let realm = [(*id, vec![certificate.clone()])].into();
            trust = trust.apply(&CertificateBatch { realm, ..Default::default() })?;
        }
    }
    ensure!(trust.cursor() == whole.cursor(), "another cursor");
    ensure!(format!("{trust:?}") == format!("{whole:?}"), "another trust");
    let nothing = batch.common.is_empty() && batch.realm.is_empty();
    ensure!(nothing || whole.apply(batch).is_err(), "a repeat is accepted");
    Ok(())
}
