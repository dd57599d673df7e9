//! How rows are sealed, and how a missing one is told.
//!
//! Table and key are associated data, so that rows cannot be swapped. A nonce is the session, 16 random bytes made at each
//! opening, and a number that is never used twice in it.

use parsecfs_crypto::{
    local::{LOCAL_TAG_BYTES, LocalNonce},
    sha256,
};
use serde::{Deserialize, Serialize};

use super::{Index, RowKey};
use crate::error::{Error, ErrorKind, Result};

const NONCE_BYTES: usize = 24;

/// Keeps row nonces apart from those of segments, whatever their session.
const ROW_PART: u64 = u64::MAX - 2;

/// Associated data of the state; the first byte is no table of rows.
pub(super) const STATE: [u8; 17] = [255; 17];

/// The sum of the digests of all rows' clear columns. Sealed in the state, it tells when a row has gone, or got another
/// key, by damage to the pages of the database: such a row would not fail but be missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keys(u128);

impl Keys {
    fn digest(key: RowKey, id: Option<&[u8]>, pending: bool) -> u128 {
        let mut clear = associated(key).to_vec();
        clear.push(u8::from(pending));
        clear.extend_from_slice(id.unwrap_or_default());
        let digest = sha256(&clear);
        digest.as_bytes().iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte))
    }

    pub(super) fn add(&mut self, key: RowKey, id: Option<&[u8]>, pending: bool) {
        self.0 = self.0.wrapping_add(Self::digest(key, id, pending));
    }

    pub(super) fn remove(&mut self, key: RowKey, id: Option<&[u8]>, pending: bool) {
        self.0 = self.0.wrapping_sub(Self::digest(key, id, pending));
    }
}

impl Index {
    pub(super) fn seal(&mut self, key: RowKey, plain: &[u8]) -> Vec<u8> {
        self.seal_as(&associated(key), plain)
    }

    pub(super) fn seal_as(&mut self, associated: &[u8; 17], plain: &[u8]) -> Vec<u8> {
        let number = self.next_nonce;
        self.next_nonce += 1;
        let mut out = Vec::with_capacity(NONCE_BYTES + plain.len() + LOCAL_TAG_BYTES);
        out.extend_from_slice(&self.session);
        out.extend_from_slice(&number.to_le_bytes());
        self.key.seal_into(&LocalNonce::new(self.session, number, ROW_PART), associated, plain, &mut out);
        out
    }

    pub(super) fn unseal(&self, key: RowKey, sealed: &[u8]) -> Result<Vec<u8>> {
        let damaged = || Error::new(ErrorKind::Corrupt, format!("row {key:?} of the local store does not open"));
        self.unseal_as(&associated(key), sealed).ok_or_else(damaged)
    }

    /// `None` when it does not open.
    pub(super) fn unseal_as(&self, associated: &[u8; 17], sealed: &[u8]) -> Option<Vec<u8>> {
        let length = sealed.len().checked_sub(NONCE_BYTES + LOCAL_TAG_BYTES)?;
        let (nonce, body) = sealed.split_at(NONCE_BYTES);
        let mut session = [0u8; 16];
        session.copy_from_slice(&nonce[..16]);
        let mut number = [0u8; 8];
        number.copy_from_slice(&nonce[16..]);
        let mut plain = vec![0u8; length];
        let nonce = LocalNonce::new(session, u64::from_le_bytes(number), ROW_PART);
        self.key.open_into(&nonce, associated, body, &mut plain).is_ok().then_some(plain)
    }
}

/// Table and key of a row.
fn associated(key: RowKey) -> [u8; 17] {
    let (table, a, b) = key.parts();
    let mut out = [0u8; 17];
    out[0] = table;
    out[1..9].copy_from_slice(&a.to_le_bytes());
    out[9..].copy_from_slice(&b.to_le_bytes());
    out
}
