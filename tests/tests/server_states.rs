//! States in which a Parsec server does not serve somebody: each is named by commands and by a live mount, costs nothing
//! that is here, and what waited goes on when it is over.

use std::{
    fs,
    io::Write as _,
    time::{Duration, Instant},
};

use parsecfs_core::{certificate::UserProfile, local_device::LocalDevice, name::OrganizationId};
use parsecfs_tests::{
    cli::{CliHome, can_mount},
    company::Company,
    door::{Behaviour, Door},
    parsec_server::ParsecServer,
    world::bring_in,
};
use parsecfs_vfs::{
    clock::SystemClock,
    organization::{DeviceStore, Unlock},
};
use serde_json::Value;

/// For what takes as long as it takes on a machine with much to do.
const PATIENCE: Duration = Duration::from_secs(90);

/// Alice's organization on a server, her home, and a workspace mounted in it.
struct Scene {
    runtime: tokio::runtime::Runtime,
    company: Company,
    home: CliHome,
    dir: String,
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

impl Scene {
    fn new() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let company = runtime.block_on(Company::on_a_server(&["bob"])).expect("an organization")?;
        let home = company.home(0).expect("a home");
        home.ok(&["workspace", "create", "Photos"]);
        let dir = home.mount_point("mnt");
        home.ok(&["mount", "Photos", &dir]);
        fs::write(format!("{dir}/before"), "before").expect("writes");
        home.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);
        Some(Self { runtime, company, home, dir })
    }

    fn server(&self) -> &ParsecServer {
        self.company.server().expect("it is on a server")
    }

    /// Something is written; the state shows; nothing is lost.
    fn is_named(&self, kind: &str, words: &str) {
        fs::write(format!("{}/{kind}", self.dir), kind).expect("what is here can be worked on");
        let refused = self.home.fails(14, &["sync", "Photos"]);
        assert_eq!(refused["kind"], kind, "{refused}");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains(words)), "{refused}");
        assert!(refused["hint"].is_string(), "{refused}");
        assert_eq!(self.home.fails(14, &["workspace", "list"])["kind"], kind);
        let status = self.status();
        let waits = status["waiting"].as_array().expect("a list");
        assert!(waits.iter().any(|one| one["reason"].as_str().is_some_and(|text| text.contains(words))), "{status}");
        assert_eq!(status["synced"], false, "{status}");
        assert_eq!(fs::read_to_string(format!("{}/before", self.dir)).expect("reads"), "before");
    }

    fn status(&self) -> Value {
        self.home.ok(&["status", "Photos"])
    }

    /// Without anybody asking.
    fn goes_on(&self) {
        self.home.ok(&["wait", "Photos", "--synced", "--timeout", "90"]);
    }

    fn freeze(&self, frozen: bool) {
        let body = format!(r#"{{"user_email":"alice@example.com","frozen":{frozen}}}"#);
        self.server().administer("POST", "Org/users/freeze", &body);
    }
}

#[test]
fn a_frozen_user_works_on_and_what_waited_goes_up_after_the_thaw() {
    let Some(scene) = Scene::new() else { return };
    scene.freeze(true);
    scene.is_named("frozen", "this user is frozen");
    // Neither another agent nor another mount needs the server's leave for what is here.
    scene.home.ok(&["agent", "restart"]);
    assert_eq!(fs::read_to_string(format!("{}/frozen", scene.dir)).expect("reads"), "frozen");
    scene.home.ok(&["umount", "Photos", "--force"]);
    scene.home.ok(&["mount", "Photos", &scene.dir]);
    assert_eq!(fs::read_to_string(format!("{}/frozen", scene.dir)).expect("reads"), "frozen");
    scene.freeze(false);
    scene.goes_on();
}

