//! Whole inputs for the fuzzers to begin with: the test vectors, and what this program writes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use parsecfs_backends::{
    conformance::{TestLogKeys, World},
    objects::{self, Options},
};
use parsecfs_core::{
    id::{BlockId, RealmId, VlobId},
    storage::{Block, BlockStore, CertificateStore, Invitations, Invitee, LogId, LogKeys, Result, VlobStore},
};
use parsecfs_crypto::{PrivateKey, SecretKey};
use serde_json::Value;
use tempfile::TempDir;

use super::kernel::request;
use crate::processes::now;

/// The largest seed: longer ones only make a fuzzer slow.
const BYTES_MAX: usize = 8192;

/// The cases of every file of test vectors whose name begins so.
fn cases(start: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vectors/formats");
    let files = fs::read_dir(folder).expect("the vectors are in the project").flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))).collect();
    files.sort();
    let read = |path: &PathBuf| serde_json::from_slice::<Value>(&fs::read(path).expect("a file")).expect("JSON");
    files.iter().flat_map(|path| read(path)["cases"].as_array().cloned().unwrap_or_default()).collect()
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    data_encoding::HEXLOWER.decode(value.as_str()?.as_bytes()).ok()
}

/// The value in a frame, with or without a signature before it.
fn unframed(bytes: &[u8]) -> Option<Vec<u8>> {
    [0, 64].into_iter().find_map(|at| {
        let (0, frame) = bytes.get(at..)?.split_first()? else { return None };
        zstd::decode_all(frame).ok()
    })
}

fn secret(case: &Value, field: &str) -> Option<SecretKey> {
    Some(SecretKey::from_bytes(bytes(&case[field])?.try_into().ok()?))
}

/// Values of every kind of document in the vectors.
pub(super) fn documents() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for case in cases("") {
        found.extend(bytes(&case["signed"]));
        found.extend(bytes(&case["raw"]));
        found.extend(bytes(&case["local_device"]));
        for (key, field) in [("key", "encrypted"), ("shared_key", "payload"), ("keys_bundle_key", "keys_bundle")] {
            found.extend(secret(&case, key).zip(bytes(&case[field])).and_then(|(key, sealed)| key.open(&sealed).ok()));
        }
        let recipient = bytes(&case["recipient_private_key"]).and_then(|key| key.try_into().ok());
        let recipient: Option<PrivateKey> = recipient.map(PrivateKey::from_bytes);
        for field in ["keys_bundle_access", "ciphered_share"] {
            let sealed = bytes(&case[field]);
            found.extend(recipient.as_ref().zip(sealed).and_then(|(key, sealed)| key.open(&sealed).ok()));
        }
    }
    let mut values: Vec<_> = found.iter().map(|bytes| unframed(bytes).unwrap_or_else(|| bytes.clone())).collect();
    values.retain(|value| value.len() <= BYTES_MAX);
    values.sort();
    values.dedup();
    values
}

/// Manifests of the vectors, each behind its length.
pub(super) fn manifests() -> Vec<Vec<u8>> {
    let is_one = |bytes: &Vec<u8>| parsecfs_core::manifest::Manifest::from_bytes(bytes).is_ok();
    let ones = documents().into_iter().filter(is_one);
    let prefixed = |bytes: Vec<u8>| [&u16::try_from(bytes.len()).ok()?.to_le_bytes()[..], &bytes].concat().into();
    let mut each: Vec<Vec<u8>> = ones.filter_map(prefixed).collect();
    each.push(each.iter().rev().take(6).flatten().copied().collect());
    each
}

/// Device files of the vectors.
pub(super) fn device_files() -> Vec<Vec<u8>> {
    let mut files: Vec<_> = cases("device_file").iter().filter_map(|case| bytes(&case["file"])).collect();
    files.retain(|file| file.len() <= BYTES_MAX);
    files
}

const LINK: &str = "file:///srv/a%20b?a=claim_device&p=xBAAESIzRFVmd4iZqrvM3e7_";

/// Addresses and names of the vectors, and names of objects.
pub(super) fn texts() -> Vec<Vec<u8>> {
    let cases = cases("urls").into_iter().chain(cases("scalars"));
    let fields = ["url", "http_url", "http_redirection", "input", "email", "label"];
    let mut texts: Vec<Vec<u8>> = cases
        .flat_map(|case| fields.map(|field| case[field].as_str().map(|text| text.as_bytes().to_vec())))
        .flatten()
        .collect();
    for name in ["bell-org-00000000000000000000000000000001", "org/log/00000000/001", "file:///srv/store", LINK] {
        texts.push(name.as_bytes().to_vec());
    }
    texts
}

