//! The mount survives its agent: killed or restarted under load, open files stay open, nothing is lost or done twice.
//! `PARSECFS_ROUNDS` sets how often: few by default, 200 in a long run.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parsecfs_tests::{
    cli::{CliHome, can_mount, kill},
    survival::{PATIENCE, unanswered_since, until},
};

fn rounds() -> u64 {
    std::env::var("PARSECFS_ROUNDS").map_or(3, |text| text.parse().expect("a number"))
}

/// A home with a mounted workspace, or nothing where one cannot mount.
fn mounted() -> Option<(CliHome, PathBuf)> {
    can_mount().then(|| {
        let home = CliHome::with_deaths(100 + 10 * rounds());
        let dir = PathBuf::from(home.with_mount());
        (home, dir)
    })
}

#[test]
fn open_files_go_on_when_the_agent_dies() {
    let Some((home, dir)) = mounted() else { return };
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(dir.join("log")).unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    let folder = File::open(dir.join("folder")).unwrap();
    file.write_all(b"before ").unwrap();
    file.sync_all().unwrap();
    let ino = file.metadata().unwrap().ino();
    file.write_all(b"between ").unwrap();
    let pid = home.crash_agent();
    let took = unanswered_since(Instant::now(), &dir);
    eprintln!("answered again after {took:?}");
    assert!(took < PATIENCE);
    file.write_all(b"after").unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before between after");
    assert_eq!(file.metadata().unwrap().ino(), ino);
    assert_eq!(fs::metadata(dir.join("log")).unwrap().ino(), ino);
    folder.sync_all().unwrap();
    assert_ne!(home.agent_pid(), Some(pid));
    let status = home.ok(&["status", "Photos"]);
    assert_eq!(status["agent"]["restarts"], 1);
    assert_eq!(status["agent"]["restart_reason"], "killed by signal 9");
    drop((file, folder));
    home.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);
    home.ok(&["umount", "Photos"]);
    home.ok(&["mount", "Photos", dir.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(dir.join("log")).unwrap(), "before between after");
}

/// What programs do to a mount, each with its own names, so that every answer is known beforehand: any error is wrong.
struct Load {
    dir: PathBuf,
    ends: AtomicBool,
    done: AtomicU64,
}

const NAMERS: u64 = 3;
const APPENDERS: u64 = 2;

