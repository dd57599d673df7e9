//! What the vectors cannot show: times between certificates, batches that change nothing, the whole way from
//! statements to keys.

use std::num::NonZeroU8;

use parsecfs_crypto::{PrivateKey, SecretKey, SigningKey};

use super::*;
use crate::{
    certificate::{DevicePurpose, open_realm_name},
    id::RevealToken,
    keys_bundle::{KeysBundle, KeysBundleAccess, RealmKeys},
    name::{DeviceLabel, Email, EntryName, HumanHandle},
    shamir::{ShamirRecoverySecret, SharePlan},
    statement::{self, Author, NewDevice, NewUser},
    storage::{Bytes, Statement},
};

const REALM: RealmId = RealmId::from_bytes([9; 16]);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000).unwrap()
}

/// A user with one device; both have the same id.
struct Person {
    id: u8,
    signing: SigningKey,
    private: PrivateKey,
}

impl Person {
    fn new(id: u8) -> Self {
        Self { id, signing: SigningKey::generate(), private: PrivateKey::generate() }
    }

    fn user(&self) -> UserId {
        UserId::from_bytes([self.id; 16])
    }

    fn device(&self) -> DeviceId {
        DeviceId::from_bytes([self.id; 16])
    }

    fn author(&self, seconds: i64) -> Author<'_> {
        Author { device: self.device(), key: &self.signing, timestamp: at(seconds) }
    }

    fn new_user(&self, profile: UserProfile) -> NewUser {
        NewUser {
            human_handle: HumanHandle::new(Email::new("a@x.org").unwrap(), "A").unwrap(),
            public_key: self.private.public_key(),
            profile,
            device: NewDevice {
                id: self.device(),
                user: self.user(),
                label: DeviceLabel::new("desk").unwrap(),
                verify_key: self.signing.verify_key(),
                purpose: DevicePurpose::Standard,
            },
        }
    }
}

/// What a storage would deliver for a statement.
fn batch(statement: &Statement) -> CertificateBatch {
    let common = |certificates: &[&Bytes]| CertificateBatch {
        common: certificates.iter().map(|certificate| (*certificate).clone()).collect(),
        ..Default::default()
    };
    match statement {
        Statement::Bootstrap { user, device, .. } | Statement::CreateUser { user, device, .. } => {
            common(&[user, device])
        }
        Statement::CreateDevice { device, .. } => common(&[device]),
        Statement::UpdateUser { certificate } | Statement::RevokeUser { certificate } => common(&[certificate]),
        Statement::CreateRealm { realm, certificate }
        | Statement::Share { realm, certificate, .. }
        | Statement::Unshare { realm, certificate }
        | Statement::RotateKey { realm, certificate, .. }
        | Statement::RenameRealm { realm, certificate }
        | Statement::ArchiveRealm { realm, certificate } => {
            CertificateBatch { realm: [(*realm, vec![certificate.clone()])].into(), ..Default::default() }
        }
        // As the author sees it.
        Statement::SetUpRecovery { brief: certificate, .. } | Statement::DeleteRecovery { certificate } => {
            CertificateBatch { shamir: vec![certificate.clone()], ..Default::default() }
        }
    }
}

/// Alice, an admin who owns a realm from second 20 on, and Bob, who exists from second 10 on.
struct World {
    alice: Person,
    bob: Person,
    trust: Trust,
}

impl World {
    fn new() -> Self {
        let (root, alice, bob) = (SigningKey::generate(), Person::new(1), Person::new(2));
        let trust = Trust::new(root.verify_key(), alice.user());
        let founder = alice.new_user(UserProfile::Admin);
        let mut world = Self { trust, alice, bob };
        world.apply(&statement::bootstrap(&founder, &root, at(0))).unwrap();
        let new = world.bob.new_user(UserProfile::Standard);
        world.apply(&statement::create_user(&new, &world.alice.author(10))).unwrap();
        world.apply(&statement::create_realm(REALM, world.alice.user(), &world.alice.author(20))).unwrap();
        world
    }

    fn apply(&mut self, statement: &Statement) -> Result<()> {
        self.trust = self.trust.apply(&batch(statement))?;
        Ok(())
    }

