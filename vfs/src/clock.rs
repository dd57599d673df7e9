//! Where this crate gets the time from: handed in, so that tests decide what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use parsecfs_core::time::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970-01-01 UTC.
    fn now_ns(&self) -> i64;

    /// The same in the precision of the documents.
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now_ns() / 1000).unwrap_or(Timestamp::MAX)
    }
}

/// The machine's clock. Made in the wiring of the program only.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX),
        }
    }
}
