//! Devices whose keys are in the keyring of the operating system: with a real one, and on a machine that has none.

use std::{fs, process::Command};

use parsecfs_tests::cli::{CliHome, program};

/// Runs these lines of shell in a login session of its own with an open keyring; `$M` is the program with its home. An
/// agent sees the keyring of the session that it was started in, so one of another session is ended first.
#[track_caller]
fn in_a_session(home: &CliHome, lines: &str) {
    home.kill_agent();
    let script =
        format!("set -e\necho secret | gnome-keyring-daemon --unlock --components=secrets >/dev/null\n{lines}");
    let runtime = home.mount_point("runtime");
    let mut session = Command::new("dbus-run-session");
    session.args(["--", "sh", "-c", &script]).env("HOME", home.path("")).env("XDG_RUNTIME_DIR", runtime);
    session.env("M", format!("{} --home {} --json", program().display(), home.home().display()));
    let said = session.output().expect("it was found above");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// Whether this machine has a keyring to try; CI installs one.
fn has_keyring() -> bool {
    let found = |name| Command::new(name).arg("--version").output().is_ok_and(|said| said.status.success());
    let has = found("dbus-run-session") && found("gnome-keyring-daemon");
    assert!(has || std::env::var_os("CI").is_none(), "CI has dbus and gnome-keyring");
    if !has {
        eprintln!("SKIP: dbus-run-session and gnome-keyring-daemon are not both here");
    }
    has
}

#[test]
fn a_key_in_the_keyring_opens_the_device_in_every_session_that_has_it_and_in_no_other() {
    if !has_keyring() {
        return;
    }
    let home = CliHome::new();
    let make = "$M org create Org --backend $HOME/storage --email a@example.com --name A --auth keyring";
    in_a_session(&home, make);
    // Another login has the same keyring.
    in_a_session(&home, "$M workspace create Photos");
    assert_eq!(home.ok(&["device", "list"])[0]["auth"], "keyring");
    let error = home.fails(11, &["workspace", "list"]);
    assert_eq!(error["kind"], "locked");
    assert!(error["hint"].as_str().unwrap().contains("unlock the keyring"), "{error}");
    in_a_session(&home, "$M device auth keyfile");
    assert_eq!(home.ok(&["workspace", "list"])[0]["name"], "Photos");
    in_a_session(&home, "$M device auth keyring");
    in_a_session(&home, "$M workspace list");
    home.fails(11, &["workspace", "list"]);
}

#[test]
fn without_a_keyring_on_the_machine_the_choice_is_11_and_nothing_is_left_behind() {
    let home = CliHome::new();
    let storage = home.path("storage");
    let create = ["org", "create", "Org", "--backend", storage.to_str().unwrap()];
    let person = ["--email", "a@example.com", "--name", "A"];
    let error = home.fails(11, &[&create[..], &person, &["--auth", "keyring"]].concat());
    assert_eq!(error["kind"], "locked");
    assert!(error["message"].as_str().unwrap().contains("keyring"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("keyfile"), "{error}");
    assert!(!storage.exists());
    assert_eq!(fs::read_dir(home.home().join("config/devices")).unwrap().count(), 0);
    home.ok(&[&create[..], &person, &["--auth", "keyfile"]].concat());
    assert_eq!(home.fails(11, &["device", "auth", "keyring"])["kind"], "locked");
    assert_eq!(home.ok(&["device", "list"])[0]["auth"], "keyfile", "it stays as it was");
    home.ok(&["workspace", "list"]);
}
