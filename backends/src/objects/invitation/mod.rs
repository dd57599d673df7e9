//! Invitations to an organization without a server.
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

mod guest;
mod mailbox;

use std::collections::BTreeMap;

use futures::{FutureExt, future::BoxFuture};
use parsecfs_core::{
    certificate::{Certificate, UserProfile},
    id::{DeviceId, GreetingAttemptId, InvitationToken, UserId},
    invite::{CancelReason, Side, Step},
    name::{Email, HumanHandle, OrganizationId},
    storage::{
        CertificateCursor, Error, ErrorKind, Greeter, Invitation, InvitationInfo, InvitationStatus, Invitations,
        Invitee, LogId, Notice, Result, StepAnswer,
    },
    time::Timestamp,
};
use parsecfs_crypto::VerifyKey;

pub use self::guest::Guest;
use self::mailbox::{End, Mailbox};
use super::{
    ObjectStorage, Shared, key, misuse,
    organization::denied,
    random,
    verbs::{Listed, StoreTime},
    wire::{Reader, Writer},
};
use crate::{recovery::RecoveryCertificate, statement::claim_of};

/// Also tells these signatures from those of entries, heads and documents, which begin with other bytes.
const MAGIC: &[u8; 4] = b"PFIC";
const FORMAT: u8 = 1;
const SIGNATURE_BYTES: usize = 64;
/// Invitations that nobody touched for so long are removed when somebody invites.
const KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// Key index of the organization's key.
const ORGANIZATION_KEY: u64 = 0;

/// What members see of an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Card {
    author: DeviceId,
    token: InvitationToken,
    invitee: Invitee,
    created: Timestamp,
}

impl Card {
    fn body(&self) -> Writer {
        let mut writer = Writer::default();
        writer.raw(MAGIC).u8(FORMAT).raw(self.author.as_bytes()).raw(self.token.as_bytes()).time(self.created);
        write_invitee(&mut writer, &self.invitee);
        writer
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8], [u8; SIGNATURE_BYTES])> {
        let (said, signature) = bytes.split_last_chunk::<SIGNATURE_BYTES>()?;
        let mut reader = Reader::new(said.strip_prefix(MAGIC)?.strip_prefix(&[FORMAT])?);
        let card = Self {
            author: DeviceId::from_bytes(reader.array().ok()?),
            token: InvitationToken::from_bytes(reader.array().ok()?),
            created: reader.time().ok()?,
            invitee: read_invitee(&mut reader).ok()?,
        };
        reader.is_empty().then_some((card, said, *signature))
    }
}

fn write_invitee(writer: &mut Writer, invitee: &Invitee) {
    match invitee {
        Invitee::User { email } => writer.u8(0).bytes(email.as_str().as_bytes()),
        Invitee::Device => writer.u8(1),
        Invitee::Recovery { user } => writer.u8(2).raw(user.as_bytes()),
    };
}

fn read_invitee(reader: &mut Reader<'_>) -> Result<Invitee> {
    Ok(match reader.u8()? {
        0 => Invitee::User { email: Email::new(text(reader)?).map_err(|_| garbled())? },
        1 => Invitee::Device,
        2 => Invitee::Recovery { user: UserId::from_bytes(reader.array()?) },
        _ => return Err(Error::new(ErrorKind::Unsupported, "an invitation of a kind that is not known")),
    })
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str> {
    std::str::from_utf8(reader.bytes()?).map_err(|_| garbled())
}

fn garbled() -> Error {
    Error::new(ErrorKind::Corrupt, "the invitation makes no sense")
}

fn write_handle(writer: &mut Writer, handle: Option<&HumanHandle>) {
    match handle {
        Some(handle) => {
            writer.u8(1).bytes(handle.email().as_str().as_bytes()).bytes(handle.label().as_bytes());
        }
        None => {
            writer.u8(0);
        }
    }
}

fn read_handle(reader: &mut Reader<'_>) -> Result<Option<HumanHandle>> {
    if reader.u8()? == 0 {
        return Ok(None);
    }
    let email = Email::new(text(reader)?).map_err(|_| garbled())?;
    HumanHandle::new(email, text(reader)?).map(Some).map_err(|_| garbled())
}

fn encode_info(info: &InvitationInfo) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.u8(FORMAT).bytes(info.organization.as_str().as_bytes());
    write_invitee(&mut writer, &info.invitee);
    write_handle(&mut writer, info.human_handle.as_ref());
    writer.u8(info.threshold).length(info.greeters.len());
    for greeter in &info.greeters {
        writer.raw(greeter.user.as_bytes()).u8(greeter.shares);
        write_handle(&mut writer, greeter.human_handle.as_ref());
    }
    writer.0
}

