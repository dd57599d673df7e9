//! Getting a secret back from the shares that several people bring, one after the other.
//!
//! A share travels from the recipient to whoever lost the devices over an exchange that both compared codes for, so it is
//! what that person keeps; but the person may keep nonsense, or shares of another recovery. Shares carry no proof of
//! their own: that they were good shows in the secret that they make. So one bad giver among enough good ones is found by
//! leaving out each in turn.

use std::{collections::BTreeMap, num::NonZeroU8};

use super::{ShamirRecoverySecret, WeightedShare};
use crate::{
    error::{Error, ErrorKind, Result},
    id::UserId,
};

/// Shares that were given so far.
#[derive(Debug)]
pub struct ShareCollection {
    threshold: NonZeroU8,
    recipients: BTreeMap<UserId, NonZeroU8>,
    given: BTreeMap<UserId, WeightedShare>,
}

/// A secret that came together.
pub struct Recovered {
    /// The secret.
    pub secret: ShamirRecoverySecret,
    /// Whoever gave shares that are not of this recovery.
    pub misled_by: Option<UserId>,
}

impl ShareCollection {
    /// None given yet. `threshold` of the shares of `recipients` are needed.
    #[must_use]
    pub fn new(threshold: NonZeroU8, recipients: BTreeMap<UserId, NonZeroU8>) -> Self {
        Self { threshold, recipients, given: BTreeMap::new() }
    }

    /// Takes what somebody gave. `UserId` when that is no recipient, `Integrity` when it cannot be what that recipient
    /// has. The same person again replaces what was given before. Whether it fits what others gave is not asked here: any
    /// of them may be the one who is wrong.
    pub fn add(&mut self, giver: UserId, shares: WeightedShare) -> Result<()> {
        let expected = self.recipients.get(&giver);
        let expected = expected.ok_or(Error::new(ErrorKind::UserId, "this person holds no share of this recovery"))?;
        if shares.shares().len() != usize::from(expected.get()) {
            return Err(Error::new(ErrorKind::Integrity, "this is not the number of shares that this person holds"));
        }
        if shares.shares().iter().any(|share| share.len() < 2 || share[0] == 0) {
            return Err(Error::new(ErrorKind::Integrity, "a share is malformed"));
        }
        self.given.insert(giver, shares);
        Ok(())
    }

    /// Who gave.
    pub fn givers(&self) -> impl Iterator<Item = UserId> {
        self.given.keys().copied()
    }

    /// Whether somebody gave.
    #[must_use]
    pub fn has(&self, giver: UserId) -> bool {
        self.given.contains_key(&giver)
    }

    /// How many shares are still needed.
    #[must_use]
    pub fn missing(&self) -> u8 {
        let count: usize = self.given.values().map(|given| given.shares().len()).sum();
        self.threshold.get().saturating_sub(u8::try_from(count).unwrap_or(u8::MAX))
    }

    /// The secret. `Decryption` when there are too few shares, or when they make none: then one more giver may show who
    /// gave a wrong one.
    pub fn recover(&self) -> Result<Recovered> {
        if self.missing() > 0 {
            return Err(Error::new(ErrorKind::Decryption, "there are too few shares"));
        }
        let without = [None].into_iter().chain(self.givers().map(Some));
        let mut tries = without.filter_map(|left_out| self.recover_without(left_out));
        tries.next().ok_or(Error::new(ErrorKind::Decryption, "somebody gave a share of another recovery"))
    }

    fn recover_without(&self, left_out: Option<UserId>) -> Option<Recovered> {
        let threshold = self.threshold.get();
        let used = self.given.iter().filter(|(giver, _)| Some(**giver) != left_out);
        let shares: Vec<(UserId, &[u8])> =
            used.flat_map(|(giver, given)| given.shares().iter().map(|share| (*giver, share.as_slice()))).collect();
        let (proven, others) = shares.split_at_checked(threshold.into())?;
        let proven: Vec<_> = proven.iter().map(|(_, share)| *share).collect();
        let secret = ShamirRecoverySecret::recover(&proven, threshold).ok()?;
        // Each of the others has to make the same in the place of one of these.
        let is_wrong = |share: &[u8]| {
            let instead: Vec<_> = [share].into_iter().chain(proven[1..].iter().copied()).collect();
            !ShamirRecoverySecret::recover(&instead, threshold).is_ok_and(|made| made == secret)
        };
        let wrong = || others.iter().find(|(_, share)| is_wrong(share)).map(|(giver, _)| *giver);
        Some(Recovered { misled_by: left_out.or_else(wrong), secret })
    }
}

#[cfg(test)]
mod tests {
    use parsecfs_crypto::SecretKey;

