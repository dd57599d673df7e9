//! What recovery by shares hands out (formats.md 3.1): the shares of each recipient, and the secret that enough of them
//! make. The certificates about them are in [`certificate`](crate::certificate).
//!
//! A key on its way: the keys of a device that nobody has are sealed with a random `data_key`; that key and the token that
//! makes a storage hand out the sealed device are split ([`SharePlan`]); each recipient's shares are signed, sealed for the
//! recipient, and lie in a certificate. Back: recipients open theirs and give them to whoever lost everything
//! ([`ShareCollection`]); enough of them make token and key again.
//!
//! What could go wrong: recipients together can do it without being asked, so a threshold is trust in that many people;
//! and whoever once got the sealed device and the key has it for ever, deletion or not. A recipient can give a wrong share,
//! which shows only in what enough shares make.

mod collection;
mod plan;

pub use collection::{Recovered, ShareCollection};
pub use plan::SharePlan;

use std::fmt;

use parsecfs_crypto::{PrivateKey, PublicKey, SecretKey, SigningKey, VerifyKey, shamir};
use rmpv::Value;
use zeroize::Zeroizing;

use crate::{
    document::{Document, Field, documents, from_secret_frame, read_list, sign_secret, to_secret_frame, verify},
    error::{Error, ErrorKind, Result},
    id::{DeviceId, RevealToken},
    time::Timestamp,
};

/// The shares of one recipient, as many as the recipient's weight.
#[derive(Clone, PartialEq)]
pub struct WeightedShare(Vec<Zeroizing<Vec<u8>>>);

impl WeightedShare {
    /// Puts shares together.
    #[must_use]
    pub fn new(shares: Vec<Vec<u8>>) -> Self {
        Self(shares.into_iter().map(Zeroizing::new).collect())
    }

    /// The shares, for [`ShamirRecoverySecret::recover`].
    #[must_use]
    pub fn shares(&self) -> &[Zeroizing<Vec<u8>>] {
        &self.0
    }
}

impl Field for WeightedShare {
    fn read(value: Value) -> Result<Self> {
        read_list(value).map(Self::new)
    }

    fn write(&self) -> Value {
        Value::Array(self.0.iter().map(|share| share.as_slice().into()).collect())
    }
}

/// Shares do not print.
impl fmt::Debug for WeightedShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightedShare({})", self.0.len())
    }
}

documents! {
    /// The shares of a recipient, as they lie in the recipient's certificate.
    #[derive(Clone, Debug, PartialEq)]
    ShamirRecoveryShareData = "shamir_recovery_share_data" {
        /// Device that signed.
        author: DeviceId,
        /// When: the time of the setup's certificates.
        timestamp: Timestamp,
        /// The shares.
        weighted_share: WeightedShare,
    }

    /// The secret that is shared.
    #[derive(PartialEq)]
    ShamirRecoverySecret = "shamir_recovery_secret" {
        /// Key of the sealed recovery device on the server.
        data_key: SecretKey,
        /// Makes the server hand that out.
        reveal_token: RevealToken,
    }
}

impl ShamirRecoveryShareData {
    /// Signs, then seals for the recipient. `Invalid` when the recipient's key is not a usable one.
    pub fn seal(&self, author: &SigningKey, recipient: &PublicKey) -> Result<Vec<u8>> {
        let unusable = |_| Error::new(ErrorKind::Invalid, "cannot seal for this public key");
        recipient.seal(&sign_secret(self, author)).map_err(unusable)
    }

    /// Opens one's own. Author and time are those of the certificate that it lies in.
    pub fn open(
        sealed: &[u8],
        recipient: &PrivateKey,
        verify_key: &VerifyKey,
        author: DeviceId,
        timestamp: Timestamp,
    ) -> Result<Self> {
        let refused = |_| Error::new(ErrorKind::Decryption, "share does not open with this key");
        let signed = Zeroizing::new(recipient.open(sealed).map_err(refused)?);
        let share = Self::read(from_secret_frame(verify(&signed, verify_key)?)?)?;
        if share.author != author {
            return Err(Error::new(ErrorKind::Author, "share of another author than its certificate"));
        }
        if share.timestamp != timestamp {
            return Err(Error::new(ErrorKind::Timestamp, "share of another time than its certificate"));
        }
        Ok(share)
    }
}

impl ShamirRecoverySecret {
    /// Splits it into `count` shares of which any `threshold` recover it. `Invalid` unless 1 ≤ threshold ≤ count.
    pub fn split(&self, threshold: u8, count: u8) -> Result<Vec<Zeroizing<Vec<u8>>>> {
        let impossible = |_| Error::new(ErrorKind::Invalid, "threshold is 0 or above the number of shares");
        shamir::split(&to_secret_frame(self.write()), threshold, count).map_err(impossible)
    }

    /// Puts it together from `threshold` shares. `Decryption` when they do not fit each other; a wrong share among them
    /// gives bytes that are no secret, and any error of a document.
    pub fn recover<S: AsRef<[u8]>>(shares: &[S], threshold: u8) -> Result<Self> {
        let refused = |_| Error::new(ErrorKind::Decryption, "shares do not fit each other");
        let frame = shamir::recover(shares, threshold).map_err(refused)?;
        Self::read(from_secret_frame(&frame)?)
    }
}

/// The secret does not print.
impl fmt::Debug for ShamirRecoverySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShamirRecoverySecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_shares_recover_the_secret_and_a_wrong_one_is_noticed() {
        let secret =
            ShamirRecoverySecret { data_key: SecretKey::generate(), reveal_token: RevealToken::from_bytes([7; 16]) };
        let mut shares = secret.split(2, 3).unwrap();
        let recovered = ShamirRecoverySecret::recover(&shares[1..], 2).unwrap();
        assert!(recovered.data_key == secret.data_key && recovered.reveal_token == secret.reveal_token);
        assert_eq!(ShamirRecoverySecret::recover(&shares[..1], 2).unwrap_err().kind(), ErrorKind::Decryption);
        shares[0][1] ^= 1;
        assert!(ShamirRecoverySecret::recover(&shares, 2).is_err());
        assert_eq!(secret.split(4, 3).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn share_data_must_be_that_of_its_certificate() {
        let (author, recipient) = (SigningKey::generate(), PrivateKey::generate());
        let (device, time) = (DeviceId::from_bytes([1; 16]), Timestamp::from_micros(5).unwrap());
        let data = ShamirRecoveryShareData {
            author: device,
            timestamp: time,
            weighted_share: WeightedShare::new(vec![vec![1, 2]]),
        };
        let sealed = data.seal(&author, &recipient.public_key()).unwrap();
        let open = |key: &PrivateKey, signer: &SigningKey, device, time| {
            let opened = ShamirRecoveryShareData::open(&sealed, key, &signer.verify_key(), device, time);
            opened.map_err(|error| error.kind())
        };
        let other = (DeviceId::from_bytes([2; 16]), time.next());
        assert_eq!(open(&recipient, &author, device, time), Ok(data.clone()));
        assert_eq!(open(&PrivateKey::generate(), &author, device, time), Err(ErrorKind::Decryption));
        assert_eq!(open(&recipient, &SigningKey::generate(), device, time), Err(ErrorKind::Signature));
        assert_eq!(open(&recipient, &author, other.0, time), Err(ErrorKind::Author));
        assert_eq!(open(&recipient, &author, device, other.1), Err(ErrorKind::Timestamp));
    }
}
