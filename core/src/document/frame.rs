//! Version byte, compression and msgpack: from a value to bytes and back.

use std::io::{Read, Write};

use rmpv::Value;

use super::malformed;
use crate::error::{Error, ErrorKind, Result};

/// Most clear bytes of a document. The largest that a Parsec server can hold has a few MiB; a folder of a million
/// entries, which only other stores can hold, about 40.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// First byte of every framed document.
const VERSION: u8 = 0;

/// What all writers of this format use.
const ZSTD_LEVEL: i32 = 3;

/// More nesting than any document has; bounds the stack.
const DEPTH_MAX: usize = 64;

/// Packs a document as one zstd frame without checksum and content size.
pub(crate) fn to_frame(document: &Value) -> Vec<u8> {
    const IN_MEMORY: &str = "compressing into memory with constant parameters does not fail";
    let mut encoder = zstd::Encoder::new(vec![VERSION], ZSTD_LEVEL).expect(IN_MEMORY);
    encoder.include_checksum(false).expect(IN_MEMORY);
    encoder.include_contentsize(false).expect(IN_MEMORY);
    encoder.write_all(&to_msgpack(document)).expect(IN_MEMORY);
    encoder.finish().expect(IN_MEMORY)
}

/// Unpacks a document.
pub(crate) fn from_frame(frame: &[u8]) -> Result<Value> {
    match frame.split_first() {
        Some((&VERSION, compressed)) => from_msgpack(&decompress(compressed)?),
        Some(_) => Err(Error::new(ErrorKind::Format, "unknown document version")),
        None => Err(Error::new(ErrorKind::Format, "document is empty")),
    }
}

/// Joins the content of all frames; refuses truncated ones and anything behind the last.
fn decompress(compressed: &[u8]) -> Result<Vec<u8>> {
    let damaged = |_| Error::new(ErrorKind::Zstd, "not a whole zstd stream");
    if compressed.is_empty() {
        return Err(Error::new(ErrorKind::Zstd, "zstd stream is empty"));
    }
    let limit = DOCUMENT_BYTES_MAX as u64 + 1;
    let mut clear = Vec::new();
    zstd::Decoder::with_buffer(compressed).map_err(damaged)?.take(limit).read_to_end(&mut clear).map_err(damaged)?;
    if clear.len() > DOCUMENT_BYTES_MAX {
        return Err(Error::new(ErrorKind::Zstd, "document is too large"));
    }
    Ok(clear)
}

/// Encodes a value as it stands in documents without a frame.
pub(crate) fn to_msgpack(document: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, document).expect("writing into memory does not fail");
    bytes
}

/// Decodes the first value; whatever follows it is ignored, as all readers do.
pub(crate) fn from_msgpack(mut bytes: &[u8]) -> Result<Value> {
    rmpv::decode::read_value_with_max_depth(&mut bytes, DEPTH_MAX).map_err(|_| malformed("not a msgpack value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(content: &[u8]) -> Vec<u8> {
        zstd::encode_all(content, 1).unwrap()
    }

    fn kind_of(compressed: &[u8]) -> ErrorKind {
        let mut frame = vec![0];
        frame.extend(compressed);
        from_frame(&frame).unwrap_err().kind()
    }

    #[test]
    fn a_frame_holds_what_was_put_in() {
        let document = Value::from("x".repeat(100_000));
        assert_eq!(from_frame(&to_frame(&document)), Ok(document));
    }

    #[test]
    fn the_version_byte_is_checked_first() {
        assert_eq!(from_frame(&[]).unwrap_err().kind(), ErrorKind::Format);
        assert_eq!(from_frame(&[1]).unwrap_err().kind(), ErrorKind::Format);
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = compressed(&[0xc0; 1000]);
        for len in 0..whole.len() {
            assert_eq!(kind_of(&whole[..len]), ErrorKind::Zstd, "{len}");
        }
    }

    #[test]
    fn anything_behind_the_last_frame_is_refused() {
        for garbage in [&[0][..], &[0, 1], &[0x28, 0xb5, 0x2f], &[1, 2, 3, 4, 5, 6, 7, 8]] {
            let mut bytes = compressed(&[0xc0]);
            bytes.extend(garbage);
            assert_eq!(kind_of(&bytes), ErrorKind::Zstd);
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        assert_eq!(kind_of(&compressed(&vec![0xc0; DOCUMENT_BYTES_MAX + 1])), ErrorKind::Zstd);
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(from_msgpack(&[0x91; 100_000]).is_err());
    }
}
