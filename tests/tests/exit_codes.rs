//! Every exit code that a command can end with, through the real program.
//!
//! | code | means | is shown by |
//! |---|---|---|
//! | 0 | done | every test |
//! | 1 | failed | here: a wait that takes too long; `cli`, `bad_input`: taken names, busy mounts, newer versions, full disks |
//! | 2 | usage | `cli`: `mistakes_in_arguments_are_2` |
//! | 3 | partly done | here |
//! | 10 | no such thing | `cli`: `names_that_nobody_has_are_10` |
//! | 11 | cannot unlock key | `cli`: wrong password, damaged device file; `keyring`: no keyring on this machine |
//! | 12 | trust failure, damaged data | here (a storage that forgot), `bad_input` (damage). That somebody without the right wrote needs a second person, which no command can invite yet: `organization` tests it below the commands |
//! | 13 | offline | `cli`: `a_storage_that_is_not_there_is_13` |
//! | 14 | role or medium does not allow it | `bad_input`: a read-only storage. A role other than owner needs a second person too |
//! | 15 | mount point unusable | `cli`: `an_unusable_mount_point_is_15_each_in_its_own_words` |
//! | 16 | not mounted, already mounted | `cli`: `mounting_twice_and_unmounting_twice_are_16` |
//! | 17 | refused: unsynced changes | `cli`: `unsynced_changes_keep_a_mount_from_ending_unless_forced` |
//! | 18 | check found problems | `cli`: the tests that ask the doctor |
//! | 130 | interrupted | here |

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};

use parsecfs_tests::cli::{CliHome, can_mount, newest_entry};

#[test]
fn unmounting_all_with_one_in_use_is_3_and_says_which_ended() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    home.ok(&["workspace", "create", "Videos"]);
    let (photos, videos) = (home.mount_point("photos"), home.mount_point("videos"));
    home.ok(&["mount", "Photos", &photos]);
    home.ok(&["mount", "Videos", &videos]);
    let open = fs::File::create(Path::new(&videos).join("open")).unwrap();
    let said = home.run(&["umount", "--all"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert_eq!(said.error()["kind"], "partly");
    let done = said.json();
    assert_eq!((done.as_array().unwrap().len(), &done[0]["workspace"]), (1, &"Photos".into()));
    drop(open);
    home.ok(&["umount", "--all", "--flush"]);
}

#[test]
fn a_storage_that_forgot_what_this_device_saw_is_12() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    let newest = newest_entry(&home.path("storage/org/log/00000000"));
    let kept = fs::read(&newest).unwrap();
    fs::remove_file(&newest).unwrap();
    let error = home.fails(12, &["workspace", "create", "Videos"]);
    assert_eq!(error["kind"], "untrusted");
    assert!(error["hint"].as_str().unwrap().contains("who changed it"), "{error}");
    fs::write(&newest, kept).unwrap();
    home.ok(&["workspace", "create", "Videos"]);
}

#[test]
fn a_wait_that_is_too_long_is_1_and_says_so() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    fs::rename(home.path("storage"), home.path("away")).unwrap();
    fs::write(Path::new(&dir).join("note"), "only here").unwrap();
    assert_eq!(home.fails(1, &["wait", "--synced", "--timeout", "0.1"])["kind"], "timeout");
    fs::rename(home.path("away"), home.path("storage")).unwrap();
    home.ok(&["umount", "--all", "--flush"]);
}

/// A shell shows a program that an interrupt ended as 130.
#[test]
fn an_interrupted_wait_is_130_for_a_shell_and_leaves_the_mount_as_it_was() {
    let Some((home, dir)) = CliHome::mounted() else { return };
    fs::rename(home.path("storage"), home.path("away")).unwrap();
    fs::write(Path::new(&dir).join("note"), "only here").unwrap();
    let mut wait = home.command(&["wait", "--synced"]).stdout(Stdio::null()).spawn().unwrap();
    // Until it listens: before, a job in the background of a script ignores it.
    let ended = loop {
        interrupt(wait.id());
        if let Some(ended) = wait.try_wait().unwrap() {
            break ended;
        }
        std::thread::yield_now();
    };
    assert_eq!(ended.signal(), Some(2));
    assert_eq!(fs::read_to_string(Path::new(&dir).join("note")).unwrap(), "only here");
    fs::rename(home.path("away"), home.path("storage")).unwrap();
    home.ok(&["umount", "--all", "--flush"]);
}

#[test]
fn an_interrupted_foreground_mount_unmounts_and_is_0() {
    if !can_mount() {
        return;
    }
    let home = CliHome::new();
    home.with_workspace("Photos");
    let dir = home.mount_point("mnt");
    let mut mount = home.command(&["mount", "Photos", &dir, "--foreground"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut answer = BufReader::new(mount.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains('}') {
        assert_ne!(answer.read_line(&mut line).unwrap(), 0, "it says when it is mounted");
    }
    fs::write(Path::new(&dir).join("note"), "kept").unwrap();
    interrupt(mount.id());
    assert!(mount.wait().unwrap().success());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "it is unmounted");
    home.ok(&["mount", "Photos", &dir]);
    assert_eq!(fs::read_to_string(Path::new(&dir).join("note")).unwrap(), "kept");
    home.ok(&["umount", "--all", "--flush"]);
}

#[test]
fn a_confirmation_that_is_not_given_is_130_and_nothing_is_done() {
    let home = CliHome::new();
    home.with_workspace("Photos");
    let forget = home.command(&["device", "forget", "laptop"]);
    let words: Vec<_> = [forget.get_program()].into_iter().chain(forget.get_args()).collect();
    let line: Vec<_> = words.iter().map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    // `script` runs it on a terminal, as a person would.
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--echo", "never", "--command", &line.join(" "), "/dev/null"]);
    terminal.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut asked = terminal.spawn().unwrap();
    std::io::Write::write_all(&mut asked.stdin.take().unwrap(), b"no\n").unwrap();
    assert_eq!(asked.wait().unwrap().code(), Some(130));
    assert_eq!(home.ok(&["device", "list"]).as_array().unwrap().len(), 1);
}

fn interrupt(pid: u32) {
    let sent = Command::new("kill").args(["-INT", &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success());
}
