//! What a command ends with: one kind of failure for scripts, one exit code for shells. Codes are promises: add, never
//! reuse.

use serde::{Deserialize, Serialize};

/// Everything went well.
pub const DONE: u8 = 0;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $code:literal),* $(,)?) => {
        /// Why a command failed, stable for scripts.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl Kind {
            /// Every kind there is.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The word in `--json` output.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// The exit code of the process.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Self::$kind => $code),* }
            }
        }
    };
}

kinds! {
    /// Nothing more precise is known.
    Failed "failed" 1,
    /// The disk or the store is full.
    NoSpace "no_space" 1,
    /// Written by a newer version.
    UnsupportedVersion "unsupported_version" 1,
    /// Something uses the mount.
    Busy "busy" 1,
    /// The time given was over.
    Timeout "timeout" 1,
    /// The background process went away in the middle.
    AgentGone "agent_gone" 1,
    /// The name is taken.
    Exists "exists" 1,
    /// The arguments make no sense.
    Usage "usage" 2,
    /// A name fits several things.
    Ambiguous "ambiguous" 2,
    /// Some of it was done.
    Partly "partly" 3,
    /// There is no such thing.
    NotFound "not_found" 10,
    /// The key of the device cannot be unlocked.
    Locked "locked" 11,
    /// The device file is damaged.
    DeviceFile "device_file" 11,
    /// A signature, role or history does not hold.
    Untrusted "untrusted" 12,
    /// Damaged or forged data.
    Corrupt "corrupt" 12,
    /// The storage cannot be reached.
    Offline "offline" 13,
    /// Role or medium does not allow it.
    Denied "denied" 14,
    /// The organization ran out of time on its server.
    Expired "expired" 14,
    /// The server's operator put this user on hold.
    Frozen "frozen" 14,
    /// The user does not belong to the organization any more.
    Revoked "revoked" 14,
    /// The terms of service have to be accepted first.
    TermsOfService "terms_of_service" 14,
    /// The clock of this machine is wrong.
    WrongClock "wrong_clock" 1,
    /// The directory cannot be a mount point.
    MountPoint "mount_point" 15,
    /// Mounts do not work on this machine.
    NoFuse "no_fuse" 15,
    /// Nothing is mounted there.
    NotMounted "not_mounted" 16,
    /// It is mounted already.
    AlreadyMounted "already_mounted" 16,
    /// There are changes that only this device has.
    Unsynced "unsynced" 17,
    /// A check found problems.
    Problems "problems" 18,
    /// The person interrupted it.
    Interrupted "interrupted" 130,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_table() {
        let table: &[(u8, &[Kind])] = &[
            (1, &[Kind::Failed, Kind::NoSpace, Kind::UnsupportedVersion, Kind::Busy, Kind::Timeout, Kind::Exists]),
            (1, &[Kind::AgentGone, Kind::WrongClock]),
            (2, &[Kind::Usage, Kind::Ambiguous]),
            (3, &[Kind::Partly]),
            (10, &[Kind::NotFound]),
            (11, &[Kind::Locked, Kind::DeviceFile]),
            (12, &[Kind::Untrusted, Kind::Corrupt]),
            (13, &[Kind::Offline]),
            (14, &[Kind::Denied, Kind::Expired, Kind::Frozen, Kind::Revoked, Kind::TermsOfService]),
            (15, &[Kind::MountPoint, Kind::NoFuse]),
            (16, &[Kind::NotMounted, Kind::AlreadyMounted]),
            (17, &[Kind::Unsynced]),
            (18, &[Kind::Problems]),
            (130, &[Kind::Interrupted]),
        ];
        let mut listed = 0;
        for (code, kinds) in table {
            for kind in *kinds {
                assert_eq!(kind.code(), *code, "{}", kind.name());
                listed += 1;
            }
        }
        assert_eq!(listed, Kind::ALL.len(), "every kind is in the table once");
    }

    #[test]
    fn names_are_unique_and_what_serde_writes() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
