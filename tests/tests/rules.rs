//! Who may do what: each row of the tables of profiles and of workspace roles, on a directory, where nobody but readers
//! enforces it, and on the real Parsec server.
//!
//! What is forbidden is refused by one's own client, with the rule, before the storage is asked; and when a client that
//! keeps to no rule says it all the same, a server refuses it, and everybody who reads a directory goes on as if it had
//! not been said.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fmt::Debug, sync::Arc};

use futures::StreamExt;
use parsecfs_backends::objects::{ObjectStorage, fuzzing::write_past_the_rules};
use parsecfs_core::{
    certificate::{ArchivingConfiguration, DevicePurpose, RealmRole, UserProfile},
    id::{DeviceId, RealmId, UserId},
    keys_bundle::KeysBundleAccess,
    name::{DeviceLabel, Email, EntryName, HumanHandle},
    statement::{self, NewDevice},
    storage::{ErrorKind as StorageErrorKind, Statement},
    trust::{RealmTrust, Trust, UserTrust},
};
use parsecfs_crypto::{SecretKey, SigningKey, random_bytes};
use parsecfs_tests::{
    company::Company,
    parsec_server::ParsecServer,
    world::{World, author, bring_in},
};
use parsecfs_vfs::{error::ErrorKind, organization::Organization};

use Profile::*;
use Role::*;

/// The server works on one request at a time; this keeps it busy.
const ROWS_AT_ONCE: usize = 4;

const NEW_REALM: RealmId = RealmId::from_bytes([7; 16]);

/// A profile that a person is brought in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Profile {
    Admin,
    Standard,
    Outsider,
}

/// A role in the workspace, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Nothing,
    Reader,
    Contributor,
    Manager,
    Owner,
}

/// Who does it.
#[derive(Clone, Copy, Debug)]
struct Who(Profile, Role);

/// What is done.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Takes somebody with this profile from one role to another.
    Gives(Profile, Role, Role),
    GivesToRevoked(Role),
    TakesFromRevoked(Role),
    /// To oneself, while these are the others' roles.
    Promotes(Role, &'static [Role]),
    Renames,
    Rotates,
    Archives,
    MakesWorkspace,
    AddsOwnDevice,
    AddsDeviceOfAnother,
    BringsIn(Profile),
    Revokes,
    RevokesSelf,
    Profiles(Profile),
    ProfilesSelf(Profile),
}
use Deed::*;

impl From<Profile> for UserProfile {
    fn from(profile: Profile) -> Self {
        match profile {
            Admin => Self::Admin,
            Standard => Self::Standard,
            Outsider => Self::Outsider,
        }
    }
}

impl Role {
    fn get(self) -> Option<RealmRole> {
        match self {
            Nothing => None,
            Reader => Some(RealmRole::Reader),
            Contributor => Some(RealmRole::Contributor),
            Manager => Some(RealmRole::Manager),
            Owner => Some(RealmRole::Owner),
        }
    }
}

/// Where an organization is.
enum Place {
    Directory(World),
    Server(Company),
}

/// A person's device.
struct Person {
    organization: Arc<Organization>,
    /// What a client that keeps to no rule writes to, where there is no server.
    log: Option<Arc<ObjectStorage>>,
}

impl Place {
    async fn directory() -> (Self, Person) {
        let (world, founder) = World::found().await.unwrap();
        (Self::Directory(world), Person { organization: founder.organization, log: Some(founder.storage) })
    }

    async fn server(server: Arc<ParsecServer>, name: &str) -> (Self, Person) {
        let company = Company::founded(server, name).await.unwrap();
        let organization = Arc::clone(&company.people[0]);
        (Self::Server(company), Person { organization, log: None })
    }

