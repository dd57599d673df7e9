//! Version byte, compression and msgpack: from a value to bytes and back.

use std::io::{Read, Write};

use rmpv::Value;
use zeroize::{Zeroize, Zeroizing};

use super::malformed;
use crate::error::{Error, ErrorKind, Result};

/// Most clear bytes of a document. The largest that a Parsec server can hold has a few MiB; a folder of a million
/// entries, which only other stores can hold, about 40.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// First byte of every framed document.
const VERSION: u8 = 0;

/// What all writers of this format use.
const ZSTD_LEVEL: i32 = 3;

/// Most values in a document: a built value takes some 40 times the byte that it may be in a document. The longest list
/// of blocks that fits into [`DOCUMENT_BYTES_MAX`] has about 7 million.
const VALUES_MAX: usize = 8_000_000;

/// What a document of secrets fits into: a bundle of about 1900 keys.
const SECRET_DOCUMENT_BYTES: usize = 64 << 10;

/// What framing adds to a short document that does not compress.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// More nesting than any document has; bounds the stack.
const DEPTH_MAX: usize = 64;

/// Packs a document as one zstd frame without checksum and content size.
pub(crate) fn to_frame(document: &Value) -> Vec<u8> {
    frame_of(&to_msgpack(document))
}

/// The same for a document that holds secrets: what they pass through is wiped, except inside the compressor.
pub(crate) fn to_secret_frame(document: Value) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(frame_of(&to_secret_msgpack(document)))
}

fn frame_of(msgpack: &[u8]) -> Vec<u8> {
    const IN_MEMORY: &str = "compressing into memory with constant parameters does not fail";
    // Room for what does not compress, which is how keys are: growing would leave copies behind.
    let mut frame = Vec::with_capacity(msgpack.len() + FRAME_OVERHEAD_BYTES);
    frame.push(VERSION);
    let mut encoder = zstd::Encoder::new(frame, ZSTD_LEVEL).expect(IN_MEMORY);
    encoder.include_checksum(false).expect(IN_MEMORY);
    encoder.include_contentsize(false).expect(IN_MEMORY);
    // Tables as large as the document needs, not as the largest: clearing them took longer than compressing.
    encoder.set_pledged_src_size(Some(msgpack.len() as u64)).expect(IN_MEMORY);
    encoder.write_all(msgpack).expect(IN_MEMORY);
    encoder.finish().expect(IN_MEMORY)
}

/// Unpacks a document.
pub(crate) fn from_frame(frame: &[u8]) -> Result<Value> {
    from_msgpack(&unpack(frame, Vec::new())?)
}

/// The same for a document that holds secrets: the msgpack bytes are wiped. Keys wipe the values they are read from.
pub(crate) fn from_secret_frame(frame: &[u8]) -> Result<Value> {
    from_msgpack(&Zeroizing::new(unpack(frame, Vec::with_capacity(SECRET_DOCUMENT_BYTES))?))
}

fn unpack(frame: &[u8], clear: Vec<u8>) -> Result<Vec<u8>> {
    match frame.split_first() {
        Some((&VERSION, compressed)) => decompress(compressed, clear),
        Some(_) => Err(Error::new(ErrorKind::Format, "unknown document version")),
        None => Err(Error::new(ErrorKind::Format, "document is empty")),
    }
}

/// Joins the content of all frames in `clear`; refuses truncated ones and anything behind the last.
fn decompress(compressed: &[u8], mut clear: Vec<u8>) -> Result<Vec<u8>> {
    let damaged = |_| Error::new(ErrorKind::Zstd, "not a whole zstd stream");
    if compressed.is_empty() {
        return Err(Error::new(ErrorKind::Zstd, "zstd stream is empty"));
    }
    let limit = DOCUMENT_BYTES_MAX as u64 + 1;
    zstd::Decoder::with_buffer(compressed).map_err(damaged)?.take(limit).read_to_end(&mut clear).map_err(damaged)?;
    if clear.len() > DOCUMENT_BYTES_MAX {
        return Err(Error::new(ErrorKind::Zstd, "document is too large"));
    }
    Ok(clear)
}

/// Counts the values in the first value without building them; `None` when the bytes end too early, hold a byte that
/// begins no value, text that is not UTF-8, or more than [`VALUES_MAX`]. Such text could not be written back as it was.
fn count_values(bytes: &[u8]) -> Option<usize> {
    let (mut rest, mut awaited, mut count) = (bytes, 1_usize, 0_usize);
    while awaited > 0 {
        let (&marker, after) = rest.split_first()?;
        let (size_bytes, fixed) = shape(marker)?;
        let (size, after) = after.split_at_checked(size_bytes)?;
        let size =
            size.iter().try_fold(0_usize, |size, byte| size.checked_mul(256)?.checked_add(usize::from(*byte)))?;
        let (skipped, children) = match marker {
            0x80..=0x8f | 0xde | 0xdf => (0, fixed.checked_add(size)?.checked_mul(2)?),
            0x90..=0x9f | 0xdc | 0xdd => (0, fixed.checked_add(size)?),
            _ => (fixed.checked_add(size)?, 0),
        };
        let (value, behind) = after.split_at_checked(skipped)?;
        if matches!(marker, 0xa0..=0xbf | 0xd9..=0xdb) {
            std::str::from_utf8(value).ok()?;
        }
        rest = behind;
        count += 1;
        awaited = (awaited - 1).checked_add(children)?;
        // Every awaited value takes a byte at least, so a huge count in a short document ends here.
        if count.checked_add(awaited)? > VALUES_MAX || awaited > rest.len() {
            return None;
        }
    }
    Some(count)
}

