//! A kernel that is not there: requests go in as bytes, answers come out as bytes.

use std::{
    fs::File,
    io::{self, Seek},
    os::unix::fs::FileExt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    device::Device,
    fuse::Fuse,
    request::{Operation, Request},
    session::answer_request,
};
use crate::{
    error::{Error, ErrorKind, Result},
    fs::Volume,
};

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Decodes a request; whether it is one.
pub fn decode_request(bytes: &[u8]) -> bool {
    Request::decode(bytes).is_ok()
}

/// The adapter over a file that takes its answers.
#[derive(Debug)]
pub struct Loopback {
    device: Arc<Device>,
    answers: File,
    fuse: Fuse,
}

impl Loopback {
    /// The adapter of a volume that nobody mounted.
    pub fn new(volume: &Arc<Volume>) -> Result<Self> {
        let device = || -> io::Result<(File, Device)> {
            let answers = File::from(rustix::fs::memfd_create("answers", rustix::fs::MemfdFlags::CLOEXEC)?);
            Ok((answers.try_clone()?, Device::over(answers)?))
        };
        let (answers, device) =
            device().map_err(|e| Error::new(ErrorKind::Internal, "make a file in memory").caused_by(e))?;
        Ok(Self { device: Arc::new(device), answers, fuse: Fuse::new(volume.clone())? })
    }

    /// Gives one request to the adapter, as it came from the kernel, and takes all that it answers; notifications are
    /// heard and forgotten. Waits for an answer from another thread; nothing when it takes too long.
    ///
    /// # Panics
    ///
    /// As the answer does: a defect is not caught here.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        answer_request(&self.device, &self.fuse, &Request::decode(request));
        let awaited = match Request::decode(request) {
            Ok(request) => !matches!(request.operation, Operation::Forget { .. } | Operation::BatchForget(_)),
            Err(malformed) => malformed.unique.is_some(),
        };
        let since = Instant::now();
        loop {
            let answers = without_notifications(&self.said()?);
            if answers.is_empty() && awaited && since.elapsed() < PATIENCE {
                std::thread::yield_now();
                continue;
            }
            self.answers.set_len(0)?;
            self.answers.rewind()?;
            return Ok(answers);
        }
    }

    fn said(&mut self) -> io::Result<Vec<u8>> {
        let length = self.answers.stream_position()?;
        let mut said = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.answers.read_exact_at(&mut said, 0)?;
        Ok(said)
    }
}

/// The messages that answer something. What is no message counts as an answer, for the caller to see.
fn without_notifications(mut said: &[u8]) -> Vec<u8> {
    let mut answers = Vec::new();
    while !said.is_empty() {
        let length = said.first_chunk().map_or(said.len(), |len| u32::from_ne_bytes(*len) as usize);
        let (message, rest) = said.split_at(length.clamp(1, said.len()));
        if message.get(8..16) != Some(&[0; 8]) {
            answers.extend_from_slice(message);
        }
        said = rest;
    }
    answers
}
