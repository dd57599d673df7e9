//! What the organization's certificates tell of its past, and what they still ask for.
//!
//! Everything here comes from signed documents that this device holds, checked from the root key on each time it is
//! asked. The storage is not asked, so it can neither add to the answer nor, once a certificate was seen here, take
//! from it.

use parsecfs_core::{
    certificate::{Certificate, RealmNameCertificate, SequesterAuthorityCertificate, open_realm_name},
    id::{RealmId, UserId},
    name::EntryName,
    storage::CertificateBatch,
    trust::Trust,
};
use parsecfs_crypto::sequester::AuthorityVerifyKey;

use super::{Known, Organization, refused, replay};
use crate::error::Result;

/// What an owner still has to do about a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duty {
    /// Which.
    pub realm: RealmId,
    /// Members that were revoked and keep their role until somebody takes it.
    pub revoked_members: Vec<UserId>,
    /// Its newest key is known to somebody who is no member any more, or it has none.
    pub rotation_due: bool,
}

impl Organization {
    /// Every certificate that this device holds, in the order of time.
    pub async fn certificates(&self) -> Result<Vec<Certificate>> {
        let rows = self.on_disk(|disk| disk.rows_after(0)).await?;
        let nothing = Trust::new(self.device.root_verify_key, self.user_id());
        let known = replay(Known { trust: nothing.into(), seq: 0 }, &rows)?;
        let valid = rows.iter().rposition(|row| row.afresh).unwrap_or(0);
        let mut certificates =
            rows[valid..].iter().flat_map(|row| documents(&row.batch)).map(read).collect::<Result<Vec<_>>>()?;
        let authority = known.trust.sequester().authority();
        for signed in rows[valid..].iter().flat_map(|row| &row.batch.sequester) {
            certificates.push(read_sequester(signed, authority)?);
        }
        // Those of one time stay in their order: a user comes before the first device.
        certificates.sort_by_key(Certificate::timestamp);
        Ok(certificates)
    }

    /// The name in a certificate, if this user has the key.
    pub async fn name_in(&self, certificate: &RealmNameCertificate) -> Option<EntryName> {
        let keys = self.realm_keys(certificate.realm_id).await.ok()?;
        open_realm_name(&certificate.encrypted_name, keys.key(certificate.key_index)?).ok()
    }

    /// What owners of this user's workspaces still have to do.
    #[must_use]
    pub fn duties(&self) -> Vec<Duty> {
        let trust = self.trust();
        let duty = |realm: &_| {
            let (revoked_members, rotation_due) = trust.owner_duties(realm);
            Duty { realm: realm.id(), revoked_members, rotation_due }
        };
        let duties = self.own_realms(&trust).into_iter().map(|(realm, _)| duty(realm));
        duties.filter(|duty| duty.rotation_due || !duty.revoked_members.is_empty()).collect()
    }
}

fn documents(batch: &CertificateBatch) -> impl Iterator<Item = &[u8]> {
    let realms = batch.realm.values().flatten();
    batch.common.iter().chain(realms).chain(&batch.shamir).map(|signed| &**signed)
}

/// After [`replay`] has checked it: the first is signed like all others, by the root key, and the authority that it names
/// signs the rest.
fn read_sequester(signed: &[u8], authority: Option<&SequesterAuthorityCertificate>) -> Result<Certificate> {
    let key = authority.and_then(|authority| AuthorityVerifyKey::from_der(&authority.verify_key_der).ok());
    match key.as_ref().and_then(|key| key.verify(signed).ok()) {
        Some(payload) => Certificate::from_sequester_payload(payload)
            .map_err(|error| refused("a certificate of the sequester authority".to_owned(), error)),
        None => read(signed),
    }
}

/// After [`replay`] has checked it.
fn read(signed: &[u8]) -> Result<Certificate> {
    Certificate::read_without_trust(signed).map_err(|error| refused("a certificate".to_owned(), error))
}
