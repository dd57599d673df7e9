//! `invite user`, `invite device`, `invite list`, `invite cancel`, `invite greet`.

use super::dialog;
use crate::{
    cli::Invite,
    command::Context,
    failure::Result,
    output::table,
    rpc::{self, DeviceCall, GreetTurn, InvitationView, Profile, Said, WelcomedView},
};

pub(super) fn run(context: &Context, command: Invite) -> Result<()> {
    match command {
        Invite::User { email, no_email } => invite(context, rpc::Invite::User { email, write: !no_email }),
        Invite::Device => invite(context, rpc::Invite::Device),
        Invite::Recovery { user } => invite(context, rpc::Invite::Recovery { user }),
        Invite::List => {
            let list: Vec<InvitationView> = context.ask_device(DeviceCall::Invitations)?;
            context.output.answer(&list, |list| text(list))
        }
        Invite::Cancel { invitation } => {
            let cancelled: InvitationView = context.ask_device(DeviceCall::CancelInvitation { invitation })?;
            context.output.answer(&cancelled, |cancelled| format!("invitation {} is cancelled", cancelled.token))
        }
        Invite::Greet { invitation, profile } => greet(context, &invitation, profile),
    }
}

fn invite(context: &Context, wish: rpc::Invite) -> Result<()> {
    let made: InvitationView = context.ask_device(DeviceCall::Invite(wish))?;
    context.output.answer(&made, |made| made.url.clone())?;
    match made.email_sent {
        Some(true) => context.output.note("The server writes to the guest."),
        Some(false) => context.output.note("The server could not write to the guest: send the link yourself."),
        None => context.output.note("Send the link to the guest; only one of you two should ever use it."),
    }
    if made.kind == "recovery" {
        context
            .output
            .note("Whoever gets enough shares is that person: be sure that you know the voice, you and the others.");
    }
    context.output.note(&format!("Then call each other, and: mountctl invite greet {}", made.token));
    Ok(())
}

fn greet(context: &Context, invitation: &str, profile: Profile) -> Result<()> {
    context
        .output
        .note("Waiting for the guest, who runs `mountctl join LINK`. Ctrl-C ends this; run it again to go on.");
    let done = dialog::run(&context.output, "your guest", |said: Said| {
        let call = DeviceCall::Greet { invitation: invitation.to_owned(), profile, said };
        context.ask_device::<GreetTurn>(call)
    })?;
    context.output.answer(&done, welcomed)?;
    if done.device.is_some() {
        context.output.note("next: mountctl workspace share WORKSPACE EMAIL ROLE");
    }
    Ok(())
}

fn welcomed(done: &WelcomedView) -> String {
    let user = format!("user    {} <{}>", done.name, done.email);
    match (&done.device, &done.device_id) {
        (Some(device), Some(id)) => format!("{user}\ndevice  {device}\nid      {id}"),
        _ => format!("{user}\nhas the shares that you held"),
    }
}

fn text(list: &[InvitationView]) -> String {
    let rows: Vec<_> = list
        .iter()
        .map(|known| {
            let email = known.email.clone().unwrap_or_default();
            let created = known.created_at.clone().unwrap_or_default();
            [known.token.clone(), known.kind.clone(), email, known.status.clone(), created]
        })
        .collect();
    table(["TOKEN", "TYPE", "GUEST", "STATUS", "CREATED"], &rows)
}
