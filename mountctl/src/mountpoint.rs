//! Directories as mount points: may one mount there, what is mounted there now, who uses it.
//!
//! What is mounted is read from `/proc/self/mountinfo` before a path is touched, because touching a dead mount fails
//! and touching one whose agent hangs may never return.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    exit::Kind,
    failure::{Failure, Result},
};

/// What the mount table shows as mounted, for our mounts.
pub const SOURCE: &str = "parsecfs";

/// "Transport endpoint is not connected": the process behind a FUSE mount is gone.
const ENOTCONN: i32 = 107;

/// One line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Where.
    pub dir: PathBuf,
    /// What kind.
    pub fstype: String,
    /// Of what.
    pub source: String,
}

impl MountEntry {
    /// Whether it is a mount of this program. The type is `fuse` when root mounts and `fuse.parsecfs` by fusermount3.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.source == SOURCE && (self.fstype == "fuse" || self.fstype == "fuse.parsecfs")
    }
}

/// Everything that is mounted in this mount namespace, oldest first.
pub fn mounted() -> Result<Vec<MountEntry>> {
    let table = fs::read("/proc/self/mountinfo").map_err(|error| Failure::io("cannot read the mount table", &error))?;
    Ok(parse(&table))
}

/// What is mounted on exactly this directory, the uppermost.
pub fn mounted_on(dir: &Path) -> Result<Option<MountEntry>> {
    Ok(mounted()?.into_iter().rev().find(|entry| entry.dir == dir))
}

/// What a mount table says. Lines that are none are left out.
#[must_use]
pub fn parse(table: &[u8]) -> Vec<MountEntry> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `id parent major:minor root DIR options [tags] - TYPE SOURCE superoptions`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    Some(MountEntry {
        dir: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        fstype: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        source: String::from_utf8_lossy(&unescape(fields.get(dash + 2)?)).into_owned(),
    })
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

/// The path without symbolic links and dots, without looking into the directory itself, which may be a dead mount.
pub fn resolve(dir: &Path) -> Result<PathBuf> {
    let shown = dir.display();
    let whole = std::path::absolute(dir).map_err(|error| Failure::io(format_args!("cannot use {shown}"), &error))?;
    match fs::canonicalize(&whole) {
        Ok(path) => return Ok(path),
        Err(error) if error.raw_os_error() == Some(ENOTCONN) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Failure::io(format_args!("cannot use {shown}"), &error)),
    }
    match (whole.parent(), whole.file_name()) {
        (Some(parent), Some(name)) => match fs::canonicalize(parent) {
            Ok(parent) => Ok(parent.join(name)),
            Err(_) => Ok(whole.clone()),
        },
        _ => Ok(whole),
    }
}

/// Whether the process behind this mount is gone. Asks what no cache answers: attributes the kernel would make up for a
/// while. One that is just going leaves the question unanswered until it has gone, which then is the answer.
#[must_use]
pub fn is_dead(dir: &Path) -> bool {
    use rustix::io::Errno;
    matches!(rustix::fs::statfs(dir), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Says clearly why one cannot mount on `dir`, which is resolved.
pub fn check(dir: &Path) -> Result<()> {
    let shown = dir.display();
    if let Some(entry) = mounted_on(dir)? {
        return Err(occupied(dir, &entry));
    }
    let meta = fs::metadata(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Kind::MountPoint, format!("the mount point {shown} does not exist"))
            .hint(format!("make it first: mkdir -p {shown}")),
        _ => Failure { kind: Kind::MountPoint, ..Failure::io(format_args!("cannot look at {shown}"), &error) },
    })?;
    if !meta.is_dir() {
        return Err(Failure::new(Kind::MountPoint, format!("the mount point {shown} is not a directory"))
            .hint("choose an empty directory"));
    }
    let mut entries = fs::read_dir(dir).map_err(|error| Failure {
        kind: Kind::MountPoint,
        ..Failure::io(format_args!("cannot look into {shown}"), &error)
    })?;
    if entries.next().is_some() {
        return Err(Failure::new(Kind::MountPoint, format!("the mount point {shown} is not empty"))
            .hint("choose an empty directory; what is in this one would be hidden"));
    }
    check_permission(dir)
}

fn occupied(dir: &Path, entry: &MountEntry) -> Failure {
    let shown = dir.display();
    if !entry.is_ours() {
        return Failure::new(Kind::MountPoint, format!("something else ({}) is mounted on {shown}", entry.fstype))
            .hint("choose an empty directory");
    }
    if is_dead(dir) {
        return Failure::new(Kind::MountPoint, format!("a dead mount is in the way on {shown}"))
            .hint(format!("it belongs to another home or user; remove it there, or with: fusermount3 -uz {shown}"));
    }
    Failure::new(Kind::AlreadyMounted, format!("a workspace is mounted on {shown} already"))
        .hint(format!("`mountctl umount {shown}` ends it"))
}

/// fusermount3 mounts for an ordinary user only where that user may write.
fn check_permission(dir: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).map_err(|error| {
        Failure::new(Kind::MountPoint, format!("you may not write to the mount point {}: {error}", dir.display()))
            .hint("choose a directory of your own")
    })
}

/// Says clearly why this machine cannot mount at all.
pub fn check_machine() -> Result<()> {
    check_device()?;
    if !rustix::process::geteuid().is_root() && fusermount().is_none() {
        return Err(Failure::new(Kind::NoFuse, "fusermount3 is not installed, and only root can mount without it")
            .hint("install it: apt-get install fuse3"));
    }
    Ok(())
}

