//! A new organization: a root key that signs the first user and device and is then forgotten.
//!
//! The founder's device has to be known before the storage is opened, since an organization's own keys seal it. So this
//! goes in steps: [`Founding::prepare`], save the device file, open the storage with [`Founding::device`],
//! [`Founding::publish`]. A crash before the last step leaves a device file that no organization knows; one after it
//! leaves nothing undone.

use parsecfs_core::{
    certificate::UserProfile,
    id::{DeviceId, RealmId, UserId},
    local_device::LocalDevice,
    name::{DeviceLabel, HumanHandle, OrganizationId},
    statement::{self, NewUser},
    storage::{self, Statement, Storage},
    url::ServerAddr,
};
use parsecfs_crypto::{PrivateKey, SecretKey, SigningKey};

use super::random_id;
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
};

/// What the founder decides.
#[derive(Clone, Debug)]
pub struct NewOrganization {
    /// Name of the organization.
    pub organization_id: OrganizationId,
    /// The founder.
    pub human_handle: HumanHandle,
    /// Label of the founder's device.
    pub device_label: DeviceLabel,
    /// Where it will be kept.
    pub server_url: String,
}

/// An organization that is about to be.
#[derive(Debug)]
pub struct Founding {
    device: LocalDevice,
    statement: Statement,
}

impl Founding {
    /// Makes the founder's keys and signs them with a root key that nobody keeps.
    pub fn prepare(new: NewOrganization, clock: &dyn Clock) -> Result<Self> {
        let NewOrganization { organization_id, human_handle, device_label, server_url } = new;
        let root = SigningKey::generate();
        // A server keeps no sealed logs, and its other clients know no such key.
        let has_logs = ServerAddr::from_http(&server_url).is_err();
        let device = LocalDevice {
            server_url,
            organization_id,
            root_verify_key: root.verify_key(),
            user_id: UserId::from_bytes(random_id()),
            device_id: DeviceId::from_bytes(random_id()),
            device_label,
            human_handle,
            signing_key: SigningKey::generate(),
            private_key: PrivateKey::generate(),
            initial_profile: UserProfile::Admin,
            user_realm_id: RealmId::from_bytes(random_id()),
            user_realm_key: SecretKey::generate(),
            local_symkey: SecretKey::generate(),
            organization_key: has_logs.then(SecretKey::generate),
        };
        let statement = statement::bootstrap(&NewUser::of(&device), &root, clock.now());
        Ok(Self { device, statement })
    }

    /// The founder's device: save it, then open the storage with its keys.
    #[must_use]
    pub fn device(&self) -> &LocalDevice {
        &self.device
    }

    /// Makes the organization exist. May be repeated; `Exists` when the storage holds one already.
    pub async fn publish(&self, storage: &dyn Storage) -> Result<()> {
        match storage.append(self.statement.clone()).await {
            Err(error) if error.kind() == storage::ErrorKind::VersionConflict => {
                Err(Error::new(ErrorKind::Exists, "there is an organization already").caused_by(error))
            }
            answer => Ok(answer?),
        }
    }
}
