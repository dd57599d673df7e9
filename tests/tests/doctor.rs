//! What `mountctl doctor` tells, through the real program: each damaged object of a storage by name, and the truth about
//! dead mounts.

use std::{fs, path::Path, sync::Arc};

use parsecfs_backends::objects;
use parsecfs_core::{
    id::{DeviceId, RealmId},
    time::Timestamp,
};
use parsecfs_tests::cli::{CliHome, Said, can_mount, newest_entry, signal};
use parsecfs_vfs::{
    clock::{Clock, SystemClock},
    organization::{DeviceStore, Organization, OrganizationKeys, Unlock},
};
use serde_json::Value;

/// The findings of one check.
fn findings(said: &Said, check: &str) -> Vec<Value> {
    let all = said.json();
    all.as_array().expect("a list").iter().filter(|finding| finding["check"] == check).cloned().collect()
}

/// A workspace with a file whose content is an object of its own, nothing mounted, no agent.
fn with_content(home: &CliHome) -> String {
    let id = home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
    let content: Vec<u8> = (0..400_000u32).map(|n| n.to_le_bytes()[0]).collect();
    fs::write(Path::new(&dir).join("large"), content).expect("a mount is written");
    home.ok(&["umount", &dir, "--flush"]);
    id
}

/// Writes the checkpoint that the program would write after some thousand changes.
fn write_checkpoint(home: &CliHome, realm: &str) {
    let device = home.ok(&["device", "list"])[0]["device_id"].as_str().expect("an id").to_owned();
    home.kill_agent();
    let device = DeviceId::parse(&device).expect("an id");
    let device = DeviceStore::open(home.home().join("config/devices")).load(device, &Unlock::Keyfile).expect("opens");
    let (keys, clock) = (OrganizationKeys::new(&device), Arc::new(SystemClock));
    let now = Arc::clone(&clock);
    let options = objects::Options {
        state_dir: home.path("notes"),
        signer: keys.signer(),
        keys: keys.clone(),
        organization: device.organization_id.as_str().to_owned(),
        root: *device.root_verify_key.as_bytes(),
        clock: Arc::new(move || -> Timestamp { now.now() }),
    };
    let realm = RealmId::parse(realm).expect("an id");
    let runtime = tokio::runtime::Runtime::new().expect("threads start");
    runtime.block_on(async {
        let storage = objects::open(&device.server_url, options).await.expect("a storage opens");
        let copy = home.path("copy");
        let organization = Organization::open(device, keys, storage.clone(), &copy, clock).await.expect("opens");
        organization.realm_keys(realm).await.expect("keys");
        storage.write_checkpoint(realm).await.expect("a checkpoint is written");
    });
}

/// The only file below a folder.
fn only_file(folder: &Path) -> std::path::PathBuf {
    let entry =
        fs::read_dir(folder).expect("a folder lists").next().expect("it has an entry").expect("it reads").path();
    if entry.is_dir() { only_file(&entry) } else { entry }
}

#[test]
fn each_damaged_object_is_one_line_with_its_name_what_it_means_and_what_to_do() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    let id = with_content(&home);
    write_checkpoint(&home, &id);
    let whole = home.run(&["doctor", "--deep"]);
    assert_eq!(whole.code, Some(0), "{whole:?}");
    assert_eq!(findings(&whole, "objects").len(), 1, "{whole:?}");
    let storage = home.path("storage");
    let realm = storage.join("r").join(&id);
    for (file, means) in [
        (newest_entry(&realm.join("log/00000000")), "no change from there on"),
        (only_file(&realm.join("ck")), "starts slowly"),
        (only_file(&realm.join("b")), "read only where it is already"),
        (newest_entry(&storage.join("org/log/00000000")), "users and devices"),
    ] {
        home.kill_agent();
        let bytes = fs::read(&file).expect("an object reads");
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        fs::write(&file, &flipped).expect("an object is written");
        let key = file.strip_prefix(&storage).expect("below it").to_str().expect("ASCII");
        let said = home.run(&["doctor", "--deep"]);
        assert_eq!(said.code, Some(18), "{key}: {said:?}");
        let mut lines = findings(&said, "objects");
        lines.retain(|line| line["verdict"] == "problem");
        assert_eq!(lines.len(), 1, "{key}: {lines:?}");
        let message = lines[0]["message"].as_str().expect("words");
        assert!(message.contains(key) && message.contains(means), "{key}: {message}");
        assert!(lines[0]["hint"].as_str().expect("words").contains("put this object back"), "{lines:?}");
        assert!(!said.stdout.contains("mountctl doctor"), "nobody is sent where he is: {said:?}");
        fs::write(&file, &bytes).expect("an object is written");
    }
    home.kill_agent();
    let foreign = realm.join("log/00000000/Thumbs.db");
    fs::write(&foreign, "whatever").expect("a folder is written");
    let said = home.run(&["doctor", "--deep"]);
    let lines = findings(&said, "objects");
    assert_eq!((said.code, lines.len()), (Some(18), 1), "{said:?}");
    assert!(lines[0]["message"].as_str().expect("words").contains("Thumbs.db: not the name of an entry"));
    fs::remove_file(&foreign).expect("it goes");
    home.kill_agent();
    assert_eq!(home.run(&["doctor", "--deep"]).stdout, whole.stdout);
}

