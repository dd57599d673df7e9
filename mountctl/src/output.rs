//! What a person or a script reads: stdout carries the answer, stderr everything else.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::json;

use crate::{
    exit::Kind,
    failure::{Failure, Result},
    rpc::Verdict,
};

/// How answers are written.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    color: bool,
}

impl Output {
    /// By the global flags and what stderr is.
    #[must_use]
    pub fn new(json: bool, quiet: bool, no_color: bool) -> Self {
        let color = !json && !no_color && std::env::var_os("NO_COLOR").is_none() && io::stderr().is_terminal();
        Self { json, quiet, color }
    }

    /// Whether scripts read it.
    #[must_use]
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether to show progress: a person is looking.
    #[must_use]
    pub fn progress(&self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    /// Writes the answer: one JSON document, or text for people.
    pub fn answer<T: Serialize>(&self, document: &T, human: impl FnOnce(&T) -> String) -> Result<()> {
        let text = if self.json {
            serde_json::to_string_pretty(document).expect("answers are plain JSON")
        } else {
            human(document)
        };
        write_line(&mut io::stdout().lock(), &text)
    }

    /// Writes an answer that is text for everybody, like a script.
    pub fn text(&self, text: &str) -> Result<()> {
        write_line(&mut io::stdout().lock(), text)
    }

    /// Says something beside the answer, to people only.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            // Nothing depends on a remark; a closed stderr is no reason to fail.
            let _ignored = write_line(&mut io::stderr().lock(), text);
        }
    }

    /// Asks somebody at the terminal; whatever the flags say, who is asked must see the question.
    pub fn ask(&self, text: &str) {
        // Without a stderr there is nobody to ask; reading the answer will tell.
        let _ignored = write_line(&mut io::stderr().lock(), text);
    }

    /// Says what failed.
    pub fn failure(&self, failure: &Failure) {
        // There is nowhere left to say that stderr is closed; the exit code still tells.
        let _ignored = write_line(&mut io::stderr().lock(), &self.failure_text(failure));
    }

    fn failure_text(&self, failure: &Failure) -> String {
        if self.json {
            return json!({"error": {
                "kind": failure.kind.name(), "message": failure.message, "hint": failure.hint,
            }})
            .to_string();
        }
        let mut text = format!("{} {}", self.paint("error:", "1;31"), failure.message);
        if let Some(hint) = &failure.hint {
            text = format!("{text}\n {} {hint}", self.paint("hint:", "1;36"));
        }
        text
    }

    /// The mark of a verdict, in colour on a terminal.
    #[must_use]
    pub fn verdict(&self, verdict: Verdict) -> String {
        match verdict {
            Verdict::Ok => self.paint("ok     ", "32"),
            Verdict::Skipped => self.paint("skipped", "2"),
            Verdict::Warning => self.paint("warning", "33"),
            Verdict::Problem => self.paint("PROBLEM", "1;31"),
        }
    }

    fn paint(&self, text: &str, code: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn write_line(out: &mut impl Write, text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // `mountctl ... | head -1` is not a failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure { kind: Kind::Failed, ..Failure::io("cannot write the answer", &error) }),
        Ok(()) => Ok(()),
    }
}

/// Columns that line up, with a head. Empty without rows.
#[must_use]
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend_from_slice(rows);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Bytes for people.
#[must_use]
pub fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// A point in time for scripts and people: RFC 3339 in UTC.
#[must_use]
pub fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| "unknown".to_owned(), |time| time.to_string())
}

/// The present, as [`time`] shows it.
#[must_use]
pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_json_object_or_two_lines() {
        let failure = Failure::new(Kind::Locked, "wrong password").hint("try again");
        let json = Output { json: true, quiet: false, color: false };
        assert_eq!(
            json.failure_text(&failure),
            r#"{"error":{"hint":"try again","kind":"locked","message":"wrong password"}}"#
        );
        let human = Output { json: false, ..json };
        assert_eq!(human.failure_text(&failure), "error: wrong password\n hint: try again");
    }

    #[test]
    fn tables_line_up() {
        let rows = [["a".to_owned(), "bcd".to_owned()], ["long".to_owned(), "e".to_owned()]];
        assert_eq!(table(["X", "Y"], &rows), "X     Y\na     bcd\nlong  e");
        assert_eq!(table(["X"], &[]), "");
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
    }
}
