//! The published server package (`parsec-cloud` on PyPI) in a virtual environment of its own, made once per machine.
//!
//! It needs Python 3.12: `PARSECFS_PYTHON312`, `python3.12` on the path, or one of pyenv. Without it a test says SKIP,
//! and CI fails.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// The version that the protocol was checked against.
pub const VERSION: &str = "3.9.3";

/// The folder of the environment's programs (`python3`, `parsec`); `None` where there is no Python 3.12.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    let Some(python) = python() else {
        assert!(std::env::var_os("CI").is_none(), "Python 3.12 is missing in CI");
        eprintln!("SKIP: the server package needs Python 3.12");
        return None;
    };
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"), PathBuf::from);
    let cache = cache.join("parsecfs-tests");
    fs::create_dir_all(&cache).expect("a cache can be made");
    // Tests run at the same time, and only one of them makes it.
    let lock = File::create(cache.join("lock")).expect("a lock can be made");
    lock.lock().expect("a file can be locked");
    let folder = cache.join(format!("parsec-cloud-{VERSION}"));
    if !folder.join("complete").exists() {
        // What an interrupted run left.
        let _ = fs::remove_dir_all(&folder);
        make(&python, &folder);
        File::create(folder.join("complete")).expect("the environment can be marked");
    }
    Some(folder.join("bin"))
}

fn make(python: &Path, folder: &Path) {
    let package = format!("parsec-cloud=={VERSION}");
    run(Command::new(python).args(["-m", "venv"]).arg(folder));
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", &package]));
}

fn run(command: &mut Command) {
    let output = command.output().expect("a program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn python() -> Option<PathBuf> {
    let named = std::env::var_os("PARSECFS_PYTHON312").map(PathBuf::from);
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv")));
    let versions = root.and_then(|root| fs::read_dir(root.join("versions")).ok()).into_iter().flatten().flatten();
    let of_pyenv = versions
        .filter(|version| version.file_name().to_string_lossy().starts_with("3.12"))
        .map(|version| version.path().join("bin/python"));
    named.into_iter().chain([PathBuf::from("python3.12")]).chain(of_pyenv).find(|python| {
        let version =
            Command::new(python).args(["-c", "import sys, venv, ensurepip; print(sys.version_info[:2])"]).output();
        version.is_ok_and(|output| output.stdout.starts_with(b"(3, 12)"))
    })
}
