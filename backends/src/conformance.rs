//! The suite that every backend and every layer passes. Public, so that somebody else's backend can run it too.
//!
//! Give [`run`] a function that opens a connection of a device to one and the same empty organization. It panics at
//! the first promise of `core::storage` that is not kept; the message names the promise. Skips nothing but what
//! `Capabilities` declare.
//!
//! ```no_run
//! # use parsecfs_backends::{conformance, memory::MemoryServer};
//! # async fn example() {
//! let server = MemoryServer::new();
//! conformance::run(&|identity: &conformance::Identity| {
//!     let connection = server.connect(identity.device, identity.user);
//!     Box::pin(async move { connection as _ })
//! })
//! .await;
//! # }
//! ```

use std::{
    num::NonZeroU8,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures::{StreamExt, future::BoxFuture};
use parsecfs_core::{
    certificate::{Certificate, DevicePurpose, RealmRole, ShamirRecoveryBriefCertificate, UserProfile},
    id::{BlockId, DeviceId, InvitationToken, RealmId, RevealToken, UserId, VlobId},
    keys_bundle::KeysBundleAccess,
    name::{DeviceLabel, Email, EntryName, HumanHandle},
    shamir::{ShamirRecoverySecret, SharePlan},
    statement::{self, Author, NewDevice, NewUser},
    storage::{
        Block, Bytes, CertificateCursor, ErrorKind, Event, InvitationStatus, Invitee, LogId, LogKeys, Result, Signer,
        Statement, Storage, VlobWrite, WriteOutcome,
    },
    time::Timestamp,
};
use parsecfs_crypto::{PrivateKey, SecretKey, SigningKey, random_bytes};

use crate::statement::{claim_of, main_certificate};

/// A device with its keys, as tests need it. Implements [`Signer`].
pub struct Identity {
    /// Which device.
    pub device: DeviceId,
    /// Whose.
    pub user: UserId,
    /// Key of its signatures.
    pub signing_key: SigningKey,
    /// Key of its user.
    pub private_key: PrivateKey,
    /// The organization's root key, which the founder made.
    pub root: SigningKey,
    /// The key of the organization's logs.
    pub organization_key: SecretKey,
}

impl Identity {
    /// The same identity again, for another connection.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            device: self.device,
            user: self.user,
            signing_key: SigningKey::from_seed(*self.signing_key.expose()),
            private_key: PrivateKey::from_bytes(*self.private_key.expose()),
            root: SigningKey::from_seed(*self.root.expose()),
            organization_key: copy(&self.organization_key),
        }
    }
}

impl Signer for Identity {
    fn device_id(&self) -> DeviceId {
        self.device
    }

    fn user_id(&self) -> UserId {
        self.user
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing_key.sign_detached(message)
    }
}

/// Keys of logs as tests need them: every key there is, or none of the realm keys.
pub struct TestLogKeys {
    organization_key: SecretKey,
    has_realm_keys: bool,
}

impl TestLogKeys {
    /// Of a member.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        Self { organization_key: copy(&identity.organization_key), has_realm_keys: true }
    }

    /// Of a device that has the organization's key only.
    #[must_use]
    pub fn without_realm_keys(identity: &Identity) -> Self {
        Self { organization_key: copy(&identity.organization_key), has_realm_keys: false }
    }

    fn key(&self, log: LogId, key_index: u64, associated: &[u8]) -> Result<SecretKey> {
        if key_index > 0 && !self.has_realm_keys {
            return Err(parsecfs_core::storage::Error::new(ErrorKind::NotFound, "no such key"));
        }
        let mut purpose = match log {
            LogId::Organization => [0; 16],
            LogId::Realm(realm) => *realm.as_bytes(),
        };
        let digest = parsecfs_crypto::sha256(associated);
        for (byte, other) in purpose.iter_mut().zip(digest.as_bytes()) {
            *byte ^= other;
        }
        for (byte, index) in purpose.iter_mut().zip(key_index.to_le_bytes()) {
            *byte ^= index;
        }
        Ok(self.organization_key.derive(&purpose))
    }
}

impl LogKeys for TestLogKeys {
    fn seal(&self, log: LogId, key_index: u64, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        Ok(self.key(log, key_index, associated)?.seal(plain))
    }

