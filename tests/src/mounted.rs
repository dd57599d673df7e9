//! A folder on a mounted workspace for programs to work in, unmounted and gone when dropped.
//!
//! `PARSECFS_APPS_DIR` names any other folder instead, so that what a test asks can be tried on a filesystem that is known
//! to be right; a remount is then nothing.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

/// A workspace of its own, mounted; or a folder of `PARSECFS_APPS_DIR`.
pub struct Mounted {
    /// Holds the home, the store and the mount point; or is the folder itself.
    dir: TempDir,
    workspace: bool,
}

/// A fresh folder to work in, or `None` (after saying SKIP) where this machine cannot mount.
#[must_use]
pub fn mounted() -> Option<Mounted> {
    if let Some(other) = std::env::var_os("PARSECFS_APPS_DIR") {
        let dir = TempDir::new_in(other).expect("PARSECFS_APPS_DIR is a folder");
        return Some(Mounted { dir, workspace: false });
    }
    if !can_mount() {
        return None;
    }
    let mounted = Mounted { dir: TempDir::new().expect("a temporary directory"), workspace: true };
    std::fs::create_dir(mounted.dir.path().join("mnt")).expect("the mount point");
    mounted.mount();
    Some(mounted)
}

impl Mounted {
    /// The folder to work in.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        if self.workspace { self.dir.path().join("mnt") } else { self.dir.path().to_path_buf() }
    }

    /// Unmounts and mounts again: what is seen afterwards comes from the store.
    pub fn remount(&self) {
        if self.workspace {
            let said = self.mountctl(&["umount", "--all", "--flush"]);
            assert!(said.status.success(), "umount: {}", String::from_utf8_lossy(&said.stderr));
            self.mount();
        }
    }

    fn mount(&self) {
        let (store, mount) = (self.dir.path().join("store"), self.path());
        let arguments = [Path::new("quickstart"), Path::new("--at"), &store, Path::new("--mount"), &mount];
        let said = self.command().args(arguments).output().expect("mountctl runs");
        assert!(said.status.success(), "quickstart: {}", String::from_utf8_lossy(&said.stderr));
    }

    fn mountctl(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().expect("mountctl runs")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.arg("--home").arg(self.dir.path().join("home")).stdin(Stdio::null());
        command.env_remove("MOUNTCTL_HOME").env_remove("MOUNTCTL_DEVICE").env_remove("DBUS_SESSION_BUS_ADDRESS");
        command
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.workspace {
            // A failed test may have left it busy; the temporary directory then stays, which is what one wants to look at.
            let _ = self.mountctl(&["umount", "--all", "--force"]);
        }
    }
}

/// Whether this machine can mount; CI must.
fn can_mount() -> bool {
    let can = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok();
    assert!(can || std::env::var_os("CI").is_none(), "/dev/fuse is missing in CI");
    if !can {
        eprintln!("SKIP: /dev/fuse cannot be opened here");
    }
    can
}

/// The program under test: `PARSECFS_MOUNTCTL`, or the one of this build, brought up to date.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| std::env::var_os("PARSECFS_MOUNTCTL").map_or_else(built, PathBuf::from))
}

fn built() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its program");
    let profile = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "mountctl", "--bin", "mountctl"]);
    if profile.file_name().is_some_and(|name| name == "release") {
        build.arg("--release");
    }
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    build.env("CARGO_TARGET_DIR", profile.parent().expect("a profile is in the target folder"));
    assert!(build.status().expect("cargo runs").success(), "mountctl builds");
    profile.join("mountctl")
}
