//! Addresses: of servers, of organizations on them, of what one is invited to (protocol.md 2), and of storages as they
//! stand in a device.
//!
//! Two forms mean the same: `parsec3://` for programs, and `http(s)://host/redirect/...` for browsers, which ends at the
//! first. Both are read everywhere. Nothing is looked up or opened here.

mod action;
mod link;
mod parts;

use std::fmt;

use rmpv::Value;

use crate::{
    document::{Field, malformed},
    error::{Error, ErrorKind, Result},
};
pub use action::{Action, Address, open_path, seal_path};
pub use link::{InvitationLink, LinkKind};
use parts::Parts;
pub use parts::escape;

/// A Parsec server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddr {
    host: String,
    port: u16,
    tls: bool,
}

impl ServerAddr {
    /// Reads `parsec3://host[:port][?no_ssl=true]` or `http(s)://host[:port]/redirect`.
    pub fn parse(text: &str) -> Result<Self> {
        let parts = Parts::parse(text)?;
        if parts.path.is_empty() || parts.path == "/" { Ok(parts.server) } else { Err(invalid()) }
    }

    /// Reads `http(s)://host[:port][/]` and nothing else: the form in documents.
    pub fn from_http(text: &str) -> Result<Self> {
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(invalid()),
        };
        parts::server(rest.strip_suffix('/').unwrap_or(rest), tls)
    }

    /// Where its requests go: `http(s)://host[:port]/`, also the form in documents.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("{}://{}/", if self.tls { "https" } else { "http" }, self.authority())
    }

    /// Host name in lower case, or IP address; version 6 in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    fn authority(&self) -> String {
        if self.port == default_port(self.tls) { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let no_ssl = if self.tls { "" } else { "?no_ssl=true" };
        write!(f, "parsec3://{}{no_ssl}", self.authority())
    }
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// Whether a device may name this as the place of its organization: a server as official clients write it, or one of
/// our own: `file:///DIR`, `s3://BUCKET...`, `memory:`.
#[must_use]
pub fn is_storage_address(text: &str) -> bool {
    match text.split_once(':') {
        Some(("memory", rest)) => rest.is_empty(),
        Some(("file", rest)) => rest.starts_with("///"),
        Some(("s3", rest)) => {
            rest.strip_prefix("//").is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?']))
        }
        _ => ServerAddr::from_http(text).is_ok(),
    }
}

/// The address of a storage in a document.
pub(crate) fn read_storage_address(value: Value) -> Result<String> {
    let text = String::read(value)?;
    if is_storage_address(&text) { Ok(text) } else { Err(malformed("not the address of a storage")) }
}

const fn invalid() -> Error {
    Error::new(ErrorKind::Invalid, "not an address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_one_however_it_is_written() {
        for (text, http) in [
            ("parsec3://Example.COM", "https://example.com/"),
            ("parsec3://example.com/?x=1", "https://example.com/"),
            ("parsec3://example.com:443", "https://example.com/"),
            ("parsec3://example.com?no_ssl=TRUE", "http://example.com/"),
            ("parsec3://example.com:443?no_ssl=true", "http://example.com:443/"),
            ("https://example.com/redirect", "https://example.com/"),
            ("http://example.com:8000/redirect/?no_ssl=false", "http://example.com:8000/"),
            ("parsec3://[::1]:6777", "https://[::1]:6777/"),
        ] {
            let server = ServerAddr::parse(text).unwrap();
            assert_eq!(server.http_url(), http);
            assert_eq!(ServerAddr::parse(&server.to_string()), Ok(server.clone()));
            assert_eq!(ServerAddr::from_http(http), Ok(server));
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            "example.com",
            "parsec3://",
            "parsec3://example.com/Org",
            "parsec3://example.com?no_ssl=1",
            "parsec3://example.com?no_ssl=true&no_ssl=true",
            "parsec3://example.com#x",
            "parsec3://user@example.com",
            "parsec3://example.com:",
            "parsec3://example.com:+80",
            "parsec3://example.com:65536",
            "parsec3://[::1",
            "parsec3://[::g]",
            "parsec3://::1",
            "https://example.com/redirected",
            "ftp://example.com",
        ] {
            assert!(ServerAddr::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_that_are_not_exact_are_refused() {
        for text in [
            "parsec3://example.com/MyOrg/?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_",
            "parsec3://example.com/MyOrg?a=claim_user&a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_",
            "parsec3://example.com/MyOrg?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7/",
            "parsec3://example.com/MyOrg?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_=",
            "parsec3://example.com/MyOrg?a=claim_user",
            "parsec3://example.com/?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_",
            "parsec3://example.com/My%zzOrg?a=async_enrollment",
            "parsec3://example.com/My%Org?a=async_enrollment",
            "parsec3://example.com/%ff?a=async_enrollment",
            "parsec3://example.com/MyOrg?no_ssl=1&a=async_enrollment",
        ] {
            assert_eq!(Address::parse(text).unwrap_err().kind(), ErrorKind::Invalid, "{text}");
        }
    }

    #[test]
    fn every_action_is_written_as_it_is_read() {
        for text in [
            "parsec3://example.com/Org%C3%A9-1?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_",
            "parsec3://example.com:443/MyOrg?no_ssl=true&a=totp_reset&p=ktgCEREREREREREREREREREREcQQABEiM0RVZneImaq7zN3u_w",
            "parsec3://example.com/MyOrg?a=pki_enrollment",
            "parsec3://example.com/MyOrg?a=async_enrollment",
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(Address::parse(&address.http_redirection()), Ok(address));
        }
    }

    #[test]
    fn bytes_stand_for_a_path_too() {
        let address =
            Address::parse("parsec3://example.com/MyOrg?a=path&p=k9gCIiIiIiIiIiIiIiIiIiIiIgPEAwF_gA").unwrap();
        let Action::Path { key_index, encrypted_path, .. } = &address.action else { panic!("another action") };
        assert_eq!((*key_index, encrypted_path.as_slice()), (3, &[1, 0x7f, 0x80][..]));
        assert_eq!(Address::parse(&address.to_string()), Ok(address));
    }

    #[test]
    fn tokens_do_not_print() {
        let address = Address::parse("parsec3://example.com/MyOrg?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_").unwrap();
        assert!(!format!("{address:?}").contains("0011"));
    }

    #[test]
    fn storages_of_a_device_are_servers_or_our_own() {
        for text in ["https://h", "http://h:1/", "file:///a b", "s3://bucket/prefix?region=R", "memory:"] {
            assert!(is_storage_address(text), "{text}");
        }
        for text in
            ["", "https://h/a", "https://h?x", "parsec3://h", "HTTPS://h", "file://a", "s3://", "s3:///a", "memory:x"]
        {
            assert!(!is_storage_address(text), "{text}");
        }
    }
}
