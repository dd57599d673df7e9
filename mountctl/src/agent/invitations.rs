//! What the agent does about invitations apart from the dialogs: making, listing, finding, taking back.

use parsecfs_core::{
    name::Email,
    storage::{Invitation, InvitationStatus, Invited, Invitee, Notice},
    url::{InvitationLink, LinkKind},
};
use parsecfs_vfs::{error::ErrorKind, organization::Organization};

use super::people;
use crate::{
    daemon,
    exit::Kind,
    failure::{Failure, Result},
    output,
    rpc::{InvitationView, Invite, InvitedView},
};

/// What an invitation is, for its guest.
pub(super) async fn invited(link: &str) -> Result<InvitedView> {
    let link = parse(link)?;
    let door = daemon::invited(&link).await?;
    let info = look(&link, &*door).await?;
    let email = match &info.invitee {
        Invitee::User { email } => Some(email.as_str().to_owned()),
        _ => info.human_handle.as_ref().map(|handle| handle.email().to_string()),
    };
    Ok(InvitedView {
        organization: info.organization.to_string(),
        kind: link.kind.to_string(),
        email,
        name: info.human_handle.map(|handle| handle.label().to_owned()),
        threshold: matches!(info.invitee, Invitee::Recovery { .. }).then_some(info.threshold),
        greeters: info.greeters.into_iter().filter_map(|greeter| Some(greeter.human_handle?.to_string())).collect(),
    })
}

pub(super) async fn look(link: &InvitationLink, door: &dyn Invited) -> Result<parsecfs_core::storage::InvitationInfo> {
    let info = door.info().await.map_err(|error| gone(error.into()))?;
    if kind_of(&info.invitee) == link.kind {
        return Ok(info);
    }
    Err(Failure::new(Kind::Untrusted, "the link is of another kind than its invitation")
        .hint("somebody changed the link: ask for a new one"))
}

/// A link as somebody typed it.
pub(super) fn parse(link: &str) -> Result<InvitationLink> {
    InvitationLink::parse(link).map_err(|_| {
        Failure::new(Kind::Usage, "this is not a link that invites")
            .hint("it ends in ?a=claim_user&p=... or ?a=claim_device&p=..., and belongs into quotes")
    })
}

/// One that is no longer there, or never was.
pub(super) fn gone(error: parsecfs_vfs::error::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure { hint: None, ..Failure::from(error) }.hint("ask for a new invitation"),
        _ => error.into(),
    }
}

/// Invites.
pub(super) async fn invite(organization: &Organization, wish: Invite) -> Result<InvitationView> {
    let (invitee, write) = match wish {
        Invite::User { email, write } => (Invitee::User { email: address(&email)? }, write),
        Invite::Device => (Invitee::Device, false),
        Invite::Recovery { user } => (Invitee::Recovery { user: people::find(organization, &user)?.id }, false),
    };
    let invited = organization.invite(&invitee, write).await;
    let (link, notice) = invited.map_err(|error| match (&invitee, error.kind()) {
        (Invitee::Recovery { .. }, ErrorKind::NotFound) => {
            let whom = guest_address(organization, &invitee).unwrap_or_else(|| "this person".to_owned());
            Failure::new(Kind::NotFound, format!("you hold no shares of {whom}"))
                .hint("somebody who holds some invites: `mountctl device recovery shares` shows whose are yours")
        }
        (Invitee::Recovery { .. }, _) => error.into(),
        _ => people::refused_to_admins(organization, error),
    })?;
    let email_sent = match notice {
        Notice::Sent => write.then_some(true),
        Notice::Failed => write.then_some(false),
        Notice::Never => None,
    };
    Ok(InvitationView { email_sent, ..view(organization, &link, &invitee, InvitationStatus::Pending) })
}

/// Every invitation that this user may greet.
pub(super) async fn list(organization: &Organization) -> Result<Vec<InvitationView>> {
    let known = organization.storage().invitations().await?;
    Ok(known.iter().map(|known| told(organization, known)).collect())
}

