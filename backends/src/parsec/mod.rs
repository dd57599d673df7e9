//! An organization on a Parsec v3 server (API 5.5).
//!
//! | module | holds |
//! |---|---|
//! | [`http`] | one request and its answer as bytes; what every HTTP status means |
//! | [`command`] | requests and replies in msgpack; what every reply status means |
//! | [`server`] | commands of each family, signed as the family asks: the seam for further commands |
//! | [`administration`] | makes organizations, for whoever has the server's token |
//! | `certificates`, `vlobs`, `blocks` | the storage contract in commands |
//! | `invitations` | both sides of invitations in commands |
//! | [`terms`] | of service, shown and accepted |
//! | `events`, `sse` | hears of changes made elsewhere |
//!
//! A byte on its way up: the caller seals it; `put` or `commit` makes one command of each block or manifest; `server`
//! adds who is asking; `http` sends it on a pooled connection, again once when that turns out to be dead, and reads a
//! bounded answer; `command` finds the status in it. What comes down goes the same way back and is given to the caller
//! as it is: nothing here opens a seal or checks a signature, that is the reader's duty.
//!
//! What can go wrong: an answer is lost after the write was applied, so whatever the server calls "already there" is
//! read back and is `Ok` when it is what was sent; the server is away, garbles, redirects or stalls, which has a bound in
//! time and bytes and a name of its own; it refuses this user (expired, frozen, revoked, terms of service), the clock or
//! the version, which is told as such; it went back to an older state, which is [`ErrorKind::Rollback`].
//!
//! Not here: retrying later. Whoever calls waits and repeats.

pub mod administration;
mod blocks;
mod certificates;
pub mod command;
mod events;
pub mod http;
mod invitations;
pub mod server;
mod sse;
pub mod terms;
mod vlobs;

use std::sync::{Arc, Mutex};

use parsecfs_core::{
    name::OrganizationId,
    storage::{Capabilities, CertificateCursor, Result, Signer, Storage},
    time::Timestamp,
    url::ServerAddr,
};
use tokio::sync::Semaphore;

use self::{
    command::{Reply, Request},
    events::Listener,
    server::{Clock, Family, Server},
};
pub use self::{http::Limits, invitations::Guest};

/// What a command with one block or manifest takes at most around it.
const COMMAND_BYTES_MAX: u64 = 256;
/// The server's limit for a request.
const REQUEST_BYTES_MAX: u64 = 1 << 20;
/// Manifests in one commit: there is no atomicity to be had, so only a bound for memory.
const COMMIT_WRITES_MAX: usize = 128;
/// Blocks on their way up at once. More do not help the server, fewer leave a slow line idle.
const BLOCK_WRITES_MAX: usize = 8;
/// Blocks on their way down at once: what a long line needs; where it is short, readers ask for less ahead.
const BLOCK_READS_MAX: usize = 64;

/// How to reach an organization on a server.
pub struct Options {
    /// Where.
    pub server: ServerAddr,
    /// Which organization.
    pub organization: OrganizationId,
    /// The organization's root key: only bootstrapping tells it to the server.
    pub root: [u8; 32],
    /// Allows to bootstrap the organization; `None` where the server lets anybody found one.
    pub bootstrap_token: Option<[u8; 16]>,
    /// Proves which device is asking.
    pub signer: Arc<dyn Signer>,
    /// What time it is.
    pub clock: Clock,
    /// How long to wait for what.
    pub limits: Limits,
}

/// One device's connection to an organization on a server. Nothing is sent before it is used.
pub struct ParsecStorage {
    server: Arc<Server>,
    signer: Arc<dyn Signer>,
    root: [u8; 32],
    bootstrap_token: Option<[u8; 16]>,
    block_writes: Semaphore,
    block_reads: Semaphore,
    /// Where the last poll for certificates began: a hint that saves bytes.
    last_cursor: Mutex<CertificateCursor>,
    listener: Listener,
}

impl ParsecStorage {
    /// Makes ready to talk to the server.
    pub fn open(options: Options) -> Result<Arc<Self>> {
        let Options { server, organization, root, bootstrap_token, signer, clock, limits } = options;
        let server = Arc::new(Server::new(&server, Some(&organization), clock, limits)?);
        Ok(Arc::new(Self {
            listener: Listener::new(Arc::clone(&server), Arc::clone(&signer)),
            server,
            signer,
            root,
            bootstrap_token,
            block_writes: Semaphore::new(BLOCK_WRITES_MAX),
            block_reads: Semaphore::new(BLOCK_READS_MAX),
            last_cursor: Mutex::default(),
        }))
    }

    /// The server, for commands that are not part of the storage contract.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Sends a command as this device.
    pub async fn call(&self, request: Request) -> Result<Reply> {
        self.server.call(Family::Authenticated(&*self.signer), request).await
    }
}

impl Storage for ParsecStorage {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            block_bytes_max: REQUEST_BYTES_MAX - COMMAND_BYTES_MAX,
            vlob_bytes_max: REQUEST_BYTES_MAX - COMMAND_BYTES_MAX,
            commit_writes_max: COMMIT_WRITES_MAX,
            atomic_commit: false,
            enforces_roles: true,
            invitations: true,
            event_latency_ms: Some(1000),
        }
    }
}

/// A time in words, for whoever has to set a clock.
pub(crate) fn in_words(difference_us: i64) -> String {
    let seconds = difference_us.unsigned_abs() / 1_000_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How far a clock is from the server's, in words.
pub(crate) fn clock_message(ours: Timestamp, servers: Timestamp) -> String {
    let difference = ours.as_micros().saturating_sub(servers.as_micros());
    let side = if difference < 0 { "behind" } else { "ahead of" };
    format!("the clock of this machine is {} {side} the server's: set it", in_words(difference))
}
