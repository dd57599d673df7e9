//! What docs/SEMANTICS.md says of what lies between processes, on a mount: locks, pipes, sockets, being told of changes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
};

use parsecfs_tests::mounted::{mounted, sh};
use rustix::fs::inotify::{self, ReadFlags, WatchFlags};

/// [S27]
#[test]
fn locks_hold_between_processes_by_range_and_by_file() {
    let Some(mount) = mounted() else { return };
    let script = "python3 - <<'END'
import fcntl, os
def held(take):
    try:
        take()
        return False
    except OSError:
        return True
f = open('file', 'w+b')
fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
fcntl.flock(f, fcntl.LOCK_SH)
now = fcntl.LOCK_NB
pid = os.fork()
if pid == 0:
    g = open('file', 'r+b')
    seen = [held(lambda: fcntl.lockf(g, fcntl.LOCK_EX | now, 5, 2)), held(lambda: fcntl.lockf(g, fcntl.LOCK_EX | now, 5, 20)),
            held(lambda: fcntl.flock(g, fcntl.LOCK_SH | now)), held(lambda: fcntl.flock(g, fcntl.LOCK_EX | now))]
    os._exit(0 if seen == [True, False, False, True] else 1)
assert os.waitpid(pid, 0)[1] == 0
# Who waits gets the lock when its holder ends.
holder = os.fork()
if holder == 0:
    g = open('file', 'r+b')
    fcntl.lockf(g, fcntl.LOCK_EX, 1, 100)
    open('holding', 'w')
    while not os.path.exists('enough'): pass
    os._exit(0)
while not os.path.exists('holding'): pass
assert held(lambda: fcntl.lockf(f, fcntl.LOCK_EX | now, 1, 100))
open('enough', 'w')
fcntl.lockf(f, fcntl.LOCK_EX, 1, 100)
os.waitpid(holder, 0)
END";
    sh(&mount.path(), script, &[]);
}

/// [S28]
#[test]
fn pipes_and_sockets_join_processes_and_stay_what_they_are() {
    let Some(mount) = mounted() else { return };
    let at = |name: &str| mount.path().join(name);
    assert_eq!(sh(&mount.path(), "mkfifo pipe; echo through >pipe & cat pipe; wait", &[]), "through\n");
    let listener = UnixListener::bind(at("socket")).unwrap();
    let mut asks = UnixStream::connect(at("socket")).unwrap();
    let (mut answers, _) = listener.accept().unwrap();
    asks.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    answers.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    drop((listener, asks, answers));
    mount.remount();
    let kind = |name: &str| fs::symlink_metadata(at(name)).unwrap().file_type();
    assert!(kind("pipe").is_fifo() && kind("socket").is_socket());
    assert!(UnixStream::connect(at("socket")).is_err(), "nobody listens");
}

/// [S29]
#[test]
fn who_watches_a_folder_is_told_what_programs_of_this_machine_change() {
    let Some(mount) = mounted() else { return };
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let flags = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVE | WatchFlags::DELETE | WatchFlags::ATTRIB;
    inotify::add_watch(&watch, mount.path(), flags).unwrap();
    sh(&mount.path(), "echo x >a; chmod 600 a; mv a b; mkdir d; rm b", &[]);
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut seen = BTreeSet::new();
    while let Ok(event) = events.next() {
        let name = event.file_name().unwrap().to_str().unwrap().to_owned();
        seen.insert(format!("{name} {}", event.events().difference(ReadFlags::ISDIR).bits()));
    }
    let expected = [
        ("a", ReadFlags::CREATE),
        ("a", ReadFlags::MODIFY),
        ("a", ReadFlags::ATTRIB),
        ("a", ReadFlags::MOVED_FROM),
        ("b", ReadFlags::MOVED_TO),
        ("d", ReadFlags::CREATE),
        ("b", ReadFlags::DELETE),
    ];
    for (name, event) in expected {
        assert!(seen.contains(&format!("{name} {}", event.bits())), "{name} {event:?} in {seen:?}");
    }
    drop(File::open(mount.path()).unwrap());
}
