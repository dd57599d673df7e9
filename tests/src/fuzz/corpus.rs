//! Inputs that a long run kept, one file for each target: so many small files would be a burden on everybody.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The inputs that are kept for a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corpus(pub Vec<Vec<u8>>);

/// Where the corpus of a target is.
fn path(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(format!("{target}.zst"))
}

impl Corpus {
    /// What is kept for a target; nothing while there is no file.
    pub fn of(target: &str) -> io::Result<Self> {
        match fs::read(path(target)) {
            Ok(packed) => unpack(&packed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Keeps this.
    pub fn keep(&self, target: &str) -> io::Result<()> {
        fs::write(path(target), pack(self)?)
    }
}

/// Length and bytes of each input, compressed.
pub fn pack(corpus: &Corpus) -> io::Result<Vec<u8>> {
    let mut inputs = corpus.0.clone();
    inputs.sort_by(|one, other| (one.len(), one).cmp(&(other.len(), other)));
    let mut bytes = Vec::new();
    for input in inputs {
        bytes.extend(u32::try_from(input.len()).map_err(io::Error::other)?.to_le_bytes());
        bytes.extend(input);
    }
    zstd::encode_all(bytes.as_slice(), 19)
}

/// The inputs again.
pub fn unpack(packed: &[u8]) -> io::Result<Corpus> {
    let bytes = zstd::decode_all(packed)?;
    let mut rest = bytes.as_slice();
    let mut inputs = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(io::Error::other)?;
        let (input, behind) = behind.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        inputs.push(input.to_vec());
        rest = behind;
    }
    Ok(Corpus(inputs))
}
