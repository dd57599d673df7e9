//! Where data and holes are.
//!
//! The kernel asks without handing over the changed pages that it holds, so what is a hole here may be data there. Before
//! a hole is named, the kernel is made to hand over what it has where the hole is, by an invalidation, which waits for
//! that. A thread of its own does it: the pages come as requests that the dispatch threads must answer.

use std::sync::{Arc, mpsc};

use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::{
    reply::Reply,
    wire::{NOTIFY_INVAL_INODE, NotifyInvalInode},
};
use crate::{
    error::{Error, ErrorKind, Result},
    fs::Volume,
};

/// Holes that turned out to be data in one search. After that the rest of the file counts as data, which is no lie: a hole
/// is data that is zero.
const HOLES_MAX: usize = 64;

/// What is looked for from an offset on.
#[derive(Debug)]
pub(super) struct Seek {
    pub(super) ino: u64,
    pub(super) offset: u64,
    pub(super) data: bool,
}

/// The thread that searches; it ends with this.
#[derive(Debug)]
pub(super) struct Seeker(mpsc::Sender<(Seek, Reply)>);

impl Seeker {
    pub(super) fn start(volume: Arc<Volume>) -> Result<Self> {
        let (sender, requests) = mpsc::channel::<(Seek, Reply)>();
        std::thread::Builder::new()
            .name("parsecfs-seek".into())
            .spawn(move || {
                for (seek, reply) in requests {
                    let found = seek.find(&volume, |from, to| hand_over(&reply, seek.ino, from, to));
                    answer(reply, found);
                }
            })
            .map_err(|e| Error::new(ErrorKind::Internal, "start the seek thread").caused_by(e))?;
        Ok(Self(sender))
    }

    /// Answers at once where the kernel's pages make no difference, otherwise from the thread.
    pub(super) fn search(&self, volume: &Volume, seek: Seek, reply: Reply) {
        match volume.seek(seek.ino, seek.offset, seek.data) {
            Ok(Some(at)) if seek.data && at == seek.offset => reply.body(&at),
            Err(error) => answer(reply, Err(error)),
            Ok(_) => {
                if let Err(mpsc::SendError((_, reply))) = self.0.send((seek, reply)) {
                    reply.error(Errno::IO);
                }
            }
        }
    }
}

impl Seek {
    fn find(&self, volume: &Volume, hand_over: impl Fn(u64, Option<u64>)) -> Result<Option<u64>> {
        for _ in 0..HOLES_MAX {
            let found = volume.seek(self.ino, self.offset, self.data)?;
            let (hole, end) = match self.data {
                true => (self.offset, found),
                false => {
                    let hole = found.unwrap_or(self.offset);
                    (hole, volume.seek(self.ino, hole, true)?)
                }
            };
            if end != Some(hole) {
                hand_over(hole, end);
            }
            let again = volume.seek(self.ino, self.offset, self.data)?;
            if self.data || again == found {
                return Ok(again);
            }
        }
        Ok(Some(volume.attributes(self.ino)?.size).filter(|size| *size > self.offset))
    }
}

/// Has the kernel hand over the changed pages of bytes `from..to`, or to the end.
fn hand_over(reply: &Reply, ino: u64, from: u64, to: Option<u64>) {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    // No length: to the end.
    let length = to.map_or(0, |to| signed(to.saturating_sub(from)));
    let range = NotifyInvalInode { ino, offset: signed(from), length };
    if let Err(error) = reply.device().send(0, NOTIFY_INVAL_INODE, &[range.as_bytes()]) {
        // It knows the inode that it asks about, so the mount is just ending.
        tracing::trace!(%error, "the kernel had nothing to hand over");
    }
}

fn answer(reply: Reply, found: Result<Option<u64>>) {
    match found {
        Ok(Some(at)) => reply.body(&at),
        Ok(None) => reply.error(Errno::NXIO),
        Err(error) => reply.error(super::fuse::refuse("lseek", &error)),
    }
}
