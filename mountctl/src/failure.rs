//! A failed command as a person and a script see it: what failed, why, what to do.

use std::{error::Error, fmt};

use parsecfs_core::storage::{self, Barred};
use parsecfs_vfs::error as vfs;
use serde::{Deserialize, Serialize};

use crate::exit::Kind;

/// The answer of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Failure>;

/// What failed, why, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For scripts and the exit code.
    pub kind: Kind,
    /// One line: what failed, and why.
    pub message: String,
    /// What the person can do.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same with advice; advice that is there already is nearer to the cause and stays.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The same, said as the reason why something larger failed.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The failure of an operation of the machine.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => Kind::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
            Io::StorageFull | Io::QuotaExceeded => Kind::NoSpace,
            _ => Kind::Failed,
        };
        Self::new(kind, format!("{what}: {error}"))
    }
}

/// The error and its causes in one line, without saying the same twice in a row.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        let line = cause.to_string();
        if line != last {
            text = format!("{text}: {line}");
        }
        last = line;
        source = cause.source();
    }
    text
}

/// A storage that does not serve this device at all.
fn barred_by(barred: Barred) -> (Kind, &'static str) {
    match barred {
        Barred::Expired => (
            Kind::Expired,
            "ask whoever runs the server; what you change until then is kept here and goes up afterwards",
        ),
        Barred::Frozen => (
            Kind::Frozen,
            "ask whoever runs the server; what you change until then is kept here and goes up afterwards",
        ),
        Barred::TermsOfService => {
            (Kind::TermsOfService, "`mountctl org terms` shows them, `mountctl org terms --accept` accepts them")
        }
        Barred::WrongClock => (Kind::WrongClock, "set the clock (`timedatectl set-ntp true`), then try again"),
        Barred::Revoked => {
            (Kind::Revoked, "ask an admin of the organization; what was not synced is kept on this device")
        }
    }
}

impl From<vfs::Error> for Failure {
    fn from(error: vfs::Error) -> Self {
        use vfs::ErrorKind as From;
        if let Some(barred) = error.barred() {
            let (kind, hint) = barred_by(barred);
            return Self::new(kind, chain(&error)).hint(hint);
        }
        let (kind, hint) = match error.kind() {
            From::NotFound => (Kind::NotFound, None),
            From::Exists => (Kind::Exists, None),
            From::Locked => (Kind::Locked, None),
            From::ReadOnly | From::Denied | From::NotPermitted => (
                Kind::Denied,
                Some("`mountctl workspace list` shows your role, `mountctl doctor` whether the storage is read-only"),
            ),
            From::Offline => (Kind::Offline, Some("check that the storage can be reached, then try again")),
            From::Corrupt => (Kind::Corrupt, Some("`mountctl doctor` lists what is damaged")),
            From::Untrusted => (
                Kind::Untrusted,
                Some(
                    "do not write to this storage before you know who changed it; other devices still have their data",
                ),
            ),
            From::NoSpace => (Kind::NoSpace, Some("free some space and try again; what was acknowledged is kept")),
            From::Busy => (Kind::Busy, None),
            From::UnsupportedVersion => (Kind::UnsupportedVersion, Some("install a newer version of mountctl")),
            From::InvalidArgument | From::InvalidName | From::NameTooLong => (Kind::Usage, None),
            From::NotDirectory
            | From::IsDirectory
            | From::NotEmpty
            | From::TooManyLinks
            | From::TooLarge
            | From::NoAttribute
            | From::Unsupported
            | From::Stale
            | From::Internal => (Kind::Failed, None),
        };
        let failure = Self::new(kind, chain(&error));
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        vfs::Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once_and_in_order() {
        let error = vfs::Error::new(vfs::ErrorKind::Offline, "cannot read log")
            .caused_by(storage::Error::new(storage::ErrorKind::Offline, "connection refused"));
        let failure = Failure::from(error).context("cannot sync");
        assert_eq!(failure.message, "cannot sync: cannot read log: connection refused");
        assert_eq!(failure.kind.code(), 13);
    }

    #[test]
    fn the_nearest_hint_stays() {
        let failure = Failure::new(Kind::Failed, "x").hint("near").hint("far");
        assert_eq!(failure.hint.as_deref(), Some("near"));
    }

    #[test]
    fn a_read_only_medium_is_a_denial_and_a_full_one_is_no_space() {
        for (raw, kind) in [(30, Kind::Denied), (13, Kind::Denied), (28, Kind::NoSpace), (2, Kind::NotFound)] {
            assert_eq!(Failure::io("x", &std::io::Error::from_raw_os_error(raw)).kind, kind);
        }
    }
}
