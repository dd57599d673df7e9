//! One whole organization, recorded from official programs: opened from the device file to the last block.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use parsecfs_core::{
    block::open_block,
    certificate::{RealmRole, UserProfile, open_realm_name},
    id::{BlockId, DeviceId, RealmId, UserId, VlobId},
    keys_bundle::{KeysBundle, KeysBundleAccess, RealmKeys},
    manifest::{Expected, FileManifest, Manifest},
    time::Timestamp,
    trust::Trust,
};
use parsecfs_crypto::{Argon2id, PrivateKey, VerifyKey, sha256};
use rmpv::Value as Packed;
use serde_json::{Map, Value, json};

use super::{hex, hex_array, text, trust::batch, unhex};

/// Runs `captured_org_snapshot`, which is one case as a whole.
pub fn run(snapshot: &Value) -> Result<()> {
    let device = LocalDevice::open(&snapshot["device_file_password"])?;
    let trust = Trust::new(device.root, device.user).apply(&batch(&snapshot["certificates"])?)?;
    let realm = RealmId::parse(text(snapshot, "workspace_id")?).context("workspace id")?;
    let world = World { snapshot, realm, keys: realm_keys(snapshot, &device, &trust, realm)?, trust };
    members(&world)?;
    name(&world)?;
    tree(&world)?;
    outsider(snapshot, &world)
}

struct World<'a> {
    snapshot: &'a Value,
    realm: RealmId,
    trust: Trust,
    keys: RealmKeys,
}

/// What the snapshot needs of a device.
struct LocalDevice {
    root: VerifyKey,
    user: UserId,
    private_key: PrivateKey,
}

impl LocalDevice {
    fn open(device_file: &Value) -> Result<Self> {
        let file = rmpv::decode::read_value(&mut &hex(device_file, "file")?[..])?;
        let algorithm = &file["algorithm"];
        let number = |field: &str| -> Result<u32> { Ok(algorithm[field].as_u64().context("parameter")?.try_into()?) };
        let argon = Argon2id {
            memlimit_kb: number("memlimit_kb")?,
            opslimit: number("opslimit")?,
            parallelism: number("parallelism")?,
            salt: algorithm["salt"].as_slice().context("salt")?.try_into()?,
        };
        let key = argon.derive(text(device_file, "password")?.as_bytes())?;
        let device = key.open(file["ciphertext"].as_slice().context("ciphertext")?)?;
        let device = rmpv::decode::read_value(&mut &device[..])?;
        let bytes = |field: &str| -> Result<[u8; 32]> { Ok(device[field].as_slice().context("key")?.try_into()?) };
        let Packed::Ext(2, user) = &device["user_id"] else { anyhow::bail!("user id") };
        Ok(Self {
            root: VerifyKey::from_bytes(bytes("root_verify_key")?),
            user: UserId::from_bytes(user.as_slice().try_into()?),
            private_key: PrivateKey::from_bytes(bytes("private_key")?),
        })
    }
}

/// Opens every bundle; returns the keys of the newest.
fn realm_keys(snapshot: &Value, device: &LocalDevice, trust: &Trust, realm: RealmId) -> Result<RealmKeys> {
    let mut newest = None;
    for item in snapshot["keys_bundles"].as_array().context("bundles")? {
        let access = KeysBundleAccess::open(&hex(item, "keys_bundle_access")?, &device.private_key)?;
        let key_of = |author, at| Some(&trust.device_at(author, at)?.verify_key);
        let bundle = KeysBundle::open(&hex(item, "keys_bundle")?, &access, key_of)?;
        let keys = RealmKeys::new(bundle, realm, trust.realm(realm).context("realm")?.rotations())?;
        ensure!(item["key_index"] == keys.newest_index() && keys.newest().is_some(), "bundle of another index");
        newest = Some(keys);
    }
    newest.context("no bundle")
}

fn members(world: &World<'_>) -> Result<()> {
    let expected = &world.snapshot["expected"];
    let realm = world.trust.realm(world.realm).context("realm")?;
    let roles = realm.members().map(|(user, role)| (user.to_string(), role_name(role).into()));
    ensure!(roles.collect::<Map<_, _>>() == *expected["roles"].as_object().context("roles")?, "other roles");
    let profiles = world.trust.users().map(|user| {
        let name = match user.profile() {
            UserProfile::Admin => "ADMIN",
            UserProfile::Standard => "STANDARD",
            UserProfile::Outsider => "OUTSIDER",
        };
        (user.certificate().user_id.to_string(), name.into())
    });
    ensure!(profiles.collect::<Map<_, _>>() == *expected["profiles"].as_object().context("profiles")?, "profiles");
    let revoked = world.trust.users().filter(|user| user.revoked().is_some());
    let revoked: Vec<_> = revoked.map(|user| user.certificate().user_id.to_string()).collect();
    ensure!(json!(revoked) == expected["revoked"], "others are revoked");
    Ok(())
}

