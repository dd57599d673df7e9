//! Organizations as one device sees them, open while somebody uses them.
//!
//! A device's keys are in memory only as long as a mount, a running request or a dialog of an invitation holds its
//! organization: what is kept here is a weak reference.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use parsecfs_core::{
    certificate::DevicePurpose,
    id::{DeviceId, InvitationToken},
    local_device::LocalDevice,
    name::{DeviceLabel, Email, HumanHandle, OrganizationId},
    storage::Storage,
};
use parsecfs_vfs::{
    clock::Clock,
    error::ErrorKind,
    organization::{
        AvailableDevice, DeviceStore, Founding, NewOrganization, Organization, OrganizationKeys, Protection, Unlock,
        open_recovery,
    },
};
use tokio::sync::Mutex;

use crate::{
    address,
    daemon::{self, Storages},
    devices::{self, Devices},
    exit::Kind,
    failure::{Failure, Result},
    home::Home,
    keyring::OsKeyring,
    output, rpc,
    secret::Secret,
};

/// The organizations that are open.
pub(super) struct Sessions {
    home: Home,
    storages: Storages,
    clock: Arc<dyn Clock>,
    open: Mutex<HashMap<DeviceId, Weak<Organization>>>,
}

impl Sessions {
    /// None open yet.
    pub(super) fn new(home: Home, clock: Arc<dyn Clock>) -> Self {
        Self { storages: Storages::new(home.clone()), home, clock, open: Mutex::default() }
    }

    /// The organization of this device, opened if it is not. Held open by whoever holds the answer.
    pub(super) async fn organization(&self, id: DeviceId, password: Option<Secret>) -> Result<Arc<Organization>> {
        let mut open = self.open.lock().await;
        if let Some(organization) = open.get(&id).and_then(Weak::upgrade) {
            return Ok(organization);
        }
        let device = self.load(id, password).await?;
        let organization = self.join(device).await?;
        open.insert(id, Arc::downgrade(&organization));
        Ok(organization)
    }

    /// The organization of a device that is unlocked already.
    pub(super) async fn with(&self, device: LocalDevice) -> Result<Arc<Organization>> {
        let mut open = self.open.lock().await;
        if let Some(organization) = open.get(&device.device_id).and_then(Weak::upgrade) {
            return Ok(organization);
        }
        let organization = self.join(device).await?;
        open.insert(organization.device_id(), Arc::downgrade(&organization));
        Ok(organization)
    }

    /// The server's terms of service, and accepting them: works where nothing else does before they are accepted.
    pub(super) async fn terms(
        &self,
        id: DeviceId,
        password: Option<Secret>,
        accept: Option<String>,
    ) -> Result<rpc::TermsView> {
        let open = self.open.lock().await.get(&id).and_then(Weak::upgrade);
        let device = match &open {
            Some(organization) => organization.device().clone(),
            None => self.load(id, password).await?,
        };
        let nothing = rpc::TermsView { urls: BTreeMap::new(), updated_on: None, accepted: false };
        let Some(server) = daemon::server_of(&device, &OrganizationKeys::new(&device))? else { return Ok(nothing) };
        let Some(terms) = server.terms().await? else { return Ok(nothing) };
        let updated_on = output::time(terms.updated_on.as_micros());
        if accept.as_ref().is_some_and(|seen| *seen != updated_on) {
            return Err(Failure::new(Kind::Failed, "the terms of service are others by now").hint("read them again"));
        }
        if accept.is_some() {
            server.accept_terms(terms.updated_on).await?;
        }
        Ok(rpc::TermsView { urls: terms.urls, updated_on: Some(updated_on), accepted: accept.is_some() })
    }

    /// Makes an organization: the device file first, so that a crash never leaves an organization without a device.
    pub(super) async fn found(
        &self,
        organization: &str,
        backend: String,
        (person, device): (HumanHandle, rpc::NewDevice),
        permission: Option<rpc::Permission>,
    ) -> Result<Arc<Organization>> {
        let protection = device.protection;
        let new = NewOrganization {
            organization_id: OrganizationId::new(organization)
                .map_err(|_| usage("organization names have 1 to 32 letters, digits, - or _"))?,
            human_handle: person,
            device_label: label(&device.label)?,
            server_url: backend,
        };
        let founding = Founding::prepare(new, &*self.clock)?;
        let device = founding.device().clone();
        let keys = OrganizationKeys::new(&device);
        self.save(device.clone(), protection).await?;
        let token = match daemon::bootstrap_token(&device.server_url, &device.organization_id, permission).await {
            Ok(token) => token,
            Err(failure) => {
                self.forget(device.device_id).await?;
                return Err(failure);
            }
        };
        match self.publish(&founding, &keys, token).await {
            Ok(storage) => self.keep(device, keys, storage).await,
            Err(failure) if refuses_to_found(failure.kind) => {
                self.forget(device.device_id).await?;
                Err(failure)
            }
            // An answer that was lost or garbled may still have founded it: then the device is the only way in.
            Err(failure) => Err(Failure { hint: None, ..failure }
                .hint("it may have been made all the same: `mountctl org show` tells when the server can be reached")),
        }
    }

