//! Device files on disk: one `<device id>.keys` each in a directory (formats.md 8.3, 8.4).
//!
//! What stands in clear in a file (organization, person, label) is listed without a password; the device itself opens
//! with a password, with a key file beside it, or with the keyring of the operating system. A file that cannot be read
//! is named in the list and hides no other. Writing replaces a file as a whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use parsecfs_core::{
    device_file::{DeviceFile, FileProtection},
    error::ErrorKind as Step,
    id::{DeviceId, UserId},
    local_device::LocalDevice,
    name::{DeviceLabel, HumanHandle, OrganizationId},
};
use parsecfs_crypto::{Argon2id, SecretKey, passphrase, random_bytes};
use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
};

const SUFFIX: &str = "keys";
const KEYRING_SERVICE: &str = "parsecfs";
/// A device file is below 2 KiB; anything of this size is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The keyring of the operating system.
pub trait Keyring: Send + Sync {
    /// The secret kept for `user` of `service`; `None` when there is none.
    fn get(&self, service: &str, user: &str) -> Result<Option<String>>;
    /// Keeps a secret.
    fn set(&self, service: &str, user: &str, secret: &str) -> Result<()>;
    /// Forgets a secret; one that is not there is fine.
    fn remove(&self, service: &str, user: &str) -> Result<()>;
}

/// How to open a device file, or how to protect one.
pub enum Unlock<'a> {
    /// A password, as typed.
    Password(&'a str),
    /// A file beside the device file.
    Keyfile,
    /// The keyring of the operating system.
    Keyring(&'a dyn Keyring),
}

/// What a device file needs to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// A password.
    Password,
    /// A file beside it.
    Keyfile,
    /// The keyring of the operating system.
    Keyring,
}

/// A device file, as far as it stands in clear.
#[derive(Clone, Debug)]
pub struct AvailableDevice {
    /// Where.
    pub path: PathBuf,
    /// Which device.
    pub device_id: DeviceId,
    /// Whose.
    pub user_id: UserId,
    /// Of which organization.
    pub organization_id: OrganizationId,
    /// Where that is kept.
    pub server_url: String,
    /// The person.
    pub human_handle: HumanHandle,
    /// What the person calls it.
    pub device_label: DeviceLabel,
    /// What opens it.
    pub protection: Protection,
}

/// What lies in a directory of device files.
#[derive(Clone, Debug, Default)]
pub struct DeviceList {
    /// Those that can be read, in the order of their paths.
    pub devices: Vec<AvailableDevice>,
    /// Those that cannot: damaged, or of a kind that this program does not know.
    pub unreadable: Vec<PathBuf>,
}

/// A directory of device files.
#[derive(Clone, Debug)]
pub struct DeviceStore {
    dir: PathBuf,
}

