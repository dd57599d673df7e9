//! Organizations, people, devices, workspaces, mounts and ways back, as replies and `--json` show them.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

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
