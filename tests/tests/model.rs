//! Random operations on the local half, against a plain tree. `PARSECFS_SEEDS` sets how many runs, `PARSECFS_SEED` the
//! first, `PARSECFS_TRACE` prints each operation.

use parsecfs_tests::local_model::{End, Session, rows_of_nobody, seeds};
use rand::Rng;

const STEPS: usize = 600;

#[test]
fn a_volume_is_a_tree_of_files_through_restarts_and_housekeeping() {
    for seed in seeds(6) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut session = Session::new(dir.path(), seed);
        for _ in 0..STEPS {
            session.step();
            if session.rng.random_bool(0.01) {
                let end = if session.rng.random_bool(0.5) { End::Close } else { End::Kill };
                session.restart(end);
            }
        }
        session.check();
        session.restart(End::Close);
        session.check();
        session.restart(End::Close);
        assert_eq!(rows_of_nobody(dir.path()), (0, 0));
    }
}

#[test]
fn what_is_open_without_a_name_goes_on_through_processes_and_leaves_nothing() {
    for seed in seeds(6) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut session = Session::on_a_lasting_mount(dir.path(), seed);
        for _ in 0..STEPS {
            session.step();
            if session.rng.random_bool(0.03) {
                let end = if session.rng.random_bool(0.3) { End::Close } else { End::Kill };
                session.restart(end);
            }
        }
        session.check();
        session.unmount();
        session.check();
        session.restart(End::Close);
        assert_eq!(rows_of_nobody(dir.path()), (0, 0));
    }
}