    async fn person(&self, by: &Person, name: &str, profile: UserProfile) -> Person {
        let (organization, log) = match self {
            Self::Directory(world) => {
                let device = bring_in(&by.organization, name, profile).await.unwrap();
                let device = world.open(name, device).await.unwrap();
                (device.organization, Some(device.storage))
            }
            Self::Server(company) => (company.person(&by.organization, name, profile).await.unwrap(), None),
        };
        Person { organization, log }
    }
}

/// The founder Alice owns the workspace; the actor and the target are as a row says.
struct Scene {
    place: Place,
    alice: Person,
    actor: Person,
    target: Person,
    /// Further members.
    others: Vec<Person>,
    realm: RealmId,
}

impl Scene {
    async fn of((place, alice): (Place, Person), who: Who, deed: Deed) -> Self {
        let realm = alice.organization.create_workspace(EntryName::new("notes").unwrap()).await.unwrap();
        let (profile, role) = match deed {
            Gives(profile, before, _) => (profile, before),
            TakesFromRevoked(before) => (Standard, before),
            _ => (Standard, Nothing),
        };
        let actor = place.person(&alice, "actor", who.0.into()).await;
        let target = place.person(&alice, "target", profile.into()).await;
        let mut scene = Self { place, alice, actor, target, others: Vec::new(), realm };
        scene.give(&scene.actor, who.1).await;
        scene.give(&scene.target, role).await;
        match deed {
            GivesToRevoked(_) => scene.revoke(&scene.target).await,
            TakesFromRevoked(_) => {
                // Only said: an owner that looks takes the role at once.
                scene.actor.organization.refresh().await.unwrap();
                let by = author(&scene.alice.organization, None);
                let end = statement::revoke_user(scene.target.organization.user_id(), &by);
                scene.alice.organization.storage().append(end).await.unwrap();
                return scene;
            }
            Promotes(_, others) => scene.orphan(others).await,
            _ => {}
        }
        scene.actor.organization.refresh().await.unwrap();
        scene
    }

    async fn give(&self, to: &Person, role: Role) {
        if let Some(role) = role.get() {
            self.alice.organization.share(self.realm, to.organization.user_id(), role).await.unwrap();
        }
    }

    async fn revoke(&self, whom: &Person) {
        self.alice.organization.revoke_user(whom.organization.user_id()).await.unwrap();
    }

    /// Members with these roles come; unless one of them is an owner, another admin revokes the only one.
    async fn orphan(&mut self, others: &[Role]) {
        for (number, role) in others.iter().enumerate() {
            let other = self.place.person(&self.alice, &format!("other{number}"), Admin.into()).await;
            self.give(&other, *role).await;
            self.others.push(other);
        }
        if !others.contains(&Owner) {
            let admin = self.place.person(&self.alice, "admin", Admin.into()).await;
            admin.organization.revoke_user(self.alice.organization.user_id()).await.unwrap();
        }
    }

    /// The statement that says it, made whatever the rules say.
    fn statement(&self, deed: Deed) -> Statement {
        let (actor, target) = (&self.actor.organization, self.target.organization.user_id());
        let in_realm = author(actor, Some(self.realm));
        let in_common = author(actor, None);
        match deed {
            Gives(_, _, role) | GivesToRevoked(role) => self.role_statement(target, role),
            TakesFromRevoked(_) => self.role_statement(target, Nothing),
            Promotes(role, _) => self.role_statement(actor.user_id(), role),
            Renames => statement::rename_realm(self.realm, &minutes(), (1, &SecretKey::generate()), &in_realm),
            Archives => statement::archive_realm(self.realm, ArchivingConfiguration::Archived, &in_realm),
            Rotates => {
                let members = self.alice.organization.members(self.realm).into_iter().map(|member| member.user.id);
                let trust = self.alice.organization.trust();
                let members = members.map(|id| (id, trust.user(id).unwrap().certificate().public_key));
                let keys = vec![SecretKey::generate(); usize::try_from(self.key_index()).unwrap()];
                let new = SecretKey::generate();
                statement::rotate_key(self.realm, keys, new, &access(), members, trust.sequester(), &in_realm).unwrap()
            }
            MakesWorkspace => statement::create_realm(NEW_REALM, actor.user_id(), &in_realm),
            AddsOwnDevice => statement::create_device(&new_device(actor.user_id()), &in_common),
            AddsDeviceOfAnother => statement::create_device(&new_device(target), &in_common),
            BringsIn(profile) => {
                let user = UserId::from_bytes(random_bytes());
                let new = statement::NewUser {
                    human_handle: HumanHandle::new(Email::new("new@example.com").unwrap(), "New").unwrap(),
                    public_key: self.target.organization.device().private_key.public_key(),
                    profile: profile.into(),
                    device: new_device(user),
                };
                statement::create_user(&new, &in_common)
            }
            Revokes => statement::revoke_user(target, &in_common),
            RevokesSelf => statement::revoke_user(actor.user_id(), &in_common),
            Profiles(profile) => statement::update_user(target, profile.into(), &in_common),
            ProfilesSelf(profile) => statement::update_user(actor.user_id(), profile.into(), &in_common),
        }
    }

