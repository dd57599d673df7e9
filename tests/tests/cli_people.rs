//! `mountctl user` and `mountctl workspace members|share|unshare|rename|rotate-key|archive`, through the real program,
//! and what they do to mounts of others.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use parsecfs_core::certificate::UserProfile;
use parsecfs_tests::{
    cli::{CliHome, can_mount},
    world::{Device, World},
};
use parsecfs_vfs::{
    clock::SystemClock,
    organization::{DeviceStore, Unlock},
};
use serde_json::{Value, json};

/// Alice, admin; Bob, standard; Gus, outsider: each with a home and a device there, in one organization.
struct Company {
    _world: World,
    alice: CliHome,
    bob: CliHome,
    gus: CliHome,
}

fn home_of(device: &Device) -> CliHome {
    let home = CliHome::new();
    let store = DeviceStore::open(home.home().join("config/devices"));
    store.save(device.organization.device(), &Unlock::Keyfile, &SystemClock).unwrap();
    home
}

/// The workspace `Photos` is Alice's.
fn company() -> Company {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (world, alice) = World::found().await.unwrap();
        alice.create_workspace("Photos").await.unwrap();
        let bob = world.person(&alice, "bob", UserProfile::Standard).await.unwrap();
        let gus = world.person(&alice, "gus", UserProfile::Outsider).await.unwrap();
        let (alice, bob, gus) = (home_of(&alice), home_of(&bob), home_of(&gus));
        Company { _world: world, alice, bob, gus }
    })
}

const BOB: &str = "bob@example.com";

