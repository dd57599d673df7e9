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

pub(super) fn read_block(object: &Bytes) -> Result<Block> {
    let mut reader = Reader::new(object);
    if reader.raw(4)? != BLOCK {
        return Err(Error::new(ErrorKind::Corrupt, "a block does not start as one"));
    }
    if reader.u8()? != FORMAT {
        return Err(Error::new(ErrorKind::Unsupported, "a block of a newer format"));
    }
    let key_index = reader.u64()?;
    Ok(Block { key_index, bytes: object.slice(reader.position()..) })
}

/// Takes a pack apart: the id, the key and the place of each part. Every byte belongs to a part, or to the frame around.
pub(super) fn read_pack(object: &[u8]) -> Result<Vec<([u8; 16], u64, Span)>> {
    let damaged = || Error::new(ErrorKind::Corrupt, "a pack is damaged");
    let (rest, end) = object.split_last_chunk::<8>().ok_or_else(damaged)?;
    let mut end = Reader::new(end);
    let start = rest.len().checked_sub(end.length()?).ok_or_else(damaged)?;
    let (body, index) = rest.split_at(start);
    let mut begin = Reader::new(body);
    if end.raw(4)? != PACK || begin.raw(4)? != PACK {
        return Err(damaged());
    }
    if begin.u8()? != FORMAT {
        return Err(Error::new(ErrorKind::Unsupported, "a pack of a newer format"));
    }
    let mut index = Reader::new(index);
    let parts = index.list(|reader| Ok((reader.array()?, reader.u64()?, Span::read(reader)?)))?;
    let mut at = begin.position();
    for (_, _, span) in &parts {
        if span.offset as usize != at {
            return Err(damaged());
        }
        at = at.checked_add(span.length as usize).ok_or_else(damaged)?;
    }
    if index.is_empty() && at == start { Ok(parts) } else { Err(damaged()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_says_what_it_holds_and_nothing_when_it_is_cut_or_longer() {
        let mut draft = PackDraft::new();
        let spans = [draft.push([1; 16], 3, b"one"), draft.push([2; 16], 4, b""), draft.push([3; 16], 5, b"three")];
        let object = draft.finish();
        let parts = read_pack(&object).expect("it is whole");
        assert_eq!(parts, [([1; 16], 3, spans[0]), ([2; 16], 4, spans[1]), ([3; 16], 5, spans[2])]);
        for length in 0..object.len() {
            assert!(read_pack(&object[..length]).is_err(), "cut at {length}");
        }
        assert!(read_pack(&[&object, b"more".as_slice()].concat()).is_err());
    }
}