    fn role_statement(&self, user: UserId, role: Role) -> Statement {
        let by = author(&self.actor.organization, Some(self.realm));
        match role.get() {
            None => statement::unshare(self.realm, user, &by),
            Some(role) => {
                let key = self.target.organization.device().private_key.public_key();
                statement::share(self.realm, (user, &key), role, (self.key_index(), &access()), &by).unwrap()
            }
        }
    }

    fn key_index(&self) -> u64 {
        self.alice.organization.trust().realm(self.realm).unwrap().key_index()
    }

    /// The same through one's own client; `None` where it has no such call.
    async fn ask(&self, deed: Deed) -> Option<parsecfs_vfs::error::Result<()>> {
        let (actor, target) = (&self.actor.organization, self.target.organization.user_id());
        Some(match deed {
            Gives(_, _, role) | GivesToRevoked(role) => change_role(actor, self.realm, target, role).await,
            TakesFromRevoked(_) => change_role(actor, self.realm, target, Nothing).await,
            Promotes(role, _) => change_role(actor, self.realm, actor.user_id(), role).await,
            Renames => actor.rename_workspace(self.realm, &minutes()).await,
            Rotates => actor.rotate_key(self.realm).await,
            Archives => actor.archive_workspace(self.realm, true).await,
            MakesWorkspace => actor.create_workspace(minutes()).await.map(drop),
            AddsOwnDevice => {
                let made = actor.create_device(DeviceLabel::new("phone").unwrap(), DevicePurpose::Standard);
                made.await.map(drop)
            }
            Revokes => actor.revoke_user(target).await,
            RevokesSelf => actor.revoke_user(actor.user_id()).await,
            Profiles(profile) => actor.change_profile(target, profile.into()).await,
            ProfilesSelf(profile) => actor.change_profile(actor.user_id(), profile.into()).await,
            AddsDeviceOfAnother | BringsIn(_) => return None,
        })
    }

    /// All that somebody else, and the actor, know after reading everything.
    async fn told(&self) -> impl Debug + PartialEq + use<> {
        let other = self.others.first().unwrap_or(&self.alice);
        (read(other).await, read(&self.actor).await)
    }

