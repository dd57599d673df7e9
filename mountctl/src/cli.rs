//! The grammar of the command line. What each command does is in `command`.

use std::{num::NonZeroU8, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::rpc::{Profile, Recipient, Role};

/// Mounts end-to-end encrypted workspaces as drives.
#[derive(Debug, Parser)]
#[command(name = "mountctl", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Keep everything in this directory instead of the platform's
    #[arg(long, global = true, value_name = "DIR", env = "MOUNTCTL_HOME")]
    pub home: Option<PathBuf>,
    /// Act as this device: label, id or start of the id
    #[arg(long, global = true, value_name = "ID", env = "MOUNTCTL_DEVICE")]
    pub device: Option<String>,
    /// Read the password from the first line of this file
    #[arg(long, global = true, value_name = "FILE", env = "MOUNTCTL_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long, global = true)]
    pub password_stdin: bool,
    /// Answer with one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing beside the answer
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more; repeat for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No colours
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Do not ask for confirmation
    #[arg(short, long, global = true)]
    pub yes: bool,
}

/// Everything that can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an organization in a local directory with one workspace and mount it; again: mount it again
    Quickstart(Quickstart),
    /// Organizations
    #[command(subcommand)]
    Org(Org),
    /// Workspaces
    #[command(subcommand)]
    Workspace(Workspace),
    /// People
    #[command(subcommand)]
    User(User),
    /// Let people in, and further devices of your own
    #[command(subcommand)]
    Invite(Invite),
    /// Use an invitation
    Join(Join),
    /// Mount a workspace as a directory, in the background
    Mount(Mount),
    /// Unmount
    #[command(alias = "unmount")]
    Umount(Umount),
    /// What is mounted and how it is
    Status(Status),
    /// Exchange changes with the storage now
    Sync(Sync),
    /// Wait until changes are on the storage
    Wait(Wait),
    /// Devices: the keys of a person on a machine
    #[command(subcommand)]
    Device(Device),
    /// Tell who was given what and when, who changed what last, and what owners still have to do
    Audit(Audit),
    /// Look for what is wrong on this machine and with the workspaces
    Doctor(Doctor),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// The background process of a home; commands start it
    #[command(subcommand)]
    Agent(Agent),
}

/// `agent`
#[derive(Debug, Subcommand)]
pub enum Agent {
    /// Put this program in the place of the one that runs; what is mounted stays, open files too
    Restart,
    /// Keep an agent running
    #[command(hide = true)]
    Keep,
    /// Serve; the keeper starts it
    #[command(hide = true)]
    Serve,
}

/// `audit`
#[derive(Debug, Args)]
pub struct Audit {
    /// Only this workspace, with who changed each of its entries last: name, id, or start of the id
    pub workspace: Option<String>,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Also read all that is kept of the organizations, and name every damaged object; takes as long as reading it
    #[arg(long)]
    pub deep: bool,
}

/// `quickstart`
#[derive(Debug, Args)]
pub struct Quickstart {
    /// Directory that keeps the organization's sealed data
    #[arg(long, value_name = "DIR")]
    pub at: Option<PathBuf>,
    /// Where to mount; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub mount: Option<PathBuf>,
    /// Name of the workspace
    #[arg(long, value_name = "NAME")]
    pub workspace: Option<String>,
}

/// `org`
#[derive(Debug, Subcommand)]
pub enum Org {
    /// Make an organization
    Create(OrgCreate),
    /// Become the first user of an organization that a server's operator made
    Bootstrap(OrgBootstrap),
    /// Show the organization of a device
    Show,
    /// List the organizations known here
    List,
    /// Show the terms of service of a server, or accept them
    Terms {
        /// Accept them, for all your devices
        #[arg(long)]
        accept: bool,
    },
}

/// `org create`
#[derive(Debug, Args)]
pub struct OrgCreate {
    /// Name of the organization
    pub organization: String,
    /// Where to keep it: parsec3://HOST, file:///DIR, or a directory
    #[arg(long, value_name = "URL")]
    pub backend: String,
    /// Your address
    #[arg(long)]
    pub email: String,
    /// Your name
    #[arg(long)]
    pub name: String,
    /// Make it on the server first, with the administration token in the first line of this file
    #[arg(long, value_name = "F")]
    pub admin_token_file: Option<PathBuf>,
    /// The device to make
    #[command(flatten)]
    pub device: NewDevice,
}

