//! What fuzzers are let at and nobody else: readers of the objects of an organization without a server.
//!
//! Each takes any bytes, as they stand in the object or, where those are sealed, as they are once opened.

use parsecfs_core::{id::RealmId, storage::LogId};

use super::{
    checkpoint,
    entry::{Body, RawEntry, digest_of},
    format::Format,
    key, pack,
};

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

/// Reads a block, a pack, and the object that says what lies here.
pub fn read_object(bytes: &[u8]) {
    drop(pack::read_block(bytes));
    drop(pack::read_pack(bytes));
    drop(Format::decode(bytes));
}

/// Reads a name of an object.
pub fn read_name(name: &str) {
    let log = LogId::Realm(RealmId::from_bytes([1; 16]));
    let _seq = key::entry_seq(log, name);
    let _name = key::last_name(name);
    let _bell = key::bell_of(name);
    let _part = key::part(name);
}
