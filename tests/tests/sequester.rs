//! A sequestered organization on the real Parsec server: what an authority's services may read, they are given, and no
//! longer once they are revoked.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64;
use parsecfs_backends::parsec::{
    Limits, Options, ParsecStorage,
    command::Request,
    server::{Family, Server},
};
use parsecfs_core::{
    certificate::{
        SequesterAuthorityCertificate, SequesterRevokedServiceCertificate, SequesterServiceCertificate, UserProfile,
    },
    id::{DeviceId, RealmId, SequesterServiceId, UserId},
    keys_bundle::KeysBundleAccess,
    local_device::LocalDevice,
    name::{DeviceLabel, Email, EntryName, HumanHandle, OrganizationId},
    statement::{self, NewUser},
    storage::Statement,
    trust::Trust,
};
use parsecfs_crypto::{
    PrivateKey, SecretKey, SigningKey,
    sequester::{AuthoritySigningKey, DecryptionKey},
};
use parsecfs_tests::{cli::CliHome, parsec_server::ParsecServer, vectors::hex, world::author};
use parsecfs_vfs::{
    clock::{Clock, SystemClock},
    organization::{DeviceStore, Organization, OrganizationKeys, Unlock},
};
use serde_json::Value;
use tempfile::TempDir;

const SERVICE: SequesterServiceId = SequesterServiceId::from_bytes([5; 16]);

/// Keys of an authority and of a service, captured from the server's package.
struct Keys(Value);

impl Keys {
    fn load() -> Result<Self> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/vectors/formats/sequester_crypto.json");
        Ok(Self(serde_json::from_str(&fs::read_to_string(path)?)?))
    }

    fn der(&self, case: &str, field: &str) -> Result<Vec<u8>> {
        let cases = self.0["cases"].as_array().context("cases")?;
        hex(cases.iter().find(|found| found["name"] == case).context("the case")?, field)
    }

    /// As the authority signs, in base64.
    fn signed(&self, by_anybody: &[u8]) -> Result<String> {
        const SIGNATURE_BYTES: usize = 64;
        let authority = AuthoritySigningKey::from_der(&self.der("sign-2048", "signing_key_der")?)?;
        Ok(BASE64.encode(&authority.sign(&by_anybody[SIGNATURE_BYTES..])?))
    }
}

struct Scene {
    server: ParsecServer,
    keys: Keys,
    alice: Arc<Organization>,
    _dir: TempDir,
}

fn founder(server: &ParsecServer, root: &SigningKey) -> Result<LocalDevice> {
    let id = parsecfs_crypto::random_bytes::<16>;
    Ok(LocalDevice {
        server_url: server.address().http_url(),
        organization_id: OrganizationId::new("Org")?,
        root_verify_key: root.verify_key(),
        user_id: UserId::from_bytes(id()),
        device_id: DeviceId::from_bytes(id()),
        device_label: DeviceLabel::new("laptop")?,
        human_handle: HumanHandle::new(Email::new("alice@example.com")?, "Alice")?,
        signing_key: SigningKey::generate(),
        private_key: PrivateKey::generate(),
        initial_profile: UserProfile::Admin,
        user_realm_id: RealmId::from_bytes(id()),
        user_realm_key: SecretKey::generate(),
        local_symkey: SecretKey::generate(),
        organization_key: None,
    })
}

/// Founds the organization together with its authority.
async fn bootstrap(server: &ParsecServer, device: &LocalDevice, root: &SigningKey, keys: &Keys) -> Result<()> {
    let token = server.bootstrap_token("Org").await;
    let now = SystemClock.now();
    let statement = statement::bootstrap(&NewUser::of(device), root, now);
    let Statement::Bootstrap { user, device, redacted_user, redacted_device } = statement else { unreachable!() };
    let verify_key_der = keys.der("sign-2048", "verify_key_der")?;
    let authority = SequesterAuthorityCertificate { timestamp: now, verify_key_der }.sign(root);
    let request = Request::new("organization_bootstrap")
        .with("bootstrap_token", &Some(token))
        .with("root_verify_key", root.verify_key().as_bytes())
        .with_bytes("user_certificate", &user)
        .with_bytes("device_certificate", &device)
        .with_bytes("redacted_user_certificate", &redacted_user)
        .with_bytes("redacted_device_certificate", &redacted_device)
        .with_bytes("sequester_authority_certificate", &authority);
    let clock = Arc::new(|| SystemClock.now());
    let server = Server::new(&server.address(), Some(&OrganizationId::new("Org")?), clock, Limits::default())?;
    server.call(Family::Anonymous, request).await?.ok()?;
    Ok(())
}

