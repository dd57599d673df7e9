//! An owner's mount that nobody touches does what an owner owes: on a directory and on the real server.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use parsecfs_core::{
    certificate::{RealmRole, UserProfile},
    id::RealmId,
    name::EntryName,
    storage::VlobRecord,
};
use parsecfs_tests::{cli::can_mount, company::Company};
use parsecfs_vfs::organization::Organization;

/// For what takes as long as it takes on a machine with much to do.
const PATIENCE: Duration = Duration::from_secs(90);

/// Looks as somebody who is no owner and so changes nothing by looking.
async fn until(who: &Organization, what: &str, done: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !done() {
        ensure!(began.elapsed() < PATIENCE, "{what}");
        who.refresh().await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn key_index(who: &Organization, realm: RealmId) -> u64 {
    who.trust().realm(realm).map_or(0, |realm| realm.key_index())
}

/// Everything of the workspace that the storage gives to this member.
async fn records(who: &Organization, realm: RealmId) -> Result<Vec<VlobRecord>> {
    let changes = who.storage().changes(realm, 0).await?;
    let ids: Vec<_> = changes.items.into_iter().map(|(id, _)| id).collect();
    Ok(who.storage().read(realm, &ids).await?)
}

async fn story(company: Company) -> Result<()> {
    let [alice, bob, carol] = &company.people[..] else { anyhow::bail!("three people") };
    alice.change_profile(carol.user_id(), UserProfile::Admin).await?;
    let realm = alice.create_workspace(EntryName::new("notes")?).await?;
    alice.share(realm, bob.user_id(), RealmRole::Contributor).await?;
    alice.share(realm, carol.user_id(), RealmRole::Reader).await?;
    carol.refresh().await?;
    bob.refresh().await?;
    let before = key_index(carol, realm);

    let home = company.home(0)?;
    let dir = home.mount_point("mnt");
    let (workspace, at) = (realm.to_string(), dir.clone());
    let mounted = tokio::task::spawn_blocking(move || {
        home.ok(&["mount", &workspace, &at]);
        fs::write(format!("{at}/before"), "for bob too").expect("writes");
        home.ok(&["wait", &workspace, "--synced", "--timeout", "60"]);
        home
    })
    .await?;
    let his_keys = bob.realm_keys(realm).await?;
    ensure!(his_keys.newest_index() == before, "bob has all keys that there are");

    // From here on nobody asks anything of the owner's machine.
    carol.revoke_user(bob.user_id()).await?;
    let gone = || carol.trust().realm(realm).is_some_and(|realm| realm.role(bob.user_id()).is_none());
    until(carol, "the role of who is revoked is taken", gone).await?;
    until(carol, "the workspace gets a new key", || key_index(carol, realm) == before + 1).await?;

    let (workspace, at) = (realm.to_string(), dir.clone());
    let home = tokio::task::spawn_blocking(move || {
        fs::write(format!("{at}/after"), "not for bob").expect("writes");
        mounted.ok(&["wait", &workspace, "--synced", "--timeout", "60"]);
        mounted
    })
    .await?;
    carol.realm_keys(realm).await?;
    let written = records(carol, realm).await?;
    let (after, known): (Vec<_>, Vec<_>) = written.iter().partition(|record| record.key_index > before);
    ensure!(!after.is_empty() && !known.is_empty(), "both were written: {} and {}", known.len(), after.len());
    // Bob's real device, with every object of the storage in hand.
    let _refused = bob.refresh().await;
    let his_keys = bob.realm_keys(realm).await.unwrap_or(his_keys);
    ensure!(his_keys.newest_index() == before, "no key came to him");
    let opens = |record: &VlobRecord| {
        let mut keys = (1..=his_keys.newest_index()).filter_map(|index| his_keys.key(index));
        keys.any(|key| key.derive(record.id.as_bytes()).open(&record.blob).is_ok())
    };
    ensure!(known.into_iter().all(opens), "what he could read once he still can");
    for record in after {
        carol.open_manifest(realm, record).context("a member reads it")?;
        ensure!(!opens(record), "who is gone does not");
    }
    Ok(tokio::task::spawn_blocking(move || drop(home)).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_s_mount_takes_roles_of_the_revoked_and_makes_a_new_key_without_being_asked() -> Result<()> {
    if !can_mount() {
        return Ok(());
    }
    for company in Company::everywhere(&["bob", "carol"]).await? {
        story(company).await?;
    }
    Ok(())
}