    use super::*;
    use crate::{id::RevealToken, shamir::SharePlan};

    const fn user(id: u8) -> UserId {
        UserId::from_bytes([id; 16])
    }

    fn count(number: u8) -> NonZeroU8 {
        NonZeroU8::new(number).unwrap()
    }

    fn secret() -> ShamirRecoverySecret {
        ShamirRecoverySecret { data_key: SecretKey::generate(), reveal_token: RevealToken::from_bytes([7; 16]) }
    }

    /// Two of users 1, 2, 3 (one share each) or user 4 (two) alone.
    fn shared(secret: &ShamirRecoverySecret) -> (ShareCollection, BTreeMap<UserId, WeightedShare>) {
        let recipients = [(user(1), count(1)), (user(2), count(1)), (user(3), count(1)), (user(4), count(2))];
        let plan = SharePlan::new(count(2), recipients.into()).unwrap();
        let shares = plan.share_out(secret).unwrap();
        (ShareCollection::new(plan.threshold(), plan.recipients().clone()), shares)
    }

    #[test]
    fn enough_recipients_in_any_order_make_the_secret() {
        let secret = secret();
        for givers in [&[1, 2][..], &[3, 1], &[4], &[4, 1, 2]] {
            let (mut collection, shares) = shared(&secret);
            assert_eq!(collection.missing(), 2);
            for giver in givers {
                collection.add(user(*giver), shares[&user(*giver)].clone()).unwrap();
            }
            assert_eq!(collection.missing(), 0);
            let recovered = collection.recover().unwrap();
            assert!(recovered.secret == secret && recovered.misled_by.is_none());
        }
    }

    #[test]
    fn too_few_foreign_and_repeated_shares_are_named() {
        let (mut collection, shares) = shared(&secret());
        let add = |collection: &mut ShareCollection, giver, shares: &WeightedShare| {
            collection.add(user(giver), shares.clone()).map_err(|error| error.to_string())
        };
        add(&mut collection, 1, &shares[&user(1)]).unwrap();
        add(&mut collection, 1, &shares[&user(1)]).unwrap();
        assert_eq!((collection.missing(), collection.has(user(1)), collection.has(user(2))), (1, true, false));
        assert_eq!(collection.recover().err().unwrap().to_string(), "there are too few shares");
        let refused = add(&mut collection, 9, &shares[&user(2)]).unwrap_err();
        assert_eq!(refused, "this person holds no share of this recovery");
        let refused = add(&mut collection, 4, &shares[&user(2)]).unwrap_err();
        assert_eq!(refused, "this is not the number of shares that this person holds");
        for malformed in [vec![], vec![0, 1], vec![7]] {
            let refused = add(&mut collection, 2, &WeightedShare::new(vec![malformed])).unwrap_err();
            assert_eq!(refused, "a share is malformed");
        }
    }

    #[test]
    fn a_wrong_share_that_was_not_needed_is_found_too() {
        for giver in 1..=3 {
            let secret = secret();
            let (mut collection, shares) = shared(&secret);
            for other in 1..=3 {
                collection.add(user(other), shares[&user(other)].clone()).unwrap();
            }
            assert_eq!(collection.recover().unwrap().misled_by, None);
            let mut wrong = shares[&user(giver)].shares()[0].to_vec();
            wrong[1..].reverse();
            collection.add(user(giver), WeightedShare::new(vec![wrong])).unwrap();
            let recovered = collection.recover().unwrap();
            assert!(recovered.secret == secret && recovered.misled_by == Some(user(giver)), "{giver}");
        }
    }

    #[test]
    fn who_gave_a_wrong_share_is_found_once_enough_others_gave_theirs() {
        let secret = secret();
        let (_, shares) = shared(&secret);
        let mut bent = shares[&user(1)].shares()[0].to_vec();
        for byte in &mut bent[1..] {
            *byte ^= 0x5a;
        }
        let taken = shares[&user(2)].shares()[0].to_vec();
        for wrong in [bent, taken, vec![1, 9]] {
            let (mut collection, _) = shared(&secret);
            collection.add(user(1), WeightedShare::new(vec![wrong])).unwrap();
            collection.add(user(2), shares[&user(2)].clone()).unwrap();
            let refused = collection.recover().err().unwrap();
            assert_eq!(refused.to_string(), "somebody gave a share of another recovery");
            collection.add(user(3), shares[&user(3)].clone()).unwrap();
            let recovered = collection.recover().unwrap();
            assert!(recovered.secret == secret && recovered.misled_by == Some(user(1)));
            collection.add(user(1), shares[&user(1)].clone()).unwrap();
            assert_eq!(collection.recover().unwrap().misled_by, None, "who gave the right one then");
        }
    }
}