    fn share(&self, role: RealmRole, seconds: i64) -> Statement {
        let access = KeysBundleAccess { keys_bundle_key: SecretKey::generate() };
        let recipient = (self.bob.user(), &self.bob.private.public_key());
        statement::share(REALM, recipient, role, (1, &access), &self.alice.author(seconds)).unwrap()
    }
}

#[test]
fn roles_hold_from_their_time_until_the_next() {
    let mut world = World::new();
    world.apply(&world.share(RealmRole::Contributor, 30)).unwrap();
    world.apply(&statement::unshare(REALM, world.bob.user(), &world.alice.author(40))).unwrap();
    let role = |seconds| world.trust.role(world.bob.user(), REALM, at(seconds));
    assert_eq!(
        [role(29), role(30), role(39), role(40)],
        [None, Some(RealmRole::Contributor), Some(RealmRole::Contributor), None]
    );
    let writes = |seconds| world.trust.writer(world.bob.device(), REALM, at(seconds)).is_ok();
    assert_eq!([writes(29), writes(30), writes(39), writes(40)], [false, true, true, false]);
}

#[test]
fn readers_and_the_revoked_do_not_write() {
    let mut world = World::new();
    world.apply(&world.share(RealmRole::Reader, 30)).unwrap();
    assert!(world.trust.writer(world.bob.device(), REALM, at(35)).is_err());
    world.apply(&world.share(RealmRole::Contributor, 40)).unwrap();
    world.apply(&statement::revoke_user(world.bob.user(), &world.alice.author(50))).unwrap();
    assert!(world.trust.writer(world.bob.device(), REALM, at(49)).is_ok());
    assert!(world.trust.writer(world.bob.device(), REALM, at(50)).is_err());
}

#[test]
fn one_bad_certificate_refuses_the_whole_batch() {
    let world = World::new();
    let mut mixed = batch(&world.share(RealmRole::Reader, 30));
    mixed.common = batch(&statement::revoke_user(world.alice.user(), &world.alice.author(40))).common;
    assert!(world.trust.apply(&mixed).is_err());
    assert_eq!(world.trust.role(world.bob.user(), REALM, at(100)), None);
    assert_eq!(world.trust.cursor().realm[&REALM], at(20));
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let world = World::new();
    let Statement::Unshare { certificate, .. } = statement::unshare(REALM, world.bob.user(), &world.alice.author(40))
    else {
        unreachable!()
    };
    for index in 0..certificate.len() {
        let mut flipped = certificate.to_vec();
        flipped[index] ^= 1;
        let realm = [(REALM, vec![flipped.into()])].into();
        assert!(world.trust.apply(&CertificateBatch { realm, ..Default::default() }).is_err());
    }
}

#[test]
fn what_an_owner_who_became_an_outsider_says_is_believed_and_not_said_by_us() {
    let mut world = World::new();
    world.apply(&world.share(RealmRole::Owner, 30)).unwrap();
    let outsider = statement::update_user(world.bob.user(), UserProfile::Outsider, &world.alice.author(40));
    world.apply(&outsider).unwrap();
    // The role itself stays (formats.md 3.3).
    assert_eq!(world.trust.role(world.bob.user(), REALM, at(50)), Some(RealmRole::Owner));
    let removes_alice = (world.alice.user(), None);
    let realm = world.trust.realm(REALM).unwrap();
    let refusal = world.trust.may_change_role(world.bob.user(), realm, removes_alice, at(50)).unwrap_err();
    assert_eq!(refusal.rule, "an outsider gives a role");
    // A server takes it, and whoever refused it would see nothing of what comes after it.
    world.apply(&statement::unshare(REALM, world.alice.user(), &world.bob.author(50))).unwrap();
    assert_eq!(world.trust.role(world.alice.user(), REALM, at(50)), None);
}

