//! Adapters: decode what a kernel asks, call the volume, encode the answer, and nothing else.

mod device;
mod errno;
mod fuse;
#[cfg(feature = "fuzzing")]
pub(crate) mod loopback;
pub(crate) mod mount;
mod name;
mod reply;
mod request;
mod seek;
pub(crate) mod session;
mod turns;
mod wire;