impl Load {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), ends: AtomicBool::new(false), done: AtomicU64::new(0) }
    }

    fn goes_on(&self) -> bool {
        self.done.fetch_add(1, Ordering::Relaxed);
        !self.ends.load(Ordering::Relaxed)
    }

    /// Waits until every writer has surely done something more.
    fn wait_for_more(&self) {
        let now = self.done.load(Ordering::Relaxed);
        until("the writers go on", || self.done.load(Ordering::Relaxed) > now + 200);
    }

    /// Makes, moves and removes names. All that is not safe to do twice.
    fn change_names(&self, who: u64) -> u64 {
        let own = self.dir.join(format!("names-{who}"));
        fs::create_dir(&own).expect("mkdir");
        let mut round: u64 = 0;
        while self.goes_on() {
            let name = |what: &str| own.join(format!("{what}-{round}"));
            File::create_new(name("file")).expect("create").write_all(&round.to_le_bytes()).expect("write");
            fs::rename(name("file"), name("moved")).expect("rename");
            fs::create_dir(name("folder")).expect("mkdir");
            fs::rename(name("moved"), name("folder").join("in")).expect("rename into");
            std::os::unix::fs::symlink("target", name("link")).expect("symlink");
            fs::rename(name("folder").join("in"), name("kept")).expect("rename out");
            fs::remove_dir(name("folder")).expect("rmdir");
            fs::hard_link(name("kept"), name("other")).expect("link");
            fs::remove_file(name("other")).expect("unlink a second name");
            fs::remove_file(name("link")).expect("unlink");
            round += 1;
        }
        round
    }

    /// Two append to one file, and each syncs from time to time. Returns how much and how much of it was synced.
    fn append(&self, who: u64) -> u64 {
        let mut file = OpenOptions::new().append(true).create(true).open(self.dir.join("appended")).expect("open");
        let mut round: u64 = 0;
        while self.goes_on() {
            let mut record = [0; 16];
            record[..8].copy_from_slice(&who.to_le_bytes());
            record[8..].copy_from_slice(&round.to_le_bytes());
            file.write_all(&record).expect("append");
            if round.is_multiple_of(16) {
                file.sync_data().expect("fdatasync");
            }
            round += 1;
        }
        round
    }

    /// Reads a large file again and again; any other byte than was written is wrong.
    fn read(&self) {
        let path = self.dir.join("large");
        let bytes: Vec<u8> = (0..8u32 << 20).map(|at| (at / 4099).to_le_bytes()[0]).collect();
        fs::write(&path, &bytes).expect("write");
        let file = File::open(&path).expect("open");
        file.sync_all().expect("fsync");
        while self.goes_on() {
            // Nothing of it from the page cache.
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
            let mut read = vec![0; bytes.len()];
            file.read_exact_at(&mut read, 0).expect("read");
            assert!(read == bytes, "other bytes than were written");
        }
    }

    fn check_names(&self, who: u64, rounds: u64) {
        let own = self.dir.join(format!("names-{who}"));
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let found: BTreeSet<OsString> = fs::read_dir(&own).expect("a folder").map(name).collect();
        let expected: BTreeSet<OsString> = (0..rounds).map(|round| format!("kept-{round}").into()).collect();
        assert_eq!(found, expected);
        for (round, path) in (0..rounds).map(|round| (round, own.join(format!("kept-{round}")))) {
            assert_eq!(fs::read(path).expect("a file"), round.to_le_bytes());
        }
    }

    fn check_appended(&self, rounds: &[u64]) {
        let bytes = fs::read(self.dir.join("appended")).expect("a file");
        let mut next = vec![0u64; rounds.len()];
        for record in bytes.chunks(16) {
            let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("a whole record"));
            let (who, round) = (usize::try_from(number(&record[..8])).expect("a writer"), number(&record[8..]));
            assert_eq!(round, next[who], "record {round} of {who}, once and in order");
            next[who] += 1;
        }
        assert_eq!(next, rounds);
    }

    /// Runs all of it while `disturb` happens, and checks that the result is exactly what was asked for.
    fn under(&self, disturb: impl FnOnce()) {
        let (named, appended) = std::thread::scope(|scope| {
            let namers: Vec<_> = (0..NAMERS).map(|who| scope.spawn(move || self.change_names(who))).collect();
            let appenders: Vec<_> = (0..APPENDERS).map(|who| scope.spawn(move || self.append(who))).collect();
            scope.spawn(|| self.read());
            self.wait_for_more();
            disturb();
            self.ends.store(true, Ordering::Relaxed);
            let all = |threads: Vec<std::thread::ScopedJoinHandle<'_, u64>>| -> Vec<u64> {
                threads.into_iter().map(|thread| thread.join().expect("no error")).collect()
            };
            (all(namers), all(appenders))
        });
        for (who, rounds) in (0..).zip(&named) {
            self.check_names(who, *rounds);
        }
        self.check_appended(&appended);
    }
}

/// Unmounts and mounts, so that what is seen next comes from the store.
fn remount(home: &CliHome, dir: &Path) {
    home.ok(&["umount", "Photos", "--flush"]);
    home.ok(&["mount", "Photos", dir.to_str().expect("temporary paths are UTF-8")]);
}

/// [S40]
#[test]
fn a_kill_under_load_gives_no_error_and_loses_and_repeats_nothing() {
    let Some((home, dir)) = mounted() else { return };
    let load = Load::new(&dir);
    let mut longest = Duration::ZERO;
    load.under(|| {
        for _ in 0..rounds() {
            let pid = home.crash_agent();
            longest = longest.max(unanswered_since(Instant::now(), &dir));
            until("another agent", || home.agent_pid().is_some_and(|next| next != pid));
            load.wait_for_more();
        }
    });
    eprintln!("answered again after {longest:?} at most");
    assert_eq!(home.ok(&["status", "Photos"])["agent"]["restarts"], rounds());
    remount(&home, &dir);
    assert!(fs::read_dir(dir.join("names-0")).unwrap().count() > 0);
}

