//! A realm's log, replayed in two passes: certificates, which every device of the organization can read, and data,
//! which needs the realm's keys.
//!
//! The passes are apart because the keys come out of the first: a device that was just given a role finds its access
//! behind data that it cannot open yet. So the verdict on a certificate entry never depends on a data entry, and each
//! pass has operation numbers of its own. The verdict on a data entry depends on the certificates before it in the
//! log, on the data before it, and on the organization log as far as any of these quotes it.
//!
//! Invariants: `data.seq <= certificates.seq`; a void entry changes nothing but the position.

mod certificates;
mod data;
mod places;

use parsecfs_core::storage::{ErrorKind, LogKeys, Result};

pub(super) use self::{
    certificates::{Certificates, Marks},
    data::{BlockPlace, Data, Judgement, Pending, Rules, VlobPlace, Written},
    places::Places,
};
use super::{
    entry::{Body, Change, RawEntry},
    organization::open_body,
};

/// An entry, opened as far as this device can.
pub(super) enum Opened {
    /// Needs a key that this device does not have yet.
    Sealed,
    /// Says nothing.
    Void,
    /// Says this.
    Body(Vec<u8>, Body),
}

pub(super) fn open(raw: &RawEntry, keys: &dyn LogKeys) -> Result<Opened> {
    match open_body(raw, keys) {
        Ok(Some((bytes, body))) => Ok(Opened::Body(bytes, body)),
        Ok(None) => Ok(Opened::Void),
        Err(error) if error.kind() == ErrorKind::NotFound && raw.header.key_index > 0 => Ok(Opened::Sealed),
        Err(error) => Err(error),
    }
}

fn carries_certificates(body: &Body) -> bool {
    body.changes.iter().all(|change| matches!(change, Change::Statement(_) | Change::Fence))
}
