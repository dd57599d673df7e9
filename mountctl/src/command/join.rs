//! `join`: the guest's side of an invitation.

use std::io::{IsTerminal, stdin};

use super::dialog;
use crate::{
    cli::Join,
    command::Context,
    exit::Kind,
    failure::{Failure, Result},
    rpc::{InvitedView, JoinRequest, JoinTurn, Request},
    secret::Secret,
};

pub(super) fn run(context: &Context, arguments: Join) -> Result<()> {
    let Join { url, email, name, device } = arguments;
    let link = Secret::new(url);
    let invited: InvitedView = context.client.call(&Request::Invited { link: link.clone() })?;
    let greeters = if invited.greeters.is_empty() { "somebody there".to_owned() } else { invited.greeters.join(", ") };
    let what = match invited.kind.as_str() {
        "user" => "become a user of",
        "recovery" => "come back to",
        _ => "have a further device in",
    };
    let whom = invited.email.clone().unwrap_or_else(|| "you".to_owned());
    context.output.note(&format!("{whom} is invited to {what} {}. Call one of: {greeters}.", invited.organization));
    if let Some(threshold) = invited.threshold {
        context.output.note(&format!("{threshold} shares are needed: one of them after the other."));
    }
    let name = who(context, &invited, email, name)?;
    let device = context.new_device(device)?;
    context
        .output
        .note("Waiting for the host, who runs `mountctl invite greet`. Ctrl-C ends this; run it again to go on.");
    let joined = dialog::run(&context.output, "your host", |said| {
        let request = JoinRequest { link: link.clone(), name: name.clone(), device: device.clone(), said };
        context.client.call::<JoinTurn>(&Request::Join(request))
    })?;
    context.output.answer(&joined, |made| format!("device  {}\nid      {}", made.label, made.device_id))?;
    context.output.note("next: mountctl workspace list");
    Ok(())
}

/// The name of the person who becomes a user; a further device is of somebody who has one.
fn who(
    context: &Context,
    invited: &InvitedView,
    email: Option<String>,
    name: Option<String>,
) -> Result<Option<String>> {
    let asked = invited.email.as_deref().unwrap_or_default();
    if email.is_some_and(|email| !email.trim().eq_ignore_ascii_case(asked)) {
        return Err(Failure::new(Kind::Usage, format!("this invitation is for {asked}"))
            .hint("leave --email out, or ask for an invitation for the other address"));
    }
    match (invited.kind.as_str(), name) {
        ("user", Some(name)) => Ok(Some(name)),
        ("user", None) if stdin().is_terminal() => {
            context.output.ask("Your name, as others will see it:");
            dialog::line().map(Some)
        }
        ("user", None) => Err(Failure::new(Kind::Usage, "who joins?").hint("add --name NAME")),
        (_, None) => Ok(None),
        (_, Some(_)) => {
            Err(Failure::new(Kind::Usage, "this invitation is for a further device of somebody who has a name")
                .hint("leave --name out"))
        }
    }
}
