//! For fuzzers.

use std::collections::BTreeMap;

pub use super::segment::fuzzing::Session;
use super::{index::Counters, journal::replay_frame};

/// Reads rows of the journal, as two frames in a row.
pub fn read_journal_frame(bytes: &[u8]) {
    let counters = Counters { ino: 0, cookie: 0, change: 0, lost: 0 };
    let (mut group, mut rows, mut counters) = (Vec::new(), BTreeMap::new(), counters);
    for _ in 0..2 {
        drop(replay_frame(bytes, &mut group, &mut rows, &mut counters));
    }
}
