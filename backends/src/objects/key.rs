//! Names of objects (docs/format.md, "Object layout"): lower-case hexadecimal of fixed width, no key a prefix of another.

use parsecfs_core::{
    id::{BlockId, RealmId},
    storage::LogId,
    verify::Part,
};

/// Random name of a pack.
pub(super) type PackName = [u8; 16];

/// Entries in one folder of a log.
const FOLDER_ENTRIES: u64 = 4096;

/// What the whole organization is.
pub(super) const FORMAT: &str = "format";

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn sharded(realm: RealmId, kind: &str, name: &[u8]) -> String {
    let name = hex(name);
    format!("r/{realm}/{kind}/{}/{name}", &name[..2])
}

/// Prefix of everything that belongs to a log.
fn home(log: LogId) -> String {
    match log {
        LogId::Organization => "org".to_owned(),
        LogId::Realm(realm) => format!("r/{realm}"),
    }
}

/// Short name of a log for hints and boundaries.
fn tag(log: LogId) -> String {
    match log {
        LogId::Organization => "org".to_owned(),
        LogId::Realm(realm) => format!("r-{realm}"),
    }
}

pub(super) fn entry(log: LogId, seq: u64) -> String {
    format!("{}/log/{:08x}/{:03x}", home(log), seq / FOLDER_ENTRIES, seq % FOLDER_ENTRIES)
}

/// Folder of an entry.
pub(super) fn entry_folder(log: LogId, seq: u64) -> String {
    format!("{}/log/{:08x}/", home(log), seq / FOLDER_ENTRIES)
}

/// Whether a name in a log is that of an entry that was pushed aside: it begins as one and goes on. Other files of other
/// programs are none of our business.
pub(super) fn is_conflict_copy(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key).as_bytes();
    name.len() > 3 && name[..3].iter().all(u8::is_ascii_hexdigit)
}

pub(super) fn log_folder(log: LogId) -> String {
    format!("{}/log/", home(log))
}

/// The number of an entry from its key.
pub(super) fn entry_seq(log: LogId, key: &str) -> Option<u64> {
    let (high, low) = key.strip_prefix(&log_folder(log))?.split_once('/')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    number(high)?.checked_mul(FOLDER_ENTRIES)?.checked_add(number(low)?)
}

pub(super) fn checkpoint(realm: RealmId, seq: u64, tag: &[u8; 8]) -> String {
    format!("r/{realm}/ck/{seq:011x}-{}", hex(tag))
}

pub(super) fn shard(realm: RealmId, hash: &[u8; 32]) -> String {
    sharded(realm, "cks", hash)
}

pub(super) fn block(realm: RealmId, id: BlockId) -> String {
    sharded(realm, "b", id.as_bytes())
}

pub(super) fn block_folder(realm: RealmId) -> String {
    format!("r/{realm}/b/")
}

pub(super) fn pack(realm: RealmId, name: &PackName) -> String {
    sharded(realm, "p", name)
}

pub(super) fn pack_folder(realm: RealmId) -> String {
    format!("r/{realm}/p/")
}

/// Pack of manifests that were too large for their entry.
pub(super) fn manifests(realm: RealmId, name: &PackName) -> String {
    sharded(realm, "v", name)
}

pub(super) fn manifests_folder(realm: RealmId) -> String {
    format!("r/{realm}/v/")
}

/// The 16 bytes that a block, pack or manifest pack is named for.
pub(super) fn last_name(key: &str) -> Option<[u8; 16]> {
    data_encoding::HEXLOWER.decode(key.rsplit('/').next()?.as_bytes()).ok()?.try_into().ok()
}

pub(super) fn hint(log: LogId) -> String {
    format!("hint/{}", tag(log))
}

/// Folder of hints and bells, relative to the root.
pub(super) const HINTS: &str = "hint";

/// Rung by a device after each of its commits.
pub(super) fn bell(log: LogId, device: &[u8; 16]) -> String {
    format!("{HINTS}/bell-{}-{}", tag(log), hex(device))
}

/// Which log a bell belongs to and who rang it.
pub(super) fn bell_of(name: &str) -> Option<(LogId, [u8; 16])> {
    let (log, device) = name.strip_prefix("bell-")?.rsplit_once('-')?;
    let device = data_encoding::HEXLOWER.decode(device.as_bytes()).ok()?.try_into().ok()?;
    let log = match log.strip_prefix("r-") {
        Some(realm) => LogId::Realm(RealmId::parse(realm)?),
        None if log == "org" => LogId::Organization,
        None => return None,
    };
    Some((log, device))
}

pub(super) fn boundary(log: LogId) -> String {
    format!("boundary/{}", tag(log))
}

/// Sealed device of a recovery by shares.
pub(super) fn recovery(name: &[u8; 32]) -> String {
    format!("rec/{}", hex(name))
}

/// Folder of all invitations.
pub(super) const INVITATIONS: &str = "inv/";

pub(super) fn invitation(name: &[u8; 16], what: &str) -> String {
    format!("{INVITATIONS}{}/{what}", hex(name))
}

/// The part of a key that all objects of one invitation share.
pub(super) fn invitation_folder(key: &str) -> Option<&str> {
    let (name, _) = key.strip_prefix(INVITATIONS)?.split_once('/')?;
    key.get(..INVITATIONS.len() + name.len())
}

/// The name of the invitation that an object is the `what` of.
pub(super) fn invitation_of(key: &str, what: &str) -> Option<[u8; 16]> {
    let name = key.strip_prefix(INVITATIONS)?.strip_suffix(what)?.strip_suffix('/')?;
    data_encoding::HEXLOWER.decode(name.as_bytes()).ok()?.try_into().ok()
}

/// What an object is for, and whose it is.
pub(super) fn part(key: &str) -> (Option<RealmId>, Part) {
    if key.starts_with("org/") {
        return (None, Part::OrganizationLog);
    }
    if key.starts_with(HINTS) {
        return (key.rsplit_once("r-").and_then(|(_, realm)| RealmId::parse(realm)), Part::Checkpoint);
    }
    let mut steps = key.split('/').skip(1);
    let realm = steps.next().and_then(RealmId::parse);
    let part = match steps.next() {
        Some("log") => Part::RealmLog,
        Some("ck" | "cks") => Part::Checkpoint,
        Some("v") => Part::Manifests,
        Some("b" | "p") => Part::Blocks,
        _ => Part::Foreign,
    };
    (realm, part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_sort_as_their_numbers() {
        let log = LogId::Realm(RealmId::from_bytes([7; 16]));
        let keys: Vec<_> = [0, 1, 4095, 4096, 1 << 20, 1 << 43].map(|seq| (seq, entry(log, seq))).into();
        assert!(keys.is_sorted_by(|(_, a), (_, b)| a < b));
        for (seq, key) in keys {
            assert_eq!(entry_seq(log, &key), Some(seq));
        }
    }

    #[test]
    fn a_bell_names_its_log_and_its_device() {
        let log = LogId::Realm(RealmId::from_bytes([7; 16]));
        for log in [log, LogId::Organization] {
            let key = bell(log, &[9; 16]);
            assert_eq!(bell_of(key.strip_prefix("hint/").expect("a hint")), Some((log, [9; 16])));
        }
        assert_eq!(bell_of("org"), None);
    }
}
