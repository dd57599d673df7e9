//! The seven things an object store must be able to do for us, and nothing more.
//!
//! Only create-if-absent decides anything; every other object is either immutable or a hint that may be stale, absent
//! or wrong without harm.

use futures::future::BoxFuture;
use parsecfs_core::storage::{Bytes, Result};

/// The store's own time in milliseconds since 1970; differences of it are meaningful, whoever asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreTime(pub i64);

impl StoreTime {
    /// Milliseconds from `earlier` to `self`.
    #[must_use]
    pub fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What a create found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The name was free and now holds our bytes.
    Won,
    /// Something is there: perhaps ours, from an earlier try whose answer was lost. Read it.
    Exists,
}

/// The answer to [`Verbs::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// One for each object.
    pub outcomes: Vec<Created>,
    /// The store's time of the answer.
    pub at: StoreTime,
}

/// The answer to [`Verbs::get`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The object, `None` when there is none.
    pub bytes: Option<Bytes>,
    /// The store's time of this very answer.
    pub at: StoreTime,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// When it was written.
    pub modified: StoreTime,
}

/// An object store with create-if-absent.
///
/// Keys are lower-case ASCII with `/`; no key is a prefix of another one + `/`. Every write that was answered is on
/// stable storage. An error answer to a write leaves it unknown whether the write was applied, now or later, except
/// `Full` and `Denied`, which leave nothing.
pub trait Verbs: Send + Sync {
    /// Creates objects under names that are free. Never replaces. With several objects, each stands for itself: an
    /// error leaves any of them created.
    fn create<'a>(&'a self, objects: &'a [(String, Bytes)]) -> BoxFuture<'a, Result<Creation>>;

    /// Creates or replaces a hint.
    fn put_hint<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Returns a whole object. Sees every create that was answered before the call.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>>;

    /// Returns part of an object, shorter at its end, `None` when there is none.
    fn get_range<'a>(&'a self, key: &'a str, offset: u64, bytes: u64) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// Deletes an object; an absent one is fine.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Returns all objects whose key starts with `prefix` (which ends in `/`) and is greater than `after`, sorted.
    fn list_after<'a>(&'a self, prefix: &'a str, after: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>>;

    /// Returns the store's time.
    fn now(&self) -> BoxFuture<'_, Result<StoreTime>>;
}
