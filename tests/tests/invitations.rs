//! Somebody is let in by comparing codes: both sides, both kinds, on a directory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use parsecfs_core::{
    certificate::{RealmRole, UserProfile},
    id::{GreetingAttemptId, RevealToken, UserId},
    invite::{CancelReason, LAST_STEP, Step},
    local_device::LocalDevice,
    name::{DeviceLabel, Email, HumanHandle},
    storage::{self, Bytes, InvitationInfo, InvitationStatus, Invitations, Invited, Invitee, StepAnswer},
    url::{InvitationLink, LinkKind},
};
use parsecfs_tests::{
    phone::Phone,
    world::{Device, Files, World, content},
};
use parsecfs_vfs::{
    error::{ErrorKind, Result},
    invitation::{
        Ended, Person,
        guest::{Guest, GuestTurn, Wishes},
        host::{Host, HostTurn, Welcomed},
    },
};
use tokio::sync::Notify;

async fn greet(host: &mut Host, phone: &mut Phone) -> Result<std::result::Result<Welcomed, Ended>> {
    loop {
        match host.advance().await? {
            HostTurn::Tell(code) => phone.tell(host, code),
            HostTurn::Choose(codes) => phone.pick(host, &codes).await,
            HostTurn::Welcomed(welcomed) => return Ok(Ok(welcomed)),
            HostTurn::Ended(ended) => return Ok(Err(ended)),
            HostTurn::ShareGiven(_) => panic!("nobody lost anything"),
        }
    }
}

async fn join(guest: &mut Guest, phone: &mut Phone) -> Result<std::result::Result<LocalDevice, Ended>> {
    join_on(guest, phone, &mut None).await
}

/// With a disk that remembers what was saved.
async fn join_on(
    guest: &mut Guest,
    phone: &mut Phone,
    saved: &mut Option<LocalDevice>,
) -> Result<std::result::Result<LocalDevice, Ended>> {
    loop {
        match guest.advance().await? {
            GuestTurn::Tell(code) => phone.tell(guest, code),
            GuestTurn::Choose(codes) => phone.pick(guest, &codes).await,
            GuestTurn::Save(device) => {
                *saved = Some(*device);
                guest.saved();
            }
            GuestTurn::Joined => return Ok(Ok(saved.clone().unwrap())),
            GuestTurn::Ended(ended) => return Ok(Err(ended)),
        }
    }
}

fn bob() -> HumanHandle {
    HumanHandle::new(Email::new("bob@example.com").unwrap(), "Bob").unwrap()
}

fn invitee() -> Invitee {
    Invitee::User { email: bob().email().clone() }
}

fn wishes(link: &InvitationLink, label: &str) -> Wishes {
    let human_handle = (link.kind == LinkKind::User).then(bob);
    Wishes { label: DeviceLabel::new(label).unwrap(), human_handle }
}

async fn guest(world: &World, link: &InvitationLink, label: &str) -> Guest {
    let door = world.guest(link).await.unwrap();
    let info = door.info().await.unwrap();
    Guest::new(link.clone(), &door, info, wishes(link, label)).unwrap()
}

async fn host(device: &Device, link: &InvitationLink) -> Host {
    Arc::clone(&device.organization).greet(link.token, UserProfile::Standard).await.unwrap()
}

/// Both sides, by two people who understand each other.
async fn meet(world: &World, device: &Device, link: &InvitationLink, label: &str) -> LocalDevice {
    let (mut host, mut guest) = (host(device, link).await, guest(world, link, label).await);
    let (mut one, mut other) = Phone::pair();
    let (welcomed, joined) = tokio::join!(greet(&mut host, &mut one), join(&mut guest, &mut other));
    let (welcomed, joined) = (welcomed.unwrap().unwrap(), joined.unwrap().unwrap());
    assert_eq!((welcomed.user, welcomed.device), (joined.user_id, joined.device_id));
    joined
}

