//! Workspaces as filesystems: operations, local store, sync, and the adapters of each kernel.
//!
//! | module | holds |
//! |---|---|
//! | [`fs`] | the tree of one workspace on this device, in filesystem words |
//! | [`store`] | the sealed local store below it: journal, content, index |
//! | [`organization`] | one device's view of an organization |
//! | [`invitation`] | both sides of letting somebody in |
//! | [`sync`] | the tree and the storage brought together |
//! | [`tree`] | the seam between the tree and sync |
//! | [`notify`] | the one voice that tells the kernel to forget |
//! | [`organization`] | who belongs, who may do what, keys, devices |
//! | [`error`], [`clock`] | what goes wrong; what time it is |

mod adapter;
mod blocksize;
pub mod clock;
mod content;
pub mod error;
mod folder;
pub mod fs;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod inode;
pub mod invitation;
mod links;
mod namespace;
pub mod notify;
pub mod organization;
mod quietly;
pub mod store;
pub mod sync;
pub mod tree;
mod workspace;

pub use adapter::{
    mount::{Mount, MountOptions},
    session::Agreed,
};
pub use inode::Kind;
pub use namespace::MemoryLimits;
pub use workspace::{LastChange, Workspace, WorkspaceOptions, WorkspaceStatus};
