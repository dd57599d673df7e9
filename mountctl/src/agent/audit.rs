//! What the agent answers to `audit`: signed documents, told in the words of people.

use std::sync::Arc;

use parsecfs_core::{
    certificate::{ArchivingConfiguration, Certificate},
    id::{DeviceId, RealmId, UserId},
};
use parsecfs_vfs::organization::{Organization, WorkspaceSummary};

use super::{mounts::Mounts, views};
use crate::{
    failure::Result,
    output,
    rpc::{Actor, AuditEntry, AuditEvent, AuditView, DutyView},
};

/// All that the organization's certificates tell, or what concerns one workspace and its entries.
pub(super) async fn run(
    organization: &Arc<Organization>,
    mounts: &Arc<Mounts>,
    only: Option<&WorkspaceSummary>,
) -> Result<AuditView> {
    let names = organization.workspaces().await?;
    let name = |realm: RealmId| {
        names.iter().find(|summary| summary.realm == realm).map_or_else(|| realm.to_string(), views::name)
    };
    let mut events = Vec::new();
    for certificate in organization.certificates().await? {
        if only.is_none_or(|summary| certificate.realm() == Some(summary.realm))
            && certificate.realm() != Some(organization.device().user_realm_id)
        {
            let workspace = certificate.realm().map(name);
            events.push(AuditEvent { workspace, ..event(organization, &certificate).await });
        }
    }
    let duties = organization.duties().into_iter();
    let pending = duties.filter(|duty| only.is_none_or(|summary| summary.realm == duty.realm)).map(|duty| DutyView {
        workspace_id: duty.realm.to_string(),
        workspace: name(duty.realm),
        revoked_members: duty.revoked_members.into_iter().map(|user| person(organization, user)).collect(),
        rotation_due: duty.rotation_due,
    });
    let pending = pending.collect();
    let changes = match only {
        Some(summary) => mounts.last_changes(organization, summary.realm).await?,
        None => Vec::new(),
    };
    let entries = changes.into_iter().map(|change| AuditEntry {
        path: change.path,
        entry_id: change.id.to_string(),
        version: change.version,
        by: actor(organization, change.author),
        at: output::time(change.at.as_micros()),
    });
    Ok(AuditView { events, pending, entries: entries.collect() })
}

/// The address of a user, or the id where it is withheld.
fn person(organization: &Organization, id: UserId) -> String {
    let trust = organization.trust();
    let handle = trust.user(id).and_then(|user| user.certificate().human_handle.as_ref());
    handle.map_or_else(|| id.to_string(), |handle| handle.email().to_string())
}

fn actor(organization: &Organization, id: DeviceId) -> Actor {
    let trust = organization.trust();
    let device = trust.device(id);
    Actor {
        device_id: id.to_string(),
        device: device.and_then(|device| device.device_label.as_ref()).map(ToString::to_string),
        user: device.map(|device| person(organization, device.user_id)),
    }
}

/// A label that anybody may have written.
fn printable(label: &str) -> String {
    label.chars().filter(|letter| !letter.is_control()).collect()
}

async fn event(organization: &Organization, certificate: &Certificate) -> AuditEvent {
    let mut told = AuditEvent {
        at: output::time(certificate.timestamp().as_micros()),
        by: certificate.author().map(|author| actor(organization, author)),
        workspace_id: certificate.realm().map(|realm| realm.to_string()),
        ..AuditEvent::default()
    };
    let person = |user| Some(person(organization, user));
    let what = match certificate {
        Certificate::User(user) => {
            told.user = person(user.user_id);
            told.profile = Some(views::profile(user.profile).to_owned());
            "user_created"
        }
        Certificate::Device(device) => {
            told.user = person(device.user_id);
            told.device = Some(actor(organization, device.device_id));
            "device_created"
        }
        Certificate::UserUpdate(update) => {
            told.user = person(update.user_id);
            told.profile = Some(views::profile(update.new_profile).to_owned());
            "profile_changed"
        }
        Certificate::RevokedUser(revoked) => {
            told.user = person(revoked.user_id);
            "user_revoked"
        }
        Certificate::RealmRole(role) => {
            told.user = person(role.user_id);
            told.role = role.role.map(|role| views::role(role).to_owned());
            if role.role.is_some() { "role_given" } else { "role_taken" }
        }
        Certificate::RealmName(name) => {
            told.name = organization.name_in(name).await.map(|name| name.reveal().to_owned());
            "workspace_named"
        }
        Certificate::RealmKeyRotation(rotation) => {
            told.key_index = Some(rotation.key_index);
            "key_rotated"
        }
        Certificate::RealmArchiving(archiving) => match archiving.configuration {
            ArchivingConfiguration::Available => "archiving_ended",
            ArchivingConfiguration::Archived => "workspace_archived",
            ArchivingConfiguration::DeletionPlanned { .. } => "deletion_planned",
        },
        Certificate::ShamirRecoveryBrief(brief) => {
            told.user = person(brief.user_id);
            "shared_recovery_set_up"
        }
        Certificate::ShamirRecoveryShare(share) => {
            told.user = person(share.recipient);
            "recovery_share_given"
        }
        Certificate::ShamirRecoveryDeletion(deletion) => {
            told.user = person(deletion.setup_to_delete_user_id);
            "shared_recovery_ended"
        }
        Certificate::SequesterAuthority(_) => "sequester_authority_set",
        Certificate::SequesterService(service) => {
            told.name = Some(printable(&service.service_label));
            "sequester_service_created"
        }
        Certificate::SequesterRevokedService(revoked) => {
            let trust = organization.trust();
            told.name = trust.sequester().service(revoked.service_id).map(|service| printable(&service.service_label));
            "sequester_service_revoked"
        }
    };
    told.event = what.to_owned();
    told
}
