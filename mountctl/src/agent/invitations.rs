//! What the agent does about invitations. The dialogs with a host's or a guest's person live here, in memory: a command
//! that was interrupted finds its dialog where it left it, as long as this agent lives.
//!
//! Invariants: a dialog has one command at a time; a dialog that is done or ended is forgotten when its command hears so;
//! one that nobody asked about for a while no longer keeps the agent running.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use parsecfs_core::{
    id::{DeviceId, InvitationToken},
    invite::CancelReason,
    name::Email,
    storage::{Invitation, InvitationStatus, Invited, Invitee, Notice},
    url::{InvitationLink, LinkKind},
};
use parsecfs_crypto::sas::SasCode;
use parsecfs_vfs::{
    error::ErrorKind,
    invitation::{
        Ended,
        guest::{Guest, GuestTurn, Wishes},
        host::{Host, HostTurn},
        recovery::RecoveryGuest,
    },
    organization::Organization,
};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    people,
    session::{self, Sessions},
    views,
};
use crate::{
    daemon,
    exit::Kind,
    failure::{Failure, Result},
    output,
    rpc::{
        self, GreetTurn, InvitationView, Invite, InvitedView, JoinRequest, JoinTurn, Profile, Said, Turn, WelcomedView,
    },
};

/// So long an agent waits for a command to come back to its dialog.
const KEPT: Duration = Duration::from_secs(600);

/// Dialogs that are on their way.
#[derive(Default)]
pub(super) struct Dialogs {
    hosts: Kept<(DeviceId, InvitationToken), Host>,
    guests: Kept<InvitationToken, Guest>,
    pub(super) returns: Kept<InvitationToken, RecoveryGuest>,
}

/// A dialog, and when somebody last asked for it.
type Touched<D> = (Arc<AsyncMutex<D>>, Instant);

pub(super) struct Kept<K, D>(Mutex<HashMap<K, Touched<D>>>);

impl<K, D> Default for Kept<K, D> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash, D> Kept<K, D> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Touched<D>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, key: K) -> Option<Arc<AsyncMutex<D>>> {
        let mut kept = self.lock();
        let (dialog, touched) = kept.get_mut(&key)?;
        *touched = Instant::now();
        Some(Arc::clone(dialog))
    }

    pub(super) fn put(&self, key: K, dialog: D) -> Arc<AsyncMutex<D>> {
        let dialog = Arc::new(AsyncMutex::new(dialog));
        self.lock().insert(key, (Arc::clone(&dialog), Instant::now()));
        dialog
    }

    pub(super) fn forget(&self, key: K) {
        self.lock().remove(&key);
    }

    /// Nothing comes of a dialog about an invitation that is over.
    pub(super) fn forget_if_gone(&self, key: K, error: &parsecfs_vfs::error::Error) {
        if error.kind() == ErrorKind::NotFound {
            self.forget(key);
        }
    }

    /// Whether a command may still come back. A dialog that somebody holds now is asked for now.
    fn is_engaged(&self) -> bool {
        let mut kept = self.lock();
        kept.retain(|_, (dialog, touched)| touched.elapsed() < KEPT || Arc::strong_count(dialog) > 1);
        !kept.is_empty()
    }
}

impl Dialogs {
    /// Whether a command may come back to one.
    pub(super) fn engaged(&self) -> bool {
        // All of them, so that all forget.
        self.hosts.is_engaged() | self.guests.is_engaged() | self.returns.is_engaged()
    }

    /// Goes on with letting a guest in, until the person has something to do.
    pub(super) async fn greet(
        &self,
        organization: &Arc<Organization>,
        text: &str,
        profile: Profile,
        said: Said,
    ) -> Result<GreetTurn> {
        let invitation = find(organization, text).await?;
        let key = (organization.device_id(), invitation.token);
        let profile = people::user_profile(profile);
        let dialog = match self.hosts.get(key) {
            Some(dialog) => dialog,
            None => {
                let host = Arc::clone(organization).greet(invitation.token, profile).await;
                self.hosts.put(key, host.map_err(|error| people::refused_to_admins(organization, error))?)
            }
        };
        let mut host = dialog.try_lock().map_err(|_| engaged())?;
        host.set_profile(profile);
        match said {
            Said::Nothing => {}
            Said::Told => host.told(),
            Said::Heard(code) => host.choose(heard(code)?),
        }
        let turn = host.advance().await.inspect_err(|error| self.hosts.forget_if_gone(key, error));
        match turn? {
            HostTurn::Tell(code) => Ok(Turn::Tell(code.to_string())),
            HostTurn::Choose(codes) => Ok(choose(&codes)),
            HostTurn::Ended(ended) => {
                self.hosts.forget(key);
                Err(stopped(ended, "the guest", "mountctl invite greet"))
            }
            HostTurn::ShareGiven(user) => {
                self.hosts.forget(key);
                let user = organization.users().into_iter().find(|known| known.id == user).map(views::user);
                let user = user.ok_or_else(|| Failure::new(Kind::NotFound, "this person is not known"))?;
                let rpc::UserView { user_id, email, name, .. } = user;
                Ok(Turn::Done(WelcomedView { user_id, email, name, device_id: None, device: None }))
            }
            HostTurn::Welcomed(welcomed) => {
                self.hosts.forget(key);
                Ok(Turn::Done(WelcomedView {
                    user_id: welcomed.user.to_string(),
                    email: welcomed.human_handle.email().to_string(),
                    name: welcomed.human_handle.label().to_owned(),
                    device_id: Some(welcomed.device.to_string()),
                    device: Some(welcomed.label.to_string()),
                }))
            }
        }
    }

