//! The head of a frame: what it is, how long, and how far the segments were safe when it was written.
//!
//! A head is sealed by itself, so a reader knows a true one wherever it finds it. That is how the frames behind a damaged
//! one are found again, and how far a body reaches is never guessed from a flipped length.

use parsecfs_crypto::local::{LOCAL_TAG_BYTES, LocalKey, LocalNonce};

use super::{Position, le_u32, le_u64};

pub(super) const FRAME_MAGIC: &[u8; 4] = b"pfsF";
/// Magic, zero, frame number.
const CLEAR_BYTES: usize = 16;
const PLAIN_BYTES: usize = 48;
pub(super) const HEAD_BYTES: usize = CLEAR_BYTES + PLAIN_BYTES + LOCAL_TAG_BYTES;
/// The same as a file offset counts.
pub(super) const HEAD: u64 = HEAD_BYTES as u64;
/// Longest frame body that a reader believes: 16 MiB of pages and their tags.
pub(super) const BODY_BYTES_MAX: u32 = 20 << 20;
/// Part number of the head in a nonce.
const PART_HEAD: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Pages of a file.
    Data = 1,
    /// Rows of the index. Written twice in a row, so that damage to one copy costs nothing.
    Rows = 2,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) frame: u64,
    pub(super) body_bytes: u32,
    pub(super) pages: u32,
    pub(super) ino: u64,
    pub(super) first_page: u64,
    /// Everything before this was on stable storage already.
    pub(super) synced: Position,
    /// How many different frames of rows this session has written, this one included.
    pub(super) rows: u64,
}

impl Head {
    /// What [`Segments::append`](super::Segments) completes.
    pub(super) fn new(kind: Kind) -> Self {
        let synced = Position::default();
        Self { kind, frame: 0, body_bytes: 0, pages: 0, ino: 0, first_page: 0, synced, rows: 0 }
    }

    pub(super) fn seal(&self, key: &LocalKey, session: [u8; 16]) -> Vec<u8> {
        let mut plain = [0u8; PLAIN_BYTES];
        plain[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        plain[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        plain[8..12].copy_from_slice(&self.pages.to_le_bytes());
        plain[12..16].copy_from_slice(&self.synced.segment.to_le_bytes());
        plain[16..24].copy_from_slice(&self.ino.to_le_bytes());
        plain[24..32].copy_from_slice(&self.first_page.to_le_bytes());
        plain[32..40].copy_from_slice(&self.synced.offset.to_le_bytes());
        plain[40..].copy_from_slice(&self.rows.to_le_bytes());
        let mut clear = [0u8; CLEAR_BYTES];
        clear[..4].copy_from_slice(FRAME_MAGIC);
        clear[8..].copy_from_slice(&self.frame.to_le_bytes());
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(&clear);
        key.seal_into(&LocalNonce::new(session, self.frame, PART_HEAD), &clear, &plain, &mut out);
        out
    }

    /// `None` when these bytes are no head of this session.
    pub(super) fn open(key: &LocalKey, session: [u8; 16], bytes: &[u8]) -> Option<Self> {
        let (clear, sealed) = bytes.get(..HEAD_BYTES)?.split_at(CLEAR_BYTES);
        if &clear[..4] != FRAME_MAGIC {
            return None;
        }
        let frame = le_u64(&clear[8..]);
        let mut plain = [0u8; PLAIN_BYTES];
        key.open_into(&LocalNonce::new(session, frame, PART_HEAD), clear, sealed, &mut plain).ok()?;
        let kind = match le_u32(&plain[..4]) {
            1 => Kind::Data,
            2 => Kind::Rows,
            _ => return None,
        };
        let body_bytes = Some(le_u32(&plain[4..8])).filter(|bytes| *bytes <= BODY_BYTES_MAX)?;
        Some(Self {
            kind,
            frame,
            body_bytes,
            pages: le_u32(&plain[8..12]),
            ino: le_u64(&plain[16..24]),
            first_page: le_u64(&plain[24..32]),
            synced: Position { segment: le_u32(&plain[12..16]), offset: le_u64(&plain[32..40]) },
            rows: le_u64(&plain[40..]),
        })
    }
}
