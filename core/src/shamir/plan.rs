//! Who is to hold how many shares, before anything is signed.

use std::{collections::BTreeMap, num::NonZeroU8};

use super::{ShamirRecoverySecret, WeightedShare};
use crate::{
    error::{Error, ErrorKind, Result},
    id::UserId,
};

/// A place of a share is a byte that is not 0.
const SHARES_MAX: u64 = 255;

/// Who is to hold how many shares, and how many of them are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharePlan {
    threshold: NonZeroU8,
    recipients: BTreeMap<UserId, NonZeroU8>,
}

impl SharePlan {
    /// `Integrity` when there are fewer shares than are needed, or more than can be.
    pub fn new(threshold: NonZeroU8, recipients: BTreeMap<UserId, NonZeroU8>) -> Result<Self> {
        let refuse = |why| Err(Error::new(ErrorKind::Integrity, why));
        let total: u64 = recipients.values().map(|shares| u64::from(shares.get())).sum();
        if total > SHARES_MAX {
            return refuse("there are more than 255 shares");
        }
        if u64::from(threshold.get()) > total {
            return refuse("more shares are needed than there are");
        }
        Ok(Self { threshold, recipients })
    }

    /// Shares that are needed.
    #[must_use]
    pub fn threshold(&self) -> NonZeroU8 {
        self.threshold
    }

    /// Who is to hold how many.
    #[must_use]
    pub fn recipients(&self) -> &BTreeMap<UserId, NonZeroU8> {
        &self.recipients
    }

    /// Splits a secret; everybody gets as many shares as planned.
    pub fn share_out(&self, secret: &ShamirRecoverySecret) -> Result<BTreeMap<UserId, WeightedShare>> {
        let total = self.recipients.values().map(|shares| shares.get()).sum();
        let mut shares = secret.split(self.threshold.get(), total)?.into_iter();
        let mut part = |count: &NonZeroU8| WeightedShare(shares.by_ref().take(count.get().into()).collect());
        Ok(self.recipients.iter().map(|(user, count)| (*user, part(count))).collect())
    }
}

#[cfg(test)]
mod tests {
    use parsecfs_crypto::SecretKey;

    use super::*;
    use crate::id::RevealToken;

    fn plan(threshold: u8, weights: &[u8]) -> Result<SharePlan> {
        let count = |number| NonZeroU8::new(number).unwrap();
        let users = (1..).map(|user| UserId::from_bytes([user; 16]));
        SharePlan::new(count(threshold), users.zip(weights.iter().copied().map(count)).collect())
    }

    #[test]
    fn everybody_gets_as_many_shares_as_planned_and_all_differ() {
        let secret =
            ShamirRecoverySecret { data_key: SecretKey::generate(), reveal_token: RevealToken::from_bytes([7; 16]) };
        let shared = plan(4, &[2, 1, 3]).unwrap().share_out(&secret).unwrap();
        let counts: Vec<_> = shared.values().map(|shares| shares.shares().len()).collect();
        assert_eq!(counts, [2, 1, 3]);
        let all: Vec<_> = shared.values().flat_map(WeightedShare::shares).collect();
        assert!(ShamirRecoverySecret::recover(&all[2..], 4).unwrap() == secret);
        assert!(ShamirRecoverySecret::recover(&all[..3], 3).is_err());
    }

    #[test]
    fn a_plan_that_cannot_work_is_refused() {
        for (threshold, weights) in [(1, &[][..]), (3, &[1, 1]), (1, &[128, 128])] {
            assert_eq!(plan(threshold, weights).unwrap_err().kind(), ErrorKind::Integrity);
        }
        assert!(plan(255, &[127, 128]).is_ok() && plan(1, &[1]).is_ok());
    }
}
