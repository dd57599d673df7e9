//! What the doctor asks the agent: is the storage well, is this device's data well, what would be lost.

use std::sync::Arc;

use parsecfs_core::{
    certificate::{DevicePurpose, RealmRole, UserProfile},
    id::UserId,
};
use parsecfs_vfs::{
    error::ErrorKind,
    fs::Damage,
    organization::{Organization, WorkspaceSummary},
};

use super::{deep, mounts::Mounts, views};
use crate::{
    daemon,
    failure::Failure,
    rpc::{Finding, StatusView, Verdict},
};

/// Looks at everything; what cannot be looked at is a finding too.
pub(super) async fn run(organization: &Arc<Organization>, mounts: &Arc<Mounts>, deep: bool) -> Vec<Finding> {
    let mut findings = vec![storage(organization).await, recovery(organization)];
    findings.extend(recovery_shares(organization));
    match organization.workspaces().await {
        Ok(summaries) => {
            for summary in &summaries {
                findings.extend(workspace(organization, summary, mounts).await);
            }
            if deep {
                findings.extend(deep::run(organization, &summaries).await);
            }
        }
        Err(error) => findings.push(problem("workspaces", error.into())),
    }
    findings
}

pub(super) fn finding(check: &str, verdict: Verdict, message: impl Into<String>) -> Finding {
    Finding { check: check.to_owned(), verdict, message: message.into(), hint: None }
}

pub(super) fn problem(check: &str, failure: Failure) -> Finding {
    Finding::failed(check, Verdict::Problem, failure)
}

async fn storage(organization: &Organization) -> Finding {
    let url = organization.summary().server_url;
    if let Err(error) = organization.refresh().await {
        return problem("storage", Failure::from(error).context(format_args!("{url} cannot be used")));
    }
    match daemon::storage_writable(&url) {
        Ok(()) => finding("storage", Verdict::Ok, format!("{url} answers and can be written")),
        Err(failure) => problem("storage", failure),
    }
}

fn recovery(organization: &Organization) -> Finding {
    let user = organization.user_id();
    let devices = organization.devices();
    let usable = |purpose: DevicePurpose| {
        devices.iter().filter(|device| device.user == user && !device.revoked && device.purpose == purpose).count()
    };
    let ways = usable(DevicePurpose::PassphraseRecovery) + usable(DevicePurpose::Standard);
    if ways > 1 {
        return finding("recovery", Verdict::Ok, "there is another device or a recovery file");
    }
    if organization.recovery_of(user).is_some_and(|shared| shared.is_possible()) {
        return finding("recovery", Verdict::Ok, "others together can get you back");
    }
    Finding {
        hint: Some(
            "mountctl device recovery export FILE, and keep the file and its passphrase apart, elsewhere; or let others get \
             you back: mountctl device recovery setup --recipients EMAIL,EMAIL --threshold N"
                .into(),
        ),
        ..finding("recovery", Verdict::Warning, "this is the only device: if it is lost, all is lost")
    }
}

/// A way back that is there and leads nowhere any more.
fn recovery_shares(organization: &Organization) -> Option<Finding> {
    let shared = organization.recovery_of(organization.user_id()).filter(|shared| !shared.is_possible())?;
    let (left, needed) = (shared.shares_left(), shared.threshold);
    Some(Finding {
        hint: Some("mountctl device recovery delete, then set it up anew with people who are there".into()),
        ..finding(
            "recovery_shares",
            Verdict::Warning,
            format!("others cannot get you back any more: {needed} shares are needed and {left} are left"),
        )
    })
}

async fn workspace(organization: &Arc<Organization>, summary: &WorkspaceSummary, mounts: &Arc<Mounts>) -> Vec<Finding> {
    let name = views::name(summary);
    if let Err(error) = organization.check_realm(summary.realm).await
        && matches!(error.kind(), ErrorKind::Untrusted | ErrorKind::Corrupt | ErrorKind::UnsupportedVersion)
    {
        return vec![problem("workspace", Failure::from(error).context(format_args!("{name} cannot be trusted")))];
    }
    let owners = owners(organization, summary, &name);
    match mounts.look(organization, summary).await {
        Ok(Some((status, damage))) => {
            let mut findings = integrity(&name, &status, &damage);
            findings.extend(owners);
            findings.push(unsynced(&name, &status));
            findings.extend(defects(&name, &status));
            findings
        }
        Ok(None) => owners.into_iter().collect(),
        Err(failure) => vec![problem("workspace", failure.context(format_args!("{name} cannot be opened")))],
    }
}

/// When the only owner is lost, nobody can share it further or give it a new key. Where there is nobody else to be an
/// owner, that is the same as the only device.
fn owners(organization: &Organization, summary: &WorkspaceSummary, name: &str) -> Option<Finding> {
    let trust = organization.trust();
    let is_active = |user: UserId| trust.user(user).is_some_and(|user| user.revoked().is_none());
    let realm = trust.realm(summary.realm)?;
    let owners = realm.members().filter(|(user, role)| *role == RealmRole::Owner && is_active(*user)).count();
    let candidates = trust.users().filter(|user| user.revoked().is_none() && user.profile() != UserProfile::Outsider);
    (owners == 1 && candidates.count() > 1).then(|| Finding {
        hint: Some(format!("mountctl workspace share {name:?} EMAIL owner")),
        ..finding("owners", Verdict::Warning, format!("{name}: there is a single owner"))
    })
}

/// One line for each entry that cannot be read, here or on the storage.
fn integrity(name: &str, status: &StatusView, damage: &[Damage]) -> Vec<Finding> {
    const HINT: &str = "put it back from another device or a copy; all other files can be used";
    let unreadable = damage.iter().map(|damage| {
        let entry = damage.path.clone().or_else(|| damage.id.map(|id| id.to_string()));
        format!("{name}: {} cannot be read: {}", entry.as_deref().unwrap_or("an entry"), damage.error)
    });
    let refused = status.corrupt.iter().map(|id| format!("{name}: the newest version of entry {id} is damaged"));
    let mut findings: Vec<Finding> = unreadable
        .chain(refused)
        .map(|message| Finding { hint: Some(HINT.into()), ..finding("integrity", Verdict::Problem, message) })
        .collect();
    if findings.is_empty() {
        findings.push(finding("integrity", Verdict::Ok, format!("{name}: everything opens")));
    }
    findings
}

fn defects(name: &str, status: &StatusView) -> Option<Finding> {
    let text = format!("{name}: {} requests ended in a defect of this program", status.defects);
    let hint = Some("the agent's log says which; please report it".into());
    (status.defects > 0).then(|| Finding { hint, ..finding("defects", Verdict::Warning, text) })
}

fn unsynced(name: &str, status: &StatusView) -> Finding {
    if status.synced {
        return finding("unsynced", Verdict::Ok, format!("{name}: everything is on the storage"));
    }
    let waits = format!("{name}: {} entries are only on this device", status.upload.items);
    Finding { hint: Some("mountctl wait --synced".into()), ..finding("unsynced", Verdict::Warning, waits) }
}
