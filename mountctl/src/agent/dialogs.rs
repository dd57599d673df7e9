//! The dialogs of hosts and guests with their persons, in memory: a command that was interrupted finds its dialog where it
//! left it, as long as this agent lives.
//!
//! Invariants: a dialog has one command at a time; a dialog that is done or ended is forgotten when its command hears so,
//! except a guest's whose keys a host may have made certificates for: the next command tries again with the same keys; one
//! that nobody asked about for a while no longer keeps the agent running.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use parsecfs_core::{
    id::{DeviceId, InvitationToken},
    invite::CancelReason,
    storage::Invitee,
    url::{InvitationLink, LinkKind},
};
use parsecfs_crypto::sas::SasCode;
use parsecfs_vfs::{
    error::ErrorKind,
    invitation::{
        Ended, Person,
        guest::{Guest, GuestTurn, Wishes},
        host::{Host, HostTurn},
        recovery::RecoveryGuest,
    },
    organization::Organization,
};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    invitations::{find, gone, look, parse},
    people,
    session::{self, Sessions},
    views,
};
use crate::{
    daemon,
    exit::Kind,
    failure::{Failure, Result},
    rpc::{self, GreetTurn, JoinRequest, JoinTurn, Profile, Said, Turn, WelcomedView},
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
        tell(&mut *host, said)?;
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
        if guest.is_over() {
            let door = daemon::invited(guest.link()).await?;
            let info = look(guest.link(), &*door).await?;
            guest.again(&door, info)?;
        }
        tell(&mut *guest, request.said)?;
        loop {
            let turn = guest.advance().await.inspect_err(|error| self.guests.forget_if_gone(token, error));
            match turn.map_err(gone)? {
                GuestTurn::Tell(code) => return Ok(Turn::Tell(code.to_string())),
                GuestTurn::Choose(codes) => return Ok(choose(&codes)),
                GuestTurn::Ended(ended) => {
                    // A host that made certificates for its keys may just not have come to say so.
                    if !guest.is_introduced() {
                        self.guests.forget(token);
                    }
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

/// Hands on what the person said.
pub(super) fn tell(dialog: &mut impl Person, said: Said) -> Result<()> {
    match said {
        Said::Nothing => {}
        Said::Told => dialog.told(),
        Said::Heard(code) => dialog.choose(heard(code)?),
    }
    Ok(())
}

fn heard(code: Option<String>) -> Result<Option<SasCode>> {
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