/// Of the value that begins with this byte: how many bytes hold its size, and what its size is without them. Sizes
/// count bytes, elements of a list, or pairs of a map.
fn shape(marker: u8) -> Option<(usize, usize)> {
    Some(match marker {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (0, 0),
        0x80..=0x9f => (0, usize::from(marker & 0x0f)),
        0xa0..=0xbf => (0, usize::from(marker & 0x1f)),
        0xc1 => return None,
        0xc4 | 0xd9 => (1, 0),
        0xc5 | 0xda | 0xdc | 0xde => (2, 0),
        0xc6 | 0xdb | 0xdd | 0xdf => (4, 0),
        // Extensions have a type behind their size.
        0xc7 => (1, 1),
        0xc8 => (2, 1),
        0xc9 => (4, 1),
        0xcc | 0xd0 => (0, 1),
        0xcd | 0xd1 => (0, 2),
        0xca | 0xce | 0xd2 => (0, 4),
        0xcb | 0xcf | 0xd3 => (0, 8),
        0xd4 => (0, 2),
        0xd5 => (0, 3),
        0xd6 => (0, 5),
        0xd7 => (0, 9),
        0xd8 => (0, 17),
    })
}

/// Encodes a value as it stands in documents without a frame.
///
/// # Panics
/// Never: writing into memory does not fail.
#[must_use]
pub fn to_msgpack(document: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, document).expect("writing into memory does not fail");
    bytes
}

/// The same for a document that holds secrets: both forms are wiped. Room is made up front, since growing would leave
/// copies behind.
pub(crate) fn to_secret_msgpack(document: Value) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_DOCUMENT_BYTES));
    rmpv::encode::write_value(&mut *bytes, &document).expect("writing into memory does not fail");
    wipe(document);
    bytes
}

fn wipe(value: Value) {
    match value {
        Value::Binary(mut bytes) => bytes.zeroize(),
        Value::Array(values) => values.into_iter().for_each(wipe),
        Value::Map(entries) => entries.into_iter().for_each(|(_, value)| wipe(value)),
        _ => {}
    }
}

/// Decodes the first value; whatever follows it is ignored, as all readers do.
pub fn from_msgpack(mut bytes: &[u8]) -> Result<Value> {
    count_values(bytes).ok_or(malformed("not a msgpack value, or too many"))?;
    // Borrowed first, since the owning reader copies long bytes several times while it makes room for them.
    rmpv::decode::read_value_ref_with_max_depth(&mut bytes, DEPTH_MAX)
        .map(|value| value.to_owned())
        .map_err(|_| malformed("not a msgpack value"))
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
    fn more_values_than_a_document_has_are_refused_before_they_are_built() {
        let mut list = vec![0xdd];
        list.extend(u32::try_from(VALUES_MAX).unwrap().to_be_bytes());
        list.resize(list.len() + VALUES_MAX, 0xc0);
        assert_eq!(count_values(&list), None);
        list[1..5].copy_from_slice(&u32::try_from(VALUES_MAX - 1).unwrap().to_be_bytes());
        assert_eq!(count_values(&list), Some(VALUES_MAX));
    }

    #[test]
    fn counting_understands_every_kind_of_value() {
        let values = [
            Value::Nil,
            Value::from(true),
            Value::F32(1.0),
            Value::F64(1.0),
            Value::from("x".repeat(40)),
            Value::from("x".repeat(300)),
            Value::from("x".repeat(70_000)),
            Value::from(vec![1_u8; 40]),
            Value::from(vec![1_u8; 300]),
            Value::from(vec![1_u8; 70_000]),
            Value::Array(vec![Value::Nil; 20]),
            Value::Array(vec![Value::Nil; 70_000]),
            Value::Map(vec![(1.into(), Value::Nil); 3]),
            Value::Map(vec![(1.into(), Value::Nil); 20]),
            Value::Map(vec![(1.into(), Value::Nil); 70_000]),
        ];
        let numbers = [0_u64, 127, 128, 255, 256, 65_535, 65_536, 1 << 32].map(Value::from);
        let negatives = [-1, -32, -33, -128, -129, -32_769, -(1_i64 << 40)].map(Value::from);
        let extensions = [1, 2, 4, 8, 16, 3, 300, 70_000].map(|len| Value::Ext(5, vec![0; len]));
        for value in values.into_iter().chain(numbers).chain(negatives).chain(extensions) {
            let bytes = to_msgpack(&value);
            assert!(count_values(&bytes).is_some(), "{:x}", bytes[0]);
            assert_eq!(count_values(&bytes[..bytes.len() - 1]), None, "{:x}", bytes[0]);
            assert_eq!(from_msgpack(&bytes), Ok(value));
        }
    }

    #[test]
    fn text_that_is_not_utf_8_is_refused_wherever_it_is() {
        for text in [&[0xa2, b'a', 0xd8][..], &[0xd9, 1, 0xff], &[0xda, 0, 1, 0xff], &[0xdb, 0, 0, 0, 1, 0xff]] {
            assert!(from_msgpack(text).is_err());
            let in_a_map = [&[0x81, 0xa1, b'x'], text].concat();
            assert!(from_msgpack(&in_a_map).is_err());
        }
        assert_eq!(from_msgpack(&[0xc4, 1, 0xff]), Ok(Value::Binary(vec![0xff])));
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(from_msgpack(&[0x91; 100_000]).is_err());
    }
}
