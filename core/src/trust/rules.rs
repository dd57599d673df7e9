//! The rules of who may do what, each in one place: readers check certificates by them, and a client asks them before
//! it says something, so that a refusal can name the rule and who could do it instead.

use super::{RealmTrust, Trust, UserTrust};
use crate::{
    certificate::{RealmRole, UserProfile},
    error::{Error, ErrorKind},
    id::UserId,
    time::Timestamp,
};

/// Why something is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The rule.
    pub rule: &'static str,
    /// Who could do it; empty when nobody can.
    pub who: &'static str,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(ErrorKind::Untrusted, refusal.rule)
    }
}

type Verdict = std::result::Result<(), Refusal>;

const NOBODY: &str = "";
const AN_ADMIN: &str = "an admin of the organization";
const ANOTHER_ADMIN: &str = "another admin of the organization";
const AN_OWNER: &str = "an owner of the workspace";
const A_MANAGER: &str = "an owner or a manager of the workspace";
const A_HIGHER_MEMBER: &str = "the member with the highest role";

fn rule(holds: bool, rule: &'static str, who: &'static str) -> Verdict {
    if holds { Ok(()) } else { Err(Refusal { rule, who }) }
}

/// Questions about what `author`, a user, may say at a time.
impl Trust {
    /// Invite, revoke, change profiles.
    pub fn may_administrate(&self, author: UserId, at: Timestamp) -> Verdict {
        self.stands(author, at)?;
        rule(self.profile(author, at) == Some(UserProfile::Admin), "author is not an admin", AN_ADMIN)
    }

    /// End a user.
    pub fn may_revoke(&self, author: UserId, target: UserId, at: Timestamp) -> Verdict {
        rule(author != target, "user revokes itself", ANOTHER_ADMIN)?;
        self.may_administrate(author, at)?;
        self.standing(target, at).map(drop)
    }

    /// Give a user another profile.
    pub fn may_change_profile(&self, author: UserId, target: UserId, new: UserProfile, at: Timestamp) -> Verdict {
        rule(author != target, "user changes own profile", ANOTHER_ADMIN)?;
        self.may_administrate(author, at)?;
        let user = self.standing(target, at)?;
        rule(user.profile() != new, "user has that profile already", NOBODY)
    }

    /// Make a workspace.
    pub fn may_create_realm(&self, author: UserId, at: Timestamp) -> Verdict {
        self.stands(author, at)?;
        rule(!self.is_outsider(author, at), "an outsider creates a realm", "a standard user or an admin")
    }

    /// Rename, rotate keys, archive.
    pub fn may_govern(&self, author: UserId, realm: &RealmTrust, at: Timestamp) -> Verdict {
        self.stands(author, at)?;
        rule(realm.role(author) == Some(RealmRole::Owner), "author is not an owner", AN_OWNER)
    }

    /// Give a role, or take it with `None`.
    pub fn may_change_role(
        &self,
        author: UserId,
        realm: &RealmTrust,
        change: (UserId, Option<RealmRole>),
        at: Timestamp,
    ) -> Verdict {
        self.may_have_changed_role(author, realm, change, at)?;
        rule(!self.is_outsider(author, at), "an outsider gives a role", A_MANAGER)
    }

    /// The same of what is stored already. A member who became an outsider keeps the role that was given before, and
    /// servers and official clients go by it: who does not believe what it says sees other members than all the others.
    pub(super) fn may_have_changed_role(
        &self,
        author: UserId,
        realm: &RealmTrust,
        (target, new): (UserId, Option<RealmRole>),
        at: Timestamp,
    ) -> Verdict {
        self.stands(author, at)?;
        let current = realm.role(target);
        let (needed, who) = match current.max(new) {
            Some(RealmRole::Owner | RealmRole::Manager) => (RealmRole::Owner, AN_OWNER),
            Some(RealmRole::Contributor | RealmRole::Reader) | None => (RealmRole::Manager, A_MANAGER),
        };
        let own = realm.role(author).ok_or(Refusal { rule: "author has no role", who })?;
        if target == author {
            return self.may_promote_self(author, realm, (new, own), at);
        }
        rule(own >= needed, "author's role does not allow to give or take this one", who)?;
        rule(current != new, "role is given already", NOBODY)?;
        let known = self.user(target).filter(|user| user.existed_at(at));
        let target = known.ok_or(Refusal { rule: "user is not known", who: NOBODY })?;
        if let Some(role) = new {
            rule(!target.revoked_at(at), "role for a revoked user", NOBODY)?;
            let guest = target.profile_at(at) == UserProfile::Outsider;
            rule(!guest || role < RealmRole::Manager, "outsiders are neither owner nor manager", NOBODY)?;
        }
        Ok(())
    }

    /// Somebody becomes owner where nobody with a higher role is left.
    fn may_promote_self(
        &self,
        author: UserId,
        realm: &RealmTrust,
        (new, own): (Option<RealmRole>, RealmRole),
        at: Timestamp,
    ) -> Verdict {
        rule(new == Some(RealmRole::Owner), "user changes own role to another than owner", AN_OWNER)?;
        rule(!self.is_outsider(author, at), "outsiders are neither owner nor manager", NOBODY)?;
        rule(own != RealmRole::Owner, "role is given already", NOBODY)?;
        let higher_left = realm.members().any(|(member, role)| {
            let standing = !self.is_revoked(member, at) && !self.is_outsider(member, at);
            role > own && standing
        });
        rule(!higher_left, "somebody with a higher role is left", A_HIGHER_MEMBER)
    }

    /// Hold shares of a recovery of `author`.
    pub fn may_hold_shares(&self, author: UserId, recipient: UserId, at: Timestamp) -> Verdict {
        self.stands(author, at)?;
        rule(author != recipient, "user holds own shares", "another user")?;
        let user = self.standing(recipient, at)?;
        rule(user.existed_at(at), "user did not exist yet", NOBODY)
    }

    /// Whether the user says anything at all.
    fn stands(&self, author: UserId, at: Timestamp) -> Verdict {
        rule(!self.is_revoked(author, at), "author was revoked", NOBODY)
    }

    /// A user that exists and is not revoked.
    fn standing(&self, target: UserId, at: Timestamp) -> std::result::Result<&UserTrust, Refusal> {
        let user = self.user(target).ok_or(Refusal { rule: "user is not known", who: NOBODY })?;
        rule(!user.revoked_at(at), "user is revoked", NOBODY)?;
        Ok(user)
    }

    pub(super) fn is_outsider(&self, user: UserId, at: Timestamp) -> bool {
        self.profile(user, at) == Some(UserProfile::Outsider)
    }
}
