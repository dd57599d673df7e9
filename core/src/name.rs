//! Names, labels and addresses, each proved valid once (formats.md 5.4 and 8.1) and a type from then on.
//!
//! All hold text in Unicode normal form C. Entry names never print: their text is read with [`EntryName::reveal`],
//! which is easy to search for.

use std::{borrow::Cow, fmt, sync::Arc};

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::{
    error::{Error, ErrorKind, Result},
    id::{DeviceId, UserId},
};

/// Longest entry name and device label in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest label of a person in bytes of UTF-8.
pub const HUMAN_LABEL_BYTES_MAX: usize = 254;
/// Longest organization id in bytes of UTF-8.
pub const ORGANIZATION_ID_BYTES_MAX: usize = 32;

/// Domain of the address shown for a person whose address is withheld.
const REDACTED_DOMAIN: &str = "redacted.invalid";

/// The name of an entry in a folder, or of a workspace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName(Arc<str>);

impl EntryName {
    /// Normalizes and checks a name. `TooLong` above [`NAME_BYTES_MAX`], otherwise `Invalid`.
    pub fn new(text: &str) -> Result<Self> {
        let name = nfc(text);
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::new(ErrorKind::TooLong, "entry name is too long"));
        }
        let illegal = name.is_empty() || *name == *"." || *name == *".." || name.contains(['/', '\0']);
        if illegal {
            return Err(Error::new(ErrorKind::Invalid, "not an entry name"));
        }
        Ok(Self(name.into()))
    }

    /// The text of the name. For the person at this machine only: never for logs, errors or other machines.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Redacted, so that a name cannot slip into a log.
impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EntryName")
    }
}

/// Redacted, so that a name cannot slip into a log.
impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<name>")
    }
}

macro_rules! texts {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}

texts!(OrganizationId, DeviceLabel, Email);

/// The name of an organization on its server or store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrganizationId(String);

impl OrganizationId {
    /// Normalizes and checks: word characters and `-`, up to [`ORGANIZATION_ID_BYTES_MAX`].
    pub fn new(text: &str) -> Result<Self> {
        let id = nfc(text);
        if id.len() > ORGANIZATION_ID_BYTES_MAX {
            return Err(Error::new(ErrorKind::TooLong, "organization id is too long"));
        }
        if id.is_empty() || !id.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
            return Err(Error::new(ErrorKind::Invalid, "not an organization id"));
        }
        Ok(Self(id.into_owned()))
    }
}

/// What a person calls a device.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceLabel(String);

impl DeviceLabel {
    /// Normalizes and checks: 1 to [`NAME_BYTES_MAX`] bytes.
    pub fn new(text: &str) -> Result<Self> {
        label(text, NAME_BYTES_MAX).map(Self)
    }

    /// What is shown for a device whose label is withheld.
    #[must_use]
    pub fn redacted(device: DeviceId) -> Self {
        Self(device.to_string())
    }
}

/// An e-mail address. Case is kept and matters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

impl Email {
    /// Checks an address: dot-atom or quoted local part, dot-atom or bracketed domain, not the redacted domain.
    /// Blanks around it are kept, as others do; trim what a person typed.
    pub fn new(text: &str) -> Result<Self> {
        let invalid = Error::new(ErrorKind::Invalid, "not an e-mail address");
        let address = text.trim_matches([' ', '\t']);
        if !address.is_ascii() || address.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(invalid);
        }
        let (local, domain) = address.rsplit_once('@').ok_or(invalid)?;
        if domain == REDACTED_DOMAIN || !local_part(local) || !domain_part(domain) {
            return Err(invalid);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A person as others see them. Two are the same person when the address is the same.
#[derive(Clone)]
pub struct HumanHandle {
    email: Email,
    label: String,
}

impl HumanHandle {
    /// Normalizes and checks the label: 1 to [`HUMAN_LABEL_BYTES_MAX`] bytes, none of `<>@,:;\"[]`.
    pub fn new(email: Email, text: &str) -> Result<Self> {
        let label = label(text, HUMAN_LABEL_BYTES_MAX)?;
        if label.contains(['<', '>', '@', ',', ':', ';', '\\', '"', '[', ']']) {
            return Err(Error::new(ErrorKind::Invalid, "not a label of a person"));
        }
        Ok(Self { email, label })
    }

    /// What is shown for a user whose name and address are withheld.
    #[must_use]
    pub fn redacted(user: UserId) -> Self {
        Self { email: Email(format!("{user}@{REDACTED_DOMAIN}")), label: user.to_string() }
    }

    /// Address.
    #[must_use]
    pub fn email(&self) -> &Email {
        &self.email
    }

    /// Name of the person.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// Redacted as its parts are.
impl fmt::Debug for HumanHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HumanHandle")
    }
}

impl PartialEq for HumanHandle {
    fn eq(&self, other: &Self) -> bool {
        self.email == other.email
    }
}

impl Eq for HumanHandle {}

impl fmt::Display for HumanHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <{}>", self.label, self.email)
    }
}

/// Normal form C, without copying what is in it already.
fn nfc(text: &str) -> Cow<'_, str> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        IsNormalized::No | IsNormalized::Maybe => Cow::Owned(text.nfc().collect()),
    }
}

fn label(text: &str, bytes_max: usize) -> Result<String> {
    let label = nfc(text);
    if label.len() > bytes_max {
        return Err(Error::new(ErrorKind::TooLong, "label is too long"));
    }
    if label.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "label is empty"));
    }
    Ok(label.into_owned())
}

fn local_part(text: &str) -> bool {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted_content(quoted),
        None => text.split('.').all(atom),
    }
}

/// Inside of a quoted string: a quote or backslash only behind a backslash.
fn quoted_content(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let legal = match byte {
            b'\\' => bytes.next().is_some(),
            b'"' => false,
            _ => true,
        };
        if !legal {
            return false;
        }
    }
    true
}

fn domain_part(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(literal) => !literal.is_empty() && !literal.contains(['[', ']', '\\', ' ']),
        None => text.split('.').all(|part| atom(part) && !part.starts_with('-') && !part.ends_with('-')),
    }
}

fn atom(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_counted_after_normalization() {
        // 3 bytes each before, 2 after.
        assert!(EntryName::new(&"e\u{301}".repeat(127)).is_ok());
        assert_eq!(EntryName::new(&"e\u{301}".repeat(128)).unwrap_err().kind(), ErrorKind::TooLong);
    }

    #[test]
    fn decomposed_and_composed_names_are_one() {
        assert_eq!(EntryName::new("e\u{301}").unwrap(), EntryName::new("\u{e9}").unwrap());
    }

    #[test]
    fn illegal_names_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0b"] {
            assert_eq!(EntryName::new(name).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn names_do_not_print() {
        let name = EntryName::new("secret").unwrap();
        assert!(!format!("{name} {name:?}").contains("secret"));
    }

    #[test]
    fn handles_are_equal_by_address() {
        let handle = |label| HumanHandle::new(Email::new("a@x.org").unwrap(), label).unwrap();
        assert_eq!(handle("Alice"), handle("Bob"));
    }
}