#[test]
fn a_revoked_member_is_to_be_removed_and_the_key_rotated() {
    let mut world = World::new();
    let duties = |trust: &Trust| trust.owner_duties(trust.realm(REALM).unwrap());
    assert_eq!(duties(&world.trust), (vec![], true));
    let access = KeysBundleAccess { keys_bundle_key: SecretKey::generate() };
    let members = [(world.alice.user(), world.alice.private.public_key())];
    let rotation = statement::rotate_key(
        REALM,
        vec![],
        SecretKey::generate(),
        &access,
        members,
        &Default::default(),
        &world.alice.author(25),
    );
    world.apply(&rotation.unwrap()).unwrap();
    assert_eq!(duties(&world.trust), (vec![], false));
    world.apply(&world.share(RealmRole::Reader, 30)).unwrap();
    world.apply(&statement::revoke_user(world.bob.user(), &world.alice.author(40))).unwrap();
    assert_eq!(duties(&world.trust), (vec![world.bob.user()], true));
    world.apply(&statement::unshare(REALM, world.bob.user(), &world.alice.author(50))).unwrap();
    assert_eq!(duties(&world.trust), (vec![], true));
}

#[test]
fn members_get_all_keys_of_a_realm() {
    let mut world = World::new();
    let mut keys = Vec::new();
    let mut statements = Vec::new();
    for seconds in [30, 40] {
        let access = KeysBundleAccess { keys_bundle_key: SecretKey::generate() };
        let members = [(world.alice.user(), world.alice.private.public_key())];
        let new = SecretKey::generate();
        let author = world.alice.author(seconds);
        let rotation =
            statement::rotate_key(REALM, keys.clone(), new.clone(), &access, members, &Default::default(), &author)
                .unwrap();
        world.apply(&rotation).unwrap();
        keys.push(new);
        statements.push(rotation);
    }
    let Some(Statement::RotateKey { bundle, accesses, key_index: 2, .. }) = statements.pop() else { unreachable!() };
    let access = KeysBundleAccess::open(&accesses[&world.alice.user()], &world.alice.private).unwrap();
    assert!(KeysBundleAccess::open(&accesses[&world.alice.user()], &world.bob.private).is_err());
    let open = || {
        let key_of = |device, at| Some(&world.trust.device_at(device, at)?.verify_key);
        KeysBundle::open(&bundle, &access, key_of).unwrap()
    };
    let rotations = world.trust.realm(REALM).unwrap().rotations();
    let realm_keys = RealmKeys::new(open(), REALM, rotations).unwrap();
    assert_eq!(realm_keys.newest(), Some((2, &keys[1])));
    assert_eq!(realm_keys.key(1), Some(&keys[0]));
    assert_eq!((realm_keys.key(0), realm_keys.key(3)), (None, None));

    let mut wrong_canary = rotations.to_vec();
    wrong_canary[1].key_canary = wrong_canary[0].key_canary.clone();
    let damaged = RealmKeys::new(open(), REALM, &wrong_canary).unwrap();
    assert_eq!((damaged.newest(), damaged.key(1), damaged.all()), (None, Some(&keys[0]), None));
    assert!(RealmKeys::new(open(), REALM, &rotations[..1]).is_err());
    assert!(RealmKeys::new(open(), RealmId::from_bytes([8; 16]), rotations).is_err());

    let name = EntryName::new("photos").unwrap();
    world.apply(&statement::rename_realm(REALM, &name, (2, &keys[1]), &world.alice.author(50))).unwrap();
    let sealed = &world.trust.realm(REALM).unwrap().name().unwrap().encrypted_name;
    assert_eq!(open_realm_name(sealed, &keys[1]), Ok(name));
}

/// Alice's recovery by Bob and Carol, who exists from second 15 on.
struct Recovery {
    world: World,
    carol: Person,
    plan: SharePlan,
    secret: ShamirRecoverySecret,
}

impl Recovery {
    fn new() -> Self {
        let (mut world, carol) = (World::new(), Person::new(3));
        let new = carol.new_user(UserProfile::Standard);
        world.apply(&statement::create_user(&new, &world.alice.author(15))).unwrap();
        let one = NonZeroU8::MIN;
        let plan = SharePlan::new(one, [(world.bob.user(), one), (carol.user(), one)].into()).unwrap();
        let secret =
            ShamirRecoverySecret { data_key: SecretKey::generate(), reveal_token: RevealToken::from_bytes([7; 16]) };
        Self { world, carol, plan, secret }
    }

