//! What the agent tells about things of lower layers.

use std::{path::PathBuf, sync::Arc};

use parsecfs_core::{
    certificate::{RealmRole, UserProfile},
    id::RealmId,
    name::{EntryName, HumanHandle},
    storage::Barred,
};
use parsecfs_vfs::{
    Workspace,
    error::ErrorKind,
    organization::{Organization, UserSummary, WorkspaceSummary},
};

use super::session::blocking;
use crate::{
    failure::Result,
    keeper::Kept,
    output,
    rpc::{AgentView, Amount, MemberView, MountView, OrganizationView, StatusView, UserView, Waiting, WorkspaceView},
};

pub(super) fn organization(organization: &Organization) -> OrganizationView {
    let summary = organization.summary();
    OrganizationView {
        organization: summary.organization_id.to_string(),
        backend: summary.server_url,
        fingerprint: summary.root_fingerprint,
        device_id: summary.device_id.to_string(),
        email: organization.device().human_handle.email().to_string(),
        users: organization.users().into_iter().map(user).collect(),
        workspaces: summary.workspaces as u64,
    }
}

pub(super) fn member(who: UserSummary, given: Option<RealmRole>) -> MemberView {
    MemberView { user: user(who), role: given.map(|given| role(given).to_owned()) }
}

pub(super) fn user(user: UserSummary) -> UserView {
    let handle = user.human_handle.unwrap_or_else(|| HumanHandle::redacted(user.id));
    UserView {
        user_id: user.id.to_string(),
        email: handle.email().to_string(),
        name: handle.label().to_owned(),
        profile: profile(user.profile).to_owned(),
        revoked: user.revoked.is_some(),
    }
}

pub(super) fn workspace(summary: &WorkspaceSummary, mount: Option<PathBuf>) -> WorkspaceView {
    WorkspaceView {
        workspace_id: summary.realm.to_string(),
        name: name(summary),
        role: role(summary.role).to_owned(),
        archived: summary.archived,
        mount,
    }
}

/// The name, or the id while no name is known.
pub(super) fn name(summary: &WorkspaceSummary) -> String {
    summary.name.as_ref().map_or_else(|| summary.realm.to_string(), |name: &EntryName| name.reveal().to_owned())
}

pub(super) fn profile(profile: UserProfile) -> &'static str {
    match profile {
        UserProfile::Admin => "admin",
        UserProfile::Standard => "standard",
        UserProfile::Outsider => "outsider",
    }
}

pub(super) fn role(role: RealmRole) -> &'static str {
    match role {
        RealmRole::Reader => "reader",
        RealmRole::Contributor => "contributor",
        RealmRole::Manager => "manager",
        RealmRole::Owner => "owner",
    }
}

/// How a workspace is.
pub(super) async fn status(
    name: &str,
    mount: Option<&MountView>,
    workspace: &Arc<Workspace>,
    kept: &Kept,
) -> Result<StatusView> {
    let asked = workspace.clone();
    let now = blocking(move || Ok(asked.status()?)).await?;
    let sync = now.sync;
    let whole = sync.waiting.iter().map(|waiting| Waiting {
        entry_id: None,
        reason: waiting.reason.clone(),
        next_try: Some(output::time(waiting.next_try_ns / 1000)),
    });
    let single = sync.problems.iter().map(|problem| Waiting {
        entry_id: Some(problem.id.to_string()),
        reason: problem.reason.clone(),
        next_try: problem.next_try_ns.map(|time| output::time(time / 1000)),
    });
    let damaged = sync.problems.iter().filter(|problem| problem.kind == ErrorKind::Corrupt);
    let corrupt = damaged.map(|problem| problem.id.to_string()).collect();
    let (role, read_only_reason) = standing(workspace.organization(), workspace.realm());
    Ok(StatusView {
        workspace_id: workspace.realm().to_string(),
        workspace: name.to_owned(),
        mount: mount.map(|mount| mount.mount.clone()),
        role: role.to_owned(),
        read_only: mount.is_some_and(|mount| mount.read_only) || read_only_reason.is_some(),
        read_only_reason,
        online: sync.online,
        synced: sync.upload_entries == 0,
        upload: Amount { items: sync.upload_entries, bytes: sync.upload_bytes },
        download: Amount { items: sync.download_entries, bytes: 0 },
        waiting: whole.chain(single).collect(),
        corrupt,
        cache_used: now.cache_bytes,
        cache_limit: now.cache_bytes_max,
        defects: now.defects,
        agent: agent(kept),
    })
}

/// This user's role now, and why nothing can be changed.
fn standing(organization: &Organization, realm: RealmId) -> (&'static str, Option<String>) {
    let revoked = organization.trust().user(organization.user_id()).is_some_and(|user| user.revoked().is_some())
        || organization.barred() == Some(Barred::Revoked);
    let held = organization.role(realm);
    let reason = match held {
        _ if revoked => Some("you were revoked from the organization; what was not synced is kept on this device"),
        None => Some("your role was taken away; what was not synced is kept on this device"),
        Some(RealmRole::Reader) => Some("readers change nothing"),
        Some(_) if !organization.writable(realm) => Some("the workspace is archived"),
        Some(_) => None,
    };
    (held.map_or("none", role), reason.map(str::to_owned))
}

/// This process.
pub(super) fn agent(kept: &Kept) -> AgentView {
    AgentView {
        pid: std::process::id(),
        kept: kept.is_there(),
        restarts: kept.history.restarts,
        last_restart: kept.history.last.clone(),
        restart_reason: kept.history.reason.clone(),
    }
}
