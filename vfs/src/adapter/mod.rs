//! Adapters: decode what a kernel asks, call the volume, encode the answer, and nothing else.

mod errno;
pub(crate) mod fuse;
pub(crate) mod mount;
