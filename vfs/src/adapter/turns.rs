//! Whose turn it is to take requests: several threads', or one's that stays beside the program.
//!
//! A program on the mount sleeps while it is answered. When the answer comes from another processor, each request costs
//! two interrupts between processors, which take longer than most answers (`benches/LEDGER.md`). So while programs ask one
//! after the other for small things, a single thread answers, on the processor where the program runs: changing from
//! one to the other there is a tenth of the price. The thread has the policy `SCHED_IDLE`, for which the kernel takes its
//! processor for a free one (Linux 5.4), so that the program wakes up where it slept instead of on another processor.
//!
//! Where the program is, the thread finds by trying. Beside it, it gets the processor back only when the program sleeps
//! again, with its next request already there; elsewhere it is back too early and has to wait. (Never by asking `/proc`: that
//! may wait for the program, which waits for us.)
//!
//! The price of that policy is that the thread hardly runs where others want the processor. So one of the others looks
//! after it every [`TICK`], and they take over when it has not moved: because nobody asks, because an answer takes long,
//! or because it gets no processor. In the last two cases it is left alone for a while, longer each time. They also take
//! over for large requests, where a second processor helps, and when several programs ask by turns.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

use super::{device::Device, request::Request};

/// How often somebody looks whether the thread beside the program moves.
const TICK: Duration = Duration::from_millis(2);
/// So many small requests are looked at together.
const STRETCH: u32 = 64;
/// In a stretch, programs may change so often before they count as asking by turns: a shell's children are few requests
/// each.
const CHANGES_MAX: u32 = STRETCH / 4;
/// A request to read or write more is better off with several threads.
const SMALL_BYTES: usize = 32 << 10;
/// So many requests show whether it is beside the program.
const PROBE: u32 = 16;
/// Processors that are tried in one turn.
const TRIES: u32 = 8;
/// How long the thread beside the program is left alone after it was stuck: at first, and at most.
const REST: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(500);

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Several,
    Beside,
}

/// Whose turn it is, and what decides that.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
    /// Mirrors the state, for who looks between two requests.
    is_beside: AtomicBool,
    /// One more when the thread beside the program begins an answer, and when it ends one: odd in between.
    beats: AtomicU64,
}

#[derive(Debug)]
struct State {
    turn: Turn,
    /// The mount is over, or another process goes on with it.
    is_over: bool,
    /// Somebody looks after the thread beside the program.
    is_watched: bool,
    stretch: Stretch,
    /// The thread beside the program, once it is ready for its turn.
    beside: Option<Pid>,
    not_before: Instant,
    rest: Duration,
}

/// The requests of late.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stretch {
    requests: u32,
    changes: u32,
    /// Who asked last, as the kernel numbers threads; 0 for the kernel itself.
    program: u32,
}

/// What a stretch of requests shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Nothing new.
    Nothing,
    /// Small requests, one after the other.
    Steady,
    /// Large ones, or several programs by turns.
    Mixed,
}

impl Stretch {
    fn note(&mut self, program: u32, is_small: bool) -> Shown {
        if !is_small {
            *self = Self { program: self.program, ..Self::default() };
            return Shown::Mixed;
        }
        if program != 0 && program != self.program {
            self.changes += 1;
            self.program = program;
        }
        self.requests += 1;
        if self.requests < STRETCH {
            return Shown::Nothing;
        }
        let shown = if self.changes <= CHANGES_MAX && self.program != 0 { Shown::Steady } else { Shown::Mixed };
        *self = Self { program: self.program, ..Self::default() };
        shown
    }
}

