//! The agent behind the command line: one for all commands, private, silent about names, and gone without a trace.

use std::{fs, path::Path};

use parsecfs_tests::cli::{CliHome, can_mount};

#[test]
fn a_killed_agent_leaves_nothing_that_the_next_mount_does_not_clean() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    home.kill_agent();
    assert!(fs::read_dir(&dir).is_err(), "the mount is dead");
    home.ok(&["mount", "Photos", &dir]);
    fs::write(Path::new(&dir).join("note"), "alive").unwrap();
    home.ok(&["umount", &dir, "--flush"]);
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
    fs::hard_link(&secret, mount.join("SECRETLINK")).unwrap();
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
