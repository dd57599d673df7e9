//! The command line as scripts rely on it (CLI.md of the project): documents, exit codes, words. The real program, each
//! test in homes of its own.

use std::{fs, path::Path};

use parsecfs_tests::cli::{CliHome, can_mount};
use serde_json::{Value, json};

/// The shape of a document: its keys, with the kind of each value in place of the value.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
        Value::Array(items) => json!(items.iter().map(shape).collect::<Vec<_>>()),
        Value::Object(fields) => Value::Object(fields.iter().map(|(key, value)| (key.clone(), shape(value))).collect()),
    }
}

fn storage_of(home: &CliHome) -> String {
    home.path("storage").to_str().expect("temporary paths are UTF-8").to_owned()
}

#[test]
fn documents_keep_their_shape() {
    let home = CliHome::new();
    let id = home.with_workspace("Photos");
    assert_eq!(id.len(), 32);
    let organization = json!({
        "organization": "string", "backend": "string", "fingerprint": "string", "device_id": "string",
        "email": "string", "workspaces": "number",
        "users": [{"user_id": "string", "email": "string", "name": "string", "profile": "string", "revoked": "bool"}],
    });
    assert_eq!(shape(&home.ok(&["org", "show"])), organization);
    let device = json!({
        "device_id": "string", "label": "string", "organization": "string", "email": "string",
        "backend": "string", "auth": "string",
    });
    assert_eq!(shape(&home.ok(&["org", "list"])), json!([device]));
    assert_eq!(shape(&home.ok(&["device", "list"])), json!([device]));
    let workspace = json!({"workspace_id": "string", "name": "string", "role": "string", "mount": "null"});
    assert_eq!(shape(&home.ok(&["workspace", "list"])), json!([workspace]));
    assert_eq!(home.ok(&["status"]), json!([]));
    let findings = home.ok(&["doctor"]);
    for finding in findings.as_array().unwrap() {
        assert!(["ok", "skipped", "warning", "problem"].contains(&finding["verdict"].as_str().unwrap()), "{finding}");
    }
    for check in ["kernel", "fuse_device", "fusermount3", "stale_mounts", "clock", "storage"] {
        assert!(findings.as_array().unwrap().iter().any(|finding| finding["check"] == check), "{check}: {findings}");
    }
}

#[test]
fn an_error_is_one_object_with_kind_message_and_hint() {
    let home = CliHome::new();
    let error = home.fails(10, &["workspace", "list"]);
    assert_eq!(error["kind"], "not_found");
    assert_eq!(shape(&error), json!({"kind": "string", "message": "string", "hint": "string"}));
}

#[test]
fn mistakes_in_arguments_are_2() {
    let home = CliHome::new();
    assert_eq!(home.fails(2, &["no-such-command"])["kind"], "usage");
    assert_eq!(home.fails(2, &["umount"])["kind"], "usage");
    assert_eq!(home.fails(2, &["wait"])["kind"], "usage");
    let person = ["--email", "a@example.com", "--name", "A", "--auth", "keyfile"];
    for backend in ["s3://bucket/prefix", "parsec3://host/Org", "nonsense://x"] {
        let error = home.fails(2, &[&["org", "create", "Org", "--backend", backend], &person[..]].concat());
        assert!(error["hint"].as_str().unwrap().contains("file:///"), "{error}");
    }
}

#[test]
fn help_version_completions_and_manual_need_no_home() {
    let home = CliHome::new();
    for arguments in [&["--help"][..], &["--version"], &["mount", "--help"], &["completions", "bash"], &["man"]] {
        let said = home.run(arguments);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(!said.stdout.is_empty());
    }
    assert!(!home.home().exists());
}

#[test]
fn a_wrong_password_is_11_and_the_right_one_opens() {
    let home = CliHome::new();
    let (right, wrong) = (home.path("right"), home.path("wrong"));
    fs::write(&right, "correct horse\n").unwrap();
    fs::write(&wrong, "battery staple\n").unwrap();
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let storage = storage_of(&home);
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
fn a_foreign_directory_is_refused_and_left_alone() {
    let home = CliHome::new();
    let dir = home.path("letters");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("letter"), "dear").unwrap();
    let person = ["--email", "a@example.com", "--name", "A", "--auth", "keyfile"];
    let create = [&["org", "create", "Org", "--backend", dir.to_str().unwrap()], &person[..]].concat();
    let error = home.fails(1, &create);
    assert_eq!(error["kind"], "exists");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(home.ok(&["device", "list"]), json!([]));
}

