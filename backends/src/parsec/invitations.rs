//! Invitations on a server, both sides (protocol.md 4.3, 4.5.5, 6.1).

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use parsecfs_core::{
    id::{GreetingAttemptId, InvitationToken, RevealToken, UserId},
    invite::{CancelReason, Side, Step},
    name::{Email, HumanHandle, OrganizationId},
    storage::{
        Bytes, Error, ErrorKind, Greeter, Invitation, InvitationInfo, InvitationStatus, Invitations, Invited, Invitee,
        Notice, Result, StepAnswer,
    },
    url::ServerAddr,
};
use rmpv::Value;

use super::{
    Limits, ParsecStorage,
    command::{Reply, Request, Structure, garbled},
    server::{Clock, Family, Server},
};

impl Invitations for ParsecStorage {
    fn invite<'a>(&'a self, invitee: &'a Invitee, write: bool) -> BoxFuture<'a, Result<(InvitationToken, Notice)>> {
        async move {
            let request = match invitee {
                Invitee::User { email } => Request::new("invite_new_user").with("claimer_email", email),
                Invitee::Device => Request::new("invite_new_device"),
                Invitee::Recovery { user } => Request::new("invite_new_shamir_recovery").with("claimer_user_id", user),
            };
            let mut reply = self.call(request.with("send_email", &write)).await?.ok()?;
            let sent: String = reply.get("email_sent")?;
            let token = reply.get("token")?;
            if matches!(invitee, Invitee::Recovery { .. }) {
                self.require_alive(token).await?;
            }
            Ok((token, if sent == "SUCCESS" { Notice::Sent } else { Notice::Failed }))
        }
        .boxed()
    }

    fn invitations(&self) -> BoxFuture<'_, Result<Vec<Invitation>>> {
        async move {
            let mut reply = self.call(Request::new("invite_list")).await?.ok()?;
            let Value::Array(items) = reply.take("invitations")? else { return Err(garbled("invite_list")) };
            items.into_iter().filter_map(|item| invitation(item).transpose()).collect()
        }
        .boxed()
    }

    fn cancel_invitation(&self, token: InvitationToken) -> BoxFuture<'_, Result<()>> {
        async move {
            let reply = self.call(Request::new("invite_cancel").with("token", &token)).await?;
            done(reply, "invitation_already_cancelled")
        }
        .boxed()
    }

    fn complete_invitation(&self, token: InvitationToken) -> BoxFuture<'_, Result<()>> {
        async move {
            let reply = self.call(Request::new("invite_complete").with("token", &token)).await?;
            done(reply, "invitation_already_completed")
        }
        .boxed()
    }

    fn start_greeting(&self, token: InvitationToken) -> BoxFuture<'_, Result<GreetingAttemptId>> {
        async move {
            let request = Request::new("invite_greeter_start_greeting_attempt").with("token", &token);
            self.call(request).await?.ok()?.get("greeting_attempt")
        }
        .boxed()
    }

    fn greet<'a>(
        &'a self,
        _token: InvitationToken,
        attempt: GreetingAttemptId,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<StepAnswer>> {
        async move { answer(self.call(posted(Side::Greeter, attempt, step)).await?, Side::Claimer) }.boxed()
    }

    fn cancel_greeting(
        &self,
        _token: InvitationToken,
        attempt: GreetingAttemptId,
        reason: CancelReason,
    ) -> BoxFuture<'_, Result<()>> {
        async move {
            let request = cancelled(Side::Greeter, attempt, reason);
            done(self.call(request).await?, "greeting_attempt_already_cancelled")
        }
        .boxed()
    }
}

impl ParsecStorage {
    /// A server (3.9.3) that cancelled an invitation because its recovery was deleted gives it out again for the next one,
    /// dead as it is.
    async fn require_alive(&self, token: InvitationToken) -> Result<()> {
        let known = self.invitations().await?.into_iter().find(|known| known.token == token);
        if known.is_some_and(|known| known.status != InvitationStatus::Pending) {
            let why = "the server gives out nothing but an invitation that it cancelled with an earlier recovery";
            return Err(Error::new(ErrorKind::Denied, why));
        }
        Ok(())
    }
}

/// Somebody with an invitation to an organization on a server.
pub struct Guest {
    server: Server,
    organization: OrganizationId,
    token: InvitationToken,
}

impl Guest {
    /// Makes ready to talk to the server.
    pub fn open(
        server: &ServerAddr,
        organization: OrganizationId,
        token: InvitationToken,
        clock: Clock,
        limits: Limits,
    ) -> Result<Arc<Self>> {
        let server = Server::new(server, Some(&organization), clock, limits)?;
        Ok(Arc::new(Self { server, organization, token }))
    }

    async fn call(&self, request: Request) -> Result<Reply> {
        self.server.call(Family::Invited(self.token), request).await
    }
}

