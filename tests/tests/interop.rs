//! The published server package and this program read each other's documents.
//!
//! `interop/rewrite.py` opens what is written here with the package's own types, and writes it anew with them; that is
//! opened here again. The package has no types for keys bundles, device files, invitation payloads and what is inside a
//! share of a recovery: the captured ones in `vectors` stand for those, and their seals are checked here. What a sequester
//! authority signs it can neither read nor write.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    num::NonZeroU8,
    process::{Command, Stdio},
};

use data_encoding::HEXLOWER;
use parsecfs_core::{
    certificate::{
        ArchivingConfiguration, Certificate, DeviceCertificate, DevicePurpose, Expected, RealmArchivingCertificate,
        RealmKeyRotationCertificate, RealmNameCertificate, RealmRole, RealmRoleCertificate, RevokedUserCertificate,
        ShamirRecoveryBriefCertificate, ShamirRecoveryDeletionCertificate, ShamirRecoveryShareCertificate,
        UserCertificate, UserProfile, UserUpdateCertificate, seal_canary, seal_realm_name,
    },
    id::{BlockId, DeviceId, RealmId, RevealToken, UserId, VlobId},
    local_device::LocalDevice,
    manifest::{
        BlockAccess, Expected as ExpectedManifest, Extension, FileManifest, FolderManifest, Manifest, UserManifest,
    },
    name::{DeviceLabel, Email, EntryName, HumanHandle, OrganizationId},
    shamir::{ShamirRecoverySecret, ShamirRecoveryShareData, SharePlan},
    time::Timestamp,
};
use parsecfs_crypto::{PrivateKey, SecretKey, SigningKey, passphrase};
use parsecfs_tests::parsec_package;
use serde_json::{Value, json};

const AUTHOR: DeviceId = DeviceId::from_bytes([0xa1; 16]);
const USER: UserId = UserId::from_bytes([0xb2; 16]);
const OTHER: UserId = UserId::from_bytes([0xb3; 16]);
const REALM: RealmId = RealmId::from_bytes([0xc4; 16]);
const MADE: Timestamp = Timestamp::from_micros(1_790_000_000_123_456).expect("a lawful value");
const REWRITTEN: Timestamp = Timestamp::from_micros(1_790_000_001_123_456).expect("a lawful value");

/// Documents on their way to the package and back.
struct Exchange {
    signing_key: SigningKey,
    documents: Vec<Value>,
}

impl Exchange {
    fn new() -> Self {
        Self { signing_key: SigningKey::from_seed([7; 32]), documents: Vec::new() }
    }

    fn add(&mut self, kind: &str, bytes: &[u8], key: &[u8; 32]) {
        self.documents.push(json!({
            "kind": kind,
            "bytes": HEXLOWER.encode(bytes),
            "key": HEXLOWER.encode(key),
            "timestamp": MADE.as_micros(),
        }));
    }

