//! Reading ahead from the storage: whoever reads a file from front to back finds the next blocks here.
//!
//! A read that needs a block begins a run; further reads close to it carry it on, and so does the first one of a file.
//! Each time the run has read half of what was asked for ahead, the next part is asked for. Where readers wait all the
//! same, the part grows fourfold, up to what the line carries while a block comes.
//! Blocks are opened and kept as they come, several at a time; a reader that gets there first waits for the block that is
//! on its way instead of asking again.
//!
//! What could go wrong: reads that only look like a run cost blocks that nobody wants, at most one window. A storage that
//! fails, or a cache that is full, ends the run; the reader then asks for itself and hears why.

use std::{ops::Range, sync::Weak, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parsecfs_core::{id::BlockId, manifest::BlockAccess};
use tokio::time::Instant;

use super::Volume;
use crate::{content::PAGE, inode::State};

/// The kernel asks in pieces of at most 1 MiB, several at a time and in no order: what is so close belongs to a run.
const NEAR: u64 = 4 << 20;
/// Asked for ahead at first.
const WINDOW_MIN: u64 = 2 << 20;
/// Asked for ahead at most where the line is short: more would only lie in memory.
const WINDOW_SHORT: u64 = 8 << 20;
/// Asked for ahead at most: what a line of 100 ms needs.
const WINDOW_MAX: u64 = 32 << 20;
/// What a good line carries, in bytes per microsecond.
const LINE_BYTES_US: u128 = 320;

/// A block that is on its way to the local store.
pub(super) type Coming = Shared<BoxFuture<'static, ()>>;

/// A run through a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// How far it was read.
    read: u64,
    /// How far blocks were asked for.
    asked: u64,
    window: u64,
    /// The shortest time that a block took to come.
    latency: Option<Duration>,
}

impl Ahead {
    /// A run that begins with a read up to `end`.
    const fn new(end: u64) -> Self {
        Self { read: end, asked: end, window: WINDOW_MIN, latency: None }
    }

    /// Carries the run on with a read of these bytes, which `waits` for some of them. Tells what to ask for now; `None` when
    /// the read is none of this run.
    fn carry_on(&mut self, bytes: &Range<u64>, waits: bool) -> Option<Range<u64>> {
        if bytes.start > self.read + NEAR || bytes.start + NEAR < self.read {
            return None;
        }
        if bytes.end <= self.read {
            return Some(self.asked..self.asked);
        }
        self.read = bytes.end;
        self.asked = self.asked.max(self.read);
        if self.asked - self.read > self.window / 2 && !waits {
            return Some(self.asked..self.asked);
        }
        if waits && self.asked > self.read {
            self.window = (self.window * 4).min(self.widest());
        }
        let from = self.asked;
        self.asked = self.asked.max(self.read + self.window);
        Some(from..self.asked)
    }

    /// A block came after so long.
    fn came_after(&mut self, time: Duration) {
        self.latency = Some(self.latency.map_or(time, |known| known.min(time)));
    }

    /// What the line carries while a block comes.
    fn widest(&self) -> u64 {
        let carried = self.latency.map_or(0, |latency| latency.as_micros() * LINE_BYTES_US);
        u64::try_from(carried).unwrap_or(WINDOW_MAX).clamp(WINDOW_SHORT, WINDOW_MAX)
    }
}

impl Volume {
    /// After a read of these bytes, of which some are `missing` here: blocks to fetch before anybody asks for them.
    pub(super) fn plan_ahead(
        &self,
        ino: u64,
        state: &mut State,
        bytes: &Range<u64>,
        missing: &[BlockAccess],
    ) -> Vec<BlockAccess> {
        if state.ahead.is_none() && missing.is_empty() {
            return Vec::new();
        }
        // Most who begin at the front go on.
        let mut run = state.ahead.or((bytes.start == 0).then(|| Ahead::new(0)));
        let Some(next) = run.as_mut().and_then(|run| run.carry_on(bytes, !missing.is_empty())) else {
            state.ahead = (!missing.is_empty()).then(|| Ahead::new(bytes.end));
            return Vec::new();
        };
        state.ahead = run;
        let (first, behind) = (next.start / PAGE, next.end.min(state.meta.size).div_ceil(PAGE));
        if first >= behind {
            return Vec::new();
        }
        // A file whose rows cannot be read tells its reader so.
        let planned = self.plan(ino, state, first, behind, &Vec::new());
        let mut ahead = planned.map(|(_, missing)| missing).unwrap_or_default();
        ahead.retain(|block| !missing.contains(block));
        ahead
    }