#[test]
fn a_second_organization_in_one_directory_is_refused() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    let other = CliHome::new();
    let storage = storage_of(&home);
    let create = ["org", "create", "Org", "--backend", &storage, "--email", "b@example.com", "--name", "B"];
    assert_eq!(other.fails(1, &[&create[..], &["--auth", "keyfile"]].concat())["kind"], "exists");
    assert_eq!(other.ok(&["device", "list"]), json!([]));
    home.ok(&["workspace", "list"]);
}

#[test]
fn a_storage_of_a_newer_version_is_said_to_be_one() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    let format = Path::new(&storage_of(&home)).join("format");
    let text = fs::read_to_string(&format).unwrap();
    fs::write(&format, text.replace("version 1", "version 2")).unwrap();
    let error = home.fails(1, &["org", "show"]);
    assert_eq!(error["kind"], "unsupported_version");
    assert!(error["hint"].as_str().unwrap().contains("newer version"), "{error}");
}

#[test]
fn a_storage_that_is_not_there_is_13() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    fs::rename(home.path("storage"), home.path("moved")).unwrap();
    home.kill_agent();
    assert_eq!(home.fails(13, &["workspace", "create", "Videos"])["kind"], "offline");
    // What is known stays true.
    home.ok(&["org", "show"]);
    fs::rename(home.path("moved"), home.path("storage")).unwrap();
    home.ok(&["workspace", "create", "Videos"]);
}

#[test]
fn a_mount_that_starts_without_its_storage_serves_what_is_here_and_syncs_later() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
    let file = Path::new(&dir).join("note.txt");
    fs::write(&file, "first").unwrap();
    home.ok(&["umount", &dir, "--flush"]);
    home.kill_agent();
    fs::rename(home.path("storage"), home.path("moved")).unwrap();
    home.ok(&["mount", "Photos", &dir]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "first");
    fs::write(&file, "second, without the storage").unwrap();
    assert_eq!(home.ok(&["status", &dir])["online"], false);
    fs::rename(home.path("moved"), home.path("storage")).unwrap();
    home.ok(&["sync", "Photos"]);
    assert_eq!(home.ok(&["wait", "Photos", "--synced", "--timeout", "60"])[0]["synced"], true);
    home.ok(&["umount", "--all"]);
}

#[test]
fn names_that_nobody_has_are_10() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    assert_eq!(home.fails(10, &["mount", "Taxes", &dir])["kind"], "not_found");
    assert_eq!(home.fails(10, &["--device", "nobody", "org", "show"])["kind"], "not_found");
    assert_eq!(home.fails(1, &["workspace", "create", "Photos"])["kind"], "exists");
}

#[test]
fn with_several_devices_each_is_told_apart_by_where_it_is_kept() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    let other = home.path("other");
    let create = ["org", "create", "Org", "--backend", other.to_str().unwrap(), "--auth", "keyfile"];
    home.ok(&[&create[..], &["--email", "a@example.com", "--name", "A", "--device-label", "laptop"]].concat());
    let error = home.fails(2, &["workspace", "list"]);
    assert_eq!(error["kind"], "ambiguous");
    let message = error["message"].as_str().unwrap();
    for device in home.ok(&["device", "list"]).as_array().unwrap() {
        let (id, backend) = (&device["device_id"].as_str().unwrap()[..8], device["backend"].as_str().unwrap());
        assert!(message.contains(id) && message.contains(backend), "{message}");
        home.ok(&["--device", id, "workspace", "list"]);
    }
}

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
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
    let file = Path::new(&dir).join("note.txt");
    fs::write(&file, "first").unwrap();
    let waited = home.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);
    assert_eq!(waited[0]["synced"], true);
    let status = home.ok(&["status", &dir]);
    let expected = json!({
        "workspace_id": "string", "workspace": "string", "mount": "string", "role": "string", "read_only": "bool",
        "online": "bool", "synced": "bool", "upload": {"items": "number", "bytes": "number"},
        "download": {"items": "number", "bytes": "number"}, "waiting": [], "corrupt": [],
        "cache_used": "number", "cache_limit": "number",
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
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
    let open = fs::File::create(Path::new(&dir).join("open")).unwrap();
    let error = home.fails(1, &["umount", &dir]);
    assert_eq!(error["kind"], "busy");
    assert!(error["message"].as_str().unwrap().contains(&std::process::id().to_string()), "{error}");
    drop(open);
    home.ok(&["umount", &dir]);
}

#[test]
fn unsynced_changes_keep_a_mount_from_ending_unless_forced() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
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
fn a_killed_agent_leaves_nothing_that_the_next_mount_does_not_clean() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
    home.kill_agent();
    assert!(fs::read_dir(&dir).is_err(), "the mount is dead");
    home.ok(&["mount", "Photos", &dir]);
    fs::write(Path::new(&dir).join("note"), "alive").unwrap();
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

#[test]
fn a_flipped_bit_fails_its_file_alone_and_the_doctor_names_it() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    let (at, mount) = (home.path("at"), home.path("mnt"));
    home.ok(&["quickstart", "--at", at.to_str().unwrap(), "--mount", mount.to_str().unwrap()]);
    let content: Vec<u8> = (0..400_000u32).map(|n| n.to_le_bytes()[0]).collect();
    fs::write(mount.join("hurt"), &content).unwrap();
    home.ok(&["wait", "--synced", "--timeout", "60"]);
    fs::write(mount.join("well"), "alive").unwrap();
    home.ok(&["umount", "--all", "--flush"]);
    home.ok(&["doctor"]);
    for (what, root) in [("here", home.home()), ("on the storage", at)] {
        let (path, sealed) = largest_file(&root);
        let mut damaged = sealed.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(&path, &damaged).unwrap();
        home.ok(&["quickstart"]);
        let read = fs::read(mount.join("hurt"));
        if what == "here" {
            assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EIO));
        } else {
            assert_eq!(read.unwrap(), content, "this device has its own copy");
        }
        assert_eq!(fs::read(mount.join("well")).unwrap(), b"alive");
        let said = home.run(&["doctor"]);
        assert_eq!(said.code, Some(18), "{said:?}");
        let lines: Vec<_> = said.json().as_array().unwrap().clone();
        let lines: Vec<_> = lines.iter().filter(|line| line["check"] == "integrity").collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0]["message"].as_str().unwrap().contains("hurt"), "{lines:?}");
        home.ok(&["umount", "--all", "--flush"]);
        fs::write(&path, &sealed).unwrap();
    }
}

