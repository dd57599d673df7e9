//! The seven verbs over a local directory.
//!
//! Create is `tmp/<random>` → write → fsync → `link` → fsync of the directory: a reader never sees half an object,
//! and of several writers of one name exactly one wins, also between processes. Whatever `link` answers, the link
//! count of our temporary file decides, because network file systems may lose the answer. Without hard links,
//! `renameat2(RENAME_NOREPLACE)` does the same; a file system with neither is refused.
//!
//! Not for folders that a tool synchronizes between machines: nothing excludes two machines there.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{FutureExt, future::BoxFuture};
use parsecfs_core::storage::{Bytes, Error, ErrorKind, Result};
use rustix::{fs::RenameFlags, io::Errno};

use super::verbs::{Created, Creation, Got, Listed, StoreTime, Verbs};

/// A temporary file of a writer that died is swept after this.
const STALE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// From this many files on, one `syncfs` costs less than a `fsync` for each.
const SYNCFS_FROM: usize = 8;
/// What synchronizing tools leave in their folders.
const SYNC_MARKS: [&str; 4] = [".stfolder", ".stversions", ".owncloudsync.log", ".nextcloudsync.log"];
/// Folder of temporary files.
const TMP: &str = "tmp";

/// A directory as an object store.
pub struct DirectoryVerbs {
    root: Arc<PathBuf>,
}

impl DirectoryVerbs {
    /// Opens an existing directory and sweeps what dead writers left.
    ///
    /// # Errors
    /// `Offline` when the directory is not there, `Denied` when a tool synchronizes it or it cannot be read.
    pub fn open(root: &Path) -> Result<Self> {
        let root = root.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::new(ErrorKind::Offline, "the storage directory is not there").caused_by(error)
            }
            _ => failed("open the storage directory", error),
        })?;
        refuse_synchronized(&root)?;
        sweep(&root.join(TMP));
        Ok(Self { root: Arc::new(root) })
    }

    /// Makes the directory when it is missing, then opens it.
    ///
    /// # Errors
    /// As [`DirectoryVerbs::open`], and `Denied` when the place cannot be written.
    pub fn create(root: &Path) -> Result<Self> {
        fs::create_dir_all(root.join(TMP)).map_err(|error| failed("make the storage directory", error))?;
        Self::open(root)
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Path) -> Result<T> + Send + 'static) -> Result<T> {
        let root = Arc::clone(&self.root);
        let done = tokio::task::spawn_blocking(move || work(&root)).await;
        done.unwrap_or_else(|error| Err(Error::new(ErrorKind::Internal, "a file operation panicked").caused_by(error)))
    }
}

fn failed(what: &str, error: io::Error) -> Error {
    let (kind, why) = match Errno::from_io_error(&error) {
        Some(Errno::NOSPC | Errno::DQUOT) => (ErrorKind::Full, "the storage is full"),
        Some(Errno::ROFS) => (ErrorKind::Denied, "the storage is read-only"),
        Some(Errno::ACCESS | Errno::PERM) => (ErrorKind::Denied, "the storage directory does not allow it"),
        Some(Errno::STALE | Errno::NODEV | Errno::HOSTDOWN | Errno::NOTCONN) => {
            (ErrorKind::Offline, "the storage cannot be reached")
        }
        _ => (ErrorKind::OutcomeUnknown, "the storage failed"),
    };
    Error::new(kind, format!("{what}: {why}")).caused_by(error)
}

fn refuse_synchronized(root: &Path) -> Result<()> {
    for folder in root.ancestors() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        if entries.flatten().any(|entry| marks_synchronization(&entry.file_name())) {
            return Err(Error::new(
                ErrorKind::Denied,
                "the storage directory is in a folder that a tool synchronizes; two machines could overwrite each other there",
            ));
        }
    }
    Ok(())
}

fn marks_synchronization(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    // `.dropbox` alone is the program's own folder in a home directory, not a synchronized one.
    SYNC_MARKS.contains(&&*name) || name == ".dropbox.cache" || (name.starts_with(".sync_") && name.ends_with(".db"))
}

