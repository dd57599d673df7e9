//! The shared key of an invitation: both sides exchange public keys and arrive at the same secret.
//!
//! The greeter plays libsodium's client and uses its receiving key. A public key that would make the secret
//! predictable is refused.

use libsodium_rs::crypto_kx;
use zeroize::Zeroize;

use crate::{ErrorKind, PrivateKey, PublicKey, Result, SecretKey, start};

/// The shared key as the inviting side computes it. `Algorithm` if the peer's key is not usable.
pub fn greeter_shared_key(own: &PrivateKey, claimer: &PublicKey) -> Result<SecretKey> {
    let (public, private, peer) = keys(own, claimer)?;
    let mut session = crypto_kx::client_session_keys(&public, &private, &peer).map_err(|_| ErrorKind::Algorithm)?;
    let key = SecretKey::from_bytes(session.rx);
    session.zeroize();
    Ok(key)
}

/// The shared key as the invited side computes it. `Algorithm` if the peer's key is not usable.
pub fn claimer_shared_key(own: &PrivateKey, greeter: &PublicKey) -> Result<SecretKey> {
    let (public, private, peer) = keys(own, greeter)?;
    let mut session = crypto_kx::server_session_keys(&public, &private, &peer).map_err(|_| ErrorKind::Algorithm)?;
    let key = SecretKey::from_bytes(session.tx);
    session.zeroize();
    Ok(key)
}

fn keys(
    own: &PrivateKey,
    peer: &PublicKey,
) -> Result<(crypto_kx::PublicKey, crypto_kx::SecretKey, crypto_kx::PublicKey)> {
    start();
    let size = |_| ErrorKind::KeySize;
    Ok((
        crypto_kx::PublicKey::from_bytes(own.public_key().as_bytes()).map_err(size)?,
        crypto_kx::SecretKey::from_bytes(own.expose()).map_err(size)?,
        crypto_kx::PublicKey::from_bytes(peer.as_bytes()).map_err(size)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_arrive_at_one_key() {
        let (greeter, claimer) = (PrivateKey::generate(), PrivateKey::generate());
        assert_eq!(
            greeter_shared_key(&greeter, &claimer.public_key()).unwrap(),
            claimer_shared_key(&claimer, &greeter.public_key()).unwrap(),
        );
    }

    #[test]
    fn a_peer_key_of_zeros_is_refused() {
        let zeros = PublicKey::from_bytes([0; 32]);
        assert!(greeter_shared_key(&PrivateKey::generate(), &zeros).is_err());
        assert!(claimer_shared_key(&PrivateKey::generate(), &zeros).is_err());
    }
}
