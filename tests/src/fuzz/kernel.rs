//! Requests of a kernel that may be mad: the decoder, and any number of requests to a volume.

use std::{path::Path, sync::Arc};

use parsecfs_vfs::fuzzing::{Loopback, decode_request};
use tempfile::TempDir;

use crate::local_model::{StepClock, local_snapshot, open};

/// Opcodes that have no answer.
const FORGET: u32 = 2;
const BATCH_FORGET: u32 = 42;
/// Bytes before the body of a request, and before that of an answer.
const IN_HEADER_BYTES: usize = 40;
const OUT_HEADER_BYTES: usize = 16;
/// Requests that one input makes at most.
const REQUESTS_MAX: usize = 64;

/// The bytes as a request, also where they say another length than they have.
pub(super) fn decode(bytes: &[u8]) {
    let _is_one = decode_request(bytes);
    let mut whole = bytes.to_vec();
    if let Some(length) = whole.get_mut(..4) {
        length.copy_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_ne_bytes());
        let _is_one = decode_request(&whole);
    }
}

/// A request of this opcode about this inode.
pub(super) fn request(opcode: u32, ino: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(IN_HEADER_BYTES + body.len()).expect("inputs are short");
    let mut bytes = Vec::with_capacity(IN_HEADER_BYTES + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(opcode.to_ne_bytes());
    bytes.extend(7u64.to_ne_bytes());
    bytes.extend(ino.to_ne_bytes());
    bytes.extend([0; 16]);
    bytes.extend(body);
    bytes
}

/// The next request of an input: opcode, inode, length of the body (two bytes), the body. What is not there is empty.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u32, u64, &'a [u8])> {
    let (head, behind) = rest.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_le_bytes([head[2], head[3]])).min(behind.len());
    let (body, behind) = behind.split_at(length);
    *rest = behind;
    // Far numbers too.
    let ino = if head[1] < 250 { u64::from(head[1]) } else { u64::MAX << (255 - head[1]) };
    Some((u32::from(head[0]), ino, body))
}

/// Requests to a new volume. Each is answered as often as it has to be, and what is there in the end can be read, also
/// by the next process.
pub(super) fn ask_volume(bytes: &[u8]) {
    let memory = Path::new("/dev/shm");
    let world = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a temporary directory");
    let volume = || open(world.path(), Arc::new(StepClock::default()), u64::MAX).expect("it opens");
    let (before, store) = {
        let volume = volume();
        let mut kernel = Loopback::new(&volume).expect("an adapter");
        let mut rest = bytes;
        for _ in 0..REQUESTS_MAX {
            let Some((opcode, ino, body)) = next(&mut rest) else { break };
            let answers = kernel.ask(&request(opcode, ino, body)).expect("a file in memory");
            assert_answers(opcode, &answers);
        }
        assert!(volume.check().expect("the store can be read").is_empty(), "something is damaged");
        volume.store().sync().expect("sync");
        (local_snapshot(&volume), volume.store().clone())
    };
    // The adapter's thread ends a moment after the adapter, and a store is open once.
    while Arc::strong_count(&store) > 1 {
        std::thread::yield_now();
    }
    drop(store);
    assert!(before == local_snapshot(&volume()), "the next process sees something else");
}

/// One answer, whole, to what was asked; none to what has none.
fn assert_answers(opcode: u32, answers: &[u8]) {
    if answers.is_empty() {
        assert!(matches!(opcode, FORGET | BATCH_FORGET), "opcode {opcode} is not answered");
        return;
    }
    let word = |at: usize| u32::from_ne_bytes(answers[at..at + 4].try_into().expect("four bytes"));
    assert!(answers.len() >= OUT_HEADER_BYTES, "opcode {opcode}: half an answer");
    assert_eq!(usize::try_from(word(0)).expect("small"), answers.len(), "opcode {opcode}: not one answer");
    assert_eq!((word(8), word(12)), (7, 0), "opcode {opcode}: an answer to something else");
    let error = word(4).cast_signed();
    assert!((-4095..=0).contains(&error), "opcode {opcode}: {error} is no error number");
}
