//! The wiring: the only place that names concrete storages, the clock and the runtime.

use std::{
    fs, io,
    sync::{Arc, Mutex, PoisonError},
};

use parsecfs_backends::{
    memory::MemoryServer,
    objects,
    parsec::{self, ParsecStorage},
};
use parsecfs_core::{
    local_device::LocalDevice,
    name::OrganizationId,
    storage::{Error as StorageError, ErrorKind, Invited, Storage},
    url::{Action, Address, InvitationLink, ServerAddr},
};
use parsecfs_vfs::{
    clock::{Clock, SystemClock},
    organization::OrganizationKeys,
};

use crate::{
    address::{no_founding_address, storage_url},
    exit::Kind,
    failure::{Failure, Result},
    home::Home,
    rpc::Permission,
};

/// The one runtime of a process.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("mountctl")
        .build()
        .map_err(|error| Failure::io("cannot start threads", &error))
}

/// What time it is.
#[must_use]
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// Who owns what came from other devices: the user of this process.
#[must_use]
pub fn owner() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Makes this process one that outlives the terminal it was started from, and whose memory others cannot look at.
pub fn become_background() {
    // Fails only for a process that leads a group already, which a fresh child never does.
    let _leader = rustix::process::setsid();
    // Keeps keys out of core dumps and other processes of this user out of our memory; best effort.
    let _undumpable = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Files that this process makes are its user's alone.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// What the server asks for when it is told of a new organization; makes the organization there first, where one may.
pub async fn bootstrap_token(
    url: &str,
    organization: &OrganizationId,
    permission: Option<Permission>,
) -> Result<Option<[u8; 16]>> {
    let address = match (permission, ServerAddr::from_http(url)) {
        (Some(Permission::Link(link)), Ok(server)) => {
            // Nothing is made here for a server that is not there.
            let clock = clock();
            let limits = parsec::Limits::default();
            let server = parsec::server::Server::new(&server, None, Arc::new(move || clock.now()), limits)?;
            let asked =
                server.call(parsec::server::Family::AnonymousServer, parsec::command::Request::new("server_config"));
            asked.await.map_err(|error| not_made(error, url))?;
            Address::parse(link.reveal()).map_err(|_| no_founding_address())?
        }
        (Some(Permission::Administration(token)), Ok(server)) => {
            let limits = parsec::Limits::default();
            let made = parsec::administration::create_organization(&server, token.reveal(), organization, limits);
            made.await.map_err(|error| not_made(error, url))?
        }
        _ => return Ok(None),
    };
    match address.action {
        Action::Bootstrap { token } => Ok(token),
        _ => Err(no_founding_address()),
    }
}

fn not_made(error: StorageError, url: &str) -> Failure {
    let kind = error.kind();
    let failure = Failure::from(error).context(format_args!("cannot make the organization on {url}"));
    match kind {
        ErrorKind::VersionConflict => Failure { kind: Kind::Exists, hint: None, ..failure }.hint("choose another name"),
        ErrorKind::Denied => Failure { hint: None, ..failure }.hint("look at what --admin-token-file names"),
        _ => failure,
    }
}

/// Whether this user may write to the storage, as far as one can tell without writing.
pub fn storage_writable(url: &str) -> Result<()> {
    let Some(dir) = url.strip_prefix("file://") else { return Ok(()) };
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).map_err(|errno| {
        Failure::io(format_args!("{url} cannot be written"), &errno.into())
            .hint("look at who owns the directory and whether its disk is mounted read-only")
    })
}

/// The way to the storage that a link invites to, for somebody who is nobody there yet.
pub async fn invited(link: &InvitationLink) -> Result<Arc<dyn Invited>> {
    let url = &link.storage;
    if let (Ok(server), Some(organization)) = (ServerAddr::from_http(url), &link.organization) {
        let clock = clock();
        let limits = parsec::Limits::default();
        let now = Arc::new(move || clock.now());
        return Ok(parsec::Guest::open(&server, organization.clone(), link.token, now, limits)?);
    }
    storage_url(url)?;
    match objects::invitation::Guest::open(url, link.token).await {
        Ok(guest) => Ok(guest),
        Err(error) => Err(storage_failure(error, url)),
    }
}

/// Opens storages by address.
pub struct Storages {
    home: Home,
    /// Of `memory:`; lives as long as this process.
    memory: Mutex<Option<Arc<MemoryServer>>>,
}

impl Storages {
    /// Devices keep their notes about storages in this home.
    #[must_use]
    pub fn new(home: Home) -> Self {
        Self { home, memory: Mutex::default() }
    }

