//! The storage contract on the real Parsec server, and how its states are named.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use parsecfs_backends::{
    conformance::{self, Identity, World},
    parsec::{Limits, Options, ParsecStorage},
};
use parsecfs_core::{
    certificate::{RealmRole, UserProfile},
    id::{RealmId, VlobId},
    name::OrganizationId,
    statement::{self, Author},
    storage::{
        CertificateCursor, CertificateStore, ErrorKind, Event, EventSource, Result, Storage, VlobStore, WriteOutcome,
    },
    time::Timestamp,
    trust::Trust,
};
use parsecfs_tests::parsec_server::ParsecServer;

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_micros(i64::try_from(now.as_micros()).expect("in range")).expect("in range")
}

fn open_at(server: &ParsecServer, token: [u8; 16], identity: &Identity, ahead_us: i64) -> Arc<ParsecStorage> {
    ParsecStorage::open(Options {
        server: server.address(),
        organization: OrganizationId::new("Org").expect("a name"),
        root: *identity.root.verify_key().as_bytes(),
        bootstrap_token: Some(token),
        signer: Arc::new(identity.copy()),
        clock: Arc::new(move || Timestamp::from_micros(now().as_micros() + ahead_us).expect("in range")),
        limits: Limits::default(),
    })
    .expect("a connection is made ready")
}

fn open(server: &ParsecServer, token: [u8; 16], identity: &Identity) -> Arc<ParsecStorage> {
    open_at(server, token, identity, 0)
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test]
async fn a_parsec_server_keeps_the_contract() {
    let Some(server) = ParsecServer::start() else { return };
    let token = server.bootstrap_token("Org").await;
    conformance::run(&|identity: &Identity| {
        let connection: Arc<dyn Storage> = open(&server, token, identity);
        Box::pin(async move { connection })
    })
    .await;
}

/// An organization with a founder, a realm with a key, and a member.
struct Scene {
    server: ParsecServer,
    token: [u8; 16],
    world: World,
    founder: Identity,
    member: Identity,
    realm: RealmId,
    alice: Arc<ParsecStorage>,
}

impl Scene {
    async fn new() -> Option<Self> {
        let server = ParsecServer::start()?;
        let token = server.bootstrap_token("Org").await;
        let world = World::at(now());
        let founder = World::founder();
        let member = World::person(&founder);
        let realm = RealmId::from_bytes([7; 16]);
        let alice = open(&server, token, &founder);
        alice.append(world.bootstrap(&founder)).await.expect("founds");
        alice.append(world.create_user(&founder, &member)).await.expect("adds a user");
        alice.append(world.create_realm(&founder, realm)).await.expect("makes a realm");
        alice.append(world.rotate(&founder, realm, 0)).await.expect("makes a key");
        alice.append(world.share(&founder, realm, &member, RealmRole::Contributor, 1)).await.expect("shares");
        Some(Self { server, token, world, founder, member, realm, alice })
    }

    fn bob(&self) -> Arc<ParsecStorage> {
        open(&self.server, self.token, &self.member)
    }
}

