//! Where the sealed bytes of an organization are kept.
//!
//! Every backend implements `parsecfs_core::storage::Storage`. It handles sealed bytes and ids; no path, no plaintext
//! and no key of a document ever reaches it.
//!
//! | module | holds |
//! |---|---|
//! | [`conformance`] | the suite that every backend and every layer passes |
//! | [`layer`] | wraps a storage in a storage: record, fault, lazy |
//! | [`memory`] | the strict server in memory that tests use |
//! | [`objects`] | an organization without a server, in any object store with create-if-absent: a directory |
//! | [`parsec`] | an organization on a Parsec v3 server |

pub mod conformance;
pub mod layer;
pub mod memory;
pub mod objects;
pub mod parsec;
mod recovery;
mod statement;
