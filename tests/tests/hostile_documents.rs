//! Shows that no reader of documents panics, whatever bytes it is given: random ones, and whole documents with bytes
//! changed, cut out or put in. And that everything that can be written is read back as it was.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use parsecfs_core::{
    certificate::{
        ArchivingConfiguration, Certificate, DeviceCertificate, DevicePurpose, RealmArchivingCertificate,
        RealmNameCertificate, RealmRole, RealmRoleCertificate,
    },
    id::{BlockId, DeviceId, RealmId, UserId, VlobId},
    keys_bundle::{KeysBundle, KeysBundleAccess},
    manifest::{BlockAccess, Expected, Extension, FileManifest, FolderManifest, Kind, Manifest},
    name::{DeviceLabel, EntryName},
    time::Timestamp,
};
use parsecfs_crypto::{SecretKey, SigningKey};
use proptest::{collection, option, prelude::*, sample::Index};

/// Gives bytes to every reader, also behind a right version byte and compression.
fn read_everywhere(bytes: &[u8]) {
    let mut frame = vec![0];
    frame.extend(zstd::encode_all(bytes, 1).unwrap());
    let key = SigningKey::from_seed([7; 32]);
    for document in [bytes, &frame] {
        drop(Certificate::from_sequester_payload(document));
        drop(Certificate::read_without_trust(&key.sign(document)));
        drop(Manifest::verify(&key.sign(document), &expected(&key.verify_key(), VlobId::from_bytes([1; 16]))));
        let access = KeysBundleAccess { keys_bundle_key: SecretKey::from_bytes([7; 32]) };
        let sealed = access.keys_bundle_key.seal(&key.sign(document));
        assert!(KeysBundle::open(&sealed, &access, |_, _| None).is_err());
    }
    drop(Manifest::from_bytes(bytes));
}

fn expected(verify_key: &parsecfs_crypto::VerifyKey, id: VlobId) -> Expected<'_> {
    Expected {
        verify_key,
        author: DeviceId::from_bytes([1; 16]),
        timestamp: time(0),
        realm: RealmId::from_bytes([9; 16]),
        id,
        version: 1,
    }
}

fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// The msgpack bytes of whole documents.
fn documents() -> Vec<Vec<u8>> {
    let key = SigningKey::from_seed([7; 32]);
    let (author, timestamp) = (DeviceId::from_bytes([1; 16]), time(1));
    let realm_id = RealmId::from_bytes([2; 16]);
    let user_id = UserId::from_bytes([3; 16]);
    let signed = [
        RealmRoleCertificate { author, timestamp, realm_id, user_id, role: Some(RealmRole::Owner) }.sign(&key),
        RealmNameCertificate { author, timestamp, realm_id, key_index: 1, encrypted_name: vec![0; 40] }.sign(&key),
        RealmArchivingCertificate {
            author,
            timestamp,
            realm_id,
            configuration: ArchivingConfiguration::DeletionPlanned { deletion_date: time(2) },
        }
        .sign(&key),
        DeviceCertificate {
            purpose: DevicePurpose::Standard,
            author: Some(author),
            timestamp,
            user_id,
            device_id: author,
            device_label: Some(DeviceLabel::new("desk").unwrap()),
            verify_key: key.verify_key(),
            algorithm: Default::default(),
        }
        .sign(&key),
    ];
    let mut documents: Vec<_> = signed.iter().map(|signed| zstd::decode_all(&signed[65..]).unwrap()).collect();
    let extension = Extension {
        kind: Kind::CharDevice { rdev: 5 },
        mode: Some(0o644),
        mtime_ns: Some(-1),
        xattrs: [(b"user.a".to_vec(), b"b".to_vec())].into(),
        link_group: Some([4; 16]),
        ..Default::default()
    };
    documents.push(folder([("a".to_owned(), [5; 16])].into(), Some(extension.clone())).to_bytes());
    documents.push(file(2, &[(0, 8), (3, 4)], Some(extension)).to_bytes());
    documents
}

