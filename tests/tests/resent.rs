//! What a process did and did not answer before it was killed is asked again of the next: the answer is that of the
//! first time, and nothing is done twice.

use std::{path::Path, sync::Arc};

use parsecfs_tests::local_model::{StepClock, new_tape, open_taped};
use parsecfs_vfs::{
    error::ErrorKind,
    fs::{Fetched, Times, Volume},
    fuzzing::Loopback,
};
use tempfile::TempDir;

const ROOT: u64 = 1;
const RESENT: u64 = 1 << 63;
// Opcodes.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const SYMLINK: u32 = 6;
const MKNOD: u32 = 8;
const MKDIR: u32 = 9;
const UNLINK: u32 = 10;
const RMDIR: u32 = 11;
const RENAME: u32 = 12;
const LINK: u32 = 13;
const TMPFILE: u32 = 51;

/// A store, its tape, and the process that has them.
struct Agent {
    dir: TempDir,
    tape: std::fs::File,
    volume: Option<Arc<Volume>>,
    kernel: Option<Loopback>,
}

/// An answer: its error, and of an entry the inode and how many names it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    error: i32,
    entry: Option<(u64, u32)>,
}

const DONE: Answer = Answer { error: 0, entry: None };

fn open(dir: &Path, tape: &std::fs::File) -> Arc<Volume> {
    open_taped(dir, tape, Arc::new(StepClock::default()), u64::MAX).expect("it opens")
}

impl Agent {
    fn new() -> Self {
        let (dir, tape) = (TempDir::new().expect("a temporary directory"), new_tape());
        let volume = open(dir.path(), &tape);
        let kernel = Loopback::new(&volume).expect("an adapter");
        Self { dir, tape, volume: Some(volume), kernel: Some(kernel) }
    }

    fn volume(&self) -> &Volume {
        self.volume.as_ref().expect("it runs")
    }

    /// The process ends without a word, and another one goes on.
    fn killed(&mut self) {
        drop(self.kernel.take());
        let volume = self.volume.take().expect("it runs");
        // The adapter's threads end a moment after the adapter.
        while Arc::strong_count(&volume) > 1 || Arc::strong_count(volume.store()) > 2 {
            std::thread::yield_now();
        }
        let store = volume.store().clone();
        drop(volume);
        while Arc::strong_count(&store) > 1 {
            std::thread::yield_now();
        }
        drop(store);
        let volume = open(self.dir.path(), &self.tape);
        self.kernel = Some(Loopback::new(&volume).expect("an adapter"));
        self.volume = Some(volume);
    }

    fn ask(&mut self, unique: u64, opcode: u32, ino: u64, body: &[&[u8]]) -> Answer {
        let body = body.concat();
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(40 + body.len()).expect("short").to_ne_bytes());
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(unique.to_ne_bytes());
        bytes.extend(ino.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend(body);
        let said = self.kernel.as_mut().expect("it runs").ask(&bytes).expect("a file in memory");
        if said.is_empty() {
            return DONE;
        }
        let word = |at: usize| u32::from_ne_bytes(said[at..at + 4].try_into().expect("four bytes"));
        let ino = said.get(16..24).map(|ino| u64::from_ne_bytes(ino.try_into().expect("eight bytes")));
        Answer { error: word(4).cast_signed(), entry: ino.map(|ino| (ino, word(120))) }
    }

    /// Asks, loses the answer with the process, and asks the next one.
    fn ask_twice(&mut self, unique: u64, opcode: u32, ino: u64, body: &[&[u8]]) -> (Answer, Answer) {
        let first = self.ask(unique, opcode, ino, body);
        self.killed();
        (first, self.ask(unique | RESENT, opcode, ino, body))
    }

    fn made(&mut self, unique: u64, name: &[u8]) -> u64 {
        self.ask(unique, MKNOD, ROOT, &[&node(0o100_644), name]).entry.expect("an entry").0
    }
}

fn node(mode: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[..4].copy_from_slice(&mode.to_ne_bytes());
    body
}