/// Says clearly why the kernel's side of a mount cannot be reached.
pub fn check_device() -> Result<()> {
    open_device(Path::new("/dev/fuse"))
}

fn open_device(device: &Path) -> Result<()> {
    let shown = device.display();
    match fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Failure::new(Kind::NoFuse, format!("you may not open {shown}"))
                .hint("ask for access to it; in a container, it must be passed in: --device /dev/fuse"))
        }
        Err(error) => Err(Failure::new(Kind::NoFuse, format!("{shown} cannot be opened: {error}"))
            .hint("load the kernel module: modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN")),
    }
}

/// Where fusermount3 is, if it is installed.
#[must_use]
pub fn fusermount() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|file| file.is_file())
}

/// Unmounts. `lazy`: at once from the tree, and for good when nobody uses it any more; also works on dead mounts.
/// `ResourceBusy` when somebody uses it.
pub fn unmount(dir: &Path, lazy: bool) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let flags = if lazy { rustix::mount::UnmountFlags::DETACH } else { rustix::mount::UnmountFlags::empty() };
        return Ok(rustix::mount::unmount(dir, flags)?);
    }
    let mut command = Command::new("fusermount3");
    command.env("LC_ALL", "C");
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(dir);
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        // It has one exit code for everything; the words are those of strerror in the C locale.
        false if output.stderr.windows(4).any(|word| word == b"busy") => Err(io::ErrorKind::ResourceBusy.into()),
        false => Err(io::Error::other("fusermount3 could not unmount")),
    }
}

/// A process that uses something below a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub command: String,
}

/// Who keeps `dir` busy, as far as this user may see: working directories, roots, programs, open files, mapped files.
#[must_use]
pub fn users(dir: &Path) -> Vec<User> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut users: Vec<_> = processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|pid| uses(*pid, dir))
        .map(|pid| User { pid, command: command_of(pid) })
        .collect();
    users.sort_by_key(|user| user.pid);
    users
}

fn command_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

fn uses(pid: u32, dir: &Path) -> bool {
    let base = PathBuf::from(format!("/proc/{pid}"));
    let inside = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(dir));
    if ["cwd", "root", "exe"].into_iter().any(|link| inside(base.join(link))) {
        return true;
    }
    let files = fs::read_dir(base.join("fd"));
    files.is_ok_and(|files| files.flatten().any(|file| inside(file.path()))) || maps(&base, dir)
}

fn maps(process: &Path, dir: &Path) -> bool {
    let Ok(maps) = fs::read(process.join("maps")) else { return false };
    let needle = dir.as_os_str().as_bytes();
    maps.split(|&byte| byte == b'\n').any(|line| {
        let path = line.iter().position(|&byte| byte == b'/').map_or(&line[..0], |start| &line[start..]);
        path.strip_prefix(needle).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    })
}

/// The failure of an unmount that found the mount in use.
#[must_use]
pub fn busy(dir: &Path) -> Failure {
    let shown = dir.display();
    let names: Vec<_> = users(dir).iter().map(|user| format!("{} ({})", user.command, user.pid)).collect();
    let by = if names.is_empty() { "a process that you may not see".to_owned() } else { names.join(", ") };
    Failure::new(Kind::Busy, format!("{shown} is in use by {by}"))
        .hint("end these first, or use --force: the mount goes away and ends for good when they let go of it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_with_blanks_and_optional_fields() {
        let table = b"22 1 0:21 / /proc rw shared:5 master:1 - proc proc rw\n\
            30 1 0:50 / /mnt/a\\040b\\134c rw - fuse.parsecfs parsecfs rw,user_id=0\nbroken\n";
        let entries = parse(table);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].dir, Path::new("/mnt/a b\\c"));
        assert!(entries[1].is_ours() && !entries[0].is_ours());
    }

    #[test]
    fn each_unusable_mount_point_has_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        check(&path).unwrap();
        let missing = check(&path.join("missing")).unwrap_err();
        assert!(missing.message.contains("does not exist") && missing.hint.unwrap().contains("mkdir"));
        fs::write(path.join("file"), "").unwrap();
        assert!(check(&path.join("file")).unwrap_err().message.contains("not a directory"));
        let full = check(&path).unwrap_err();
        assert!(full.message.contains("not empty"));
        assert_eq!(full.kind, Kind::MountPoint);
        let other = check(Path::new("/proc")).unwrap_err();
        assert!(other.message.contains("something else (proc)"), "{}", other.message);
    }

    #[test]
    fn a_missing_fuse_device_is_named() {
        let failure = open_device(Path::new("/nowhere/fuse")).unwrap_err();
        assert_eq!((failure.kind, failure.kind.code()), (Kind::NoFuse, 15));
    }

    #[test]
    fn users_of_a_directory_are_found_by_open_file_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        assert!(users(&path).is_empty());
        let _file = fs::File::create(path.join("open")).unwrap();
        assert!(users(&path).iter().any(|user| user.pid == std::process::id()));
        assert!(users(&path.join("op")).is_empty(), "a longer name is not inside");
    }

    #[test]
    fn resolving_keeps_a_last_part_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&path, path.join("link")).unwrap();
        assert_eq!(resolve(&path.join("link/new")).unwrap(), path.join("new"));
    }
}
