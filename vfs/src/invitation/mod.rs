//! The two sides of an invitation, from the first step to a device that is saved.
//!
//! | module | holds |
//! |---|---|
//! | this one | [`Dialog`]: one exchange over a storage, with people to ask |
//! | [`host`] | the member who lets somebody in |
//! | [`guest`] | whoever is let in |
//! | [`recovery`] | whoever lost every device, and comes back by shares |
//!
//! How a secret travels: the [`Exchange`] says what to post, the storage carries it, and the other side's step comes
//! back from polling. When both people said that the codes fit, the guest seals its new public keys for the host, the
//! host makes the certificates, and seals for the guest what it now is. The guest saves its device before it says that it
//! is done.
//!
//! What could go wrong: an attempt ends because the other side started again; before anybody saw a code, this side just
//! joins the new one. A storage that is away for a moment is waited for. Whoever asks is interrupted: nothing is lost
//! while the dialog is in memory, the next call goes on where it was. If the host's process ends between the new user's
//! certificates and its answer, the guest, which keeps its keys, tries again, and the next host recognizes it by them. If
//! both processes end there, the user exists and nobody holds its keys: it has to be revoked and invited again.

pub mod guest;
pub mod host;
pub mod recovery;

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, select_all};
use parsecfs_core::{
    id::{GreetingAttemptId, InvitationToken, UserId},
    invite::{CancelReason, Exchange, LAST_STEP, NONCE_BYTES, Next, Side, Step},
    storage::{self, Invited, StepAnswer, Storage},
};
use parsecfs_crypto::{PrivateKey, random_bytes, sas::SasCode};
use tokio::time::{Instant, sleep};

use crate::error::{Error, ErrorKind, Result};

/// How long to wait before asking again: soon at first, when the other side may just be answering.
const PAUSES_MS: [u64; 6] = [31, 62, 125, 250, 500, 1000];
/// A storage that cannot be reached is waited for so long.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// How often the other side may start again without this one noticing more than a pause.
const RESTARTS_MAX: usize = 8;

/// One side's way to the other: a greeting at a storage.
enum Line {
    Host { storage: Arc<dyn Storage>, token: InvitationToken },
    Guest { door: Arc<dyn Invited>, greeter: UserId },
}

impl Line {
    fn side(&self) -> Side {
        match self {
            Self::Host { .. } => Side::Greeter,
            Self::Guest { .. } => Side::Claimer,
        }
    }

    fn start(&self) -> BoxFuture<'_, storage::Result<GreetingAttemptId>> {
        match self {
            Self::Host { storage, token } => storage.start_greeting(*token),
            Self::Guest { door, greeter } => door.start_claim(*greeter),
        }
    }

    fn post<'a>(&'a self, attempt: GreetingAttemptId, step: &'a Step) -> BoxFuture<'a, storage::Result<StepAnswer>> {
        match self {
            Self::Host { storage, token } => storage.greet(*token, attempt, step),
            Self::Guest { door, greeter } => door.claim(*greeter, attempt, step),
        }
    }

    fn cancel(&self, attempt: GreetingAttemptId, reason: CancelReason) -> BoxFuture<'_, storage::Result<()>> {
        match self {
            Self::Host { storage, token } => storage.cancel_greeting(*token, attempt, reason),
            Self::Guest { door, greeter } => door.cancel_claim(*greeter, attempt, reason),
        }
    }
}

/// How an attempt ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether this side ended it.
    pub by_us: bool,
    /// Why.
    pub reason: CancelReason,
}

/// A side of an exchange, for its person.
pub trait Person {
    /// The person read the code to the other one.
    fn told(&mut self);

    /// The code that the person heard, `None` when it is not among those shown; any but the right one ends the exchange.
    fn choose(&mut self, code: Option<SasCode>);
}

/// The dialogs of a guest: one for each who may greet, until one of them answers.
#[derive(Default)]
struct Dialogs(Vec<Dialog>);

impl Dialogs {
    fn with(door: &Arc<dyn Invited>, greeters: impl Iterator<Item = UserId>) -> Self {
        let dialog = |greeter| Dialog::new(Line::Guest { door: Arc::clone(door), greeter });
        Self(greeters.map(dialog).collect())
    }

