//! Bytes of the local store, from the inside: sealed with the right key before they are read.

use std::path::Path;

use parsecfs_vfs::fuzzing::{self, Session};
use tempfile::TempDir;

use crate::local_model::key;

/// Rows, journal frames and records.
pub(super) fn read_rows(bytes: &[u8]) {
    fuzzing::read_rows(bytes);
    fuzzing::read_journal_frame(bytes);
    fuzzing::read_record(bytes);
}

/// Segments that an earlier session left. Each step of the input: what to add, a length, and that many bytes.
pub(super) fn replay(bytes: &[u8]) {
    /// Segments that one input makes at most.
    const SEGMENTS_MAX: usize = 3;
    let memory = Path::new("/dev/shm");
    let world = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a temporary directory");
    let mut session = Session::new(world.path(), &key());
    let (mut rest, mut segments) = (bytes, 1);
    while let Some(([what, length], behind)) = rest.split_first_chunk::<2>() {
        let (body, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        match what {
            0 if segments < SEGMENTS_MAX => {
                segments += 1;
                session.next_segment().expect("memory");
            }
            1 => session.rows(body, (0, 0, 0, u64::from(*length))),
            2 => session.rows(body, (word(body, 0), word(body, 4), wide(body, 8), wide(body, 16))),
            3 => session.pages(word(body, 0), word(body, 4), wide(body, 8), wide(body, 16)),
            4 => session.garbage(&vec![0; usize::from(*length) * 8]),
            _ => session.garbage(body),
        }
    }
    // Refusing is right; panicking is not.
    drop(session.replay());
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::try_from(wide(bytes, at) & u64::from(u32::MAX)).unwrap_or(0)
}

/// Eight bytes; what is not there counts as zero.
fn wide(bytes: &[u8], at: usize) -> u64 {
    (0..8).rev().fold(0, |value, byte| value << 8 | u64::from(bytes.get(at + byte).copied().unwrap_or(0)))
}
