#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (parsecfs_tests::fuzz::target("remote").run)(bytes));