impl State {
    /// The several take over. Whoever was `stuck` is left alone for a while.
    fn leave(&mut self, stuck: bool) {
        self.turn = Turn::Several;
        self.stretch = Stretch { program: self.stretch.program, ..Stretch::default() };
        if stuck {
            self.not_before = Instant::now() + self.rest;
            self.rest = (self.rest * 2).min(*REST.end());
        } else {
            self.rest = (self.rest / 2).max(*REST.start());
        }
    }
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                turn: Turn::Several,
                is_over: false,
                is_watched: false,
                stretch: Stretch::default(),
                beside: None,
                not_before: Instant::now(),
                rest: *REST.start(),
            }),
            changed: Condvar::new(),
            is_beside: AtomicBool::new(false),
            beats: AtomicU64::new(0),
        }
    }

    /// Whether it is this turn.
    pub(super) fn is(&self, turn: Turn) -> bool {
        self.is_beside.load(Ordering::Acquire) == (turn == Turn::Beside)
    }

    /// Nobody takes requests any more.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Returns when nobody takes requests any more.
    pub(super) fn wait_for_end(&self) {
        let mut state = self.state.lock();
        while !state.is_over {
            self.changed.wait(&mut state);
        }
    }

    fn changed(&self, state: &State) {
        self.is_beside.store(state.turn == Turn::Beside, Ordering::Release);
        self.changed.notify_all();
    }

    /// Waits until it is the turn of several, and looks after the other one meanwhile; `false` when all is over.
    pub(super) fn wait_for_several(&self, device: &Device) -> bool {
        let mut state = self.state.lock();
        while state.turn == Turn::Beside && !state.is_over {
            if state.is_watched {
                self.changed.wait(&mut state);
                continue;
            }
            state.is_watched = true;
            let before = self.beats.load(Ordering::Relaxed);
            let is_time = self.changed.wait_for(&mut state, TICK).timed_out();
            state.is_watched = false;
            if is_time && state.turn == Turn::Beside && self.beats.load(Ordering::Relaxed) == before {
                let is_stuck = before % 2 == 1 || device.is_asked();
                state.leave(is_stuck);
                if let Some(thread) = state.beside.filter(|_| is_stuck) {
                    go_anywhere(thread);
                }
                self.changed(&state);
            }
        }
        !state.is_over
    }

    /// One of several has a request.
    pub(super) fn note(&self, request: &Request<'_>) {
        let mut state = self.state.lock();
        let shown = state.stretch.note(request.program, request.is_within(SMALL_BYTES));
        let may = state.turn == Turn::Several && state.beside.is_some();
        if shown == Shown::Steady && may && Instant::now() >= state.not_before {
            state.turn = Turn::Beside;
            self.changed(&state);
        }
    }
}

/// The thread that stays beside the program.
#[derive(Debug)]
pub(super) struct Beside<'a> {
    turns: &'a Turns,
    search: Search,
}

/// Where the program may be.
#[derive(Debug)]
struct Search {
    places: Vec<usize>,
    /// Which of them is tried, or was right.
    at: usize,
    is_found: bool,
    tried: u32,
    asked: u32,
    /// Of these, how many were not there yet when the thread was back.
    early: u32,
}

/// What a search comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Stay,
    Move,
    /// It is in none of the places that were tried.
    GiveUp,
}

impl Search {
    fn new(places: Vec<usize>) -> Self {
        Self { places, at: 0, is_found: false, tried: 0, asked: 0, early: 0 }
    }

    /// A turn begins: where it was right the last time, if it was.
    fn begin(&mut self) {
        if !self.is_found {
            self.at += 1;
        }
        (self.is_found, self.tried, self.asked, self.early) = (false, 0, 0, 0);
    }

    fn place(&self) -> Option<usize> {
        self.places.get(self.at % self.places.len().max(1)).copied()
    }

    /// A request was there at once, or not.
    fn note(&mut self, at_once: bool) -> Step {
        self.asked += 1;
        self.early += u32::from(!at_once);
        if self.asked < PROBE {
            return Step::Stay;
        }
        self.is_found = self.early <= PROBE / 2;
        (self.asked, self.early) = (0, 0);
        if self.is_found {
            self.tried = 0;
            return Step::Stay;
        }
        self.tried += 1;
        if self.tried == TRIES {
            return Step::GiveUp;
        }
        self.at += 1;
        Step::Move
    }
}

