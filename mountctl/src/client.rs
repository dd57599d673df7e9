//! The asking side: finds the agent of a home, starts one when there is none, and asks it.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::{
    agent::{self, Readiness},
    exit::Kind,
    failure::{Failure, Result},
    home::Home,
    rpc::{Greeting, LINE_BYTES_MAX, MountView, Reply, Request},
    socket,
};

/// An agent that is about to end, or one that just took the lock, is waited for at most so long.
const HANDOVER: Duration = Duration::from_secs(30);

/// How long between two looks at such an agent.
const HANDOVER_STEP: Duration = Duration::from_millis(50);

/// Asks commands' questions to the agent of one home.
#[derive(Clone, Debug)]
pub struct Client {
    home: Home,
    verbosity: u8,
}

impl Client {
    /// For this home; an agent that has to be started logs as much as `verbosity` says.
    #[must_use]
    pub fn new(home: Home, verbosity: u8) -> Self {
        Self { home, verbosity }
    }

    /// Asks, starting an agent first when none runs.
    pub fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let deadline = Instant::now() + HANDOVER;
        loop {
            match ask(self.home.agent_folder(), request) {
                // Another one goes on in its place, and what only looks or waits can be asked again.
                Some(Err(failure)) if failure.kind == Kind::AgentGone && request.is_repeatable() => {}
                Some(answer) => return answer,
                None => {}
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(Kind::Failed, "the background agent does not answer")
                    .hint(format!("see {}", agent::log_path(&self.home).display())));
            }
            if !self.start()? {
                std::thread::sleep(HANDOVER_STEP);
            }
        }
    }

    /// Asks if an agent runs. `None`: there is none, so nothing is mounted.
    pub fn call_running<T: DeserializeOwned>(&self, request: &Request) -> Result<Option<T>> {
        loop {
            match ask(self.home.agent_folder(), request) {
                Some(Err(failure)) if failure.kind == Kind::AgentGone && request.is_repeatable() => {}
                answer => return answer.transpose(),
            }
        }
    }

    /// Has this program go on in place of the running one. Returns when it answers, with its process and what is mounted.
    /// `None`: none ran.
    pub fn restart(&self, program: PathBuf) -> Result<Option<(u32, Vec<MountView>)>> {
        let folder = self.home.agent_folder();
        let Some((stream, read, before)) = greet(folder) else { return Ok(None) };
        match converse::<()>(stream, read, &Request::Restart { program }) {
            // It may be gone before its answer is out.
            Err(failure) if failure.kind != Kind::AgentGone => return Err(failure),
            _ => {}
        }
        let deadline = Instant::now() + HANDOVER;
        while Instant::now() < deadline {
            if let Some((_, _, now)) = greet(folder).filter(|(_, _, now)| now.pid != before.pid) {
                return Ok(Some((now.pid, self.call(&Request::Mounts)?)));
            }
            std::thread::sleep(HANDOVER_STEP);
        }
        Err(Failure::new(Kind::Failed, "the background agent did not restart")
            .hint(format!("see {}", agent::log_path(&self.home).display())))
    }

    /// Starts an agent. `false`: another one is starting or ending right now.
    fn start(&self) -> Result<bool> {
        let failed = |error: io::Error| Failure::io("cannot start the background agent", &error);
        let log = agent::open_log(&self.home).map_err(failed)?;
        let mut command = Command::new(program().map_err(failed)?);
        command.arg0("mountctl");
        if let Some(dir) = self.home.given() {
            command.arg("--home").arg(dir);
        }
        for _ in 0..self.verbosity {
            command.arg("-v");
        }
        // The working directory may be inside a mount, which the agent must never hold on to.
        command.args(["agent", "keep"]).current_dir("/");
        // Memory that one thread freed serves the others too: a few requests at a time need no arena each.
        command.env("MALLOC_ARENA_MAX", "2");
        // What a large sync took goes back to the system; by default the C library learns to keep it. The buffers of the
        // requests and blocks on their way are worth keeping: fresh pages cost more than what is done with them.
        command
            .env("MALLOC_MMAP_THRESHOLD_", (4 << 20).to_string())
            .env("MALLOC_TRIM_THRESHOLD_", (16 << 20).to_string());
        command.env_remove("MOUNTCTL_HOME").env_remove("MOUNTCTL_PASSWORD_FILE").env_remove("MOUNTCTL_DEVICE");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(log));
        let mut child = command.spawn().map_err(failed)?;
        let pipe = child.stdout.take().expect("standard output was asked for as a pipe");
        let mut line = String::new();
        BufReader::new(pipe).read_line(&mut line).map_err(failed)?;
        match serde_json::from_str(&line) {
            Ok(Readiness::Ready) => Ok(true),
            Ok(Readiness::Running) => {
                child.wait().map_err(failed)?;
                Ok(false)
            }
            Ok(Readiness::Failed(failure)) => Err(failure),
            Err(_) => Err(Failure::new(Kind::Failed, "the background agent ended while it started")
                .hint(format!("see {}", agent::log_path(&self.home).display()))),
        }
    }
}

/// This program; also after it was replaced on disk.
pub(crate) fn program() -> io::Result<std::path::PathBuf> {
    let link = Path::new("/proc/self/exe");
    if link.exists() { Ok(link.to_owned()) } else { env::current_exe() }
}

/// Asks the agent of this folder. `None`: there is none, or it went away before it took the request.
pub fn ask<T: DeserializeOwned>(folder: &Path, request: &Request) -> Option<Result<T>> {
    let (stream, read, greeting) = greet(folder)?;
    if greeting.version != env!("CARGO_PKG_VERSION") {
        return Some(Err(agent::other_version(&greeting.version)));
    }
    Some(converse(stream, read, request))
}

type Greeted = (UnixStream, BufReader<io::Take<UnixStream>>, Greeting);

/// Meets the agent of this folder. One that dies before it says a word is followed by another, or by nobody.
fn greet(folder: &Path) -> Option<Greeted> {
    let deadline = Instant::now() + HANDOVER;
    loop {
        let stream = socket::connect(folder).ok()?;
        let mut read = BufReader::new(stream.try_clone().ok()?.take(LINE_BYTES_MAX));
        let mut line = Zeroizing::new(String::new());
        let said = read.read_line(&mut line).is_ok_and(|length| length > 0);
        if said || Instant::now() >= deadline {
            let greeting = serde_json::from_str(&line).ok()?;
            return Some((stream, read, greeting));
        }
        std::thread::sleep(HANDOVER_STEP);
    }
}

fn converse<T: DeserializeOwned>(
    mut stream: UnixStream,
    mut read: BufReader<io::Take<UnixStream>>,
    request: &Request,
) -> Result<T> {
    let lost = |_| {
        Failure::new(Kind::AgentGone, "the background agent went away while it worked")
            .hint("run the command again; `mountctl doctor` tells more")
    };
    let mut bytes = Zeroizing::new(serde_json::to_vec(request).expect("a request is plain JSON"));
    bytes.push(b'\n');
    stream.write_all(&bytes).map_err(lost)?;
    let mut line = Zeroizing::new(String::new());
    read.read_line(&mut line).map_err(lost)?;
    if line.is_empty() {
        return Err(lost(io::ErrorKind::UnexpectedEof.into()));
    }
    let garbled = |_| Failure::new(Kind::Failed, "the background agent's answer cannot be read");
    match serde_json::from_str(&line).map_err(garbled)? {
        Reply::Done(value) => serde_json::from_value(value).map_err(garbled),
        Reply::Failed(failure) => Err(failure),
    }
}
