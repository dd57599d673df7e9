//! The conversation with the kernel: agreeing on what both can do, then requests and answers until the mount is over.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{
    device::{Device, Received, Wait},
    fuse::Fuse,
    reply::Reply,
    request::{Malformed, Operation, Request},
    turns::{Beside, Turn, Turns},
    wire::{InitIn, InitOut, MAJOR, MINOR, MINOR_MIN, NOTIFY_RESEND, capability},
};
use crate::store::on_behalf_of;

/// Largest write request and read-ahead.
pub(super) const REQUEST_BYTES: u32 = 1 << 20;
/// What stands before the data of a write request.
const HEAD_BYTES: usize = 4096;
/// Requests that the kernel keeps in flight by itself (read-ahead and write-back).
const BACKGROUND_REQUESTS: u16 = 64;
/// Threads that take requests by turns: at least two, so that one may wait for a device flush.
const THREADS: std::ops::RangeInclusive<usize> = 2..=4;
/// All that is asked of the kernel; what an older one lacks is done without.
const CAPABILITIES: u32 = capability::ASYNC_READ
    | capability::BIG_WRITES
    | capability::WRITEBACK_CACHE
    | capability::PARALLEL_DIROPS
    | capability::HANDLE_KILLPRIV_V2
    | capability::MAX_PAGES
    | capability::CACHE_SYMLINKS
    | capability::DO_READDIRPLUS
    | capability::READDIRPLUS_AUTO
    | capability::NO_OPEN_SUPPORT
    | capability::NO_OPENDIR_SUPPORT
    | capability::ASYNC_DIO
    | capability::EXPLICIT_INVAL_DATA;

/// Room for any request.
fn request_buffer() -> Vec<u8> {
    vec![0; REQUEST_BYTES as usize + HEAD_BYTES]
}

/// What was agreed on with the kernel, once for the life of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// Minor version of the protocol.
    pub(super) minor: u32,
    /// Capabilities that both have.
    pub(super) flags: u32,
    /// The kernel asks again what a process did not answer.
    pub(super) resends: bool,
}

/// Agrees with the kernel on protocol and capabilities. The first exchange on a new mount.
pub(super) fn agree(device: &Arc<Device>) -> io::Result<Agreed> {
    let mut buffer = request_buffer();
    loop {
        let Received::Request { length, .. } = device.receive(&mut buffer, Wait::Awake, || true)? else {
            return Err(Errno::NODEV.into());
        };
        let (unique, init) = match Request::decode(&buffer[..length]) {
            Ok(Request { unique, operation: Operation::Init(init), .. }) => (unique, init),
            _ => return Err(io::Error::other("the kernel began with something else than INIT")),
        };
        let reply = Reply::new(device, unique);
        if init.major > MAJOR {
            // The kernel then asks again in a version that we know.
            reply.body(&InitOut { major: MAJOR, minor: MINOR, ..InitOut::default() });
            continue;
        }
        if init.major < MAJOR || init.minor < MINOR_MIN {
            reply.error(Errno::PROTO);
            let text = format!("the kernel speaks FUSE {}.{}, needed is {MAJOR}.{MINOR_MIN}", init.major, init.minor);
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let answer = agreed(&init);
        reply.body(&answer);
        let resends = init.flags2 & capability::UPPER_HAS_RESEND != 0;
        return Ok(Agreed { minor: answer.minor, flags: answer.flags, resends });
    }
}

/// Has the kernel ask again what the process before did not answer.
pub(super) fn resume(device: &Device) -> io::Result<()> {
    device.send(0, NOTIFY_RESEND, &[])
}

fn agreed(init: &InitIn) -> InitOut {
    InitOut {
        major: MAJOR,
        minor: MINOR.min(init.minor),
        max_readahead: init.max_readahead.min(REQUEST_BYTES),
        flags: CAPABILITIES & init.flags,
        max_background: BACKGROUND_REQUESTS,
        congestion_threshold: BACKGROUND_REQUESTS,
        max_write: REQUEST_BYTES,
        time_gran: 1,
        max_pages: u16::try_from(REQUEST_BYTES / 4096).unwrap_or(u16::MAX),
        ..InitOut::default()
    }
}

/// Answers requests until the mount is over.
pub(super) fn serve(device: &Arc<Device>, fuse: &Fuse) -> io::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(*THREADS.start(), *THREADS.end());
    let turns = Turns::new();
    let server = Server { device, fuse, turns: &turns };
    std::thread::scope(|scope| {
        let mut running = Vec::with_capacity(threads + 1);
        for number in 0..threads {
            let thread = std::thread::Builder::new().name(format!("parsecfs-fuse-{number}"));
            running.push(thread.spawn_scoped(scope, || server.until_over(|| server.one_of_several()))?);
        }
        if device.has_several_processors() {
            let thread = std::thread::Builder::new().name("parsecfs-beside".into());
            running.push(thread.spawn_scoped(scope, || server.until_over(|| server.beside()))?);
        }
        let outcomes = running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(Errno::IO.into())));
        // All are waited for, whatever the first says.
        outcomes.fold(Ok(()), io::Result::and)
    })
}

/// What the threads share that answer.
#[derive(Clone, Copy)]
struct Server<'a> {
    device: &'a Arc<Device>,
    fuse: &'a Fuse,
    turns: &'a Turns,
}

impl Server<'_> {
    /// Nobody waits for a turn after a thread has ended.
    fn until_over(&self, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let outcome = work();
        self.turns.end();
        outcome
    }

    fn one_of_several(&self) -> io::Result<()> {
        let mut buffer = request_buffer();
        while self.turns.wait_for_several(self.device) {
            match self.device.receive(&mut buffer, Wait::Awake, || self.turns.is(Turn::Several))? {
                Received::Request { length, .. } => {
                    let request = Request::decode(&buffer[..length]);
                    if let Ok(request) = &request {
                        self.turns.note(request);
                    }
                    self.answer(&request);
                }
                Received::Pause => {}
                Received::End => break,
            }
        }
        Ok(())
    }

    fn beside(&self) -> io::Result<()> {
        let Some(mut beside) = Beside::new(self.turns) else {
            self.turns.wait_for_end();
            return Ok(());
        };
        let mut buffer = request_buffer();
        while beside.wait() {
            loop {
                match self.device.receive(&mut buffer, Wait::Asleep, || self.turns.is(Turn::Beside))? {
                    Received::Request { length, at_once } => {
                        let request = Request::decode(&buffer[..length]);
                        beside.answer(request.as_ref().ok(), at_once, || self.answer(&request));
                    }
                    Received::Pause => break,
                    Received::End => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// A defect in one answer is the end of that request (its reply says EIO), not of the mount.
    fn answer(&self, request: &Result<Request<'_>, Malformed>) {
        if catch_unwind(AssertUnwindSafe(|| answer_request(self.device, self.fuse, request))).is_err() {
            tracing::error!("a request ended in a defect");
            self.fuse.count_defect();
        }
    }
}

/// Answers what was read from the device.
pub(super) fn answer_request(device: &Arc<Device>, fuse: &Fuse, request: &Result<Request<'_>, Malformed>) {
    match request {
        Ok(request) => {
            let reply = Reply::new(device, request.unique);
            on_behalf_of(request.number(), || fuse.answer(request, reply));
        }
        Err(Malformed { unique }) => {
            tracing::error!("the kernel sent something that is no request");
            if let Some(unique) = *unique {
                Reply::new(device, unique).error(Errno::INVAL);
            }
        }
    }
}
