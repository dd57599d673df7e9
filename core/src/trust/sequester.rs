//! The sequester authority and its services (formats.md 3.4).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parsecfs_crypto::sequester::AuthorityVerifyKey;

use super::{Trust, refuse, require, require_after};
use crate::{
    certificate::{Certificate, SequesterAuthorityCertificate, SequesterServiceCertificate},
    document::malformed,
    error::{Error, ErrorKind, Result},
    id::SequesterServiceId,
    storage::Bytes,
    time::Timestamp,
};

/// What is known of the sequester authority and its services.
#[derive(Clone, Debug, Default)]
pub struct SequesterTrust {
    authority: Option<SequesterAuthorityCertificate>,
    services: BTreeMap<SequesterServiceId, SequesterServiceCertificate>,
    revoked: BTreeSet<SequesterServiceId>,
    last: Option<Timestamp>,
}

impl SequesterTrust {
    /// The authority, if the organization is sequestered.
    #[must_use]
    pub fn authority(&self) -> Option<&SequesterAuthorityCertificate> {
        self.authority.as_ref()
    }

    /// Services that every keys bundle must be accessible to.
    pub fn active_services(&self) -> impl Iterator<Item = &SequesterServiceCertificate> {
        self.services.values().filter(|service| !self.revoked.contains(&service.service_id))
    }

    /// A service, revoked or not.
    #[must_use]
    pub fn service(&self, id: SequesterServiceId) -> Option<&SequesterServiceCertificate> {
        self.services.get(&id)
    }

    /// Time of the last certificate.
    #[must_use]
    pub fn last(&self) -> Option<Timestamp> {
        self.last
    }

    /// Time of the last certificate about a service: a rotation before it is out of date.
    #[must_use]
    pub fn services_changed(&self) -> Option<Timestamp> {
        let changed = !(self.services.is_empty() && self.revoked.is_empty());
        self.last.filter(|_| changed)
    }

    fn apply(&mut self, signed: &[u8]) -> Result<()> {
        let authority = self.authority.as_ref().ok_or(refuse("organization is not sequestered"))?;
        let signature = |_| Error::new(ErrorKind::Signature, "not signed by the sequester authority");
        let key = AuthorityVerifyKey::from_der(&authority.verify_key_der).map_err(signature)?;
        let certificate = Certificate::from_sequester_payload(key.verify(signed).map_err(signature)?)?;
        require_after(certificate.timestamp(), self.last)?;
        self.last = Some(certificate.timestamp());
        match certificate {
            Certificate::SequesterService(service) => {
                let before = self.services.insert(service.service_id, service);
                require(before.is_none(), "sequester service exists already")
            }
            // An unknown service is accepted, as by all others: it changes nothing.
            Certificate::SequesterRevokedService(revoked) => {
                require(self.revoked.insert(revoked.service_id), "sequester service is revoked already")
            }
            _ => Err(malformed("certificate does not belong to the sequester topic")),
        }
    }
}

impl Trust {
    pub(super) fn apply_sequester(&mut self, batch: &[Bytes]) -> Result<()> {
        for signed in batch {
            if self.sequester.authority.is_none() && self.users.is_empty() {
                self.found_authority(signed)?;
            } else {
                Arc::make_mut(&mut self.sequester).apply(signed)?;
            }
        }
        Ok(())
    }

    /// The very first certificate of a sequestered organization.
    fn found_authority(&mut self, signed: &[u8]) -> Result<()> {
        let certificate = Certificate::open(signed, &self.root, &Default::default())?;
        let Certificate::SequesterAuthority(authority) = certificate else {
            return Err(malformed("the sequester topic begins with the authority"));
        };
        let sequester = Arc::make_mut(&mut self.sequester);
        sequester.last = Some(authority.timestamp);
        sequester.authority = Some(authority);
        Ok(())
    }
}
