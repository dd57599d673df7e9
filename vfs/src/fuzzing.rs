//! What fuzzers are let at and nobody else: readers of bytes that have no public face.
//!
//! Each takes any bytes and says nothing. A fuzzer looks for panics and for memory without a bound.

pub use crate::{
    adapter::loopback::{Loopback, decode_request},
    organization::fuzzing::read_record,
    store::fuzzing::{Session, read_journal_frame},
};
use crate::{
    content::Slot,
    folder::Dentry,
    inode::{Meta, decode},
};

/// Reads the bytes as each kind of row of the local store.
pub fn read_rows(bytes: &[u8]) {
    drop(Meta::decode(bytes));
    drop(decode::<Slot>(bytes));
    drop(Dentry::decode(bytes));
}