    /// What the package wrote for each; `None` where it cannot be had.
    fn rewritten(self) -> Option<Vec<Vec<u8>>> {
        let python = parsec_package::programs()?.join("python3");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/rewrite.py");
        let mut child = Command::new(python)
            .args(["-B", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the environment has a Python");
        let given = json!({
            "signing_key": HEXLOWER.encode(self.signing_key.expose()),
            "author": AUTHOR.to_string(),
            "documents": self.documents,
        });
        child.stdin.take().expect("a lawful value").write_all(given.to_string().as_bytes()).expect("a lawful value");
        let output = child.wait_with_output().expect("a lawful value");
        assert!(output.status.success(), "the package refuses a document");
        let answers: Vec<String> = serde_json::from_slice(&output.stdout).expect("a lawful value");
        assert_eq!(answers.len(), self.documents.len());
        Some(answers.iter().map(|hex| HEXLOWER.decode(hex.as_bytes()).expect("a lawful value")).collect())
    }
}

/// One of each kind that the package has, and both forms where there are two.
fn certificates(key: &SigningKey) -> Vec<(&'static str, Certificate, Vec<u8>)> {
    let realm_key = SecretKey::from_bytes([9; 32]);
    let shares = |count| NonZeroU8::new(count).expect("a lawful value");
    let mut all = Vec::new();
    macro_rules! add {
        ($kind:ident { $($fields:tt)* }) => {{
            let made = $kind { timestamp: MADE, $($fields)* };
            all.push((stringify!($kind), Certificate::from(made.clone()), made.sign(key)));
        }};
    }
    let email = Email::new("zoe@example.com").expect("a lawful value");
    let handle = HumanHandle::new(email, "Zoé Ünïcode").expect("a lawful value");
    for human_handle in [Some(handle), None] {
        add!(UserCertificate {
            author: Some(AUTHOR),
            user_id: USER,
            human_handle,
            public_key: PrivateKey::from_bytes([3; 32]).public_key(),
            algorithm: Default::default(),
            profile: UserProfile::Standard,
        });
    }
    for device_label in [Some(DeviceLabel::new("Büro-PC").expect("a lawful value")), None] {
        for purpose in [DevicePurpose::Standard, DevicePurpose::PassphraseRecovery, DevicePurpose::ShamirRecovery] {
            add!(DeviceCertificate {
                purpose,
                author: Some(AUTHOR),
                user_id: USER,
                device_id: DeviceId::from_bytes([0xa9; 16]),
                device_label: device_label.clone(),
                verify_key: SigningKey::from_seed([8; 32]).verify_key(),
                algorithm: Default::default(),
            });
        }
    }
    for new_profile in [UserProfile::Admin, UserProfile::Standard, UserProfile::Outsider] {
        add!(UserUpdateCertificate { author: AUTHOR, user_id: OTHER, new_profile });
    }
    add!(RevokedUserCertificate { author: AUTHOR, user_id: OTHER });
    let roles = [RealmRole::Owner, RealmRole::Manager, RealmRole::Contributor, RealmRole::Reader];
    for role in roles.map(Some).into_iter().chain([None]) {
        add!(RealmRoleCertificate { author: AUTHOR, realm_id: REALM, user_id: OTHER, role });
    }
    let name = EntryName::new("Bücher").expect("a lawful value");
    add!(RealmNameCertificate {
        author: AUTHOR,
        realm_id: REALM,
        key_index: 2,
        encrypted_name: seal_realm_name(&name, &realm_key),
    });
    add!(RealmKeyRotationCertificate {
        author: AUTHOR,
        realm_id: REALM,
        key_index: 2,
        encryption_algorithm: Default::default(),
        hash_algorithm: Default::default(),
        key_canary: seal_canary(&realm_key),
    });
    let planned = ArchivingConfiguration::DeletionPlanned { deletion_date: REWRITTEN };
    for configuration in [ArchivingConfiguration::Available, ArchivingConfiguration::Archived, planned] {
        add!(RealmArchivingCertificate { author: AUTHOR, realm_id: REALM, configuration });
    }
    add!(ShamirRecoveryBriefCertificate {
        author: AUTHOR,
        user_id: USER,
        threshold: shares(2),
        per_recipient_shares: BTreeMap::from([(OTHER, shares(2)), (UserId::from_bytes([0xb4; 16]), shares(1))]),
    });
    add!(ShamirRecoveryShareCertificate {
        author: AUTHOR,
        user_id: USER,
        recipient: OTHER,
        ciphered_share: b"sealed".to_vec(),
    });
    add!(ShamirRecoveryDeletionCertificate {
        author: AUTHOR,
        setup_to_delete_timestamp: MADE,
        setup_to_delete_user_id: USER,
        share_recipients: BTreeSet::from([OTHER]),
    });
    all
}

#[test]
fn every_certificate_opens_with_the_package_and_what_it_writes_opens_here() {
    let mut exchange = Exchange::new();
    let written = certificates(&exchange.signing_key);
    for (kind, _, signed) in &written {
        exchange.add(kind, signed, &[0; 32]);
    }
    let verify_key = exchange.signing_key.verify_key();
    let Some(rewritten) = exchange.rewritten() else { return };
    for ((kind, ours, _), theirs) in written.iter().zip(&rewritten) {
        let expected = Expected { author: Some(AUTHOR), ..Expected::default() };
        assert_eq!(&Certificate::open(theirs, &verify_key, &expected).unwrap(), ours, "{kind}");
    }
}

#[test]
fn a_manifest_that_another_client_changed_opens_here_and_keeps_its_attributes() {
    let mut exchange = Exchange::new();
    let realm_key = SecretKey::from_bytes([9; 32]);
    let extension = Extension { mode: Some(0o754), mtime_ns: Some(1_790_000_000_123_456_789), ..Extension::default() };
    let block = BlockAccess { id: BlockId::from_bytes([1; 16]), offset: 8, size: 9, digest: [0x5a; 32] };
    let file = Manifest::File(FileManifest {
        author: AUTHOR,
        timestamp: MADE,
        id: VlobId::from_bytes([0xd1; 16]),
        parent: REALM.root(),
        version: 4,
        created: MADE,
        updated: MADE,
        size: 100,
        blocksize: 64,
        blocks: vec![block],
        extension: Some(extension.clone()),
        unknown: Default::default(),
    });
    let folder = Manifest::Folder(FolderManifest {
        author: AUTHOR,
        timestamp: MADE,
        // The package has no loader for a root folder.
        id: VlobId::from_bytes([0xd2; 16]),
        parent: REALM.root(),
        version: 1,
        created: MADE,
        updated: MADE,
        children: BTreeMap::from([(EntryName::new("bücher.txt").unwrap(), file.id())]),
        extension: Some(extension.clone()),
        unknown: Default::default(),
    });
    for manifest in [&file, &folder] {
        let key = realm_key.derive(manifest.id().as_bytes());
        exchange.add("Manifest", &manifest.seal(&exchange.signing_key, &realm_key), key.expose());
    }
    let verify_key = exchange.signing_key.verify_key();
    let Some(rewritten) = exchange.rewritten() else { return };
    for (ours, theirs) in [&file, &folder].into_iter().zip(&rewritten) {
        let expected = ExpectedManifest {
            verify_key: &verify_key,
            author: AUTHOR,
            timestamp: REWRITTEN,
            realm: REALM,
            id: ours.id(),
            version: ours.version() + 1,
        };
        let opened = Manifest::open(theirs, &realm_key, &expected).unwrap();
        let read = match (&opened, ours) {
            (Manifest::File(theirs), Manifest::File(ours)) => {
                assert_eq!((theirs.size, theirs.blocksize, &theirs.blocks), (ours.size, ours.blocksize, &ours.blocks));
                &theirs.extension
            }
            (Manifest::Folder(theirs), Manifest::Folder(ours)) => {
                assert_eq!(theirs.children, ours.children);
                &theirs.extension
            }
            _ => panic!("another kind of manifest came back"),
        };
        assert_eq!(read, &None, "the package drops what it does not know");
        assert_eq!(Extension::inherit(Some(&extension), read.as_ref()), extension, "and what it said before holds");
    }
}

#[test]
fn a_user_manifest_opens_with_the_package_and_what_it_writes_opens_here() {
    let mut exchange = Exchange::new();
    let key = SecretKey::from_bytes([9; 32]);
    let ours = UserManifest {
        author: AUTHOR,
        timestamp: MADE,
        id: REALM.root(),
        version: 1,
        created: MADE,
        updated: MADE,
        unknown: Default::default(),
    };
    exchange.add("UserManifest", &ours.seal(&exchange.signing_key, &key), key.expose());
    let verify_key = exchange.signing_key.verify_key();
    let Some(rewritten) = exchange.rewritten() else { return };
    let expected = ExpectedManifest {
        verify_key: &verify_key,
        author: AUTHOR,
        timestamp: REWRITTEN,
        realm: REALM,
        id: ours.id,
        version: 2,
    };
    let theirs = UserManifest::open(&rewritten[0], &key, &expected).unwrap();
    assert_eq!(theirs, UserManifest { timestamp: REWRITTEN, version: 2, ..ours });
}

#[test]
fn a_share_and_the_sealed_device_of_a_recovery_open_with_the_package_and_what_it_seals_opens_here() {
    let mut exchange = Exchange::new();
    let recipient = PrivateKey::from_bytes([3; 32]);
    let secret = ShamirRecoverySecret {
        data_key: SecretKey::from_bytes([0x1f; 32]),
        reveal_token: RevealToken::from_bytes([0x2f; 16]),
    };
    let weights = [(USER, 1), (OTHER, 2)].map(|(user, shares)| (user, NonZeroU8::new(shares).unwrap()));
    let plan = SharePlan::new(NonZeroU8::MIN.saturating_add(1), weights.into()).unwrap();
    let ours = ShamirRecoveryShareData {
        author: AUTHOR,
        timestamp: MADE,
        weighted_share: plan.share_out(&secret).unwrap().remove(&OTHER).unwrap(),
    };
    let sealed = ours.seal(&exchange.signing_key, &recipient.public_key()).unwrap();
    exchange.add("ShareData", &sealed, recipient.expose());
    let device = lost_device();
    exchange.add("Sealed", &device.seal(&secret.data_key), secret.data_key.expose());
    let verify_key = exchange.signing_key.verify_key();
    let Some(rewritten) = exchange.rewritten() else { return };
    let theirs = ShamirRecoveryShareData::open(&rewritten[0], &recipient, &verify_key, AUTHOR, MADE).unwrap();
    assert_eq!(theirs, ours);
    let opened = ShamirRecoverySecret::recover(theirs.weighted_share.shares(), 2).unwrap();
    assert!(opened == secret);
    let theirs = LocalDevice::open(&rewritten[1], &opened.data_key).unwrap();
    assert_eq!((theirs.device_id, theirs.signing_key.expose()), (device.device_id, device.signing_key.expose()));
}

fn lost_device() -> LocalDevice {
    LocalDevice {
        server_url: "https://example.com/".to_owned(),
        organization_id: OrganizationId::new("Org").expect("a lawful value"),
        root_verify_key: SigningKey::from_seed([1; 32]).verify_key(),
        user_id: USER,
        device_id: DeviceId::from_bytes([0xa9; 16]),
        device_label: DeviceLabel::new("recovery by shares").expect("a lawful value"),
        human_handle: HumanHandle::new(Email::new("zoe@example.com").expect("a lawful value"), "Zoé")
            .expect("a lawful value"),
        signing_key: SigningKey::from_seed([2; 32]),
        private_key: PrivateKey::from_bytes([3; 32]),
        initial_profile: UserProfile::Standard,
        user_realm_id: REALM,
        user_realm_key: SecretKey::from_bytes([4; 32]),
        local_symkey: SecretKey::from_bytes([5; 32]),
        organization_key: None,
    }
}

#[test]
fn blocks_and_accesses_and_recovery_passphrases_mean_the_same_to_both() {
    let mut exchange = Exchange::new();
    let block_key = SecretKey::from_bytes([9; 32]).derive(&[1; 16]);
    let private_key = PrivateKey::from_bytes([3; 32]);
    let recovery_key = SecretKey::from_bytes([0x1f; 32]);
    let text = passphrase::write(&recovery_key);
    let content: Vec<u8> = (0..=255).cycle().take(512 << 10).collect();
    exchange.add("Sealed", &block_key.seal(&content), block_key.expose());
    exchange.add("SealedForUser", &private_key.public_key().seal(b"access").unwrap(), private_key.expose());
    exchange.add("Passphrase", text.as_bytes(), &[0; 32]);
    let Some(rewritten) = exchange.rewritten() else { return };
    assert_eq!(block_key.open(&rewritten[0]).unwrap(), content);
    assert_eq!(private_key.open(&rewritten[1]).unwrap(), b"access");
    assert_eq!(recovery_key.open(&rewritten[2]).unwrap(), text.as_bytes());
}
