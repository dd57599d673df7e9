//! What the doctor asks for with `--deep`: every object of the storage is read, and each that is damaged is a line.

use parsecfs_core::verify::{Damaged, Part, Verified};
use parsecfs_vfs::organization::{Organization, WorkspaceSummary};

use super::{
    check::{finding, problem},
    views,
};
use crate::rpc::{Finding, Verdict};

/// The name of this check.
const OBJECTS: &str = "objects";

/// Reads all that the storage keeps of the organization and these workspaces.
pub(super) async fn run(organization: &Organization, summaries: &[WorkspaceSummary]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut realms = Vec::new();
    for summary in summaries {
        match organization.realm_keys(summary.realm).await {
            Ok(_) => realms.push(summary.realm),
            Err(error) => findings.push(Finding {
                verdict: Verdict::Skipped,
                ..problem(OBJECTS, crate::failure::Failure::from(error).context(views::name(summary)))
            }),
        }
    }
    match organization.verify(&realms).await {
        Ok(Some(found)) => findings.extend(told(&found, summaries)),
        Ok(None) => findings.push(finding(OBJECTS, Verdict::Skipped, "a server looks after what it keeps")),
        Err(error) => findings.push(problem(OBJECTS, error.into())),
    }
    findings
}

fn told(found: &Verified, summaries: &[WorkspaceSummary]) -> Vec<Finding> {
    let mut findings: Vec<_> = found.damaged.iter().map(|damaged| line(damaged, summaries)).collect();
    let name = |realm| summaries.iter().find(|summary| Some(summary.realm) == realm).map(views::name);
    findings.extend(found.unread.iter().filter_map(|realm| name(Some(*realm))).map(|name| Finding {
        hint: Some("run it again when the damaged log is whole".into()),
        ..finding(OBJECTS, Verdict::Skipped, format!("{name}: its blocks were not looked at"))
    }));
    if findings.is_empty() {
        let all = format!("all {} entries and {} blocks on the storage are whole", found.entries, found.blocks);
        findings.push(finding(OBJECTS, Verdict::Ok, all));
    }
    findings
}

/// Which object, what it means, what to do.
fn line(damaged: &Damaged, summaries: &[WorkspaceSummary]) -> Finding {
    let Damaged { key, why, .. } = damaged;
    let workspace = summaries.iter().find(|summary| Some(summary.realm) == damaged.realm).map(views::name);
    let whose = workspace.unwrap_or_else(|| "the organization".into());
    let (means, hint) = meaning(damaged.part);
    Finding {
        hint: Some(hint.into()),
        ..finding(OBJECTS, Verdict::Problem, format!("{whose}: object {key}: {why}; {means}"))
    }
}

fn meaning(part: Part) -> (&'static str, &'static str) {
    const PUT_BACK: &str = "put this object back from a copy of the storage; files that are here can be used";
    match part {
        Part::OrganizationLog => ("nothing that was stated about users and devices from there on is read", PUT_BACK),
        Part::RealmLog => ("no change from there on reaches a device that does not have it yet", PUT_BACK),
        Part::Checkpoint => (
            "a device that is new here starts slowly, or not at all if the log was shortened",
            "put this object back from a copy of the storage; devices that know the workspace do not need it",
        ),
        Part::Manifests => ("files described in it are read only where they are already", PUT_BACK),
        Part::Blocks => (
            "content in it is read only where it is already",
            "put this object back from a copy of the storage, or write the file anew from a device that has it",
        ),
        Part::Recovery => (
            "somebody whom others can get back together would not come back",
            "put this object back from a copy of the storage, or that person does `mountctl device recovery delete` and sets \
             it up anew",
        ),
        Part::Foreign => (
            "it is ignored: another program was here",
            "look whether a program that copies or synchronizes directories works on the storage, and take it away",
        ),
    }
}