    async fn refused(self, deed: Deed) {
        if let Some(asked) = self.ask(deed).await {
            let error = asked.unwrap_err();
            if self.actor.organization.trust().realm(self.realm).is_none() && error.kind() == ErrorKind::NotFound {
                // Who is no member knows nothing of the workspace.
            } else {
                assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
                assert!(error.to_string().contains("the rules do not allow it: "), "it names the rule: {error:?}");
            }
        }
        let before = self.told().await;
        let sent = self.actor.organization.storage().append(self.statement(deed)).await.unwrap_err();
        let judged = [StorageErrorKind::Denied, StorageErrorKind::VersionConflict, StorageErrorKind::Internal];
        assert!(judged.contains(&sent.kind()), "it is the server that refuses: {sent}");
        if let Some(log) = &self.actor.log {
            assert_eq!(sent.kind(), StorageErrorKind::Denied, "{sent}");
            write_past_the_rules(log, self.statement(deed)).await.unwrap();
        }
        assert_eq!(self.told().await, before);
        // It goes on behind that.
        let rita = self.place.person(&self.alice, "rita", UserProfile::Standard).await;
        self.alice.organization.share(self.realm, rita.organization.user_id(), RealmRole::Reader).await.unwrap();
        rita.organization.refresh().await.unwrap();
        assert_eq!(rita.organization.role(self.realm), Some(RealmRole::Reader));
    }

    async fn done(self, deed: Deed) {
        let before = self.told().await;
        match self.ask(deed).await {
            Some(asked) => asked.unwrap(),
            None => self.actor.organization.storage().append(self.statement(deed)).await.unwrap(),
        }
        assert_ne!(self.told().await, before);
    }
}

/// What follows from all certificates, read from the beginning and without doing what an owner does then.
async fn read(device: &Person) -> impl Debug + PartialEq + use<> {
    let own = device.organization.device();
    let batch = device.organization.storage().certificates(&Default::default()).await.unwrap();
    let trust = Trust::new(own.root_verify_key, own.user_id).apply(&batch).unwrap();
    let user = |user: &UserTrust| (user.certificate().user_id, user.profile(), user.revoked());
    let realm = |realm: &RealmTrust| {
        let members: Vec<_> = realm.members().collect();
        (realm.id(), members, realm.key_index(), realm.name().map(|name| name.timestamp), realm.archiving())
    };
    let devices: Vec<_> = trust.devices().map(|device| device.device_id).collect();
    (trust.users().map(user).collect::<Vec<_>>(), devices, trust.realms().map(realm).collect::<Vec<_>>())
}

async fn change_role(by: &Organization, realm: RealmId, user: UserId, role: Role) -> parsecfs_vfs::error::Result<()> {
    match role.get() {
        Some(role) => by.share(realm, user, role).await,
        None => by.unshare(realm, user).await,
    }
}

fn minutes() -> EntryName {
    EntryName::new("minutes").unwrap()
}

fn access() -> KeysBundleAccess {
    KeysBundleAccess { keys_bundle_key: SecretKey::generate() }
}

fn new_device(user: UserId) -> NewDevice {
    NewDevice {
        id: DeviceId::from_bytes(random_bytes()),
        user,
        label: DeviceLabel::new("phone").unwrap(),
        verify_key: SigningKey::generate().verify_key(),
        purpose: DevicePurpose::Standard,
    }
}

/// What the tables say of a deed.
#[derive(Clone, Copy)]
enum Verdict {
    Done,
    Refused,
}

#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    who: Who,
    deed: Deed,
    verdict: Verdict,
}

impl Row {
    async fn holds(self, place: (Place, Person)) {
        let scene = Scene::of(place, self.who, self.deed).await;
        match self.verdict {
            Verdict::Done => scene.done(self.deed).await,
            Verdict::Refused => scene.refused(self.deed).await,
        }
    }
}

/// One server for all, each in an organization of its own.
#[tokio::test(flavor = "multi_thread")]
async fn every_row_holds_on_a_parsec_server() {
    let Some(server) = ParsecServer::start().map(Arc::new) else { return };
    let rows = ROWS.iter().enumerate().map(|(number, row)| {
        let server = Arc::clone(&server);
        async move {
            let held =
                tokio::spawn(async move { row.holds(Place::server(server, &format!("Org{number}")).await).await });
            held.await.is_err().then_some(row.name)
        }
    });
    let broken: Vec<_> =
        futures::stream::iter(rows).buffer_unordered(ROWS_AT_ONCE).filter_map(async |name| name).collect().await;
    assert!(broken.is_empty(), "{broken:?}");
}

