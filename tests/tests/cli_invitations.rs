//! `mountctl invite` and `mountctl join` at two terminals, on a directory and on the real server.

use parsecfs_tests::{
    cli::{CliHome, Said},
    dialog::{Person, Terminal, call_each_other},
    parsec_server::{ADMINISTRATION_TOKEN, ParsecServer},
};
use serde_json::{Value, json};

const BOB: &str = "bob@example.com";
const BOB_JOINS: [&str; 6] = ["--name", "Bob", "--auth", "keyfile", "--device-label", "phone"];

/// Alice's organization, in a directory.
fn in_a_directory() -> CliHome {
    let home = CliHome::new();
    home.with_workspace("Photos");
    home
}

/// Alice's organization, on a server.
fn on_a_server(server: &ParsecServer) -> CliHome {
    let home = CliHome::new();
    let token = home.path("token");
    std::fs::write(&token, ADMINISTRATION_TOKEN).expect("a file can be written");
    let backend = format!("parsec3://127.0.0.1:{}?no_ssl=true", server.port());
    let token = token.to_str().expect("temporary paths are UTF-8");
    let alice = ["--email", "alice@example.com", "--name", "Alice", "--device-label", "laptop", "--auth", "keyfile"];
    home.ok(&[&["org", "create", "Org", "--backend", &backend, "--admin-token-file", token], &alice[..]].concat());
    home.ok(&["workspace", "create", "Photos"]);
    home
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn meet(alice: &CliHome, guest: &CliHome, invited: &Value, joins: &[&str], people: (Person, Person)) -> (Said, Said) {
    let greet = ["invite", "greet", text(invited, "token")];
    let join = [&["join", text(invited, "url")], joins].concat();
    call_each_other(Terminal::new(alice, &greet, people.0), Terminal::new(guest, &join, people.1))
}

#[track_caller]
fn succeed(said: &(Said, Said)) -> (Value, Value) {
    assert_eq!((said.0.code, said.1.code), (Some(0), Some(0)), "{said:?}");
    (said.0.json(), said.1.json())
}

/// A user, then a further device of that user; each sees what is shared.
fn people_and_devices_are_let_in(alice: &CliHome) {
    let bob = CliHome::new();
    let invited = alice.ok(&["invite", "user", BOB, "--no-email"]);
    assert_eq!((text(&invited, "type"), text(&invited, "status")), ("user", "pending"));
    let again = alice.ok(&["invite", "user", BOB, "--no-email"]);
    assert_eq!(invited, again, "the one that waits");
    let careful = (Person::Careful, Person::Careful);
    let (welcomed, joined) = succeed(&meet(alice, &bob, &invited, &BOB_JOINS, careful));
    assert_eq!((text(&welcomed, "email"), text(&welcomed, "name")), (BOB, "Bob"));
    assert_eq!(text(&welcomed, "device_id"), text(&joined, "device_id"));
    alice.ok(&["workspace", "share", "Photos", BOB, "contributor"]);
    assert_eq!(bob.ok(&["workspace", "list"])[0]["role"], "contributor");

    let tablet = CliHome::new();
    let invited = bob.ok(&["invite", "device"]);
    let joins = ["--auth", "keyfile", "--device-label", "tablet"];
    let (_, joined) = succeed(&meet(&bob, &tablet, &invited, &joins, careful));
    assert_eq!(text(&joined, "email"), BOB);
    assert_eq!(tablet.ok(&["workspace", "list"])[0]["name"], "Photos");
    let used = alice.ok(&["invite", "list"]);
    let used: Vec<_> = used.as_array().expect("a list").iter().map(|known| known["status"].clone()).collect();
    assert_eq!(used, ["finished"], "devices of others are none of hers");
}

fn a_wrong_code_lets_nobody_in(alice: &CliHome) {
    let guest = CliHome::new();
    let invited = alice.ok(&["invite", "user", "carol@example.com", "--no-email"]);
    let joins = ["--name", "Carol", "--auth", "keyfile"];
    for people in [
        (Person::Mishears, Person::Careful),
        (Person::FindsNone, Person::Careful),
        (Person::Careful, Person::Mishears),
        (Person::Careful, Person::FindsNone),
    ] {
        let (host, guest) = meet(alice, &guest, &invited, &joins, people);
        assert_eq!((host.code, guest.code), (Some(12), Some(12)), "{people:?} {host:?} {guest:?}");
        let (host, guest) = (host.error(), guest.error());
        let picked = "the code that you picked is not that of";
        let (blamed, other) = if people.0 == Person::Careful { (&guest, &host) } else { (&host, &guest) };
        assert!(text(blamed, "message").contains(picked) && text(other, "message").contains("did not find your code"));
        assert!(text(blamed, "hint").contains("talk on another line"), "{blamed}");
    }
    assert!(guest.ok(&["device", "list"]).as_array().expect("a list").is_empty());
    succeed(&meet(alice, &guest, &invited, &joins, (Person::Careful, Person::Careful)));
}

fn who_is_interrupted_goes_on(alice: &CliHome) {
    for people in [(Person::ComesBack, Person::Careful), (Person::Careful, Person::ComesBack)] {
        let (email, guest) = (format!("{:?}@example.com", people.0), CliHome::new());
        let invited = alice.ok(&["invite", "user", &email, "--no-email"]);
        succeed(&meet(alice, &guest, &invited, &["--name", "Dora", "--auth", "keyfile"], people));
    }
}

fn what_is_over_is_named(alice: &CliHome, guest: &CliHome) {
    let invited = alice.ok(&["invite", "user", "eve@example.com", "--no-email"]);
    let (token, url) = (text(&invited, "token"), text(&invited, "url"));
    let refused = guest.fails(2, &["join", url, "--name", "Eve", "--email", "other@example.com", "--auth", "keyfile"]);
    assert_eq!(text(&refused, "message"), "this invitation is for eve@example.com");
    let taken = alice.fails(1, &["invite", "user", "alice@example.com", "--no-email"]);
    assert_eq!(text(&taken, "kind"), "exists");
    assert_eq!(text(&alice.ok(&["invite", "cancel", &token[..8]]), "status"), "cancelled");
    for error in [
        alice.fails(10, &["invite", "greet", token]),
        alice.fails(10, &["invite", "cancel", "eve@example.com"]),
        guest.fails(10, &["join", url, "--name", "Eve", "--auth", "keyfile"]),
    ] {
        assert!(text(&error, "message").contains("cancelled"), "{error}");
    }
    let error = alice.fails(10, &["invite", "greet", "0123456789abcdef0123456789abcdef"]);
    assert!(text(&error, "hint").contains("invite list"), "{error}");
}

#[test]
fn in_a_directory_people_and_devices_are_let_in() {
    people_and_devices_are_let_in(&in_a_directory());
}

#[test]
fn in_a_directory_a_wrong_code_lets_nobody_in() {
    a_wrong_code_lets_nobody_in(&in_a_directory());
}

#[test]
fn in_a_directory_who_is_interrupted_goes_on() {
    who_is_interrupted_goes_on(&in_a_directory());
}

#[test]
fn in_a_directory_what_is_over_is_named() {
    let (alice, guest) = (in_a_directory(), CliHome::new());
    what_is_over_is_named(&alice, &guest);
    let bob = CliHome::new();
    let invited = alice.ok(&["invite", "user", BOB]);
    assert_eq!(invited["email_sent"], Value::Null, "a directory writes to nobody");
    succeed(&meet(&alice, &bob, &invited, &BOB_JOINS, (Person::Careful, Person::Careful)));
    let refused = bob.fails(14, &["invite", "user", "frank@example.com"]);
    assert!(text(&refused, "message").contains("author is not an admin"), "{refused}");
    assert!(text(&refused, "hint").contains("alice@example.com"), "{refused}");
    let used = guest.fails(10, &["join", text(&invited, "url"), "--name", "Eve", "--auth", "keyfile"]);
    assert!(text(&used, "message").contains("used already"), "{used}");
}

#[test]
fn links_to_nowhere_are_named() {
    let (alice, guest) = (in_a_directory(), CliHome::new());
    let invited = alice.ok(&["invite", "user", BOB]);
    let url = text(&invited, "url");
    for (code, link) in [
        (2, "hello"),
        (2, "file:///srv/team"),
        (2, "parsec3://example.com/Org"),
        (2, &url.replace("claim_user", "bootstrap_organization")),
        (13, &url.replace("/storage", "/storage2")),
        (12, &url.replace("claim_user", "claim_device")),
        (13, "parsec3://127.0.0.1:1/Org?no_ssl=true&a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_"),
    ] {
        let error = guest.fails(code, &["join", link, "--name", "Eve", "--auth", "keyfile"]);
        assert!(!text(&error, "message").is_empty() && error["hint"] != json!(null), "{link}: {error}");
    }
}

#[test]
fn on_a_server_people_and_devices_are_let_in_as_in_a_directory() {
    let Some(server) = ParsecServer::start() else { return };
    let alice = on_a_server(&server);
    people_and_devices_are_let_in(&alice);
    a_wrong_code_lets_nobody_in(&alice);
    who_is_interrupted_goes_on(&alice);
    let guest = CliHome::new();
    what_is_over_is_named(&alice, &guest);
    let other = ParsecServer::start().expect("one was there");
    let elsewhere = on_a_server(&other);
    let invited = elsewhere.ok(&["invite", "device"]);
    let link = text(&invited, "url").replace(&other.port().to_string(), &server.port().to_string());
    let error = guest.fails(10, &["join", &link, "--auth", "keyfile"]);
    assert!(text(&error, "message").contains("no such invitation"), "{error}");
}
