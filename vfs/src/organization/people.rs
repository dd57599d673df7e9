//! Who may do what, and changing it: roles in workspaces, profiles, and the end of a user; and what owners owe when
//! somebody is gone.
//!
//! Every change asks the rules of [`Trust`] first, so that what readers would reject is never sent: the refusal names
//! the rule and who could do it. A change that holds already is done.
//!
//! What could go wrong: a key that a removed person knows goes on being used. So whoever takes a role away gives the
//! workspace a new key in the same call, and every owner's [`Organization::refresh`] does it where nobody has; a write
//! with the old key is refused by the storage and sealed again.

use parsecfs_core::{
    certificate::{ArchivingConfiguration, RealmRole, UserProfile},
    id::{RealmId, UserId},
    keys_bundle::KeysBundleAccess,
    name::EntryName,
    statement::{self, NewUser},
    storage::Statement,
    trust::{RealmTrust, Refusal, Trust},
};
use parsecfs_crypto::SecretKey;

use super::{APPEND_ROUNDS_MAX, Organization, UserSummary, documents, refused};
use crate::error::{Error, ErrorKind, Result};

/// Somebody with a role in a workspace.
#[derive(Clone, Debug)]
pub struct MemberSummary {
    /// Who.
    pub user: UserSummary,
    /// The role.
    pub role: RealmRole,
}

