//! Where the sealed bytes of an organization are kept.
//!
//! ids; no path, no plaintext and no key of a document ever reaches it.
//!
//! | module | holds |
//! |---|---|
//! | [`memory`] | the strict server in memory that tests use |

pub mod memory;
mod peek;
