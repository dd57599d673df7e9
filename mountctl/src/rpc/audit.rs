//! What `audit` tells.

use serde::{Deserialize, Serialize};

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