impl Organization {
    /// The person with this address, id, or unique beginning of an id; of several with an address, the one who is not
    /// revoked. Several are `InvalidArgument`; the error lists their ids.
    pub fn find_user(&self, text: &str) -> Result<UserSummary> {
        let users = self.users();
        let named = |user: &&UserSummary| {
            user.human_handle.as_ref().is_some_and(|handle| handle.email().to_string().eq_ignore_ascii_case(text))
        };
        let mut found: Vec<_> = users.iter().filter(named).collect();
        if found.is_empty() {
            found = users.iter().filter(|user| super::workspace::is_id_start(&user.id.to_string(), text)).collect();
        }
        if found.len() > 1 && found.iter().any(|user| user.revoked.is_none()) {
            found.retain(|user| user.revoked.is_none());
        }
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(Error::new(ErrorKind::NotFound, "no such person")),
            several => {
                let ids: Vec<_> = several.iter().map(|one| one.id.to_string()).collect();
                Err(Error::new(ErrorKind::InvalidArgument, format!("several people match: {}", ids.join(", "))))
            }
        }
    }

    /// Makes a user with its first device known. May be repeated.
    pub(crate) async fn add_user(&self, new: &NewUser) -> Result<()> {
        self.append(|trust| {
            if trust.user(new.device.user).is_some() {
                return Ok(None);
            }
            let author = self.author(trust, None);
            self.allowed(trust.may_administrate(self.user_id(), author.timestamp))?;
            self.require_free(new.human_handle.email())?;
            Ok(Some(statement::create_user(new, &author)))
        })
        .await
    }

    /// Everybody with a role in a workspace, the highest first; revoked people until an owner removes them.
    #[must_use]
    pub fn members(&self, realm: RealmId) -> Vec<MemberSummary> {
        let trust = self.trust();
        let roles = trust.realm(realm).map(|realm| realm.members().collect::<Vec<_>>()).unwrap_or_default();
        let users = self.users();
        let summary = |(id, role)| Some(MemberSummary { user: users.iter().find(|user| user.id == id)?.clone(), role });
        let mut members: Vec<_> = roles.into_iter().filter_map(summary).collect();
        members.sort_by_key(|member| std::cmp::Reverse(member.role));
        members
    }

    /// Gives a role, with access to the keys. One's own to owner where nobody with a higher role is left.
    pub async fn share(&self, realm: RealmId, user: UserId, role: RealmRole) -> Result<()> {
        self.poll().await?;
        for _ in 0..APPEND_ROUNDS_MAX {
            let trust = self.trust();
            if known_realm(&trust, realm)?.role(user) == Some(role) {
                return Ok(());
            }
            self.allowed(trust.may_change_role(
                self.user_id(),
                known_realm(&trust, realm)?,
                (user, Some(role)),
                self.statement_time(&trust, Some(realm)),
            ))?;
            let index = known_realm(&trust, realm)?.key_index();
            let bundle = self.storage.keys_bundle(realm, index).await?;
            let access = KeysBundleAccess::open(&bundle.access, &self.device.private_key)
                .map_err(|error| refused(format!("keys bundle {index} of realm {realm}"), error))?;
            let shared = self.append(|trust| self.share_statement(trust, realm, (user, role), (index, &access)));
            match shared.await {
                Err(error) if error.kind() == ErrorKind::Stale => {}
                answer => return answer,
            }
        }
        Err(crowded())
    }

    fn share_statement(
        &self,
        trust: &Trust,
        realm: RealmId,
        (user, role): (UserId, RealmRole),
        key: (u64, &KeysBundleAccess),
    ) -> Result<Option<Statement>> {
        let now = known_realm(trust, realm)?;
        if now.role(user) == Some(role) {
            return Ok(None);
        }
        if now.key_index() != key.0 {
            return Err(Error::new(ErrorKind::Stale, format!("realm {realm} has a newer key")));
        }
        let author = self.author(trust, Some(realm));
        self.allowed(trust.may_change_role(self.user_id(), now, (user, Some(role)), author.timestamp))?;
        let recipient = trust.user(user).ok_or_else(|| Error::new(ErrorKind::NotFound, "no such person"))?;
        statement::share(realm, (user, &recipient.certificate().public_key), role, key, &author)
            .map(Some)
            .map_err(|error| refused(format!("the key of user {user}"), error))
    }

    /// Takes a role away, then does what owners owe: `NotFound` when there is none.
    pub async fn unshare(&self, realm: RealmId, user: UserId) -> Result<()> {
        self.poll().await?;
        if known_realm(&self.trust(), realm)?.role(user).is_none() {
            return Err(Error::new(ErrorKind::NotFound, "this person has no role in the workspace"));
        }
        self.take_role(realm, user).await?;
        self.finish_workspaces().await
    }

    async fn take_role(&self, realm: RealmId, user: UserId) -> Result<()> {
        self.append(|trust| {
            let now = known_realm(trust, realm)?;
            if now.role(user).is_none() {
                return Ok(None);
            }
            let author = self.author(trust, Some(realm));
            self.allowed(trust.may_change_role(self.user_id(), now, (user, None), author.timestamp))?;
            Ok(Some(statement::unshare(realm, user, &author)))
        })
        .await
    }

    /// Gives a workspace another name. `Exists` when this user sees another one of that name.
    pub async fn rename_workspace(&self, realm: RealmId, name: &EntryName) -> Result<()> {
        self.poll().await?;
        self.require_owner(realm)?;
        let workspaces = self.workspaces().await?;
        if let Some(taken) = workspaces.iter().find(|workspace| workspace.name.as_ref() == Some(name)) {
            return if taken.realm == realm {
                Ok(())
            } else {
                Err(Error::new(ErrorKind::Exists, "a workspace of that name exists"))
            };
        }
        let keys = self.realm_keys(realm).await?;
        let key = documents::newest(realm, &keys)?;
        let before = known_realm(&self.trust(), realm)?.name().map(|name| name.timestamp);
        self.append(|trust| {
            let now = known_realm(trust, realm)?;
            // Sealed anew each time, so an answer that was lost shows by the name's time.
            if now.name().is_some_and(|name| Some(name.timestamp) > before && name.author == self.device_id()) {
                return Ok(None);
            }
            let author = self.author(trust, Some(realm));
            self.allowed(trust.may_govern(self.user_id(), now, author.timestamp))?;
            Ok(Some(statement::rename_realm(realm, name, key, &author)))
        })
        .await
    }

    /// Makes a workspace read-only for everybody, or gives it back.
    pub async fn archive_workspace(&self, realm: RealmId, archived: bool) -> Result<()> {
        self.poll().await?;
        let wanted = if archived { ArchivingConfiguration::Archived } else { ArchivingConfiguration::Available };
        self.append(|trust| {
            let now = known_realm(trust, realm)?;
            let author = self.author(trust, Some(realm));
            self.allowed(trust.may_govern(self.user_id(), now, author.timestamp))?;
            Ok((now.archiving() != wanted).then(|| statement::archive_realm(realm, wanted, &author)))
        })
        .await
    }

    /// Gives a workspace a new key for what is written from now on.
    pub async fn rotate_key(&self, realm: RealmId) -> Result<()> {
        self.poll().await?;
        self.require_owner(realm)?;
        let before = known_realm(&self.trust(), realm)?.key_index();
        self.remove_revoked(realm).await?;
        self.rotate_while(realm, |_, realm| realm.key_index() == before).await
    }

    /// Puts a new key behind those there are, as long as `due` says so.
    async fn rotate_while(&self, realm: RealmId, due: impl Fn(&Trust, &RealmTrust) -> bool) -> Result<()> {
        for _ in 0..APPEND_ROUNDS_MAX {
            let previous = match known_realm(&self.trust(), realm)?.key_index() {
                0 => Vec::new(),
                _ => self.realm_keys(realm).await?.all().ok_or_else(|| damaged_key(realm))?,
            };
            let rotated = self.append(|trust| {
                let now = known_realm(trust, realm)?;
                if !due(trust, now) {
                    return Ok(None);
                }
                if now.key_index() != previous.len() as u64 {
                    return Err(Error::new(ErrorKind::Stale, format!("realm {realm} has a newer key")));
                }
                self.rotation(trust, now, previous.clone()).map(Some)
            });
            match rotated.await {
                Err(error) if error.kind() == ErrorKind::Stale => {}
                answer => return answer,
            }
        }
        Err(crowded())
    }

    fn rotation(&self, trust: &Trust, realm: &RealmTrust, previous: Vec<SecretKey>) -> Result<Statement> {
        let author = self.author(trust, Some(realm.id()));
        self.allowed(trust.may_govern(self.user_id(), realm, author.timestamp))?;
        let standing = realm.members().filter_map(|(id, _)| trust.user(id).filter(|user| user.revoked().is_none()));
        let members = standing.map(|user| (user.certificate().user_id, user.certificate().public_key));
        statement::rotate_key(
            realm.id(),
            previous,
            SecretKey::generate(),
            &KeysBundleAccess { keys_bundle_key: SecretKey::generate() },
            members,
            trust.sequester(),
            &author,
        )
        .map_err(|error| refused(format!("the key of a member of realm {}", realm.id()), error))
    }

    /// What an owner owes to a realm of which people are gone: their roles taken, then a new key.
    pub(super) async fn fulfil_duties(&self, realm: RealmId) -> Result<()> {
        self.remove_revoked(realm).await?;
        self.rotate_while(realm, |trust, realm| trust.owner_duties(realm).1).await
    }

    async fn remove_revoked(&self, realm: RealmId) -> Result<()> {
        let trust = self.trust();
        for user in trust.owner_duties(known_realm(&trust, realm)?).0 {
            self.take_role(realm, user).await?;
        }
        Ok(())
    }

    /// Ends a user, whose devices can do nothing from then on.
    pub async fn revoke_user(&self, user: UserId) -> Result<()> {
        self.poll().await?;
        self.append(|trust| {
            if trust.user(user).is_some_and(|user| user.revoked().is_some()) {
                return Ok(None);
            }
            let author = self.author(trust, None);
            self.allowed(trust.may_revoke(self.user_id(), user, author.timestamp))?;
            Ok(Some(statement::revoke_user(user, &author)))
        })
        .await?;
        self.finish_workspaces().await
    }

    /// Gives a user another profile.
    pub async fn change_profile(&self, user: UserId, profile: UserProfile) -> Result<()> {
        self.poll().await?;
        self.append(|trust| {
            if user != self.user_id() && trust.user(user).is_some_and(|user| user.profile() == profile) {
                return Ok(None);
            }
            let author = self.author(trust, None);
            self.allowed(trust.may_change_profile(self.user_id(), user, profile, author.timestamp))?;
            Ok(Some(statement::update_user(user, profile, &author)))
        })
        .await
    }

    fn require_owner(&self, realm: RealmId) -> Result<()> {
        let trust = self.trust();
        let at = self.statement_time(&trust, Some(realm));
        self.allowed(trust.may_govern(self.user_id(), known_realm(&trust, realm)?, at))
    }

    pub(crate) fn allowed(&self, verdict: std::result::Result<(), Refusal>) -> Result<()> {
        verdict.map_err(|Refusal { rule, who }| {
            let who = if who.is_empty() { String::new() } else { format!("; {who} can do it") };
            Error::new(ErrorKind::Denied, format!("the rules do not allow it: {rule}{who}"))
        })
    }
}

fn known_realm(trust: &Trust, realm: RealmId) -> Result<&RealmTrust> {
    trust.realm(realm).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("realm {realm} is not known")))
}

fn damaged_key(realm: RealmId) -> Error {
    Error::new(ErrorKind::Untrusted, format!("a key of realm {realm} is damaged"))
}

fn crowded() -> Error {
    Error::new(ErrorKind::Busy, "others keep changing the organization: try again")
}
