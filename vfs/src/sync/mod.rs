//! Sync: brings the local tree and the storage together, both ways, in the background.
//!
//! Inbound reads what changed on the storage and merges it into the tree; outbound stores what changed here. A round
//! is inbound, then outbound, again while somebody else is faster. One round runs at a time. Each step looks, does its
//! slow work, and hands a batch to the tree, which applies it as one or says that it moved on; so a crash, a lost
//! answer or a dropped future leaves nothing half done, and what was stored but not recorded is recognised as this
//! device's own.
//!
//! Sync never decides about names or content by itself: that is `core::merge`, and `round` for the tree around it.
//! It holds no lock across an await but the one that keeps rounds apart.

mod abandoned;
mod driver;
mod inbound;
mod outbound;
mod plan;
mod remote;
mod round;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use parsecfs_core::{
    id::{BlockId, RealmId, VlobId},
    time::Timestamp,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
};

use self::{abandoned::Abandoned, plan::Readiness, remote::blocking, status::Problems};
pub use self::{
    inbound::InboundReport,
    outbound::OutboundReport,
    remote::RemoteBlocks,
    status::{Problem, SyncStatus, Waiting},
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
    organization::Organization,
    tree::LocalTree,
};

/// Makes ids, and jitter.
pub type Random = Arc<dyn Fn() -> [u8; 16] + Send + std::marker::Sync>;

/// How often a round starts over because somebody else was faster or something changed meanwhile. Each time at least
/// one device gets on, so only a storm of writers comes near.
const ROUND_TRIES_MAX: usize = 200;

/// When sync does its work.
#[derive(Clone)]
pub struct SyncOptions {
    /// How long an entry must not have changed before it goes up.
    pub quiet: Duration,
    /// How long an entry that never stops changing waits.
    pub quiet_max: Duration,
    /// How often to ask a storage that never tells.
    pub poll: Duration,
    /// First wait after a failure; doubles with each.
    pub backoff_min: Duration,
    /// Longest wait after a failure.
    pub backoff_max: Duration,
    /// Makes ids, and jitter.
    pub random: Random,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl SyncOptions {
    /// What a mount uses.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            quiet: Duration::from_secs(1),
            quiet_max: Duration::from_secs(60),
            poll: Duration::from_secs(30),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            random: Arc::new(parsecfs_crypto::random_bytes::<16>),
            clock,
        }
    }
}

/// What [`Sync::sync_now`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Newer versions that came in.
    pub downloaded: usize,
    /// Entries stored.
    pub uploaded: usize,
    /// Copies made of files that changed on both sides.
    pub conflicts: usize,
    /// Entries that cannot be synced; `status` tells which and why.
    pub problems: usize,
}

/// What all parts of sync share.
struct Engine {
    tree: Arc<dyn LocalTree>,
    organization: Arc<Organization>,
    realm: RealmId,
    handle: Handle,
    random: Random,
    clock: Arc<dyn Clock>,
    /// Nanoseconds since the epoch when this was made.
    began_ns: i64,
    /// Held by the round that runs.
    turn: tokio::sync::Mutex<()>,
    /// For short sections only.
    state: Mutex<State>,
    /// Rises at the end of every round.
    rounds: watch::Sender<u64>,
    /// Somebody waits for what else would rest for a while.
    hurry: Notify,
    abandoned: Arc<Abandoned>,
}

#[derive(Default)]
struct State {
    problems: Problems,
    online: bool,
    waiting: Option<Waiting>,
    last_success_ns: Option<i64>,
    downloads: u64,
    /// When each pending entry was first seen.
    waiting_since: BTreeMap<VlobId, i64>,
    /// Entries of which the storage has a version that we have not read.
    conflicting: BTreeSet<VlobId>,
    /// How far this process has asked; behind the tree's checkpoint never, before it while a version cannot be read.
    polled: u64,
    /// Blocks that the storage lost: they are put again under other ids.
    gone_blocks: BTreeSet<BlockId>,
    /// The storage has seen a time later than our clock's.
    not_before: Option<Timestamp>,
}

impl Engine {
    /// Rounds until neither side has anything that the other lacks.
    async fn sync(&self) -> Result<SyncReport> {
        let _turn = self.turn.lock().await;
        self.state.lock().problems.retry_downloads();
        let mut report = SyncReport::default();
        let mut settled = false;
        for _ in 0..ROUND_TRIES_MAX {
            let inbound = self.inbound_once().await?;
            report.downloaded += inbound.applied;
            report.conflicts += inbound.conflicts;
            let outbound = self.outbound_once(Readiness::All).await?;
            report.uploaded += outbound.stored;
            settled = inbound.applied == 0 && outbound == OutboundReport::default();
            if settled {
                break;
            }
        }
        report.problems = self.state.lock().problems.list().len();
        if settled {
            Ok(report)
        } else {
            Err(Error::new(ErrorKind::Busy, "changes come faster than they can be synced"))
        }
    }

