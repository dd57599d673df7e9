//! The seven verbs over a map, with a clock that only moves when told: for tests of everything above them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use parsecfs_core::storage::{Bytes, Result};

use super::verbs::{Created, Creation, Got, Listed, StoreTime, Verbs};

/// An object store in memory. Every verb is atomic.
#[derive(Default)]
pub struct InMemoryVerbs {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (StoreTime, Bytes)>,
    now_ms: i64,
}

impl InMemoryVerbs {
    /// An empty store at time 0.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Lets time pass.
    pub fn advance_ms(&self, ms: i64) {
        self.lock().now_ms += ms;
    }

    /// Creates one object at once.
    pub fn create_now(&self, key: &str, bytes: &Bytes) -> Created {
        let mut state = self.lock();
        let now = StoreTime(state.now_ms);
        if state.objects.contains_key(key) {
            return Created::Exists;
        }
        state.objects.insert(key.to_owned(), (now, bytes.clone()));
        Created::Won
    }

    /// Returns one object at once.
    #[must_use]
    pub fn get_now(&self, key: &str) -> Option<Bytes> {
        self.lock().objects.get(key).map(|(_, bytes)| bytes.clone())
    }

    /// Replaces or removes an object behind everybody's back, as a damaged or hostile store does.
    pub fn tamper(&self, key: &str, bytes: Option<Bytes>) {
        let mut state = self.lock();
        let now = StoreTime(state.now_ms);
        match bytes {
            Some(bytes) => state.objects.insert(key.to_owned(), (now, bytes)),
            None => state.objects.remove(key),
        };
    }

    /// All keys.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Verbs for InMemoryVerbs {
    fn create<'a>(&'a self, objects: &'a [(String, Bytes)]) -> BoxFuture<'a, Result<Creation>> {
        async move {
            let outcomes = objects.iter().map(|(key, bytes)| self.create_now(key, bytes)).collect();
            Ok(Creation { outcomes, at: StoreTime(self.lock().now_ms) })
        }
        .boxed()
    }

    fn put_hint<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        async move {
            self.tamper(key, Some(bytes));
            Ok(())
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>> {
        async move {
            let state = self.lock();
            let bytes = state.objects.get(key).map(|(_, bytes)| bytes.clone());
            Ok(Got { bytes, at: StoreTime(state.now_ms) })
        }
        .boxed()
    }

    fn get_range<'a>(&'a self, key: &'a str, offset: u64, bytes: u64) -> BoxFuture<'a, Result<Option<Bytes>>> {
        async move {
            Ok(self.get_now(key).map(|whole| {
                let length = whole.len() as u64;
                let (from, to) = (offset.min(length), offset.saturating_add(bytes).min(length));
                let index = |at: u64| usize::try_from(at).expect("at most the length of a slice");
                whole.slice(index(from)..index(to))
            }))
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.tamper(key, None);
            Ok(())
        }
        .boxed()
    }

    fn list_after<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        async move {
            let state = self.lock();
            let from = after.max(prefix).to_owned();
            let listed = state.objects.range(from..).take_while(|(key, _)| key.starts_with(prefix));
            let listed = listed.filter(|(key, _)| key.as_str() > after);
            Ok(listed.map(|(key, (modified, _))| Listed { key: key.clone(), modified: *modified }).collect())
        }
        .boxed()
    }

    fn now(&self) -> BoxFuture<'_, Result<StoreTime>> {
        async { Ok(StoreTime(self.lock().now_ms)) }.boxed()
    }
}
