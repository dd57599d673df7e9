//! The keeper: the parent of the agent, which keeps what must outlive it.
//!
//! An agent gives it *things*: a name, a few bytes and descriptors (a mount's, a file in memory, a pipe that holds a key). It
//! does not know what they are. When the agent dies it starts another one and gives it all the things, so that mounts go
//! on; a mount lives while a descriptor of it is open. An agent that dies again and again is given up: then the mounts
//! are dead and say so to programs, instead of showing an empty folder that something could be written into.
//!
//! It is small on purpose: no threads, no runtime, nothing to decide but when to stop. It reads no storage, opens no
//! key and writes nothing but one line of the log and, when it gives up, the file that says so. If it dies, the agent
//! goes on without it.
//!
//! ```text
//! message = kind(1) length of name(1) name note, with the descriptors beside it
//! kinds, agent to keeper:  P put   D drop   N next: start this program after me   B bye: I end for good
//! kinds, keeper to agent:  P a thing that is kept   E that is all; the note is [`History`]
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

use crate::{
    client, daemon,
    failure::{Failure, Result},
    home::Home,
    output,
};

/// An agent that dies this often within [`WITHIN`] is given up. `MOUNTCTL_AGENT_DEATHS_MAX` says otherwise, for tests.
const DEATHS_MAX: usize = 5;
/// See [`DEATHS_MAX`].
const WITHIN: Duration = Duration::from_secs(60);
/// The first half of these restarts are at once; the one after that waits so long, and each further one twice as long.
const BACKOFF: Duration = Duration::from_millis(200);
/// No restart waits longer.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Longest message.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Most descriptors of one thing.
const DESCRIPTORS_MAX: usize = 4;
/// Where it is written that an agent was given up.
const GAVE_UP: &str = "agent.gave-up";

/// Something that is kept.
#[derive(Debug)]
pub struct Thing {
    /// Its name; a second one of the same name takes its place.
    pub name: String,
    /// What the agent says about it.
    pub note: Vec<u8>,
    /// Descriptors.
    pub descriptors: Vec<OwnedFd>,
}

/// Agents that ended before this one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// How often one was started after another.
    pub restarts: u64,
    /// When the last one was, RFC 3339.
    pub last: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// What came over the socket.
enum Message {
    Put(Thing),
    Drop(String),
    Next(OwnedFd),
    Bye,
    End(History),
}

/// Why an agent is gone.
enum End {
    /// It had nothing more to do.
    Done,
    /// It wants to be followed by another one.
    Restart,
    /// It died.
    Death(String),
}

/// Keeps an agent of this home running until it has nothing to do. Standard output goes to the first one.
pub fn run(home: &Home, verbosity: u8) -> Result<()> {
    daemon::become_background();
    let failed = |error: io::Error| Failure::io("cannot keep an agent", &error);
    let mut keeper = Keeper {
        home: home.clone(),
        verbosity,
        program: None,
        things: BTreeMap::new(),
        history: History::default(),
        deaths: VecDeque::new(),
        deaths_max: deaths_max(),
    };
    loop {
        match keeper.one_agent().map_err(failed)? {
            End::Done => return Ok(()),
            End::Restart => keeper.note_restart("asked for"),
            End::Death(reason) if keeper.things.keys().any(|name| name.starts_with(MOUNT)) => {
                if keeper.is_hopeless() {
                    keeper.give_up(&reason).map_err(failed)?;
                    return Ok(());
                }
                keeper.note_restart(&reason);
            }
            // Nothing is mounted: the next command starts one.
            End::Death(reason) => {
                say(&format!("the agent ended: {reason}"));
                return Ok(());
            }
        }
    }
}

/// Names of things that are mounts begin so: for these an agent is started again.
pub const MOUNT: &str = "mount/";

struct Keeper {
    home: Home,
    verbosity: u8,
    /// What to start instead of this program.
    program: Option<OwnedFd>,
    things: BTreeMap<String, Thing>,
    history: History,
    deaths: VecDeque<Instant>,
    deaths_max: usize,
}