    fn open(&self, log: LogId, key_index: u64, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        self.key(log, key_index, associated)?.open(sealed).map_err(|error| {
            parsecfs_core::storage::Error::new(ErrorKind::Corrupt, "it does not open").caused_by(error)
        })
    }
}

fn copy(key: &SecretKey) -> SecretKey {
    SecretKey::from_bytes(*key.expose())
}

/// Opens connections to one organization.
pub type Connect<'a> = &'a (dyn Fn(&Identity) -> BoxFuture<'static, Arc<dyn Storage>> + Sync);

/// People, keys and a clock for tests: each certificate is later than the one before.
pub struct World {
    clock_us: AtomicI64,
    key_access: KeysBundleAccess,
    realm_key: SecretKey,
}

impl World {
    /// A world that begins at a point in time.
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        let key_access = KeysBundleAccess { keys_bundle_key: SecretKey::generate() };
        Self { clock_us: AtomicI64::new(start.as_micros()), key_access, realm_key: SecretKey::generate() }
    }

    /// The next moment.
    pub fn tick(&self) -> Timestamp {
        let micros = self.clock_us.fetch_add(1000, Ordering::Relaxed);
        Timestamp::from_micros(micros).expect("tests end long before the end of time")
    }

    /// The founder, not yet in any organization.
    #[must_use]
    pub fn founder() -> Identity {
        Identity {
            device: DeviceId::from_bytes(random_bytes()),
            user: UserId::from_bytes(random_bytes()),
            signing_key: SigningKey::generate(),
            private_key: PrivateKey::generate(),
            root: SigningKey::generate(),
            organization_key: SecretKey::generate(),
        }
    }

    /// Another person of the founder's organization.
    #[must_use]
    pub fn person(founder: &Identity) -> Identity {
        Identity {
            root: SigningKey::from_seed(*founder.root.expose()),
            organization_key: copy(&founder.organization_key),
            ..Self::founder()
        }
    }

    fn new_user(identity: &Identity, profile: UserProfile) -> NewUser {
        let email = Email::new(&format!("{}@example.org", identity.user)).expect("an address");
        NewUser {
            human_handle: HumanHandle::new(email, "Test").expect("a name"),
            public_key: identity.private_key.public_key(),
            profile,
            device: NewDevice {
                id: identity.device,
                user: identity.user,
                label: DeviceLabel::new("test").expect("a label"),
                verify_key: identity.signing_key.verify_key(),
                purpose: DevicePurpose::Standard,
            },
        }
    }

    fn author<'a>(&self, identity: &'a Identity) -> Author<'a> {
        Author { device: identity.device, key: &identity.signing_key, timestamp: self.tick() }
    }

    /// The first statement.
    #[must_use]
    pub fn bootstrap(&self, founder: &Identity) -> Statement {
        statement::bootstrap(&Self::new_user(founder, UserProfile::Admin), &founder.root, self.tick())
    }

    /// Another person joins.
    #[must_use]
    pub fn create_user(&self, author: &Identity, person: &Identity) -> Statement {
        statement::create_user(&Self::new_user(person, UserProfile::Standard), &self.author(author))
    }

    /// A realm of the author's.
    #[must_use]
    pub fn create_realm(&self, author: &Identity, realm: RealmId) -> Statement {
        statement::create_realm(realm, author.user, &self.author(author))
    }

    /// Its next key, after `previous` keys, with the author as the only member.
    #[must_use]
    pub fn rotate(&self, author: &Identity, realm: RealmId, previous: usize) -> Statement {
        let keys = (0..previous).map(|_| copy(&self.realm_key)).collect();
        let member = (author.user, author.private_key.public_key());
        let services = Default::default();
        let author = self.author(author);
        statement::rotate_key(realm, keys, copy(&self.realm_key), &self.key_access, [member], &services, &author)
            .expect("the member's key is a good one")
    }

    /// A role for another person.
    #[must_use]
    pub fn share(
        &self,
        author: &Identity,
        realm: RealmId,
        with: &Identity,
        role: RealmRole,
        key_index: u64,
    ) -> Statement {
        let recipient = with.private_key.public_key();
        let author = self.author(author);
        statement::share(realm, (with.user, &recipient), role, (key_index, &self.key_access), &author)
            .expect("the recipient's key is a good one")
    }

    /// A recovery of the author by one other person, and its brief.
    #[must_use]
    pub fn set_up_recovery(&self, author: &Identity, by: &Identity) -> (Statement, ShamirRecoveryBriefCertificate) {
        let plan = SharePlan::new(NonZeroU8::MIN, [(by.user, NonZeroU8::MIN)].into()).expect("one share is enough");
        let secret = ShamirRecoverySecret {
            data_key: SecretKey::generate(),
            reveal_token: RevealToken::from_bytes(random_bytes()),
        };
        let key_of = |user| (user == by.user).then(|| by.private_key.public_key());
        let sealed = (&secret, Bytes::from(secret.data_key.seal(b"a device")));
        let setup = statement::set_up_recovery(author.user, &plan, sealed, key_of, &self.author(author))
            .expect("the recipient's key is a good one");
        match claim_of(main_certificate(&setup)) {
            Ok(Certificate::ShamirRecoveryBrief(brief)) => (setup, brief),
            _ => unreachable!("that is what was made"),
        }
    }

    /// Its end.
    #[must_use]
    pub fn delete_recovery(&self, author: &Identity, brief: &ShamirRecoveryBriefCertificate) -> Statement {
        statement::delete_recovery(brief, &self.author(author))
    }

    /// A write of `content` with the realm's first key.
    #[must_use]
    pub fn write(&self, id: VlobId, version: u32, content: &[u8], new_blocks: Vec<BlockId>) -> VlobWrite {
        VlobWrite {
            id,
            version,
            key_index: 1,
            timestamp: self.tick(),
            blob: Bytes::copy_from_slice(content),
            new_blocks,
        }
    }
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn block(bytes: usize) -> (BlockId, Block) {
    let seed = random_bytes::<16>();
    let content: Vec<u8> = seed.iter().copied().cycle().take(bytes).collect();
    (BlockId::from_bytes(random_bytes()), Block { key_index: 1, bytes: content.into() })
}

