//! Mounting and unmounting on the command line: codes, words, and what is left behind.

use std::{fs, path::Path};

use parsecfs_tests::{
    cli::{CliHome, can_mount, shape},
    world::bytes_in,
};
use serde_json::json;

#[test]
fn an_unusable_mount_point_is_15_each_in_its_own_words() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    let missing = home.path("missing");
    let error = home.fails(15, &["mount", "Photos", missing.to_str().unwrap()]);
    assert!(error["message"].as_str().unwrap().contains("does not exist"), "{error}");
    let full = home.mount_point("full");
    fs::write(Path::new(&full).join("file"), "").unwrap();
    let error = home.fails(15, &["mount", "Photos", &full]);
    assert!(error["message"].as_str().unwrap().contains("not empty"), "{error}");
    let file = Path::new(&full).join("file");
    let error = home.fails(15, &["mount", "Photos", file.to_str().unwrap()]);
    assert!(error["message"].as_str().unwrap().contains("not a directory"), "{error}");
}

#[test]
fn mounting_twice_and_unmounting_twice_are_16() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    let id = home.with_workspace("Photos");
    let (dir, other) = (home.mount_point("mnt"), home.mount_point("other"));
    let mounted = home.ok(&["mount", "Photos", &dir]);
    let expected = json!({
        "workspace_id": "string", "workspace": "string", "organization": "string", "device_id": "string",
        "mount": "string", "read_only": "bool",
    });
    assert_eq!(shape(&mounted), expected);
    assert_eq!(home.fails(16, &["mount", "Photos", &other])["kind"], "already_mounted");
    assert_eq!(home.fails(16, &["mount", "Photos", &dir])["kind"], "already_mounted");
    assert_eq!(home.ok(&["workspace", "list"])[0]["mount"], dir);
    assert_eq!(home.ok(&["umount", &id])["mount"], dir);
    assert_eq!(home.fails(16, &["umount", &dir])["kind"], "not_mounted");
    assert_eq!(home.fails(16, &["status", "Photos"])["kind"], "not_mounted");
}

#[test]
fn what_is_written_is_there_after_a_remount_and_reported_as_synced() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    let file = Path::new(&dir).join("note.txt");
    fs::write(&file, "first").unwrap();
    let waited = home.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);
    assert_eq!(waited[0]["synced"], true);
    let status = home.ok(&["status", &dir]);
    let expected = json!({
        "workspace_id": "string", "workspace": "string", "mount": "string", "role": "string", "read_only": "bool", "read_only_reason": "null",
        "online": "bool", "synced": "bool", "upload": {"items": "number", "bytes": "number"},
        "download": {"items": "number", "bytes": "number"}, "waiting": [], "corrupt": [],
        "cache_used": "number", "cache_limit": "number", "defects": "number",
        "agent": {"pid": "number", "kept": "bool", "restarts": "number", "last_restart": "null", "restart_reason": "null"},
    });
    assert_eq!(shape(&status), expected);
    assert_eq!(home.ok(&["status", file.to_str().unwrap()])["state"], "synced");
    home.ok(&["umount", &dir, "--flush"]);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    home.ok(&["mount", "Photos", &dir]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "first");
    home.ok(&["umount", "--all"]);
}

#[test]
fn a_read_only_mount_refuses_writers() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    assert_eq!(home.ok(&["mount", "Photos", &dir, "--read-only"])["read_only"], true);
    let error = fs::write(Path::new(&dir).join("note"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn a_busy_mount_names_who_uses_it() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    let open = fs::File::create(Path::new(&dir).join("open")).unwrap();
    let error = home.fails(1, &["umount", &dir]);
    assert_eq!(error["kind"], "busy");
    assert!(error["message"].as_str().unwrap().contains(&std::process::id().to_string()), "{error}");
    drop(open);
    home.ok(&["umount", &dir]);
}

#[test]
fn unsynced_changes_keep_a_mount_from_ending_unless_forced() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    fs::rename(home.path("storage"), home.path("away")).unwrap();
    fs::write(Path::new(&dir).join("note"), "only here").unwrap();
    assert_eq!(home.fails(17, &["umount", &dir])["kind"], "unsynced");
    home.ok(&["umount", &dir, "--force"]);
    fs::rename(home.path("away"), home.path("storage")).unwrap();
    home.ok(&["mount", "Photos", &dir]);
    assert_eq!(fs::read_to_string(Path::new(&dir).join("note")).unwrap(), "only here");
    home.ok(&["umount", &dir, "--flush"]);
}

#[test]
fn quickstart_makes_everything_and_again_mounts_the_same() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    let (at, mount) = (home.path("at"), home.path("mnt"));
    let arguments =
        ["quickstart", "--at", at.to_str().unwrap(), "--mount", mount.to_str().unwrap(), "--workspace", "Mine"];
    let first = home.ok(&arguments);
    let expected = json!({
        "organization": "string", "backend": "string", "device_id": "string", "workspace": "string",
        "workspace_id": "string", "mount": "string", "created": "bool",
    });
    assert_eq!(shape(&first), expected);
    assert_eq!(first["created"], true);
    fs::write(mount.join("hello"), "world").unwrap();
    let again = home.ok(&arguments);
    assert_eq!((&again["workspace_id"], &again["created"]), (&first["workspace_id"], &json!(false)));
    home.ok(&["umount", "Mine", "--flush"]);
    let third = home.ok(&["quickstart", "--at", at.to_str().unwrap()]);
    assert_eq!((&third["workspace_id"], &third["mount"]), (&first["workspace_id"], &first["mount"]));
    assert_eq!(fs::read_to_string(mount.join("hello")).unwrap(), "world");
    home.ok(&["umount", "Mine", "--flush"]);
    let fourth = home.ok(&["quickstart"]);
    assert_eq!((&fourth["workspace_id"], &fourth["mount"]), (&first["workspace_id"], &first["mount"]));
}

/// [S44]
#[test]
fn a_file_that_cp_copies_is_not_sent_again() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    let path = |name: &str| Path::new(&dir).join(name);
    let bytes: Vec<u8> = (0..1u32 << 21).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    fs::write(path("file"), &bytes).unwrap();
    home.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);
    let storage = home.path("storage");
    let before = bytes_in(&storage).unwrap();
    assert!(before > bytes.len() as u64);
    let copied = std::process::Command::new("cp").args([path("file"), path("copy")]).status().unwrap();
    assert!(copied.success());
    home.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);
    let more = bytes_in(&storage).unwrap() - before;
    assert!(more < 256 << 10, "{more} bytes went up");
    fs::remove_file(path("file")).unwrap();
    home.ok(&["umount", "Photos", "--flush"]);
    home.ok(&["mount", "Photos", &dir]);
    assert!(fs::read(path("copy")).unwrap() == bytes);
    home.ok(&["umount", "Photos", "--flush"]);
}