impl DeviceStore {
    /// The store in `dir`, which is made when the first device is saved.
    #[must_use]
    pub fn open(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Every device, without opening one. Of two files with one device, the first path counts.
    pub fn list(&self) -> Result<DeviceList> {
        let mut list = DeviceList::default();
        for path in self.paths()? {
            match read_file(&path) {
                Ok(file) => {
                    let known = list.devices.iter().any(|device| device.device_id == file.device_id);
                    match available(path.clone(), file) {
                        Some(device) if !known => list.devices.push(device),
                        Some(_) => {}
                        None => list.unreadable.push(path),
                    }
                }
                Err(_) => list.unreadable.push(path),
            }
        }
        Ok(list)
    }

    /// Saves a device under `unlock`, or protects one that is there anew. The key is on disk or in the keyring before
    /// the file that needs it.
    pub fn save(&self, device: &LocalDevice, unlock: &Unlock<'_>, clock: &dyn Clock) -> Result<PathBuf> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(disk)?;
        let path = self.dir.join(format!("{}.{SUFFIX}", device.device_id));
        let (protection, key) = self.protect(device.device_id, unlock)?;
        let mut file = DeviceFile::seal(device, protection, &key, clock.now());
        if let Ok(before) = read_file(&path) {
            file.created_on = before.created_on;
        }
        write_atomically(&path, &file.to_bytes()).map_err(disk)?;
        if !matches!(unlock, Unlock::Keyfile) {
            remove_if_there(&self.keyfile(device.device_id))?;
        }
        Ok(path)
    }

    /// Takes the key of a device out of a keyring that does not protect it any more. What it opens are older copies of
    /// the device file.
    pub fn forget_key(&self, id: DeviceId, keyring: &dyn Keyring) -> Result<()> {
        let needed = |device: &AvailableDevice| device.device_id == id && device.protection == Protection::Keyring;
        if self.list()?.devices.iter().any(needed) {
            return Err(Error::new(ErrorKind::Busy, "the keyring protects this device"));
        }
        keyring.remove(KEYRING_SERVICE, &id.to_string())
    }

    /// Whether a device could be protected so, as far as can be told without one: before something is made that would be
    /// of no use without its device.
    pub fn require_usable(unlock: &Unlock<'_>) -> Result<()> {
        match unlock {
            Unlock::Keyring(keyring) => keyring.get(KEYRING_SERVICE, "none").map(drop),
            Unlock::Password(_) | Unlock::Keyfile => Ok(()),
        }
    }

    /// Opens a device. `NotFound` when there is none with this id, `Locked` when `unlock` does not open it,
    /// `NotPermitted` when others could read its key file, `Corrupt` when the file is damaged.
    pub fn load(&self, id: DeviceId, unlock: &Unlock<'_>) -> Result<LocalDevice> {
        let list = self.list()?;
        let Some(found) = list.devices.into_iter().find(|device| device.device_id == id) else {
            return Err(self.missing(id, &list.unreadable));
        };
        let file = read_file(&found.path)?;
        let (key, wrong) = match (&file.protection, unlock) {
            (FileProtection::Password(_), Unlock::Password(password)) => {
                (file.key_from(password).map_err(|error| damaged().caused_by(error))?, "wrong password")
            }
            (FileProtection::Keyfile, Unlock::Keyfile) => {
                self.require_private_keyfile(id)?;
                (self.read_keyfile(id)?, "the key file does not open it")
            }
            (FileProtection::Keyring { service, user }, Unlock::Keyring(keyring)) => {
                let secret = keyring.get(service, user)?.map(Zeroizing::new);
                let secret = secret.ok_or_else(|| locked("the keyring has no entry for this device"))?;
                (read_passphrase(&secret)?, "the keyring's entry does not open it")
            }
            (FileProtection::Password(_), _) => return Err(locked("this device is opened by a password")),
            (FileProtection::Keyfile, _) => return Err(locked("this device is opened by its key file")),
            (FileProtection::Keyring { .. }, _) => return Err(locked("this device is opened by the keyring")),
            (FileProtection::Recovery, _) => return Err(locked("a recovery file is imported, not opened")),
            (
                FileProtection::AccountVault { .. } | FileProtection::OpenBao { .. } | FileProtection::SmartCard { .. },
                _,
            ) => return Err(locked("this device is opened by a service that this program does not know")),
        };
        open_device(&file, &key, wrong)
    }

    /// Removes a device's files. Its certificate remains.
    pub fn forget(&self, id: DeviceId) -> Result<()> {
        let list = self.list()?;
        let found = list.devices.iter().filter(|device| device.device_id == id);
        let paths: Vec<_> = found.map(|device| device.path.clone()).collect();
        if paths.is_empty() {
            return Err(self.missing(id, &list.unreadable));
        }
        paths.iter().try_for_each(|path| remove_if_there(path))?;
        remove_if_there(&self.keyfile(id))
    }

    fn paths(&self) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(disk)?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(disk)?.path();
            if path.extension().is_some_and(|suffix| suffix == SUFFIX) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn missing(&self, id: DeviceId, unreadable: &[PathBuf]) -> Error {
        if unreadable.contains(&self.dir.join(format!("{id}.{SUFFIX}"))) {
            return damaged();
        }
        Error::new(ErrorKind::NotFound, format!("there is no file of device {id}"))
    }

    /// A fresh key, kept where `unlock` says.
    fn protect(&self, id: DeviceId, unlock: &Unlock<'_>) -> Result<(FileProtection, SecretKey)> {
        if let Unlock::Password(password) = unlock {
            let algorithm = Argon2id::generate();
            let key = algorithm.derive(password.as_bytes());
            let key = key.map_err(|error| Error::new(ErrorKind::Internal, "password derivation").caused_by(error))?;
            return Ok((FileProtection::Password(algorithm), key));
        }
        let key = self.kept_key(id, unlock)?.unwrap_or_else(SecretKey::generate);
        let text = passphrase::write(&key);
        match unlock {
            Unlock::Keyring(keyring) => {
                let (service, user) = (KEYRING_SERVICE.to_owned(), id.to_string());
                keyring.set(&service, &user, &text)?;
                Ok((FileProtection::Keyring { service, user }, key))
            }
            Unlock::Keyfile | Unlock::Password(_) => {
                write_atomically(&self.keyfile(id), text.as_bytes()).map_err(disk)?;
                Ok((FileProtection::Keyfile, key))
            }
        }
    }

    /// The key that is there already: replacing it before the device file would lock the device if we stopped between.
    fn kept_key(&self, id: DeviceId, unlock: &Unlock<'_>) -> Result<Option<SecretKey>> {
        Ok(match unlock {
            Unlock::Keyring(keyring) => {
                keyring.get(KEYRING_SERVICE, &id.to_string())?.and_then(|text| passphrase::read(&text).ok())
            }
            Unlock::Keyfile | Unlock::Password(_) => self.read_keyfile(id).ok(),
        })
    }

    fn keyfile(&self, id: DeviceId) -> PathBuf {
        self.dir.join(format!("{id}.keyfile"))
    }

    /// A key that others can read protects nothing, and it is better to hear so than to believe in it.
    fn require_private_keyfile(&self, id: DeviceId) -> Result<()> {
        match fs::metadata(self.keyfile(id)) {
            Ok(found) if found.permissions().mode() & 0o077 != 0 => {
                Err(Error::new(ErrorKind::NotPermitted, "other users may read the key file of this device"))
            }
            // What else is wrong with it shows when it is read.
            _ => Ok(()),
        }
    }

    fn read_keyfile(&self, id: DeviceId) -> Result<SecretKey> {
        let bytes = read_small(&self.keyfile(id))
            .map_err(|error| locked("the key file of this device cannot be read").caused_by(error))?;
        let text = Zeroizing::new(bytes);
        read_passphrase(std::str::from_utf8(&text).map_err(|_| locked("the key file of this device is damaged"))?)
    }
}

fn read_passphrase(text: &str) -> Result<SecretKey> {
    passphrase::read(text).map_err(|error| locked("the key of this device is damaged").caused_by(error))
}

fn locked(why: &str) -> Error {
    Error::new(ErrorKind::Locked, why)
}

fn damaged() -> Error {
    Error::new(ErrorKind::Corrupt, "the device file is damaged")
}

fn disk(error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, "device files").caused_by(error)
}

