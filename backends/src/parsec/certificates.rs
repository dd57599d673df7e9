//! Certificates and keys bundles on a server.
//!
//! A statement that the server calls done, too late or contradictory may be this device's own whose answer was lost:
//! it is looked for, byte by byte, before it is called a conflict.

use std::{collections::BTreeMap, sync::PoisonError};

use futures::{FutureExt, future::BoxFuture};
use parsecfs_core::{
    document::{Field, read_list},
    id::RealmId,
    storage::{
        Bytes, CertificateBatch, CertificateCursor, CertificateStore, Error, ErrorKind, KeysBundle, Result, Statement,
    },
    time::Timestamp,
};
use rmpv::Value;

use super::{
    ParsecStorage,
    command::{Reply, Request},
    server::Family,
    vlobs::typed_list,
};
use crate::statement::{claim_of, main_certificate, realm_of};

impl CertificateStore for ParsecStorage {
    fn certificates<'a>(&'a self, cursor: &'a CertificateCursor) -> BoxFuture<'a, Result<CertificateBatch>> {
        async move {
            let batch = self.fetch_certificates(cursor).await?;
            *self.last_cursor.lock().unwrap_or_else(PoisonError::into_inner) = cursor.clone();
            Ok(batch)
        }
        .boxed()
    }

    fn append<'a>(&'a self, statement: Statement) -> BoxFuture<'a, Result<()>> {
        async move {
            let main = main_certificate(&statement).clone();
            let redacted = redacted_of(&statement);
            let topic = Topic::of(&statement);
            let family = match statement {
                Statement::Bootstrap { .. } => Family::Anonymous,
                _ => Family::Authenticated(&*self.signer),
            };
            let reply = self.server.call(family, self.request(statement)?).await?;
            if reply.status() == "ok" {
                return Ok(());
            }
            let founded = reply.status() == "invalid_bootstrap_token";
            let refusal = reply.refusal();
            refusal.after().map(|after| self.server.near(after)).transpose()?;
            if !founded && refusal.kind() != ErrorKind::VersionConflict {
                return Err(refusal);
            }
            match self.holds(&main, redacted.as_ref(), topic).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(refusal),
                // Who founds an organization that is another's is not known there.
                Err(error) if matches!(family, Family::Anonymous) && error.kind() != ErrorKind::Offline => Err(refusal),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn keys_bundle<'a>(&'a self, realm: RealmId, key_index: u64) -> BoxFuture<'a, Result<KeysBundle>> {
        async move {
            let request = Request::new("realm_get_keys_bundle").with("realm_id", &realm).with("key_index", &key_index);
            let mut reply = self.call(request).await?;
            if matches!(reply.status(), "bad_key_index" | "access_not_available_for_author") {
                let what = format!("there is no keys bundle {key_index} of realm {realm} for this user");
                return Err(Error::new(ErrorKind::NotFound, what));
            }
            reply = reply.ok()?;
            let (bundle, access): (Vec<u8>, Vec<u8>) = (reply.get("keys_bundle")?, reply.get("keys_bundle_access")?);
            Ok(KeysBundle { key_index, bundle: bundle.into(), access: access.into() })
        }
        .boxed()
    }
}

impl ParsecStorage {
    async fn fetch_certificates(&self, cursor: &CertificateCursor) -> Result<CertificateBatch> {
        let CertificateCursor { common, sequester, shamir, realm } = cursor;
        let request = Request::new("certificate_get")
            .with("common_after", common)
            .with("sequester_after", sequester)
            .with("shamir_recovery_after", shamir)
            .with("realm_after", realm);
        let mut reply = self.call(request).await?.ok()?;
        let realms: BTreeMap<RealmId, Certificates> = reply.get("realm_certificates")?;
        Ok(CertificateBatch {
            sequester: certificates(&mut reply, "sequester_certificates")?,
            common: certificates(&mut reply, "common_certificates")?,
            realm: realms
                .into_iter()
                .map(|(realm, list)| (realm, list.0))
                .filter(|(_, list)| !list.is_empty())
                .collect(),
            shamir: certificates(&mut reply, "shamir_recovery_certificates")?,
        })
    }

    /// Whether the server holds exactly this certificate.
    async fn holds(&self, main: &Bytes, redacted: Option<&Bytes>, topic: Topic) -> Result<bool> {
        let before = Timestamp::from_micros(claim_of(main)?.timestamp().as_micros().saturating_sub(1));
        let mut cursor = self.last_cursor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match topic {
            Topic::Common => cursor.common = before,
            Topic::Shamir => cursor.shamir = before,
            Topic::Realm(realm) => cursor.realm.extend(before.map(|before| (realm, before))),
        }
        let batch = self.fetch_certificates(&cursor).await?;
        let there = match topic {
            Topic::Common => Some(&batch.common),
            Topic::Shamir => Some(&batch.shamir),
            Topic::Realm(realm) => batch.realm.get(&realm),
        };
        Ok(there.into_iter().flatten().any(|there| there == main || Some(there) == redacted))
    }