impl<'a> Beside<'a> {
    /// Makes the calling thread the one; `None` where it may not be.
    pub(super) fn new(turns: &'a Turns) -> Option<Self> {
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
            tracing::debug!(%error, "no thread stays beside the program");
            return None;
        }
        let allowed = sched_getaffinity(None).ok()?;
        let places = (0..CpuSet::MAX_CPU).filter(|&place| allowed.is_set(place)).collect();
        turns.state.lock().beside = Some(gettid());
        Some(Self { turns, search: Search::new(places) })
    }

    /// Waits for its turn; `false` when all is over.
    pub(super) fn wait(&mut self) -> bool {
        let mut state = self.turns.state.lock();
        while state.turn == Turn::Several && !state.is_over {
            self.turns.changed.wait(&mut state);
        }
        let goes_on = !state.is_over;
        drop(state);
        self.search.begin();
        self.go();
        goes_on
    }

    /// Has a request, which was there `at_once` or not, and answers it.
    pub(super) fn answer(&mut self, request: Option<&Request<'_>>, at_once: bool, answer: impl FnOnce()) {
        self.turns.beats.fetch_add(1, Ordering::Relaxed);
        if let Some(request) = request {
            let shown = self.turns.state.lock().stretch.note(request.program, request.is_within(SMALL_BYTES));
            if shown == Shown::Mixed {
                self.give_up(false);
            }
        }
        answer();
        match self.search.note(at_once) {
            Step::Stay => {}
            Step::Move => self.go(),
            Step::GiveUp => self.give_up(true),
        }
        self.turns.beats.fetch_add(1, Ordering::Relaxed);
    }

    fn give_up(&self, stuck: bool) {
        let mut state = self.turns.state.lock();
        if state.turn == Turn::Beside {
            state.leave(stuck);
            self.turns.changed(&state);
        }
    }

    /// Goes where the program is looked for. Where it may not, it stays, and that shows soon.
    fn go(&self) {
        let Some(place) = self.search.place() else { return };
        let mut there = CpuSet::new();
        there.set(place);
        if let Err(error) = sched_setaffinity(None, &there) {
            tracing::debug!(%error, "a thread may not go beside the program");
        }
    }
}

