//! Invitations to an organization without a server.
//!
//! | module | holds |
//! |---|---|
//! | `guest`, `mailbox` | the guest's side; the objects of one invitation |
//! | `card`, `members` | bytes of what is told of one; who may invite and greet whom |
//!
//! | object of an invitation | says | opened with |
//! |---|---|---|
//! | `card` | token, guest, who invites, signed by that device | the organization's key |
//! | `meta` | organization, guest, who may greet | the token |
//! | `end` | used, or taken back | the token |
//! | `<greeter>/<attempt>/...` | the steps | the token |
//!
//! How a secret travels: the token goes to the guest by other ways. With it both sides find the mailbox and post the
//! steps of their exchange, which keeps its secrets even from whoever holds the token. The new user's certificates then go
//! into the organization's log like any other, and the log's key goes to the guest sealed in the last payload.
//!
//! What could go wrong: somebody who owns the store may remove or withhold any of it, and learns how many invitations
//! there are. A member may use the token of any card; so may whoever steals the link. Both meet a greeter who compares
//! codes with the guest, and find no way in.

mod card;
mod guest;
mod mailbox;
mod members;

use std::collections::BTreeMap;

use futures::{FutureExt, future::BoxFuture};
use parsecfs_core::{
    id::{GreetingAttemptId, InvitationToken, UserId},
    invite::{CancelReason, Side, Step},
    storage::{
        Error, ErrorKind, Invitation, InvitationStatus, Invitations, Invitee, LogId, Notice, Result, StepAnswer,
    },
};
use parsecfs_crypto::VerifyKey;

#[cfg(feature = "fuzzing")]
pub(super) use self::card::read;
pub use self::guest::Guest;
use self::{
    card::{Card, decode_info, encode_info},
    mailbox::{End, Mailbox},
    members::Members,
};
use super::{
    ObjectStorage, Shared, key, misuse,
    organization::{Organization, denied},
    random,
    verbs::{Listed, StoreTime},
};

/// Invitations that nobody touched for so long are removed when somebody invites.
const KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// Key index of the organization's key.
const ORGANIZATION_KEY: u64 = 0;

impl Shared {
    /// The card of an invitation that this user may greet.
    async fn card(&self, members: &Members, object: &str, name: &[u8; 16]) -> Result<Option<Card>> {
        let signed = self.signed_card(&members.organization, object, name).await?;
        let current = signed.filter(|(card, author)| {
            let is_current = members.recovery_since(&card.invitee).is_none_or(|since| since < card.created);
            is_current && members.may_greet(&card.invitee, *author)
        });
        Ok(current.map(|(card, _)| card))
    }

    /// A card and the user who made it, whatever that user may.
    async fn signed_card(
        &self,
        organization: &Organization,
        object: &str,
        name: &[u8; 16],
    ) -> Result<Option<(Card, UserId)>> {
        let Some(sealed) = self.verbs.get(object).await?.bytes else { return Ok(None) };
        let opened = match self.options.keys.open(LogId::Organization, ORGANIZATION_KEY, &associated(name), &sealed) {
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(None),
            opened => opened?,
        };
        let Some((card, said, signature)) = Card::read(&opened) else { return Ok(None) };
        let Some(author) = organization.device_at(card.author, organization.head.seq) else { return Ok(None) };
        let is_authors = VerifyKey::from_bytes(author.verify_key).verify_detached(&signature, said).is_ok();
        let is_here = Mailbox::new(&*self.verbs, card.token).name() == name;
        Ok((is_authors && is_here).then_some((card, author.user)))
    }

    /// Takes back what invites to a recovery of this user that has ended, so that nobody waits for an answer.
    pub(super) async fn cancel_recovery_invitations(&self) -> Result<()> {
        let own = Invitee::Recovery { user: self.options.signer.user_id() };
        let organization = self.organization_now().await?;
        for listed in self.verbs.list_after(key::INVITATIONS, "").await? {
            let Some(name) = key::invitation_of(&listed.key, CARD) else { continue };
            let Some((card, _)) = self.signed_card(&organization, &listed.key, &name).await? else { continue };
            let mailbox = Mailbox::new(&*self.verbs, card.token);
            if card.invitee != own || mailbox.end().await?.is_some() {
                continue;
            }
            match mailbox.set_end(End::Cancelled).await {
                // It was used in this very moment.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                ended => ended?,
            }
        }
        Ok(())
    }

    /// Removes what nobody has touched for so long that its guest does not come any more.
    async fn sweep_invitations(&self) -> Result<()> {
        let now = self.verbs.now().await?;
        let mut folders: BTreeMap<String, (StoreTime, Vec<String>)> = BTreeMap::new();
        for Listed { key, modified } in self.verbs.list_after(key::INVITATIONS, "").await? {
            let Some(folder) = key::invitation_folder(&key) else { continue };
            let (newest, keys) = folders.entry(folder.to_owned()).or_default();
            *newest = modified.max(*newest);
            keys.push(key);
        }
        for (newest, keys) in folders.into_values() {
            if now.since_ms(newest) > KEPT_MS {
                for key in keys {
                    self.verbs.delete(&key).await?;
                }
            }
        }
        Ok(())
    }

