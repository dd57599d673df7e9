//! One attempt of one side to get through the nine steps (protocol.md 6.1–6.3), without a medium and without a clock.
//!
//! How a secret travels: step 0 swaps fresh public keys, and both sides arrive at one key. Whoever carries the steps
//! could have put two exchanges in place of one, with a key each. So steps 1–3 bind both sides to nonces, from which
//! two short codes follow; people read them to each other in steps 4 and 5, and find the same ones only when nobody
//! sits between. The claimer promises its nonce by a digest before it sees the greeter's, so nobody can try nonces
//! until the codes fit: a code is guessed with one chance in 2²⁰ an attempt. Only then do payloads travel, sealed.
//!
//! What could go wrong, and what happens: anything unexpected from the other side ends the attempt with a reason, for
//! good; a new one has new keys and codes. A lost answer is asked for again by posting the same step, which
//! [`Exchange::next`] keeps giving until the other side's step arrived.
//!
//! Invariants: nothing is sealed or opened before both people said yes; the right code is never told to the side that
//! must find it; no input panics.

use std::fmt;

use parsecfs_crypto::{
    HashDigest, PrivateKey, PublicKey, SecretKey,
    kx::{claimer_shared_key, greeter_shared_key},
    sas::{SasCode, SasCodes},
    sha256,
};

use super::step::{CancelReason, LAST_STEP, Side, Step};

/// Bytes of each side's nonce.
pub const NONCE_BYTES: usize = 64;

/// Codes among which a person looks for the one that they heard.
const CANDIDATES: usize = 4;

/// What the attempt needs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Post this, and again until the other side's step of the same number is there: [`Exchange::receive`].
    Post(Step),
    /// Post this once. The other side may be gone before it answers, and need not.
    PostLast(Step),
    /// Ask the person for the code that they hear: [`Exchange::choose`].
    Choose(Vec<SasCode>),
    /// What to hand over, sealed with [`Exchange::shared_key`]: [`Exchange::send`].
    Payload,
    /// All nine steps are done.
    Done,
    /// It ended early. Tell the other side, unless it was the one that ended it.
    Ended(CancelReason),
}

/// One attempt of one side.
pub struct Exchange {
    side: Side,
    private: PrivateKey,
    nonce: [u8; NONCE_BYTES],
    /// The step that is worked on; `LAST_STEP + 1` when all are done.
    number: u8,
    shared: Option<SecretKey>,
    promised: Option<HashDigest>,
    codes: Option<(SasCodes, Vec<SasCode>)>,
    chosen: bool,
    sent: Option<Vec<u8>>,
    received: Option<Vec<u8>>,
    ended: Option<CancelReason>,
}

impl Exchange {
    /// Starts. Key and nonce are random and used for this attempt only.
    #[must_use]
    pub const fn new(side: Side, private: PrivateKey, nonce: [u8; NONCE_BYTES]) -> Self {
        Self {
            side,
            private,
            nonce,
            number: 0,
            shared: None,
            promised: None,
            codes: None,
            chosen: false,
            sent: None,
            received: None,
            ended: None,
        }
    }

    /// What it needs now; the same again until it got that.
    #[must_use]
    pub fn next(&self) -> Next {
        if let Some(reason) = self.ended {
            return Next::Ended(reason);
        }
        if self.number > LAST_STEP {
            return Next::Done;
        }
        if let (true, Some((_, candidates))) = (self.must_choose(), &self.codes) {
            return Next::Choose(candidates.clone());
        }
        if self.must_send() {
            return Next::Payload;
        }
        let step = Step::new(self.side, self.number, self.body());
        if self.side == Side::Claimer && self.number == LAST_STEP { Next::PostLast(step) } else { Next::Post(step) }
    }

    /// The code that this side's person reads aloud: the greeter's before step 4 ends, the claimer's after it.
    #[must_use]
    pub fn own_code(&self) -> Option<SasCode> {
        let (codes, _) = self.codes.as_ref()?;
        match self.side {
            Side::Greeter => Some(codes.greeter),
            // Told earlier, it would let the greeter's person say yes to a claimer that did not check.
            Side::Claimer => self.chosen.then_some(codes.claimer),
        }
    }

    /// Takes the other side's step. Anything but the one that is waited for ends the attempt.
    pub fn receive(&mut self, step: &Step) {
        if !matches!(self.next(), Next::Post(_) | Next::PostLast(_)) {
            return;
        }
        let outcome = if step.side() == self.side.other() && step.number() == self.number {
            self.take(step.body())
        } else {
            Err(CancelReason::InconsistentPayload)
        };
        match outcome {
            Ok(()) => self.number += 1,
            Err(reason) => self.end(reason),
        }
    }

    /// The last step is on its way: nothing more to wait for. The claimer says so once it has posted it; the greeter when it
    /// hears that the invitation is over, for then the claimer has all that it was to get.
    pub fn posted_last(&mut self) {
        if self.number == LAST_STEP && matches!(self.next(), Next::Post(_) | Next::PostLast(_)) {
            self.number += 1;
        }
    }

