//! Every fuzz target takes its seeds and what a long run kept, on the stable compiler. A finding of the fuzzers becomes a
//! named test where it can be said what was wrong, and an input here in any case.

use std::{collections::BTreeSet, fs, path::Path};

use parsecfs_tests::fuzz::{Corpus, TARGETS, pack, unpack};

#[test]
fn every_target_takes_its_seeds() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{target:?} has seeds");
        seeds.iter().for_each(|input| (target.run)(input));
    }
}

#[test]
fn every_target_takes_what_a_long_run_kept() {
    for target in TARGETS {
        let Corpus(inputs) = Corpus::of(target.name).expect("the corpus can be read");
        inputs.iter().for_each(|input| (target.run)(input));
    }
}

#[test]
fn every_target_has_a_program_and_every_program_is_a_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/targets");
    let programs = fs::read_dir(folder).expect("the fuzz targets").flatten().map(|entry| entry.path());
    let programs: BTreeSet<String> = programs.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    assert_eq!(programs, TARGETS.iter().map(|target| target.name.to_owned()).collect());
}

#[test]
fn a_corpus_is_unpacked_as_it_was_packed() {
    let corpus = Corpus(vec![vec![], vec![1], vec![2; 5000]]);
    assert_eq!(unpack(&pack(&corpus).expect("pack")).expect("unpack"), corpus);
}