fn sweep(tmp: &Path) {
    let Ok(entries) = fs::read_dir(tmp) else { return };
    for entry in entries.flatten() {
        let age = entry
            .metadata()
            .and_then(|data| data.modified())
            .ok()
            .and_then(|time| now_system().duration_since(time).ok());
        if age.is_some_and(|age| age > STALE_AFTER) {
            // A sweep that fails is repeated at the next open.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The store's time is that of the machine: all its users share it.
fn now_system() -> SystemTime {
    SystemTime::now()
}

fn store_time(time: SystemTime) -> StoreTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    StoreTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A written, not yet published object; removed when dropped.
struct Staged {
    tmp: PathBuf,
    file: File,
}

impl Staged {
    fn write(root: &Path, bytes: &[u8]) -> Result<Self> {
        let tmp = root.join(TMP).join(random_name());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let opened = options.open(&tmp).or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            // The folder of temporary files may be missing in a copy; the store's own root may not.
            fs::create_dir(root.join(TMP))?;
            options.open(&tmp)
        });
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::new(ErrorKind::Offline, "the storage directory is gone").caused_by(error),
            _ => failed("write an object", error),
        })?;
        let mut staged = Self { tmp, file };
        staged.file.write_all(bytes).map_err(|error| failed("write an object", error))?;
        Ok(staged)
    }

    fn publish(&self, place: &Path) -> Result<Created> {
        let linked = fs::hard_link(&self.tmp, place);
        let links = self.file.metadata().map_err(|error| failed("look at an object", error))?.nlink();
        match linked {
            _ if links == 2 => Ok(Created::Won),
            Ok(()) => Err(Error::new(ErrorKind::OutcomeUnknown, "the link count of an object is wrong")),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Created::Exists),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => self.publish_by_rename(place),
                _ => Err(failed("publish an object", error)),
            },
        }
    }

    fn publish_by_rename(&self, place: &Path) -> Result<Created> {
        let here = rustix::fs::CWD;
        match rustix::fs::renameat_with(here, &self.tmp, here, place, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Created::Won),
            Err(Errno::EXIST) => Ok(Created::Exists),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Err(Error::new(
                ErrorKind::Denied,
                "this file system can neither link nor rename without replacing, so writers could overwrite each other",
            )),
            Err(error) => Err(failed("publish an object", error.into())),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already after a rename; otherwise the sweep takes what stays.
        let _ = fs::remove_file(&self.tmp);
    }
}

fn random_name() -> String {
    data_encoding::HEXLOWER.encode(&crate::objects::random::<16>())
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed("sync a folder", error))
}

/// Makes the missing folders down to `folder`, each on stable storage.
fn make_folders(root: &Path, folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if folder == root {
        return Err(Error::new(ErrorKind::Offline, "the storage directory is gone"));
    }
    let parent = folder.parent().expect("a folder below the root has a parent");
    make_folders(root, parent)?;
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("make a folder", error)),
    }
}

fn sync_files(root: &Path, staged: &[Staged]) -> Result<()> {
    if staged.len() >= SYNCFS_FROM {
        let folder = File::open(root).map_err(|error| failed("sync objects", error))?;
        return rustix::fs::syncfs(&folder).map_err(|error| failed("sync objects", error.into()));
    }
    for object in staged {
        object.file.sync_all().map_err(|error| failed("sync an object", error))?;
    }
    Ok(())
}

fn create(root: &Path, objects: &[(String, Bytes)]) -> Result<Creation> {
    let staged = objects.iter().map(|(_, bytes)| Staged::write(root, bytes)).collect::<Result<Vec<_>>>()?;
    sync_files(root, &staged)?;
    let mut folders = BTreeSet::new();
    let mut outcomes = Vec::with_capacity(objects.len());
    for ((key, _), object) in objects.iter().zip(&staged) {
        let place = root.join(key);
        let folder = place.parent().expect("a key lies below the root").to_owned();
        make_folders(root, &folder)?;
        outcomes.push(object.publish(&place)?);
        folders.insert(folder);
    }
    for folder in &folders {
        sync_folder(folder)?;
    }
    Ok(Creation { outcomes, at: store_time(now_system()) })
}

