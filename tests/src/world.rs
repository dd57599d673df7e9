//! Worlds in a few lines: an organization in a directory, its devices, and their workspaces without a kernel.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use parsecfs_backends::objects::{self, ObjectStorage};
use parsecfs_core::{
    certificate::{DevicePurpose, UserProfile},
    id::{DeviceId, RealmId, UserId},
    local_device::LocalDevice,
    name::{DeviceLabel, Email, EntryName, HumanHandle, OrganizationId},
    statement::{self, Author, NewUser},
    storage::Invited,
    url::InvitationLink,
};
use parsecfs_crypto::{PrivateKey, SecretKey, SigningKey, random_bytes};
use parsecfs_vfs::{
    Workspace, WorkspaceOptions,
    clock::{Clock, SystemClock},
    fs::{Maker, NewKind, ReadOutcome, Times, Volume, WriteOutcome},
    organization::{Founding, NewOrganization, Organization, OrganizationKeys},
};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// Who makes entries in tests.
pub const ME: Maker = Maker { uid: 0, gid: 0 };
/// Inode of the root folder.
pub const ROOT: u64 = 1;

/// An organization in a directory, with what its devices keep beside it.
pub struct World {
    dir: TempDir,
    clock: Arc<dyn Clock>,
}

/// One device with the organization opened.
pub struct Device {
    /// Its view.
    pub organization: Arc<Organization>,
    /// What is below it.
    pub storage: Arc<ObjectStorage>,
    home: PathBuf,
}

impl World {
    /// A new organization and its founder's device.
    pub async fn found() -> Result<(Self, Device)> {
        let world = Self { dir: TempDir::new()?, clock: Arc::new(SystemClock) };
        let founding = Founding::prepare(
            NewOrganization {
                organization_id: OrganizationId::new("Org")?,
                human_handle: HumanHandle::new(Email::new("alice@example.com")?, "Alice")?,
                device_label: DeviceLabel::new("laptop")?,
                server_url: format!("file://{}", world.store().display()),
            },
            &*world.clock,
        )?;
        let device = founding.device().clone();
        let keys = OrganizationKeys::new(&device);
        let storage = objects::create(&device.server_url, world.options("laptop", &device, &keys)).await?;
        founding.publish(&*storage).await?;
        let device = world.device("laptop", device, keys, storage).await?;
        Ok((world, device))
    }

    /// A second device of the same person.
    pub async fn second_device(&self, first: &Device, label: &str) -> Result<Device> {
        let device = first.organization.create_device(DeviceLabel::new(label)?, DevicePurpose::Standard).await?;
        self.open(label, device).await
    }

    /// A further person with a first device, brought in by an admin's device; both are called `name`.
    pub async fn person(&self, admin: &Device, name: &str, profile: UserProfile) -> Result<Device> {
        self.open(name, bring_in(&admin.organization, name, profile).await?).await
    }

    /// Somebody with a link to this organization and nothing else.
    pub async fn guest(&self, link: &InvitationLink) -> Result<Arc<dyn Invited>> {
        Ok(objects::invitation::Guest::open(&link.storage, link.token).await?)
    }

    /// Opens the organization as a device.
    pub async fn open(&self, label: &str, device: LocalDevice) -> Result<Device> {
        let keys = OrganizationKeys::new(&device);
        let storage = objects::open(&device.server_url, self.options(label, &device, &keys)).await?;
        self.device(label, device, keys, storage).await
    }

    /// Where the sealed objects are.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn options(&self, label: &str, device: &LocalDevice, keys: &Arc<OrganizationKeys>) -> objects::Options {
        let clock = self.clock.clone();
        objects::Options {
            state_dir: self.dir.path().join(label).join("storage"),
            signer: keys.signer(),
            keys: keys.clone(),
            organization: device.organization_id.as_str().to_owned(),
            root: *device.root_verify_key.as_bytes(),
            clock: Arc::new(move || clock.now()),
        }
    }

    async fn device(
        &self,
        label: &str,
        device: LocalDevice,
        keys: Arc<OrganizationKeys>,
        storage: Arc<ObjectStorage>,
    ) -> Result<Device> {
        let home = self.dir.path().join(label);
        let organization = Organization::open(device, keys, storage.clone(), &home, self.clock.clone()).await?;
        Ok(Device { organization, storage, home })
    }
}