#[test]
fn an_expired_organization_is_worked_on_and_goes_on_when_it_is_extended() {
    let Some(scene) = Scene::new() else { return };
    scene.server().administer("PATCH", "Org", r#"{"is_expired":true}"#);
    scene.is_named("expired", "the organization has expired");
    scene.server().administer("PATCH", "Org", r#"{"is_expired":false}"#);
    scene.goes_on();
}

#[test]
fn terms_of_service_are_shown_and_accepted_and_what_waited_goes_up() {
    let Some(scene) = Scene::new() else { return };
    assert_eq!(scene.home.ok(&["org", "terms"])["updated_on"], Value::Null);
    let terms = r#"{"tos":{"en_US":"https://example.com/terms","fr_FR":"https://example.com/conditions"}}"#;
    scene.server().administer("PATCH", "Org", terms);
    scene.is_named("terms_of_service", "terms of service have to be accepted");
    let shown = scene.home.ok(&["org", "terms"]);
    assert_eq!(shown["urls"]["en_US"], "https://example.com/terms");
    assert_eq!(shown["accepted"], false);
    assert_eq!(scene.home.fails(2, &["org", "terms", "--accept"])["kind"], "usage", "nobody is here to confirm it");
    assert_eq!(scene.home.ok(&["--yes", "org", "terms", "--accept"])["accepted"], true);
    scene.goes_on();
}

#[test]
fn a_revoked_user_s_mount_stops_writing_and_says_why() {
    let Some(scene) = Scene::new() else { return };
    let (alice, bob) = (&scene.company.people[0], &scene.company.people[1]);
    let realm = scene.runtime.block_on(async {
        alice.refresh().await.expect("looks");
        let realm = alice.find_workspace("Photos").await.expect("it is there").realm;
        let role = parsecfs_core::certificate::RealmRole::Contributor;
        alice.share(realm, bob.user_id(), role).await.expect("shares");
        realm
    });
    let home = scene.company.home(1).expect("a home");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", &realm.to_string(), &dir]);
    until("the file is there", || fs::read_to_string(format!("{dir}/before")).is_ok_and(|text| text == "before"));
    // The kernel holds this page until somebody asks for it, and then it is too late.
    let mut held = fs::File::create(format!("{dir}/held")).expect("a contributor makes files");
    held.write_all(b"not handed over yet").expect("the kernel takes it");
    scene.runtime.block_on(alice.revoke_user(bob.user_id())).expect("revokes");
    until("writing ends", || {
        let written = fs::write(format!("{dir}/after"), "after");
        written.is_err_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
    });
    let status = home.ok(&["status", &dir]);
    assert!(status["read_only_reason"].as_str().is_some_and(|text| text.contains("you were revoked")), "{status}");
    assert_eq!(fs::read_to_string(format!("{dir}/before")).expect("what is here stays"), "before");
    let refused = home.fails(14, &["sync", &realm.to_string()]);
    assert_eq!(refused["kind"], "revoked", "{refused}");
}

/// The clock of this machine is right, so it is the server that is made to think otherwise.
#[test]
fn a_wrong_clock_and_a_server_without_the_organization_are_named_and_cost_nothing() {
    let Some(server) = ParsecServer::start() else { return };
    if !can_mount() {
        return;
    }
    let door = Door::before(server.port());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let link = runtime.block_on(server.create_organization("Org")).to_string();
    let link = link.replace(&server.port().to_string(), &door.port().to_string());
    let home = CliHome::new();
    let person = ["--email", "alice@example.com", "--name", "Alice", "--device-label", "laptop", "--auth", "keyfile"];
    home.ok(&[&["org", "bootstrap", &link], &person[..]].concat());
    home.ok(&["workspace", "create", "Photos"]);
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
    let late = "HTTP/1.1 498 Late\r\ndate: Sun, 01 Nov 2020 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n";
    for (says, code, kind, words) in [
        (Behaviour::Says(late.as_bytes().to_vec()), 1, "wrong_clock", "days ahead of the server's: set it"),
        (Behaviour::answers("404 Not Found", "application/json", b"{}"), 10, "not_found", "no such organization"),
    ] {
        door.behave(says);
        fs::write(format!("{dir}/{kind}"), kind).expect("what is here can be worked on");
        let refused = home.fails(code, &["sync", "Photos"]);
        assert_eq!(refused["kind"], kind, "{refused}");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains(words)), "{refused}");
        home.ok(&["agent", "restart"]);
        assert_eq!(fs::read_to_string(format!("{dir}/{kind}")).expect("reads"), kind);
        door.behave(Behaviour::Open);
        home.ok(&["wait", "Photos", "--synced", "--timeout", "90"]);
    }
}

#[test]
fn a_device_of_an_organization_that_the_server_does_not_have_is_told_so() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let Some(company) = runtime.block_on(Company::on_a_server(&[])).expect("an organization") else { return };
    let device = company.people[0].device().clone();
    let elsewhere = LocalDevice { organization_id: OrganizationId::new("Nobody").expect("a name"), ..device };
    let home = CliHome::new();
    let store = DeviceStore::open(home.home().join("config/devices"));
    store.save(&elsewhere, &Unlock::Keyfile, &SystemClock).expect("saves");
    let refused = home.fails(10, &["workspace", "list"]);
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("no such organization")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_organization_says_so_and_takes_people_again_when_there_is_room() {
    let Some(company) = Company::on_a_server(&["bob"]).await.expect("an organization") else { return };
    let server = company.server().expect("it is on a server");
    server.administer("PATCH", "Org", r#"{"active_users_limit":2}"#);
    let error = bring_in(&company.people[0], "carol", UserProfile::Standard).await.expect_err("there is no room");
    assert!(format!("{error:#}").contains("as many users as its server allows"), "{error:#}");
    company.people[0].revoke_user(company.people[1].user_id()).await.expect("revokes");
    bring_in(&company.people[0], "carol", UserProfile::Standard).await.expect("there is room");
}
