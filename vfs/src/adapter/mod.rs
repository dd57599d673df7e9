//! Adapters: decode what a kernel asks, call the volume, encode the answer, and nothing else.

mod device;
mod errno;
mod fuse;
#[cfg(feature = "fuzzing")]
pub(crate) mod loopback;
pub(crate) mod mount;
mod reply;
mod request;
mod session;
mod wire;