    /// The code that the person heard, `None` when it is not among the candidates. Any but the right one ends the
    /// attempt.
    pub fn choose(&mut self, code: Option<SasCode>) {
        let Some((codes, _)) = self.codes.as_ref().filter(|_| self.must_choose()) else { return };
        let right = match self.side {
            Side::Greeter => codes.claimer,
            Side::Claimer => codes.greeter,
        };
        if code == Some(right) {
            self.chosen = true;
        } else {
            self.end(CancelReason::InvalidSasCode);
        }
    }

    /// Whether the other side has answered at all.
    #[must_use]
    pub const fn has_met(&self) -> bool {
        self.number > 0
    }

    /// Whether nobody can have seen a code yet, so that starting again surprises nobody.
    #[must_use]
    pub const fn is_before_codes(&self) -> bool {
        self.codes.is_none()
    }

    /// The key for payloads, once both people found the codes right.
    #[must_use]
    pub fn shared_key(&self) -> Option<&SecretKey> {
        self.shared.as_ref().filter(|_| self.ended.is_none() && self.number >= 6)
    }

    /// Hands over what this side has to say.
    pub fn send(&mut self, sealed: Vec<u8>) {
        if self.must_send() && self.ended.is_none() {
            self.sent = Some(sealed);
        }
    }

    /// What the other side handed over, sealed.
    #[must_use]
    pub fn received(&self) -> Option<&[u8]> {
        self.received.as_deref()
    }

    /// Ends it, as this side or the other wants. The first reason stays; a finished attempt stays finished.
    pub fn end(&mut self, reason: CancelReason) {
        if self.ended.is_none() && self.number <= LAST_STEP {
            self.ended = Some(reason);
        }
    }

    const fn must_choose(&self) -> bool {
        let number = match self.side {
            Side::Claimer => 4,
            Side::Greeter => 5,
        };
        self.number == number && !self.chosen && self.ended.is_none()
    }

    const fn must_send(&self) -> bool {
        let number = match self.side {
            Side::Claimer => 6,
            Side::Greeter => 7,
        };
        self.number == number && self.sent.is_none()
    }

    /// What this side's step carries.
    fn body(&self) -> Vec<u8> {
        match (self.side, self.number) {
            (_, 0) => self.private.public_key().as_bytes().to_vec(),
            (Side::Claimer, 1) => sha256(&self.nonce).as_bytes().to_vec(),
            (Side::Greeter, 2) | (Side::Claimer, 3) => self.nonce.to_vec(),
            (Side::Claimer, 6) | (Side::Greeter, 7) => self.sent.clone().unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Takes what the other side's step carries.
    fn take(&mut self, body: &[u8]) -> Result<(), CancelReason> {
        match (self.side, self.number) {
            (_, 0) => self.take_key(body)?,
            (Side::Greeter, 1) => {
                let digest = body.try_into().map_err(|_| CancelReason::InvalidNonceHash)?;
                self.promised = Some(HashDigest::from_bytes(digest));
            }
            (Side::Claimer, 2) => self.take_nonce(body, CancelReason::InconsistentPayload)?,
            (Side::Greeter, 3) => {
                if self.promised != Some(sha256(body)) {
                    return Err(CancelReason::InvalidNonceHash);
                }
                self.take_nonce(body, CancelReason::InvalidNonceHash)?;
            }
            (Side::Greeter, 6) | (Side::Claimer, 7) => self.received = Some(body.to_vec()),
            _ => (),
        }
        Ok(())
    }

    fn take_key(&mut self, body: &[u8]) -> Result<(), CancelReason> {
        let key = PublicKey::from_bytes(body.try_into().map_err(|_| CancelReason::InconsistentPayload)?);
        let shared = match self.side {
            Side::Greeter => greeter_shared_key(&self.private, &key),
            Side::Claimer => claimer_shared_key(&self.private, &key),
        };
        self.shared = Some(shared.map_err(|_| CancelReason::InconsistentPayload)?);
        Ok(())
    }

    /// Nonces have one length, so that no bytes can move from one to the other.
    fn take_nonce(&mut self, nonce: &[u8], otherwise: CancelReason) -> Result<(), CancelReason> {
        let Some(shared) = self.shared.as_ref().filter(|_| nonce.len() == NONCE_BYTES) else {
            return Err(otherwise);
        };
        let (codes, to_find) = match self.side {
            Side::Greeter => {
                let codes = SasCodes::new(shared, nonce, &self.nonce);
                (codes, codes.claimer)
            }
            Side::Claimer => {
                let codes = SasCodes::new(shared, &self.nonce, nonce);
                (codes, codes.greeter)
            }
        };
        self.codes = Some((codes, to_find.candidates(CANDIDATES)));
        Ok(())
    }
}

/// Keys and codes do not print.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({:?}, {}, {:?})", self.side, self.number, self.ended)
    }
}

#[cfg(test)]
mod tests;
