//! People come, get roles, lose them and go: what each may do and read, told on a directory, where only readers enforce
//! the rules.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use parsecfs_core::{
    certificate::{Certificate, RealmRole, UserProfile},
    id::RealmId,
    name::EntryName,
    storage::VlobRecord,
};
use parsecfs_tests::world::{Device, Files, World, content};
use parsecfs_vfs::{error::ErrorKind, organization::Organization};

/// Alice, an admin who owns a workspace; Bob, a standard user who knows nothing of it.
async fn alice_and_bob() -> (World, Device, Device, RealmId) {
    let (world, alice) = World::found().await.unwrap();
    let bob = world.person(&alice, "bob", UserProfile::Standard).await.unwrap();
    let realm = alice.create_workspace("notes").await.unwrap();
    (world, alice, bob, realm)
}

fn role(of: &Device, realm: RealmId) -> Option<RealmRole> {
    of.organization.role(realm)
}

async fn give(by: &Device, realm: RealmId, to: &Device, role: RealmRole) {
    by.organization.share(realm, to.organization.user_id(), role).await.unwrap();
    to.organization.refresh().await.unwrap();
}

fn key_index(of: &Organization, realm: RealmId) -> u64 {
    of.trust().realm(realm).unwrap().key_index()
}

#[tokio::test]
async fn a_shared_workspace_is_read_and_written_as_the_role_allows() {
    let (_world, alice, bob, realm) = alice_and_bob().await;
    give(&alice, realm, &bob, RealmRole::Reader).await;
    let (hers, his) = (alice.workspace(realm).await.unwrap(), bob.workspace(realm).await.unwrap());
    hers.volume().put("note", b"for bob").unwrap();
    hers.sync().await.unwrap();
    his.sync().await.unwrap();
    assert_eq!(content(his.volume(), "note").await.unwrap(), b"for bob");
    assert!(his.volume().put("reply", b"no").is_err());
    // The same again is done already.
    give(&alice, realm, &bob, RealmRole::Reader).await;
    give(&alice, realm, &bob, RealmRole::Contributor).await;
    his.close().await.unwrap();
    drop(his);
    let his = bob.workspace(realm).await.unwrap();
    his.sync().await.unwrap();
    his.volume().put("reply", b"yes").unwrap();
    his.sync().await.unwrap();
    hers.sync().await.unwrap();
    assert_eq!(content(hers.volume(), "reply").await.unwrap(), b"yes");
}

#[tokio::test]
async fn who_lost_the_role_reads_nothing_that_is_written_afterwards() {
    let (world, alice, bob, realm) = alice_and_bob().await;
    give(&alice, realm, &bob, RealmRole::Contributor).await;
    let his = bob.workspace(realm).await.unwrap();
    let hers = alice.workspace(realm).await.unwrap();
    hers.volume().put("before", b"for both").unwrap();
    hers.sync().await.unwrap();
    his.sync().await.unwrap();
    assert_eq!(content(his.volume(), "before").await.unwrap(), b"for both");
    let before = key_index(&alice.organization, realm);

    alice.organization.unshare(realm, bob.organization.user_id()).await.unwrap();
    assert_eq!(key_index(&alice.organization, realm), before + 1, "a new key comes with it");
    hers.volume().put("after", b"not for bob").unwrap();
    hers.sync().await.unwrap();

    // Bob's real device, with all the keys that it had, and every object of the storage in hand.
    drop(his);
    let device = bob.organization.device().clone();
    drop(bob);
    let bob = world.open("bob", device).await.unwrap();
    assert_eq!(role(&bob, realm), None);
    assert!(bob.organization.storage().keys_bundle(realm, before + 1).await.is_err());
    let his_keys = bob.organization.realm_keys(realm).await.unwrap();
    assert_eq!(his_keys.newest_index(), before);
    let storage = alice.organization.storage();
    let written: Vec<_> = storage.changes(realm, 0).await.unwrap().items.into_iter().map(|(id, _)| id).collect();
    let written = storage.read(realm, &written).await.unwrap();
    let (after, known): (Vec<_>, Vec<_>) = written.iter().partition(|record| record.key_index > before);
    assert!(!after.is_empty() && !known.is_empty());
    let opens = |record: &VlobRecord| {
        let mut keys = (1..=his_keys.newest_index()).map(|index| his_keys.key(index).unwrap());
        keys.any(|key| key.derive(record.id.as_bytes()).open(&record.blob).is_ok())
    };
    assert!(known.iter().all(|record| opens(record)), "what he could read once he still can");
    assert!(!after.iter().any(|record| opens(record)));

    assert_eq!(content(hers.volume(), "after").await.unwrap(), b"not for bob");
}

