//! Plain binary encoding of what only we read: little-endian integers and length-prefixed bytes.
//!
//! The reader takes nothing for granted: every length is checked against what is left.

use parsecfs_core::{
    storage::{Error, ErrorKind, Result},
    time::Timestamp,
};

/// Appends values.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn time(&mut self, value: Timestamp) -> &mut Self {
        self.raw(&value.as_micros().to_le_bytes())
    }

    /// Bytes whose length the reader knows.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn length(&mut self, length: usize) -> &mut Self {
        self.u32(u32::try_from(length).expect("every list and byte string here is far below 4 GiB"))
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.length(bytes.len()).raw(bytes)
    }
}

/// Takes values.
pub(super) struct Reader<'a> {
    whole: &'a [u8],
    at: usize,
}

fn short() -> Error {
    Error::new(ErrorKind::Corrupt, "an object ends too early")
}

impl<'a> Reader<'a> {
    pub(super) fn new(whole: &'a [u8]) -> Self {
        Self { whole, at: 0 }
    }

    /// How many bytes were taken.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.whole.len()
    }

    pub(super) fn raw(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or_else(short)?;
        let taken = self.whole.get(self.at..end).ok_or_else(short)?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.raw(N)?.try_into().expect("raw() took exactly N bytes"))
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn time(&mut self) -> Result<Timestamp> {
        let micros = self.array().map(i64::from_le_bytes)?;
        Timestamp::from_micros(micros).ok_or_else(|| Error::new(ErrorKind::Corrupt, "a time is out of range"))
    }

    pub(super) fn length(&mut self) -> Result<usize> {
        usize::try_from(self.u32()?).map_err(|_| short())
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        self.raw(length)
    }

    /// A list; its length is not trusted for allocation: an item may be far larger here than where it comes from.
    pub(super) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        const RESERVED_MAX: usize = 1024;
        let length = self.length()?;
        let mut items = Vec::with_capacity(length.min(RESERVED_MAX));
        for _ in 0..length {
            items.push(item(self)?);
        }
        Ok(items)
    }
}