#[test]
fn a_workspace_whose_log_cannot_be_trusted_is_named_and_the_others_are_used() {
    let home = CliHome::new();
    let id = home.with_workspace("Photos");
    home.ok(&["workspace", "create", "Videos"]);
    home.kill_agent();
    let log = home.path("storage/r").join(&id).join("log/00000000");
    let copy = log.join("001.sync-conflict-20261125-021500-ABCDEFG");
    fs::copy(log.join("001"), &copy).expect("a file is copied");
    assert_eq!(home.ok(&["workspace", "list"]).as_array().expect("a list").len(), 2);
    home.ok(&["workspace", "create", "Music"]);
    let said = home.run(&["doctor"]);
    assert_eq!(said.code, Some(18), "{said:?}");
    let mut lines = findings(&said, "workspace");
    lines.retain(|line| line["verdict"] == "problem");
    let message = lines[0]["message"].as_str().expect("words");
    assert_eq!(lines.len(), 1, "{said:?}");
    assert!(message.starts_with("Photos") && message.contains("renamed an entry"), "{message}");
    fs::remove_file(copy).expect("it goes");
    assert!(findings(&home.run(&["doctor"]), "workspace").is_empty(), "it was put right");
}

#[test]
fn a_dead_mount_that_the_doctor_took_away_is_not_told_as_there() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    home.kill_agent();
    // The kernel closes the files of a killed process a moment after it is gone.
    while fs::metadata(&dir).err().and_then(|error| error.raw_os_error()) != Some(libc::ENOTCONN) {
        std::thread::yield_now();
    }
    let said = home.run(&["doctor"]);
    let stale = findings(&said, "stale_mounts");
    // Other homes of this machine may have dead mounts of their own.
    assert!(!stale[0]["message"].as_str().expect("words").contains(&dir), "{said:?}");
    let table = fs::read_to_string("/proc/self/mountinfo").expect("it reads");
    assert!(!table.contains(&dir), "it is away");
}

/// `doctor` in a home of its own, and what it says of stale mounts.
fn said_elsewhere() -> String {
    let home = CliHome::new();
    home.with_workspace("Elsewhere");
    let said = home.run(&["doctor"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    findings(&said, "stale_mounts").remove(0).to_string()
}

#[test]
fn a_mount_that_another_homes_killed_agent_left_is_a_warning_here() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    home.kill_agent();
    let said = said_elsewhere();
    assert!(said.contains("\"warning\"") && said.contains(&dir), "{said}");
}

#[test]
fn a_mount_whose_agent_hangs_does_not_hang_the_doctor_of_another_home() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    let agent = home.agent_pid().expect("an agent runs");
    signal(agent, "STOP");
    let said = said_elsewhere();
    signal(agent, "CONT");
    assert!(said.contains("\"warning\"") && said.contains(&dir), "{said}");
}

#[test]
fn a_device_file_of_a_newer_version_is_11_and_said_to_be_that() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    home.kill_agent();
    let devices = fs::read_dir(home.home().join("config/devices")).expect("a folder lists");
    let mut paths = devices.map(|entry| entry.expect("it reads").path());
    let file = paths.find(|path| path.extension().is_some_and(|end| end == "keys")).expect("a device file");
    let bytes = fs::read(&file).expect("it reads");
    let kind = b"keyfile";
    let at = bytes.windows(kind.len()).position(|word| word == kind).expect("its kind stands in clear");
    let mut newer = bytes.clone();
    newer[at..at + kind.len()].copy_from_slice(b"futures");
    fs::write(&file, newer).expect("it is written");
    let error = home.fails(11, &["workspace", "list"]);
    assert_eq!(error["kind"], "device_file", "{error}");
    for words in ["message", "hint"] {
        assert!(error[words].as_str().expect("words").contains("newer version"), "{error}");
    }
    let said = home.run(&["doctor"]);
    assert_eq!(said.code, Some(18), "{said:?}");
    assert!(
        findings(&said, "device_file")[0]["message"].as_str().expect("words").contains("newer version"),
        "{said:?}"
    );
    fs::write(&file, bytes).expect("it is written");
    home.ok(&["workspace", "list"]);
}
