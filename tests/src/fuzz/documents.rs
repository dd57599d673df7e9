//! Documents, from the inside: a msgpack value that is framed, signed and sealed before it is read.

use parsecfs_core::{
    certificate::{Certificate, Expected as ExpectedCertificate},
    device_file::DeviceFile,
    id::{DeviceId, RealmId, VlobId},
    invite::{
        Exchange, InviteDeviceConfirmation, InviteDeviceData, InviteShamirRecoveryConfirmation,
        InviteShamirRecoveryData, InviteUserConfirmation, InviteUserData, NONCE_BYTES, Side, Step,
    },
    keys_bundle::{KeysBundle, KeysBundleAccess},
    local_device::LocalDevice,
    manifest::{Expected, Manifest, UserManifest},
    shamir::{ShamirRecoverySecret, ShamirRecoveryShareData},
    time::Timestamp,
};
use parsecfs_crypto::{PrivateKey, SecretKey, SigningKey};

/// Every reader of documents, with the bytes as they are and as the value in a frame.
pub(super) fn read(bytes: &[u8]) {
    let mut frame = vec![0];
    frame.extend(zstd::encode_all(bytes, 1).expect("memory"));
    read_frame(bytes);
    read_frame(&frame);
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        // By its bytes, for a number may be none, which equals nothing.
        let again = Manifest::from_bytes(&manifest.to_bytes()).expect("what was written is read");
        assert!(again.to_bytes() == manifest.to_bytes(), "written otherwise");
    }
    read_device(bytes);
    read_step(bytes);
}

/// A step of the other side of an invitation, given to each side at once and after what it waits for first.
fn read_step(bytes: &[u8]) {
    for side in [Side::Greeter, Side::Claimer] {
        let Ok(step) = Step::from_bytes(side, bytes) else { continue };
        assert!(Step::from_bytes(side, &step.to_bytes()).as_ref() == Ok(&step), "a step is written otherwise");
        let mut exchange = Exchange::new(side.other(), PrivateKey::from_bytes([7; 32]), [7; NONCE_BYTES]);
        exchange.receive(&step);
        exchange.receive(&step);
        assert!(exchange.shared_key().is_none(), "nobody said yes");
    }
}

fn read_frame(frame: &[u8]) {
    let author = SigningKey::from_seed([7; 32]);
    let (verify_key, key) = (author.verify_key(), SecretKey::from_bytes([7; 32]));
    let signed = author.sign(frame);
    drop(Certificate::from_sequester_payload(frame));
    drop(Certificate::open(&signed, &verify_key, &ExpectedCertificate::default()));
    if let Ok(certificate) = Certificate::read_without_trust(&signed) {
        let _facts = (certificate.author(), certificate.user(), certificate.realm(), certificate.timestamp());
        let _redacted = certificate.redacted();
    }
    let (realm, time) = (RealmId::from_bytes([9; 16]), Timestamp::from_micros(0).expect("the epoch"));
    for id in [[9; 16], [1; 16]] {
        let (author, id) = (DeviceId::from_bytes([1; 16]), VlobId::from_bytes(id));
        let expected = Expected { verify_key: &verify_key, author, timestamp: time, realm, id, version: 1 };
        drop(Manifest::verify(&signed, &expected));
        drop(UserManifest::open(&key.seal(&signed), &key, &expected));
    }
    let sealed = key.seal(frame);
    drop(InviteUserData::open(&sealed, &key));
    drop(InviteUserConfirmation::open(&sealed, &key));
    drop(InviteDeviceData::open(&sealed, &key));
    drop(InviteDeviceConfirmation::open(&sealed, &key));
    drop(InviteShamirRecoveryData::open(&sealed, &key));
    drop(InviteShamirRecoveryConfirmation::open(&sealed, &key));
    drop(LocalDevice::open(&sealed, &key));
    let bundle_key = KeysBundleAccess { keys_bundle_key: key };
    drop(KeysBundle::open(&bundle_key.keys_bundle_key.seal(&signed), &bundle_key, |_, _| Some(&verify_key)));
    read_sealed_boxes(frame, &signed, &verify_key);
    drop(ShamirRecoverySecret::recover(&[frame, &signed], 2));
}

fn read_sealed_boxes(frame: &[u8], signed: &[u8], verify_key: &parsecfs_crypto::VerifyKey) {
    let recipient = PrivateKey::from_bytes([7; 32]);
    let seal = |bytes: &[u8]| recipient.public_key().seal(bytes).expect("a usable key");
    drop(KeysBundleAccess::open(&seal(frame), &recipient));
    let (author, time) = (DeviceId::from_bytes([1; 16]), Timestamp::from_micros(0).expect("the epoch"));
    drop(ShamirRecoveryShareData::open(&seal(signed), &recipient, verify_key, author, time));
}

/// A device as it lies in its file, without a frame.
fn read_device(bytes: &[u8]) {
    let key = SecretKey::from_bytes([7; 32]);
    drop(LocalDevice::open(&key.seal(bytes), &key));
}

/// A device file, and what it holds. Its password is not derived, which may cost what the file says, within bounds.
pub(super) fn read_device_file(bytes: &[u8]) {
    if let Ok(file) = DeviceFile::from_bytes(bytes) {
        assert!(DeviceFile::from_bytes(&file.to_bytes()).as_ref() == Ok(&file), "written otherwise");
        drop(file.open(&SecretKey::from_bytes([7; 32])));
    }
    read_device(bytes);
}