    /// One background round; tells when the next entry will be ready.
    async fn background_round(&self, quiet: Duration, quiet_max: Duration, certificates: bool) -> Result<Option<i64>> {
        let _turn = self.turn.lock().await;
        if certificates {
            self.organization.refresh().await?;
        }
        for _ in 0..ROUND_TRIES_MAX {
            self.inbound_once().await?;
            let readiness = Readiness::Quiet {
                now_ns: self.clock.now_ns(),
                began_ns: self.began_ns,
                quiet_ns: nanoseconds(quiet),
                quiet_max_ns: nanoseconds(quiet_max),
            };
            let outbound = self.outbound_once(readiness).await?;
            if !outbound.conflict && !outbound.again {
                return Ok(outbound.next_ns);
            }
        }
        Err(Error::new(ErrorKind::Busy, "changes come faster than they can be synced"))
    }

    /// Remembers how a round ended.
    fn ended<T>(&self, result: &Result<T>, next_try: Option<Duration>) {
        {
            let mut state = self.state.lock();
            let now_ns = self.clock.now_ns();
            match result {
                Ok(_) => {
                    state.online = true;
                    state.waiting = None;
                    state.last_success_ns = Some(now_ns);
                }
                Err(error) => {
                    state.online &= error.kind() != ErrorKind::Offline;
                    let next_try_ns = now_ns.saturating_add(nanoseconds(next_try.unwrap_or_default()));
                    state.waiting = Some(Waiting { kind: error.kind(), reason: reason(error), next_try_ns });
                }
            }
        }
        self.rounds.send_modify(|rounds| *rounds += 1);
    }
}

/// The error and what caused it, in one line.
fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Sync of one workspace. Dropping it stops the background task at its next await.
pub struct Sync {
    engine: Arc<Engine>,
    stop: watch::Sender<bool>,
    driver: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Sync {
    /// Starts the background task.
    #[must_use]
    pub fn start(
        tree: Arc<dyn LocalTree>,
        organization: Arc<Organization>,
        realm: RealmId,
        handle: Handle,
        options: SyncOptions,
    ) -> Self {
        let mut sync = Self::stepped(tree, organization, realm, handle.clone(), &options);
        let driver = driver::Driver::new(sync.engine.clone(), options, sync.stop.subscribe());
        sync.driver = tokio::sync::Mutex::new(Some(handle.spawn(driver.run())));
        sync
    }

    /// The same without a background task: nothing happens but what the caller asks for.
    #[must_use]
    pub fn stepped(
        tree: Arc<dyn LocalTree>,
        organization: Arc<Organization>,
        realm: RealmId,
        handle: Handle,
        options: &SyncOptions,
    ) -> Self {
        let engine = Engine {
            tree,
            organization,
            realm,
            handle,
            random: options.random.clone(),
            began_ns: options.clock.now_ns(),
            clock: options.clock.clone(),
            turn: tokio::sync::Mutex::new(()),
            state: Mutex::default(),
            rounds: watch::Sender::new(0),
            hurry: Notify::new(),
            abandoned: Arc::default(),
        };
        Self { engine: Arc::new(engine), stop: watch::Sender::new(false), driver: tokio::sync::Mutex::new(None) }
    }

    /// Syncs now, both ways, without waiting for quiet, until neither side has anything that the other lacks.
    pub async fn sync_now(&self) -> Result<SyncReport> {
        let result = self.engine.sync().await;
        self.engine.ended(&result, None);
        result
    }

    /// One inbound step.
    pub async fn inbound_once(&self) -> Result<InboundReport> {
        let _turn = self.engine.turn.lock().await;
        self.engine.inbound_once().await
    }

    /// One outbound step, of everything that waits. After a conflict an inbound step has to come first.
    pub async fn outbound_once(&self) -> Result<OutboundReport> {
        let _turn = self.engine.turn.lock().await;
        self.engine.outbound_once(Readiness::All).await
    }

    /// Waits until everything that was acknowledged here is on the storage, which it goes to now; `false` when it takes longer.
    pub async fn wait_synced(&self, timeout: Duration) -> Result<bool> {
        let mut rounds = self.engine.rounds.subscribe();
        let synced = async {
            let mut asked = false;
            loop {
                rounds.borrow_and_update();
                let tree = self.engine.tree.clone();
                let (entries, _) = blocking(&self.engine.handle, move || tree.pending_total()).await?;
                if entries == 0 {
                    return Ok(true);
                }
                if !std::mem::replace(&mut asked, true) {
                    // Once: after a failure the next try comes when it comes.
                    self.engine.hurry.notify_one();
                }
                if rounds.changed().await.is_err() {
                    return Ok(false);
                }
            }
        };
        tokio::time::timeout(timeout, synced).await.unwrap_or(Ok(false))
    }

    /// What is going on. Asks the local tree, so not for a runtime thread.
    pub fn status(&self) -> Result<SyncStatus> {
        let (upload_entries, upload_bytes) = self.engine.tree.pending_total()?;
        let state = self.engine.state.lock();
        Ok(SyncStatus {
            online: state.online,
            upload_entries,
            upload_bytes,
            download_entries: state.downloads,
            problems: state.problems.list(),
            waiting: state.waiting.clone(),
            last_success_ns: state.last_success_ns,
        })
    }

    /// Ends the background task after its present round. Nothing is lost: what waits goes up next time.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(driver) = self.driver.lock().await.take() {
            // A task that panicked has ended too, and has said so.
            let _ = driver.await;
        }
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.get_mut().take() {
            driver.abort();
        }
    }
}
