//! What the two sides of an invitation tell each other in nine numbered steps (protocol.md 6.1).

use std::fmt;

use rmpv::Value;

use crate::{
    document::{field_enum, from_msgpack, malformed, to_msgpack},
    error::Result,
};

/// The number of the last step.
pub const LAST_STEP: u8 = 8;

/// Bytes that a step may carry. The largest, a sealed payload, has a few hundred.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Whoever invites, a member of the organization.
    Greeter,
    /// Whoever is invited.
    Claimer,
}

field_enum!(Side { Greeter = "GREETER", Claimer = "CLAIMER" });

/// Why an attempt ended before its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// A person wanted it.
    Manually,
    /// The claimer's nonce is not the one that was promised: somebody sits between the two sides.
    InvalidNonceHash,
    /// A person did not find the code that they heard: somebody sits between the two sides, or it was misheard.
    InvalidSasCode,
    /// What the other side sent does not open with the shared key.
    UndecipherablePayload,
    /// What the other side sent is not what this step needs.
    UndeserializablePayload,
    /// What the other side sent contradicts itself or the invitation.
    InconsistentPayload,
    /// The same side started another attempt.
    Automatically,
}

field_enum!(CancelReason {
    Manually = "MANUALLY_CANCELLED",
    InvalidNonceHash = "INVALID_NONCE_HASH",
    InvalidSasCode = "INVALID_SAS_CODE",
    UndecipherablePayload = "UNDECIPHERABLE_PAYLOAD",
    UndeserializablePayload = "UNDESERIALIZABLE_PAYLOAD",
    InconsistentPayload = "INCONSISTENT_PAYLOAD",
    Automatically = "AUTOMATICALLY_CANCELLED",
});

/// The name of a step, and of the bytes that it carries.
type Form = (&'static str, Option<&'static str>);

const GREETER: [Form; 9] = [
    ("NUMBER_0_WAIT_PEER", Some("public_key")),
    ("NUMBER_1_GET_HASHED_NONCE", None),
    ("NUMBER_2_SEND_NONCE", Some("greeter_nonce")),
    ("NUMBER_3_GET_NONCE", None),
    ("NUMBER_4_WAIT_PEER_TRUST", None),
    // Not a slip: servers know this step by no other name.
    ("5", None),
    ("NUMBER_6_GET_PAYLOAD", None),
    ("NUMBER_7_SEND_PAYLOAD", Some("greeter_payload")),
    ("NUMBER_8_WAIT_PEER_ACKNOWLEDGMENT", None),
];

const CLAIMER: [Form; 9] = [
    ("NUMBER_0_WAIT_PEER", Some("public_key")),
    ("NUMBER_1_SEND_HASHED_NONCE", Some("hashed_nonce")),
    ("NUMBER_2_GET_NONCE", None),
    ("NUMBER_3_SEND_NONCE", Some("claimer_nonce")),
    ("NUMBER_4_SIGNIFY_TRUST", None),
    ("NUMBER_5_WAIT_PEER_TRUST", None),
    ("NUMBER_6_SEND_PAYLOAD", Some("claimer_payload")),
    ("NUMBER_7_GET_PAYLOAD", None),
    ("NUMBER_8_ACKNOWLEDGE", None),
];

impl Side {
    /// The one that this one talks to.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Greeter => Self::Claimer,
            Self::Claimer => Self::Greeter,
        }
    }

    const fn forms(self) -> &'static [Form; 9] {
        match self {
            Self::Greeter => &GREETER,
            Self::Claimer => &CLAIMER,
        }
    }
}

/// One step of one side.
#[derive(Clone, PartialEq, Eq)]
pub struct Step {
    side: Side,
    number: u8,
    body: Vec<u8>,
}

impl Step {
    /// The caller keeps to `number <= LAST_STEP` and to a body exactly where the form has one.
    pub(super) const fn new(side: Side, number: u8, body: Vec<u8>) -> Self {
        Self { side, number, body }
    }

    /// Whose step it is.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// From 0 to [`LAST_STEP`].
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// Key, nonce, digest or sealed payload; empty where the step carries nothing.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// As it stands in a command.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let (name, field) = self.side.forms()[usize::from(self.number.min(LAST_STEP))];
        let mut map = vec![("step".into(), name.into())];
        map.extend(field.map(|field| (field.into(), Value::Binary(self.body.clone()))));
        Value::Map(map)
    }

    /// Reads a step of `side` out of an answer; fields that it does not have are ignored.
    pub fn from_value(side: Side, value: Value) -> Result<Self> {
        let Value::Map(map) = value else { return Err(malformed("step is not a map")) };
        let get = |name: &str| map.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value);
        let name = get("step").and_then(Value::as_str).ok_or(malformed("step without a name"))?;
        let forms = side.forms();
        let at = forms.iter().position(|form| form.0 == name).ok_or(malformed("unknown step"))?;
        let number = u8::try_from(at).map_err(|_| malformed("unknown step"))?;
        let body = match forms[at].1 {
            None => Vec::new(),
            Some(field) => match get(field) {
                Some(Value::Binary(bytes)) if bytes.len() <= BODY_BYTES_MAX => bytes.clone(),
                _ => return Err(malformed("step does not carry what it must")),
            },
        };
        Ok(Self { side, number, body })
    }

    /// As it lies in a mailbox.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        to_msgpack(&self.to_value())
    }

    /// Reads what lies in a mailbox.
    pub fn from_bytes(side: Side, bytes: &[u8]) -> Result<Self> {
        Self::from_value(side, from_msgpack(bytes)?)
    }
}

/// What it carries does not print.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({:?}, {})", self.side, self.number)
    }
}
