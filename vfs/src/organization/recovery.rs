//! Further devices of the same person, and the file that makes one when every other is lost (formats.md 8.5).
//!
//! A recovery file is a device of its own, sealed under a passphrase that is shown once. It can be used again: whoever
//! holds both is the person. Importing goes in steps, since the recovery device has to open the storage: [`open_recovery`],
//! keys and storage from the device in it, [`Organization::open`], [`Organization::create_device`], save the new device.

use parsecfs_core::{
    certificate::DevicePurpose,
    device_file::{DeviceFile, FileProtection},
    id::DeviceId,
    local_device::LocalDevice,
    name::DeviceLabel,
    statement::{self, NewDevice},
};
use parsecfs_crypto::{SecretKey, SigningKey, passphrase};
use zeroize::Zeroizing;

use super::{Organization, device_store::open_device, random_id, refused};
use crate::error::{Error, ErrorKind, Result};

/// A recovery file and what opens it.
pub struct Recovery {
    /// Bytes of the file.
    pub file: Vec<u8>,
    /// The passphrase: shown to the person, kept nowhere.
    pub passphrase: Zeroizing<String>,
}

impl Organization {
    /// Makes a device of this device's user and returns it with its secrets. When it is not saved, its certificate
    /// remains and nobody holds its key.
    pub async fn create_device(&self, label: DeviceLabel, purpose: DevicePurpose) -> Result<LocalDevice> {
        let device = LocalDevice {
            device_id: DeviceId::from_bytes(random_id()),
            device_label: label,
            signing_key: SigningKey::generate(),
            local_symkey: SecretKey::generate(),
            ..self.device.clone()
        };
        self.add_device(&NewDevice::of(&device, purpose)).await?;
        Ok(device)
    }

    /// Makes a device of this device's user known. May be repeated.
    pub(crate) async fn add_device(&self, new: &NewDevice) -> Result<()> {
        self.append(|trust| {
            if trust.device(new.id).is_some() {
                return Ok(None);
            }
            Ok(Some(statement::create_device(new, &self.author(trust, None))))
        })
        .await
    }

    /// Makes a recovery device and seals it under a fresh passphrase.
    pub async fn export_recovery(&self) -> Result<Recovery> {
        let label = DeviceLabel::new("recovery").expect("a short word is a label");
        let device = self.create_device(label, DevicePurpose::PassphraseRecovery).await?;
        let key = SecretKey::generate();
        let file = DeviceFile::seal(&device, FileProtection::Recovery, &key, self.clock.now());
        Ok(Recovery { file: file.to_bytes(), passphrase: passphrase::write(&key) })
    }
}

/// Opens a recovery file. `Locked` when the passphrase is another one, `Corrupt` when it is no recovery file.
pub fn open_recovery(file: &[u8], passphrase: &str) -> Result<LocalDevice> {
    let file = DeviceFile::from_bytes(file).map_err(|error| refused("the recovery file".to_owned(), error))?;
    if file.protection != FileProtection::Recovery {
        return Err(Error::new(ErrorKind::InvalidArgument, "this is a device file, not a recovery file"));
    }
    let key = passphrase::read(passphrase)
        .map_err(|error| Error::new(ErrorKind::Locked, "this is not a whole recovery passphrase").caused_by(error))?;
    open_device(&file, &key, "the passphrase does not open the recovery file")
}
