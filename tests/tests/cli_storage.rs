//! The storage directory on the command line: which one is refused, and what still works while it is away.

use std::{fs, path::Path};

use parsecfs_tests::cli::{CliHome, can_mount};
use serde_json::json;

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
    let storage = home.storage();
    let create = ["org", "create", "Org", "--backend", &storage, "--email", "b@example.com", "--name", "B"];
    assert_eq!(other.fails(1, &[&create[..], &["--auth", "keyfile"]].concat())["kind"], "exists");
    assert_eq!(other.ok(&["device", "list"]), json!([]));
    home.ok(&["workspace", "list"]);
}

#[test]
fn a_storage_of_a_newer_version_is_said_to_be_one() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    let format = Path::new(&home.storage()).join("format");
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
    let Some((home, dir)) = CliHome::mounted() else { return };
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