fn folder(children: BTreeMap<String, [u8; 16]>, extension: Option<Extension>) -> Manifest {
    let named = |(name, id): (String, _)| Some((EntryName::new(&name).ok()?, VlobId::from_bytes(id)));
    Manifest::Folder(FolderManifest {
        author: DeviceId::from_bytes([1; 16]),
        timestamp: time(0),
        id: VlobId::from_bytes([2; 16]),
        parent: VlobId::from_bytes([3; 16]),
        version: 1,
        created: time(-1),
        updated: time(1),
        children: children.into_iter().filter_map(named).collect(),
        extension,
        unknown: Default::default(),
    })
}

/// A file with blocks in these slots of these lengths.
fn file(version: u32, slots: &[(u64, u64)], extension: Option<Extension>) -> Manifest {
    let blocks = slots.iter().map(|(slot, size)| BlockAccess {
        id: BlockId::from_bytes([1; 16]),
        offset: slot * 8,
        size: *size,
        digest: [2; 32],
    });
    Manifest::File(FileManifest {
        author: DeviceId::from_bytes([1; 16]),
        timestamp: time(0),
        id: VlobId::from_bytes([2; 16]),
        parent: VlobId::from_bytes([3; 16]),
        version,
        created: time(-1),
        updated: time(1),
        size: 1 << 20,
        blocksize: 8,
        blocks: blocks.collect(),
        extension,
        unknown: Default::default(),
    })
}

fn extensions() -> impl Strategy<Value = Extension> {
    let kinds = prop_oneof![
        Just(Kind::Regular),
        Just(Kind::Symlink),
        Just(Kind::Fifo),
        Just(Kind::Socket),
        any::<u64>().prop_map(|rdev| Kind::CharDevice { rdev }),
        any::<u64>().prop_map(|rdev| Kind::BlockDevice { rdev }),
    ];
    let xattrs = collection::btree_map(any::<Vec<u8>>(), any::<Vec<u8>>(), 0..3);
    (kinds, option::of(0..=0o7777_u32), any::<Option<i64>>(), xattrs, any::<Option<[u8; 16]>>()).prop_map(
        |(kind, mode, mtime_ns, xattrs, link_group)| Extension {
            kind,
            mode,
            mtime_ns,
            xattrs,
            link_group,
            unknown: Default::default(),
        },
    )
}

proptest! {
    #[test]
    fn random_bytes_panic_no_reader(bytes in collection::vec(any::<u8>(), 0..300)) {
        read_everywhere(&bytes);
    }

    #[test]
    fn changed_documents_panic_no_reader(
        which in any::<Index>(),
        changes in collection::vec((any::<Index>(), any::<Option<u8>>(), any::<u8>()), 1..4),
    ) {
        let documents = documents();
        let mut bytes = which.get(&documents).clone();
        for (place, change, how) in changes {
            let place = place.index(bytes.len().max(1)).min(bytes.len());
            match change {
                Some(byte) if how < 160 && place < bytes.len() => bytes[place] = byte,
                Some(byte) => bytes.insert(place, byte),
                None if how < 128 => bytes.truncate(place),
                None => { bytes.drain(place..(place + usize::from(how % 16)).min(bytes.len())); }
            }
        }
        read_everywhere(&bytes);
    }

    #[test]
    fn manifests_are_read_as_they_were_written(
        children in collection::btree_map("\\PC{0,40}", any::<[u8; 16]>(), 0..20),
        slots in collection::btree_map(0..1000_u64, 1..=8_u64, 0..20),
        extension in option::of(extensions()),
    ) {
        let author = SigningKey::from_seed([7; 32]);
        let verify_key = author.verify_key();
        let realm_key = SecretKey::from_bytes([8; 32]);
        let slots: Vec<_> = slots.into_iter().collect();
        for manifest in [folder(children, extension.clone()), file(1, &slots, extension)] {
            prop_assert_eq!(&Manifest::from_bytes(&manifest.to_bytes()).unwrap(), &manifest);
            let sealed = manifest.seal(&author, &realm_key);
            let opened = Manifest::open(&sealed, &realm_key, &expected(&verify_key, manifest.id())).unwrap();
            prop_assert_eq!(opened, manifest);
        }
    }
}
