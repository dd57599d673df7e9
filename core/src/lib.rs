//! What is true in parsecfs: identifiers, names, documents, trust, merging, and the storage contract.
//!
//! Pure: no clock, no randomness, no I/O, no runtime. Everything a storage plugin needs to know is here.
//!
//! | module | holds |
//! |---|---|
//! | [`id`], [`time`] | identifiers and timestamps as types |
//! | [`storage`] | the contract that every backend keeps |

pub mod id;
pub mod storage;
pub mod time;
