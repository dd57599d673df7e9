//! Devices on the command line: how they are unlocked, recovered, forgotten, and what a damaged one says.

use std::{fs, path::Path};

use parsecfs_tests::cli::CliHome;
use serde_json::json;

#[test]
fn a_wrong_password_is_11_and_the_right_one_opens() {
    let home = CliHome::new();
    let (right, wrong) = (home.path("right"), home.path("wrong"));
    fs::write(&right, "correct horse\n").unwrap();
    fs::write(&wrong, "battery staple\n").unwrap();
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let storage = home.storage();
    let create = ["org", "create", "Org", "--backend", &storage, "--email", "a@example.com", "--name", "A"];
    home.ok(&[&create[..], &["--password-file", right]].concat());
    assert_eq!(home.fails(11, &["workspace", "list"])["kind"], "locked");
    let error = home.fails(11, &["workspace", "list", "--password-file", wrong]);
    assert!(error["message"].as_str().unwrap().contains("wrong password"), "{error}");
    assert_eq!(home.ok(&["workspace", "list", "--password-file", right]), json!([]));
    let said = home.run_with_input(&["workspace", "list", "--password-stdin"], "correct horse\n");
    assert_eq!(said.json(), json!([]));
    home.ok(&["device", "auth", "keyfile", "--password-file", right]);
    assert_eq!(home.ok(&["workspace", "list"]), json!([]));
}

#[test]
fn a_damaged_device_file_is_11_and_named_by_the_doctor() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    let devices = home.home().join("config/devices");
    let file = fs::read_dir(devices)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "keys"));
    let file = file.unwrap();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(home.fails(11, &["workspace", "list"])["kind"], "device_file");
    let said = home.run(&["doctor"]);
    assert_eq!(said.code, Some(18), "{said:?}");
    assert_eq!(said.error()["kind"], "problems");
    let findings = said.json();
    assert!(
        findings
            .as_array()
            .unwrap()
            .iter()
            .any(|finding| finding["check"] == "device_file" && finding["verdict"] == "problem")
    );
    fs::write(&file, &whole).unwrap();
    home.ok(&["workspace", "list"]);
}

#[test]
fn a_recovery_file_makes_a_second_device_that_sees_the_same_files() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    fs::write(Path::new(&dir).join("note"), "for both").unwrap();
    home.ok(&["wait", "--synced", "--timeout", "60"]);
    let file = home.path("recovery");
    let exported = home.ok(&["device", "recovery", "export", file.to_str().unwrap()]);
    assert_eq!(home.fails(1, &["device", "recovery", "export", file.to_str().unwrap()])["kind"], "exists");

    let second = CliHome::new();
    let passphrase = second.path("passphrase");
    let import = [
        "device",
        "recovery",
        "import",
        file.to_str().unwrap(),
        "--passphrase-file",
        passphrase.to_str().unwrap(),
        "--auth",
        "keyfile",
        "--device-label",
        "desk",
    ];
    fs::write(&passphrase, "AAAA-".repeat(13)).unwrap();
    assert_eq!(second.fails(11, &import)["kind"], "locked");
    fs::write(&passphrase, exported["passphrase"].as_str().unwrap()).unwrap();
    assert_eq!(second.ok(&import)["label"], "desk");
    let other = second.mount_point("mnt");
    second.ok(&["mount", "Photos", &other]);
    second.ok(&["sync", "Photos"]);
    assert_eq!(fs::read_to_string(Path::new(&other).join("note")).unwrap(), "for both");
}

#[test]
fn forgetting_a_device_takes_its_keys_and_its_store_away() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    assert_eq!(home.fails(2, &["device", "forget", "laptop"])["kind"], "usage");
    home.ok(&["device", "forget", "laptop", "--yes"]);
    assert_eq!(home.ok(&["device", "list"]), json!([]));
    assert_eq!(home.fails(10, &["org", "show"])["kind"], "not_found");
}
