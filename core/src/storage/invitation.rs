//! Invitations as a storage keeps them: who is invited, and the steps by which two sides come to share a key
//! ([`Exchange`](crate::invite::Exchange)).
//!
//! One *greeting* has a token and a greeter, and at most one live attempt that both sides join. Whoever of a side starts
//! again ends the attempt before: the latest one counts. What was posted stays, so that a side may go away and go on.
//!
//! Nothing here is trusted: not who is invited, not who greets, not the steps. Two people who compare codes decide.

use std::future::ready;

use futures::future::BoxFuture;

use super::{Bytes, Error, ErrorKind, Result};
use crate::{
    id::{GreetingAttemptId, InvitationToken, RevealToken, UserId},
    invite::{CancelReason, Side, Step},
    name::{Email, HumanHandle, OrganizationId},
    time::Timestamp,
};

/// Whom an invitation is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invitee {
    /// Somebody who becomes a user.
    User {
        /// The person's address.
        email: Email,
    },
    /// A further device of the user who invites.
    Device,
    /// A user who lost all devices and comes back by shares.
    Recovery {
        /// Which.
        user: UserId,
    },
}

/// What became of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvitationStatus {
    /// Waits for its guest.
    Pending,
    /// Was used.
    Finished,
    /// Was taken back.
    Cancelled,
}

/// An invitation as those who may greet see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Names it, and lets one use it.
    pub token: InvitationToken,
    /// For whom.
    pub invitee: Invitee,
    /// When it was made.
    pub created: Timestamp,
    /// What became of it.
    pub status: InvitationStatus,
}

/// Whether the storage wrote to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It did, or nobody asked for it.
    Sent,
    /// It could not.
    Failed,
    /// It writes to nobody.
    Never,
}

/// What the guest is told before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvitationInfo {
    /// To which organization.
    pub organization: OrganizationId,
    /// For whom.
    pub invitee: Invitee,
    /// The person whom a device or a recovery is for, where that is known.
    pub human_handle: Option<HumanHandle>,
    /// Who may greet.
    pub greeters: Vec<Greeter>,
    /// Shares that a recovery needs; 0 for others.
    pub threshold: u8,
}

/// Somebody who may greet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeter {
    /// Who.
    pub user: UserId,
    /// Name and address, where they are known.
    pub human_handle: Option<HumanHandle>,
    /// Shares of a recovery; 0 for others.
    pub shares: u8,
}

/// The answer to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepAnswer {
    /// The other side has not come so far: post the same step again.
    NotYet,
    /// The other side's step of the same number.
    Step(Step),
    /// The attempt is over.
    Ended {
        /// Who ended it.
        by: Side,
        /// Why.
        reason: CancelReason,
    },
}

/// What members do about invitations; a storage that keeps none leaves it all as it is here. `NotFound` tells, in words, whether one was used, taken back or never was.
pub trait Invitations: Send + Sync {
    /// Invites, and says whether the guest was written to where `write` asks for it. An invitation that still waits for
    /// the same guest is given again.
    fn invite<'a>(&'a self, invitee: &'a Invitee, write: bool) -> BoxFuture<'a, Result<(InvitationToken, Notice)>> {
        let _ = (invitee, write);
        none()
    }

    /// Every invitation that this user may greet, finished ones too.
    fn invitations(&self) -> BoxFuture<'_, Result<Vec<Invitation>>> {
        none()
    }

    /// Takes an invitation back.
    fn cancel_invitation(&self, token: InvitationToken) -> BoxFuture<'_, Result<()>> {
        let _ = token;
        none()
    }

    /// Says that an invitation was used. Those who greet say it of users and devices, a recovered user of the recovery.
    fn complete_invitation(&self, token: InvitationToken) -> BoxFuture<'_, Result<()>> {
        let _ = token;
        none()
    }

    /// Joins the attempt that waits for this side, or a new one.
    fn start_greeting(&self, token: InvitationToken) -> BoxFuture<'_, Result<GreetingAttemptId>> {
        let _ = token;
        none()
    }

    /// Posts a step of this side.
    fn greet<'a>(
        &'a self,
        token: InvitationToken,
        attempt: GreetingAttemptId,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<StepAnswer>> {
        let _ = (token, attempt, step);
        none()
    }

    /// Ends an attempt. One that is over already is fine.
    fn cancel_greeting(
        &self,
        token: InvitationToken,
        attempt: GreetingAttemptId,
        reason: CancelReason,
    ) -> BoxFuture<'_, Result<()>> {
        let _ = (token, attempt, reason);
        none()
    }
}

/// The answer of a storage that keeps no invitations.
fn none<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T>> {
    Box::pin(ready(Err(Error::new(ErrorKind::Unsupported, "this storage keeps no invitations"))))
}

/// What whoever holds a token may do, without being anybody yet.
pub trait Invited: Send + Sync {
    /// What it is.
    fn info(&self) -> BoxFuture<'_, Result<InvitationInfo>>;

    /// Joins the attempt with this greeter that waits for this side, or a new one.
    fn start_claim(&self, greeter: UserId) -> BoxFuture<'_, Result<GreetingAttemptId>>;

    /// Posts a step of this side.
    fn claim<'a>(
        &'a self,
        greeter: UserId,
        attempt: GreetingAttemptId,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<StepAnswer>>;

    /// Ends an attempt. One that is over already is fine.
    fn cancel_claim(
        &self,
        greeter: UserId,
        attempt: GreetingAttemptId,
        reason: CancelReason,
    ) -> BoxFuture<'_, Result<()>>;

    /// The sealed device of the recovery that the invitation is for. `NotFound` with another token than the recovery was
    /// set up with, or when it was deleted.
    fn reveal(&self, token: RevealToken) -> BoxFuture<'_, Result<Bytes>>;
}
