//! What an address of an organization asks for.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use parsecfs_crypto::{SecretKey, VerifyKey};
use rmpv::Value;

use super::{
    ServerAddr, invalid,
    parts::{Parts, escape, unescape},
};
use crate::{
    document::{Field, from_msgpack, to_msgpack},
    error::{Error, ErrorKind, Result},
    id::{InvitationToken, RealmId, UserId},
    name::OrganizationId,
};

/// Purpose of the key that seals paths in links.
const PATH: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];

/// An organization on a server, and what to do there.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    /// Where.
    pub server: ServerAddr,
    /// Which organization.
    pub organization: OrganizationId,
    /// What for.
    pub action: Action,
}

/// What an address of an organization is for. Who has one with a token may act on it, so only its kind prints.
#[derive(Clone, PartialEq)]
pub enum Action {
    /// To name the organization.
    Organization {
        /// Proves that it is the one meant.
        root_verify_key: VerifyKey,
    },
    /// To make its first user.
    Bootstrap {
        /// Absent where anybody may found one.
        token: Option<[u8; 16]>,
    },
    /// To become a user.
    ClaimUser(InvitationToken),
    /// To become a further device of one's user.
    ClaimDevice(InvitationToken),
    /// To get a lost user back through those who hold shares.
    ClaimShamirRecovery(InvitationToken),
    /// To go to an entry of a workspace.
    Path {
        /// Which workspace.
        realm: RealmId,
        /// Which of its keys seals the path.
        key_index: u64,
        /// See [`open_path`].
        encrypted_path: Vec<u8>,
    },
    /// To ask for becoming a user.
    AsyncEnrollment,
    /// The same with a certificate; no server of today answers.
    PkiEnrollment,
    /// To set up one-time codes anew.
    TotpReset {
        /// Whose.
        user: UserId,
        /// Proves that the server asked for it.
        token: [u8; 16],
    },
}

impl Address {
    /// Reads an address in either form.
    pub fn parse(text: &str) -> Result<Self> {
        let parts = Parts::parse(text)?;
        let organization = unescape(parts.path.strip_prefix('/').ok_or(invalid())?)?;
        let organization = OrganizationId::new(&organization).map_err(|_| invalid())?;
        let name = parts.parameter("a")?;
        let action = Action::read(name.as_deref(), parts.parameter("p")?.as_deref())?;
        Ok(Self { server: parts.server, organization, action })
    }

    /// The form for browsers.
    #[must_use]
    pub fn http_redirection(&self) -> String {
        let mut text = format!("{}redirect/{}", self.server.http_url(), escape(self.organization.as_str()));
        self.action.append_to(&mut text, '?');
        text
    }
}

/// The `parsec3` form.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("parsec3://{}/{}", self.server.authority(), escape(self.organization.as_str()));
        let no_ssl = if self.server.tls() { "" } else { "?no_ssl=true" };
        text.push_str(no_ssl);
        self.action.append_to(&mut text, if no_ssl.is_empty() { '?' } else { '&' });
        f.write_str(&text)
    }
}

impl Action {
    pub(super) fn read(name: Option<&str>, payload: Option<&str>) -> Result<Self> {
        let value = || decode(payload.ok_or(invalid())?);
        let token = || field(value()?).map(InvitationToken::from_bytes);
        Ok(match name {
            None => Self::Organization { root_verify_key: field(value()?)? },
            Some("bootstrap_organization") => Self::Bootstrap { token: field(value()?)? },
            Some("claim_user") => Self::ClaimUser(token()?),
            Some("claim_device") => Self::ClaimDevice(token()?),
            Some("claim_shamir_recovery") => Self::ClaimShamirRecovery(token()?),
            Some("async_enrollment") => Self::AsyncEnrollment,
            Some("pki_enrollment") => Self::PkiEnrollment,
            Some("path") => {
                let [realm, key_index, encrypted_path] = list(value()?)?;
                let (realm, key_index) = (field(realm)?, field(key_index)?);
                Self::Path { realm, key_index, encrypted_path: bytes(encrypted_path)? }
            }
            Some("totp_reset") => {
                let [user, token] = list(value()?)?;
                Self::TotpReset { user: field(user)?, token: field(token)? }
            }
            Some(_) => return Err(invalid()),
        })
    }

    /// Its name in addresses.
    const fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Organization { .. } => return None,
            Self::Bootstrap { .. } => "bootstrap_organization",
            Self::ClaimUser(_) => "claim_user",
            Self::ClaimDevice(_) => "claim_device",
            Self::ClaimShamirRecovery(_) => "claim_shamir_recovery",
            Self::Path { .. } => "path",
            Self::AsyncEnrollment => "async_enrollment",
            Self::PkiEnrollment => "pki_enrollment",
            Self::TotpReset { .. } => "totp_reset",
        })
    }

    fn payload(&self) -> Option<Value> {
        Some(match self {
            Self::Organization { root_verify_key } => root_verify_key.write(),
            Self::Bootstrap { token } => token.write(),
            Self::ClaimUser(token) | Self::ClaimDevice(token) | Self::ClaimShamirRecovery(token) => {
                token.as_bytes().write()
            }
            Self::Path { realm, key_index, encrypted_path } => {
                // A list of numbers is what official clients write.
                let path = encrypted_path.iter().map(|byte| Value::from(*byte)).collect();
                Value::Array(vec![realm.write(), key_index.write(), Value::Array(path)])
            }
            Self::TotpReset { user, token } => Value::Array(vec![user.write(), token.write()]),
            Self::AsyncEnrollment | Self::PkiEnrollment => return None,
        })
    }

    pub(super) fn append_to(&self, text: &mut String, separator: char) {
        let mut separator = separator;
        let payload = self.payload().map(|value| BASE64URL_NOPAD.encode(&to_msgpack(&value)));
        for (name, value) in [("a", self.name()), ("p", payload.as_deref())] {
            if let Some(value) = value {
                text.push(separator);
                text.push_str(name);
                text.push('=');
                text.push_str(value);
                separator = '&';
            }
        }
    }
}

/// Tokens do not print.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or("organization"))
    }
}

/// Seals the path of an entry, absolute and with `/` between names, for a link.
#[must_use]
pub fn seal_path(path: &str, realm_key: &SecretKey) -> Vec<u8> {
    realm_key.derive(&PATH).seal(path.as_bytes())
}

/// Opens the path in a link.
pub fn open_path(sealed: &[u8], realm_key: &SecretKey) -> Result<String> {
    let refused = |_| Error::new(ErrorKind::Decryption, "path does not open with this key");
    let path = realm_key.derive(&PATH).open(sealed).map_err(refused)?;
    String::from_utf8(path).map_err(|_| Error::new(ErrorKind::Invalid, "path is not UTF-8"))
}

pub(super) fn decode(payload: &str) -> Result<Value> {
    let bytes = BASE64URL_NOPAD.decode(payload.as_bytes()).map_err(|_| invalid())?;
    from_msgpack(&bytes).map_err(|_| invalid())
}

pub(super) fn field<T: Field>(value: Value) -> Result<T> {
    T::read(value).map_err(|_| invalid())
}

fn list<const N: usize>(value: Value) -> Result<[Value; N]> {
    let Value::Array(values) = value else {
        return Err(invalid());
    };
    values.try_into().map_err(|_| invalid())
}

/// Bytes, or a list of numbers.
fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::Array(values) => values.into_iter().map(field).collect(),
        value => field(value),
    }
}
