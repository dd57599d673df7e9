//! What commands and the agent say to each other: one greeting, one request, one reply, each a line of JSON. The views
//! in replies are also what `--json` prints.

mod invitation;

use std::{collections::BTreeMap, num::NonZeroU8, path::PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{exit::Kind, failure::Failure, secret::Secret};

pub use invitation::{
    GivenView, GreetTurn, InvitationView, Invite, InvitedView, JoinRequest, JoinTurn, Said, Turn, WelcomedView,
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

/// A person as others see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    /// 32 hexadecimal digits.
    pub user_id: String,
    /// Address.
    pub email: String,
    /// Name.
    pub name: String,
    /// `admin`, `standard`, `outsider`.
    pub profile: String,
    /// Whether this user is no longer one.
    pub revoked: bool,
}

/// Somebody in a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Who.
    #[serde(flatten)]
    pub user: UserView,
    /// `reader`, `contributor`, `manager`, `owner`; absent when it was taken away.
    pub role: Option<String>,
}

/// An organization as one of its devices sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationView {
    /// Its name.
    pub organization: String,
    /// Where it is kept.
    pub backend: String,
    /// SHA-256 of its root key, hexadecimal: equal for everybody who belongs to the same organization.
    pub fingerprint: String,
    /// The device that looks.
    pub device_id: String,
    /// Its user's address.
    pub email: String,
    /// Everybody.
    pub users: Vec<UserView>,
    /// Workspaces that this user sees.
    pub workspaces: u64,
}

/// Terms of service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsView {
    /// Where to read them, by language; empty when there are none.
    pub urls: BTreeMap<String, String>,
    /// Which state of them this is; absent when there are none.
    pub updated_on: Option<String>,
    /// Whether they were accepted by this command.
    pub accepted: bool,
}

/// A device, as its file or the organization tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// 32 hexadecimal digits.
    pub device_id: String,
    /// Its name.
    pub label: String,
    /// The organization.
    pub organization: String,
    /// The user's address.
    pub email: String,
    /// Where the organization is kept.
    pub backend: String,
    /// `password`, `keyring`, `keyfile`.
    pub auth: String,
}

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceView {
    /// 32 hexadecimal digits.
    pub workspace_id: String,
    /// Its name, as this user sees it.
    pub name: String,
    /// `reader`, `contributor`, `manager`, `owner`.
    pub role: String,
    /// Whether it is read-only for everybody.
    #[serde(default)]
    pub archived: bool,
    /// Where it is mounted.
    pub mount: Option<PathBuf>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountView {
    /// 32 hexadecimal digits.
    pub workspace_id: String,
    /// Name of the workspace.
    pub workspace: String,
    /// Its organization.
    pub organization: String,
    /// The device that mounted it.
    pub device_id: String,
    /// Where.
    pub mount: PathBuf,
    /// Whether nothing can be changed through it.
    pub read_only: bool,
}

/// Things and bytes that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Entries.
    pub items: u64,
    /// Bytes, about.
    pub bytes: u64,
}

/// One thing that waits, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Entry, 32 hexadecimal digits; absent when it is the workspace.
    pub entry_id: Option<String>,
    /// Why.
    pub reason: String,
    /// When it is tried again, RFC 3339; absent when only an event will tell.
    pub next_try: Option<String>,
}

/// How a workspace is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// 32 hexadecimal digits.
    pub workspace_id: String,
    /// Name of the workspace.
    pub workspace: String,
    /// Where it is mounted.
    pub mount: Option<PathBuf>,
    /// This user's role.
    pub role: String,
    /// Whether nothing can be changed through the mount.
    pub read_only: bool,
    /// Why, when that is not the wish of who mounted it.
    #[serde(default)]
    pub read_only_reason: Option<String>,
    /// Whether the storage could be reached last time.
    pub online: bool,
    /// Whether nothing waits to go out.
    pub synced: bool,
    /// What waits to go out.
    pub upload: Amount,
    /// What waits to come in.
    pub download: Amount,
    /// Why things wait.
    pub waiting: Vec<Waiting>,
    /// Entries that are damaged, 32 hexadecimal digits each.
    pub corrupt: Vec<String>,
    /// Local store, in bytes.
    pub cache_used: u64,
    /// Its limit.
    pub cache_limit: u64,
    /// Requests of programs that ended in a defect of this one; the agent's log says more.
    #[serde(default)]
    pub defects: u64,
    /// The process that serves it.
    pub agent: AgentView,
}

