//! Links that invite: to a server in its own form, and to our own storages as their address with the same parameters.

use std::fmt;

use super::{
    Action, Address, ServerAddr, invalid, is_storage_address,
    parts::{escape_path, parameter, unescape},
};
use crate::{error::Result, id::InvitationToken, name::OrganizationId};

/// What a link invites to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// To become a user.
    User,
    /// To become a further device of one's user.
    Device,
    /// To get a lost user back through those who hold shares.
    Recovery,
}

/// A link that invites. Whoever has it may use it, so its token does not print.
#[derive(Clone, Debug, PartialEq)]
pub struct InvitationLink {
    /// Where the organization is kept, in a form of [`is_storage_address`].
    pub storage: String,
    /// Which organization, on a server.
    pub organization: Option<OrganizationId>,
    /// To what.
    pub kind: LinkKind,
    /// Which invitation.
    pub token: InvitationToken,
}

impl InvitationLink {
    /// Reads a link in any form.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("file://") {
            let (path, query) = path.rsplit_once('?').ok_or(invalid())?;
            let storage = format!("file://{}", unescape(path)?);
            let action = Action::read(parameter(query, "a")?.as_deref(), parameter(query, "p")?.as_deref())?;
            return Self::of(storage, None, &action).filter(|link| is_storage_address(&link.storage)).ok_or(invalid());
        }
        let address = Address::parse(text)?;
        Self::of(address.server.http_url(), Some(address.organization), &address.action).ok_or(invalid())
    }

    fn of(storage: String, organization: Option<OrganizationId>, action: &Action) -> Option<Self> {
        let (kind, token) = match *action {
            Action::ClaimUser(token) => (LinkKind::User, token),
            Action::ClaimDevice(token) => (LinkKind::Device, token),
            Action::ClaimShamirRecovery(token) => (LinkKind::Recovery, token),
            _ => return None,
        };
        Some(Self { storage, organization, kind, token })
    }

    fn action(&self) -> Action {
        match self.kind {
            LinkKind::User => Action::ClaimUser(self.token),
            LinkKind::Device => Action::ClaimDevice(self.token),
            LinkKind::Recovery => Action::ClaimShamirRecovery(self.token),
        }
    }

    /// The link as it is given to the guest: the one place where the token is written out.
    #[must_use]
    pub fn reveal(&self) -> String {
        match (ServerAddr::from_http(&self.storage), &self.organization) {
            (Ok(server), Some(organization)) => {
                Address { server, organization: organization.clone(), action: self.action() }.to_string()
            }
            _ => {
                let (scheme, path) = self.storage.split_once("://").unwrap_or((&self.storage, ""));
                let mut text = format!("{scheme}://{}", escape_path(path));
                self.action().append_to(&mut text, '?');
                text
            }
        }
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Device => "device",
            Self::Recovery => "recovery",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: InvitationToken = InvitationToken::from_bytes([0xab; 16]);

    #[test]
    fn a_link_is_read_as_it_was_written_whatever_the_path() {
        for path in ["/srv/team", "/a b/ü?#%41&a=x", "/tmp/x?a=claim_user"] {
            for kind in [LinkKind::User, LinkKind::Device, LinkKind::Recovery] {
                let link = InvitationLink { storage: format!("file://{path}"), organization: None, kind, token: TOKEN };
                let text = link.reveal();
                assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
                assert_eq!(InvitationLink::parse(&format!(" {text}\n")), Ok(link));
            }
        }
    }

    #[test]
    fn a_link_to_a_server_is_the_servers_own() {
        let organization = Some(OrganizationId::new("MyOrg").unwrap());
        let link = InvitationLink {
            storage: "https://example.com/".into(),
            organization,
            kind: LinkKind::User,
            token: InvitationToken::parse("00112233445566778899aabbccddeeff").unwrap(),
        };
        assert_eq!(link.reveal(), "parsec3://example.com/MyOrg?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_");
        for text in [&link.reveal(), "https://example.com/redirect/MyOrg?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_"] {
            assert_eq!(InvitationLink::parse(text).as_ref(), Ok(&link));
        }
    }

    #[test]
    fn what_invites_to_nothing_is_refused_and_tokens_do_not_print() {
        for text in [
            "",
            "file:///srv/team",
            "file:///srv/team?a=claim_user",
            "file://srv/team?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_",
            "file:///srv/team?a=path&p=xBAAESIzRFVmd4iZqrvM3e7_",
            "file:///srv/team?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_&p=xBAAESIzRFVmd4iZqrvM3e7_",
            "parsec3://example.com/MyOrg",
            "parsec3://example.com/MyOrg?a=bootstrap_organization&p=xBAAESIzRFVmd4iZqrvM3e7_",
        ] {
            assert!(InvitationLink::parse(text).is_err(), "{text}");
        }
        let link = InvitationLink::parse("file:///x?a=claim_user&p=xBAAESIzRFVmd4iZqrvM3e7_").unwrap();
        assert!(!format!("{link:?}").contains("112233"));
    }
}