macro_rules! rows {
    ($($verdict:ident { $($name:ident: $who:expr, $deed:expr;)* })*) => {
        $($(#[tokio::test]
        async fn $name() {
            Row { name: "", who: $who, deed: $deed, verdict: Verdict::$verdict }.holds(Place::directory().await).await;
        })*)*

        const ROWS: &[Row] = &[
            $($(Row { name: stringify!($name), who: $who, deed: $deed, verdict: Verdict::$verdict }),*),*
        ];
    };
}

rows! {
    Done {
        admin_brings_people_in: Who(Admin, Nothing), BringsIn(Standard);
        admin_revokes: Who(Admin, Nothing), Revokes;
        admin_changes_a_profile: Who(Admin, Nothing), Profiles(Outsider);
        admin_makes_an_admin: Who(Admin, Nothing), Profiles(Admin);
        admin_makes_a_workspace: Who(Admin, Nothing), MakesWorkspace;
        standard_makes_a_workspace: Who(Standard, Nothing), MakesWorkspace;
        standard_adds_an_own_device: Who(Standard, Nothing), AddsOwnDevice;
        outsider_adds_an_own_device: Who(Outsider, Nothing), AddsOwnDevice;
        outsider_may_read: Who(Admin, Owner), Gives(Outsider, Nothing, Reader);
        outsider_may_contribute: Who(Standard, Manager), Gives(Outsider, Reader, Contributor);
        manager_gives_reader: Who(Standard, Manager), Gives(Standard, Nothing, Reader);
        manager_gives_contributor: Who(Standard, Manager), Gives(Standard, Nothing, Contributor);
        manager_lowers_a_contributor: Who(Standard, Manager), Gives(Standard, Contributor, Reader);
        manager_takes_reader: Who(Standard, Manager), Gives(Standard, Reader, Nothing);
        manager_takes_contributor: Who(Standard, Manager), Gives(Standard, Contributor, Nothing);
        owner_gives_manager: Who(Standard, Owner), Gives(Standard, Contributor, Manager);
        owner_gives_owner: Who(Standard, Owner), Gives(Standard, Nothing, Owner);
        owner_takes_manager: Who(Standard, Owner), Gives(Standard, Manager, Nothing);
        owner_takes_owner: Who(Standard, Owner), Gives(Standard, Owner, Nothing);
        owner_lowers_an_owner: Who(Standard, Owner), Gives(Standard, Owner, Reader);
        owner_takes_the_role_of_one_who_is_revoked: Who(Standard, Owner), TakesFromRevoked(Contributor);
        owner_renames: Who(Standard, Owner), Renames;
        owner_rotates_the_key: Who(Standard, Owner), Rotates;
        owner_archives: Who(Standard, Owner), Archives;
        the_last_manager_takes_over: Who(Standard, Manager), Promotes(Owner, &[Contributor]);
        one_of_the_last_readers_takes_over: Who(Standard, Reader), Promotes(Owner, &[Reader]);
    }
    Refused {
        standard_brings_nobody_in: Who(Standard, Owner), BringsIn(Standard);
        outsider_brings_nobody_in: Who(Outsider, Nothing), BringsIn(Outsider);
        standard_revokes_nobody: Who(Standard, Owner), Revokes;
        outsider_revokes_nobody: Who(Outsider, Nothing), Revokes;
        admin_never_revokes_self: Who(Admin, Nothing), RevokesSelf;
        standard_never_revokes_self: Who(Standard, Nothing), RevokesSelf;
        standard_changes_no_profile: Who(Standard, Owner), Profiles(Admin);
        outsider_changes_no_profile: Who(Outsider, Nothing), Profiles(Outsider);
        admin_never_changes_the_own_profile: Who(Admin, Nothing), ProfilesSelf(Standard);
        standard_never_changes_the_own_profile: Who(Standard, Nothing), ProfilesSelf(Admin);
        outsider_never_changes_the_own_profile: Who(Outsider, Nothing), ProfilesSelf(Standard);
        outsider_makes_no_workspace: Who(Outsider, Nothing), MakesWorkspace;
        admin_adds_no_device_to_another: Who(Admin, Nothing), AddsDeviceOfAnother;
        stranger_gives_nothing: Who(Admin, Nothing), Gives(Standard, Nothing, Reader);
        reader_gives_nothing: Who(Standard, Reader), Gives(Standard, Nothing, Reader);
        reader_takes_nothing: Who(Standard, Reader), Gives(Standard, Reader, Nothing);
        contributor_gives_nothing: Who(Standard, Contributor), Gives(Standard, Nothing, Reader);
        contributor_takes_nothing: Who(Standard, Contributor), Gives(Standard, Contributor, Nothing);
        manager_does_not_give_manager: Who(Standard, Manager), Gives(Standard, Nothing, Manager);
        manager_does_not_raise_to_manager: Who(Standard, Manager), Gives(Standard, Contributor, Manager);
        manager_does_not_give_owner: Who(Standard, Manager), Gives(Standard, Nothing, Owner);
        manager_does_not_take_manager: Who(Standard, Manager), Gives(Standard, Manager, Nothing);
        manager_does_not_lower_a_manager: Who(Standard, Manager), Gives(Standard, Manager, Reader);
        manager_does_not_take_owner: Who(Standard, Manager), Gives(Standard, Owner, Nothing);
        manager_does_not_lower_an_owner: Who(Standard, Manager), Gives(Standard, Owner, Contributor);
        outsider_is_never_manager: Who(Standard, Owner), Gives(Outsider, Contributor, Manager);
        outsider_is_never_owner: Who(Standard, Owner), Gives(Outsider, Nothing, Owner);
        revoked_gets_no_role: Who(Standard, Owner), GivesToRevoked(Reader);
        owner_does_not_lower_self: Who(Standard, Owner), Promotes(Reader, &[Owner]);
        owner_does_not_leave: Who(Standard, Owner), Promotes(Nothing, &[Owner]);
        manager_does_not_lower_self: Who(Standard, Manager), Promotes(Reader, &[Owner]);
        reader_does_not_raise_self: Who(Standard, Reader), Promotes(Contributor, &[Owner]);
        manager_does_not_promote_self_while_an_owner_is_left: Who(Standard, Manager), Promotes(Owner, &[Owner]);
        reader_does_not_rename: Who(Standard, Reader), Renames;
        manager_does_not_rename: Who(Standard, Manager), Renames;
        contributor_does_not_rotate: Who(Standard, Contributor), Rotates;
        manager_does_not_rotate: Who(Standard, Manager), Rotates;
        contributor_does_not_archive: Who(Standard, Contributor), Archives;
        manager_does_not_archive: Who(Standard, Manager), Archives;
    }
}

#[tokio::test]
async fn what_is_written_past_the_rules_counts_where_they_allow_it() {
    let deed = Gives(Standard, Nothing, Reader);
    let scene = Scene::of(Place::directory().await, Who(Standard, Manager), deed).await;
    let before = scene.told().await;
    write_past_the_rules(scene.actor.log.as_ref().unwrap(), scene.statement(deed)).await.unwrap();
    assert_ne!(scene.told().await, before);
}

#[tokio::test]
async fn an_outsider_sees_nobody_elses_name_or_address() {
    let scene = Scene::of(Place::directory().await, Who(Outsider, Contributor), Renames).await;
    let users = scene.actor.organization.users();
    assert!(users.len() > 2);
    assert!(users.iter().all(|user| user.human_handle.is_some() == user.own), "{users:?}");
    assert!(scene.actor.organization.devices().iter().all(|device| device.label.is_none()));
    let users = scene.target.organization.users();
    assert!(users.iter().all(|user| user.human_handle.is_some()));
}