fn decode_info(bytes: &[u8]) -> Result<InvitationInfo> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != FORMAT {
        return Err(Error::new(ErrorKind::Unsupported, "the invitation was made by a newer version"));
    }
    let organization = OrganizationId::new(text(&mut reader)?).map_err(|_| garbled())?;
    let invitee = read_invitee(&mut reader)?;
    let human_handle = read_handle(&mut reader)?;
    let threshold = reader.u8()?;
    let greeters = reader.list(|reader| {
        let user = UserId::from_bytes(reader.array()?);
        let shares = reader.u8()?;
        Ok(Greeter { user, human_handle: read_handle(reader)?, shares })
    })?;
    Ok(InvitationInfo { organization, invitee, human_handle, greeters, threshold })
}

/// Reads a card and a meta.
#[cfg(feature = "fuzzing")]
pub(super) fn read(bytes: &[u8]) {
    if let Some((card, said, signature)) = Card::read(bytes) {
        assert_eq!([&card.body().0[..], &signature].concat(), bytes, "a card is written otherwise");
        assert_eq!(said.len() + SIGNATURE_BYTES, bytes.len());
    }
    if let Ok(info) = decode_info(bytes) {
        assert_eq!(decode_info(&encode_info(&info)).expect("what was written is read"), info);
    }
}

/// A user as certificates tell now.
struct Person {
    handle: Option<HumanHandle>,
    profile: UserProfile,
    revoked: bool,
}

