//! Takes an address apart: which server, and path and parameters in the `parsec3` form.

use std::net::Ipv6Addr;

use super::{ServerAddr, default_port, invalid};
use crate::error::Result;

/// A host that was renamed.
const RENAMED: (&str, &str) = ("saas-v3.parsec.cloud", "app.parsec.cloud");

/// An address in either form, as the `parsec3` form would have it.
pub(super) struct Parts<'a> {
    pub(super) server: ServerAddr,
    /// Escaped; empty, or from the first `/` on.
    pub(super) path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self> {
        let (scheme, rest) = text.split_once("://").ok_or(invalid())?;
        if rest.contains('#') {
            return Err(invalid());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let scheme = scheme.to_ascii_lowercase();
        let (tls, path) = match scheme.as_str() {
            "parsec3" => (!no_ssl(query)?, path),
            "https" | "http" => (scheme == "https", after_redirect(path)?),
            _ => return Err(invalid()),
        };
        Ok(Self { server: server(authority, tls)?, path, query })
    }

    /// The value of a parameter. Given twice is an error.
    pub(super) fn parameter(&self, name: &str) -> Result<Option<String>> {
        parameter(self.query, name)
    }
}

fn after_redirect(path: &str) -> Result<&str> {
    let path = path.strip_prefix("/redirect").ok_or(invalid())?;
    if path.is_empty() || path.starts_with('/') { Ok(path) } else { Err(invalid()) }
}

fn no_ssl(query: &str) -> Result<bool> {
    match parameter(query, "no_ssl")?.map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(invalid()),
    }
}

pub(super) fn parameter(query: &str, name: &str) -> Result<Option<String>> {
    let mut values = query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .filter(|(found, _)| unescape(found).is_ok_and(|found| found == name));
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some((_, value)), None) => unescape(value).map(Some),
        (Some(_), Some(_)) => Err(invalid()),
    }
}

/// Resolves `%XX`; the result must be UTF-8.
pub(super) fn unescape(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2).ok_or(invalid())?;
            bytes.extend(data_encoding::HEXLOWER_PERMISSIVE.decode(digits).map_err(|_| invalid())?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

/// Writes everything but letters, digits, `-` and `_` of ASCII as `%XX`.
#[must_use]
pub fn escape(text: &str) -> String {
    escape_but(text, b"-_")
}

/// The same for a path: slashes and dots stay.
pub(super) fn escape_path(text: &str) -> String {
    escape_but(text, b"-_/.")
}

fn escape_but(text: &str, plain: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Reads `host[:port]`.
pub(super) fn server(authority: &str, tls: bool) -> Result<ServerAddr> {
    let host_bytes = match authority.strip_prefix('[') {
        Some(_) => authority.find(']').ok_or(invalid())? + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(host_bytes);
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().map_err(|_| invalid())?,
        None if port.is_empty() => default_port(tls),
        _ => return Err(invalid()),
    };
    Ok(ServerAddr { host: host_name(host)?, port, tls })
}

fn host_name(text: &str) -> Result<String> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().map(|address| format!("[{address}]")).map_err(|_| invalid());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.is_empty() || !text.bytes().all(legal) {
        return Err(invalid());
    }
    let host = text.to_ascii_lowercase();
    Ok(if host == RENAMED.0 { RENAMED.1.to_owned() } else { host })
}
