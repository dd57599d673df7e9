//! Takes a stream of server-sent events apart into records. Knows nothing of what they say.

/// One record: what the last field of each kind said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) event: String,
    pub(super) data: String,
    pub(super) id: Option<String>,
}

/// Longest line that is kept. An event carries at most 4 KiB of content, in base64.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Puts records together from pieces of any size.
#[derive(Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    record: Record,
    begun: bool,
}

/// The stream is not one of events.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Parser {
    /// Takes the next piece and returns the records that it completes.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<Vec<Record>, TooLong> {
        let mut records = Vec::new();
        for &byte in piece {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    records.extend(self.end_of_line(&line));
                }
                b'\r' => {}
                _ if self.line.len() == LINE_BYTES_MAX => return Err(TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(records)
    }

    fn end_of_line(&mut self, line: &[u8]) -> Option<Record> {
        if line.is_empty() {
            let record = std::mem::take(&mut self.record);
            return std::mem::take(&mut self.begun).then_some(record);
        }
        let line = String::from_utf8_lossy(line);
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match name {
            "event" => self.record.event = value,
            "data" => self.record.data = value,
            "id" => self.record.id = Some(value),
            // Comments and what is not known here.
            _ => return None,
        }
        self.begun = true;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"data:aGk=\n\ndata:eW8=\nid:e0220c598ea74459bf82f94a4efced55\n\nevent:keepalive\ndata:\n\n";

    #[test]
    fn records_come_out_however_the_stream_is_cut() {
        let whole = Parser::default().feed(STREAM).unwrap();
        assert_eq!(whole.len(), 3);
        assert_eq!((whole[0].data.as_str(), &whole[0].id), ("aGk=", &None));
        assert_eq!(whole[1].id.as_deref(), Some("e0220c598ea74459bf82f94a4efced55"));
        assert_eq!(whole[2].event, "keepalive");
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let pieces = STREAM.chunks(size).flat_map(|piece| parser.feed(piece).unwrap());
            assert_eq!(pieces.collect::<Vec<_>>(), whole, "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.feed(&vec![b'x'; LINE_BYTES_MAX + 1]), Err(TooLong));
    }
}
