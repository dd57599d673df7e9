//! Workspaces as filesystems: operations, local store, sync, and the adapters of each kernel.

pub mod clock;
pub mod error;
pub mod tree;
