//! Counts calls: "reopening a cached file makes no request" is a test.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Call, layer, names::*};

/// A storage that counts what it is asked.
pub struct Record {
    inner: Arc<dyn Storage>,
    calls: Mutex<BTreeMap<Call, u64>>,
}

impl Record {
    /// Counts calls of `inner`, from 0.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { inner, calls: Mutex::default() })
    }

    /// Calls since the last look, by method.
    pub fn take(&self) -> BTreeMap<Call, u64> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn around<'a, T>(&'a self, call: Call, answer: BoxFuture<'a, Result<T>>) -> BoxFuture<'a, Result<T>> {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(call).or_default() += 1;
        answer
    }

    fn around_block<'a>(&'a self, answer: BoxFuture<'a, Result<Block>>) -> BoxFuture<'a, Result<Block>> {
        self.around(Call::Get, answer)
    }
}

layer!(Record);
