//! Damage, full disks and disks that cannot be written, through the real program: each its own words and exit code, every
//! other file usable, nothing lost that was acknowledged. (`cli` has wrong passwords, foreign folders and mount points.)

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use parsecfs_tests::{
    cli::{CliHome, can_mount, newest_entry},
    medium,
};

const MIB: u64 = 1 << 20;

#[test]
fn a_truncated_and_a_changed_certificate_log_are_12_and_whole_again_they_work() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    home.kill_agent();
    let newest = newest_entry(&home.path("storage/org/log/00000000"));
    let whole = fs::read(&newest).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    for damaged in [&whole[..whole.len() / 2], &[], &changed] {
        fs::write(&newest, damaged).unwrap();
        let error = home.fails(12, &["workspace", "create", "Videos"]);
        assert_eq!(error["kind"], "corrupt", "{error}");
        let said = home.run(&["doctor"]);
        assert_eq!(said.code, Some(18), "{said:?}");
        assert!(said.stdout.contains("--deep") && !said.stdout.contains("mountctl doctor"), "{said:?}");
    }
    fs::write(&newest, &whole).unwrap();
    home.ok(&["workspace", "create", "Videos"]);
}

#[test]
fn a_damaged_log_of_a_workspace_does_not_keep_its_files_from_being_used() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    let id = home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    let note = Path::new(&dir).join("note");
    home.ok(&["mount", "Photos", &dir]);
    fs::write(&note, "here").unwrap();
    home.ok(&["umount", &dir, "--flush"]);
    home.kill_agent();
    let newest = newest_entry(&home.path("storage").join("r").join(id).join("log/00000000"));
    let whole = fs::read(&newest).unwrap();
    fs::write(&newest, &whole[..whole.len() / 2]).unwrap();
    home.ok(&["mount", "Photos", &dir]);
    assert_eq!(fs::read_to_string(&note).unwrap(), "here");
    fs::write(&note, "changed").unwrap();
    assert_eq!(home.fails(12, &["sync", "Photos"])["kind"], "corrupt");
    fs::write(&newest, &whole).unwrap();
    home.ok(&["sync", "Photos"]);
    home.ok(&["umount", &dir, "--flush"]);
}

#[test]
fn what_a_newer_version_wrote_into_the_home_is_said_to_be_that() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    let id = home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
    fs::write(Path::new(&dir).join("note"), "kept").unwrap();
    home.ok(&["umount", &dir, "--flush"]);
    home.kill_agent();
    let device = home.ok(&["device", "list"])[0]["device_id"].as_str().unwrap().to_owned();
    home.kill_agent();
    let store = home.home().join("data").join(device);
    for (database, command) in [
        (store.join("organization/certificates.sqlite"), &["org", "show"][..]),
        (store.join(id).join("index.sqlite"), &["mount", "Photos", &dir]),
    ] {
        let version = set_version(&database, 1000);
        let error = home.fails(1, command);
        assert_eq!(error["kind"], "unsupported_version", "{error}");
        assert!(error["hint"].as_str().unwrap().contains("newer version"), "{error}");
        home.kill_agent();
        set_version(&database, version);
    }
    home.ok(&["mount", "Photos", &dir]);
    assert_eq!(fs::read_to_string(Path::new(&dir).join("note")).unwrap(), "kept");
    home.ok(&["umount", &dir, "--flush"]);
}

/// Gives a database of the home this format version, and returns the one it had.
fn set_version(database: &Path, version: i64) -> i64 {
    let database = rusqlite::Connection::open(database).expect("a database opens");
    let before = database.pragma_query_value(None, "user_version", |row| row.get(0)).expect("it has a version");
    database.pragma_update(None, "user_version", version).expect("it can be written");
    before
}