    /// The one that goes on, once it is known.
    fn one(&mut self) -> Result<&mut Dialog> {
        match self.0.as_mut_slice() {
            [dialog] => Ok(dialog),
            _ => Err(broken_dialog()),
        }
    }

    /// Whether the one that went on ended without success.
    fn is_over(&self) -> bool {
        matches!(self.0.as_slice(), [dialog] if dialog.ended.is_some())
    }

    /// Finds out which of those who may greet is there, and keeps that dialog only. The others are told that nobody comes.
    async fn meet_one(&mut self) -> Result<()> {
        while self.0.len() > 1 {
            let (met, index, _) = select_all(self.0.iter_mut().map(|dialog| Box::pin(dialog.meet()))).await;
            let first = self.0.swap_remove(index);
            match met {
                Ok(()) => {
                    let others = std::mem::replace(&mut self.0, vec![first]);
                    for other in others {
                        other.tell_the_other(CancelReason::Manually).await;
                    }
                }
                // This one was revoked meanwhile, or may not greet any more.
                Err(error) if error.kind() == ErrorKind::Denied => {}
                Err(error) => {
                    self.0.push(first);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Before one of them answers there is nothing to say.
impl Person for Dialogs {
    fn told(&mut self) {
        if let Ok(dialog) = self.one() {
            dialog.told();
        }
    }

    fn choose(&mut self, code: Option<SasCode>) {
        if let Ok(dialog) = self.one() {
            dialog.choose(code);
        }
    }
}

/// Has what is said go to the dialog, or dialogs, in a field.
macro_rules! person {
    ($name:ident by $field:ident) => {
        impl crate::invitation::Person for $name {
            fn told(&mut self) {
                self.$field.told();
            }

            fn choose(&mut self, code: Option<parsecfs_crypto::sas::SasCode>) {
                self.$field.choose(code);
            }
        }
    };
}
use person;

/// What a dialog needs from whoever drives it.
enum Turn {
    /// Have the person read this code aloud, then say [`Dialog::told`].
    Tell(SasCode),
    /// Ask the person which code they hear, then say [`Dialog::choose`].
    Choose(Vec<SasCode>),
    /// Say what this side hands over: [`Dialog::hand_over`].
    HandOver,
    /// Take what the other side handed over, then say [`Dialog::accepted`].
    Accept,
    /// All steps are done.
    Done,
    /// It ended without success.
    Ended(Ended),
}

/// One exchange of this side over a storage. Dropping [`Dialog::advance`] in the middle loses nothing.
struct Dialog {
    line: Line,
    exchange: Exchange,
    attempt: Option<GreetingAttemptId>,
    is_told: bool,
    is_accepted: bool,
    restarts: usize,
    ended: Option<Ended>,
}

impl Dialog {
    fn new(line: Line) -> Self {
        let exchange = fresh(line.side());
        Self { line, exchange, attempt: None, is_told: false, is_accepted: false, restarts: 0, ended: None }
    }

    /// Whom a guest talks to.
    fn greeter(&self) -> Option<UserId> {
        match &self.line {
            Line::Guest { greeter, .. } => Some(*greeter),
            Line::Host { .. } => None,
        }
    }

    fn hand_over(&mut self, sealed: Vec<u8>) {
        self.exchange.send(sealed);
    }

    fn accepted(&mut self) {
        self.is_accepted = self.exchange.received().is_some();
    }

    fn end(&mut self, reason: CancelReason) {
        self.exchange.end(reason);
    }

    /// Goes on until the other side has answered once, or needs nothing more.
    async fn meet(&mut self) -> Result<()> {
        let mut patience = Patience::default();
        while !self.exchange.has_met() && self.ended.is_none() {
            self.round(&mut patience).await?;
        }
        Ok(())
    }

    /// Goes on until somebody has to say something.
    async fn advance(&mut self) -> Result<Turn> {
        let mut patience = Patience::default();
        loop {
            if let Some(ended) = self.ended {
                return Ok(Turn::Ended(ended));
            }
            if let Some(code) = self.exchange.own_code().filter(|_| !self.is_told) {
                return Ok(Turn::Tell(code));
            }
            match self.exchange.next() {
                Next::Choose(codes) => return Ok(Turn::Choose(codes)),
                Next::Payload => return Ok(Turn::HandOver),
                Next::Done => return Ok(Turn::Done),
                Next::PostLast(_) if !self.is_accepted => return Ok(Turn::Accept),
                Next::Ended(reason) => {
                    self.tell_the_other(reason).await;
                    self.ended = Some(Ended { by_us: true, reason });
                }
                Next::Post(_) | Next::PostLast(_) => self.round(&mut patience).await?,
            }
        }
    }

    /// Posts what is due once, and takes what comes back.
    async fn round(&mut self, patience: &mut Patience) -> Result<()> {
        let attempt = match self.attempt {
            Some(attempt) => attempt,
            None => match self.line.start().await {
                Ok(attempt) => *self.attempt.insert(attempt),
                Err(error) => return patience.bear(error).await,
            },
        };
        let (step, is_last) = match self.exchange.next() {
            Next::Post(step) => (step, false),
            Next::PostLast(step) => (step, true),
            _ => return Ok(()),
        };
        match self.line.post(attempt, &step).await {
            Ok(StepAnswer::Ended { by, reason }) => self.ended_elsewhere(by, reason),
            Ok(_) if is_last => self.exchange.posted_last(),
            Ok(StepAnswer::Step(step)) => {
                self.exchange.receive(&step);
                patience.answered();
            }
            Ok(StepAnswer::NotYet) => patience.pause().await,
            // Whoever was faster has taken the invitation down: the other side has all that it needs.
            Err(error) if step.number() == LAST_STEP && error.kind() == storage::ErrorKind::NotFound => {
                self.exchange.posted_last();
            }
            Err(error) => patience.bear(error).await?,
        }
        Ok(())
    }

    fn ended_elsewhere(&mut self, by: Side, reason: CancelReason) {
        let is_quiet = reason == CancelReason::Automatically && self.exchange.is_before_codes();
        if is_quiet && self.restarts < RESTARTS_MAX {
            self.restarts += 1;
            self.exchange = fresh(self.line.side());
            self.attempt = None;
        } else {
            self.exchange.end(reason);
            self.ended = Some(Ended { by_us: by == self.line.side(), reason });
        }
    }

    /// So that the other person hears why. One who does not notices when nothing more comes.
    async fn tell_the_other(&self, reason: CancelReason) {
        if let Some(attempt) = self.attempt
            && let Err(error) = self.line.cancel(attempt, reason).await
        {
            tracing::info!(kind = ?error.kind(), "the other side could not be told that the attempt is over");
        }
    }
}

fn fresh(side: Side) -> Exchange {
    Exchange::new(side, PrivateKey::generate(), random_bytes::<NONCE_BYTES>())
}

impl Person for Dialog {
    fn told(&mut self) {
        self.is_told = self.exchange.own_code().is_some();
    }

    fn choose(&mut self, code: Option<SasCode>) {
        self.exchange.choose(code);
    }
}

/// How long to wait before the next look.
#[derive(Default)]
struct Patience {
    looks: usize,
    away_since: Option<Instant>,
}

impl Patience {
    fn answered(&mut self) {
        *self = Self::default();
    }

    async fn pause(&mut self) {
        self.away_since = None;
        self.wait().await;
    }

    async fn wait(&mut self) {
        let pause = PAUSES_MS[self.looks.min(PAUSES_MS.len() - 1)];
        self.looks += 1;
        sleep(Duration::from_millis(pause)).await;
    }

    /// Waits after a failure that may pass; any other, or one that does not pass, is returned.
    async fn bear(&mut self, error: storage::Error) -> Result<()> {
        use storage::ErrorKind::{Offline, OutcomeUnknown, Throttled};
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if !matches!(error.kind(), Offline | OutcomeUnknown | Throttled) || since.elapsed() > AWAY_MAX {
            return Err(error.into());
        }
        self.wait().await;
        Ok(())
    }
}

/// A payload that is not what it has to be, as the other side is told.
fn undecipherable(error: &parsecfs_core::error::Error) -> CancelReason {
    match error.kind() {
        parsecfs_core::error::ErrorKind::Decryption => CancelReason::UndecipherablePayload,
        _ => CancelReason::UndeserializablePayload,
    }
}

fn broken_dialog() -> Error {
    Error::new(ErrorKind::Internal, "an invitation lost its place")
}