fn role_name(role: RealmRole) -> &'static str {
    match role {
        RealmRole::Owner => "OWNER",
        RealmRole::Manager => "MANAGER",
        RealmRole::Contributor => "CONTRIBUTOR",
        RealmRole::Reader => "READER",
    }
}

fn name(world: &World<'_>) -> Result<()> {
    let certificate = world.trust.realm(world.realm).and_then(|realm| realm.name()).context("no name")?;
    let key = world.keys.key(certificate.key_index).context("no such key")?;
    let name = open_realm_name(&certificate.encrypted_name, key)?;
    ensure!(name.reveal() == text(&world.snapshot["expected"], "workspace_name")?, "another name");
    Ok(())
}

/// Opens every version of every vlob and compares the tree of the newest.
fn tree(world: &World<'_>) -> Result<()> {
    let mut newest = BTreeMap::new();
    for vlob in world.snapshot["vlobs"].as_array().context("vlobs")? {
        let manifest = open_vlob(world, vlob)?;
        let known = newest.entry(manifest.id()).or_insert_with(|| manifest.clone());
        if known.version() < manifest.version() {
            *known = manifest;
        }
    }
    let mut found = Map::new();
    list(world, &newest, world.realm.root(), "", &mut found)?;
    let expected = world.snapshot["expected"]["tree"].as_object().context("tree")?;
    ensure!(found == *expected, "another tree");
    Ok(())
}

fn open_vlob(world: &World<'_>, vlob: &Value) -> Result<Manifest> {
    let author = DeviceId::from_bytes(hex_array(vlob, "author")?);
    let timestamp = vlob["timestamp"].as_i64().and_then(Timestamp::from_micros).context("timestamp")?;
    let key = world.keys.key(vlob["key_index"].as_u64().context("key index")?).context("no such key")?;
    let expected = Expected {
        verify_key: world.trust.writer(author, world.realm, timestamp)?,
        author,
        timestamp,
        realm: world.realm,
        id: VlobId::from_bytes(hex_array(vlob, "vlob_id")?),
        version: vlob["version"].as_u64().context("version")?.try_into()?,
    };
    Ok(Manifest::open(&hex(vlob, "blob")?, key, &expected)?)
}

fn list(
    world: &World<'_>,
    newest: &BTreeMap<VlobId, Manifest>,
    id: VlobId,
    path: &str,
    found: &mut Map<String, Value>,
) -> Result<()> {
    let manifest = &newest[&id];
    let mut entry = json!({ "id": id.to_string(), "version": manifest.version() });
    match manifest {
        Manifest::Folder(folder) => {
            entry["type"] = "folder".into();
            for (name, child) in &folder.children {
                if newest.get(child).is_some_and(|child| child.parent() == id) {
                    list(world, newest, *child, &format!("{path}/{}", name.reveal()), found)?;
                }
            }
        }
        Manifest::File(file) => {
            entry["type"] = "file".into();
            entry["size"] = file.size.into();
            let digest = sha256(&content(world, file)?);
            entry["sha256"] = data_encoding::HEXLOWER.encode(digest.as_bytes()).into();
            entry["created"] = file.created.as_micros().into();
            entry["updated"] = file.updated.as_micros().into();
        }
    }
    found.insert(if path.is_empty() { "/" } else { path }.to_owned(), entry);
    Ok(())
}

fn content(world: &World<'_>, file: &FileManifest) -> Result<Vec<u8>> {
    let mut content = vec![0; usize::try_from(file.size)?];
    let stored = world.snapshot["blocks"].as_array().context("blocks")?;
    for access in &file.blocks {
        let named = |block: &&Value| unhex(&block["block_id"]).is_ok_and(|id| id == access.id.as_bytes());
        let block =
            stored.iter().find(named).with_context(|| format!("{:?} is missing", BlockId::clone(&access.id)))?;
        let key = world.keys.key(block["key_index"].as_u64().context("key index")?).context("no such key")?;
        let clear = open_block(&hex(block, "block")?, access, key)?;
        let offset = usize::try_from(access.offset)?;
        content[offset..offset + clear.len()].copy_from_slice(&clear);
    }
    Ok(content)
}

/// An outsider comes to the same conclusions without knowing who the others are.
fn outsider(snapshot: &Value, world: &World<'_>) -> Result<()> {
    let device = LocalDevice::open(&snapshot["outsider"]["device_file_password"])?;
    let trust = Trust::new(device.root, device.user).apply(&batch(&snapshot["outsider"]["certificates"])?)?;
    ensure!(trust.users().all(|user| user.certificate().human_handle.is_none()), "a user is not redacted");
    ensure!(trust.devices().all(|device| device.device_label.is_none()), "a device is not redacted");
    let realm = trust.realm(world.realm).context("realm")?;
    let same = world.trust.realm(world.realm).context("realm")?.members().eq(realm.members());
    ensure!(same, "other members");
    Ok(())
}