fn vlob() -> VlobId {
    VlobId::from_bytes(random_bytes())
}

/// Runs the whole suite from the machine's present time on.
///
/// # Panics
/// When a promise is not kept.
pub async fn run(connect: Connect<'_>) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let micros = i64::try_from(now.as_micros()).expect("long before the end of time");
    run_at(connect, World::founder(), Timestamp::from_micros(micros).expect("in range")).await;
}

/// Runs the whole suite with a founder and a time of the caller's.
///
/// # Panics
/// When a promise is not kept.
pub async fn run_at(connect: Connect<'_>, founder: Identity, start: Timestamp) {
    let world = World::at(start);
    let alice = connect(&founder).await;
    let mut heard = alice.events();
    assert_eq!(heard.next().await, Some(Event::Missed), "a listener hears `Missed` first");
    organization_is_founded_once(&world, &*alice, &founder).await;
    let realm = RealmId::from_bytes(random_bytes());
    let rotated = realm_has_owner_and_keys(&world, &*alice, &founder, realm).await;
    versions_follow_each_other(&world, &*alice, realm, rotated).await;
    refused_commit_leaves_nothing(&world, &*alice, realm).await;
    blocks_of_every_size_come_back(&world, &*alice, realm, connect, &founder).await;
    changes_tell_the_newest_versions(&world, &*alice, realm).await;
    invitations_wait_and_are_taken_back_once(&*alice).await;
    let bob = member_reads_and_stranger_does_not(&world, &*alice, connect, &founder, realm).await;
    recovery_is_shown_to_whom_it_concerns(&world, &*alice, connect, &founder, &bob).await;
}

async fn organization_is_founded_once(world: &World, alice: &dyn Storage, founder: &Identity) {
    let bootstrap = world.bootstrap(founder);
    alice.append(bootstrap.clone()).await.expect("an empty organization is bootstrapped");
    alice.append(bootstrap).await.expect("a byte-equal repeat of a statement is fine");
    let again = alice.append(world.bootstrap(founder)).await;
    assert_eq!(kind(again), Some(ErrorKind::VersionConflict), "an organization is bootstrapped once");
    let batch = alice.certificates(&CertificateCursor::default()).await.expect("certificates");
    assert_eq!(batch.common.len(), 2, "a bootstrap is a user and a device");
}

