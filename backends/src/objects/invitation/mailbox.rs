//! Where the two sides of one invitation leave each other sealed objects, in a store that refuses nothing.
//!
//! Name and key come from the token, so whoever looks at the store learns neither, and who has the token finds both.
//! Objects are created and never replaced. The number of an attempt goes up by one: an attempt is over when its `over`
//! is there, and the first that is not over is the live one.
//!
//! What could go wrong: two processes of a side, or two guests with one link, start at once. Each `join` is created once,
//! so the second finds it taken, ends that attempt and goes on to the next; the first sees `over` at its next step. A
//! step that was posted with other bytes is never replaced, and tells its second poster so.

use parsecfs_core::{
    document::{Field, from_msgpack, to_msgpack},
    id::{GreetingAttemptId, InvitationToken, UserId},
    invite::{CancelReason, Side, Step},
    storage::{Error, ErrorKind, Result, StepAnswer},
};
use parsecfs_crypto::{SecretKey, sha256};
use rmpv::Value;

use super::super::{
    key, random,
    verbs::{Created, Verbs},
};

/// What names are derived for.
const NAME: &[u8; 16] = b"invitation  name";
/// Attempts of one greeting: nobody types that many.
const ATTEMPTS_MAX: u32 = 4096;
/// In front of the token, so that nothing else is ever derived from the same bytes.
const DOMAIN: &[u8] = b"parsecfs invitation";

const CANCELLED: &[u8] = b"cancelled";
const FINISHED: &[u8] = b"finished";

/// What became of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Cancelled,
    Finished,
}

impl End {
    pub(super) fn told(self) -> Error {
        Error::new(
            ErrorKind::NotFound,
            match self {
                Self::Cancelled => "the invitation was cancelled",
                Self::Finished => "the invitation was used already",
            },
        )
    }
}

/// The objects of one invitation.
pub(super) struct Mailbox<'a> {
    verbs: &'a dyn Verbs,
    name: [u8; 16],
    key: SecretKey,
}

/// One side of one greeting in it.
pub(super) struct Greeting<'a> {
    mailbox: &'a Mailbox<'a>,
    greeter: UserId,
    side: Side,
}

impl<'a> Mailbox<'a> {
    pub(super) fn new(verbs: &'a dyn Verbs, token: InvitationToken) -> Self {
        let key = SecretKey::from_bytes(*sha256(&[DOMAIN, token.as_bytes()].concat()).as_bytes());
        Self { verbs, name: key.derive_uuid(NAME), key }
    }

    pub(super) fn name(&self) -> &[u8; 16] {
        &self.name
    }

    pub(super) fn greeting(&'a self, greeter: UserId, side: Side) -> Greeting<'a> {
        Greeting { mailbox: self, greeter, side }
    }

    /// The key of one object: none opens in the place of another.
    fn key_of(&self, object: &str) -> SecretKey {
        let digest = sha256(object.as_bytes());
        let (purpose, _) = digest.as_bytes().split_first_chunk::<16>().expect("a digest has 32 bytes");
        self.key.derive(purpose)
    }

    pub(super) async fn get(&self, what: &str) -> Result<Option<Vec<u8>>> {
        let object = key::invitation(&self.name, what);
        let Some(sealed) = self.verbs.get(&object).await?.bytes else { return Ok(None) };
        let changed =
            |error| Error::new(ErrorKind::Corrupt, "something of the invitation was changed").caused_by(error);
        self.key_of(&object).open(&sealed).map(Some).map_err(changed)
    }

    /// Creates an object. `false` when others, or other bytes, are there.
    pub(super) async fn put(&self, what: &str, plain: &[u8]) -> Result<bool> {
        let object = key::invitation(&self.name, what);
        let sealed = self.key_of(&object).seal(plain);
        let created = self.verbs.create(&[(object, sealed.into())]).await?;
        Ok(created.outcomes == [Created::Won] || self.get(what).await?.as_deref() == Some(plain))
    }

    pub(super) async fn end(&self) -> Result<Option<End>> {
        match self.get("end").await?.as_deref() {
            None => Ok(None),
            Some(CANCELLED) => Ok(Some(End::Cancelled)),
            Some(FINISHED) => Ok(Some(End::Finished)),
            Some(_) => Err(Error::new(ErrorKind::Unsupported, "the invitation ended in a way that is not known")),
        }
    }

    pub(super) async fn set_end(&self, end: End) -> Result<()> {
        let said = match end {
            End::Cancelled => CANCELLED,
            End::Finished => FINISHED,
        };
        if self.put("end", said).await? {
            return Ok(());
        }
        Err(self.end().await?.unwrap_or(end).told())
    }

    async fn require_open(&self) -> Result<()> {
        self.end().await?.map_or(Ok(()), |end| Err(end.told()))
    }
}

impl Greeting<'_> {
    fn object(&self, attempt: u32, what: &str) -> String {
        format!("{}/{attempt:04x}/{what}", self.greeter)
    }