    /// Has these blocks fetched and kept, all at once, by tasks that nobody waits for.
    pub(super) fn fetch_ahead(&self, ino: u64, blocks: Vec<BlockAccess>) {
        let Some(remote) = self.remote.get() else { return };
        let mut coming = self.coming.lock();
        for block in blocks {
            if coming.contains_key(&block.id) {
                continue;
            }
            let (source, volume) = (remote.source.clone(), remote.volume.clone());
            let task = async move {
                let asked = Instant::now();
                let fetched = source.fetch(&block).await;
                arrive(&volume, ino, block, fetched.ok(), asked.elapsed());
            };
            let task = task.boxed().shared();
            coming.insert(block.id, task.clone());
            remote.runtime.spawn(task);
        }
    }

    /// The block, if it is on its way.
    pub(super) fn coming(&self, block: BlockId) -> Option<Coming> {
        self.coming.lock().get(&block).cloned()
    }

    /// Waits for those of these blocks that are on their way. `false` when none is.
    pub(super) async fn wait_for(&self, blocks: &[BlockAccess]) -> bool {
        let mut waited = false;
        for block in blocks {
            if let Some(coming) = self.coming(block.id) {
                coming.await;
                waited = true;
            }
        }
        waited
    }
}

/// Keeps a block that came after so long, or ends the run that wanted it.
fn arrive(volume: &Weak<Volume>, ino: u64, block: BlockAccess, bytes: Option<Vec<u8>>, after: Duration) {
    // Unmounted meanwhile.
    let Some(volume) = volume.upgrade() else { return };
    let kept = bytes.is_some_and(|bytes| volume.keep(ino, &vec![(block, bytes)]).unwrap_or(false));
    if let Ok(inode) = volume.open_inode(ino) {
        match &mut inode.state.lock().ahead {
            Some(run) if kept => run.came_after(after),
            run => *run = None,
        }
    }
    volume.coming.lock().remove(&block.id);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_run_asks_for_every_byte_once_and_as_far_ahead_as_its_reader_has_to_wait() {
        let ms = Duration::from_millis;
        for (waits, latency, furthest) in [
            (false, ms(100), WINDOW_MIN),
            (true, ms(3), WINDOW_SHORT),
            (true, ms(40), 12_800_000),
            (true, ms(400), WINDOW_MAX),
        ] {
            let mut run = Ahead::new(0);
            run.came_after(latency);
            let (mut asked, mut most) = (0, 0);
            for at in (0..100).map(|at| at * MIB) {
                let next = run.carry_on(&(at..at + MIB), waits).unwrap();
                if !next.is_empty() {
                    assert_eq!(next.start, asked.max(at + MIB), "nothing twice, nothing left out");
                    asked = next.end;
                }
                most = most.max(asked - (at + MIB));
                assert!(asked > at + MIB, "{at}");
            }
            assert_eq!(most, furthest);
        }
    }

    #[test]
    fn pieces_in_no_order_are_one_run_and_far_ones_are_none() {
        let mut run = Ahead::new(0);
        for at in [1, 0, 3, 2, 4, 6, 5] {
            assert!(run.carry_on(&(at * MIB..(at + 1) * MIB), false).is_some());
        }
        assert_eq!(run.read, 7 * MIB);
        let before = run;
        assert!(run.carry_on(&(6 * MIB..7 * MIB), true).unwrap().is_empty(), "the same again gets nowhere");
        assert_eq!(run.carry_on(&(50 * MIB..51 * MIB), true), None);
        assert_eq!(run.carry_on(&(0..MIB), true), None);
        assert_eq!(run, before);
    }
}