    async fn publish(
        &self,
        founding: &Founding,
        keys: &Arc<OrganizationKeys>,
        token: Option<[u8; 16]>,
    ) -> Result<Arc<dyn Storage>> {
        let storage = self.storages.create(founding.device(), keys, token).await?;
        let published = founding.publish(&*storage).await;
        published.map_err(|error| found_failure(error, &founding.device().server_url))?;
        Ok(storage)
    }

    /// Makes a device from a recovery file.
    pub(super) async fn import(
        &self,
        file: Vec<u8>,
        passphrase: Secret,
        device: rpc::NewDevice,
    ) -> Result<rpc::DeviceView> {
        self.require_usable(&device.protection).await?;
        let recovery = blocking(move || {
            open_recovery(&file, passphrase.reveal()).map_err(|error| match error.kind() {
                ErrorKind::Locked => Failure::new(Kind::Locked, "the recovery passphrase does not open this file")
                    .hint("look for a typing error"),
                _ => Failure::from(error).context("cannot read the recovery file"),
            })
        })
        .await?;
        self.come_back(recovery, device, None).await
    }

    /// Makes a device by one that serves for nothing else, whose traces here then go. By shares, `invitation` is used then.
    pub(super) async fn come_back(
        &self,
        way_back: LocalDevice,
        device: rpc::NewDevice,
        invitation: Option<InvitationToken>,
    ) -> Result<rpc::DeviceView> {
        let label = label(&device.label)?;
        let old = self.join(way_back).await?;
        let made = match invitation {
            Some(_) => old.return_by_shares(label).await,
            None => old.create_device(label, DevicePurpose::Standard).await,
        };
        let saved = match made {
            Ok(fresh) => self.save(fresh.clone(), device.protection).await.map(|()| fresh.device_id),
            Err(error) => Err(error.into()),
        };
        if let (Ok(_), Some(token)) = (&saved, invitation)
            && let Err(error) = old.storage().complete_invitation(token).await
        {
            tracing::warn!(kind = ?error.kind(), "an invitation that was used stays open");
        }
        let store = self.home.device_store(old.device_id());
        drop(old);
        blocking(move || {
            let gone = std::fs::remove_dir_all(&store);
            gone.map_err(|error| Failure::io("cannot remove what the recovery device kept", &error))
        })
        .await?;
        self.device(saved?)
    }

    /// Protects a device's file in another way.
    pub(super) async fn protect(
        &self,
        organization: &Organization,
        protection: rpc::Protection,
    ) -> Result<rpc::DeviceView> {
        let (id, stays) = (organization.device_id(), matches!(protection, rpc::Protection::Keyring));
        let was = Devices::of(&self.home)?.get(id).is_ok_and(|device| device.protection == Protection::Keyring);
        self.save(organization.device().clone(), protection).await?;
        if was && !stays {
            self.forget_key(id).await;
        }
        self.device(id)
    }

    /// Best effort: the device is protected otherwise, whatever becomes of the key that is left.
    async fn forget_key(&self, id: DeviceId) {
        let store = DeviceStore::open(self.home.devices());
        if let Err(failure) = blocking(move || Ok(store.forget_key(id, &OsKeyring)?)).await {
            tracing::warn!(device = %id, kind = ?failure.kind, "an old key stays in the keyring");
        }
    }

    /// Before something is made that is of no use when its device cannot be saved.
    pub(super) async fn require_usable(&self, protection: &rpc::Protection) -> Result<()> {
        let protection = protection.clone();
        blocking(move || {
            DeviceStore::require_usable(&unlock(&protection, &OsKeyring)).map_err(|error| unsaved(error, &protection))
        })
        .await
    }

    /// What a device's file tells.
    pub(super) fn device(&self, id: DeviceId) -> Result<rpc::DeviceView> {
        Devices::of(&self.home)?.get(id).map(devices::view)
    }

    async fn join(&self, device: LocalDevice) -> Result<Arc<Organization>> {
        let keys = OrganizationKeys::new(&device);
        let storage = self.storages.open(&device, &keys).await?;
        self.view(device, keys, storage).await
    }

    /// Opens the view of a device that was just made, and lets others find it.
    async fn keep(
        &self,
        device: LocalDevice,
        keys: Arc<OrganizationKeys>,
        storage: Arc<dyn Storage>,
    ) -> Result<Arc<Organization>> {
        let mut open = self.open.lock().await;
        let organization = self.view(device, keys, storage).await?;
        open.insert(organization.device_id(), Arc::downgrade(&organization));
        Ok(organization)
    }

    async fn view(
        &self,
        device: LocalDevice,
        keys: Arc<OrganizationKeys>,
        storage: Arc<dyn Storage>,
    ) -> Result<Arc<Organization>> {
        let dir = self.home.organization_store(device.device_id);
        Ok(Organization::open(device, keys, storage, &dir, self.clock.clone()).await?)
    }

