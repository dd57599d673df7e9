//! What the agent does about people: roles in workspaces, profiles, the end of a user. People are found by address.
//!
//! Every rule is asked by the organization before the storage is; a refusal tells the rule, and here who could do it.

use parsecfs_core::{
    certificate::{RealmRole, UserProfile},
    id::RealmId,
    name::EntryName,
};
use parsecfs_vfs::{
    error::{Error, ErrorKind},
    organization::{Organization, UserSummary, WorkspaceSummary},
};

use super::views;
use crate::{
    exit::Kind,
    failure::{Failure, Result},
    rpc::{MemberChange, MemberView, Profile, Role, UserChange, UserView, WorkspaceChange},
};

/// Everybody with a role.
pub(super) fn members(organization: &Organization, workspace: &WorkspaceSummary) -> Vec<MemberView> {
    let members = organization.members(workspace.realm);
    members.into_iter().map(|member| views::member(member.user, Some(member.role))).collect()
}

/// Gives a role, or takes it.
pub(super) async fn change_member(
    organization: &Organization,
    workspace: &WorkspaceSummary,
    change: MemberChange,
) -> Result<MemberView> {
    let (realm, user) = (workspace.realm, find(organization, change.user())?);
    let (changed, role) = match change {
        MemberChange::Share { role, .. } => {
            let role = realm_role(role);
            (organization.share(realm, user.id, role).await, Some(role))
        }
        MemberChange::Unshare { .. } => (organization.unshare(realm, user.id).await, None),
    };
    changed.map_err(|error| refused_in(organization, realm, error))?;
    Ok(views::member(user, role))
}

/// Changes a workspace as a whole.
pub(super) async fn change_workspace(
    organization: &Organization,
    workspace: &WorkspaceSummary,
    change: WorkspaceChange,
) -> Result<()> {
    let realm = workspace.realm;
    let changed = match change {
        WorkspaceChange::Rename { name } => {
            let entry = EntryName::new(&name)
                .map_err(|_| Failure::new(Kind::Usage, "a workspace name has 1 to 255 bytes and no slash"))?;
            organization.rename_workspace(realm, &entry).await
        }
        WorkspaceChange::RotateKey => organization.rotate_key(realm).await,
        WorkspaceChange::Archive { archived } => organization.archive_workspace(realm, archived).await,
    };
    changed.map_err(|error| refused_in(organization, realm, error))
}

/// Ends a user, or gives another profile.
pub(super) async fn change_user(organization: &Organization, change: UserChange) -> Result<UserView> {
    let user = find(organization, change.user())?;
    let changed = match change {
        UserChange::Revoke { .. } => organization.revoke_user(user.id).await,
        UserChange::Profile { profile, .. } => organization.change_profile(user.id, user_profile(profile)).await,
    };
    changed.map_err(|error| refused_to_admins(organization, error))?;
    let now = organization.users().into_iter().find(|now| now.id == user.id);
    Ok(views::user(now.unwrap_or(user)))
}

pub(super) fn find(organization: &Organization, text: &str) -> Result<UserSummary> {
    organization.find_user(text).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::new(Kind::NotFound, format!("there is nobody called {text:?}"))
            .hint("`mountctl user list` shows everybody; an outsider sees ids in place of addresses"),
        ErrorKind::InvalidArgument => Failure { kind: Kind::Ambiguous, ..Failure::from(error) }.hint("use the id"),
        _ => error.into(),
    })
}

fn refused_in(organization: &Organization, realm: RealmId, error: Error) -> Failure {
    let members = organization.members(realm).into_iter();
    let standing = members.filter(|member| member.user.revoked.is_none());
    let owners = standing.filter(|member| member.role == RealmRole::Owner).map(|member| member.user);
    refused(error, "owners", owners.collect())
}

/// A refusal to whoever is no admin names those who are.
pub(super) fn refused_to_admins(organization: &Organization, error: Error) -> Failure {
    refused(error, "admins", admins(organization))
}

fn admins(organization: &Organization) -> Vec<UserSummary> {
    let users = organization.users().into_iter();
    users.filter(|user| user.revoked.is_none() && user.profile == UserProfile::Admin).collect()
}

/// A refusal by the rules names those who could do it.
fn refused(error: Error, who: &str, people: Vec<UserSummary>) -> Failure {
    if error.kind() != ErrorKind::Denied {
        return error.into();
    }
    let names: Vec<_> = people.into_iter().map(views::user).map(|user| user.email).collect();
    let hint = if names.is_empty() { format!("there are no {who}") } else { format!("{who}: {}", names.join(", ")) };
    Failure { hint: Some(hint), ..Failure::from(error) }
}

fn realm_role(role: Role) -> RealmRole {
    match role {
        Role::Reader => RealmRole::Reader,
        Role::Contributor => RealmRole::Contributor,
        Role::Manager => RealmRole::Manager,
        Role::Owner => RealmRole::Owner,
    }
}

pub(super) fn user_profile(profile: Profile) -> UserProfile {
    match profile {
        Profile::Admin => UserProfile::Admin,
        Profile::Standard => UserProfile::Standard,
        Profile::Outsider => UserProfile::Outsider,
    }
}
