//! A store that loses answers, lands writes late and lets time jump, with the parts of the log's protection that the
//! store carries taken away on demand.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use futures::{FutureExt, future::BoxFuture};
use parsecfs_backends::objects::{
    in_memory::InMemoryVerbs,
    verbs::{Created, Creation, Got, Listed, StoreTime, Verbs},
};
use parsecfs_core::{
    storage::{Bytes, Error, ErrorKind, Result},
    time::Timestamp,
};
use rand::{Rng, rngs::StdRng};

pub(crate) const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// No schedule needs a tenth of this: one that does goes round in circles.
const STEPS_MAX: u32 = 200_000;

/// A protection that is taken away to see that the checker notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// All are there.
    Nothing,
    /// A retry is a new operation instead of the very same one.
    Identity,
    /// Garbage is deleted without an entry that says so.
    GcIntent,
    /// Nobody sees the boundary that truncation left.
    Boundary,
}

/// How rough it is.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    /// In a thousand steps, so many jump by hours or weeks.
    pub(crate) jumps: u32,
    /// Others may run for so many turns after "nothing there" was answered.
    pub(crate) pause_after_end: u32,
}

pub(crate) struct Chaos {
    pub(crate) store: Arc<InMemoryVerbs>,
    pub(crate) without: Without,
    rng: Mutex<StdRng>,
    weather: Weather,
    late: Mutex<Vec<(u32, String, Bytes)>>,
    is_calm: AtomicBool,
    steps: AtomicU32,
}

impl Chaos {
    pub(crate) fn new(rng: StdRng, weather: Weather, without: Without) -> Self {
        let store = InMemoryVerbs::new();
        store.advance_ms(HOUR_MS);
        let (late, steps) = (Mutex::default(), AtomicU32::new(0));
        Self { store, without, rng: Mutex::new(rng), weather, late, is_calm: AtomicBool::new(true), steps }
    }

    pub(crate) fn roll<T>(&self, roll: impl FnOnce(&mut StdRng) -> T) -> T {
        roll(&mut self.rng.lock().expect("not poisoned"))
    }

    pub(crate) fn calm(&self, is_calm: bool) {
        self.is_calm.store(is_calm, Ordering::Relaxed);
    }

    fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Relaxed)
    }

    /// Before every operation: others run, time passes, late writes land.
    async fn step(&self) {
        assert!(self.steps.fetch_add(1, Ordering::Relaxed) < STEPS_MAX, "somebody goes round in circles");
        if self.is_calm() {
            return;
        }
        let turns = self.roll(|rng| rng.random_range(0..6));
        self.pass(turns).await;
    }

    async fn pass(&self, turns: u32) {
        yields(turns).await;
        let jump = self.roll(|rng| {
            if rng.random_range(0..1000) < self.weather.jumps {
                [2 * HOUR_MS, DAY_MS, 40 * DAY_MS][rng.random_range(0..3)]
            } else {
                rng.random_range(0..60_000)
            }
        });
        self.store.advance_ms(jump);
        let mut late = self.late.lock().expect("not poisoned");
        for (left, _, _) in late.iter_mut() {
            *left = left.saturating_sub(1);
        }
        for (_, key, bytes) in late.extract_if(.., |(left, _, _)| *left == 0) {
            self.store.create_now(&key, &bytes);
        }
    }

    fn unknown() -> Error {
        Error::new(ErrorKind::OutcomeUnknown, "the answer got lost")
    }
}

/// Lets others run.
pub(crate) async fn yields(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn store_now(store: &InMemoryVerbs) -> Timestamp {
    let now = store.now().now_or_never().expect("never waits").expect("never fails");
    Timestamp::from_micros(now.0 * 1000).expect("in range")
}

impl Verbs for Chaos {
    fn create<'a>(&'a self, objects: &'a [(String, Bytes)]) -> BoxFuture<'a, Result<Creation>> {
        async move {
            self.step().await;
            let dice = if self.is_calm() { 999 } else { self.roll(|rng| rng.random_range(0..1000)) };
            if dice < 60 {
                let left = self.roll(|rng| rng.random_range(1..120));
                let mut late = self.late.lock().expect("not poisoned");
                late.extend(objects.iter().map(|(key, bytes)| (left, key.clone(), bytes.clone())));
                return Err(Self::unknown());
            }
            let created = self.store.create(objects).await?;
            match dice {
                60..120 => Err(Self::unknown()),
                120..180 => Ok(Creation { outcomes: vec![Created::Exists; objects.len()], at: created.at }),
                _ => Ok(created),
            }
        }
        .boxed()
    }

    fn put_hint<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        async move {
            self.step().await;
            self.store.put_hint(key, bytes).await
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>> {
        async move {
            self.step().await;
            let mut got = self.store.get(key).await?;
            if self.without == Without::Boundary && key.starts_with("boundary/") {
                got.bytes = None;
            }
            let pause = self.weather.pause_after_end;
            if got.bytes.is_none() && !self.is_calm() && pause > 0 {
                let turns = self.roll(|rng| if rng.random_ratio(1, 8) { rng.random_range(0..pause) } else { 0 });
                self.pass(turns).await;
            }
            Ok(got)
        }
        .boxed()
    }

    fn get_range<'a>(&'a self, key: &'a str, offset: u64, bytes: u64) -> BoxFuture<'a, Result<Option<Bytes>>> {
        async move {
            self.step().await;
            self.store.get_range(key, offset, bytes).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.step().await;
            self.store.delete(key).await
        }
        .boxed()
    }

    fn list_after<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        async move {
            self.step().await;
            self.store.list_after(prefix, after).await
        }
        .boxed()
    }

    fn now(&self) -> BoxFuture<'_, Result<StoreTime>> {
        self.store.now()
    }
}

/// What a client sees whose log entries reach nobody else: it acts on them, the others know nothing.
pub(crate) struct Unsaid {
    chaos: Arc<Chaos>,
    entries: Mutex<HashMap<String, Bytes>>,
}

impl Unsaid {
    pub(crate) fn new(chaos: Arc<Chaos>) -> Arc<Self> {
        Arc::new(Self { chaos, entries: Mutex::default() })
    }
}

impl Verbs for Unsaid {
    fn create<'a>(&'a self, objects: &'a [(String, Bytes)]) -> BoxFuture<'a, Result<Creation>> {
        async move {
            if !objects.iter().all(|(key, _)| key.contains("/log/")) {
                return self.chaos.create(objects).await;
            }
            self.entries.lock().expect("not poisoned").extend(objects.iter().cloned());
            Ok(Creation { outcomes: vec![Created::Won; objects.len()], at: self.now().await? })
        }
        .boxed()
    }

    fn put_hint<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        self.chaos.put_hint(key, bytes)
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>> {
        let said = self.entries.lock().expect("not poisoned").get(key).cloned();
        async move {
            match said {
                Some(bytes) => Ok(Got { bytes: Some(bytes), at: self.now().await? }),
                None => self.chaos.get(key).await,
            }
        }
        .boxed()
    }

    fn get_range<'a>(&'a self, key: &'a str, offset: u64, bytes: u64) -> BoxFuture<'a, Result<Option<Bytes>>> {
        self.chaos.get_range(key, offset, bytes)
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.chaos.delete(key)
    }

    fn list_after<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        self.chaos.list_after(prefix, after)
    }

    fn now(&self) -> BoxFuture<'_, Result<StoreTime>> {
        self.chaos.now()
    }
}