/// Takes an invitation back.
pub(super) async fn cancel(organization: &Organization, text: &str) -> Result<InvitationView> {
    let invitation = find(organization, text).await?;
    let over = |what| Err(Failure::new(Kind::NotFound, format!("the invitation was {what} already")));
    match invitation.status {
        InvitationStatus::Pending => {}
        InvitationStatus::Finished => return over("used"),
        InvitationStatus::Cancelled => return over("cancelled"),
    }
    organization.storage().cancel_invitation(invitation.token).await?;
    Ok(told(organization, &Invitation { status: InvitationStatus::Cancelled, ..invitation }))
}

fn told(organization: &Organization, known: &Invitation) -> InvitationView {
    let link = organization.link(kind_of(&known.invitee), known.token);
    let created_at = Some(output::time(known.created.as_micros()));
    InvitationView { created_at, ..view(organization, &link, &known.invitee, known.status) }
}

fn view(
    organization: &Organization,
    link: &InvitationLink,
    invitee: &Invitee,
    status: InvitationStatus,
) -> InvitationView {
    let email = guest_address(organization, invitee);
    let status = match status {
        InvitationStatus::Pending => "pending",
        InvitationStatus::Finished => "finished",
        InvitationStatus::Cancelled => "cancelled",
    };
    InvitationView {
        url: link.reveal(),
        token: link.token.to_string(),
        kind: link.kind.to_string(),
        email,
        status: status.to_owned(),
        created_at: None,
        email_sent: None,
    }
}

/// Whose link it is, where that is not one's own.
fn guest_address(organization: &Organization, invitee: &Invitee) -> Option<String> {
    match invitee {
        Invitee::User { email } => Some(email.as_str().to_owned()),
        Invitee::Device => None,
        Invitee::Recovery { user } => {
            let trust = organization.trust();
            let handle = trust.user(*user)?.certificate().human_handle.as_ref()?;
            Some(handle.email().to_string())
        }
    }
}

fn kind_of(invitee: &Invitee) -> LinkKind {
    match invitee {
        Invitee::User { .. } => LinkKind::User,
        Invitee::Device => LinkKind::Device,
        Invitee::Recovery { .. } => LinkKind::Recovery,
    }
}

/// Fewer digits of a token are more likely a mistyped address.
const TOKEN_START_MIN: usize = 4;

/// The invitation that a person names: by token, start of it, link, or the guest's address; one that waits before others.
pub(super) async fn find(organization: &Organization, text: &str) -> Result<Invitation> {
    let known = organization.storage().invitations().await?;
    let token = InvitationLink::parse(text).map_or_else(|_| text.to_ascii_lowercase(), |link| link.token.to_string());
    let by_token = |known: &Invitation| token.len() >= TOKEN_START_MIN && known.token.to_string().starts_with(&token);
    let by_email = |known: &Invitation| {
        guest_address(organization, &known.invitee).is_some_and(|email| email.eq_ignore_ascii_case(text))
    };
    let mut fitting: Vec<_> = known.into_iter().filter(|known| by_token(known) || by_email(known)).collect();
    if fitting.iter().any(|known| known.status == InvitationStatus::Pending) {
        fitting.retain(|known| known.status == InvitationStatus::Pending);
    }
    match fitting.len() {
        0 => Err(Failure::new(Kind::NotFound, "there is no such invitation that you may greet")
            .hint("`mountctl invite list` shows those that are")),
        1 => Ok(fitting.remove(0)),
        _ if fitting.iter().all(by_email) => Ok(fitting.pop().expect("there are several")),
        _ => Err(Failure::new(Kind::Ambiguous, "several invitations begin so").hint("give more of the token")),
    }
}

fn address(text: &str) -> Result<Email> {
    Email::new(text.trim()).map_err(|_| Failure::new(Kind::Usage, "this is not an e-mail address"))
}