/// The background process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its process id.
    pub pid: u32,
    /// Whether mounts survive it.
    pub kept: bool,
    /// How often one was started after another since the first.
    pub restarts: u64,
    /// When the last time was, RFC 3339.
    pub last_restart: Option<String>,
    /// Why.
    pub restart_reason: Option<String>,
}

/// How one entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathView {
    /// The path asked for; filled in by the command.
    #[serde(default)]
    pub path: PathBuf,
    /// `synced`, `local`, `uploading`, `downloading`, `conflict`, `confined`.
    pub state: String,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The user's address, or id where it is withheld; absent when the device is not known.
    pub user: Option<String>,
    /// Label of the device; absent where it is withheld.
    pub device: Option<String>,
    /// 32 hexadecimal digits.
    pub device_id: String,
}

/// What signed documents tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    /// What happened, in the order of time.
    pub events: Vec<AuditEvent>,
    /// What owners still have to do.
    pub pending: Vec<DutyView>,
    /// Who changed each entry last, by path; only for one workspace, as far as this device has synced it.
    pub entries: Vec<AuditEntry>,
}

/// One certificate. Fields that do not belong to its kind are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditEvent {
    /// When it was signed, RFC 3339.
    pub at: String,
    /// `user_created`, `device_created`, `profile_changed`, `user_revoked`, `role_given`, `role_taken`,
    /// `workspace_named`, `key_rotated`, `workspace_archived`, `archiving_ended`, `deletion_planned`,
    /// `shared_recovery_set_up`, `recovery_share_given`, `shared_recovery_ended`.
    pub event: String,
    /// Who signed it; absent: the organization's root key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// Whom it is about: address, or id where that is withheld.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Which device it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Actor>,
    /// The workspace's present name, or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// `admin`, `standard`, `outsider`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// `reader`, `contributor`, `manager`, `owner`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The name that was given; absent where the key is not known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of the new key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_index: Option<u64>,
}

/// What owners of a workspace still have to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DutyView {
    /// 32 hexadecimal digits.
    pub workspace_id: String,
    /// Name of the workspace.
    pub workspace: String,
    /// Addresses of members that were revoked and keep their role until somebody takes it.
    pub revoked_members: Vec<String>,
    /// Whether its newest key is known to somebody who is no member any more.
    pub rotation_due: bool,
}

/// The newest version of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// From the root of the workspace.
    pub path: String,
    /// 32 hexadecimal digits.
    pub entry_id: String,
    /// Of the entry's versions.
    pub version: u32,
    /// Who signed it.
    pub by: Actor,
    /// When, RFC 3339.
    pub at: String,
}

/// A recovery device in its sealed file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecoveryView {
    /// The file's bytes, base64.
    pub file: String,
    /// What opens it.
    pub passphrase: Secret,
}

/// A way back that several people hold together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRecoveryView {
    /// Who can be recovered.
    pub user: UserView,
    /// Shares that are needed.
    pub threshold: u8,
    /// Shares of those who are not revoked.
    pub shares_left: u8,
    /// Whether these are enough.
    pub possible: bool,
    /// Since when, RFC 3339.
    pub since: String,
    /// Who holds shares.
    pub holders: Vec<HolderView>,
}

/// Somebody who holds shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    /// Who.
    #[serde(flatten)]
    pub user: UserView,
    /// How many.
    pub shares: u8,
}

/// The ways back that concern a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoverySharesView {
    /// The user's own.
    pub own: Option<SharedRecoveryView>,
    /// Those of others, of which the user holds shares.
    pub held: Vec<SharedRecoveryView>,
}

/// Something that a check looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, stable.
    pub check: String,
    /// What came out.
    pub verdict: Verdict,
    /// One line for people.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Finding {
    /// What could not be done. Damage sends people to the doctor, but not from there: it says what comes next.
    #[must_use]
    pub fn failed(check: &str, verdict: Verdict, failure: Failure) -> Self {
        let hint = match failure.kind {
            Kind::Corrupt => Some(
                "with --deep each damaged object is named: put those back from a copy of the storage; files that are \
                 here can be used"
                    .to_owned(),
            ),
            _ => failure.hint,
        };
        Self { check: check.to_owned(), verdict, message: failure.message, hint }
    }
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Could not be looked at.
    Skipped,
    /// Works, but one should know.
    Warning,
    /// Does not work.
    Problem,
}
