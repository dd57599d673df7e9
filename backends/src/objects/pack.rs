//! Packs of blocks, and blocks that are objects of their own: each says what it holds, so that it can be read alone.
//!
//! ```text
//! block = "PFLB" ‖ format u8 ‖ key index u64 ‖ sealed bytes
//! pack  = "PFLP" ‖ format u8 ‖ sealed bytes … ‖ index ‖ index length u32 ‖ "PFLP"
//! index = list of (block id [16] ‖ key index u64 ‖ offset u32 ‖ length u32)
//! ```

use parsecfs_core::{
    id::BlockId,
    storage::{Block, Bytes, Error, ErrorKind, Result},
};

use super::{
    entry::Span,
    wire::{Reader, Writer},
};

const BLOCK: &[u8; 4] = b"PFLB";
const PACK: &[u8; 4] = b"PFLP";
const FORMAT: u8 = 1;
/// Largest pack.
pub(super) const PACK_BYTES_MAX: usize = 8 << 20;

/// A block as an object of its own.
pub(super) fn write_block(block: &Block) -> Bytes {
    let mut writer = Writer::default();
    writer.raw(BLOCK).u8(FORMAT).u64(block.key_index).raw(&block.bytes);
    writer.0.into()
}

pub(super) fn read_block(object: &[u8]) -> Result<Block> {
    let mut reader = Reader::new(object);
    if reader.raw(4)? != BLOCK {
        return Err(Error::new(ErrorKind::Corrupt, "a block does not start as one"));
    }
    if reader.u8()? != FORMAT {
        return Err(Error::new(ErrorKind::Unsupported, "a block of a newer format"));
    }
    let key_index = reader.u64()?;
    Ok(Block { key_index, bytes: object[reader.position()..].into() })
}

/// Collects what goes into one pack.
pub(super) struct PackDraft {
    body: Writer,
    index: Vec<(BlockId, u64, Span)>,
}

impl PackDraft {
    pub(super) fn new() -> Self {
        let mut body = Writer::default();
        body.raw(PACK).u8(FORMAT);
        Self { body, index: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.body.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Adds bytes under an id and says where they are.
    pub(super) fn push(&mut self, id: [u8; 16], key_index: u64, bytes: &[u8]) -> Span {
        let span = Span::of(self.body.0.len(), bytes.len());
        self.body.raw(bytes);
        self.index.push((BlockId::from_bytes(id), key_index, span));
        span
    }

    pub(super) fn finish(mut self) -> Bytes {
        let start = self.body.0.len();
        self.body.length(self.index.len());
        for (id, key_index, span) in &self.index {
            self.body.raw(id.as_bytes()).u64(*key_index);
            span.write(&mut self.body);
        }
        let length = self.body.0.len() - start;
        self.body.length(length).raw(PACK);
        self.body.0.into()
    }
}