#[tokio::test]
async fn a_guest_becomes_a_user_and_reads_what_is_shared() {
    let (world, alice) = World::found().await.unwrap();
    let (link, _) = alice.organization.invite(&invitee(), false).await.unwrap();
    let link = InvitationLink::parse(&link.reveal()).unwrap();
    let device = meet(&world, &alice, &link, "phone").await;
    assert_eq!((device.human_handle.clone(), device.initial_profile), (bob(), UserProfile::Standard));
    let bob = world.open("phone", device).await.unwrap();
    let realm = alice.create_workspace("notes").await.unwrap();
    alice.organization.share(realm, bob.organization.user_id(), RealmRole::Contributor).await.unwrap();
    let hers = alice.workspace(realm).await.unwrap();
    hers.volume().put("hello", b"bob").unwrap();
    hers.sync().await.unwrap();
    bob.organization.refresh().await.unwrap();
    let his = bob.workspace(realm).await.unwrap();
    his.sync().await.unwrap();
    assert_eq!(content(his.volume(), "hello").await.unwrap(), b"bob");
}

#[tokio::test]
async fn a_guest_becomes_a_further_device_with_the_same_workspaces() {
    let (world, alice) = World::found().await.unwrap();
    let realm = alice.create_workspace("notes").await.unwrap();
    let (link, _) = alice.organization.invite(&Invitee::Device, false).await.unwrap();
    let info = world.guest(&link).await.unwrap().info().await.unwrap();
    assert_eq!(info.human_handle.as_ref(), Some(&alice.organization.device().human_handle));
    let device = meet(&world, &alice, &link, "tablet").await;
    assert_eq!(device.user_id, alice.organization.user_id());
    let tablet = world.open("tablet", device).await.unwrap();
    assert_eq!(tablet.organization.role(realm), Some(RealmRole::Owner));
    tablet.workspace(realm).await.unwrap().sync().await.unwrap();
}

#[tokio::test]
async fn a_misheard_code_ends_it_on_both_sides_and_the_next_attempt_works() {
    let (world, alice) = World::found().await.unwrap();
    let (link, _) = alice.organization.invite(&invitee(), false).await.unwrap();
    for host_is_deaf in [true, false] {
        let (mut hers, mut his) = (host(&alice, &link).await, guest(&world, &link, "phone").await);
        let (mut one, mut other) = Phone::pair();
        (one.is_deaf, other.is_deaf) = (host_is_deaf, !host_is_deaf);
        let (greeted, joined) = tokio::join!(greet(&mut hers, &mut one), join(&mut his, &mut other));
        let reason = CancelReason::InvalidSasCode;
        assert_eq!(greeted.unwrap(), Err(Ended { by_us: host_is_deaf, reason }));
        assert_eq!(joined.unwrap().err(), Some(Ended { by_us: !host_is_deaf, reason }));
        // It stays so.
        assert!(matches!(hers.advance().await.unwrap(), HostTurn::Ended(_)));
    }
    assert_eq!(alice.organization.users().len(), 1, "nobody was let in");
    meet(&world, &alice, &link, "phone").await;
}

#[tokio::test]
async fn a_used_cancelled_or_unknown_invitation_is_named_so_on_both_sides() {
    let (world, alice) = World::found().await.unwrap();
    let refused = async |link: &InvitationLink| {
        let host = Arc::clone(&alice.organization).greet(link.token, UserProfile::Standard).await;
        let guest = world.guest(link).await.unwrap().info().await;
        [host.err().unwrap().to_string(), guest.unwrap_err().to_string()]
    };
    let (used, _) = alice.organization.invite(&invitee(), false).await.unwrap();
    meet(&world, &alice, &used, "phone").await;
    assert_eq!(refused(&used).await, ["the invitation was used already"; 2]);
    let (cancelled, _) = alice.organization.invite(&Invitee::Device, false).await.unwrap();
    alice.storage.cancel_invitation(cancelled.token).await.unwrap();
    assert_eq!(refused(&cancelled).await, ["the invitation was cancelled"; 2]);
    let unknown = InvitationLink { token: parsecfs_core::id::InvitationToken::from_bytes([1; 16]), ..used.clone() };
    assert!(refused(&unknown).await.iter().all(|text| text.starts_with("there is no such invitation")));
    let known = alice.storage.invitations().await.unwrap();
    let states: Vec<_> = known.iter().map(|known| known.status).collect();
    assert_eq!(states, [InvitationStatus::Finished, InvitationStatus::Cancelled]);
}

