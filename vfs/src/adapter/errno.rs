//! What programs see for each kind of error: one exhaustive table, repeated in `docs/SEMANTICS.md`.

use rustix::io::Errno;

use crate::error::{Error, ErrorKind};

/// The errno of an error.
pub(crate) fn errno(error: &Error) -> Errno {
    match error.kind() {
        ErrorKind::NotFound => Errno::NOENT,
        ErrorKind::Exists => Errno::EXIST,
        ErrorKind::NotDirectory => Errno::NOTDIR,
        ErrorKind::IsDirectory => Errno::ISDIR,
        ErrorKind::NotEmpty => Errno::NOTEMPTY,
        ErrorKind::NameTooLong => Errno::NAMETOOLONG,
        // The byte sequence is no text: what filesystems with an encoding say.
        ErrorKind::InvalidName => Errno::ILSEQ,
        ErrorKind::InvalidArgument => Errno::INVAL,
        ErrorKind::NotPermitted => Errno::PERM,
        ErrorKind::ReadOnly => Errno::ROFS,
        ErrorKind::Denied => Errno::ACCESS,
        ErrorKind::NoSpace => Errno::NOSPC,
        ErrorKind::TooManyLinks => Errno::MLINK,
        ErrorKind::TooLarge => Errno::FBIG,
        ErrorKind::NoAttribute => Errno::NODATA,
        ErrorKind::Unsupported => Errno::OPNOTSUPP,
        // As network filesystems say it: the file is fine, the way to it is not.
        ErrorKind::Offline => Errno::HOSTUNREACH,
        // Damaged and forged look the same to a program: these bytes cannot be had.
        ErrorKind::Corrupt | ErrorKind::Untrusted | ErrorKind::UnsupportedVersion | ErrorKind::Internal => Errno::IO,
        ErrorKind::Locked => Errno::ACCESS,
        ErrorKind::Stale => Errno::STALE,
        ErrorKind::Busy => Errno::BUSY,
    }
}
