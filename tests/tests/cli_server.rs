//! The daily life of a workspace on the real Parsec server, from the command line.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use parsecfs_tests::{
    cli::{CliHome, can_mount},
    door::{Behaviour, Door},
    parsec_server::{ADMINISTRATION_TOKEN, ParsecServer},
};

const PERSON: [&str; 8] =
    ["--email", "alice@example.com", "--name", "Alice", "--device-label", "laptop", "--auth", "keyfile"];
/// For what takes as long as it takes on a machine with much to do.
const PATIENCE: Duration = Duration::from_secs(60);

fn until(what: &str, done: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
    began.elapsed()
}

fn holds(path: &str, content: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found == content)
}

/// A home with an organization on the server behind a door.
fn home_on(door: &Door) -> CliHome {
    let home = CliHome::new();
    let token = home.path("token");
    fs::write(&token, format!("{ADMINISTRATION_TOKEN}\n")).expect("a file can be written");
    let backend = format!("parsec3://127.0.0.1:{}/Org?no_ssl=true", door.port());
    let create = ["org", "create", "Org", "--backend", &backend, "--admin-token-file", token.to_str().expect("UTF-8")];
    home.ok(&[&create[..], &PERSON].concat());
    home
}

#[test]
fn two_devices_share_a_workspace_on_a_server() {
    if !can_mount() {
        return;
    }
    let Some(server) = ParsecServer::start() else { return };
    let door = Door::before(server.port());
    let one = home_on(&door);
    one.ok(&["workspace", "create", "Photos"]);
    let here = one.mount_point("mnt");
    one.ok(&["mount", "Photos", &here]);
    fs::write(format!("{here}/hello"), "from the laptop").expect("writes");
    one.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);

    let two = one.second_device("desktop");
    let there = two.mount_point("mnt");
    two.ok(&["mount", "Photos", &there]);
    until("the second device sees the file", || holds(&format!("{there}/hello"), "from the laptop"));
    fs::write(format!("{there}/hello"), "from the desktop").expect("writes");
    two.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);
    let heard = until("the first device sees the change", || holds(&format!("{here}/hello"), "from the desktop"));
    assert!(heard < Duration::from_secs(1), "it took {heard:?}");
}

#[test]
fn what_waited_while_the_server_was_away_goes_up_when_it_is_back() {
    if !can_mount() {
        return;
    }
    let Some(server) = ParsecServer::start() else { return };
    let door = Door::before(server.port());
    let home = home_on(&door);
    home.ok(&["workspace", "create", "Photos"]);
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
    fs::write(format!("{dir}/first"), "one").expect("writes");
    home.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);
    let html = Behaviour::answers("200 OK", "text/html", b"<html>please log in</html>");
    let bad = [
        ("closed", Behaviour::Closed),
        ("garbage", html),
        ("half an answer", Behaviour::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n\x81".to_vec())),
        ("an unknown status", Behaviour::answers("200 OK", "application/msgpack", b"\x81\xa6status\xa4new!")),
        ("500", Behaviour::answers("500 Internal Server Error", "text/plain", b"oops")),
        ("503", Behaviour::answers("503 Service Unavailable", "text/plain", b"")),
        (
            "a redirect",
            Behaviour::Says(
                b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec(),
            ),
        ),
        ("no HTTP", Behaviour::Says(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())),
    ];
    for (number, (name, behaviour)) in bad.into_iter().enumerate() {
        door.behave(behaviour);
        let before = door.asked_in_vain();
        fs::write(format!("{dir}/file {number}"), name).expect("works offline");
        until(name, || door.asked_in_vain() > before);
        let failed = home.run(&["sync", "Photos"]);
        assert!(matches!(failed.code, Some(1 | 12 | 13)), "{name}: {failed:?}");
        assert!(!failed.error()["message"].as_str().expect("a message").is_empty(), "{name}");
        assert!(holds(&format!("{dir}/file {number}"), name), "{name}: nothing is lost");
        door.behave(Behaviour::Open);
        if number > 0 {
            // The first goes on by itself; for the others the person does not wait for the next try.
            home.ok(&["sync", "Photos"]);
        }
        home.ok(&["wait", "Photos", "--synced", "--timeout", "120"]);
    }
    let again = home.second_device("desktop");
    let there = again.mount_point("mnt");
    again.ok(&["mount", "Photos", &there]);
    until("all is on the server", || fs::read_dir(&there).is_ok_and(|entries| entries.count() == 9));
}

/// The only keys to it would be gone.
#[test]
fn an_organization_whose_founding_was_not_answered_is_not_lost() {
    let Some(server) = ParsecServer::start() else { return };
    let door = Door::before(server.port());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let link = runtime.block_on(server.create_organization("Org")).to_string();
    let link = link.replace(&server.port().to_string(), &door.port().to_string());
    let home = CliHome::new();
    let bootstrap = [&["org", "bootstrap", &link], &PERSON[..]].concat();
    door.behave(Behaviour::Closed);
    home.fails(13, &bootstrap);
    assert_eq!(home.ok(&["org", "list"]).as_array().map(Vec::len), Some(0), "nothing was asked of anybody");
    door.behave(Behaviour::LosesAnswerTo("organization_bootstrap"));
    let unknown = home.fails(13, &bootstrap);
    assert!(unknown["hint"].as_str().is_some_and(|hint| hint.contains("org show")), "{unknown}");
    door.behave(Behaviour::Open);
    assert_eq!(home.ok(&["org", "show"])["organization"], "Org");
}

#[test]
fn an_organization_is_founded_by_the_link_that_a_server_gave() {
    let Some(server) = ParsecServer::start() else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let link = runtime.block_on(server.create_organization("Org")).to_string();
    let home = CliHome::new();
    let made = home.ok(&[&["org", "bootstrap", &link], &PERSON[..]].concat());
    assert_eq!(made["organization"], "Org");
    let refused = CliHome::new().fails(1, &[&["org", "bootstrap", &link], &PERSON[..]].concat());
    assert_eq!(refused["kind"], "exists", "{refused}");
    let other = CliHome::new();
    let backend = format!("parsec3://127.0.0.1:{}?no_ssl=true", server.port());
    let refused = other.fails(10, &[&["org", "create", "New", "--backend", &backend], &PERSON[..]].concat());
    assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("--admin-token-file")), "{refused}");
    assert!(!Path::new(&other.home()).join("devices").read_dir().is_ok_and(|mut files| files.next().is_some()));
    let wrong = other.path("token");
    fs::write(&wrong, "wrong\n").expect("a file can be written");
    let create = ["org", "create", "New", "--backend", &backend, "--admin-token-file", wrong.to_str().expect("UTF-8")];
    let refused = other.fails(14, &[&create[..], &PERSON].concat());
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("administration token")), "{refused}");
    other.fails(2, &[&["org", "bootstrap", "parsec3://host/Org"], &PERSON[..]].concat());
}
