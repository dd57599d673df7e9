//! What checks find.

use serde::{Deserialize, Serialize};

use crate::{exit::Kind, failure::Failure};

/// Something that a check looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, stable.
    pub check: String,
    /// What came out.
    pub verdict: Verdict,
    /// One line for people.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Finding {
    /// What could not be done. Damage sends people to the doctor, but not from there: it says what comes next.
    #[must_use]
    pub fn failed(check: &str, verdict: Verdict, failure: Failure) -> Self {
        let hint = match failure.kind {
            Kind::Corrupt => Some(
                "with --deep each damaged object is named: put those back from a copy of the storage; files that are \
                 here can be used"
                    .to_owned(),
            ),
            _ => failure.hint,
        };
        Self { check: check.to_owned(), verdict, message: failure.message, hint }
    }
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Could not be looked at.
    Skipped,
    /// Works, but one should know.
    Warning,
    /// Does not work.
    Problem,
}