#[test]
fn a_restart_under_load_gives_no_error_and_loses_and_repeats_nothing() {
    let Some((home, dir)) = mounted() else { return };
    let load = Load::new(&dir);
    load.under(|| {
        for _ in 0..rounds() {
            let before = home.agent_pid();
            let restarted = home.ok(&["agent", "restart"]);
            assert_eq!(restarted["mounts"][0]["mount"], dir.to_str().unwrap());
            assert_ne!(restarted["pid"].as_u64().map(|pid| u32::try_from(pid).unwrap()), before);
            load.wait_for_more();
        }
    });
    let status = home.ok(&["status", "Photos"]);
    assert_eq!(status["agent"]["restarts"], rounds());
    assert_eq!(status["agent"]["restart_reason"], "asked for");
    remount(&home, &dir);
    assert!(fs::read_dir(dir.join("names-0")).unwrap().count() > 0);
}

#[test]
fn an_agent_that_dies_again_and_again_is_given_up_and_says_so() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    let file = File::create(Path::new(&dir).join("file")).unwrap();
    let keeper = home.keeper_pid().expect("a keeper");
    for deaths in 1..=5 {
        let pid = home.crash_agent();
        let follows = || home.agent_pid().is_some_and(|next| next != pid);
        until("another agent, or the end", || follows() || (deaths == 5 && home.keeper_pid() != Some(keeper)));
    }
    until("the keeper ends", || home.keeper_pid().is_none());
    let gone = file.sync_all().unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ENOTCONN));
    assert!(File::create(Path::new(&dir).join("other")).is_err(), "not into the folder below");
    drop(file);
    let error = home.fails(16, &["status"]);
    let why = "the agent ended 5 times within 60 s, last: killed by signal 9";
    assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    assert!(home.agent_pid().is_none());
    home.ok(&["mount", "Photos", &dir]);
    fs::write(Path::new(&dir).join("file"), "again").unwrap();
    assert_eq!(home.ok(&["status"])[0]["agent"]["restarts"], 0);
}

#[test]
fn a_device_with_a_password_goes_on_without_it() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    let password = home.path("password");
    fs::write(&password, "correct horse\n").unwrap();
    home.ok(&["device", "auth", "password", "--new-password-file", password.to_str().unwrap()]);
    home.ok(&["mount", "Photos", &dir, "--password-file", password.to_str().unwrap()]);
    home.crash_agent();
    fs::write(Path::new(&dir).join("note"), "after").unwrap();
    home.ok(&["wait", "Photos", "--synced", "--timeout", "60"]);
}

#[test]
fn without_its_keeper_the_agent_goes_on() {
    let Some((home, dir)) = mounted() else { return };
    let file = File::create(dir.join("file")).unwrap();
    kill(home.keeper_pid().expect("a keeper"));
    file.sync_all().unwrap();
    fs::write(dir.join("other"), "alive").unwrap();
    assert_eq!(home.ok(&["status", "Photos"])["agent"]["kept"], false);
    drop(file);
    home.ok(&["umount", "Photos", "--flush"]);
}

#[test]
fn a_mount_of_another_home_is_left_alone() {
    let (Some((home, dir)), Some((other, elsewhere))) = (mounted(), mounted()) else { return };
    fs::write(elsewhere.join("note"), "mine").unwrap();
    home.kill_agent();
    // Its place was taken meanwhile.
    other.ok(&["umount", "Photos", "--flush"]);
    rustix::mount::unmount(&dir, rustix::mount::UnmountFlags::DETACH).unwrap();
    other.ok(&["mount", "Photos", dir.to_str().unwrap()]);
    home.ok(&["mount", "Photos", elsewhere.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(dir.join("note")).unwrap(), "mine");
    other.ok(&["umount", "Photos"]);
    home.ok(&["umount", "Photos"]);
}

#[test]
fn a_restart_without_an_agent_does_nothing() {
    let home = CliHome::new();
    assert!(home.ok(&["agent", "restart"])["pid"].is_null());
}
