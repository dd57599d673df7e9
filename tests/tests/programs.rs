//! Real programs on a mounted workspace, each with its own check: `tests/programs.sh` says what they do. The light ones run
//! always, one test each; `PARSECFS_PROGRAMS=heavy` runs the others too, which need the network, root or minutes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command};

use parsecfs_tests::cli::{can_mount, program};

fn script() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/programs.sh").to_owned()
}

fn run(name: &str) {
    if !can_mount() {
        return;
    }
    let output = Command::new("bash")
        .args([&script(), name])
        .env("PARSECFS_MOUNTCTL", program())
        .env_remove("MOUNTCTL_HOME")
        .env_remove("MOUNTCTL_DEVICE")
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{out}");
    assert!(output.status.success(), "{out}\n{err}");
}

macro_rules! programs {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        const LIGHT: &[&str] = &[$(stringify!($name)),*];
    };
}

programs! {
    git git_worktree git_bisect sqlite_concurrent sqlite_crash vim nano rsync tar unzip ripgrep seeks reflink newer make
}

#[test]
fn every_light_program_is_a_test() {
    let text = std::fs::read_to_string(Path::new(&script())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("LIGHT=(")?.strip_suffix(')')).unwrap();
    assert_eq!(line.split(' ').collect::<Vec<_>>(), LIGHT);
}

#[test]
fn heavy_programs_work_in_a_long_run() {
    if std::env::var_os("PARSECFS_PROGRAMS").is_some_and(|which| which == "heavy") {
        run("heavy");
    }
}
