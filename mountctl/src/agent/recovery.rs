//! What the agent does about recovery by shares. People are found by address; each refusal names the person it is about.
//!
//! Shares that somebody was given on the way back stay in memory like any dialog: a command that was interrupted, or an
//! exchange that failed, finds them there as long as this agent lives.

use std::{collections::BTreeMap, num::NonZeroU8};

use parsecfs_core::{storage::Greeter, url::InvitationLink};
use parsecfs_vfs::{
    error::ErrorKind,
    invitation::recovery::{RecoveryGuest, RecoveryTurn},
    organization::{Organization, SharedRecovery, plan_shares},
};

use super::{
    dialogs::{Dialogs, choose, engaged, stopped, tell},
    invitations::{gone, look},
    people,
    session::Sessions,
    views,
};
use crate::{
    daemon,
    exit::Kind,
    failure::{Failure, Result},
    output,
    rpc::{GivenView, HolderView, JoinRequest, JoinTurn, Recipient, RecoverySharesView, SharedRecoveryView, Turn},
};

const NAME_OTHERS: &str = "name people of the organization who are not revoked, and not yourself";

/// Lets these people together get the user back.
pub(super) async fn set_up(
    organization: &Organization,
    threshold: NonZeroU8,
    recipients: &[Recipient],
) -> Result<SharedRecoveryView> {
    let mut holders = BTreeMap::new();
    for Recipient { user: text, shares } in recipients {
        let user = people::find(organization, text)?;
        let refused = |error| Failure::from(error).context(format_args!("{text} cannot hold shares"));
        organization
            .may_hold_shares(user.id)
            .map_err(|error| Failure { hint: Some(NAME_OTHERS.to_owned()), ..refused(error) })?;
        if holders.insert(user.id, *shares).is_some() {
            return Err(Failure::new(Kind::Usage, format!("{text} is named twice"))
                .hint("one person holds several shares as EMAIL:SHARES"));
        }
    }
    let plan = plan_shares(threshold, holders)?;
    organization.set_up_recovery(&plan).await.map_err(|error| match error.kind() {
        ErrorKind::Exists => Failure::from(error).hint(
            "`mountctl device recovery shares` shows it; to change it, `mountctl device recovery delete` comes first",
        ),
        _ => Failure::from(error),
    })?;
    own(organization).ok_or_else(none)
}

/// Who holds what.
pub(super) fn shares(organization: &Organization) -> RecoverySharesView {
    RecoverySharesView { own: own(organization), held: organization.recoveries_held().into_iter().map(view).collect() }
}

/// Ends the user's way back.
pub(super) async fn delete(organization: &Organization) -> Result<SharedRecoveryView> {
    organization.refresh().await?;
    let was = own(organization).ok_or_else(none)?;
    organization.delete_recovery().await?;
    Ok(was)
}

fn own(organization: &Organization) -> Option<SharedRecoveryView> {
    organization.recovery_of(organization.user_id()).map(view)
}

fn none() -> Failure {
    Failure::new(Kind::NotFound, "nobody holds shares for you").hint("`mountctl device recovery setup` gives them out")
}

fn view(shared: SharedRecovery) -> SharedRecoveryView {
    SharedRecoveryView {
        shares_left: shared.shares_left(),
        possible: shared.is_possible(),
        threshold: shared.threshold.get(),
        since: output::time(shared.since.as_micros()),
        user: views::user(shared.user),
        holders: shared
            .holders
            .into_iter()
            .map(|(holder, shares)| HolderView { user: views::user(holder), shares: shares.get() })
            .collect(),
    }
}

impl Dialogs {
    /// Goes on with collecting shares, until the person has something to do.
    pub(super) async fn return_by_shares(
        &self,
        sessions: &Sessions,
        link: InvitationLink,
        request: JoinRequest,
    ) -> Result<JoinTurn> {
        let token = link.token;
        let dialog = match self.returns.get(token) {
            Some(dialog) => dialog,
            None => {
                sessions.require_usable(&request.device.protection).await?;
                let door = daemon::invited(&link).await?;
                let info = look(&link, &*door).await?;
                self.returns.put(token, RecoveryGuest::new(link, door, info)?)
            }
        };
        let mut guest = dialog.try_lock().map_err(|_| engaged())?;
        tell(&mut *guest, request.said)?;
        let turn = guest.advance().await.inspect_err(|error| self.returns.forget_if_gone(token, error));
        match turn.map_err(gone)? {
            RecoveryTurn::Tell(code) => Ok(Turn::Tell(code.to_string())),
            RecoveryTurn::Choose(codes) => Ok(choose(&codes)),
            RecoveryTurn::Given { by, missing } => {
                let others = guest.others().map(name).collect();
                Ok(Turn::Given(GivenView { by: name(&by), missing, others }))
            }
            RecoveryTurn::Ended(ended) => {
                let failure = stopped(ended, "the other one", "mountctl join");
                if guest.givers().next().is_none() {
                    return Err(failure);
                }
                let givers: Vec<_> = guest.givers().map(name).collect();
                Err(failure.context(format_args!("what {} gave is kept", givers.join(", "))))
            }
            RecoveryTurn::Misled(by) => Ok(Turn::Misled(name(&by))),
            RecoveryTurn::Recovered(device) => {
                let back = sessions.come_back(*device, request.device, Some(token)).await?;
                self.returns.forget(token);
                Ok(Turn::Done(back))
            }
        }
    }
}

/// Name and address, or the id where these are not known.
fn name(greeter: &Greeter) -> String {
    greeter.human_handle.as_ref().map_or_else(|| greeter.user.to_string(), ToString::to_string)
}