    fn step(&self, attempt: u32, number: u8, side: Side) -> String {
        self.object(attempt, &format!("{number}-{}", letter(side)))
    }

    pub(super) async fn start(&self) -> Result<GreetingAttemptId> {
        self.mailbox.require_open().await?;
        let join = format!("join-{}", letter(self.side));
        for attempt in 0..ATTEMPTS_MAX {
            if self.over(attempt).await?.is_some() {
                continue;
            }
            // Random, so that nobody else's is taken for one's own.
            if self.mailbox.put(&self.object(attempt, &join), &random::<16>()).await? {
                return Ok(attempt_id(attempt));
            }
            self.end(attempt, CancelReason::Automatically).await?;
        }
        Err(Error::new(ErrorKind::Denied, "too many attempts with this invitation: invite again"))
    }

    pub(super) async fn post(&self, attempt: GreetingAttemptId, step: &Step) -> Result<StepAnswer> {
        self.mailbox.require_open().await?;
        let attempt = attempt_number(attempt)?;
        if let Some((by, reason)) = self.over(attempt).await? {
            return Ok(StepAnswer::Ended { by, reason });
        }
        if step.side() != self.side {
            return Err(Error::new(ErrorKind::Internal, "a step of the other side"));
        }
        if !self.mailbox.put(&self.step(attempt, step.number(), self.side), &step.to_bytes()).await? {
            return Err(Error::new(ErrorKind::VersionConflict, "this side said something else at this step"));
        }
        let other = self.side.other();
        let Some(bytes) = self.mailbox.get(&self.step(attempt, step.number(), other)).await? else {
            return Ok(StepAnswer::NotYet);
        };
        let garbled = |error| Error::new(ErrorKind::Corrupt, "the other side's step makes no sense").caused_by(error);
        let answer = Step::from_bytes(other, &bytes).map_err(garbled)?;
        if answer.number() != step.number() {
            return Err(Error::new(ErrorKind::Corrupt, "the other side's step is another one"));
        }
        Ok(StepAnswer::Step(answer))
    }

    pub(super) async fn cancel(&self, attempt: GreetingAttemptId, reason: CancelReason) -> Result<()> {
        self.end(attempt_number(attempt)?, reason).await
    }

    /// Whoever ended it first is the one who did.
    async fn end(&self, attempt: u32, reason: CancelReason) -> Result<()> {
        let said = to_msgpack(&Value::Array(vec![self.side.write(), reason.write()]));
        self.mailbox.put(&self.object(attempt, "over"), &said).await.map(drop)
    }

    async fn over(&self, attempt: u32) -> Result<Option<(Side, CancelReason)>> {
        let Some(said) = self.mailbox.get(&self.object(attempt, "over")).await? else { return Ok(None) };
        let strange = || Error::new(ErrorKind::Unsupported, "an attempt ended in a way that is not known");
        let Ok(Value::Array(said)) = from_msgpack(&said) else { return Err(strange()) };
        let [side, reason] = <[Value; 2]>::try_from(said).map_err(|_| strange())?;
        match (Side::read(side), CancelReason::read(reason)) {
            (Ok(side), Ok(reason)) => Ok(Some((side, reason))),
            _ => Err(strange()),
        }
    }
}

fn letter(side: Side) -> &'static str {
    match side {
        Side::Greeter => "g",
        Side::Claimer => "c",
    }
}

fn attempt_id(number: u32) -> GreetingAttemptId {
    GreetingAttemptId::from_bytes(u128::from(number).to_be_bytes())
}

fn attempt_number(id: GreetingAttemptId) -> Result<u32> {
    u32::try_from(u128::from_be_bytes(*id.as_bytes()))
        .map_err(|_| Error::new(ErrorKind::Internal, "no attempt of this storage"))
}