fn roles(members: &Value) -> Vec<(&str, &str)> {
    let members = members.as_array().unwrap().iter();
    members.map(|member| (member["email"].as_str().unwrap(), member["role"].as_str().unwrap())).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn roles_are_given_and_taken_by_address() {
    let Company { alice, bob, gus, .. } = &company();
    let given = alice.ok(&["workspace", "share", "Photos", BOB, "manager"]);
    assert_eq!((&given["email"], &given["role"]), (&json!(BOB), &json!("manager")));
    assert_eq!(bob.ok(&["workspace", "list"])[0]["role"], "manager");
    bob.ok(&["workspace", "share", "Photos", "gus@example.com", "reader"]);
    let members = alice.ok(&["workspace", "members", "Photos"]);
    assert_eq!(roles(&members), [("alice@example.com", "owner"), (BOB, "manager"), ("gus@example.com", "reader")]);
    // An outsider sees that there are others and not who.
    let seen = gus.ok(&["workspace", "members", "Photos"]);
    let hidden = roles(&seen).iter().filter(|(email, _)| email.ends_with("@redacted.invalid")).count();
    assert_eq!((hidden, roles(&seen).last()), (2, Some(&("gus@example.com", "reader"))), "{seen}");
    bob.ok(&["workspace", "unshare", "Photos", "gus@example.com"]);
    assert_eq!(gus.ok(&["workspace", "list"]), json!([]));
    assert_eq!(alice.fails(10, &["workspace", "unshare", "Photos", "gus@example.com"])["kind"], "not_found");
    assert_eq!(alice.fails(10, &["workspace", "share", "Photos", "nobody@example.com", "reader"])["kind"], "not_found");
    assert_eq!(alice.fails(10, &["workspace", "members", "Taxes"])["kind"], "not_found");
}

#[test]
fn a_refusal_names_the_rule_and_who_could_do_it() {
    let Company { alice, bob, gus, .. } = &company();
    alice.ok(&["workspace", "share", "Photos", BOB, "manager"]);
    let refusals: &[(&CliHome, &[&str], &str)] = &[
        (bob, &["workspace", "share", "Photos", "gus@example.com", "owner"], "an owner of the workspace"),
        (bob, &["workspace", "share", "Photos", BOB, "reader"], "user changes own role"),
        (bob, &["workspace", "rename", "Photos", "Mine"], "author is not an owner"),
        (bob, &["workspace", "rotate-key", "Photos"], "author is not an owner"),
        (bob, &["workspace", "archive", "Photos"], "author is not an owner"),
        (alice, &["workspace", "share", "Photos", "gus@example.com", "manager"], "outsiders are neither owner nor"),
        (bob, &["user", "revoke", "alice@example.com", "--yes"], "an admin of the organization"),
        (bob, &["user", "profile", "gus@example.com", "admin"], "an admin of the organization"),
        (alice, &["user", "revoke", "alice@example.com", "--yes"], "user revokes itself"),
        (alice, &["user", "profile", "alice@example.com", "standard"], "user changes own profile"),
        (gus, &["workspace", "create", "Mine"], "an outsider creates a realm"),
    ];
    for (home, command, rule) in refusals {
        let error = home.fails(14, command);
        assert_eq!(error["kind"], "denied");
        assert!(error["message"].as_str().unwrap().contains(rule), "{command:?}: {error}");
    }
    let error = bob.fails(14, &["workspace", "rename", "Photos", "Mine"]);
    assert_eq!(error["hint"], "owners: alice@example.com");
}

#[test]
fn a_workspace_is_renamed_archived_and_its_key_rotated() {
    let Company { alice, bob, .. } = &company();
    alice.ok(&["workspace", "share", "Photos", BOB, "contributor"]);
    assert_eq!(alice.ok(&["workspace", "rename", "Photos", "Pictures"])["name"], "Pictures");
    assert_eq!(bob.ok(&["workspace", "list"])[0]["name"], "Pictures");
    assert_eq!(alice.ok(&["workspace", "archive", "Pictures"])["archived"], true);
    assert_eq!(bob.ok(&["workspace", "list"])[0]["archived"], true);
    assert_eq!(alice.ok(&["workspace", "archive", "Pictures", "--undo"])["archived"], false);
    alice.ok(&["workspace", "rotate-key", "Pictures"]);
    let audit = alice.ok(&["audit"]);
    let rotations = audit["events"].as_array().unwrap().iter().filter(|event| event["event"] == "key_rotated");
    assert_eq!(rotations.count(), 2);
}

#[test]
fn users_are_listed_revoked_and_given_profiles() {
    let Company { alice, bob, .. } = &company();
    let profile = |list: &Value, email: &str| {
        list.as_array().unwrap().iter().find(|user| user["email"] == email).unwrap()["profile"].clone()
    };
    assert_eq!(profile(&bob.ok(&["user", "list"]), BOB), "standard");
    assert_eq!(alice.ok(&["user", "profile", BOB, "admin"])["profile"], "admin");
    assert_eq!(profile(&bob.ok(&["user", "list"]), BOB), "admin");
    assert_eq!(alice.fails(2, &["user", "revoke", BOB])["kind"], "usage", "nobody is here to confirm");
    assert_eq!(alice.ok(&["user", "revoke", BOB, "--yes"])["revoked"], true);
    assert_eq!(alice.fails(14, &["workspace", "share", "Photos", BOB, "reader"])["kind"], "denied");
}

/// [S41]
#[test]
fn a_role_change_shows_in_the_live_mount_and_back() {
    if !can_mount() {
        return;
    }
    let Company { alice, bob, .. } = &company();
    alice.ok(&["workspace", "share", "Photos", BOB, "reader"]);
    let dir = bob.mount_point("mnt");
    bob.ok(&["mount", "Photos", &dir]);
    let write = |name: &str| fs::write(Path::new(&dir).join(name), "mine");
    let status = || bob.ok(&["status", "Photos"]);
    assert_eq!(write("a").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!((&status()["role"], &status()["read_only"]), (&json!("reader"), &json!(true)));
    for (role, writable) in [("contributor", true), ("reader", false), ("manager", true)] {
        alice.ok(&["workspace", "share", "Photos", BOB, role]);
        eventually(role, || write(role).is_ok() == writable);
        assert_eq!((&status()["role"], &status()["read_only"]), (&json!(role), &json!(!writable)));
    }
    alice.ok(&["workspace", "archive", "Photos"]);
    eventually("archived", || write("archived").is_err());
    assert_eq!(status()["read_only_reason"], "the workspace is archived");
    alice.ok(&["workspace", "archive", "Photos", "--undo"]);
    eventually("available", || write("available").is_ok());
}

#[test]
fn the_mount_of_who_is_revoked_stops_writing_says_why_and_keeps_what_it_has() {
    if !can_mount() {
        return;
    }
    let Company { alice, bob, .. } = &company();
    alice.ok(&["workspace", "share", "Photos", BOB, "contributor"]);
    let dir = bob.mount_point("mnt");
    bob.ok(&["mount", "Photos", &dir]);
    let file = Path::new(&dir).join("note");
    fs::write(&file, "kept").unwrap();
    bob.ok(&["wait", "--synced", "--timeout", "60"]);
    alice.ok(&["user", "revoke", BOB, "--yes"]);
    eventually("revoked", || fs::write(Path::new(&dir).join("more"), "no").is_err());
    let status = bob.ok(&["status", "Photos"]);
    assert_eq!(status["read_only"], true);
    assert!(status["read_only_reason"].as_str().unwrap().contains("revoked"), "{status}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}