fn put_hint(root: &Path, key: &str, bytes: &[u8]) -> Result<()> {
    let staged = Staged::write(root, bytes)?;
    let place = root.join(key);
    make_folders(root, place.parent().expect("a key lies below the root"))?;
    fs::rename(&staged.tmp, &place).map_err(|error| failed("write a hint", error))
}

/// `None` when the object is not there, an error when the whole store is not.
fn open_object(root: &Path, key: &str) -> Result<Option<File>> {
    match File::open(root.join(key)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if root.join(TMP).is_dir() || root.join("format").exists() {
                Ok(None)
            } else {
                Err(Error::new(ErrorKind::Offline, "the storage directory is gone").caused_by(error))
            }
        }
        Err(error) => Err(read_failed(error)),
    }
}

fn read_failed(error: io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(Errno::IO) => Error::new(ErrorKind::Corrupt, "the medium cannot read an object").caused_by(error),
        _ => failed("read an object", error),
    }
}

fn get(root: &Path, key: &str) -> Result<Got> {
    // The time is taken before the look: a 404 is then never newer than it says.
    let at = store_time(now_system());
    let Some(mut file) = open_object(root, key)? else { return Ok(Got { bytes: None, at }) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(read_failed)?;
    Ok(Got { bytes: Some(bytes.into()), at })
}

fn get_range(root: &Path, key: &str, offset: u64, bytes: u64) -> Result<Option<Bytes>> {
    let Some(mut file) = open_object(root, key)? else { return Ok(None) };
    file.seek(SeekFrom::Start(offset)).map_err(read_failed)?;
    let mut part = Vec::new();
    file.take(bytes).read_to_end(&mut part).map_err(read_failed)?;
    Ok(Some(part.into()))
}

fn delete(root: &Path, key: &str) -> Result<()> {
    match fs::remove_file(root.join(key)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete an object", error)),
        _ => Ok(()),
    }
}

fn list(root: &Path, prefix: &str, after: &str, found: &mut Vec<Listed>) -> Result<()> {
    let entries = match fs::read_dir(root.join(prefix)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("list a folder", error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| failed("list a folder", error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let key = format!("{prefix}{name}");
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            list(root, &format!("{key}/"), after, found)?;
        } else if key.as_str() > after {
            let modified = store_time(metadata.modified().unwrap_or(UNIX_EPOCH));
            found.push(Listed { key, modified });
        }
    }
    Ok(())
}

impl Verbs for DirectoryVerbs {
    fn create<'a>(&'a self, objects: &'a [(String, Bytes)]) -> BoxFuture<'a, Result<Creation>> {
        let objects = objects.to_vec();
        self.blocking(move |root| create(root, &objects)).boxed()
    }

    fn put_hint<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        let key = key.to_owned();
        self.blocking(move |root| put_hint(root, &key, &bytes)).boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>> {
        let key = key.to_owned();
        self.blocking(move |root| get(root, &key)).boxed()
    }

    fn get_range<'a>(&'a self, key: &'a str, offset: u64, bytes: u64) -> BoxFuture<'a, Result<Option<Bytes>>> {
        let key = key.to_owned();
        self.blocking(move |root| get_range(root, &key, offset, bytes)).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        let key = key.to_owned();
        self.blocking(move |root| delete(root, &key)).boxed()
    }

    fn list_after<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.blocking(move |root| {
            let mut found = Vec::new();
            list(root, &prefix, &after, &mut found)?;
            found.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(found)
        })
        .boxed()
    }

    fn now(&self) -> BoxFuture<'_, Result<StoreTime>> {
        async { Ok(store_time(now_system())) }.boxed()
    }
}