impl Invited for Guest {
    fn info(&self) -> BoxFuture<'_, Result<InvitationInfo>> {
        async move { info(self.call(Request::new("invite_info")).await?.ok()?, &self.organization) }.boxed()
    }

    fn start_claim(&self, greeter: UserId) -> BoxFuture<'_, Result<GreetingAttemptId>> {
        async move {
            let request = Request::new("invite_claimer_start_greeting_attempt").with("greeter", &greeter);
            self.call(request).await?.ok()?.get("greeting_attempt")
        }
        .boxed()
    }

    fn claim<'a>(
        &'a self,
        _greeter: UserId,
        attempt: GreetingAttemptId,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<StepAnswer>> {
        async move { answer(self.call(posted(Side::Claimer, attempt, step)).await?, Side::Greeter) }.boxed()
    }

    fn cancel_claim(
        &self,
        _greeter: UserId,
        attempt: GreetingAttemptId,
        reason: CancelReason,
    ) -> BoxFuture<'_, Result<()>> {
        async move {
            let request = cancelled(Side::Claimer, attempt, reason);
            done(self.call(request).await?, "greeting_attempt_already_cancelled")
        }
        .boxed()
    }

    fn reveal(&self, token: RevealToken) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            let request = Request::new("invite_shamir_recovery_reveal").with("reveal_token", &token);
            let sealed: Vec<u8> = self.call(request).await?.ok()?.get("ciphered_data")?;
            Ok(sealed.into())
        }
        .boxed()
    }
}

/// The field with a step of this side.
fn step_of(side: Side) -> &'static str {
    match side {
        Side::Greeter => "greeter_step",
        Side::Claimer => "claimer_step",
    }
}

/// The command that posts a step of this side.
fn posted(side: Side, attempt: GreetingAttemptId, step: &Step) -> Request {
    let command = match side {
        Side::Greeter => "invite_greeter_step",
        Side::Claimer => "invite_claimer_step",
    };
    Request::new(command).with("greeting_attempt", &attempt).with_value(step_of(side), step.to_value())
}

/// The command by which this side ends an attempt.
fn cancelled(side: Side, attempt: GreetingAttemptId, reason: CancelReason) -> Request {
    let command = match side {
        Side::Greeter => "invite_greeter_cancel_greeting_attempt",
        Side::Claimer => "invite_claimer_cancel_greeting_attempt",
    };
    Request::new(command).with("greeting_attempt", &attempt).with("reason", &reason)
}

/// What a step came to.
fn answer(mut reply: Reply, other: Side) -> Result<StepAnswer> {
    match reply.status() {
        "not_ready" => Ok(StepAnswer::NotYet),
        "greeting_attempt_cancelled" => {
            Ok(StepAnswer::Ended { by: reply.get("origin")?, reason: reply.get("reason")? })
        }
        _ => {
            let strange =
                |error| Error::new(ErrorKind::Corrupt, "the other side's step makes no sense").caused_by(error);
            let step = reply.ok()?.take(step_of(other))?;
            Ok(StepAnswer::Step(Step::from_value(other, step).map_err(strange)?))
        }
    }
}

/// The answer to what may be done already, by an earlier try whose answer was lost.
fn done(reply: Reply, already: &str) -> Result<()> {
    if reply.status() == already { Ok(()) } else { reply.ok().map(drop) }
}

/// `None` for a kind that is not known.
fn invitation(value: Value) -> Result<Option<Invitation>> {
    let mut item = Structure::of("invite_list", value)?;
    let kind: String = item.get("type")?;
    let invitee = match kind.as_str() {
        "USER" => Invitee::User { email: item.get::<Email>("claimer_email")? },
        "DEVICE" => Invitee::Device,
        "SHAMIR_RECOVERY" => Invitee::Recovery { user: item.get("claimer_user_id")? },
        _ => return Ok(None),
    };
    let status: String = item.get("status")?;
    let status = match status.as_str() {
        "PENDING" => InvitationStatus::Pending,
        "FINISHED" => InvitationStatus::Finished,
        "CANCELLED" => InvitationStatus::Cancelled,
        _ => return Ok(None),
    };
    Ok(Some(Invitation { token: item.get("token")?, invitee, created: item.get("created_on")?, status }))
}

fn info(mut reply: Reply, organization: &OrganizationId) -> Result<InvitationInfo> {
    let kind: String = reply.get("type")?;
    let mut info = InvitationInfo {
        organization: organization.clone(),
        invitee: Invitee::Device,
        human_handle: None,
        greeters: Vec::new(),
        threshold: 0,
    };
    match kind.as_str() {
        "USER" => {
            info.invitee = Invitee::User { email: reply.get("claimer_email")? };
            info.greeters = greeters(reply.take("administrators")?)?;
        }
        "DEVICE" => {
            let user = reply.get("claimer_user_id")?;
            let human_handle: HumanHandle = reply.get("claimer_human_handle")?;
            info.greeters = vec![Greeter { user, human_handle: Some(human_handle.clone()), shares: 0 }];
            info.human_handle = Some(human_handle);
        }
        "SHAMIR_RECOVERY" => {
            info.invitee = Invitee::Recovery { user: reply.get("claimer_user_id")? };
            info.human_handle = Some(reply.get("claimer_human_handle")?);
            info.threshold = reply.get("threshold")?;
            info.greeters = greeters(reply.take("recipients")?)?;
        }
        _ => return Err(Error::new(ErrorKind::Unsupported, "an invitation of a kind that is not known")),
    }
    Ok(info)
}

/// Those that are not revoked.
fn greeters(value: Value) -> Result<Vec<Greeter>> {
    let Value::Array(items) = value else { return Err(garbled("invite_info")) };
    let mut greeters = Vec::new();
    for item in items {
        let mut item = Structure::of("invite_info", item)?;
        if item.has("revoked_on") {
            continue;
        }
        let shares = if item.has("shares") { item.get("shares")? } else { 0 };
        greeters.push(Greeter { user: item.get("user_id")?, human_handle: Some(item.get("human_handle")?), shares });
    }
    Ok(greeters)
}