#[tokio::test]
async fn one_that_is_taken_back_in_the_middle_ends_for_both() {
    let (world, alice) = World::found().await.unwrap();
    let (link, _) = alice.organization.invite(&invitee(), false).await.unwrap();
    let (mut hers, mut his) = (host(&alice, &link).await, guest(&world, &link, "phone").await);
    assert!(matches!(tokio::join!(hers.advance(), his.advance()), (Ok(HostTurn::Tell(_)), Ok(GuestTurn::Choose(_)))));
    alice.storage.cancel_invitation(link.token).await.unwrap();
    hers.told();
    let error = hers.advance().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    his.choose(None);
    assert!(matches!(his.advance().await.unwrap(), GuestTurn::Ended(_)));
}

/// Whoever asks may go away at any moment and come back, as the command line does.
#[tokio::test]
async fn both_sides_are_interrupted_all_the_time_and_go_on() {
    let (world, alice) = World::found().await.unwrap();
    let (link, _) = alice.organization.invite(&invitee(), false).await.unwrap();
    let (mut hers, mut his) = (host(&alice, &link).await, guest(&world, &link, "phone").await);
    let (mut one, mut other) = Phone::pair();
    let greeted = async {
        loop {
            match tokio::time::timeout(Duration::from_millis(7), greet(&mut hers, &mut one)).await {
                Ok(greeted) => return greeted,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let joined = async {
        let mut saved = None;
        loop {
            match tokio::time::timeout(Duration::from_millis(11), join_on(&mut his, &mut other, &mut saved)).await {
                Ok(joined) => return joined,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let (greeted, joined) = tokio::join!(greeted, joined);
    assert_eq!(greeted.unwrap().unwrap().device, joined.unwrap().unwrap().device_id);
}

#[tokio::test]
async fn a_side_that_starts_over_before_any_code_is_joined_by_the_other_one() {
    let (world, alice) = World::found().await.unwrap();
    let (link, _) = alice.organization.invite(&invitee(), false).await.unwrap();
    // The first guest's process ends while it waits.
    let mut first = guest(&world, &link, "phone").await;
    assert!(tokio::time::timeout(Duration::from_millis(100), first.advance()).await.is_err());
    drop(first);
    // So does the first host's.
    let mut first = host(&alice, &link).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), first.advance()).await.is_err());
    drop(first);
    meet(&world, &alice, &link, "phone").await;
}

#[tokio::test]
async fn of_several_admins_the_one_who_is_there_lets_the_guest_in() {
    let (world, alice) = World::found().await.unwrap();
    let carol = world.person(&alice, "carol", UserProfile::Admin).await.unwrap();
    let gone = world.person(&alice, "gone", UserProfile::Admin).await.unwrap();
    let (link, _) = alice.organization.invite(&invitee(), false).await.unwrap();
    alice.organization.revoke_user(gone.organization.user_id()).await.unwrap();
    let info = world.guest(&link).await.unwrap().info().await.unwrap();
    assert_eq!(info.greeters.len(), 3, "as they were when it was written");
    meet(&world, &carol, &link, "phone").await;
    alice.organization.refresh().await.unwrap();
    assert_eq!(alice.organization.users().len(), 4);
}

#[tokio::test]
async fn who_may_not_invite_or_is_here_already_is_refused_by_name() {
    let (world, alice) = World::found().await.unwrap();
    let carol = world.person(&alice, "carol", UserProfile::Standard).await.unwrap();
    let refused = carol.organization.invite(&invitee(), false).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert!(refused.to_string().contains("author is not an admin"), "{refused}");
    let taken = Invitee::User { email: Email::new("Carol@example.com").unwrap() };
    assert_eq!(alice.organization.invite(&taken, false).await.unwrap_err().kind(), ErrorKind::Exists);
    let (link, _) = alice.organization.invite(&invitee(), false).await.unwrap();
    assert!(Arc::clone(&carol.organization).greet(link.token, UserProfile::Admin).await.is_err());
    let door = world.guest(&link).await.unwrap();
    let info = door.info().await.unwrap();
    let other = HumanHandle::new(Email::new("eve@example.com").unwrap(), "Eve").unwrap();
    let wishes = Wishes { label: DeviceLabel::new("x").unwrap(), human_handle: Some(other) };
    assert_eq!(Guest::new(link, &door, info, wishes).err().unwrap().kind(), ErrorKind::InvalidArgument);
    // One's own further device needs nobody's leave.
    carol.organization.invite(&Invitee::Device, false).await.unwrap();
}

/// A door through which the guest does not hear what the host makes of it.
struct Deafening {
    door: Arc<dyn Invited>,
    missed: Notify,
}

impl Invited for Deafening {
    fn info(&self) -> BoxFuture<'_, storage::Result<InvitationInfo>> {
        self.door.info()
    }

    fn start_claim(&self, greeter: UserId) -> BoxFuture<'_, storage::Result<GreetingAttemptId>> {
        self.door.start_claim(greeter)
    }

    fn claim<'a>(
        &'a self,
        greeter: UserId,
        attempt: GreetingAttemptId,
        step: &'a Step,
    ) -> BoxFuture<'a, storage::Result<StepAnswer>> {
        async move {
            let answer = self.door.claim(greeter, attempt, step).await?;
            let hears_the_host = matches!(&answer, StepAnswer::Step(answer) if answer.number() == LAST_STEP - 1);
            if hears_the_host {
                self.missed.notify_one();
                return Ok(StepAnswer::NotYet);
            }
            Ok(answer)
        }
        .boxed()
    }

    fn cancel_claim(
        &self,
        greeter: UserId,
        attempt: GreetingAttemptId,
        reason: CancelReason,
    ) -> BoxFuture<'_, storage::Result<()>> {
        self.door.cancel_claim(greeter, attempt, reason)
    }

    fn reveal(&self, token: RevealToken) -> BoxFuture<'_, storage::Result<Bytes>> {
        self.door.reveal(token)
    }
}

