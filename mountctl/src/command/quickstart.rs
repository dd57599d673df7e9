//! `quickstart`: everything with nothing to configure, and again what is there already.
//!
//! Every step looks for what an earlier, perhaps interrupted, run has made: the device by the address of its
//! organization, the workspace by its name, the mount by the agent's list.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use parsecfs_core::id::DeviceId;
use parsecfs_vfs::organization::{AvailableDevice, DeviceStore};
use serde::{Deserialize, Serialize};

use crate::{
    address,
    cli::Quickstart,
    command::{Context, machine_name, mount},
    devices::Devices,
    exit::Kind,
    failure::{Failure, Result},
    home::make_private,
    mountpoint,
    rpc::{DeviceCall, MountRequest, MountView, NewDevice, OrganizationView, Protection, Request, WorkspaceView},
};

const ORGANIZATION: &str = "quickstart";
const WORKSPACE: &str = "quickstart";

/// What was chosen before.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    /// Directory of the organization that was mounted last: a run that names none means this one.
    last: Option<PathBuf>,
    /// By address of the organization.
    choices: BTreeMap<String, Choice>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Choice {
    workspace: String,
    mount: PathBuf,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Made {
    organization: String,
    backend: String,
    device_id: String,
    workspace: String,
    workspace_id: String,
    mount: PathBuf,
    created: bool,
}

pub(super) fn run(context: &Context, arguments: Quickstart) -> Result<()> {
    mountpoint::check_machine()?;
    let mut record = read(&context.home.quickstart_record());
    let at = arguments.at.or_else(|| record.last.clone()).unwrap_or_else(|| context.home.quickstart_storage());
    let backend = address::directory_url(&at)?;
    let earlier = record.choices.get(&backend).cloned();
    let workspace = arguments
        .workspace
        .or_else(|| earlier.as_ref().map(|choice| choice.workspace.clone()))
        .unwrap_or_else(|| WORKSPACE.to_owned());
    let same = earlier.filter(|choice| choice.workspace == workspace).map(|choice| choice.mount);
    let dir = arguments.mount.or(same).unwrap_or_else(|| context.home.default_mount(&workspace));
    let dir = mountpoint::resolve(&dir)?;

    let (device_id, made, created) = made(context, &backend, &workspace)?;
    let devices = Devices::of(&context.home)?;
    let device = devices.get(device_id)?;
    let mounted = mounted(context, device, &made, &dir)?;
    record.last = Some(std::path::absolute(&at).unwrap_or(at));
    record.choices.insert(backend.clone(), Choice { workspace, mount: mounted.mount.clone() });
    write(&context.home.quickstart_record(), &record)?;
    say(
        context,
        Made {
            organization: mounted.organization,
            backend,
            device_id: mounted.device_id,
            workspace: made.name,
            workspace_id: made.workspace_id,
            mount: mounted.mount,
            created,
        },
    )
}

/// The device, the workspace, and whether the organization was made just now.
fn made(context: &Context, backend: &str, workspace: &str) -> Result<(DeviceId, WorkspaceView, bool)> {
    let devices = Devices::of(&context.home)?;
    if let Some(device) = devices.of_backend(backend) {
        match workspace_of(context, device, workspace) {
            // A first run that was cut off between the device file and the organization: begin anew.
            Err(failure) if matches!(failure.kind, Kind::NotFound | Kind::Offline) && never_opened(context, device) => {
                DeviceStore::open(context.home.devices()).forget(device.device_id)?;
            }
            answer => return Ok((device.device_id, answer?, false)),
        }
    }
    found(context, backend)?;
    let devices = Devices::of(&context.home)?;
    let device = devices
        .of_backend(backend)
        .ok_or_else(|| Failure::new(Kind::Failed, "the device that was just made is not there"))?;
    Ok((device.device_id, workspace_of(context, device, workspace)?, true))
}

/// Every device that ever saw its organization keeps something of it.
fn never_opened(context: &Context, device: &AvailableDevice) -> bool {
    !context.home.organization_store(device.device_id).exists()
}

fn found(context: &Context, backend: &str) -> Result<OrganizationView> {
    let user = std::env::var("USER").ok().filter(|user| !user.is_empty()).unwrap_or_else(|| "me".to_owned());
    let local: String = user.chars().filter(char::is_ascii_alphanumeric).collect();
    let local = if local.is_empty() { "me".to_owned() } else { local };
    context.client.call(&Request::CreateOrganization {
        permission: None,
        organization: ORGANIZATION.to_owned(),
        backend: backend.to_owned(),
        email: format!("{local}@localhost"),
        name: local,
        device: NewDevice { label: machine_name(), protection: Protection::Keyfile },
    })
}

fn workspace_of(context: &Context, device: &AvailableDevice, name: &str) -> Result<WorkspaceView> {
    let list: Vec<WorkspaceView> = context.ask_as(device, DeviceCall::Workspaces)?;
    let mut named = list.into_iter().filter(|workspace| workspace.name == name);
    match (named.next(), named.next()) {
        (Some(workspace), None) => Ok(workspace),
        (None, _) => context.ask_as(device, DeviceCall::CreateWorkspace { name: name.to_owned() }),
        (Some(_), Some(_)) => {
            Err(Failure::new(Kind::Ambiguous, format!("there are several workspaces called {name:?}"))
                .hint("mount the one you want by its id: mountctl workspace list"))
        }
    }
}

fn mounted(context: &Context, device: &AvailableDevice, workspace: &WorkspaceView, dir: &Path) -> Result<MountView> {
    let mounts = context.mounts()?;
    if let Some(mount) = mounts.into_iter().find(|mount| mount.workspace_id == workspace.workspace_id) {
        if mount.mount == dir {
            return Ok(mount);
        }
        let shown = mount.mount.display();
        return Err(Failure::new(Kind::AlreadyMounted, format!("{} is mounted on {shown} already", mount.workspace))
            .hint(format!("use it there, or `mountctl umount {shown}` first")));
    }
    if mountpoint::mounted_on(dir)?.is_none() {
        make_mount_point(dir)?;
    }
    let dir = mount::prepare(context, dir)?;
    let call = DeviceCall::Mount {
        workspace: workspace.workspace_id.clone(),
        dir: Some(dir),
        options: MountRequest::default(),
    };
    context.ask_as(device, call)
}

fn make_mount_point(dir: &Path) -> Result<()> {
    if dir.exists() {
        return Ok(());
    }
    make_private(dir).map_err(|failure| Failure { kind: Kind::MountPoint, ..failure })
}

fn read(path: &Path) -> Record {
    // Without it the defaults are taken; nothing but convenience is lost.
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write(path: &Path, record: &Record) -> Result<()> {
    let failed = |error: std::io::Error| Failure::io("cannot remember where this is mounted", &error);
    let staged = path.with_extension("json.new");
    let bytes = serde_json::to_vec_pretty(record).expect("a record is plain JSON");
    fs::write(&staged, bytes).and_then(|()| fs::rename(&staged, path)).map_err(failed)
}

fn say(context: &Context, made: Made) -> Result<()> {
    context.output.answer(&made, |made| {
        let dir = made.mount.display();
        let first = if made.created { "made and mounted" } else { "mounted" };
        format!("workspace {:?} is {first} on {dir}\nsealed in {}", made.workspace, made.backend)
    })?;
    let dir = made.mount.display();
    let mountctl = as_called(context);
    context.output.note(&format!(
        "\nNow use it like any directory:   cp -r SOMETHING {dir}/\n\
         See how it is:                   {mountctl} status\n\
         Unmount it:                      {mountctl} umount {dir}\n\
         Mount it again:                  {mountctl} quickstart\n\
         Be ready for a lost disk:        {mountctl} device recovery export FILE"
    ));
    Ok(())
}

/// How the person can call this program again: it may not be on the path, and may have been given a home.
fn as_called(context: &Context) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "mountctl".to_owned());
    match context.home.given() {
        Some(home) => format!("{program} --home {}", home.display()),
        None => program,
    }
}