    async fn invite(&self, invitee: &Invitee) -> Result<InvitationToken> {
        let members = Members::now(self).await?;
        if !members.may_invite(invitee) {
            return Err(denied("the profile of this user does not allow to invite"));
        }
        let waits = |known: &Invitation| known.invitee == *invitee && known.status == InvitationStatus::Pending;
        if let Some(known) = self.list_invitations(&members).await?.into_iter().find(waits) {
            return Ok(known.token);
        }
        self.sweep_invitations().await?;
        let token = InvitationToken::from_bytes(random());
        let mailbox = Mailbox::new(&*self.verbs, token);
        if !mailbox.put("meta", &encode_info(&members.info(&self.options.organization, invitee)?)).await? {
            return Err(misuse("a random name is taken"));
        }
        let now = (self.options.clock)();
        // An invitation goes with its recovery: whatever the clocks say, it is later.
        let created = members.recovery_since(invitee).map_or(now, |since| now.max(since.next()));
        let author = self.options.signer.device_id();
        let mut card = Card { author, token, invitee: invitee.clone(), created }.body();
        let signature = self.options.signer.sign(&card.0);
        card.raw(&signature);
        let name = *mailbox.name();
        let sealed = self.options.keys.seal(LogId::Organization, ORGANIZATION_KEY, &associated(&name), &card.0)?;
        self.verbs.create(&[(key::invitation(&name, CARD), sealed.into())]).await?;
        Ok(token)
    }

    async fn list_invitations(&self, members: &Members) -> Result<Vec<Invitation>> {
        let mut invitations = Vec::new();
        for listed in self.verbs.list_after(key::INVITATIONS, "").await? {
            let Some(name) = key::invitation_of(&listed.key, CARD) else { continue };
            let Some(card) = self.card(members, &listed.key, &name).await? else { continue };
            let status = match Mailbox::new(&*self.verbs, card.token).end().await {
                Ok(None) => InvitationStatus::Pending,
                Ok(Some(End::Finished)) => InvitationStatus::Finished,
                Ok(Some(End::Cancelled)) => InvitationStatus::Cancelled,
                // Nobody gets in by it any more, and the others are none the worse.
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                    InvitationStatus::Cancelled
                }
                Err(error) => return Err(error),
            };
            invitations.push(Invitation { token: card.token, invitee: card.invitee, created: card.created, status });
        }
        invitations.sort_by_key(|invitation| invitation.created);
        Ok(invitations)
    }

    /// The mailbox of an invitation that this user may greet.
    async fn mailbox(&self, token: InvitationToken) -> Result<Mailbox<'_>> {
        let mailbox = Mailbox::new(&*self.verbs, token);
        let object = key::invitation(mailbox.name(), CARD);
        match self.card(&Members::now(self).await?, &object, mailbox.name()).await? {
            Some(_) => Ok(mailbox),
            None => Err(Error::new(ErrorKind::NotFound, "there is no such invitation that this user may greet")),
        }
    }
}

const CARD: &str = "card";

fn associated(name: &[u8; 16]) -> Vec<u8> {
    [b"invitation".as_slice(), name].concat()
}

impl Invitations for ObjectStorage {
    fn invite<'a>(&'a self, invitee: &'a Invitee, _write: bool) -> BoxFuture<'a, Result<(InvitationToken, Notice)>> {
        async move { Ok((self.shared.invite(invitee).await?, Notice::Never)) }.boxed()
    }

    fn invitations(&self) -> BoxFuture<'_, Result<Vec<Invitation>>> {
        async move { self.shared.list_invitations(&Members::now(&self.shared).await?).await }.boxed()
    }

    fn cancel_invitation(&self, token: InvitationToken) -> BoxFuture<'_, Result<()>> {
        async move { self.shared.mailbox(token).await?.set_end(End::Cancelled).await }.boxed()
    }

    fn complete_invitation(&self, token: InvitationToken) -> BoxFuture<'_, Result<()>> {
        async move {
            // Who was recovered says so; the others only gave shares.
            let mailbox = Mailbox::new(&*self.shared.verbs, token);
            let recovered = Invitee::Recovery { user: self.shared.options.signer.user_id() };
            let meta = mailbox.get("meta").await?;
            if meta.is_some_and(|meta| decode_info(&meta).is_ok_and(|info| info.invitee == recovered)) {
                return mailbox.set_end(End::Finished).await;
            }
            self.shared.mailbox(token).await?.set_end(End::Finished).await
        }
        .boxed()
    }

    fn start_greeting(&self, token: InvitationToken) -> BoxFuture<'_, Result<GreetingAttemptId>> {
        async move {
            let own = self.shared.options.signer.user_id();
            self.shared.mailbox(token).await?.greeting(own, Side::Greeter).start().await
        }
        .boxed()
    }

    fn greet<'a>(
        &'a self,
        token: InvitationToken,
        attempt: GreetingAttemptId,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<StepAnswer>> {
        async move {
            let own = self.shared.options.signer.user_id();
            Mailbox::new(&*self.shared.verbs, token).greeting(own, Side::Greeter).post(attempt, step).await
        }
        .boxed()
    }

    fn cancel_greeting(
        &self,
        token: InvitationToken,
        attempt: GreetingAttemptId,
        reason: CancelReason,
    ) -> BoxFuture<'_, Result<()>> {
        async move {
            let own = self.shared.options.signer.user_id();
            Mailbox::new(&*self.shared.verbs, token).greeting(own, Side::Greeter).cancel(attempt, reason).await
        }
        .boxed()
    }
}