/// A guest whose host's process ends right after it let the guest in.
async fn left_at_the_door(world: &World, device: &Device, link: &InvitationLink, label: &str) -> Guest {
    let deafening = world.guest(link).await.unwrap();
    let deafening = Arc::new(Deafening { door: deafening, missed: Notify::new() });
    let door: Arc<dyn Invited> = deafening.clone();
    let mut guest = Guest::new(link.clone(), &door, door.info().await.unwrap(), wishes(link, label)).unwrap();
    let mut host = host(device, link).await;
    let (mut one, mut other) = Phone::pair();
    tokio::select! {
        greeted = greet(&mut host, &mut one) => panic!("{greeted:?}"),
        joined = join(&mut guest, &mut other) => panic!("{}", joined.is_ok()),
        () = deafening.missed.notified() => {}
    }
    guest
}

#[tokio::test]
async fn a_guest_whose_host_died_before_it_heard_of_being_let_in_is_recognized_by_the_next_one() {
    let (world, alice) = World::found().await.unwrap();
    for invitee in [invitee(), Invitee::Device] {
        let (link, _) = alice.organization.invite(&invitee, false).await.unwrap();
        let mut guest = left_at_the_door(&world, &alice, &link, "phone").await;
        let known = (alice.organization.users().len(), alice.organization.devices().len());
        let mut host = Arc::clone(&alice.organization).greet(link.token, UserProfile::Admin).await.unwrap();
        let (mut one, mut other) = Phone::pair();
        let joined = async {
            let ended = join(&mut guest, &mut other).await.unwrap().err().unwrap();
            assert_eq!(ended, Ended { by_us: false, reason: CancelReason::Automatically });
            assert!(guest.is_over() && guest.is_introduced());
            let door = world.guest(&link).await.unwrap();
            let info = door.info().await.unwrap();
            guest.again(&door, info).unwrap();
            join(&mut guest, &mut other).await
        };
        let (welcomed, joined) = tokio::join!(greet(&mut host, &mut one), joined);
        let (welcomed, joined) = (welcomed.unwrap().unwrap(), joined.unwrap().unwrap());
        assert_eq!((welcomed.user, welcomed.device), (joined.user_id, joined.device_id));
        assert_eq!(
            joined.initial_profile,
            if invitee == Invitee::Device { UserProfile::Admin } else { UserProfile::Standard }
        );
        assert_eq!(
            (alice.organization.users().len(), alice.organization.devices().len()),
            known,
            "nobody was made twice"
        );
        world.open(&joined.device_id.to_string(), joined).await.unwrap();
    }
}