#[test]
fn what_is_made_is_made_once_and_answered_as_the_first_time() {
    let mut agent = Agent::new();
    let file = agent.made(2, b"file\0");
    let requests: [(u32, Vec<&[u8]>); 6] = [
        (MKNOD, vec![&[0; 16], b"node\0"]),
        (MKNOD, vec![&const { *b"\x00\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0" }, b"pipe\0"]),
        (MKDIR, vec![&[0; 8], b"folder\0"]),
        (SYMLINK, vec![b"link\0", b"target\0"]),
        (LINK, vec![&const { 0u64.to_ne_bytes() }, b"other\0"]),
        (LINK, vec![&const { 0u64.to_ne_bytes() }, b"third\0"]),
    ];
    let named = file.to_ne_bytes();
    for (unique, (opcode, mut body)) in (10..).zip(requests) {
        if opcode == LINK {
            body[0] = &named;
        }
        let (first, again) = agent.ask_twice(unique, opcode, ROOT, &body);
        assert_eq!(first.error, 0, "opcode {opcode}");
        assert_eq!(again, first, "opcode {opcode}");
        // Somebody else who asks for the same is refused.
        let other = agent.ask(unique + 100, opcode, ROOT, &body);
        assert_eq!(other.error, -libc::EEXIST, "opcode {opcode}");
    }
    assert_eq!(agent.ask(50, LOOKUP, ROOT, &[b"file\0"]).entry, Some((file, 3)));
    assert!(agent.volume().check().expect("it can be read").is_empty());
}

#[test]
fn what_is_removed_or_moved_is_so_once() {
    let mut agent = Agent::new();
    agent.made(2, b"file\0");
    let moved = agent.made(3, b"moved\0");
    agent.ask(4, MKDIR, ROOT, &[&[0; 8], b"folder\0"]);
    let to_root = ROOT.to_ne_bytes();
    for (unique, opcode, body) in [
        (10, UNLINK, vec![b"file\0".as_slice()]),
        (11, RMDIR, vec![b"folder\0"]),
        (12, RENAME, vec![&to_root, b"moved\0", b"here\0"]),
    ] {
        let (first, again) = agent.ask_twice(unique, opcode, ROOT, &body);
        assert_eq!((first, again), (DONE, DONE), "opcode {opcode}");
    }
    assert_eq!(agent.ask(50, LOOKUP, ROOT, &[b"here\0"]).entry, Some((moved, 1)));
}

/// The kernel never heard of the first one.
#[test]
fn a_file_without_a_name_that_is_asked_for_again_is_another_one_and_goes_on() {
    let mut agent = Agent::new();
    let (first, again) = agent.ask_twice(10, TMPFILE, ROOT, &[&node(0), b"\0"]);
    let ((first, 0), (second, 0)) = (first.entry.expect("one"), again.entry.expect("one")) else { panic!("named") };
    assert_ne!(first, second);
    agent.volume().write(second, 0, b"content", &Fetched::new(), Times::Now).expect("a write");
    agent.killed();
    let link = [&second.to_ne_bytes()[..], b"name\0"];
    let (linked, again) = agent.ask_twice(11, LINK, ROOT, &link);
    assert_eq!((linked.entry, again.entry), (Some((second, 1)), Some((second, 1))));
    agent.killed();
    assert_eq!(agent.ask(12, LOOKUP, ROOT, &[b"name\0"]).entry, Some((second, 1)));
    assert_eq!(agent.volume().attributes(second).expect("there").size, 7);
}

#[test]
fn what_has_no_name_ends_with_the_last_reference_also_one_counted_by_a_process_before() {
    let mut agent = Agent::new();
    let file = agent.made(2, b"file\0");
    agent.volume().write(file, 0, &[1; 5000], &Fetched::new(), Times::Now).expect("a write");
    agent.ask(3, UNLINK, ROOT, &[b"file\0"]);
    agent.killed();
    let attributes = agent.volume().attributes(file).expect("it is open");
    assert_eq!((attributes.links, attributes.size), (0, 5000));
    agent.ask(4, FORGET, file, &[&1u64.to_ne_bytes()]);
    assert_eq!(agent.volume().attributes(file).expect_err("it is gone").kind(), ErrorKind::Stale);
    agent.killed();
    assert_eq!(agent.volume().attributes(file).expect_err("it is gone").kind(), ErrorKind::Stale);
}
