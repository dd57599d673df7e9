//! Random schedules of writers and a maintenance client over a store that loses answers, lands writes late and lets
//! time jump; clients crash and come back. Nothing acknowledged may be lost or counted twice, no referenced block may
//! be missing, nobody may raise a false alarm. `PARSECFS_SCHEDULES` sets how many, `PARSECFS_SEED` the first.
//!
//! Protections of the log that can be taken away from outside are, each in a test of its own: the checker must notice.
//! The one that random schedules nearly never need is in `object_log_truncation.rs`.

mod chaos;
mod scene;

use std::panic::AssertUnwindSafe;

use chaos::{Weather, Without};
use futures::FutureExt;

/// As bad as it is for everybody.
const USUAL: Weather = Weather { jumps: 4, pause_after_end: 0 };
/// Weeks pass between an answer and the next step: what truncation must survive.
const WEEKS_PASS: Weather = Weather { jumps: 30, pause_after_end: 1000 };

async fn holds(seed: u64, weather: Weather, without: Without) -> bool {
    AssertUnwindSafe(scene::schedule(seed, weather, without)).catch_unwind().await.is_ok()
}

async fn all_hold(weather: Weather, schedules: u64) {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = setting("PARSECFS_SEED").unwrap_or(0);
    for seed in first..first + setting("PARSECFS_SCHEDULES").unwrap_or(schedules) {
        let holds = holds(seed, weather, Without::Nothing).await;
        assert!(holds, "schedule {seed} fails; PARSECFS_SEED={seed} PARSECFS_SCHEDULES=1 repeats it");
    }
}

/// The checker bites: with one protection less, at least one of so many schedules fails.
async fn is_noticed(weather: Weather, without: Without, schedules: u64) {
    for seed in 0..schedules {
        if !holds(seed, weather, without).await {
            eprintln!("schedule {seed} fails without {without:?}, as it must");
            return;
        }
    }
    panic!("{schedules} schedules hold without {without:?}");
}

#[tokio::test(start_paused = true)]
async fn no_schedule_loses_or_doubles_an_acknowledged_write() {
    all_hold(USUAL, 1000).await;
}

#[tokio::test(start_paused = true)]
async fn no_schedule_fails_when_weeks_pass_between_two_steps() {
    all_hold(WEEKS_PASS, 100).await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_another_operation_is_noticed() {
    is_noticed(USUAL, Without::Identity, 100).await;
}

#[tokio::test(start_paused = true)]
async fn deleting_garbage_unannounced_is_noticed() {
    is_noticed(USUAL, Without::GcIntent, 500).await;
}

#[tokio::test(start_paused = true)]
async fn a_boundary_that_nobody_sees_is_noticed() {
    is_noticed(WEEKS_PASS, Without::Boundary, 500).await;
}
