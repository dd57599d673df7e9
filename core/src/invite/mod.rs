//! Invitations: the [`Exchange`] in which two sides come to share a key, and what they tell each other once they do
//! (protocol.md 6).
//!
//! Payloads are sealed, not signed: the shared key itself proves who speaks, after both have compared codes.

mod exchange;
mod step;

pub use exchange::{Exchange, NONCE_BYTES, Next};
pub use step::{CancelReason, LAST_STEP, Side, Step};

use parsecfs_crypto::{PrivateKey, PublicKey, SecretKey, VerifyKey};
use rmpv::Value;
use zeroize::Zeroizing;

use crate::{
    certificate::UserProfile,
    document::{Document, Fields, Writer, documents, from_secret_frame, to_secret_frame},
    error::{Error, ErrorKind, Result},
    id::{DeviceId, RealmId, UserId},
    name::{DeviceLabel, HumanHandle},
    shamir::WeightedShare,
};

documents! {
    /// What somebody who becomes a user asks for.
    #[derive(Clone, Debug, PartialEq)]
    InviteUserData = "invite_user_data" {
        /// Name of the device, a wish.
        requested_device_label: DeviceLabel,
        /// The person, a wish.
        requested_human_handle: HumanHandle,
        /// Key that others seal for.
        public_key: PublicKey,
        /// Key of the device's signatures.
        verify_key: VerifyKey,
    }

    /// What the new user got, which may differ from the wishes.
    #[derive(Clone, Debug, PartialEq)]
    InviteUserConfirmation = "invite_user_confirmation" {
        /// The user.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// Its name.
        device_label: DeviceLabel,
        /// The person.
        human_handle: HumanHandle,
        /// What the user may do.
        profile: UserProfile,
        /// Proves the organization.
        root_verify_key: VerifyKey,
        /// Our extension: key of the logs of an organization without a server, absent on a server.
        organization_key: Option<SecretKey> [absent],
    }

    /// What a further device asks for.
    #[derive(Clone, Debug, PartialEq)]
    InviteDeviceData = "invite_device_data" {
        /// Name of the device, a wish.
        requested_device_label: DeviceLabel,
        /// Key of its signatures.
        verify_key: VerifyKey,
    }

    /// What a further device got: all that makes it one of this user.
    #[derive(Clone, Debug, PartialEq)]
    InviteDeviceConfirmation = "invite_device_confirmation" {
        /// The user.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// Its name.
        device_label: DeviceLabel,
        /// The person.
        human_handle: HumanHandle,
        /// The user's profile at first, as it stands in devices.
        profile: UserProfile,
        /// Key of the user that others seal for.
        private_key: PrivateKey,
        /// The user's own realm.
        user_realm_id: RealmId,
        /// Its key.
        user_realm_key: SecretKey,
        /// Proves the organization.
        root_verify_key: VerifyKey,
        /// Our extension: key of the logs of an organization without a server, absent on a server.
        organization_key: Option<SecretKey> [absent],
    }

    /// The share.
    #[derive(Clone, Debug, PartialEq)]
    InviteShamirRecoveryConfirmation = "invite_shamir_recovery_confirmation" {
        /// What the recipient kept.
        weighted_share: WeightedShare,
    }
}

/// Somebody who lost their devices asks for a share, and has nothing else to say.
#[derive(Clone, Debug, PartialEq)]
pub struct InviteShamirRecoveryData;

impl Document for InviteShamirRecoveryData {
    const KIND: &'static str = "invite_shamir_recovery_data";

    fn read(document: Value) -> Result<Self> {
        Fields::document(document, Self::KIND, &[]).map(|_| Self)
    }

    fn write(&self) -> Value {
        Writer::document(Self::KIND).finish()
    }
}

macro_rules! payloads {
    ($($name:ident),*) => {$(
        impl $name {
            /// Seals it with the key of this exchange.
            #[must_use]
            pub fn seal(&self, shared_key: &SecretKey) -> Vec<u8> {
                shared_key.seal(&to_secret_frame(self.write()))
            }

            /// Opens what the other side sealed.
            pub fn open(sealed: &[u8], shared_key: &SecretKey) -> Result<Self> {
                let refused = |_| Error::new(ErrorKind::Decryption, "payload does not open with this key");
                let frame = Zeroizing::new(shared_key.open(sealed).map_err(refused)?);
                Self::read(from_secret_frame(&frame)?)
            }
        }
    )*};
}

payloads!(
    InviteUserData,
    InviteUserConfirmation,
    InviteDeviceData,
    InviteDeviceConfirmation,
    InviteShamirRecoveryData,
    InviteShamirRecoveryConfirmation
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_opens_with_its_key_and_as_its_kind_only() {
        let key = SecretKey::generate();
        let share =
            InviteShamirRecoveryConfirmation { weighted_share: WeightedShare::new(vec![vec![1, 2], vec![2, 3]]) };
        let sealed = share.seal(&key);
        assert_eq!(InviteShamirRecoveryConfirmation::open(&sealed, &key), Ok(share));
        let refused = InviteShamirRecoveryConfirmation::open(&sealed, &SecretKey::generate());
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Decryption);
        assert_eq!(InviteUserData::open(&sealed, &key).unwrap_err().kind(), ErrorKind::Deserialization);
    }

    #[test]
    fn asking_for_a_share_says_nothing_else() {
        let key = SecretKey::generate();
        let sealed = InviteShamirRecoveryData.seal(&key);
        assert_eq!(InviteShamirRecoveryData::open(&sealed, &key), Ok(InviteShamirRecoveryData));
    }
}
