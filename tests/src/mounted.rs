//! A folder on a mounted workspace for programs to work in, unmounted and gone when dropped.
//!
//! `PARSECFS_APPS_DIR` names any other folder instead, so that what a test asks can be tried on a filesystem that is known
//! to be right; a remount is then nothing.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::cli::{can_mount, program};

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