#[tokio::test]
async fn an_owner_that_looks_removes_the_revoked_and_makes_a_new_key() {
    let (world, alice, bob, realm) = alice_and_bob().await;
    let carol = world.person(&alice, "carol", UserProfile::Admin).await.unwrap();
    give(&alice, realm, &bob, RealmRole::Contributor).await;
    let before = key_index(&alice.organization, realm);
    // Carol is no member: she can end Bob, and only an owner of the workspace can do the rest.
    carol.organization.refresh().await.unwrap();
    carol.organization.revoke_user(bob.organization.user_id()).await.unwrap();
    alice.organization.refresh().await.unwrap();
    assert_eq!(key_index(&alice.organization, realm), before + 1);
    let members: Vec<_> = alice.organization.members(realm).into_iter().map(|member| member.user.id).collect();
    assert_eq!(members, [alice.organization.user_id()]);
    // Nothing is left to do.
    alice.organization.refresh().await.unwrap();
    assert_eq!(key_index(&alice.organization, realm), before + 1);
}

#[tokio::test]
async fn a_key_is_rotated_on_demand_and_the_name_and_files_stay_readable() {
    let (_world, alice, bob, realm) = alice_and_bob().await;
    give(&alice, realm, &bob, RealmRole::Reader).await;
    let hers = alice.workspace(realm).await.unwrap();
    hers.volume().put("old", b"under the first key").unwrap();
    hers.sync().await.unwrap();
    alice.organization.rotate_key(realm).await.unwrap();
    hers.volume().put("new", b"under the second").unwrap();
    hers.sync().await.unwrap();
    bob.organization.refresh().await.unwrap();
    assert_eq!(bob.organization.find_workspace("notes").await.unwrap().key_index, Some(2));
    let his = bob.workspace(realm).await.unwrap();
    his.sync().await.unwrap();
    assert_eq!(content(his.volume(), "old").await.unwrap(), b"under the first key");
    assert_eq!(content(his.volume(), "new").await.unwrap(), b"under the second");
    let refused = bob.organization.rotate_key(realm).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_workspace_is_renamed_archived_and_given_back_by_an_owner() {
    let (_world, alice, bob, realm) = alice_and_bob().await;
    give(&alice, realm, &bob, RealmRole::Contributor).await;
    let name = EntryName::new("minutes").unwrap();
    assert_eq!(bob.organization.rename_workspace(realm, &name).await.unwrap_err().kind(), ErrorKind::Denied);
    alice.organization.rename_workspace(realm, &name).await.unwrap();
    alice.organization.rename_workspace(realm, &name).await.unwrap();
    assert_eq!(bob.organization.archive_workspace(realm, true).await.unwrap_err().kind(), ErrorKind::Denied);
    alice.organization.archive_workspace(realm, true).await.unwrap();
    bob.organization.refresh().await.unwrap();
    let seen = bob.organization.find_workspace("minutes").await.unwrap();
    assert!(seen.archived && !bob.organization.writable(realm) && !alice.organization.writable(realm));
    alice.organization.archive_workspace(realm, false).await.unwrap();
    bob.organization.refresh().await.unwrap();
    assert!(bob.organization.writable(realm));
}

#[tokio::test]
async fn an_orphaned_workspace_is_taken_over_by_the_highest_member_left() {
    let (world, alice, bob, realm) = alice_and_bob().await;
    let carol = world.person(&alice, "carol", UserProfile::Admin).await.unwrap();
    let guest = world.person(&alice, "guest", UserProfile::Outsider).await.unwrap();
    give(&alice, realm, &bob, RealmRole::Contributor).await;
    give(&alice, realm, &carol, RealmRole::Reader).await;
    give(&alice, realm, &guest, RealmRole::Contributor).await;
    let promote = |device: &Device| {
        let organization = device.organization.clone();
        async move { organization.share(realm, organization.user_id(), RealmRole::Owner).await }
    };
    assert_eq!(promote(&bob).await.unwrap_err().kind(), ErrorKind::Denied, "an owner is there");
    let founder = alice.organization.user_id();
    carol.organization.revoke_user(founder).await.unwrap();
    let before = key_index(&carol.organization, realm);
    for other in [&carol, &guest] {
        assert_eq!(promote(other).await.unwrap_err().kind(), ErrorKind::Denied);
    }
    promote(&bob).await.unwrap();
    assert_eq!(role(&bob, realm), Some(RealmRole::Owner));
    // The new owner does what is owed.
    bob.organization.refresh().await.unwrap();
    assert_eq!(key_index(&bob.organization, realm), before + 1);
    assert!(bob.organization.members(realm).iter().all(|member| member.user.id != founder));
    give(&bob, realm, &carol, RealmRole::Manager).await;
}

#[tokio::test]
async fn what_a_revoked_device_had_not_synced_stays_on_it_and_goes_nowhere() {
    let (world, alice, bob, realm) = alice_and_bob().await;
    give(&alice, realm, &bob, RealmRole::Contributor).await;
    let his = bob.workspace(realm).await.unwrap();
    his.sync().await.unwrap();
    his.volume().put("draft", b"not sent yet").unwrap();
    alice.organization.revoke_user(bob.organization.user_id()).await.unwrap();
    // He may hear of it by being refused, or by the certificate.
    let refused = his.sync().await.and(bob.organization.refresh().await);
    assert!(refused.is_err() || !bob.organization.writable(realm));
    let hers = alice.workspace(realm).await.unwrap();
    hers.sync().await.unwrap();
    assert_eq!(hers.volume().names("").unwrap(), Vec::<String>::new());

    his.close().await.unwrap();
    let device = bob.organization.device().clone();
    drop((his, bob));
    let bob = world.open("bob", device).await.unwrap();
    let his = bob.workspace(realm).await.unwrap();
    assert_eq!(content(his.volume(), "draft").await.unwrap(), b"not sent yet");
    assert!(his.status().unwrap().sync.upload_entries > 0, "it is still counted as unsynced");
    assert!(his.volume().put("more", b"no").is_err());
}

#[tokio::test]
async fn a_profile_hides_and_shows_the_names_of_before_as_soon_as_it_holds() {
    let (world, alice, bob, realm) = alice_and_bob().await;
    give(&alice, realm, &bob, RealmRole::Contributor).await;
    let id = bob.organization.user_id();
    let names = |device: &Device| {
        let users = device.organization.users();
        users.iter().filter(|user| user.human_handle.is_some()).count()
    };
    assert_eq!(names(&bob), 2);
    alice.organization.change_profile(id, UserProfile::Outsider).await.unwrap();
    bob.organization.refresh().await.unwrap();
    assert_eq!((names(&bob), role(&bob, realm)), (1, Some(RealmRole::Contributor)));
    let told = bob.organization.certificates().await.unwrap();
    let kept =
        |certificate: &Certificate| matches!(certificate, Certificate::User(user) if user.human_handle.is_some());
    assert!(!told.iter().any(kept), "the audit goes by what is valid");
    // What he had offline goes too.
    let device = bob.organization.device().clone();
    drop(bob);
    let bob = world.open("bob", device).await.unwrap();
    assert_eq!(names(&bob), 1, "his own");
    let carol = world.person(&alice, "carol", UserProfile::Standard).await.unwrap();
    alice.organization.change_profile(id, UserProfile::Standard).await.unwrap();
    bob.organization.refresh().await.unwrap();
    assert_eq!((names(&bob), names(&carol)), (3, 3));
}
