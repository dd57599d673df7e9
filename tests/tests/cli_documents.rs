//! What scripts read of the command line (CLI.md of the project): documents, words and codes of mistakes. The real
//! program, each test in homes of its own.

use parsecfs_tests::cli::{CliHome, shape};
use serde_json::json;

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
    let workspace =
        json!({"workspace_id": "string", "name": "string", "role": "string", "archived": "bool", "mount": "null"});
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
    for backend in ["s3://bucket/prefix", "parsec3://host/Other", "nonsense://x"] {
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
