//! Which device a command acts as, from what the device files tell without being opened.

use parsecfs_core::id::DeviceId;
use parsecfs_vfs::organization::{AvailableDevice, DeviceStore, Protection};

use crate::{
    exit::Kind,
    failure::{Failure, Result},
    home::Home,
    rpc::DeviceView,
};

/// The devices of this home. Files that cannot be read are told apart, so that they are not taken for absent.
pub struct Devices {
    available: Vec<AvailableDevice>,
    unreadable: Vec<String>,
}

impl Devices {
    /// Reads the device files.
    pub fn of(home: &Home) -> Result<Self> {
        let list = DeviceStore::open(home.devices()).list()?;
        let unreadable = list.unreadable.iter().map(|path| path.display().to_string()).collect();
        Ok(Self { available: list.devices, unreadable })
    }

    /// All that can be read.
    #[must_use]
    pub fn all(&self) -> &[AvailableDevice] {
        &self.available
    }

    /// Paths of device files that are damaged or of a newer version.
    #[must_use]
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// The device named by label, id or start of the id; without a name, the only one.
    pub fn pick(&self, name: Option<&str>) -> Result<&AvailableDevice> {
        let fitting: Vec<_> = match name {
            Some(name) => self.available.iter().filter(|device| fits(device, name)).collect(),
            None => self.available.iter().collect(),
        };
        match (fitting.as_slice(), name) {
            ([device], _) => Ok(device),
            ([], _) if !self.unreadable.is_empty() => Err(self.damaged()),
            ([], Some(name)) => Err(Failure::new(Kind::NotFound, format!("there is no device {name:?} here"))
                .hint("`mountctl device list` shows those that are")),
            ([], None) => Err(Failure::new(Kind::NotFound, "there is no device here")
                .hint("start with `mountctl quickstart` or `mountctl org create`")),
            (several, _) => Err(Failure::new(
                Kind::Ambiguous,
                format!(
                    "which device? {}",
                    several.iter().map(|device| candidate(device)).collect::<Vec<_>>().join(", ")
                ),
            )
            .hint("say which with --device, like --device 0123abcd")),
        }
    }

    /// The device with this id.
    pub fn get(&self, id: DeviceId) -> Result<&AvailableDevice> {
        let found = self.available.iter().find(|device| device.device_id == id);
        found.ok_or_else(|| Failure::new(Kind::NotFound, "this device is not here any more"))
    }

    /// The device of this organization address, if there is one.
    #[must_use]
    pub fn of_backend(&self, url: &str) -> Option<&AvailableDevice> {
        self.available.iter().find(|device| device.server_url == url)
    }

    fn damaged(&self) -> Failure {
        Failure::new(
            Kind::DeviceFile,
            format!("the device file {} is damaged, incomplete or of a newer version", self.unreadable.join(", ")),
        )
        .hint("if a newer version of mountctl wrote it, use that one; else put a copy of it back, or make a new device with \
             `mountctl device recovery import FILE`")
    }
}

fn fits(device: &AvailableDevice, name: &str) -> bool {
    device.device_label.as_str() == name || is_id_start(device.device_id, name)
}

/// Whether `name` is the id, with or without hyphens, or its start.
fn is_id_start(id: DeviceId, name: &str) -> bool {
    let digits = name.replace('-', "").to_ascii_lowercase();
    !digits.is_empty() && id.to_string().starts_with(&digits)
}

fn candidate(device: &AvailableDevice) -> String {
    let id = device.device_id.to_string();
    let (label, organization) = (device.device_label.as_str(), device.organization_id.as_str());
    format!("{} ({label} of {organization} in {})", &id[..8], device.server_url)
}

/// What a device file tells.
#[must_use]
pub fn view(device: &AvailableDevice) -> DeviceView {
    DeviceView {
        device_id: device.device_id.to_string(),
        label: device.device_label.as_str().to_owned(),
        organization: device.organization_id.as_str().to_owned(),
        email: device.human_handle.email().as_str().to_owned(),
        backend: device.server_url.clone(),
        auth: method(&device.protection).to_owned(),
    }
}

/// The word for a protection.
#[must_use]
pub fn method(protection: &Protection) -> &'static str {
    match protection {
        Protection::Password => "password",
        Protection::Keyring => "keyring",
        Protection::Keyfile => "keyfile",
    }
}