/// Returns the time of the realm's last certificate.
async fn realm_has_owner_and_keys(world: &World, alice: &dyn Storage, founder: &Identity, realm: RealmId) -> Timestamp {
    let create = world.create_realm(founder, realm);
    alice.append(create.clone()).await.expect("an administrator makes a realm");
    alice.append(create).await.expect("a byte-equal repeat of a statement is fine");
    assert_eq!(kind(alice.keys_bundle(realm, 1).await), Some(ErrorKind::NotFound), "no key before the first");
    let early = world.rotate(founder, realm, 0);
    let late = world.rotate(founder, realm, 0);
    let rotated = claim_of(main_certificate(&late)).expect("a certificate").timestamp();
    alice.append(late).await.expect("an owner makes the first key");
    let outrun = alice.append(early).await;
    assert_eq!(kind(outrun), Some(ErrorKind::VersionConflict), "a key index is given once");
    let bundle = alice.keys_bundle(realm, 1).await.expect("the bundle of the first key");
    assert_eq!(bundle.key_index, 1);
    assert_eq!(kind(alice.keys_bundle(realm, 2).await), Some(ErrorKind::NotFound), "no key before it is made");
    assert_eq!(kind(alice.keys_bundle(realm, 0).await), Some(ErrorKind::NotFound), "keys count from 1");
    let batch = alice.certificates(&CertificateCursor::default()).await.expect("certificates");
    assert_eq!(batch.realm[&realm].len(), 2, "a role and a rotation");
    rotated
}

async fn versions_follow_each_other(world: &World, alice: &dyn Storage, realm: RealmId, rotated: Timestamp) {
    let id = vlob();
    let first = world.write(id, 1, b"one", vec![]);
    assert_eq!(alice.commit(realm, vec![first.clone()]).await.expect("commits"), [WriteOutcome::Stored]);
    let repeat = alice.commit(realm, vec![first.clone()]).await.expect("commits");
    assert_eq!(repeat, [WriteOutcome::Stored], "a repeat counts once and is fine");
    let other = alice.commit(realm, vec![world.write(id, 1, b"other", vec![])]).await.expect("answers");
    assert_eq!(other, [WriteOutcome::Conflict], "a version number is given once");
    let gap = alice.commit(realm, vec![world.write(id, 3, b"three", vec![])]).await.expect("answers");
    assert_eq!(gap, [WriteOutcome::Conflict], "versions have no gaps");
    let zero = alice.commit(realm, vec![world.write(vlob(), 0, b"zero", vec![])]).await.expect("answers");
    assert_eq!(zero, [WriteOutcome::Conflict], "versions count from 1");
    let stale = VlobWrite { version: 2, timestamp: rotated, ..world.write(id, 2, b"two", vec![]) };
    let stale = alice.commit(realm, vec![stale]).await.expect("answers");
    let named = matches!(*stale, [WriteOutcome::TimestampTooOld(last)] if last >= rotated);
    assert!(named, "a version is signed after the certificates it rests on: {stale:?}");
    let wrong_key = VlobWrite { key_index: 2, ..world.write(id, 2, b"two", vec![]) };
    let wrong_key = alice.commit(realm, vec![wrong_key]).await.expect("answers");
    assert_eq!(wrong_key, [WriteOutcome::OldKey], "only the newest key seals");
    let second = world.write(id, 2, b"two", vec![]);
    assert_eq!(alice.commit(realm, vec![second]).await.expect("commits"), [WriteOutcome::Stored]);
    let newest = alice.read(realm, &[id, vlob()]).await.expect("reads");
    assert_eq!(newest.len(), 1, "what does not exist is left out");
    assert_eq!((newest[0].version, &*newest[0].blob), (2, &b"two"[..]));
    let versions = alice.read_versions(realm, &[(id, 1), (id, 9)]).await.expect("reads");
    assert_eq!(versions.len(), 1, "what does not exist is left out");
    assert_eq!((&*versions[0].blob, versions[0].timestamp), (&b"one"[..], first.timestamp));
}

async fn refused_commit_leaves_nothing(world: &World, alice: &dyn Storage, realm: RealmId) {
    if !alice.capabilities().atomic_commit {
        return;
    }
    let (good, bad) = (vlob(), vlob());
    let gone = BlockId::from_bytes(random_bytes());
    let writes = vec![world.write(good, 1, b"good", vec![]), world.write(bad, 1, b"bad", vec![gone])];
    let outcomes = alice.commit(realm, writes).await.expect("answers");
    assert_eq!(outcomes, [WriteOutcome::NotTried, WriteOutcome::BlockGone(gone)], "blocks are put before");
    assert!(alice.read(realm, &[good, bad]).await.expect("reads").is_empty(), "all are stored or none is");
}

