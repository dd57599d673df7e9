//! A device of an organization without a server, as tests of the storage need it.

use std::{path::PathBuf, sync::Arc};

use parsecfs_backends::{
    conformance::{Identity, TestLogKeys},
    objects::Options,
};
use parsecfs_core::time::Timestamp;

/// What this device brings along, with its notes in a folder and a clock of the test's.
pub fn options(
    identity: &Identity,
    state_dir: impl Into<PathBuf>,
    clock: impl Fn() -> Timestamp + Send + Sync + 'static,
) -> Options {
    Options {
        state_dir: state_dir.into(),
        signer: Arc::new(identity.copy()),
        keys: Arc::new(TestLogKeys::of(identity)),
        organization: "acme".to_owned(),
        root: *identity.root.verify_key().as_bytes(),
        clock: Arc::new(clock),
    }
}
