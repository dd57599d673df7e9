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

/// Runs a shell script in a folder; it must succeed. What it printed.
#[track_caller]
pub fn sh(folder: &Path, script: &str, arguments: &[&Path]) -> String {
    let Output { status, stdout, stderr } = Command::new("sh")
        .args(["-euc", script, "sh"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("a shell runs");
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{script}\n{out}\n{err}");
    out.into_owned()
}

/// A workspace of its own, mounted; or a folder of `PARSECFS_APPS_DIR`.
pub struct Mounted {
    /// Holds the home, the store and the mount point; or is the folder itself.
    dir: TempDir,
    workspace: bool,
    /// Options of the mount, as `-o` takes them; empty: none.
    options: &'static str,
}

/// A fresh folder to work in, or `None` (after saying SKIP) where this machine cannot mount.
#[must_use]
pub fn mounted() -> Option<Mounted> {
    mounted_with("")
}

/// [`mounted`] where users other than root pass through and permission bits count for them; SKIP for who is not root, and
/// so cannot act as somebody else.
#[must_use]
pub fn mounted_for_all() -> Option<Mounted> {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIP: acting as another user takes root");
        return None;
    }
    let mounted = mounted_with("allow_other")?;
    let passable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(mounted.dir.path(), passable).expect("the folder is ours");
    Some(mounted)
}

/// [`mounted`] with mount options, as `-o` takes them.
#[must_use]
pub fn mounted_with(options: &'static str) -> Option<Mounted> {
    if let Some(other) = std::env::var_os("PARSECFS_APPS_DIR") {
        let dir = TempDir::new_in(other).expect("PARSECFS_APPS_DIR is a folder");
        return Some(Mounted { dir, workspace: false, options });
    }
    if !can_mount() {
        return None;
    }
    let mounted = Mounted { dir: TempDir::new().expect("a temporary directory"), workspace: true, options };
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

    /// [`Mounted::remount`] with other options from now on.
    pub fn remount_with(&mut self, options: &'static str) {
        self.options = options;
        self.remount();
    }

    fn mount(&self) {
        let (store, mount) = (self.dir.path().join("store"), self.path());
        let arguments = [Path::new("quickstart"), Path::new("--at"), &store, Path::new("--mount"), &mount];
        let said = self.command().args(arguments).output().expect("mountctl runs");
        assert!(said.status.success(), "quickstart: {}", String::from_utf8_lossy(&said.stderr));
        if !self.options.is_empty() {
            let mount = mount.to_str().expect("temporary paths are UTF-8");
            for arguments in [&["umount", "--all"][..], &["mount", "quickstart", mount, "-o", self.options]] {
                let said = self.mountctl(arguments);
                assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
            }
        }
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
