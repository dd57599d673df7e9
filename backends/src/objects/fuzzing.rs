//! What fuzzers and tests are let at and nobody else: readers of the objects of an organization without a server, and a
//! writer that keeps to no rule.
//!
//! Each reader takes any bytes, as they stand in the object or, where those are sealed, as they are once opened.

use parsecfs_core::{
    id::RealmId,
    storage::{LogId, Result, Statement},
};

use super::{
    ObjectStorage, checkpoint,
    entry::{Body, Change, RawEntry, digest_of},
    format::Format,
    invitation, key, pack,
};
use crate::statement::realm_of;

/// Reads an entry of a log, with the digest that belongs to it, and its body.
pub fn read_entry(bytes: &[u8]) {
    let log = LogId::Realm(RealmId::from_bytes([1; 16]));
    for object in [bytes.to_vec(), [bytes, &digest_of(bytes)].concat()] {
        for log in [log, LogId::Organization] {
            drop(RawEntry::parse(log, 0, object.clone().into()));
        }
    }
    drop(Body::decode(bytes));
}

/// Reads a checkpoint: the object, and each of the parts that are sealed in it.
pub fn read_checkpoint(bytes: &[u8]) {
    checkpoint::read_parts(bytes);
}

/// Reads a block, a pack, what an invitation leaves, and the object that says what lies here.
pub fn read_object(bytes: &[u8]) {
    drop(pack::read_block(&parsecfs_core::storage::Bytes::copy_from_slice(bytes)));
    drop(pack::read_pack(bytes));
    drop(Format::decode(bytes));
    invitation::read(bytes);
}

/// Reads a name of an object.
pub fn read_name(name: &str) {
    let log = LogId::Realm(RealmId::from_bytes([1; 16]));
    let _seq = key::entry_seq(log, name);
    let _name = key::last_name(name);
    let _bell = key::bell_of(name);
    let _part = key::part(name);
    let _invitation = key::invitation_of(name, "card");
}

/// Writes a statement into its log as a client does that keeps to no rule: signed, sealed and in its place, but whatever
/// it says.
pub async fn write_past_the_rules(storage: &ObjectStorage, statement: Statement) -> Result<()> {
    let shared = &storage.shared;
    let realm = realm_of(&statement);
    let change = Change::of(statement);
    let organization = shared.organization_now().await?;
    let entry = match realm {
        None => {
            let mut log = shared.organization.lock().await;
            let said = shared.said_in_organization(&mut log)?;
            shared.finish(LogId::Organization, log.state.head, &said, &change)?
        }
        Some(realm) => {
            let log = shared.realm(realm)?;
            let mut state = log.state.lock().await;
            shared.follow_realm(&log, &mut state).await?;
            let said = shared.said_in_realm(&mut state, &organization)?;
            shared.finish(LogId::Realm(realm), state.head(), &said, &change)?
        }
    };
    shared.create_entry(&entry).await.map(drop)
}