#[tokio::test]
async fn another_guest_does_not_get_the_place_of_one_who_was_let_in() {
    let (world, alice) = World::found().await.unwrap();
    let (link, _) = alice.organization.invite(&invitee(), false).await.unwrap();
    left_at_the_door(&world, &alice, &link, "phone").await;
    let (mut hers, mut his) = (host(&alice, &link).await, guest(&world, &link, "phone").await);
    let (mut one, mut other) = Phone::pair();
    let (greeted, joined) = tokio::join!(greet(&mut hers, &mut one), join(&mut his, &mut other));
    assert_eq!(greeted.unwrap_err().kind(), ErrorKind::Exists);
    assert_eq!(joined.unwrap().err(), Some(Ended { by_us: false, reason: CancelReason::Manually }));
}

fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[tokio::test]
async fn whoever_owns_the_store_learns_neither_token_nor_guest_and_what_is_changed_is_noticed() {
    let (world, alice) = World::found().await.unwrap();
    let (link, _) = alice.organization.invite(&invitee(), false).await.unwrap();
    let (mut hers, mut his) = (host(&alice, &link).await, guest(&world, &link, "phone").await);
    assert!(matches!(tokio::join!(hers.advance(), his.advance()), (Ok(HostTurn::Tell(_)), Ok(GuestTurn::Choose(_)))));
    let mut found = Vec::new();
    files(&world.store().join("inv"), &mut found);
    assert!(found.len() >= 10, "{found:?}");
    let token = link.token.to_string();
    for path in &found {
        assert!(!path.to_str().unwrap().contains(&token));
        let bytes = std::fs::read(path).unwrap();
        for secret in [&b"bob@example.com"[..], link.token.as_bytes(), token.as_bytes()] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
        }
    }
    // One object in the place of another, and a flipped bit.
    let named = |end: &str| found.iter().find(|path| path.ends_with(end)).unwrap();
    std::fs::copy(named("0-g"), named("2-g")).unwrap();
    let meta = named("meta");
    let mut bytes = std::fs::read(meta).unwrap();
    bytes[30] ^= 1;
    std::fs::write(meta, bytes).unwrap();
    assert_eq!(
        world.guest(&link).await.unwrap().info().await.unwrap_err().kind(),
        parsecfs_core::storage::ErrorKind::Corrupt
    );
    his.choose(None);
    assert!(matches!(his.advance().await.unwrap(), GuestTurn::Ended(_)));
}
