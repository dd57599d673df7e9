//! What is true in parsecfs: identifiers, names, documents, trust, merging, and the storage contract.
//!
//! Pure: no clock, no randomness, no I/O, no runtime. Everything a storage plugin needs to know is here.
//!
//! | module | holds |
//! |---|---|
//! | [`id`], [`time`] | identifiers and timestamps as types |
//! | [`name`] | names, labels and addresses, proved valid once |
//! | [`document`], [`error`] | the form that all documents share, and the step at which one is refused |
//! | [`manifest`], [`block`] | files and folders as signed, and the pieces of files |
//! | [`certificate`], [`trust`] | signed statements, and who may do what, as of when |
//! | [`keys_bundle`], [`statement`] | the keys of a realm; statements put together for the storage |
//! | [`merge`] | what an entry becomes when it changed on two sides |
//! | [`local_device`], [`device_file`] | a device with its secrets, and the file it lies in |
//! | [`invite`], [`shamir`] | the exchange of an invitation; what it, and recovery by shares, hand over |
//! | [`url`] | addresses of servers and organizations, invitations |
//! | [`storage`], [`verify`] | the contract that every backend keeps; what reading all of one found |

pub mod block;
pub mod certificate;
pub mod device_file;
pub mod document;
pub mod error;
pub mod id;
pub mod invite;
pub mod keys_bundle;
pub mod local_device;
pub mod manifest;
pub mod merge;
pub mod name;
pub mod shamir;
pub mod statement;
pub mod storage;
pub mod time;
pub mod trust;
pub mod url;
pub mod verify;