impl Scene {
    async fn new() -> Result<Option<Self>> {
        let Some(server) = ParsecServer::start() else { return Ok(None) };
        let (keys, root, dir) = (Keys::load()?, SigningKey::generate(), TempDir::new()?);
        let device = founder(&server, &root)?;
        bootstrap(&server, &device, &root, &keys).await?;
        let own = OrganizationKeys::new(&device);
        let storage = ParsecStorage::open(Options {
            server: server.address(),
            organization: device.organization_id.clone(),
            root: *device.root_verify_key.as_bytes(),
            bootstrap_token: None,
            signer: own.signer(),
            clock: Arc::new(|| SystemClock.now()),
            limits: Limits::default(),
        })?;
        let alice = Organization::open(device, own, storage, dir.path(), Arc::new(SystemClock)).await?;
        Ok(Some(Self { server, keys, alice, _dir: dir }))
    }

    /// As whoever runs the server does, with what the authority signed.
    fn make_service(&self) -> Result<()> {
        let certificate = SequesterServiceCertificate {
            timestamp: SystemClock.now(),
            service_id: SERVICE,
            service_label: "auditors".to_owned(),
            encryption_key_der: self.keys.der("encrypt-2048", "public_key_der")?,
        };
        let signed = self.keys.signed(&certificate.sign(&SigningKey::generate()))?;
        let body = format!(r#"{{"service_certificate":"{signed}","config":{{"type":"storage"}}}}"#);
        self.server.administer("POST", "Org/sequester/services", &body);
        Ok(())
    }

    fn revoke_service(&self) -> Result<()> {
        let certificate = SequesterRevokedServiceCertificate { timestamp: SystemClock.now(), service_id: SERVICE };
        let signed = self.keys.signed(&certificate.sign(&SigningKey::generate()))?;
        let body = format!(r#"{{"revoked_service_certificate":"{signed}"}}"#);
        self.server.administer("POST", "Org/sequester/services/revoke", &body);
        Ok(())
    }

    fn trust(&self) -> Arc<Trust> {
        self.alice.trust()
    }

    fn key_index(&self, realm: RealmId) -> u64 {
        self.trust().realm(realm).expect("a realm").key_index()
    }

    /// What the next rotation gives to services, and what they find in it.
    fn next_rotation_opens_for_the_service(&self, realm: RealmId) -> Result<bool> {
        let access = KeysBundleAccess { keys_bundle_key: SecretKey::generate() };
        let by = author(&self.alice, Some(realm));
        let trust = self.trust();
        let made = statement::rotate_key(realm, vec![], SecretKey::generate(), &access, [], trust.sequester(), &by)?;
        let Statement::RotateKey { services: Some(services), .. } = made else { anyhow::bail!("it is sequestered") };
        let Some(sealed) = services.get(&SERVICE) else { return Ok(false) };
        let key = DecryptionKey::from_der(&self.keys.der("encrypt-2048", "private_key_der")?)?;
        ensure!(key.open(sealed)? == *access.to_service_frame(), "it opens to the access");
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_given_every_new_key_until_they_are_revoked() -> Result<()> {
    let Some(scene) = Scene::new().await? else { return Ok(()) };
    let before = scene.alice.create_workspace(EntryName::new("before")?).await?;
    assert_eq!(scene.key_index(before), 1, "without any service yet");

    scene.make_service()?;
    scene.alice.refresh().await?;
    assert_eq!(scene.trust().sequester().active_services().count(), 1);
    assert_eq!(scene.key_index(before), 2, "a service that comes asks for a new key");
    assert!(scene.next_rotation_opens_for_the_service(before)?);
    let during = scene.alice.create_workspace(EntryName::new("during")?).await?;
    scene.alice.rotate_key(during).await?;
    assert_eq!(scene.key_index(during), 2, "the server takes no rotation without the service's access");

    scene.revoke_service()?;
    scene.alice.refresh().await?;
    assert_eq!((scene.key_index(before), scene.key_index(during)), (3, 3), "one that goes does too");
    assert!(!scene.next_rotation_opens_for_the_service(before)?);
    let after = scene.alice.create_workspace(EntryName::new("after")?).await?;
    assert_eq!(scene.key_index(after), 1);
    scene.alice.refresh().await?;
    assert_eq!(scene.key_index(after), 1, "nothing is due twice");

    let home = CliHome::new();
    let store = DeviceStore::open(home.home().join("config/devices"));
    store.save(scene.alice.device(), &Unlock::Keyfile, &SystemClock)?;
    let audit = tokio::task::spawn_blocking(move || home.ok(&["audit"])).await?;
    let events = audit["events"].as_array().context("events")?;
    let told = |event: &str| events.iter().find(|found| found["event"] == event).map(|found| found["name"].clone());
    assert!(told("sequester_authority_set").is_some(), "{audit}");
    assert_eq!(told("sequester_service_created"), Some("auditors".into()), "{audit}");
    assert_eq!(told("sequester_service_revoked"), Some("auditors".into()), "{audit}");
    Ok(())
}
