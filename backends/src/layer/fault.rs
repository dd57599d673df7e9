//! Makes the Nth call go wrong, in the ways that storages do.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use parsecfs_core::storage::{Error, ErrorKind};

use super::{Call, layer, names::*};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not reached: nothing happens, the answer is `Offline`.
    FailBefore,
    /// Applied, but the answer is lost: `OutcomeUnknown`.
    FailAfter,
    /// There is no space: nothing happens, the answer is `Full`.
    Full,
    /// No answer ever comes, and nothing happens.
    Stall,
    /// A block comes back with one byte changed; other calls are left alone.
    Corrupt,
}

/// A storage in which chosen calls go wrong.
pub struct Faulty {
    inner: Arc<dyn Storage>,
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    calls: u64,
    faults: Vec<(u64, Fault)>,
}

impl Faulty {
    /// A storage that works, so far.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { inner, plan: Mutex::default() })
    }

    /// Lets the `nth` call from now on go wrong, 0 being the next.
    pub fn plan(&self, nth: u64, fault: Fault) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let call = plan.calls + nth;
        plan.faults.push((call, fault));
    }

    /// Forgets what was planned: everything works again.
    pub fn clear(&self) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).faults.clear();
    }

    fn next(&self) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let call = plan.calls;
        plan.calls += 1;
        plan.faults.iter().find(|(at, _)| *at == call).map(|(_, fault)| *fault)
    }

    fn around<'a, T: Send + 'a>(&'a self, _: Call, answer: BoxFuture<'a, Result<T>>) -> BoxFuture<'a, Result<T>> {
        let fault = self.next();
        async move {
            match fault {
                None | Some(Fault::Corrupt) => answer.await,
                Some(Fault::FailBefore) => Err(Error::new(ErrorKind::Offline, "fault: not reached")),
                Some(Fault::Full) => Err(Error::new(ErrorKind::Full, "fault: no space")),
                Some(Fault::Stall) => futures::future::pending().await,
                Some(Fault::FailAfter) => {
                    answer.await?;
                    Err(Error::new(ErrorKind::OutcomeUnknown, "fault: the answer was lost"))
                }
            }
        }
        .boxed()
    }

    fn around_block<'a>(&'a self, answer: BoxFuture<'a, Result<Block>>) -> BoxFuture<'a, Result<Block>> {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let corrupts = plan.faults.contains(&(plan.calls, Fault::Corrupt));
        drop(plan);
        let answer = self.around(Call::Get, answer);
        async move {
            let mut block = answer.await?;
            if corrupts {
                let mut bytes = block.bytes.to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last ^= 1;
                }
                block.bytes = bytes.into();
            }
            Ok(block)
        }
        .boxed()
    }
}

layer!(Faulty);
