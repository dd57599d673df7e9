//! `user list`, `user revoke`, `user profile`.

use crate::{
    cli::User,
    command::Context,
    failure::Result,
    output::table,
    rpc::{DeviceCall, UserChange, UserView},
};

pub(super) fn run(context: &Context, command: User) -> Result<()> {
    match command {
        User::List => {
            let list: Vec<UserView> = context.ask_device(DeviceCall::Users)?;
            context.output.answer(&list, |list| text(list))
        }
        User::Revoke { user } => {
            context.confirm(&format!("{user} will lose everything, for ever."))?;
            let revoked: UserView = context.ask_device(DeviceCall::ChangeUser(UserChange::Revoke { user }))?;
            context.output.answer(&revoked, |user| format!("{} is revoked", user.email))
        }
        User::Profile { user, profile } => {
            let change = UserChange::Profile { user, profile };
            let changed: UserView = context.ask_device(DeviceCall::ChangeUser(change))?;
            context.output.answer(&changed, |user| format!("{} is {} now", user.email, user.profile))
        }
    }
}

fn text(list: &[UserView]) -> String {
    let rows: Vec<_> = list
        .iter()
        .map(|user| {
            let state = if user.revoked { "revoked" } else { "" };
            [user.email.clone(), user.name.clone(), user.profile.clone(), user.user_id.clone(), state.to_owned()]
        })
        .collect();
    table(["USER", "NAME", "PROFILE", "ID", ""], &rows)
}