/// Lets a thread run on any processor that this one may run on.
fn go_anywhere(thread: Pid) {
    let outcome = sched_getaffinity(None).and_then(|all| sched_setaffinity(Some(thread), &all));
    if let Err(error) = outcome {
        tracing::debug!(%error, "a thread stays where it gets no processor");
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use super::*;
    use crate::adapter::request::Operation;

    fn asked(program: u32, bytes: u32) -> Request<'static> {
        let operation = Operation::Read { offset: 0, size: bytes };
        Request { unique: 2, ino: 1, uid: 0, gid: 0, program, operation }
    }

    fn steady(turns: &Turns) {
        (0..2 * STRETCH).for_each(|_| turns.note(&asked(7, 4096)));
    }

    /// A device whose requests come through a pipe.
    fn device() -> (std::io::PipeWriter, Device) {
        let (from, to) = std::io::pipe().unwrap();
        (to, Device::over(std::fs::File::from(std::os::fd::OwnedFd::from(from))).unwrap())
    }

    fn ready() -> Turns {
        let turns = Turns::new();
        turns.state.lock().beside = Some(gettid());
        turns
    }

    fn shown(programs: impl IntoIterator<Item = u32>) -> Vec<Shown> {
        let mut stretch = Stretch::default();
        programs
            .into_iter()
            .map(|program| stretch.note(program, true))
            .filter(|shown| *shown != Shown::Nothing)
            .collect()
    }

    #[test]
    fn one_program_and_one_child_after_the_other_are_steady_and_two_by_turns_are_not() {
        assert_eq!(shown((0..STRETCH).map(|_| 7)), [Shown::Steady]);
        assert_eq!(shown((0..STRETCH).map(|n| 7 + n / 8)), [Shown::Steady]);
        assert_eq!(shown((0..STRETCH).map(|n| 7 + n % 2)), [Shown::Mixed]);
        assert_eq!(shown((0..STRETCH).map(|_| 0)), [Shown::Mixed], "the kernel alone has no processor to be beside of");
        assert_eq!(shown((0..STRETCH - 1).map(|_| 7)), []);
    }

    #[test]
    fn a_large_request_is_for_several_and_a_stretch_begins_anew() {
        let mut stretch = Stretch::default();
        (1..STRETCH).for_each(|_| assert_eq!(stretch.note(7, true), Shown::Nothing));
        assert_eq!(stretch.note(7, false), Shown::Mixed);
        (1..STRETCH).for_each(|_| assert_eq!(stretch.note(7, true), Shown::Nothing));
        assert_eq!(stretch.note(7, true), Shown::Steady);
    }

    #[test]
    fn who_stands_still_without_a_request_has_his_next_turn_at_once() {
        let (turns, (_kernel, device)) = (ready(), device());
        steady(&turns);
        assert!(turns.is(Turn::Beside));
        assert!(turns.wait_for_several(&device));
        assert!(turns.is(Turn::Several));
        steady(&turns);
        assert!(turns.is(Turn::Beside));
    }

    #[test]
    fn who_leaves_a_request_lying_is_relieved_and_left_alone() {
        let (turns, (mut kernel, device)) = (ready(), device());
        steady(&turns);
        kernel.write_all(&[1]).unwrap();
        assert!(turns.wait_for_several(&device));
        assert!(turns.state.lock().not_before > Instant::now());
        turns.state.lock().not_before = Instant::now() + REST.end().to_owned();
        steady(&turns);
        assert!(turns.is(Turn::Several));
    }

    #[test]
    fn who_does_not_come_to_an_end_with_an_answer_is_relieved_and_left_alone() {
        let (turns, (_kernel, device)) = (ready(), device());
        steady(&turns);
        turns.beats.fetch_add(1, Ordering::Relaxed);
        assert!(turns.wait_for_several(&device));
        assert_eq!(turns.state.lock().rest, *REST.start() * 2);
    }

    #[test]
    fn without_a_thread_for_it_there_is_no_turn_beside() {
        let turns = Turns::new();
        steady(&turns);
        assert!(turns.is(Turn::Several));
    }

    #[test]
    fn the_end_wakes_who_waits_for_either_turn() {
        let turns = Arc::new(ready());
        let waiting = turns.clone();
        let beside = std::thread::spawn(move || Beside::new(&waiting).is_none_or(|mut beside| beside.wait()));
        let waiting = turns.clone();
        let end = std::thread::spawn(move || waiting.wait_for_end());
        turns.end();
        assert!(!beside.join().unwrap());
        end.join().unwrap();
        steady(&turns);
        assert!(!turns.wait_for_several(&device().1));
    }

    /// What comes of looking for a program that is in this place.
    fn look(search: &mut Search, program: usize, requests: u32) -> Vec<Step> {
        let mut steps: Vec<_> = (0..requests).map(|_| search.note(search.place() == Some(program))).collect();
        steps.retain(|step| *step != Step::Stay);
        steps
    }

    #[test]
    fn a_program_is_found_by_trying_and_found_again_when_it_was_moved() {
        let mut search = Search::new(vec![0, 2, 5, 7]);
        search.begin();
        assert_eq!(look(&mut search, 7, 100), [Step::Move; 2]);
        assert_eq!((search.place(), search.is_found), (Some(7), true));
        assert_eq!(look(&mut search, 0, 100), [Step::Move]);
        search.begin();
        assert_eq!(search.place(), Some(0), "a turn begins where the one before was right");
        assert_eq!(look(&mut search, 0, 100), []);
    }

    #[test]
    fn a_program_that_is_nowhere_is_given_up_and_looked_for_elsewhere_the_next_time() {
        let mut search = Search::new((0..100).collect());
        search.begin();
        let steps = look(&mut search, 100, PROBE * TRIES);
        assert_eq!(steps, [[Step::Move; TRIES as usize - 1].as_slice(), &[Step::GiveUp]].concat());
        let last = search.place();
        search.begin();
        assert!(search.place() > last);
        assert_eq!(Search::new(Vec::new()).place(), None);
    }
}
