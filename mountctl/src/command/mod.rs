//! What each command does: read the arguments, ask the agent, print the answer.

mod agent;
mod audit;
mod device;
mod dialog;
mod doctor;
mod generated;
mod invite;
mod join;
mod mount;
mod org;
mod quickstart;
mod recovery;
mod status;
mod sync;
mod umount;
mod user;
mod workspace;

use serde::de::DeserializeOwned;

use crate::{
    cli::{Agent, Auth, Cli, Command, Device, Global, NewDevice},
    client::Client,
    devices::Devices,
    exit::Kind,
    failure::{Failure, Result},
    home::Home,
    keeper,
    output::Output,
    password::Source,
    rpc::{self, DeviceCall, MountView, Protection, Request},
};
use parsecfs_vfs::organization::{AvailableDevice, Protection as FileProtection};

/// What every command works with.
struct Context {
    home: Home,
    client: Client,
    output: Output,
    global: Global,
}

/// Runs one command.
pub(crate) fn run(cli: Cli, output: Output) -> Result<()> {
    match cli.command {
        Command::Completions { shell } => return output.text(&generated::completions(shell)),
        Command::Man => return output.text(&generated::manual()?),
        _ => {}
    }
    let home = Home::open(cli.global.home.as_deref())?;
    let client = Client::new(home.clone(), cli.global.verbose);
    let context = Context { home, client, output, global: cli.global };
    match cli.command {
        Command::Quickstart(arguments) => quickstart::run(&context, arguments),
        Command::Org(command) => org::run(&context, command),
        Command::Workspace(command) => workspace::run(&context, command),
        Command::User(command) => user::run(&context, command),
        Command::Invite(command) => invite::run(&context, command),
        Command::Join(arguments) => join::run(&context, arguments),
        Command::Mount(arguments) => mount::run(&context, arguments),
        Command::Umount(arguments) => umount::run(&context, &arguments),
        Command::Status(arguments) => status::run(&context, &arguments),
        Command::Sync(arguments) => sync::sync(&context, &arguments),
        Command::Wait(arguments) => sync::wait(&context, &arguments),
        Command::Device(Device::Recovery(command)) => recovery::run(&context, command),
        Command::Device(command) => device::run(&context, command),
        Command::Audit(arguments) => audit::run(&context, arguments),
        Command::Doctor(arguments) => doctor::run(&context, &arguments),
        Command::Agent(Agent::Restart) => agent::restart(&context),
        Command::Agent(Agent::Keep) => keeper::run(&context.home, context.global.verbose),
        Command::Agent(Agent::Serve) => crate::agent::run(&context.home, context.global.verbose),
        Command::Completions { .. } | Command::Man => unreachable!("answered above, without a home"),
    }
}

impl Context {
    /// Asks something of the device that the flags name, with its password when that is needed.
    fn ask_device<T: DeserializeOwned>(&self, call: DeviceCall) -> Result<T> {
        let devices = Devices::of(&self.home)?;
        self.ask_as(devices.pick(self.global.device.as_deref())?, call)
    }

    /// Asks something of this device. The agent may have it open already, so the password is asked for only if not.
    fn ask_as<T: DeserializeOwned>(&self, device: &AvailableDevice, call: DeviceCall) -> Result<T> {
        let request = |password| Request::Device { device: device.device_id.to_string(), password, call: call.clone() };
        let by_password = matches!(device.protection, FileProtection::Password);
        match self.client.call(&request(None)) {
            Err(failure) if failure.kind == Kind::Locked && by_password => {}
            answer => return answer,
        }
        let prompt = format!("Password of device {:?}: ", device.device_label.as_str());
        self.client.call(&request(Some(Source::new(&self.global).existing(&prompt)?)))
    }

    /// The mounts of this home; none when no agent runs.
    fn mounts(&self) -> Result<Vec<MountView>> {
        Ok(self.client.call_running(&Request::Mounts)?.unwrap_or_default())
    }

    /// What a new device is to be.
    fn new_device(&self, arguments: NewDevice) -> Result<rpc::NewDevice> {
        let label = arguments.device_label.unwrap_or_else(machine_name);
        Ok(rpc::NewDevice { label, protection: self.protection(arguments.auth, &Source::new(&self.global))? })
    }

