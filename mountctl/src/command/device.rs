//! `device list`, `device auth`, `device forget`.

use parsecfs_vfs::organization::{DeviceStore, Protection};

use crate::{
    cli::{Auth, Device},
    command::Context,
    devices::{self, Devices},
    exit::Kind,
    failure::{Failure, Result},
    keyring::OsKeyring,
    output::table,
    password::Source,
    rpc::{DeviceCall, DeviceView, Finding, Verdict},
};

pub(super) fn run(context: &Context, command: Device) -> Result<()> {
    match command {
        Device::List => list(context),
        Device::Auth { method, new_password_file } => auth(context, method, new_password_file),
        Device::Forget { id, force } => forget(context, &id, force),
        Device::Recovery(command) => super::recovery::run(context, command),
    }
}

fn list(context: &Context) -> Result<()> {
    let devices = Devices::of(&context.home)?;
    let views: Vec<DeviceView> = devices.all().iter().map(devices::view).collect();
    context.output.answer(&views, |views| text(views))?;
    for path in devices.unreadable() {
        context.output.note(&format!("warning: the device file {path} is damaged or of a newer version"));
    }
    Ok(())
}

fn text(views: &[DeviceView]) -> String {
    let rows: Vec<_> = views
        .iter()
        .map(|device| {
            let auth = device.auth.clone();
            [device.label.clone(), device.device_id.clone(), device.organization.clone(), device.email.clone(), auth]
        })
        .collect();
    table(["DEVICE", "ID", "ORGANIZATION", "USER", "AUTH"], &rows)
}

fn auth(context: &Context, method: Auth, new_password_file: Option<std::path::PathBuf>) -> Result<()> {
    let devices = Devices::of(&context.home)?;
    let device = devices.pick(context.global.device.as_deref())?;
    let protection = context.protection(method, &Source::file_or_person(new_password_file))?;
    let changed: DeviceView = context.ask_as(device, DeviceCall::Protect { protection })?;
    context.output.answer(&changed, |changed| format!("device {:?} is protected by {}", changed.label, changed.auth))
}

fn forget(context: &Context, id: &str, force: bool) -> Result<()> {
    let devices = Devices::of(&context.home)?;
    let device = devices.pick(Some(id))?;
    let view = devices::view(device);
    if context.mounts()?.iter().any(|mount| mount.device_id == view.device_id) {
        return Err(
            Failure::new(Kind::AlreadyMounted, "a workspace is mounted with this device").hint("unmount it first")
        );
    }
    if !force {
        refuse_unsynced(context, device)?;
    }
    context.confirm(&format!("Device {:?} and all that it keeps here will be gone.", view.label))?;
    let store = DeviceStore::open(context.home.devices());
    store.forget(device.device_id)?;
    if device.protection == Protection::Keyring && store.forget_key(device.device_id, &OsKeyring).is_err() {
        context
            .output
            .note("warning: its key stays in the keyring, which cannot be used now; it opens nothing any more");
    }
    match std::fs::remove_dir_all(context.home.device_store(device.device_id)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::io("cannot remove what the device kept", &error))
        }
        _ => context.output.answer(&view, |view| format!("device {:?} is forgotten", view.label)),
    }
}

fn refuse_unsynced(context: &Context, device: &parsecfs_vfs::organization::AvailableDevice) -> Result<()> {
    let findings: Vec<Finding> = context
        .ask_as(device, DeviceCall::Check { deep: false })
        .map_err(|failure| failure.hint("--force forgets it without looking for changes that are nowhere else"))?;
    match findings.iter().find(|finding| finding.check == "unsynced" && finding.verdict > Verdict::Skipped) {
        Some(finding) => Err(Failure::new(Kind::Unsynced, finding.message.clone())
            .hint("mount it and `mountctl wait --synced`, or --force to lose these changes")),
        None => Ok(()),
    }
}