/// `org bootstrap`
#[derive(Debug, Args)]
pub struct OrgBootstrap {
    /// The address that the server gave for it
    pub url: String,
    /// Your address
    #[arg(long)]
    pub email: String,
    /// Your name
    #[arg(long)]
    pub name: String,
    /// The device to make
    #[command(flatten)]
    pub device: NewDevice,
}

/// A device that a command makes.
#[derive(Debug, Args)]
pub struct NewDevice {
    /// Name of the new device [default: name of this machine]
    #[arg(long, value_name = "L")]
    pub device_label: Option<String>,
    /// What protects the new device's keys
    #[arg(long, value_name = "METHOD", default_value = "password")]
    pub auth: Auth,
}

/// What protects a device's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// A password
    Password,
    /// The keyring of the operating system
    Keyring,
    /// A file beside the device file that only you can read
    Keyfile,
}

/// `workspace`
#[derive(Debug, Subcommand)]
pub enum Workspace {
    /// Make a workspace
    Create {
        /// Its name
        name: String,
    },
    /// List your workspaces
    List,
    /// List who may do what in a workspace
    Members {
        /// Name, id, or start of the id
        workspace: String,
    },
    /// Give somebody a role, or another one; yourself `owner` when no owner is left
    Share {
        /// Name, id, or start of the id
        workspace: String,
        /// Address, id, or start of the id
        user: String,
        /// What the person may do
        role: Role,
    },
    /// Take somebody's role away; what is written from then on has a new key
    Unshare {
        /// Name, id, or start of the id
        workspace: String,
        /// Address, id, or start of the id
        user: String,
    },
    /// Give a workspace another name
    Rename {
        /// Name, id, or start of the id
        workspace: String,
        /// The new name
        name: String,
    },
    /// Seal what is written from now on with a new key
    RotateKey {
        /// Name, id, or start of the id
        workspace: String,
    },
    /// Make a workspace read-only for everybody
    Archive {
        /// Name, id, or start of the id
        workspace: String,
        /// Let people write to it again
        #[arg(long)]
        undo: bool,
    },
}

/// `user`
#[derive(Debug, Subcommand)]
pub enum User {
    /// List everybody in the organization
    List,
    /// End somebody's membership, for ever
    Revoke {
        /// Address, id, or start of the id
        user: String,
    },
    /// Give somebody another profile
    Profile {
        /// Address, id, or start of the id
        user: String,
        /// The profile
        profile: Profile,
    },
}

/// `invite`
#[derive(Debug, Subcommand)]
pub enum Invite {
    /// Invite somebody to the organization; prints the link for them
    User {
        /// The person's address
        email: String,
        /// Let the server write to nobody
        #[arg(long)]
        no_email: bool,
    },
    /// Invite a further device of your own; prints the link to use there
    Device,
    /// Invite somebody who lost every device, and whose shares you hold; prints the link to use there
    Recovery {
        /// Address, id, or start of the id
        user: String,
    },
    /// List the invitations that you may greet
    List,
    /// Take an invitation back
    Cancel {
        /// Token, start of it, link, or the guest's address
        #[arg(value_name = "TOKEN")]
        invitation: String,
    },
    /// Let the guest in who uses an invitation now: you read codes to each other
    Greet {
        /// Token, start of it, link, or the guest's address
        #[arg(value_name = "TOKEN")]
        invitation: String,
        /// What a new user may do
        #[arg(long, default_value = "standard")]
        profile: Profile,
    },
}

/// `join`
#[derive(Debug, Args)]
pub struct Join {
    /// The link, in quotes
    pub url: String,
    /// Your address, as it was invited
    #[arg(long)]
    pub email: Option<String>,
    /// Your name, to become a user
    #[arg(long)]
    pub name: Option<String>,
    /// The device to make
    #[command(flatten)]
    pub device: NewDevice,
}

/// `mount`
#[derive(Debug, Args)]
pub struct Mount {
    /// Name, id, or start of the id
    pub workspace: String,
    /// An empty directory [default: a new one in your home, named for the workspace]
    pub dir: Option<PathBuf>,
    /// Let nobody change anything through this mount
    #[arg(long)]
    pub read_only: bool,
    /// Return when it is unmounted
    #[arg(long)]
    pub foreground: bool,
    /// Options: ro, rw, allow_other, cache=SIZE
    #[arg(short = 'o', value_name = "OPT", value_delimiter = ',')]
    pub options: Vec<String>,
}

