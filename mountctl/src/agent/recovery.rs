//! What the agent does about recovery by shares. People are found by address; each refusal names the person it is about.

use std::{collections::BTreeMap, num::NonZeroU8};

use parsecfs_vfs::{
    error::ErrorKind,
    organization::{Organization, SharedRecovery, plan_shares},
};

use super::{people, views};
use crate::{
    exit::Kind,
    failure::{Failure, Result},
    output,
    rpc::{HolderView, Recipient, RecoverySharesView, SharedRecoveryView},
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