#[test]
fn a_full_storage_keeps_changes_here_and_goes_on_when_there_is_room() {
    if !can_mount() || !medium::can_mount_disks() {
        return;
    }
    let home = CliHome::new();
    let disk = home.path("storage");
    medium::mount_disk(&disk, 2 * MIB);
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
    let small = Path::new(&dir).join("small");
    fs::write(&small, "small").unwrap();
    home.ok(&["wait", "--synced", "--timeout", "60"]);
    let large = noise(4 * MIB);
    write_durably(&Path::new(&dir).join("large"), &large).unwrap();
    let error = home.fails(1, &["sync", "Photos"]);
    assert_eq!(error["kind"], "no_space", "{error}");
    assert!(error["hint"].as_str().unwrap().contains("free some space"), "{error}");
    let status = home.ok(&["status", "Photos"]);
    assert_eq!(status["synced"], false, "{status}");
    assert!(!status["waiting"].as_array().unwrap().is_empty(), "{status}");
    assert_eq!(home.fails(17, &["umount", &dir])["kind"], "unsynced");
    assert_eq!(fs::read_to_string(&small).unwrap(), "small");
    fs::write(Path::new(&dir).join("more"), "written while it was full").unwrap();
    assert!(fs::read(Path::new(&dir).join("large")).unwrap() == large);
    medium::resize_disk(&disk, 64 * MIB);
    home.ok(&["sync", "Photos"]);
    home.ok(&["umount", &dir, "--flush"]);
    home.ok(&["mount", "Photos", &dir]);
    assert!(fs::read(Path::new(&dir).join("large")).unwrap() == large);
    assert_eq!(fs::read_to_string(Path::new(&dir).join("more")).unwrap(), "written while it was full");
    home.ok(&["umount", &dir, "--flush"]);
}

#[test]
fn a_full_home_refuses_writes_keeps_all_it_acknowledged_and_goes_on_when_there_is_room() {
    if !can_mount() || !medium::can_mount_disks() {
        return;
    }
    let home = CliHome::new();
    medium::mount_disk(&home.home(), 24 * MIB);
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
    // Without its storage nothing can go out and make room.
    fs::rename(home.path("storage"), home.path("away")).unwrap();
    let kept = noise(MIB);
    write_durably(&Path::new(&dir).join("kept"), &kept).unwrap();
    let (acknowledged, error) = fill(Path::new(&dir));
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let content = noise(MIB);
    for name in &acknowledged {
        assert!(fs::read(name).unwrap() == content, "{}", name.display());
    }
    assert!(fs::read(Path::new(&dir).join("kept")).unwrap() == kept);
    home.ok(&["status", "Photos"]);
    // Once: the refused file is not on the storage, and whoever syncs has to hear of that.
    assert_eq!(home.fails(1, &["sync", "Photos"])["kind"], "no_space");
    medium::resize_disk(&home.home(), 96 * MIB);
    write_durably(&Path::new(&dir).join("later"), &content).unwrap();
    fs::rename(home.path("away"), home.path("storage")).unwrap();
    home.ok(&["sync", "Photos"]);
    home.ok(&["umount", &dir, "--flush"]);
    home.ok(&["mount", "Photos", &dir]);
    for name in acknowledged.iter().chain([&Path::new(&dir).join("later")]) {
        assert!(fs::read(name).unwrap() == content, "{}", name.display());
    }
    home.ok(&["umount", &dir, "--flush"]);
    home.ok(&["doctor"]);
    home.kill_agent();
}

/// Writes files of a mebibyte until one is refused: those that were acknowledged, and the refusal.
fn fill(dir: &Path) -> (Vec<PathBuf>, std::io::Error) {
    let content = noise(MIB);
    let mut acknowledged = Vec::new();
    for number in 0..64 {
        let path = dir.join(format!("fill{number}"));
        match write_durably(&path, &content) {
            Ok(()) => acknowledged.push(path),
            Err(error) => return (acknowledged, error),
        }
    }
    panic!("64 MiB fit on a disk of 24");
}

fn write_durably(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Bytes that no compression makes smaller, the same for each length.
fn noise(length: u64) -> Vec<u8> {
    let mut state = length | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_read_only_storage_is_14_and_its_files_are_read_and_changed_here() {
    if !can_mount() || !medium::can_mount_disks() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    let note = Path::new(&dir).join("note");
    home.ok(&["mount", "Photos", &dir]);
    fs::write(&note, "first").unwrap();
    home.ok(&["wait", "--synced", "--timeout", "60"]);
    medium::make_read_only(&home.path("storage"));
    let error = home.fails(14, &["workspace", "create", "Videos"]);
    assert_eq!(error["kind"], "denied");
    assert!(error["message"].as_str().unwrap().contains("read-only"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("read-only"), "{error}");
    assert_eq!(fs::read_to_string(&note).unwrap(), "first");
    fs::write(&note, "second").unwrap();
    assert_eq!(home.fails(14, &["sync", "Photos"])["kind"], "denied");
    assert_eq!(home.fails(17, &["umount", &dir])["kind"], "unsynced");
    assert_eq!(home.run(&["doctor"]).code, Some(18));
    assert_eq!(fs::read_to_string(&note).unwrap(), "second");
    medium::unmount(&home.path("storage"));
    home.ok(&["sync", "Photos"]);
    home.ok(&["umount", &dir, "--flush"]);
    home.ok(&["doctor"]);
}
