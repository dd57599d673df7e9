//! Certificates one by one.

use anyhow::{Result, bail, ensure};
use parsecfs_core::{
    certificate::{Certificate, Expected},
    error::{Error, ErrorKind},
    id::{DeviceId, RealmId, UserId},
};
use parsecfs_crypto::{SigningKey, VerifyKey, sequester::AuthorityVerifyKey};
use serde_json::Value;

use super::{hex, hex_array, judge, tree};

/// Runs a case of one of the `cert_*` files.
pub fn run(kind: &str, case: &Value) -> Result<()> {
    let signed = hex(case, "signed")?;
    let outcome = if case["verify_key_der"].is_null() {
        let key = VerifyKey::from_bytes(hex_array(case, "verify_key")?);
        Certificate::open(&signed, &key, &expected(&case["expected"])?)
    } else {
        open_sequester(&signed, &AuthorityVerifyKey::from_der(&hex(case, "verify_key_der")?)?)
    };
    // A certificate of another type is a legal one, but not what the reader of this type wants.
    let outcome = outcome.and_then(|certificate| match kind_of(&certificate) {
        found if found == kind => Ok(certificate),
        _ => Err(Error::new(ErrorKind::Deserialization, "another type")),
    });
    let Some(certificate) = judge(case, outcome)? else { return Ok(()) };
    if !case["decoded"].is_null() && !case["signing_seed"].is_null() {
        let key = SigningKey::from_seed(hex_array(case, "signing_seed")?);
        let again = sign(&certificate, &key)?;
        ensure!(tree::sorted(&tree::of_frame(&again[64..])?) == tree::sorted(&case["decoded"]), "written otherwise");
        if !kind.starts_with("shamir") {
            ensure!(tree::unpack(&again[64..])? == tree::unpack(&signed[64..])?, "fields are in another order");
        }
    }
    if !case["payload"].is_null() {
        let payload = hex(case, "payload")?;
        ensure!(signed.ends_with(&payload), "the vector itself signs something else");
        ensure!(tree::of_frame(&payload)? == case["decoded"], "the vector itself decodes otherwise");
    }
    Ok(())
}

fn open_sequester(signed: &[u8], key: &AuthorityVerifyKey) -> Result<Certificate, Error> {
    let frame = key.verify(signed).map_err(|_| Error::new(ErrorKind::Signature, "not by the authority"))?;
    Certificate::from_sequester_payload(frame)
}

fn expected(case: &Value) -> Result<Expected> {
    let id = |field| if case[field].is_null() { Ok(None) } else { hex_array::<16>(case, field).map(Some) };
    Ok(Expected {
        author: id("author")?.map(DeviceId::from_bytes),
        user: id("user")?.map(UserId::from_bytes),
        device: id("device")?.map(DeviceId::from_bytes),
        realm: id("realm")?.map(RealmId::from_bytes),
    })
}

fn kind_of(certificate: &Certificate) -> &'static str {
    match certificate {
        Certificate::User(_) => "user_certificate",
        Certificate::Device(_) => "device_certificate",
        Certificate::UserUpdate(_) => "user_update_certificate",
        Certificate::RevokedUser(_) => "revoked_user_certificate",
        Certificate::RealmRole(_) => "realm_role_certificate",
        Certificate::RealmName(_) => "realm_name_certificate",
        Certificate::RealmKeyRotation(_) => "realm_key_rotation_certificate",
        Certificate::RealmArchiving(_) => "realm_archiving_certificate",
        Certificate::SequesterAuthority(_) => "sequester_authority_certificate",
        Certificate::SequesterService(_) => "sequester_service_certificate",
        Certificate::SequesterRevokedService(_) => "sequester_revoked_service_certificate",
        Certificate::ShamirRecoveryBrief(_) => "shamir_recovery_brief_certificate",
        Certificate::ShamirRecoveryShare(_) => "shamir_recovery_share_certificate",
        Certificate::ShamirRecoveryDeletion(_) => "shamir_recovery_deletion_certificate",
    }
}

fn sign(certificate: &Certificate, key: &SigningKey) -> Result<Vec<u8>> {
    Ok(match certificate {
        Certificate::User(certificate) => certificate.sign(key),
        Certificate::Device(certificate) => certificate.sign(key),
        Certificate::UserUpdate(certificate) => certificate.sign(key),
        Certificate::RevokedUser(certificate) => certificate.sign(key),
        Certificate::RealmRole(certificate) => certificate.sign(key),
        Certificate::RealmName(certificate) => certificate.sign(key),
        Certificate::RealmKeyRotation(certificate) => certificate.sign(key),
        Certificate::RealmArchiving(certificate) => certificate.sign(key),
        Certificate::SequesterAuthority(certificate) => certificate.sign(key),
        Certificate::ShamirRecoveryBrief(certificate) => certificate.sign(key),
        Certificate::ShamirRecoveryShare(certificate) => certificate.sign(key),
        Certificate::ShamirRecoveryDeletion(certificate) => certificate.sign(key),
        Certificate::SequesterService(_) | Certificate::SequesterRevokedService(_) => {
            bail!("signed by the authority, not by a device")
        }
    })
}
