//! What programs see for each kind of error: one exhaustive table, repeated in `docs/SEMANTICS.md`.

use fuser::Errno;

use crate::error::{Error, ErrorKind};

/// The errno of an error.
pub(crate) fn errno(error: &Error) -> Errno {
    match error.kind() {
        ErrorKind::NotFound => Errno::ENOENT,
        ErrorKind::Exists => Errno::EEXIST,
        ErrorKind::NotDirectory => Errno::ENOTDIR,
        ErrorKind::IsDirectory => Errno::EISDIR,
        ErrorKind::NotEmpty => Errno::ENOTEMPTY,
        ErrorKind::NameTooLong => Errno::ENAMETOOLONG,
        // The byte sequence is no text: what filesystems with an encoding say.
        ErrorKind::InvalidName => Errno::EILSEQ,
        ErrorKind::InvalidArgument => Errno::EINVAL,
        ErrorKind::NotPermitted => Errno::EPERM,
        ErrorKind::ReadOnly => Errno::EROFS,
        ErrorKind::Denied => Errno::EACCES,
        ErrorKind::NoSpace => Errno::ENOSPC,
        ErrorKind::TooLarge => Errno::EFBIG,
        ErrorKind::NoAttribute => Errno::NO_XATTR,
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        // As network filesystems say it: the file is fine, the way to it is not.
        ErrorKind::Offline => Errno::EHOSTUNREACH,
        // Damaged and forged look the same to a program: these bytes cannot be had.
        ErrorKind::Corrupt | ErrorKind::Untrusted | ErrorKind::UnsupportedVersion | ErrorKind::Internal => Errno::EIO,
        ErrorKind::Locked => Errno::EACCES,
        ErrorKind::Stale => Errno::ESTALE,
        ErrorKind::Busy => Errno::EBUSY,
    }
}