    /// Goes on with the guest's side, until the person has something to do.
    pub(super) async fn join(&self, sessions: &Sessions, request: JoinRequest) -> Result<JoinTurn> {
        let link = parse(request.link.reveal())?;
        if link.kind == LinkKind::Recovery {
            return self.return_by_shares(sessions, link, request).await;
        }
        let token = link.token;
        let dialog = match self.guests.get(token) {
            Some(dialog) => dialog,
            None => {
                sessions.require_usable(&request.device.protection).await?;
                self.guests.put(token, begin(link, &request).await?)
            }
        };
        let mut guest = dialog.try_lock().map_err(|_| engaged())?;
        match request.said {
            Said::Nothing => {}
            Said::Told => guest.told(),
            Said::Heard(code) => guest.choose(heard(code)?),
        }
        loop {
            let turn = guest.advance().await.inspect_err(|error| self.guests.forget_if_gone(token, error));
            match turn.map_err(gone)? {
                GuestTurn::Tell(code) => return Ok(Turn::Tell(code.to_string())),
                GuestTurn::Choose(codes) => return Ok(choose(&codes)),
                GuestTurn::Ended(ended) => {
                    self.guests.forget(token);
                    return Err(stopped(ended, "the host", "mountctl join"));
                }
                GuestTurn::Save(device) => {
                    sessions.save(*device, request.device.protection.clone()).await?;
                    guest.saved();
                }
                GuestTurn::Joined => {
                    let view = guest.device().map(|device| sessions.device(device.device_id));
                    self.guests.forget(token);
                    return view
                        .unwrap_or_else(|| Err(Failure::new(Kind::Failed, "nothing was joined")))
                        .map(Turn::Done);
                }
            }
        }
    }
}

async fn begin(link: InvitationLink, request: &JoinRequest) -> Result<Guest> {
    let door = daemon::invited(&link).await?;
    let info = look(&link, &*door).await?;
    let human_handle = match &info.invitee {
        Invitee::User { email } => {
            let name = request.name.as_deref().unwrap_or_default();
            Some(session::person(email.as_str(), name)?)
        }
        _ => None,
    };
    let label = session::label(&request.device.label)?;
    Ok(Guest::new(link, &door, info, Wishes { label, human_handle })?)
}

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

fn parse(link: &str) -> Result<InvitationLink> {
    InvitationLink::parse(link).map_err(|_| no_link())
}

/// Says what a link looks like.
pub(crate) fn no_link() -> Failure {
    Failure::new(Kind::Usage, "this is not a link that invites")
        .hint("it ends in ?a=claim_user&p=... or ?a=claim_device&p=..., and belongs into quotes")
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
async fn find(organization: &Organization, text: &str) -> Result<Invitation> {
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

pub(super) fn heard(code: Option<String>) -> Result<Option<SasCode>> {
    let wrong = |_| Failure::new(Kind::Usage, "a code has four letters or digits");
    code.map(|code| SasCode::parse(&code).map_err(wrong)).transpose()
}

pub(super) fn choose<T>(codes: &[SasCode]) -> Turn<T> {
    Turn::Choose(codes.iter().map(ToString::to_string).collect())
}

pub(super) fn engaged() -> Failure {
    Failure::new(Kind::Busy, "another command is in the middle of this invitation").hint("go on there, or end it first")
}

/// Why nobody was let in, in words for this side.
pub(super) fn stopped(ended: Ended, other: &str, again: &str) -> Failure {
    let Ended { by_us, reason } = ended;
    let tampered = "somebody may be between you two: talk on another line before you try again";
    match reason {
        CancelReason::InvalidSasCode if by_us => {
            Failure::new(Kind::Untrusted, format!("the code that you picked is not that of {other}: nobody was let in"))
                .hint(format!(
                    "if you just misread it, both run their command again (`{again}`); if it happens twice, {tampered}"
                ))
        }
        CancelReason::InvalidSasCode => {
            Failure::new(Kind::Untrusted, format!("{other} did not find your code: nobody was let in")).hint(format!(
                "if it was just misread, both run their command again (`{again}`); if it happens twice, {tampered}"
            ))
        }
        CancelReason::InvalidNonceHash => Failure::new(
            Kind::Untrusted,
            format!("what {other} said does not fit what was promised: nobody was let in"),
        )
        .hint(tampered),
        CancelReason::Manually if by_us => Failure::new(Kind::Failed, "the exchange was given up: nobody was let in")
            .hint(format!("`{again}` starts anew")),
        CancelReason::Manually => Failure::new(Kind::Failed, format!("{other} gave up: nobody was let in"))
            .hint(format!("`{again}` starts anew")),
        CancelReason::Automatically => {
            Failure::new(Kind::Failed, format!("the exchange with {other} was started anew in another place"))
                .hint(format!("`{again}` joins it"))
        }
        CancelReason::UndecipherablePayload
        | CancelReason::UndeserializablePayload
        | CancelReason::InconsistentPayload => {
            let whose = if by_us { format!("what {other} sent") } else { "what this side sent".to_owned() };
            Failure::new(Kind::Untrusted, format!("{whose} is not what the invitation asks for: nobody was let in"))
                .hint("look whether both use a current version, then invite again")
        }
    }
}