/// Lines between command and agent.
pub(super) fn agent() -> Vec<Vec<u8>> {
    [
        r#"{"op":"mounts"}"#,
        r#"{"op":"unmount","workspace":"w","force":true}"#,
        r#"{"op":"wait_synced","workspace":"w"}"#,
        r#"{"op":"device","device":"00","password":"p","call":{"create_workspace":{"name":"n"}}}"#,
        r#"{"op":"device","device":"00","password":null,"call":{"mount":{"workspace":"w","dir":"/m","options":{"read_only":true,"allow_other":false,"cache_bytes":5}}}}"#,
        r#"{"op":"device","device":"00","password":null,"call":{"check":{"deep":true}}}"#,
        r#"{"op":"create_organization","organization":"o","backend":"b","email":"e","name":"n","device":{"label":"l","protection":"keyfile"}}"#,
        r#"{"version":"1","pid":5}"#,
        r#"{"done":[1,null,{"a":"b"}]}"#,
        r#"{"failed":{"kind":"failed","message":"m","hint":null}}"#,
        "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - fuse parsecfs rw,errors=continue\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Keys that note what they seal.
struct Noting {
    keys: TestLogKeys,
    sealed: Mutex<Vec<Vec<u8>>>,
}

impl LogKeys for Noting {
    fn seal(&self, log: LogId, key_index: u64, associated: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).push(plain.to_vec());
        self.keys.seal(log, key_index, associated, plain)
    }

    fn open(&self, log: LogId, key_index: u64, associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        self.keys.open(log, key_index, associated, sealed)
    }
}

/// Objects of a small organization, and what is sealed in them.
pub(super) fn storage_objects() -> Vec<Vec<u8>> {
    let world = TempDir::new().expect("a temporary directory");
    let founder = World::founder();
    let keys = Arc::new(Noting { keys: TestLogKeys::of(&founder), sealed: Mutex::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(write_organization(world.path(), &founder, keys.clone()));
    let mut found = std::mem::take(&mut *keys.sealed.lock().unwrap_or_else(PoisonError::into_inner));
    let mut waiting = vec![world.path().join("store")];
    while let Some(folder) = waiting.pop() {
        for path in fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()) {
            if path.is_dir() { waiting.push(path) } else { found.push(fs::read(path).expect("an object")) }
        }
    }
    found.retain(|bytes| bytes.len() <= BYTES_MAX);
    found
}

async fn write_organization(place: &Path, founder: &parsecfs_backends::conformance::Identity, keys: Arc<Noting>) {
    let (realm, world) = (RealmId::from_bytes([7; 16]), World::at(now()));
    let options = Options {
        state_dir: place.join("state"),
        signer: Arc::new(founder.copy()),
        keys,
        organization: "acme".to_owned(),
        root: *founder.root.verify_key().as_bytes(),
        clock: Arc::new(now),
    };
    let store = place.join("store");
    let storage = objects::create(store.to_str().expect("UTF-8"), options).await.expect("an organization");
    storage.append(world.bootstrap(founder)).await.expect("bootstrap");
    storage.append(world.create_realm(founder, realm)).await.expect("a realm");
    storage.append(world.rotate(founder, realm, 0)).await.expect("a key");
    let holder = World::person(founder);
    storage.append(world.create_user(founder, &holder)).await.expect("another user");
    let (setup, brief) = world.set_up_recovery(founder, &holder);
    storage.append(setup).await.expect("a recovery");
    storage.append(world.delete_recovery(founder, &brief)).await.expect("its end");
    for number in 1..4 {
        let block = BlockId::from_bytes([number; 16]);
        let bytes = vec![number; 100].into();
        storage.put(realm, vec![(block, Block { key_index: 1, bytes })]).await.expect("a block");
        let write = world.write(VlobId::from_bytes([number; 16]), 1, &[number; 100], vec![block]);
        storage.commit(realm, vec![write]).await.expect("a vlob");
    }
    storage.write_checkpoint(realm).await.expect("a checkpoint");
    storage.invite(&Invitee::Device, false).await.expect("an invitation");
}

/// Rows as the local store writes them: a few of each kind, by hand, since postcard is short.
pub(super) fn rows() -> Vec<Vec<u8>> {
    vec![
        // A slot of one stored extent.
        vec![1, 0, 64, 1, 1, 1, 2, 128, 1, 0, 128, 32, 128, 32, 5],
        // A name.
        [&[4][..], b"name", &[9; 16], &[3]].concat(),
        // A journal frame with a removed name and a slot.
        [&[0, 5, 6, 7, 2, 3, 1, 2, 0, 4, 2, 0, 1, 0, 1, 2][..], &[0, 0]].concat(),
        // A record: key index, length of the access, access, bundle.
        [&7u64.to_le_bytes()[..], &4u32.to_le_bytes(), b"accsbundle"].concat(),
    ]
}

/// Steps that write segments.
pub(super) fn segments() -> Vec<Vec<u8>> {
    let step = |what: u8, body: &[u8]| [&[what, u8::try_from(body.len()).expect("short")], body].concat();
    let claims = |length: u32, segment: u32, offset: u64, rows: u64| {
        [&length.to_le_bytes()[..], &segment.to_le_bytes(), &offset.to_le_bytes(), &rows.to_le_bytes()].concat()
    };
    let good = [step(1, b"rows"), step(1, b"rows")].concat();
    vec![
        good.clone(),
        [good.clone(), step(0, b""), good.clone()].concat(),
        [good.clone(), step(5, b"garbage"), good.clone()].concat(),
        [good.clone(), step(4, &[0; 20])].concat(),
        [good.clone(), step(2, &claims(0, 1, 500, 3)), good.clone()].concat(),
        [step(2, &claims(1000, 1, 500, 3)), good.clone()].concat(),
        [step(2, &claims(u32::MAX - 10, 1, u64::MAX, u64::MAX)), good.clone()].concat(),
        [step(3, &claims(4128, 1, 5, 0)), step(4, &[0; 255]), good].concat(),
    ]
}

/// Opcode, inode and body of the requests that programs cause.
fn asked() -> Vec<(u8, u8, Vec<u8>)> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    let wide = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<u8>>();
    let and = |head: Vec<u8>, tail: &[u8]| [head, tail.to_vec()].concat();
    let write = |offset: u64, data: &[u8]| {
        let length = u32::try_from(data.len()).expect("short");
        [wide(&[0, offset]), words(&[length, 0]), wide(&[0]), words(&[0, 0]), data.to_vec()].concat()
    };
    let read = |offset: u64, size: u32| [wide(&[0, offset]), words(&[size, 0]), wide(&[0]), words(&[0, 0])].concat();
    let set = |valid: u32, size: u64, mode: u32| {
        [words(&[valid, 0]), wide(&[0, size, 0, 5, 6, 7]), words(&[1, 2, 3, mode, 0, 8, 9, 0])].concat()
    };
    vec![
        (26, 1, words(&[7, 38, 1 << 20, u32::MAX])),
        (8, 1, and(words(&[0o100_644, 0, 0, 0]), b"file\0")),
        (9, 1, and(words(&[0o755, 0]), b"folder\0")),
        (6, 1, b"link\0to somewhere\0".to_vec()),
        (8, 1, and(words(&[0o010_644, 0, 0, 0]), b"pipe\0")),
        (1, 1, b"file\0".to_vec()),
        (1, 1, b"nothing\0".to_vec()),
        (1, 1, b"e\xcc\x81\xff\0".to_vec()),
        (16, 2, write(0, b"some content")),
        (16, 2, write(5000, &[7; 300])),
        (16, 2, write(1 << 40, b"far")),
        (15, 2, read(0, 8192)),
        (15, 2, read(1 << 62, u32::MAX)),
        (5, 4, Vec::new()),
        (3, 2, wide(&[0, 0])),
        (4, 2, set(1 << 3, 6000, 0)),
        (4, 2, set(1 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5, 0, 0o600)),
        (43, 2, [wide(&[0, 100, 70_000]), words(&[3, 0])].concat()),
        (43, 2, [wide(&[0, 0, 1 << 30]), words(&[0, 0])].concat()),
        (46, 2, [wide(&[0, 0]), words(&[3, 0])].concat()),
        (46, 2, [wide(&[0, 0]), words(&[4, 0])].concat()),
        (21, 2, and(words(&[5, 0]), b"user.name\0value")),
        (22, 2, and(words(&[100, 0]), b"user.name\0")),
        (23, 2, words(&[100, 0])),
        (24, 2, b"user.name\0".to_vec()),
        (44, 1, read(0, 4096)),
        (28, 1, read(3, 300)),
        (12, 1, and(wide(&[3]), b"file\0moved\0")),
        (45, 3, [wide(&[1]), words(&[1, 0]), b"moved\0back\0".to_vec()].concat()),
        (45, 1, [wide(&[1]), words(&[2, 0]), b"back\0folder\0".to_vec()].concat()),
        (13, 1, and(wide(&[2]), b"hard\0")),
        (34, 2, words(&[1, 0])),
        (17, 1, Vec::new()),
        (20, 2, wide(&[0, 0])),
        (10, 1, b"folder\0".to_vec()),
        (16, 2, write(0, b"after it is gone")),
        (11, 1, b"back\0".to_vec()),
        (2, 2, wide(&[1])),
        (42, 1, [words(&[2, 0]), wide(&[2, 1, 3, 1])].concat()),
        (47, 2, [wide(&[0, 0, 2, 0, 5000]), wide(&[100, 0])].concat()),
        (36, 1, wide(&[7])),
        (38, 1, Vec::new()),
    ]
}

/// Each request by itself.
pub(super) fn requests() -> Vec<Vec<u8>> {
    asked().into_iter().map(|(opcode, ino, body)| request(opcode.into(), ino.into(), &body)).collect()
}

/// All of them in a row, some again without what went before, and in the other order.
pub(super) fn sequences() -> Vec<Vec<u8>> {
    let step = |(opcode, ino, body): &(u8, u8, Vec<u8>)| {
        let length = u16::try_from(body.len()).expect("short").to_le_bytes();
        [&[*opcode, *ino, length[0], length[1]], body.as_slice()].concat()
    };
    let steps: Vec<_> = asked().iter().map(step).collect();
    let backwards: Vec<_> = steps[..4].iter().chain(steps[4..].iter().rev()).cloned().collect();
    vec![steps.concat(), backwards.concat(), steps[1..12].concat(), steps[1..30].concat()]
}