    fn set_up(&self, author: &Person, user: UserId, seconds: i64) -> (Bytes, Vec<Bytes>) {
        let key_of = |user| {
            let people = [&self.world.alice, &self.world.bob, &self.carol];
            people.into_iter().find(|person| person.user() == user).map(|person| person.private.public_key())
        };
        let sealed = (&self.secret, Bytes::from_static(b"sealed"));
        let setup = statement::set_up_recovery(user, &self.plan, sealed, key_of, &author.author(seconds)).unwrap();
        let Statement::SetUpRecovery { brief, shares, .. } = setup else { unreachable!() };
        (brief, shares)
    }
}

#[test]
fn a_recovery_is_taken_only_if_its_author_and_every_recipient_would_take_it() {
    let this = Recovery::new();
    let (alice, trust) = (&this.world.alice, &this.world.trust);
    let (brief, shares) = this.set_up(alice, alice.user(), 40);
    let after = trust.apply_recovery(&brief, &shares).unwrap();
    assert!(after.shamir().setup(alice.user()).is_some());
    let refused = |shares: &[Bytes]| trust.apply_recovery(&brief, shares).is_err();
    assert!(refused(&shares[..1]));
    assert!(refused(&[shares[0].clone(), shares[0].clone()]));
    assert!(refused(&[shares[0].clone(), brief.clone()]));
    let (_, others) = this.set_up(alice, alice.user(), 41);
    assert!(refused(&[shares[0].clone(), others[1].clone()]), "of another time");
    assert!(after.apply_recovery(&brief, &shares).is_err(), "there is one");
    let (again, shares) = this.set_up(alice, alice.user(), 50);
    assert!(after.apply_recovery(&again, &shares).is_err(), "there is one");
    let (foreign, shares) = this.set_up(&this.world.bob, alice.user(), 50);
    assert!(trust.apply_recovery(&foreign, &shares).is_err(), "about somebody else");
    let (own, shares) = this.set_up(&this.world.bob, this.world.bob.user(), 50);
    assert!(trust.apply_recovery(&own, &shares).is_err(), "Bob holds a share of himself");
    let gone = statement::revoke_user(this.carol.user(), &alice.author(45));
    let after = trust.apply(&batch(&gone)).unwrap();
    let (late, shares) = this.set_up(alice, alice.user(), 46);
    assert!(after.apply_recovery(&late, &shares).is_err(), "Carol is revoked");
}

#[test]
fn a_recovery_ends_when_its_user_says_so_and_can_be_made_again() {
    let mut this = Recovery::new();
    let alice = this.world.alice.user();
    let (brief, _) = this.set_up(&this.world.alice, alice, 40);
    let set_up = |brief| CertificateBatch { shamir: vec![brief], ..Default::default() };
    this.world.trust = this.world.trust.apply(&set_up(brief)).unwrap();
    let setup = this.world.trust.shamir().setup(alice).unwrap().brief.clone();
    let by_bob = statement::delete_recovery(&setup, &this.world.bob.author(45));
    assert!(this.world.apply(&by_bob).is_err());
    this.world.apply(&statement::delete_recovery(&setup, &this.world.alice.author(45))).unwrap();
    assert!(this.world.trust.shamir().setup(alice).is_none());
    assert!(this.world.apply(&statement::delete_recovery(&setup, &this.world.alice.author(46))).is_err());
    let (again, _) = this.set_up(&this.world.alice, alice, 50);
    this.world.trust.apply(&set_up(again)).unwrap();
}

/// A server takes the revocation: it asks that certificates about people follow each other, and no more.
#[test]
fn a_revocation_signed_before_a_setup_that_was_there_first_locks_nobody_out() {
    let this = Recovery::new();
    let alice = &this.world.alice;
    let (brief, _) = this.set_up(alice, alice.user(), 60);
    let late_clock = statement::revoke_user(this.carol.user(), &alice.author(45));
    let both = CertificateBatch { shamir: vec![brief], ..batch(&late_clock) };
    let after = this.world.trust.apply(&both).unwrap();
    assert!(after.shamir().setup(alice.user()).is_some());
}
