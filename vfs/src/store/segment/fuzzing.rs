//! For fuzzers: segments of an earlier session, made of frames that claim whatever the fuzzer likes.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    sync::Arc,
};

use parsecfs_crypto::local::{LocalKey, LocalNonce};

use super::{
    PART_ROWS, Position, Segments, create_segment,
    frame::{Head, Kind},
    io_error, segment_path,
};
use crate::{error::Result, store::RealDisk};

/// An earlier session that wrote segments.
#[derive(Debug)]
pub struct Session {
    dir: PathBuf,
    key: LocalKey,
    id: [u8; 16],
    number: u32,
    frame: u64,
    bytes: Vec<u8>,
}

impl Session {
    /// A session that writes its first segment into `dir`.
    pub fn new(dir: &Path, key: &LocalKey) -> Self {
        Self { dir: dir.to_owned(), key: key.clone(), id: [1; 16], number: 1, frame: 0, bytes: Vec::new() }
    }

    /// Adds bytes that are no frame.
    pub fn garbage(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds a frame of rows, sealed as it has to be. `claims` are the fields of its head: how long the body is beyond
    /// its true length, how far segments are synced, how many frames of rows there were.
    pub fn rows(&mut self, rows: &[u8], claims: (u32, u32, u64, u64)) {
        let mut body = Vec::new();
        self.key.seal_into(&LocalNonce::new(self.id, self.frame, PART_ROWS), b"rows", rows, &mut body);
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let synced = Position { segment: claims.1, offset: claims.2 };
        let head = Head {
            frame: self.frame,
            body_bytes: length.wrapping_add(claims.0),
            synced,
            rows: claims.3,
            ..Head::new(Kind::Rows)
        };
        self.bytes.extend(head.seal(&self.key, self.id));
        self.bytes.extend(body);
        self.frame += 1;
    }

    /// Adds the head of a frame of pages that stands before whatever comes.
    pub fn pages(&mut self, body_bytes: u32, pages: u32, ino: u64, first_page: u64) {
        let head = Head { frame: self.frame, body_bytes, pages, ino, first_page, ..Head::new(Kind::Data) };
        self.bytes.extend(head.seal(&self.key, self.id));
        self.frame += 1;
    }

    /// Ends this segment and begins the next.
    pub fn next_segment(&mut self) -> Result<()> {
        let path = segment_path(&self.dir, self.number);
        create_segment(&RealDisk, &self.dir, self.number, self.id, &self.key)?;
        let written = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().append(true).open(&path)?;
            std::io::Write::write_all(&mut file, &self.bytes)
        };
        written().map_err(|e| io_error("write a segment", e))?;
        self.bytes.clear();
        self.number += 1;
        Ok(())
    }

    /// Reads all of it back, as the next session does.
    pub fn replay(mut self) -> Result<()> {
        self.next_segment()?;
        let segments = Segments::open(Arc::new(RealDisk), &self.dir, self.key, [2; 16], u64::MAX)?;
        for from in [Position::default(), Position { segment: 1, offset: 300 }] {
            segments.replay(from, |_| Ok(()))?;
        }
        for number in 1..self.number {
            segments.owners(number)?;
        }
        Ok(())
    }
}