    /// Makes the storage of a new organization: where nothing is yet, or nothing but this organization's beginning.
    /// On a server it is made by whoever runs it; `token` is what founds it.
    pub async fn create(
        &self,
        device: &LocalDevice,
        keys: &Arc<OrganizationKeys>,
        token: Option<[u8; 16]>,
    ) -> Result<Arc<dyn Storage>> {
        let url = &device.server_url;
        if let Ok(server) = ServerAddr::from_http(url) {
            return Ok(on_server(server, device, keys, token)?);
        }
        if url == "memory:" {
            *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(MemoryServer::new());
            return self.open(device, keys).await;
        }
        refuse_foreign(url).await?;
        match objects::create(url, self.options(device, keys)).await {
            Ok(storage) => Ok(storage),
            Err(error) => Err(storage_failure(error, url)),
        }
    }

    /// Opens the storage of this device's organization, or makes ready to open it when it can be reached: a device that
    /// knows its organization works offline, and one that does not hears of it from its first call.
    pub async fn open(&self, device: &LocalDevice, keys: &Arc<OrganizationKeys>) -> Result<Arc<dyn Storage>> {
        let url = &device.server_url;
        if let Ok(server) = ServerAddr::from_http(url) {
            return Ok(on_server(server, device, keys, None)?);
        }
        if url == "memory:" {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let gone = || Failure::new(Kind::NotFound, "what was kept in memory ended with its agent");
            return Ok(memory.ok_or_else(gone)?.connect(device.device_id, device.user_id));
        }
        storage_url(url)?;
        match objects::open_or_wait(url, self.options(device, keys)).await {
            Ok(storage) => Ok(storage),
            Err(error) => Err(storage_failure(error, url)),
        }
    }

    fn options(&self, device: &LocalDevice, keys: &Arc<OrganizationKeys>) -> objects::Options {
        let clock = clock();
        objects::Options {
            state_dir: self.home.storage_notes(device.device_id),
            signer: keys.signer(),
            keys: keys.clone(),
            organization: device.organization_id.as_str().to_owned(),
            root: *device.root_verify_key.as_bytes(),
            clock: Arc::new(move || clock.now()),
        }
    }
}

/// The same device as the server knows it, for what only a server has; `None` elsewhere.
pub fn server_of(device: &LocalDevice, keys: &Arc<OrganizationKeys>) -> Result<Option<Arc<ParsecStorage>>> {
    match ServerAddr::from_http(&device.server_url) {
        Ok(server) => on_server(server, device, keys, None).map(Some),
        Err(_) => Ok(None),
    }
}

fn on_server(
    server: ServerAddr,
    device: &LocalDevice,
    keys: &Arc<OrganizationKeys>,
    bootstrap_token: Option<[u8; 16]>,
) -> Result<Arc<ParsecStorage>> {
    let clock = clock();
    Ok(ParsecStorage::open(parsec::Options {
        server,
        organization: device.organization_id.clone(),
        root: *device.root_verify_key.as_bytes(),
        bootstrap_token,
        signer: keys.signer(),
        clock: Arc::new(move || clock.now()),
        limits: parsec::Limits::default(),
    })?)
}

/// A directory that holds anything but an organization is somebody's, and stays as it is.
async fn refuse_foreign(url: &str) -> Result<()> {
    match objects::inspect(url).await {
        Ok(_) => Err(Failure::new(Kind::Exists, format!("there is an organization in {url} already"))
            .hint("choose another directory, or join it: `mountctl device recovery import FILE`")),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Offline) => refuse_occupied(url),
        Err(error) => Err(storage_failure(error, url)),
    }
}

fn refuse_occupied(url: &str) -> Result<()> {
    let entries = match fs::read_dir(url.trim_start_matches("file://")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| Failure::io(format_args!("cannot look into {url}"), &error))?,
    };
    // A beginning of ours that was cut off leaves no more than its folder of temporary files.
    match entries.flatten().find(|entry| entry.file_name() != "tmp") {
        Some(_) => Err(foreign(url)),
        None => Ok(()),
    }
}

fn foreign(url: &str) -> Failure {
    Failure::new(Kind::Exists, format!("{url} holds something else, not an organization"))
        .hint("choose an empty directory, or one that does not exist yet")
}

/// Says which storage it was, and what to do about it.
fn storage_failure(error: StorageError, url: &str) -> Failure {
    let kind = error.kind();
    let failure = Failure::from(error).context(format_args!("cannot open {url}"));
    match kind {
        ErrorKind::NotFound => Failure { kind: Kind::NotFound, hint: None, ..failure }
            .hint("if the directory was moved, put it back; if it is on another disk, mount that first"),
        ErrorKind::Offline => failure.hint("if it is on another disk or machine, mount that first"),
        ErrorKind::Corrupt => Failure { hint: None, ..failure }.hint("choose the directory of an organization"),
        ErrorKind::Denied => failure.hint("look at who owns the directory and whether its disk is mounted read-only"),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_foreign_directory_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter"), "dear").unwrap();
        let failure = refuse_foreign(&crate::address::directory_url(dir.path()).unwrap()).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Exists);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
