//! What commands and the agent say to each other: one greeting, one request, one reply, each a line of JSON. The views
//! in replies are also what `--json` prints.

mod audit;
mod check;
mod invitation;
mod view;

use std::{num::NonZeroU8, path::PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{failure::Failure, secret::Secret};

pub use audit::{Actor, AuditEntry, AuditEvent, AuditView, DutyView};
pub use check::{Finding, Verdict};
pub use invitation::{
    GivenView, GreetTurn, InvitationView, Invite, InvitedView, JoinRequest, JoinTurn, Said, Turn, WelcomedView,
};
pub use view::{
    AgentView, Amount, DeviceView, HolderView, MemberView, MountView, OrganizationView, PathView, RecoverySharesView,
    RecoveryView, SharedRecoveryView, StatusView, TermsView, UserView, Waiting, WorkspaceView,
};

/// Longest line either side accepts; a request carries a password at most, a reply a list of workspaces.
pub const LINE_BYTES_MAX: u64 = 16 << 20;

/// First line of every connection. A command that got it knows that its request will be worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Version of the agent's program.
    pub version: String,
    /// Its process.
    pub pid: u32,
}

/// How a device file is to be protected.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// A password that a person remembers.
    Password(Secret),
    /// A fresh key in the keyring of the operating system.
    Keyring,
    /// A fresh key in a file beside the device file.
    Keyfile,
}

/// The person and machine that a new device is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewDevice {
    /// Name of the device.
    pub label: String,
    /// How its file is protected.
    pub protection: Protection,
}

/// What lets one found an organization on a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// The server's administration token, to make the organization first.
    Administration(Secret),
    /// The address by which the server lets its first user in.
    Link(Secret),
}

/// One question to the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "op")]
pub enum Request {
    /// New organization with its first user and device; answers [`OrganizationView`].
    CreateOrganization {
        /// Its name.
        organization: String,
        /// Where it is kept.
        backend: String,
        /// The first user's address.
        email: String,
        /// The first user's name.
        name: String,
        /// The first device.
        device: NewDevice,
        /// What lets one found it, where the storage is a server.
        permission: Option<Permission>,
    },
    /// New device from a recovery file; answers [`DeviceView`].
    ImportRecovery {
        /// The recovery file's bytes, base64.
        file: String,
        /// What opens it.
        passphrase: Secret,
        /// The new device.
        device: NewDevice,
    },
    /// What an invitation is; answers [`InvitedView`].
    Invited {
        /// The link.
        link: Secret,
    },
    /// Goes on with the guest's side of an invitation; answers [`JoinTurn`].
    Join(JoinRequest),
    /// Something of a device's organization.
    Device {
        /// Which device, 32 hexadecimal digits.
        device: String,
        /// What opens it, if that is a password and the agent has not opened it already.
        password: Option<Secret>,
        /// What to do.
        call: DeviceCall,
    },
    /// What is mounted; answers a list of [`MountView`].
    Mounts,
    /// Ends a mount; answers [`MountView`].
    Unmount {
        /// Its workspace.
        workspace: String,
        /// First bring everything to the storage.
        flush: bool,
        /// Even with unsynced changes, or while it is in use.
        force: bool,
    },
    /// How a mounted workspace is; answers [`StatusView`].
    Status {
        /// Its id.
        workspace: String,
    },
    /// How one entry of a mounted workspace is; answers [`PathView`].
    PathStatus {
        /// The workspace.
        workspace: String,
        /// Inode number, as the mount tells it.
        inode: u64,
    },
    /// Syncs a mounted workspace now; answers [`StatusView`].
    Sync {
        /// Its id.
        workspace: String,
    },
    /// Returns when everything of a mounted workspace is synced; answers [`StatusView`].
    WaitSynced {
        /// Its id.
        workspace: String,
        /// At most so long.
        timeout_ms: Option<u64>,
    },
    /// Has another program go on in place of the agent; mounts stay. The same in every version.
    Restart {
        /// The program, which may be of another version.
        program: PathBuf,
    },
    /// Returns when a workspace is no longer mounted.
    WaitUnmounted {
        /// Its id.
        workspace: String,
    },
}

impl Request {
    /// Whether it may wait for others for as long as they like: it ends when whoever asked is gone, and loses nothing.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(
            self,
            Self::WaitSynced { .. }
                | Self::WaitUnmounted { .. }
                | Self::Join(_)
                | Self::Device { call: DeviceCall::Greet { .. }, .. }
        )
    }

    /// Whether asking twice comes to the same.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        matches!(
            self,
            Self::Mounts
                | Self::Status { .. }
                | Self::PathStatus { .. }
                | Self::Sync { .. }
                | Self::WaitSynced { .. }
                | Self::WaitUnmounted { .. }
        )
    }
}

