//! The wiring: the only place that names concrete storages, the clock and the runtime.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use parsecfs_backends::{memory::MemoryServer, objects};
use parsecfs_core::{
    local_device::LocalDevice,
    storage::{Error as StorageError, ErrorKind, Storage},
};
use parsecfs_vfs::{
    clock::{Clock, SystemClock},
    organization::OrganizationKeys,
};

use crate::{
    exit::Kind,
    failure::{Failure, Result},
    home::Home,
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

/// The address of an organization in its one form: a bare path becomes `file://` and absolute.
pub fn storage_url(text: &str) -> Result<String> {
    if text == "memory:" {
        return Ok(text.to_owned());
    }
    match text.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => directory_url(Path::new(path)),
        Some(("file", _)) => {
            Err(Failure::new(Kind::Usage, format!("{text} does not name a directory of this machine"))
                .hint("a file address has three slashes: file:///absolute/directory"))
        }
        Some(("s3" | "parsec3" | "http" | "https", _)) => {
            Err(Failure::new(Kind::Usage, format!("{text}: this kind of storage is not yet in this version"))
                .hint("use a directory: file:///absolute/directory"))
        }
        Some(_) => Err(Failure::new(Kind::Usage, format!("{text}: there is no such kind of storage"))
            .hint("use a directory: file:///absolute/directory")),
        None => directory_url(Path::new(text)),
    }
}

/// The address of an organization in a directory, the same for every way to write its path.
pub fn directory_url(dir: &Path) -> Result<String> {
    let dir = crate::mountpoint::resolve(dir)?;
    match dir.to_str() {
        Some(text) => Ok(format!("file://{text}")),
        None => Err(Failure::new(Kind::Usage, "the path of a storage directory must be UTF-8")),
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
    pub async fn create(&self, device: &LocalDevice, keys: &Arc<OrganizationKeys>) -> Result<Arc<dyn Storage>> {
        let url = &device.server_url;
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

    #[test]
    fn a_directory_has_one_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let url = format!("file://{}", path.display());
        assert_eq!(storage_url(path.to_str().unwrap()).unwrap(), url);
        assert_eq!(storage_url(&url).unwrap(), url);
        assert_eq!(storage_url(&format!("{url}/../{}/", path.file_name().unwrap().display())).unwrap(), url);
    }

    #[test]
    fn addresses_of_other_kinds_are_refused_with_what_to_use_instead() {
        for text in ["s3://bucket/prefix", "parsec3://host/Org", "https://host/redirect/Org", "ftp://x", "file://x"] {
            let failure = storage_url(text).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage, "{text}");
            assert!(failure.hint.unwrap().contains("file:///"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_foreign_directory_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter"), "dear").unwrap();
        let failure = refuse_foreign(&directory_url(dir.path()).unwrap()).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Exists);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
