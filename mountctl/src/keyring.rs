//! The keyring of the operating system, behind the seam that device files use.

use parsecfs_vfs::{
    error::{Error, ErrorKind, Result},
    organization::Keyring,
};

/// Secret Service on Linux, Keychain on macOS, Credential Manager on Windows.
#[derive(Clone, Copy, Debug)]
pub struct OsKeyring;

impl Keyring for OsKeyring {
    fn get(&self, service: &str, user: &str) -> Result<Option<String>> {
        match entry(service, user)?.get_password() {
            Ok(secret) => Ok(Some(secret)),
            Err(keyring::Error::NoEntry) => Ok(None),
            Err(error) => Err(unusable(error)),
        }
    }

    fn set(&self, service: &str, user: &str, secret: &str) -> Result<()> {
        entry(service, user)?.set_password(secret).map_err(unusable)
    }

    fn remove(&self, service: &str, user: &str) -> Result<()> {
        match entry(service, user)?.delete_credential() {
            Ok(()) | Err(keyring::Error::NoEntry) => Ok(()),
            Err(error) => Err(unusable(error)),
        }
    }
}

fn entry(service: &str, user: &str) -> Result<keyring::Entry> {
    keyring::Entry::new(service, user).map_err(unusable)
}

fn unusable(error: keyring::Error) -> Error {
    Error::new(ErrorKind::Locked, "the keyring of this system cannot be used: no keyring service runs, or it is locked")
        .caused_by(error)
}