impl Device {
    /// Opens a workspace with its local store in this device's home.
    pub async fn workspace(&self, realm: RealmId) -> Result<Arc<Workspace>> {
        self.organization.realm_keys(realm).await?;
        let options = WorkspaceOptions {
            dir: self.home.join(realm.to_string()),
            cache_bytes_max: u64::MAX,
            owner: (0, 0),
            tape: None,
        };
        Ok(Workspace::open(self.organization.clone(), realm, options, &Handle::current()).await?)
    }

    /// Makes a workspace.
    pub async fn create_workspace(&self, name: &str) -> Result<RealmId> {
        Ok(self.organization.create_workspace(EntryName::new(name)?).await?)
    }
}

/// Makes a further person with a first device, both called `name`.
pub async fn bring_in(by: &Organization, name: &str, profile: UserProfile) -> Result<LocalDevice> {
    let id = || uuid(random_bytes::<16>());
    let device = LocalDevice {
        user_id: UserId::from_bytes(id()),
        device_id: DeviceId::from_bytes(id()),
        device_label: DeviceLabel::new(name)?,
        human_handle: HumanHandle::new(Email::new(&format!("{name}@example.com"))?, name)?,
        signing_key: SigningKey::generate(),
        private_key: PrivateKey::generate(),
        initial_profile: profile,
        user_realm_id: RealmId::from_bytes(id()),
        user_realm_key: SecretKey::generate(),
        local_symkey: SecretKey::generate(),
        ..by.device().clone()
    };
    by.refresh().await?;
    by.storage().append(statement::create_user(&NewUser::of(&device), &author(by, None))).await?;
    by.refresh().await?;
    Ok(device)
}

/// Signs as a device right after everything it knows, whatever the rules say.
pub fn author(organization: &Organization, realm: Option<RealmId>) -> Author<'_> {
    let cursor = organization.trust().cursor();
    let last = cursor.common.max(realm.and_then(|realm| cursor.realm.get(&realm).copied()));
    let now = organization.clock().now();
    let device = organization.device();
    let timestamp = last.map_or(now, |last| now.max(last.next()));
    Author { device: device.device_id, key: &device.signing_key, timestamp }
}

fn uuid(mut id: [u8; 16]) -> [u8; 16] {
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    id
}

/// Paths on a volume, for tests that care about files and not about inodes.
pub trait Files {
    /// The inode of a path.
    fn find(&self, path: &str) -> Result<u64>;
    /// Writes a whole file, making it if need be.
    fn put(&self, path: &str, content: &[u8]) -> Result<()>;
    /// Makes a folder.
    fn make_folder(&self, path: &str) -> Result<()>;
    /// Names in a folder, sorted.
    fn names(&self, path: &str) -> Result<Vec<String>>;
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Files for Volume {
    fn find(&self, path: &str) -> Result<u64> {
        let mut ino = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            ino = self.lookup(ino, name.as_bytes())?.ino;
        }
        Ok(ino)
    }

    fn put(&self, path: &str, content: &[u8]) -> Result<()> {
        let (folder, name) = split(path);
        let folder = self.find(folder)?;
        let ino = match self.find(path) {
            Ok(ino) => {
                let empty = parsecfs_vfs::fs::SetAttributes { size: Some(0), ..Default::default() };
                self.set_attributes(ino, empty)?;
                ino
            }
            Err(_) => self.create(folder, name.as_bytes(), NewKind::File, 0o644, ME)?.ino,
        };
        match self.write(ino, 0, content, &Vec::new(), Times::Now)? {
            WriteOutcome::Done => Ok(()),
            WriteOutcome::Missing(_) => bail!("a whole file needs nothing"),
        }
    }

    fn make_folder(&self, path: &str) -> Result<()> {
        let (folder, name) = split(path);
        let folder = self.find(folder)?;
        self.create(folder, name.as_bytes(), NewKind::Folder, 0o755, ME)?;
        Ok(())
    }

    fn names(&self, path: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.list(self.find(path)?, 0, false, |entry, _| {
            names.push(entry.name.to_string());
            true
        })?;
        names.sort();
        Ok(names)
    }
}

/// The content of a file, fetched if need be.
pub async fn content(volume: &Volume, path: &str) -> Result<Vec<u8>> {
    let ino = volume.find(path).with_context(|| format!("find {path}"))?;
    let size = usize::try_from(volume.attributes(ino)?.size)?;
    match volume.read(ino, 0, size, &Vec::new())? {
        ReadOutcome::Data(data) => Ok(data),
        ReadOutcome::Missing(blocks) => Ok(volume.read_fetching(ino, 0, size, blocks).await?),
    }
}

/// Bytes of all files in a folder and below.
pub fn bytes_in(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { bytes_in(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