fn read_file(path: &Path) -> Result<DeviceFile> {
    DeviceFile::from_bytes(&read_small(path).map_err(disk)?).map_err(|error| damaged().caused_by(error))
}

fn available(path: PathBuf, file: DeviceFile) -> Option<AvailableDevice> {
    if file.totp_opaque_key_id.is_some() {
        return None;
    }
    let protection = match file.protection {
        FileProtection::Password(_) => Protection::Password,
        FileProtection::Keyfile => Protection::Keyfile,
        FileProtection::Keyring { .. } => Protection::Keyring,
        FileProtection::Recovery
        | FileProtection::AccountVault { .. }
        | FileProtection::OpenBao { .. }
        | FileProtection::SmartCard { .. } => return None,
    };
    Some(AvailableDevice {
        path,
        device_id: file.device_id,
        user_id: file.user_id,
        organization_id: file.organization_id,
        server_url: file.server_url,
        human_handle: file.human_handle,
        device_label: file.device_label,
        protection,
    })
}

/// Opens the sealed part. A wrong key and damaged bytes look the same, so `wrong` names the likelier one.
pub(super) fn open_device(file: &DeviceFile, key: &SecretKey, wrong: &str) -> Result<LocalDevice> {
    file.open(key).map_err(|error| match error.kind() {
        Step::Decryption => locked(wrong).caused_by(error),
        _ => damaged().caused_by(error),
    })
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(disk),
    }
}

/// Reads a whole file that should be small.
fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too large"));
    }
    fs::read(path)
}

/// Puts `bytes` at `path`, readable by its owner only, so that a crash leaves either what was there or all of it.
fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().expect("a file in the store has a directory");
    let temporary = dir.join(format!(".{:032x}.tmp", u128::from_le_bytes(random_bytes())));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        // It may not exist, or be the file already: what failed before is what counts.
        let _ = fs::remove_file(&temporary);
    }
    written
}