async fn blocks_of_every_size_come_back(
    world: &World,
    alice: &dyn Storage,
    realm: RealmId,
    connect: Connect<'_>,
    founder: &Identity,
) {
    let max = usize::try_from(alice.capabilities().block_bytes_max).unwrap_or(usize::MAX).min(1 << 20);
    let sizes = [1, 16 << 10, (16 << 10) + 1, 200 << 10, 256 << 10, 512 << 10, max];
    let blocks: Vec<_> = sizes.into_iter().map(block).collect();
    alice.put(realm, blocks.clone()).await.expect("blocks are stored");
    alice.put(realm, blocks.clone()).await.expect("the same again is fine");
    for (id, block) in &blocks {
        assert_eq!(&alice.get(realm, *id).await.expect("the same store reads at once"), block);
    }
    let ids = blocks.iter().map(|(id, _)| *id).collect();
    let large: Bytes = vec![7; 300 << 10].into();
    let write = VlobWrite { blob: large.clone(), ..world.write(vlob(), 1, b"", ids) };
    let id = write.id;
    assert_eq!(alice.commit(realm, vec![write]).await.expect("commits"), [WriteOutcome::Stored]);
    let again = connect(founder).await;
    for (id, block) in &blocks {
        assert_eq!(&again.get(realm, *id).await.expect("others read after the commit"), block);
    }
    assert_eq!(again.read(realm, &[id]).await.expect("reads")[0].blob, large, "a large manifest comes back");
    let nobody = again.get(realm, BlockId::from_bytes(random_bytes())).await;
    assert_eq!(kind(nobody), Some(ErrorKind::NotFound));
}

async fn changes_tell_the_newest_versions(world: &World, alice: &dyn Storage, realm: RealmId) {
    let before = alice.changes(realm, 0).await.expect("everything").checkpoint;
    let (a, b) = (vlob(), vlob());
    let count = alice.capabilities().commit_writes_max;
    let mut writes = vec![world.write(a, 1, b"a", vec![]), world.write(b, 1, b"b", vec![])];
    writes.truncate(count);
    for write in writes {
        alice.commit(realm, vec![write]).await.expect("commits");
    }
    alice.commit(realm, vec![world.write(a, 2, b"a2", vec![])]).await.expect("commits");
    let mut changes = alice.changes(realm, before).await.expect("changes");
    changes.items.sort_unstable();
    let mut expected = vec![(a, 2), (b, 1)];
    expected.sort_unstable();
    assert_eq!(changes.items, expected, "the newest version of each that changed");
    let quiet = alice.changes(realm, changes.checkpoint).await.expect("changes");
    assert_eq!((quiet.checkpoint, quiet.items), (changes.checkpoint, vec![]), "nothing happened since");
}

async fn member_reads_and_stranger_does_not(
    world: &World,
    alice: &dyn Storage,
    connect: Connect<'_>,
    founder: &Identity,
    realm: RealmId,
) -> Identity {
    let person = World::person(founder);
    alice.append(world.create_user(founder, &person)).await.expect("an administrator adds a user");
    let bob = connect(&person).await;
    assert_eq!(kind(bob.changes(realm, 0).await), Some(ErrorKind::Denied), "a stranger reads nothing");
    alice.append(world.share(founder, realm, &person, RealmRole::Reader, 1)).await.expect("an owner shares");
    assert!(!bob.changes(realm, 0).await.expect("a member reads").items.is_empty());
    let write = bob.commit(realm, vec![world.write(vlob(), 1, b"no", vec![])]).await;
    assert_eq!(kind(write), Some(ErrorKind::Denied), "a reader does not write");
    let batch = bob.certificates(&CertificateCursor::default()).await.expect("certificates");
    assert_eq!(batch.realm[&realm].len(), 3, "a member sees the certificates of the realm");
    bob.keys_bundle(realm, 1).await.expect("a member has an access to the keys");
    let name = EntryName::new("name").expect("a name");
    let author = Author { device: person.device, key: &person.signing_key, timestamp: world.tick() };
    let rename = statement::rename_realm(realm, &name, (1, &world.realm_key), &author);
    assert_eq!(kind(bob.append(rename).await), Some(ErrorKind::Denied), "a reader does not rename");
    person
}