#[tokio::test]
async fn states_of_the_server_are_named_for_what_they_are() {
    let Some(scene) = Scene::new().await else { return };
    let bob = scene.bob();
    let said = async || {
        // Asks the database: what does not may be answered from what the server remembers of the device.
        let error = bob.changes(scene.realm, 0).await.map(drop).expect_err("refuses");
        (error.kind(), error.to_string())
    };
    let user = scene.member.user;
    let freeze = |frozen| format!(r#"{{"user_id":"{user}","frozen":{frozen}}}"#);
    scene.server.administer("POST", "Org/users/freeze", &freeze(true));
    let (kind, text) = said().await;
    assert!(kind == ErrorKind::Denied && text.contains("frozen"), "{text}");
    scene.server.administer("POST", "Org/users/freeze", &freeze(false));
    scene.server.administer("PATCH", "Org", r#"{"tos":{"en_US":"https://example.com/tos"}}"#);
    let (kind, text) = said().await;
    assert!(kind == ErrorKind::Denied && text.contains("terms of service"), "{text}");
    scene.server.administer("PATCH", "Org", r#"{"tos":null}"#);
    bob.changes(scene.realm, 0).await.expect("all is well again");
    let ahead = open_at(&scene.server, scene.token, &scene.member, 3_600_000_000);
    let error = ahead.certificates(&CertificateCursor::default()).await.expect_err("refuses");
    assert!(error.to_string().contains("min ahead of the server's"), "{error}");
    let revoke = parsecfs_core::statement::revoke_user(
        user,
        &parsecfs_core::statement::Author {
            device: scene.founder.device,
            key: &scene.founder.signing_key,
            timestamp: scene.world.tick(),
        },
    );
    scene.alice.append(revoke).await.expect("an administrator revokes");
    let (kind, text) = said().await;
    assert!(kind == ErrorKind::Denied && text.contains("revoked"), "{text}");
    scene.server.administer("PATCH", "Org", r#"{"is_expired":true}"#);
    let (kind, text) = said().await;
    assert!(kind == ErrorKind::Denied && text.contains("expired"), "{text}");
}

#[tokio::test]
async fn an_organization_that_is_not_there_and_a_stranger_are_told_apart() {
    let Some(scene) = Scene::new().await else { return };
    let stranger = World::person(&scene.founder);
    let unknown = open(&scene.server, scene.token, &stranger);
    assert_eq!(kind(unknown.certificates(&CertificateCursor::default()).await), Some(ErrorKind::Denied));
    let elsewhere = ParsecStorage::open(Options {
        server: scene.server.address(),
        organization: OrganizationId::new("Nobody").expect("a name"),
        root: [1; 32],
        bootstrap_token: None,
        signer: Arc::new(scene.founder.copy()),
        clock: Arc::new(now),
        limits: Limits::default(),
    })
    .expect("a connection is made ready");
    assert_eq!(kind(elsewhere.certificates(&CertificateCursor::default()).await), Some(ErrorKind::NotFound));
}

#[tokio::test]
async fn a_change_made_elsewhere_is_heard_within_a_second() {
    let Some(scene) = Scene::new().await else { return };
    let mut heard = scene.bob().events();
    assert_eq!(heard.next().await, Some(Event::Missed));
    assert_eq!(heard.next().await, Some(Event::Online), "the stream is up");
    let written = std::time::Instant::now();
    let write = scene.world.write(VlobId::from_bytes([1; 16]), 1, b"one", vec![]);
    assert_eq!(scene.alice.commit(scene.realm, vec![write]).await.expect("commits"), [WriteOutcome::Stored]);
    while heard.next().await != Some(Event::Vlobs(scene.realm)) {}
    assert!(written.elapsed() < Duration::from_secs(1), "{:?}", written.elapsed());
    scene
        .alice
        .append(scene.world.rotate(&scene.founder, RealmId::from_bytes([8; 16]), 0))
        .await
        .expect_err("no realm");
    scene.alice.append(scene.world.create_user(&scene.founder, &World::person(&scene.founder))).await.expect("adds");
    while heard.next().await != Some(Event::Certificates) {}
}

/// The real server does not look at the vlobs of a realm when a member signs one; it does when somebody shares.
#[tokio::test]
async fn a_share_that_is_signed_too_early_tells_how_late_it_has_to_be() {
    let Some(scene) = Scene::new().await else { return };
    let late = Timestamp::from_micros(now().as_micros() + 60_000_000).expect("in range");
    let mut write = scene.world.write(VlobId::from_bytes([1; 16]), 1, b"one", vec![]);
    write.timestamp = late;
    assert_eq!(scene.alice.commit(scene.realm, vec![write]).await.expect("commits"), [WriteOutcome::Stored]);
    let share = scene.world.share(&scene.founder, scene.realm, &scene.member, RealmRole::Reader, 1);
    let error = scene.alice.append(share).await.expect_err("too early");
    assert_eq!((error.kind(), error.after()), (ErrorKind::VersionConflict, Some(late)));
}

/// Servers let an owner or manager go on who became an outsider: whoever refused what they say would know nothing of
/// what comes after it, and could not rotate a key for members that others know.
#[tokio::test]
async fn what_a_member_who_became_an_outsider_says_the_server_and_readers_take() {
    let Some(scene) = Scene::new().await else { return };
    let (bob, other) = (scene.bob(), World::person(&scene.founder));
    scene.alice.append(scene.world.create_user(&scene.founder, &other)).await.expect("adds a user");
    for role in [RealmRole::Owner, RealmRole::Reader] {
        let to = if role == RealmRole::Owner { &scene.member } else { &other };
        scene.alice.append(scene.world.share(&scene.founder, scene.realm, to, role, 1)).await.expect("shares");
    }
    let author = |identity: &'static str| {
        let identity = if identity == "alice" { &scene.founder } else { &scene.member };
        Author { device: identity.device, key: &identity.signing_key, timestamp: scene.world.tick() }
    };
    let outsider = statement::update_user(scene.member.user, UserProfile::Outsider, &author("alice"));
    scene.alice.append(outsider).await.expect("an administrator changes a profile");
    let removal = statement::unshare(scene.realm, other.user, &author("bob"));
    bob.append(removal).await.expect("the server takes it");
    let everything = scene.alice.certificates(&CertificateCursor::default()).await.expect("answers");
    let trust = Trust::new(scene.founder.root.verify_key(), scene.founder.user).apply(&everything).expect("holds");
    let realm = trust.realm(scene.realm).expect("is known");
    assert_eq!((realm.role(other.user), realm.role(scene.member.user)), (None, Some(RealmRole::Owner)));
    let refusal = trust.may_change_role(scene.member.user, realm, (scene.founder.user, None), scene.world.tick());
    assert_eq!(refusal.expect_err("we do not say it").rule, "an outsider gives a role");
}
