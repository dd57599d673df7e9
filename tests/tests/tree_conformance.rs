//! The seam between the local tree and sync, on the fake tree of the tests of sync and on the real one: the same random
//! operations on both, and after each the same answers. So what sync learns on the fake holds for a mount.
//!
//! The fake may be stricter, never laxer: it knows a removed entry for longer. Of a file either may call a slot dirty that
//! is as the storage has it, never the other way round. Updates are those that sync makes: of entries that a folder lists, and none that would drop what waits for upload.
//! `PARSECFS_SEEDS` and `PARSECFS_SEED` as for the other random tests.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod tree_pair;

use parsecfs_tests::local_model::seeds;
use tree_pair::Pair;

const STEPS: usize = 250;

#[test]
fn the_fake_tree_and_the_volume_say_the_same_to_sync() {
    for seed in seeds(6) {
        let mut pair = Pair::new(seed);
        for _ in 0..STEPS {
            pair.step();
        }
        pair.finish();
    }
}