impl Keeper {
    /// Starts an agent, gives it everything, and keeps what it gives until it ends.
    fn one_agent(&mut self) -> io::Result<End> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut child = self.start(theirs)?;
        // Only the first one reports to the command; that one must see the end when it dies.
        rustix::stdio::dup2_stdout(File::open("/dev/null")?)?;
        // An agent that is gone already says so by its exit status.
        let _gone = self.give_all(ours.as_fd());
        let (mut next, mut bye) = (false, false);
        while let Ok(Some(message)) = receive(ours.as_fd()) {
            match message {
                Message::Put(thing) => drop(self.things.insert(thing.name.clone(), thing)),
                Message::Drop(name) => drop(self.things.remove(&name)),
                Message::Next(program) => (self.program, next) = (Some(program), true),
                Message::Bye => bye = true,
                Message::End(_) => {}
            }
        }
        let status = child.wait()?;
        Ok(match status.success() {
            true if next => End::Restart,
            true if bye || self.things.is_empty() => End::Done,
            _ => End::Death(why(status)),
        })
    }

    fn start(&self, socket: OwnedFd) -> io::Result<Child> {
        let program = match &self.program {
            Some(program) => PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd())),
            None => client::program()?,
        };
        let mut command = Command::new(program);
        command.arg0("mountctl");
        if let Some(dir) = self.home.given() {
            command.arg("--home").arg(dir);
        }
        command.args((0..self.verbosity).map(|_| "-v")).args(["agent", "serve"]);
        command.stdin(Stdio::from(socket)).spawn()
    }

    fn give_all(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        for thing in self.things.values() {
            let descriptors: Vec<_> = thing.descriptors.iter().map(AsFd::as_fd).collect();
            send(socket, b'P', &thing.name, &thing.note, &descriptors)?;
        }
        send(socket, b'E', "", &serde_json::to_vec(&self.history)?, &[])
    }

    fn note_restart(&mut self, reason: &str) {
        self.history.restarts += 1;
        self.history.last = Some(output::now());
        self.history.reason = Some(reason.to_owned());
        say(&format!("the agent is started again: {reason}"));
    }

    /// Counts a death. Waits, unless there were too many of late.
    fn is_hopeless(&mut self) -> bool {
        let now = Instant::now();
        self.deaths.retain(|death| now.duration_since(*death) < WITHIN);
        self.deaths.push_back(now);
        if self.deaths.len() >= self.deaths_max {
            return true;
        }
        std::thread::sleep(backoff(self.deaths.len(), self.deaths_max));
        false
    }

    fn give_up(&self, reason: &str) -> io::Result<()> {
        let times = self.deaths.len();
        let text = format!("the agent ended {times} times within {} s, last: {reason}", WITHIN.as_secs());
        say(&format!("given up: {text}"));
        fs::write(self.home.agent_folder().join(GAVE_UP), text)
    }
}

/// Why the last agent was given up, if none was started since.
#[must_use]
pub fn gave_up(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(GAVE_UP)).ok()
}

/// An agent serves again.
pub fn forget_giving_up(folder: &Path) {
    // Nothing to forget is the normal case, and what stays for another reason only tells an old story.
    let _ignored = fs::remove_file(folder.join(GAVE_UP));
}

fn deaths_max() -> usize {
    std::env::var("MOUNTCTL_AGENT_DEATHS_MAX").ok().and_then(|text| text.parse().ok()).unwrap_or(DEATHS_MAX)
}

/// How long to wait after so many deaths.
fn backoff(deaths: usize, deaths_max: usize) -> Duration {
    match u32::try_from(deaths.saturating_sub(deaths_max / 2 + 1)) {
        _ if deaths <= deaths_max / 2 => Duration::ZERO,
        Ok(doublings @ ..=16) => BACKOFF_MAX.min(BACKOFF.saturating_mul(1 << doublings)),
        _ => BACKOFF_MAX,
    }
}

