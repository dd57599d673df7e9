//! What the fuzzers in `fuzz/` run, each a function of any bytes that may neither panic nor take memory without a bound.
//!
//! It is here, on the stable compiler, so that every test run gives each of them its seeds and the inputs that a long
//! run kept (`fuzz/corpus`): see `tests/fuzz_corpus.rs`. Sealed and signed documents are given from the inside: the
//! bytes are sealed with the right key first, since a fuzzer finds no signature.

mod corpus;
mod documents;
mod kernel;
mod local;
mod remote;
mod seeds;
mod text;

pub use self::corpus::{Corpus, pack, unpack};

/// One thing to fuzz.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also of its program and its corpus.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Whole inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "request", run: kernel::decode, seeds: seeds::requests },
    Target { name: "volume", run: kernel::ask_volume, seeds: seeds::sequences },
    Target { name: "remote", run: remote::update, seeds: seeds::manifests },
    Target { name: "document", run: documents::read, seeds: seeds::documents },
    Target { name: "device_file", run: documents::read_device_file, seeds: seeds::device_files },
    Target { name: "address", run: text::read, seeds: seeds::texts },
    Target { name: "agent", run: text::read_agent, seeds: seeds::agent },
    Target { name: "log", run: parsecfs_backends::objects::fuzzing::read_entry, seeds: seeds::storage_objects },
    Target {
        name: "checkpoint",
        run: parsecfs_backends::objects::fuzzing::read_checkpoint,
        seeds: seeds::storage_objects,
    },
    Target { name: "object", run: parsecfs_backends::objects::fuzzing::read_object, seeds: seeds::storage_objects },
    Target { name: "row", run: local::read_rows, seeds: seeds::rows },
    Target { name: "segment", run: local::replay, seeds: seeds::segments },
];

/// The target of this name.
///
/// # Panics
///
/// When there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}
