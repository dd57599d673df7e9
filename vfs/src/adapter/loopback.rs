//! A kernel that is not there: requests go in as bytes, answers come out as bytes.

use std::{
    fs::File,
    io::{self, Seek},
    os::unix::fs::FileExt,
    sync::Arc,
};

use super::{device::Device, fuse::Fuse, request::Request, session::answer_request};
use crate::{
    error::{Error, ErrorKind, Result},
    fs::Volume,
};

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

    /// Gives one request to the adapter, as it came from the kernel, and takes all that it answers.
    ///
    /// # Panics
    ///
    /// As the answer does: a defect is not caught here.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        answer_request(&self.device, &self.fuse, request);
        let length = self.answers.stream_position()?;
        let mut answers = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.answers.read_exact_at(&mut answers, 0)?;
        self.answers.set_len(0)?;
        self.answers.rewind()?;
        Ok(answers)
    }
}
