//! Moves the inputs of a fuzz target between the project and a folder, for `tests/fuzz.sh`:
//! `fuzz_corpus unpack TARGET FOLDER` writes seeds and kept inputs there, `fuzz_corpus pack TARGET FOLDER` keeps what is there.

use std::{fs, path::Path};

use anyhow::{Result, bail};
use parsecfs_crypto::sha256;
use parsecfs_tests::fuzz::{Corpus, target};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, name, folder] = arguments.as_slice() else { bail!("fuzz_corpus (unpack|pack) TARGET FOLDER") };
    match command.as_str() {
        "unpack" => unpack(name, Path::new(folder)),
        "pack" => pack(name, Path::new(folder)),
        _ => bail!("fuzz_corpus (unpack|pack) TARGET FOLDER"),
    }
}

fn unpack(name: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for input in Corpus::of(name)?.0.into_iter().chain((target(name).seeds)()) {
        let file = data_encoding::HEXLOWER.encode(&sha256(&input).as_bytes()[..20]);
        fs::write(folder.join(file), input)?;
    }
    Ok(())
}

fn pack(name: &str, folder: &Path) -> Result<()> {
    let inputs = fs::read_dir(folder)?.map(|entry| fs::read(entry?.path()));
    Corpus(inputs.collect::<std::io::Result<_>>()?).keep(name)?;
    Ok(())
}