/// `umount`
#[derive(Debug, Args)]
pub struct Umount {
    /// The workspace or the directory
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "WORKSPACE|DIR")]
    pub target: Option<String>,
    /// Everything that is mounted
    #[arg(long)]
    pub all: bool,
    /// First bring all changes to the storage
    #[arg(long)]
    pub flush: bool,
    /// Even when changes are not on the storage yet (they stay on this device) or programs use it
    #[arg(long)]
    pub force: bool,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// A mounted workspace, or a path inside one
    #[arg(value_name = "WORKSPACE|PATH")]
    pub target: Option<String>,
}

/// `sync`
#[derive(Debug, Args)]
pub struct Sync {
    /// Name, id, start of the id, or a path inside a mounted one
    pub workspace: String,
}

/// `wait`
#[derive(Debug, Args)]
pub struct Wait {
    /// A mounted workspace, or a path inside one; else all that are mounted
    #[arg(value_name = "WORKSPACE|PATH")]
    pub target: Option<String>,
    /// Wait until everything is on the storage
    #[arg(long, required = true)]
    pub synced: bool,
    /// At most so many seconds
    #[arg(long, value_name = "S")]
    pub timeout: Option<f64>,
}

/// `device`
#[derive(Debug, Subcommand)]
pub enum Device {
    /// List the devices on this machine
    List,
    /// Protect the device's keys in another way
    Auth {
        /// How
        method: Auth,
        /// Read the new password from the first line of this file
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
    /// Remove a device and all that it keeps from this machine
    Forget {
        /// Label, id, or start of the id
        id: String,
        /// Even when it has changes that are nowhere else
        #[arg(long)]
        force: bool,
    },
    /// A way back when all devices are lost
    #[command(subcommand)]
    Recovery(Recovery),
}

/// `device recovery`
#[derive(Debug, Subcommand)]
pub enum Recovery {
    /// Write a recovery file; its passphrase is shown once
    Export {
        /// Where
        file: PathBuf,
    },
    /// Make a device from a recovery file
    Import {
        /// The recovery file
        file: PathBuf,
        /// Read the passphrase from the first line of this file
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// The device to make
        #[command(flatten)]
        device: NewDevice,
    },
    /// Let others together get you back: each holds a share, and so many shares are needed
    Setup {
        /// Who: addresses, ids, or starts of ids; `a@example.com:2` holds two shares
        #[arg(long, required = true, value_delimiter = ',', value_name = "EMAIL[:SHARES]", value_parser = recipient)]
        recipients: Vec<Recipient>,
        /// How many shares are needed
        #[arg(long, value_name = "N")]
        threshold: NonZeroU8,
    },
    /// Show who holds shares for you and whether enough are left, and whose shares you hold
    Shares,
    /// Take it back: the shares that others hold then lead nowhere
    Delete,
}

fn recipient(text: &str) -> Result<Recipient, String> {
    let (user, shares) = match text.rsplit_once(':') {
        Some((user, shares)) => (user, shares.parse().map_err(|_| "a person holds 1 to 255 shares".to_owned())?),
        None => (text, NonZeroU8::MIN),
    };
    match user.trim() {
        "" => Err("an address is needed".to_owned()),
        user => Ok(Recipient { user: user.to_owned(), shares }),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        let cli = Cli::try_parse_from(["mountctl", "status", "--json", "--home", "/h"]).unwrap();
        assert!(cli.global.json && cli.global.home.is_some());
    }

    #[test]
    fn a_recipient_holds_one_share_or_as_many_as_said() {
        let read = |text| recipient(text).map(|recipient| (recipient.user, recipient.shares.get()));
        assert_eq!(read("a@example.com"), Ok(("a@example.com".to_owned(), 1)));
        assert_eq!(read("a@example.com:2"), Ok(("a@example.com".to_owned(), 2)));
        for wrong in ["a@example.com:0", "a@example.com:256", "a@example.com:x", ":2", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_flag_takes_a_password_itself() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                let secret = name.contains("password") || name.contains("passphrase");
                assert!(!secret || name.ends_with("file") || name.ends_with("stdin"), "{name}");
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