#[test]
fn names_never_reach_the_log_however_much_it_tells() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    let (at, mount) = (home.path("at"), home.path("mnt"));
    home.ok(&["-v", "-v", "quickstart", "--at", at.to_str().unwrap(), "--mount", mount.to_str().unwrap()]);
    let secret = mount.join("SECRETNAME");
    fs::write(&secret, "SECRETCONTENT").unwrap();
    fs::hard_link(&secret, mount.join("SECRETLINK")).unwrap_err();
    fs::rename(&secret, mount.join("SECRETTOO")).unwrap();
    fs::read(&secret).unwrap_err();
    std::os::unix::fs::symlink("SECRETTARGET", mount.join("SECRETSYMLINK")).unwrap();
    home.ok(&["wait", "--synced", "--timeout", "60"]);
    home.ok(&["umount", "--all"]);
    let log = fs::read_to_string(home.home().join("data/agent.log")).unwrap();
    assert!(log.contains("mounted"), "it tells something");
    assert!(!log.contains("SECRET"), "{}", log.lines().find(|line| line.contains("SECRET")).unwrap());
    assert!(!log.contains("Not Implemented"), "every request has an answer of ours");
}

/// The largest file below a folder, with its content.
fn largest_file(root: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let mut folders = vec![root.to_owned()];
    let mut largest = (root.to_owned(), 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder lists") {
            let entry = entry.expect("a folder lists");
            let meta = entry.metadata().expect("a file has attributes");
            if meta.is_dir() {
                folders.push(entry.path());
            } else if meta.len() > largest.1 {
                largest = (entry.path(), meta.len());
            }
        }
    }
    let content = fs::read(&largest.0).expect("a file reads");
    (largest.0, content)
}

#[test]
fn a_recovery_file_makes_a_second_device_that_sees_the_same_files() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    home.ok(&["mount", "Photos", &dir]);
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

#[test]
fn the_agent_is_private_and_one_for_many_commands_at_once() {
    use std::os::unix::fs::MetadataExt;
    let home = CliHome::new();
    home.with_workspace("Photos");
    let asked: Vec<_> = (0..4)
        .map(|_| home.command(&["workspace", "list"]).stdout(std::process::Stdio::null()).spawn().unwrap())
        .collect();
    for mut command in asked {
        assert!(command.wait().unwrap().success());
    }
    let data = home.home().join("data");
    for name in ["agent.sock", "agent.log", "agent.lock"] {
        let mode = fs::symlink_metadata(data.join(name)).unwrap().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    let log = fs::read_to_string(data.join("agent.log")).unwrap();
    assert_eq!(log.matches("agent ended").count() + 1, log.matches("agent started").count(), "one at a time: {log}");
    assert!(!log.contains("Photos") && !log.contains("alice"), "no names in the log: {log}");
}
