//! Terms of service, which a server may want accepted by each person before it serves them (protocol.md 4.4).
//!
//! What it says is shown to a person: it goes no further than lines of text.

use std::collections::BTreeMap;

use parsecfs_core::{
    storage::{Error, ErrorKind, Result},
    time::Timestamp,
};

use super::{ParsecStorage, command::Request, server::Family};

/// Longer than any address that somebody could read.
const URL_BYTES_MAX: usize = 2000;
/// Languages.
const URLS_MAX: usize = 100;

/// Where the terms are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// By language.
    pub urls: BTreeMap<String, String>,
    /// Which state of them this is.
    pub updated_on: Timestamp,
}

impl ParsecStorage {
    /// The terms of this organization, if there are any.
    pub async fn terms(&self) -> Result<Option<Terms>> {
        let mut reply = self.server.call(Family::Tos(&*self.signer), Request::new("tos_get")).await?;
        if reply.status() == "no_tos" {
            return Ok(None);
        }
        reply = reply.ok()?;
        let mut urls: BTreeMap<String, String> = reply.get("per_locale_urls")?;
        urls.retain(|language, url| is_printable(language) && is_printable(url));
        Ok(Some(Terms { urls: urls.into_iter().take(URLS_MAX).collect(), updated_on: reply.get("updated_on")? }))
    }

    /// Accepts them for this user, on all devices. `VersionConflict` when they are no longer those.
    pub async fn accept_terms(&self, updated_on: Timestamp) -> Result<()> {
        let request = Request::new("tos_accept").with("tos_updated_on", &updated_on);
        let reply = self.server.call(Family::Tos(&*self.signer), request).await?;
        if matches!(reply.status(), "tos_mismatch" | "no_tos") {
            return Err(Error::new(ErrorKind::VersionConflict, "the terms of service are others by now"));
        }
        reply.ok().map(drop)
    }
}

fn is_printable(text: &str) -> bool {
    text.len() <= URL_BYTES_MAX && !text.contains(char::is_control)
}
