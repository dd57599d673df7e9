//! Who may invite and greet whom, as the organization's log tells now.

use std::{collections::BTreeMap, sync::Arc};

use parsecfs_core::{
    certificate::{Certificate, UserProfile},
    id::UserId,
    name::{HumanHandle, OrganizationId},
    storage::{CertificateCursor, Greeter, InvitationInfo, Invitee, Result},
    time::Timestamp,
};

use super::super::{Shared, misuse, organization::Organization};
use crate::{recovery::RecoveryCertificate, statement::claim_of};

/// A user as certificates tell now.
struct Person {
    handle: Option<HumanHandle>,
    profile: UserProfile,
    revoked: bool,
}

impl Person {
    fn is_admin(&self) -> bool {
        self.profile == UserProfile::Admin && !self.revoked
    }
}

/// The organization as one of its users sees it at one moment.
pub(super) struct Members {
    pub(super) organization: Arc<Organization>,
    own: UserId,
    people: BTreeMap<UserId, Person>,
}

impl Members {
    /// As the log tells now.
    pub(super) async fn now(shared: &Shared) -> Result<Self> {
        let (organization, own) = (shared.organization_now().await?, shared.options.signer.user_id());
        let mut people: BTreeMap<UserId, Person> = BTreeMap::new();
        for certificate in organization.certificates(&CertificateCursor::default(), own) {
            match claim_of(&certificate)? {
                Certificate::User(said) => {
                    let person = Person { handle: said.human_handle, profile: said.profile, revoked: false };
                    people.insert(said.user_id, person);
                }
                Certificate::UserUpdate(said) => {
                    people.entry(said.user_id).and_modify(|person| person.profile = said.new_profile);
                }
                Certificate::RevokedUser(said) => {
                    people.entry(said.user_id).and_modify(|person| person.revoked = true);
                }
                _ => {}
            }
        }
        Ok(Self { organization, own, people })
    }

    /// Whether this user may greet whom `author` invited, and `author` may invite.
    pub(super) fn may_greet(&self, invitee: &Invitee, author: UserId) -> bool {
        match invitee {
            Invitee::User { .. } => {
                let is_admin = |user: UserId| self.people.get(&user).is_some_and(Person::is_admin);
                is_admin(author) && is_admin(self.own)
            }
            Invitee::Device => author == self.own,
            Invitee::Recovery { user } => {
                let holders = self.organization.recoveries.setup(*user).map(|setup| &setup.recipients);
                holders.is_some_and(|holders| holders.contains(&author) && holders.contains(&self.own))
            }
        }
    }

    /// Whether this user may invite so.
    pub(super) fn may_invite(&self, invitee: &Invitee) -> bool {
        self.may_greet(invitee, self.own)
    }

    /// Since when the recovery holds that somebody is invited to.
    pub(super) fn recovery_since(&self, invitee: &Invitee) -> Option<Timestamp> {
        let Invitee::Recovery { user } = invitee else { return None };
        self.organization.recoveries.setup(*user).map(|setup| setup.timestamp)
    }

    /// What the guest of an invitation to this organization is told.
    pub(super) fn info(&self, organization: &str, invitee: &Invitee) -> Result<InvitationInfo> {
        let setup = match invitee {
            Invitee::Recovery { user } => {
                self.organization.recoveries.setup(*user).and_then(RecoveryCertificate::brief)
            }
            Invitee::User { .. } | Invitee::Device => None,
        };
        let shares = |user: &UserId| setup.as_ref().and_then(|setup| setup.per_recipient_shares.get(user));
        let handle = |user: &UserId| self.people.get(user).and_then(|person| person.handle.clone());
        let greets = |user: &UserId, person: &Person| match invitee {
            Invitee::User { .. } => person.is_admin(),
            Invitee::Device => *user == self.own,
            Invitee::Recovery { .. } => shares(user).is_some() && !person.revoked,
        };
        Ok(InvitationInfo {
            organization: OrganizationId::new(organization).map_err(|_| misuse("no organization"))?,
            invitee: invitee.clone(),
            human_handle: match invitee {
                Invitee::User { .. } => None,
                Invitee::Device => handle(&self.own),
                Invitee::Recovery { user } => handle(user),
            },
            greeters: self
                .people
                .iter()
                .filter(|(user, person)| greets(user, person))
                .map(|(user, _)| Greeter {
                    user: *user,
                    human_handle: handle(user),
                    shares: shares(user).map_or(0, |shares| shares.get()),
                })
                .collect(),
            threshold: setup.as_ref().map_or(0, |setup| setup.threshold.get()),
        })
    }
}
