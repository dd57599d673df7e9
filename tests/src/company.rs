//! Several people in one organization, in a directory or on the real Parsec server: the same story on both.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use parsecfs_backends::parsec::{self, Limits, ParsecStorage};
use parsecfs_core::{
    certificate::UserProfile,
    local_device::LocalDevice,
    name::{DeviceLabel, Email, HumanHandle, OrganizationId},
    storage::Invited,
    url::InvitationLink,
};
use parsecfs_vfs::{
    clock::{Clock, SystemClock},
    organization::{DeviceStore, Founding, NewOrganization, Organization, OrganizationKeys, Unlock},
};
use tempfile::TempDir;

use crate::{
    cli::CliHome,
    parsec_server::ParsecServer,
    world::{World, bring_in},
};

/// An organization and a first device of each person in it; the first person founded it.
pub struct Company {
    /// In the order of their names.
    pub people: Vec<Arc<Organization>>,
    place: Place,
}

enum Place {
    Directory(World),
    Server { server: Arc<ParsecServer>, dir: TempDir },
}

impl Company {
    /// In a directory; people behind the first are called so.
    pub async fn in_a_directory(names: &[&str]) -> Result<Self> {
        let (world, founder) = World::found().await?;
        let mut people = vec![Arc::clone(&founder.organization)];
        for name in names {
            people.push(world.person(&founder, name, UserProfile::Standard).await?.organization);
        }
        Ok(Self { people, place: Place::Directory(world) })
    }

    /// The same on a server; `None` where this machine has none.
    pub async fn on_a_server(names: &[&str]) -> Result<Option<Self>> {
        let Some(server) = ParsecServer::start() else { return Ok(None) };
        let mut company = Self::founded(Arc::new(server), "Org").await?;
        for name in names {
            company.people.push(company.person(&company.people[0], name, UserProfile::Standard).await?);
        }
        Ok(Some(company))
    }

    /// On a server that others may be on too: the founder alone, whose organization is called so.
    pub async fn founded(server: Arc<ParsecServer>, name: &str) -> Result<Self> {
        let token = server.bootstrap_token(name).await;
        let new = NewOrganization {
            organization_id: OrganizationId::new(name)?,
            human_handle: HumanHandle::new(Email::new("alice@example.com")?, "Alice")?,
            device_label: DeviceLabel::new("laptop")?,
            server_url: server.address().http_url(),
        };
        let founding = Founding::prepare(new, &SystemClock)?;
        let (founder, keys) = (founding.device().clone(), OrganizationKeys::new(founding.device()));
        founding.publish(&*connect(&server, &founder, &keys, Some(token))?).await?;
        let mut company = Self { people: Vec::new(), place: Place::Server { server, dir: tempfile::tempdir()? } };
        company.people.push(company.open(founder).await?);
        Ok(company)
    }

    /// A further person with a first device, brought in by an admin's device.
    pub async fn person(&self, by: &Organization, name: &str, profile: UserProfile) -> Result<Arc<Organization>> {
        self.open(bring_in(by, name, profile).await?).await
    }

    /// Both.
    pub async fn everywhere(names: &[&str]) -> Result<Vec<Self>> {
        let server = Self::on_a_server(names).await?;
        Ok([Self::in_a_directory(names).await?].into_iter().chain(server).collect())
    }

    /// Opens the organization as a device.
    pub async fn open(&self, device: LocalDevice) -> Result<Arc<Organization>> {
        match &self.place {
            Place::Directory(world) => {
                let label = device.device_id.to_string();
                Ok(world.open(&label, device).await?.organization)
            }
            Place::Server { server, dir } => {
                let keys = OrganizationKeys::new(&device);
                let storage = connect(server, &device, &keys, None)?;
                let copy = dir.path().join(device.device_id.to_string());
                Ok(Organization::open(device, keys, storage, &copy, Arc::new(SystemClock)).await?)
            }
        }
    }

    /// Somebody with a link to the organization and nothing else.
    pub async fn guest(&self, link: &InvitationLink) -> Result<Arc<dyn Invited>> {
        match &self.place {
            Place::Directory(world) => world.guest(link).await,
            Place::Server { server, .. } => {
                let organization = link.organization.clone().context("a server has many organizations")?;
                let clock = Arc::new(|| SystemClock.now());
                Ok(parsec::Guest::open(&server.address(), organization, link.token, clock, Limits::default())?)
            }
        }
    }

    /// The server, if it is on one.
    pub fn server(&self) -> Option<&ParsecServer> {
        match &self.place {
            Place::Directory(_) => None,
            Place::Server { server, .. } => Some(server),
        }
    }

    /// Where the sealed objects are, if that is a directory.
    pub fn store(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Directory(world) => Some(world.store()),
            Place::Server { .. } => None,
        }
    }

    /// A home with the device of a person.
    pub fn home(&self, person: usize) -> Result<CliHome> {
        let home = CliHome::new();
        let store = DeviceStore::open(home.home().join("config/devices"));
        store.save(self.people[person].device(), &Unlock::Keyfile, &SystemClock)?;
        Ok(home)
    }
}

fn connect(
    server: &ParsecServer,
    device: &LocalDevice,
    keys: &Arc<OrganizationKeys>,
    bootstrap_token: Option<[u8; 16]>,
) -> Result<Arc<ParsecStorage>> {
    Ok(ParsecStorage::open(parsec::Options {
        server: server.address(),
        organization: device.organization_id.clone(),
        root: *device.root_verify_key.as_bytes(),
        bootstrap_token,
        signer: keys.signer(),
        clock: Arc::new(|| SystemClock.now()),
        limits: Limits::default(),
    })?)
}