    async fn load(&self, id: DeviceId, password: Option<Secret>) -> Result<LocalDevice> {
        let (home, store) = (self.home.clone(), DeviceStore::open(self.home.devices()));
        blocking(move || {
            let devices = Devices::of(&home)?;
            let device = devices.get(id)?;
            let keyring = OsKeyring;
            let unlock = match (&device.protection, &password) {
                (Protection::Password, Some(password)) => Unlock::Password(password.reveal()),
                (Protection::Password, None) => {
                    return Err(Failure::new(Kind::Locked, "the device is locked by a password"));
                }
                (Protection::Keyfile, _) => Unlock::Keyfile,
                (Protection::Keyring, _) => Unlock::Keyring(&keyring),
            };
            store.load(id, &unlock).map_err(|error| locked(error, device))
        })
        .await
    }

    /// Writes a device's file.
    pub(super) async fn save(&self, device: LocalDevice, protection: rpc::Protection) -> Result<()> {
        let store = DeviceStore::open(self.home.devices());
        let clock = self.clock.clone();
        blocking(move || {
            let saved = store.save(&device, &unlock(&protection, &OsKeyring), &*clock);
            saved.map(drop).map_err(|error| unsaved(error, &protection))
        })
        .await
    }

    async fn forget(&self, id: DeviceId) -> Result<()> {
        let store = DeviceStore::open(self.home.devices());
        blocking(move || Ok(store.forget(id)?)).await
    }
}

/// Runs slow or blocking work where it may wait.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Kind::Failed, "the agent failed inside").hint("its log says more")))
}

fn unlock<'a>(protection: &'a rpc::Protection, keyring: &'a OsKeyring) -> Unlock<'a> {
    match protection {
        rpc::Protection::Password(password) => Unlock::Password(password.reveal()),
        rpc::Protection::Keyfile => Unlock::Keyfile,
        rpc::Protection::Keyring => Unlock::Keyring(keyring),
    }
}

fn locked(error: parsecfs_vfs::error::Error, device: &AvailableDevice) -> Failure {
    let what = format!("cannot unlock the device {:?}", device.device_label.as_str());
    match (error.kind(), &device.protection) {
        (ErrorKind::NotPermitted, _) => Failure::new(Kind::Locked, format!("{what}: {error}")).hint(format!(
            "chmod 600 {}; if somebody may have read it, then `mountctl device auth password` and back, which makes \
             another key",
            device.path.with_extension("keyfile").display()
        )),
        (ErrorKind::Locked, Protection::Password) => {
            Failure::new(Kind::Locked, format!("{what}: wrong password, or its file was changed")).hint("try again")
        }
        (ErrorKind::Locked, Protection::Keyring) => Failure::from(error).context(what).hint(
            "unlock the keyring that has its key, or make a new device with `mountctl device recovery import FILE`",
        ),
        (ErrorKind::Locked | ErrorKind::NotFound, _) => Failure { kind: Kind::Locked, ..Failure::from(error) }
            .context(what)
            .hint("put the key back, or make a new device with `mountctl device recovery import FILE`"),
        (ErrorKind::Corrupt, _) => Failure::new(Kind::DeviceFile, format!("{what}: its file is damaged"))
            .hint("put a copy of the file back, or make a new device with `mountctl device recovery import FILE`"),
        _ => Failure::from(error).context(what),
    }
}

fn unsaved(error: parsecfs_vfs::error::Error, protection: &rpc::Protection) -> Failure {
    let failure = Failure::from(error).context("cannot save the device file");
    match protection {
        rpc::Protection::Keyring if failure.kind == Kind::Locked => failure
            .hint("log in to a desktop session or start a keyring service, or use `keyfile` or `password` instead"),
        _ => failure,
    }
}

fn found_failure(error: parsecfs_vfs::error::Error, backend: &str) -> Failure {
    match error.kind() {
        ErrorKind::Exists => Failure::new(Kind::Exists, format!("there is an organization in {backend} already"))
            .hint("choose another place, or join it: `mountctl device recovery import FILE`"),
        ErrorKind::Denied | ErrorKind::NotFound if address::is_server(backend) => {
            Failure { hint: None, ..Failure::from(error).context("cannot make the organization") }.hint(
                "a server wants `org create --admin-token-file FILE` of its operator, or `org bootstrap URL` of others",
            )
        }
        _ => Failure::from(error).context("cannot make the organization"),
    }
}

/// Whether nothing was founded for sure.
fn refuses_to_found(kind: Kind) -> bool {
    matches!(kind, Kind::Exists | Kind::Denied | Kind::NotFound | Kind::Usage | Kind::UnsupportedVersion)
}

fn usage(text: &str) -> Failure {
    Failure::new(Kind::Usage, text)
}

/// A person as typed.
pub(super) fn person(email: &str, name: &str) -> Result<HumanHandle> {
    let email = Email::new(email.trim()).map_err(|_| usage("this is not an e-mail address"))?;
    HumanHandle::new(email, name.trim())
        .map_err(|_| usage("a person's name has 1 to 254 bytes, and none of <>@,:;\\\"[]"))
}

pub(super) fn label(text: &str) -> Result<DeviceLabel> {
    DeviceLabel::new(text.trim()).map_err(|_| usage("a device label has 1 to 255 bytes"))
}
