//! What is true in parsecfs: identifiers, names, documents, trust, merging, and the storage contract.
//!
//! Pure: no clock, no randomness, no I/O, no runtime. Everything a storage plugin needs to know is here.
//!
//! | module | holds |
//! |---|---|
//! | [`id`], [`time`] | identifiers and timestamps as types |
//! | [`name`] | names, labels and addresses, proved valid once |
//! | [`document`], [`error`] | the form that all documents share, and the step at which one is refused |
//! | [`manifest`] | files and folders as signed |
//! | [`merge`] | what an entry becomes when it changed on two sides |
//! | [`storage`] | the contract that every backend keeps |

pub mod document;
pub mod error;
pub mod id;
pub mod manifest;
pub mod merge;
pub mod name;
pub mod storage;
pub mod time;