    fn protection(&self, auth: Auth, password: &Source) -> Result<Protection> {
        Ok(match auth {
            Auth::Password => Protection::Password(password.new_one("New password: ")?),
            Auth::Keyring => Protection::Keyring,
            Auth::Keyfile => Protection::Keyfile,
        })
    }

    /// Asks the person to confirm something that cannot be undone.
    fn confirm(&self, question: &str) -> Result<()> {
        use std::io::{BufRead, IsTerminal};
        if self.global.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(
                Failure::new(Kind::Usage, "this needs a confirmation and nobody is here to give it").hint("add --yes")
            );
        }
        self.output.note(&format!("{question} Type `yes` to go on:"));
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        read.map_err(|error| Failure::io("cannot read the answer", &error))?;
        if line.trim() == "yes" { Ok(()) } else { Err(Failure::new(Kind::Interrupted, "nothing was done")) }
    }
}

/// What a device is called when nobody says.
fn machine_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "device".to_owned() } else { name }
}

/// The one thing that `name` means among the mounts: by name, id, start of the id, or a path inside.
fn pick_mount<'a>(mounts: &'a [MountView], name: &str) -> Result<&'a MountView> {
    let by_name: Vec<_> = mounts.iter().filter(|mount| names(mount, name)).collect();
    let fitting = if by_name.is_empty() { by_path(mounts, name)? } else { by_name };
    match fitting.as_slice() {
        [mount] => Ok(mount),
        [] => {
            Err(Failure::new(Kind::NotMounted, format!("{name:?} is not mounted"))
                .hint("`mountctl status` shows what is"))
        }
        several => {
            let list: Vec<_> =
                several.iter().map(|mount| format!("{} ({})", mount.workspace, mount.workspace_id)).collect();
            Err(Failure::new(Kind::Ambiguous, format!("which one? {}", list.join(", "))).hint("use the id"))
        }
    }
}

fn names(mount: &MountView, name: &str) -> bool {
    let digits = name.replace('-', "").to_ascii_lowercase();
    mount.workspace == name || (digits.len() >= ID_START_MIN && mount.workspace_id.starts_with(&digits))
}

/// Fewer digits of an id are more likely a mistyped name.
const ID_START_MIN: usize = 4;

fn by_path<'a>(mounts: &'a [MountView], name: &str) -> Result<Vec<&'a MountView>> {
    let path = crate::mountpoint::resolve(std::path::Path::new(name))?;
    let deepest =
        mounts.iter().filter(|mount| path.starts_with(&mount.mount)).max_by_key(|mount| mount.mount.as_os_str().len());
    Ok(deepest.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(id: &str, name: &str, dir: &str) -> MountView {
        MountView {
            workspace_id: id.repeat(4),
            workspace: name.into(),
            organization: "Org".into(),
            device_id: String::new(),
            mount: dir.into(),
            read_only: false,
        }
    }

    #[test]
    fn a_mount_is_found_by_name_id_start_or_path_inside() {
        let mounts = [mount("0123abcd", "Photos", "/m/a"), mount("4567abcd", "Taxes", "/m/a/b")];
        for name in ["Photos", "0123abcd", "0123", "/m/a/x"] {
            assert_eq!(pick_mount(&mounts, name).unwrap().workspace, "Photos", "{name}");
        }
        assert_eq!(pick_mount(&mounts, "/m/a/b/c").unwrap().workspace, "Taxes");
        assert_eq!(pick_mount(&mounts, "/m").unwrap_err().kind, Kind::NotMounted);
    }

    #[test]
    fn an_ambiguous_name_lists_the_candidates() {
        let mounts = [mount("0123abcd", "Same", "/a"), mount("4567abcd", "Same", "/b")];
        let failure = pick_mount(&mounts, "Same").unwrap_err();
        assert_eq!(failure.kind, Kind::Ambiguous);
        assert!(failure.message.contains("0123abcd") && failure.message.contains("4567abcd"));
    }
}