fn why(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("ended with code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Standard error is the log.
fn say(text: &str) {
    // There is nobody to tell that the log cannot be written.
    let _ignored = writeln!(io::stderr(), "{} keeper: {text}", output::now());
}

/// The agent's side: what it gives to its keeper. A keeper that is gone keeps nothing more, and the agent goes on.
#[derive(Debug)]
pub struct Kept {
    socket: Option<OwnedFd>,
    /// Agents before this one.
    pub history: History,
}

impl Kept {
    /// The keeper behind standard input, and all that it keeps. Without a keeper there: nothing.
    pub fn take() -> io::Result<(Self, Vec<Thing>)> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        // Nobody who is started from here shall hold it.
        rustix::stdio::dup2_stdin(OpenOptions::new().read(true).open("/dev/null")?)?;
        let mut things = Vec::new();
        loop {
            match receive(stdin.as_fd()) {
                Ok(Some(Message::Put(thing))) => things.push(thing),
                Ok(Some(Message::End(history))) => return Ok((Self { socket: Some(stdin), history }, things)),
                // Started by hand.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTSOCK.raw_os_error()) => {
                    return Ok((Self { socket: None, history: History::default() }, things));
                }
                Err(error) => return Err(error),
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Has it keep something.
    pub fn put(&self, name: &str, note: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.tell(b'P', name, note, descriptors);
    }

    /// Has it let go of something.
    pub fn drop(&self, name: &str) {
        self.tell(b'D', name, &[], &[]);
    }

    /// Has it start this program when this process has ended.
    pub fn next(&self, program: &File) {
        self.tell(b'N', "", &[], &[program.as_fd()]);
    }

    /// Has it end with this process.
    pub fn bye(&self) {
        self.tell(b'B', "", &[], &[]);
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| {
            let mut ready = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::RDHUP)];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            !matches!(rustix::event::poll(&mut ready, Some(&now)), Ok(1..))
        })
    }

    fn tell(&self, kind: u8, name: &str, note: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket.as_fd(), kind, name, note, descriptors) {
            tracing::error!(%error, "the keeper is gone: mounts do not survive this process any more");
        }
    }
}

fn send(socket: BorrowedFd<'_>, kind: u8, name: &str, note: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let length = u8::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let head = [kind, length];
    let parts = [IoSlice::new(&head), IoSlice::new(name.as_bytes()), IoSlice::new(note)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(socket, &parts, &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message; `None` when the other side is gone.
fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let into = &mut [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(socket, into, &mut beside, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => break outcome?.bytes,
        }
    };
    if received == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    decode(&bytes[..received], descriptors).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn decode(bytes: &[u8], mut descriptors: Vec<OwnedFd>) -> Option<Message> {
    let [kind, length, rest @ ..] = bytes else { return None };
    let (name, note) = rest.split_at_checked(usize::from(*length))?;
    let name = std::str::from_utf8(name).ok()?.to_owned();
    Some(match kind {
        b'P' => Message::Put(Thing { name, note: note.to_owned(), descriptors }),
        b'D' => Message::Drop(name),
        b'N' => Message::Next(descriptors.pop()?),
        b'B' => Message::Bye,
        b'E' => Message::End(serde_json::from_slice(note).ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_thing_arrives_with_its_descriptors_and_the_end_is_seen() {
        use std::os::unix::fs::FileExt;
        let (ours, theirs) = pair();
        let file = tempfile::tempfile().unwrap();
        send(ours.as_fd(), b'P', "mount/x", b"note", &[file.as_fd(), file.as_fd()]).unwrap();
        drop(ours);
        let Some(Message::Put(thing)) = receive(theirs.as_fd()).unwrap() else { panic!("a thing") };
        assert_eq!((thing.name.as_str(), thing.note.as_slice()), ("mount/x", b"note".as_slice()));
        assert_eq!(thing.descriptors.len(), 2);
        file.write_all_at(b"same", 0).unwrap();
        let mut read = [0; 4];
        File::from(thing.descriptors.into_iter().next().unwrap()).read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"same");
        assert!(receive(theirs.as_fd()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [b"".as_slice(), b"P", b"P\x05name", b"X\x00", b"P\x01\xff", b"N\x00", b"E\x00no"] {
            assert!(decode(bytes, Vec::new()).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn restarts_slow_down_until_an_agent_is_given_up() {
        let waits: Vec<_> = (1..DEATHS_MAX).map(|deaths| backoff(deaths, DEATHS_MAX).as_millis()).collect();
        assert_eq!(waits, [0, 0, 200, 400]);
        assert_eq!(backoff(90, 100), BACKOFF_MAX);
    }

    #[test]
    fn a_keeper_that_is_gone_is_noticed_and_no_harm() {
        let (ours, theirs) = pair();
        let kept = Kept { socket: Some(ours), history: History::default() };
        assert!(kept.is_there());
        drop(theirs);
        assert!(!kept.is_there());
        kept.put("mount/x", b"", &[]);
    }
}