    fn request(&self, statement: Statement) -> Result<Request> {
        Ok(match statement {
            Statement::Bootstrap { user, device, redacted_user, redacted_device } => {
                Request::new("organization_bootstrap")
                    .with("bootstrap_token", &self.bootstrap_token)
                    .with("root_verify_key", &self.root)
                    .with_bytes("user_certificate", &user)
                    .with_bytes("device_certificate", &device)
                    .with_bytes("redacted_user_certificate", &redacted_user)
                    .with_bytes("redacted_device_certificate", &redacted_device)
                    .with_value("sequester_authority_certificate", Value::Nil)
            }
            Statement::CreateUser { user, device, redacted_user, redacted_device } => Request::new("user_create")
                .with_bytes("user_certificate", &user)
                .with_bytes("device_certificate", &device)
                .with_bytes("redacted_user_certificate", &redacted_user)
                .with_bytes("redacted_device_certificate", &redacted_device),
            Statement::CreateDevice { device, redacted_device } => Request::new("device_create")
                .with_bytes("device_certificate", &device)
                .with_bytes("redacted_device_certificate", &redacted_device),
            Statement::UpdateUser { certificate } => {
                Request::new("user_update").with_bytes("user_update_certificate", &certificate)
            }
            Statement::RevokeUser { certificate } => {
                Request::new("user_revoke").with_bytes("revoked_user_certificate", &certificate)
            }
            Statement::CreateRealm { certificate, .. } => {
                Request::new("realm_create").with_bytes("realm_role_certificate", &certificate)
            }
            // Who takes over has the keys already.
            Statement::Share { certificate, recipient, .. } if recipient == self.signer.user_id() => {
                Request::new("realm_self_promote_to_owner").with_bytes("realm_role_certificate", &certificate)
            }
            Statement::Share { certificate, key_index, access, .. } => Request::new("realm_share")
                .with_bytes("realm_role_certificate", &certificate)
                .with_bytes("recipient_keys_bundle_access", &access)
                .with("key_index", &key_index),
            Statement::Unshare { certificate, .. } => {
                Request::new("realm_unshare").with_bytes("realm_role_certificate", &certificate)
            }
            Statement::RotateKey { certificate, bundle, accesses, services, .. } => Request::new("realm_rotate_key")
                .with_bytes("realm_key_rotation_certificate", &certificate)
                .with_value("per_participant_keys_bundle_access", by_id(&accesses))
                .with_value("per_sequester_service_keys_bundle_access", services.as_ref().map_or(Value::Nil, by_id))
                .with_bytes("keys_bundle", &bundle),
            Statement::RenameRealm { certificate, .. } => Request::new("realm_rename")
                .with_bytes("realm_name_certificate", &certificate)
                .with("initial_name_or_fail", &false),
            Statement::ArchiveRealm { certificate, .. } => {
                Request::new("realm_update_archiving").with_bytes("archiving_certificate", &certificate)
            }
            Statement::SetUpRecovery { brief, shares, reveal_token, sealed_device } => {
                let shares = shares.iter().map(|share| Value::Binary(share.to_vec())).collect();
                Request::new("shamir_recovery_setup")
                    .with_bytes("ciphered_data", &sealed_device)
                    .with("reveal_token", &reveal_token)
                    .with_bytes("shamir_recovery_brief_certificate", &brief)
                    .with_value("shamir_recovery_share_certificates", Value::Array(shares))
            }
            Statement::DeleteRecovery { certificate } => {
                Request::new("shamir_recovery_delete").with_bytes("shamir_recovery_deletion_certificate", &certificate)
            }
        })
    }
}

/// What a statement is about: certificates are asked for by it.
#[derive(Clone, Copy)]
enum Topic {
    Common,
    Shamir,
    Realm(RealmId),
}

impl Topic {
    fn of(statement: &Statement) -> Self {
        match (statement, realm_of(statement)) {
            (Statement::SetUpRecovery { .. } | Statement::DeleteRecovery { .. }, _) => Self::Shamir,
            (_, Some(realm)) => Self::Realm(realm),
            (_, None) => Self::Common,
        }
    }
}

fn by_id<K: Field>(accesses: &BTreeMap<K, Bytes>) -> Value {
    Value::Map(accesses.iter().map(|(id, access)| (id.write(), Value::Binary(access.to_vec()))).collect())
}

/// Certificates of one realm.
struct Certificates(Vec<Bytes>);

impl Field for Certificates {
    fn read(value: Value) -> parsecfs_core::error::Result<Self> {
        Ok(Self(read_list::<Vec<u8>>(value)?.into_iter().map(Bytes::from).collect()))
    }

    fn write(&self) -> Value {
        Value::Array(self.0.iter().map(|certificate| Value::Binary(certificate.to_vec())).collect())
    }
}

fn certificates(reply: &mut Reply, name: &str) -> Result<Vec<Bytes>> {
    Ok(typed_list::<Vec<u8>>(reply, name)?.into_iter().map(Bytes::from).collect())
}

/// What outsiders see in the place of the main certificate.
fn redacted_of(statement: &Statement) -> Option<Bytes> {
    match statement {
        Statement::Bootstrap { redacted_user, .. } | Statement::CreateUser { redacted_user, .. } => {
            Some(redacted_user.clone())
        }
        Statement::CreateDevice { redacted_device, .. } => Some(redacted_device.clone()),
        _ => None,
    }
}
