//! When rounds run: after a quiet period, when the storage tells of a change, when somebody waits for it, and again after
//! a failure.
//!
//! One task. It wakes for local changes, for events and for its own timer, and looks at most once in a quiet period
//! however much changes.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, Stream, StreamExt};
use parsecfs_core::storage::Event;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Engine, SyncOptions};
use crate::error::ErrorKind;

/// While programs keep changing things, they have the machine for themselves, but not for longer than this.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// When there is nothing to wait for but a wake-up.
const LONG: Duration = Duration::from_secs(3600);

pub(super) struct Driver {
    engine: Arc<Engine>,
    options: SyncOptions,
    stop: watch::Receiver<bool>,
    failures: u32,
    /// Certificates may have been added since the last round that ended well.
    certificates: bool,
    /// The next round takes what else would rest for a while.
    hurried: bool,
}

impl Driver {
    pub(super) fn new(engine: Arc<Engine>, options: SyncOptions, stop: watch::Receiver<bool>) -> Self {
        Self { engine, options, stop, failures: 0, certificates: true, hurried: false }
    }

    pub(super) async fn run(mut self) {
        let mut events = self.engine.organization.storage().events();
        let tells = self.engine.organization.storage().capabilities().event_latency_ms.is_some();
        let idle = if tells { LONG } else { self.options.poll };
        let mut stop = self.stop.clone();
        let mut change = 0;
        let mut next = Instant::now();
        // Since when programs have been changing things; not listened to again before the round that follows.
        let mut busy_since: Option<Instant> = None;
        loop {
            let engine = self.engine.clone();
            tokio::select! {
                () = stopped(&mut stop) => return,
                newest = engine.tree.changed(change), if busy_since.is_none() => {
                    change = newest;
                    busy_since = Some(Instant::now());
                    if self.failures == 0 {
                        next = next.min(Instant::now() + self.options.quiet);
                    }
                }
                () = engine.hurry.notified() => {
                    self.hurried = true;
                    next = Instant::now();
                }
                event = next_event(&mut events) => {
                    if let Some(now) = self.heard(event) {
                        next = now;
                    }
                }
                () = sleep_until(next) => {
                    let newest = engine.tree.changed(change).now_or_never();
                    let busy = busy_since.is_some_and(|since| since.elapsed() < BUSY_MAX.min(self.options.quiet_max));
                    if let (Some(newest), true) = (newest, busy && !self.hurried) {
                        change = newest;
                        next = Instant::now() + self.options.quiet;
                        continue;
                    }
                    busy_since = None;
                    next = Instant::now() + self.round(idle).await;
                }
            }
        }
    }

    /// Whether an event asks for a round at once.
    fn heard(&mut self, event: Event) -> Option<Instant> {
        self.certificates |= matches!(event, Event::Certificates | Event::Missed);
        match event {
            Event::Vlobs(realm) if realm != self.engine.realm => None,
            Event::Vlobs(_) | Event::Certificates | Event::Missed => (self.failures == 0).then(Instant::now),
            Event::Online => Some(Instant::now()),
            Event::Offline => {
                self.engine.state.lock().online = false;
                None
            }
        }
    }

    /// Runs a round and tells how long to wait for the next.
    async fn round(&mut self, idle: Duration) -> Duration {
        let SyncOptions { quiet, quiet_max, .. } = self.options;
        let quiet = if std::mem::take(&mut self.hurried) { Duration::ZERO } else { quiet };
        let result = self.engine.background_round(quiet, quiet_max, self.certificates).await;
        let wait = match &result {
            Ok(next_ns) => {
                self.failures = 0;
                self.certificates = false;
                let ready = next_ns.map(|ns| Duration::from_nanos(ns.try_into().unwrap_or(0)));
                // Not more often than once in a quiet period, whatever changes.
                ready.map_or(idle, |ready| ready.max(self.options.quiet / 4)).min(idle)
            }
            Err(error) => {
                let wait = self.backoff();
                if error.kind() == ErrorKind::Offline {
                    tracing::debug!(%error, failures = self.failures, "offline");
                } else if self.failures == 1 {
                    tracing::warn!(%error, "sync has to wait");
                }
                wait
            }
        };
        self.engine.ended(&result, Some(wait));
        wait
    }

    /// Doubles with each failure, less a random part, so that devices do not come back all at once.
    fn backoff(&mut self) -> Duration {
        let doubled = self.options.backoff_min.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let full = doubled.min(self.options.backoff_max);
        let part = u32::from((self.engine.random)()[0]);
        full - (full / 2) * part / 256
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // Whoever could stop us is gone, and aborts us.
        std::future::pending().await
    }
}

/// A storage whose stream ended tells nothing any more.
async fn next_event(events: &mut (impl Stream<Item = Event> + Unpin)) -> Event {
    match events.next().await {
        Some(event) => event,
        None => std::future::pending().await,
    }
}
