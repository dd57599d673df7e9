//! Invitations in a store that refuses nothing: what others put there, and what is left behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, sync::Arc};

use parsecfs_backends::{
    conformance::{Identity, World},
    objects::{self, ObjectStorage, in_memory::InMemoryVerbs},
};
use parsecfs_core::{
    name::Email,
    storage::{CertificateStore, InvitationStatus, Invitations, Invitee},
    time::Timestamp,
};
use parsecfs_tests::objects::options;

const DAY_MS: i64 = 24 * 3_600_000;

async fn open(verbs: &Arc<InMemoryVerbs>, identity: &Identity, state: &Path) -> Arc<ObjectStorage> {
    let options = options(identity, state, || Timestamp::from_micros(5000).unwrap());
    objects::create_over(Arc::clone(verbs) as _, None, options).await.unwrap()
}

fn objects_of_invitations(verbs: &InMemoryVerbs) -> usize {
    verbs.keys().iter().filter(|key| key.starts_with("inv/")).count()
}

fn guest(name: &str) -> Invitee {
    Invitee::User { email: Email::new(&format!("{name}@example.com")).unwrap() }
}

#[tokio::test]
async fn what_nobody_touched_for_a_month_is_removed_with_the_next_invitation() {
    let dir = tempfile::tempdir().unwrap();
    let verbs = InMemoryVerbs::new();
    let (founder, world) = (World::founder(), World::at(Timestamp::from_micros(1000).unwrap()));
    let alice = open(&verbs, &founder, dir.path()).await;
    alice.append(world.bootstrap(&founder)).await.unwrap();
    let (old, _) = alice.invite(&guest("old"), false).await.unwrap();
    let (used, _) = alice.invite(&guest("used"), false).await.unwrap();
    alice.complete_invitation(used).await.unwrap();
    verbs.advance_ms(29 * DAY_MS);
    let (touched, _) = alice.invite(&guest("touched"), false).await.unwrap();
    alice.start_greeting(old).await.unwrap();
    assert_eq!(alice.invitations().await.unwrap().len(), 3, "nothing is old yet");
    verbs.advance_ms(2 * DAY_MS);
    let (fresh, _) = alice.invite(&guest("fresh"), false).await.unwrap();
    let mut left: Vec<_> = alice.invitations().await.unwrap().into_iter().map(|known| known.token).collect();
    let mut expected = vec![old, touched, fresh];
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
    // A card and a meta each, and the old one's attempt.
    assert_eq!(objects_of_invitations(&verbs), 7);
}

#[tokio::test]
async fn cards_of_whoever_may_not_invite_and_cards_in_other_places_count_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let verbs = InMemoryVerbs::new();
    let (founder, world) = (World::founder(), World::at(Timestamp::from_micros(1000).unwrap()));
    let alice = open(&verbs, &founder, &dir.path().join("alice")).await;
    alice.append(world.bootstrap(&founder)).await.unwrap();
    let bob = World::person(&founder);
    alice.append(world.create_user(&founder, &bob)).await.unwrap();
    let bobs = open(&verbs, &bob, &dir.path().join("bob")).await;
    assert!(bobs.invite(&guest("eve"), false).await.is_err());
    let (device, _) = bobs.invite(&Invitee::Device, false).await.unwrap();
    assert!(alice.invitations().await.unwrap().is_empty(), "his devices are his business");
    assert!(alice.start_greeting(device).await.is_err());
    let (token, _) = alice.invite(&guest("eve"), false).await.unwrap();
    assert!(bobs.invitations().await.unwrap().iter().all(|known| known.token == device));
    // The card in the place of another one, and one with a bit flipped.
    let card = verbs.keys().into_iter().filter(|key| key.ends_with("/card"));
    let cards: Vec<_> = card.map(|key| (verbs.get_now(&key).unwrap(), key)).collect();
    let [(one, first), (other, second)] = cards.try_into().unwrap();
    verbs.tamper(&first, Some(other.clone()));
    verbs.tamper(&second, Some(one.clone()));
    assert!(alice.invitations().await.unwrap().is_empty() && bobs.invitations().await.unwrap().is_empty());
    let mut flipped = one.to_vec();
    flipped[40] ^= 1;
    verbs.tamper(&first, Some(flipped.into()));
    verbs.tamper(&second, Some(other));
    let status = async |storage: &ObjectStorage| storage.invitations().await.unwrap().first().map(|known| known.status);
    let seen = (status(&alice).await, status(&bobs).await);
    let pending = Some(InvitationStatus::Pending);
    assert!(seen == (None, pending) || seen == (pending, None), "{seen:?}");
    let _ = token;
}

#[tokio::test]
async fn an_end_that_was_damaged_ends_its_invitation_only() {
    let dir = tempfile::tempdir().unwrap();
    let verbs = InMemoryVerbs::new();
    let (founder, world) = (World::founder(), World::at(Timestamp::from_micros(1000).unwrap()));
    let alice = open(&verbs, &founder, dir.path()).await;
    alice.append(world.bootstrap(&founder)).await.unwrap();
    let (used, _) = alice.invite(&guest("used"), false).await.unwrap();
    alice.complete_invitation(used).await.unwrap();
    let (open, _) = alice.invite(&guest("open"), false).await.unwrap();
    let end = verbs.keys().into_iter().find(|key| key.ends_with("/end")).unwrap();
    verbs.tamper(&end, Some(b"damaged".as_slice().into()));
    let known = alice.invitations().await.unwrap();
    let status = |token| known.iter().find(|known| known.token == token).map(|known| known.status);
    assert_eq!(status(used), Some(InvitationStatus::Cancelled));
    assert_eq!(status(open), Some(InvitationStatus::Pending));
    assert!(alice.start_greeting(used).await.is_err());
    alice.start_greeting(open).await.unwrap();
}
