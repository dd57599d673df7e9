//! Where this program keeps its things: device files, stores of workspaces, the agent's socket, lock and log.
//!
//! Everything is of one user alone: folders are 0700, and a home that others can write to is refused, since whoever
//! can put a socket there is sent passwords.

use std::{
    env, fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use parsecfs_core::id::{DeviceId, RealmId};

use crate::{
    exit::Kind,
    failure::{Failure, Result},
};

/// Name of our folder inside the platform's directories.
const NAME: &str = "parsecfs";

/// The folders of one home.
#[derive(Clone, Debug)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
    cache: PathBuf,
    mounts: PathBuf,
    given: Option<PathBuf>,
}

impl Home {
    /// Opens the home in `dir`, or the one of the platform's directories, and makes what is missing.
    pub fn open(dir: Option<&Path>) -> Result<Self> {
        let home = match dir {
            Some(dir) => {
                Self::inside(&std::path::absolute(dir).map_err(|error| Failure::io("cannot use home", &error))?)
            }
            None => Self::of_platform()?,
        };
        for folder in [&home.config, &home.data, &home.cache] {
            make_private(folder)?;
        }
        make_private(&home.devices())?;
        Ok(home)
    }

    fn inside(dir: &Path) -> Self {
        Self {
            config: dir.join("config"),
            data: dir.join("data"),
            cache: dir.join("cache"),
            mounts: dir.join("mnt"),
            given: Some(dir.to_owned()),
        }
    }

    fn of_platform() -> Result<Self> {
        let user = env::var_os("HOME").map(PathBuf::from).filter(|dir| dir.is_absolute()).ok_or_else(|| {
            Failure::new(Kind::Usage, "HOME is not set").hint("say where to keep things with --home DIR")
        })?;
        let base = |variable: &str, fallback: &str| {
            let given = env::var_os(variable).map(PathBuf::from).filter(|dir| dir.is_absolute());
            given.unwrap_or_else(|| user.join(fallback)).join(NAME)
        };
        Ok(Self {
            config: base("XDG_CONFIG_HOME", ".config"),
            data: base("XDG_DATA_HOME", ".local/share"),
            cache: base("XDG_CACHE_HOME", ".cache"),
            mounts: user.join(NAME),
            given: None,
        })
    }

    /// The folder of `--home`, if it was given; absolute.
    #[must_use]
    pub fn given(&self) -> Option<&Path> {
        self.given.as_deref()
    }

    /// Where device files and their key files are.
    #[must_use]
    pub fn devices(&self) -> PathBuf {
        self.config.join("devices")
    }

    /// What `quickstart` made and where it was mounted.
    #[must_use]
    pub fn quickstart_record(&self) -> PathBuf {
        self.config.join("quickstart.json")
    }

    /// Where `quickstart` keeps its organization when it is not told where.
    #[must_use]
    pub fn quickstart_storage(&self) -> PathBuf {
        self.data.join("storage")
    }

    /// Where a workspace is mounted when nobody says where.
    #[must_use]
    pub fn default_mount(&self, workspace: &str) -> PathBuf {
        self.mounts.join(workspace.replace('/', "_"))
    }

    /// What a device keeps of its organization.
    #[must_use]
    pub fn organization_store(&self, device: DeviceId) -> PathBuf {
        self.device_store(device).join("organization")
    }

    /// What a device keeps of a workspace. Holds changes that are nowhere else, so it is data and not cache.
    #[must_use]
    pub fn workspace_store(&self, device: DeviceId, realm: RealmId) -> PathBuf {
        self.device_store(device).join(realm.to_string())
    }

    /// What a device remembers of its organization's storage: how far it has seen it, so that a rollback is noticed.
    #[must_use]
    pub fn storage_notes(&self, device: DeviceId) -> PathBuf {
        self.device_store(device).join("storage")
    }

    /// Everything that a device keeps, besides its device file.
    #[must_use]
    pub fn device_store(&self, device: DeviceId) -> PathBuf {
        self.data.join(device.to_string())
    }

    /// The folder of the agent's socket, lock, log and mount record.
    #[must_use]
    pub fn agent_folder(&self) -> &Path {
        &self.data
    }
}

/// Makes a folder that only its owner can enter, and refuses one that others could change.
pub fn make_private(folder: &Path) -> Result<()> {
    let shown = folder.display();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Failure::io(format_args!("cannot make {shown}"), &error))?;
    let meta = fs::metadata(folder).map_err(|error| Failure::io(format_args!("cannot look at {shown}"), &error))?;
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(Failure::new(Kind::Denied, format!("{shown} belongs to another user"))
            .hint("use a home of your own with --home DIR"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(
            Failure::new(Kind::Denied, format!("{shown} can be written by others")).hint(format!("chmod go-w {shown}"))
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn folders_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(&dir.path().join("home"))).unwrap();
        for folder in [&home.config, &home.data, &home.cache, &home.devices()] {
            assert_eq!(fs::metadata(folder).unwrap().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_home_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Home::open(Some(dir.path())).unwrap();
        fs::set_permissions(dir.path().join("data"), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(Home::open(Some(dir.path())).unwrap_err().kind, Kind::Denied);
    }
}