/// What to do with a device's organization.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceCall {
    /// Answers [`OrganizationView`].
    Organization,
    /// The server's terms of service; answers [`TermsView`].
    Terms {
        /// The state of them that the person accepts, as it was shown.
        accept: Option<String>,
    },
    /// Answers a list of [`WorkspaceView`].
    Workspaces,
    /// Answers [`WorkspaceView`].
    CreateWorkspace {
        /// Its name.
        name: String,
    },
    /// Invites; answers [`InvitationView`].
    Invite(Invite),
    /// Answers a list of [`InvitationView`].
    Invitations,
    /// Takes an invitation back; answers [`InvitationView`].
    CancelInvitation {
        /// Token, start of it, link, or the guest's address.
        invitation: String,
    },
    /// Goes on with letting a guest in; answers [`GreetTurn`].
    Greet {
        /// Token, start of it, link, or the guest's address.
        invitation: String,
        /// What a new user may do.
        profile: Profile,
        /// What the person said.
        said: Said,
    },
    /// Answers a list of [`MemberView`].
    Members {
        /// Name, id, or start of the id.
        workspace: String,
    },
    /// Answers [`MemberView`].
    ChangeMember {
        /// Name, id, or start of the id.
        workspace: String,
        /// What.
        change: MemberChange,
    },
    /// Answers [`WorkspaceView`].
    ChangeWorkspace {
        /// Name, id, or start of the id.
        workspace: String,
        /// What.
        change: WorkspaceChange,
    },
    /// Answers a list of [`UserView`].
    Users,
    /// Answers [`UserView`].
    ChangeUser(UserChange),
    /// Answers [`MountView`].
    Mount {
        /// Name, id, or start of the id.
        workspace: String,
        /// Where; checked by the command.
        dir: Option<PathBuf>,
        /// How.
        options: MountRequest,
    },
    /// Syncs a workspace that need not be mounted; answers [`StatusView`].
    SyncOnce {
        /// Name, id, or start of the id.
        workspace: String,
    },
    /// Protects the device file in another way; answers [`DeviceView`].
    Protect {
        /// The new way.
        protection: Protection,
    },
    /// Makes a recovery device; answers [`RecoveryView`].
    ExportRecovery,
    /// Lets others together get this user back; answers [`SharedRecoveryView`].
    SetUpRecovery {
        /// Shares that are needed.
        threshold: NonZeroU8,
        /// Who is to hold them.
        recipients: Vec<Recipient>,
    },
    /// Answers [`RecoverySharesView`].
    RecoveryShares,
    /// Ends what [`Self::SetUpRecovery`] began; answers [`SharedRecoveryView`], as it was.
    DeleteRecovery,
    /// Tells what signed documents say of the past; answers [`AuditView`].
    Audit {
        /// Name, id, or start of the id: only this workspace, and its entries too.
        workspace: Option<String>,
    },
    /// Looks for what is wrong with the storage and this device's stores; answers a list of [`Finding`].
    Check {
        /// Also read all that the storage keeps.
        deep: bool,
    },
}

/// Somebody who is to hold shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Address, id, or start of the id.
    pub user: String,
    /// How many.
    pub shares: NonZeroU8,
}

/// What somebody may do in a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads, and sees history
    Reader,
    /// Also writes and restores
    Contributor,
    /// Also gives and takes reader and contributor
    Manager,
    /// Also gives and takes manager and owner, renames, rotates keys, archives
    Owner,
}

/// What somebody may do in the organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Also invites, revokes, and changes profiles
    Admin,
    /// Everything with workspaces
    Standard,
    /// Reads or contributes to what is shared; sees nobody's name
    Outsider,
}

/// A change of somebody's role.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberChange {
    /// Gives one.
    Share {
        /// Address, id, or start of the id.
        user: String,
        /// Which.
        role: Role,
    },
    /// Takes it away.
    Unshare {
        /// Address, id, or start of the id.
        user: String,
    },
}

impl MemberChange {
    /// Whose.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::Share { user, .. } | Self::Unshare { user } => user,
        }
    }
}

/// A change of a workspace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceChange {
    /// Another name.
    Rename {
        /// Which.
        name: String,
    },
    /// A new key.
    RotateKey,
    /// Read-only for everybody, or no longer.
    Archive {
        /// Which of both.
        archived: bool,
    },
}

/// A change of a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserChange {
    /// The end.
    Revoke {
        /// Address, id, or start of the id.
        user: String,
    },
    /// Another profile.
    Profile {
        /// Address, id, or start of the id.
        user: String,
        /// Which.
        profile: Profile,
    },
}

impl UserChange {
    /// Whom.
    #[must_use]
    pub fn user(&self) -> &str {
        match self {
            Self::Revoke { user } | Self::Profile { user, .. } => user,
        }
    }
}

/// How to mount.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct MountRequest {
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Users other than the one who mounts may look, as their modes allow.
    pub allow_other: bool,
    /// Limit of the local store in bytes.
    pub cache_bytes: Option<u64>,
}

/// The answer to a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// What was asked for.
    Done(Value),
    /// Why not.
    Failed(Failure),
}