impl Shared {
    async fn people(&self) -> Result<BTreeMap<UserId, Person>> {
        let mut people: BTreeMap<UserId, Person> = BTreeMap::new();
        for certificate in self.certificates(&CertificateCursor::default()).await?.common {
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
        Ok(people)
    }

    /// The card of an invitation that this user may greet.
    async fn card(&self, object: &str, name: &[u8; 16]) -> Result<Option<Card>> {
        let Some((card, author)) = self.signed_card(object, name).await? else { return Ok(None) };
        let is_current = self.recovery_since(&card.invitee).await?.is_none_or(|since| since < card.created);
        Ok((is_current && self.may_greet(&card.invitee, author).await?).then_some(card))
    }

    /// A card and the user who made it, whatever that user may.
    async fn signed_card(&self, object: &str, name: &[u8; 16]) -> Result<Option<(Card, UserId)>> {
        let Some(sealed) = self.verbs.get(object).await?.bytes else { return Ok(None) };
        let opened = match self.options.keys.open(LogId::Organization, ORGANIZATION_KEY, &associated(name), &sealed) {
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(None),
            opened => opened?,
        };
        let Some((card, said, signature)) = Card::read(&opened) else { return Ok(None) };
        let organization = self.organization_now().await?;
        let Some(author) = organization.device_at(card.author, organization.head.seq) else { return Ok(None) };
        let is_authors = VerifyKey::from_bytes(author.verify_key).verify_detached(&signature, said).is_ok();
        let is_here = Mailbox::new(&*self.verbs, card.token).name() == name;
        Ok((is_authors && is_here).then_some((card, author.user)))
    }

    /// Takes back what invites to a recovery of this user that has ended, so that nobody waits for an answer.
    pub(super) async fn cancel_recovery_invitations(&self) -> Result<()> {
        let own = Invitee::Recovery { user: self.options.signer.user_id() };
        for listed in self.verbs.list_after(key::INVITATIONS, "").await? {
            let Some(name) = key::invitation_of(&listed.key, CARD) else { continue };
            let Some((card, _)) = self.signed_card(&listed.key, &name).await? else { continue };
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

    /// Since when the recovery holds that somebody is invited to.
    async fn recovery_since(&self, invitee: &Invitee) -> Result<Option<Timestamp>> {
        let Invitee::Recovery { user } = invitee else { return Ok(None) };
        Ok(self.organization_now().await?.recoveries.setup(*user).map(|setup| setup.timestamp))
    }

    /// Whether this user may greet whom `author` invited, and `author` may invite.
    async fn may_greet(&self, invitee: &Invitee, author: UserId) -> Result<bool> {
        let own = self.options.signer.user_id();
        Ok(match invitee {
            Invitee::User { .. } => {
                let people = self.people().await?;
                let is_admin = |user: UserId| {
                    people.get(&user).is_some_and(|person| person.profile == UserProfile::Admin && !person.revoked)
                };
                is_admin(author) && is_admin(own)
            }
            Invitee::Device => author == own,
            Invitee::Recovery { user } => {
                let organization = self.organization_now().await?;
                let holders = organization.recoveries.setup(*user).map(|setup| &setup.recipients);
                holders.is_some_and(|holders| holders.contains(&author) && holders.contains(&own))
            }
        })
    }

    async fn info(&self, invitee: &Invitee) -> Result<InvitationInfo> {
        let own = self.options.signer.user_id();
        let people = self.people().await?;
        let setup = match invitee {
            Invitee::Recovery { user } => {
                self.organization_now().await?.recoveries.setup(*user).and_then(RecoveryCertificate::brief)
            }
            Invitee::User { .. } | Invitee::Device => None,
        };
        let shares = |user: &UserId| setup.as_ref().and_then(|setup| setup.per_recipient_shares.get(user));
        let handle = |user: &UserId| people.get(user).and_then(|person| person.handle.clone());
        let greets = |user: &UserId, person: &Person| match invitee {
            Invitee::User { .. } => person.profile == UserProfile::Admin && !person.revoked,
            Invitee::Device => *user == own,
            Invitee::Recovery { .. } => shares(user).is_some() && !person.revoked,
        };
        Ok(InvitationInfo {
            organization: OrganizationId::new(&self.options.organization).map_err(|_| misuse("no organization"))?,
            invitee: invitee.clone(),
            human_handle: match invitee {
                Invitee::User { .. } => None,
                Invitee::Device => handle(&own),
                Invitee::Recovery { user } => handle(user),
            },
            greeters: people
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
        let own = self.options.signer.user_id();
        if !self.may_greet(invitee, own).await? {
            return Err(denied("the profile of this user does not allow to invite"));
        }
        let waits = |known: &Invitation| known.invitee == *invitee && known.status == InvitationStatus::Pending;
        if let Some(known) = self.list_invitations().await?.into_iter().find(waits) {
            return Ok(known.token);
        }
        self.sweep_invitations().await?;
        let token = InvitationToken::from_bytes(random());
        let mailbox = Mailbox::new(&*self.verbs, token);
        if !mailbox.put("meta", &encode_info(&self.info(invitee).await?)).await? {
            return Err(misuse("a random name is taken"));
        }
        let now = (self.options.clock)();
        // An invitation goes with its recovery: whatever the clocks say, it is later.
        let created = self.recovery_since(invitee).await?.map_or(now, |since| now.max(since.next()));
        let author = self.options.signer.device_id();
        let mut card = Card { author, token, invitee: invitee.clone(), created }.body();
        let signature = self.options.signer.sign(&card.0);
        card.raw(&signature);
        let name = *mailbox.name();
        let sealed = self.options.keys.seal(LogId::Organization, ORGANIZATION_KEY, &associated(&name), &card.0)?;
        self.verbs.create(&[(key::invitation(&name, CARD), sealed.into())]).await?;
        Ok(token)
    }

    async fn list_invitations(&self) -> Result<Vec<Invitation>> {
        let mut invitations = Vec::new();
        for listed in self.verbs.list_after(key::INVITATIONS, "").await? {
            let Some(name) = key::invitation_of(&listed.key, CARD) else { continue };
            let Some(card) = self.card(&listed.key, &name).await? else { continue };
            let status = match Mailbox::new(&*self.verbs, card.token).end().await? {
                None => InvitationStatus::Pending,
                Some(End::Finished) => InvitationStatus::Finished,
                Some(End::Cancelled) => InvitationStatus::Cancelled,
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
        match self.card(&object, mailbox.name()).await? {
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
        self.shared.list_invitations().boxed()
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
