//! `mountctl audit`: what signed documents tell, through the real program.

use std::{fs, path::Path};

use parsecfs_tests::cli::CliHome;
use serde_json::{Value, json};

fn events(audit: &Value) -> Vec<&str> {
    let events = audit["events"].as_array().expect("a list");
    events.iter().map(|event| event["event"].as_str().expect("a word")).collect()
}

fn by(entry: &Value) -> (&str, &str) {
    (entry["by"]["user"].as_str().expect("known"), entry["by"]["device"].as_str().expect("known"))
}

#[test]
fn what_was_given_to_whom_is_told_in_the_order_of_time_by_who_signed_it() {
    let home = CliHome::new();
    let workspace = home.with_workspace("Photos");
    let _second = home.second_device("desk");
    let audit = home.ok(&["audit"]);
    assert_eq!(
        events(&audit),
        [
            "user_created",
            "device_created",
            "role_given",
            "key_rotated",
            "workspace_named",
            "device_created",
            "device_created"
        ]
    );
    assert_eq!(audit["pending"], json!([]));
    assert_eq!(audit["entries"], json!([]), "entries belong to one workspace");
    let events = &audit["events"];
    assert_eq!(events[0]["by"], Value::Null, "the first user is signed by the root key");
    assert_eq!((&events[0]["user"], &events[0]["profile"]), (&json!("alice@example.com"), &json!("admin")));
    assert_eq!(by(&events[2]), ("alice@example.com", "laptop"));
    assert_eq!((&events[2]["workspace"], &events[2]["role"]), (&json!("Photos"), &json!("owner")));
    assert_eq!(events[2]["workspace_id"], json!(workspace));
    assert_eq!(events[3]["key_index"], json!(1));
    assert_eq!(events[4]["name"], json!("Photos"));
    assert_eq!(events[6]["device"]["device"], json!("desk"));
    let times: Vec<_> = events.as_array().unwrap().iter().map(|event| event["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn of_a_workspace_it_tells_which_device_changed_each_entry_last_also_without_the_storage() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    fs::write(Path::new(&dir).join("first"), "laptop").unwrap();
    fs::write(Path::new(&dir).join("second"), "laptop").unwrap();
    home.ok(&["wait", "--synced", "--timeout", "60"]);
    let second = home.second_device("desk");
    let other = second.mount_point("mnt");
    second.ok(&["mount", "Photos", &other]);
    second.ok(&["sync", "Photos"]);
    fs::write(Path::new(&other).join("second"), "desk").unwrap();
    second.ok(&["sync", "Photos"]);
    home.ok(&["sync", "Photos"]);

    let told = |audit: &Value| -> Vec<(String, String, u64)> {
        let entries = audit["entries"].as_array().unwrap().iter();
        entries
            .map(|entry| {
                (entry["path"].as_str().unwrap().into(), by(entry).1.into(), entry["version"].as_u64().unwrap())
            })
            .collect()
    };
    let audit = home.ok(&["audit", "Photos"]);
    let entries = told(&audit);
    let device = |path: &str| entries.iter().find(|entry| entry.0 == path).map(|entry| entry.1.as_str());
    assert_eq!((device("/first"), device("/second"), device("/")), (Some("laptop"), Some("desk"), Some("laptop")));
    assert!(audit["events"].as_array().unwrap().iter().all(|event| event["workspace"] == "Photos"), "{audit}");

    fs::rename(home.path("storage"), home.path("elsewhere")).unwrap();
    assert_eq!(told(&home.ok(&["audit", "Photos"])), entries, "it is all here");
    home.ok(&["umount", &dir, "--force"]);
    assert_eq!(told(&home.ok(&["audit", "Photos"])), entries, "and needs no mount");
    fs::rename(home.path("elsewhere"), home.path("storage")).unwrap();
}