async fn recovery_is_shown_to_whom_it_concerns(
    world: &World,
    alice: &dyn Storage,
    connect: Connect<'_>,
    founder: &Identity,
    recipient: &Identity,
) {
    let stranger = World::person(founder);
    alice.append(world.create_user(founder, &stranger)).await.expect("an administrator adds a user");
    let (bob, carol) = (connect(recipient).await, connect(&stranger).await);
    let (setup, brief) = world.set_up_recovery(founder, recipient);
    alice.append(setup.clone()).await.expect("a user sets up a recovery");
    alice.append(setup).await.expect("a byte-equal repeat of a statement is fine");
    let (other, _) = world.set_up_recovery(founder, recipient);
    assert_eq!(kind(alice.append(other).await), Some(ErrorKind::VersionConflict), "there is one recovery at a time");
    let start = CertificateCursor::default();
    let seen = [(alice, 1), (&*bob, 2), (&*carol, 0)];
    for (storage, count) in seen {
        let batch = storage.certificates(&start).await.expect("certificates");
        assert_eq!(batch.shamir.len(), count, "the author sees the brief, a recipient a share behind it too");
    }
    let deletion = world.delete_recovery(founder, &brief);
    alice.append(deletion.clone()).await.expect("its user ends a recovery");
    alice.append(deletion).await.expect("a byte-equal repeat of a statement is fine");
    let again = alice.append(world.delete_recovery(founder, &brief)).await;
    assert_eq!(kind(again), Some(ErrorKind::VersionConflict), "a recovery ends once");
    let cursor = CertificateCursor { shamir: Some(brief.timestamp), ..start };
    for (storage, count) in [(alice, 1), (&*bob, 1), (&*carol, 0)] {
        let batch = storage.certificates(&cursor).await.expect("certificates");
        assert_eq!(batch.shamir.len(), count, "whom it concerned sees its end");
    }
    let (setup, _) = world.set_up_recovery(founder, recipient);
    alice.append(setup).await.expect("another recovery follows one that ended");
}

async fn invitations_wait_and_are_taken_back_once(alice: &dyn Storage) {
    if !alice.capabilities().invitations {
        return;
    }
    let email = Email::new("guest@example.com").expect("an address");
    let guest = Invitee::User { email };
    let (token, _) = alice.invite(&guest, false).await.expect("an administrator invites");
    assert_eq!(alice.invite(&guest, false).await.expect("invites").0, token, "the one that waits is given again");
    let (device, _) = alice.invite(&Invitee::Device, false).await.expect("invites a device");
    let status = async |token| {
        let all = alice.invitations().await.expect("lists");
        all.into_iter().find(|known| known.token == token).map(|known| (known.invitee, known.status))
    };
    assert_eq!(status(token).await, Some((guest.clone(), InvitationStatus::Pending)));
    alice.cancel_invitation(token).await.expect("takes it back");
    assert_eq!(status(token).await, Some((guest.clone(), InvitationStatus::Cancelled)));
    alice.cancel_invitation(token).await.expect("a repeat is fine");
    let refused = alice.complete_invitation(token).await.expect_err("it is over");
    assert!(refused.kind() == ErrorKind::NotFound && refused.to_string().contains("cancelled"), "{refused}");
    let refused = alice.start_greeting(token).await.expect_err("it is over");
    assert!(refused.kind() == ErrorKind::NotFound && refused.to_string().contains("cancelled"), "{refused}");
    assert_ne!(alice.invite(&guest, false).await.expect("invites").0, token);
    alice.start_greeting(device).await.expect("waits for the guest");
    alice.complete_invitation(device).await.expect("was used");
    alice.complete_invitation(device).await.expect("a repeat is fine");
    assert_eq!(status(device).await, Some((Invitee::Device, InvitationStatus::Finished)));
    let refused = alice.cancel_invitation(device).await.expect_err("it was used");
    assert!(refused.kind() == ErrorKind::NotFound && refused.to_string().contains("used already"), "{refused}");
    let unknown = alice.start_greeting(InvitationToken::from_bytes(random_bytes())).await;
    assert_eq!(kind(unknown), Some(ErrorKind::NotFound));
}
