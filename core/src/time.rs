//! Time as the documents hold it: microseconds since 1970-01-01 UTC. This crate never asks what time it is.

use std::fmt;

/// A point in time with the precision of the documents (formats.md 2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The largest value that a document may hold.
    pub const MAX: Self = Self(8_210_266_876_799_999_999);

    /// Accepts microseconds since the epoch up to [`Timestamp::MAX`]; negative is before 1970.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Option<Self> {
        if micros > Self::MAX.0 { None } else { Some(Self(micros)) }
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The next representable point in time, or `self` at the end of time.
    #[must_use]
    pub const fn next(self) -> Self {
        if self.0 >= Self::MAX.0 { self } else { Self(self.0 + 1) }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({}us)", self.0)
    }
}
