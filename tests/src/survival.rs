//! What tests of a mount that outlives its agent share.

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

/// Longer than a restart takes on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}

/// How long the mount did not answer after this: a new name is never answered from a cache.
#[must_use]
pub fn unanswered_since(killed: Instant, dir: &Path) -> Duration {
    File::create(dir.join(format!("probe-{:?}", killed.elapsed()))).expect("it answers");
    killed.elapsed()
}
