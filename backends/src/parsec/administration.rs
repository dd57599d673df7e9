//! Makes organizations on a server, for whoever runs it (protocol.md 1.5).

use parsecfs_core::{
    name::OrganizationId,
    storage::{Error, ErrorKind, Result},
    url::{Action, Address, ServerAddr},
};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::http::{Failure, Http, Limits, refusal};

/// Two addresses.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Makes an organization and returns the address that founds it. One that nobody founded yet gets a new address.
/// `VersionConflict` when it is founded already, `Denied` when the token is another one.
pub async fn create_organization(
    server: &ServerAddr,
    token: &str,
    organization: &OrganizationId,
    limits: Limits,
) -> Result<Address> {
    let mut headers = HeaderMap::new();
    let illegal = |error| Error::new(ErrorKind::Denied, "this is no administration token").caused_by(error);
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(illegal)?;
    bearer.set_sensitive(true);
    headers.insert(AUTHORIZATION, bearer);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = serde_json::json!({ "organization_id": organization.as_str() }).to_string().into_bytes();
    let http = Http::new(server.http_url(), limits)?;
    let answer = http.post("administration/organizations", headers, body, ANSWER_BYTES_MAX).await.map_err(refused)?;
    read(&answer, server, organization)
}

fn refused(failure: Failure) -> Error {
    let refused = match failure {
        Failure::Broken(error) => return error,
        Failure::Refused(refused) => refused,
    };
    match refused.status {
        400 => Error::new(ErrorKind::VersionConflict, "there is an organization of this name already"),
        401 | 403 => Error::new(ErrorKind::Denied, "the server does not accept the administration token"),
        404 => Error::new(ErrorKind::NotFound, "this is not a Parsec server, or not one that can be administered"),
        422 => Error::new(ErrorKind::Internal, "the server does not accept the name of the organization"),
        _ => refusal(&refused),
    }
}

/// Only an address of the same server and organization is taken: the token is sent nowhere else.
fn read(answer: &[u8], server: &ServerAddr, organization: &OrganizationId) -> Result<Address> {
    let garbled = || Error::new(ErrorKind::Corrupt, "the server's answer to creating an organization makes no sense");
    let answer: serde_json::Value = serde_json::from_slice(answer).map_err(|error| garbled().caused_by(error))?;
    let text = answer.get("bootstrap_url").and_then(serde_json::Value::as_str).ok_or_else(garbled)?;
    let address = Address::parse(text).map_err(|error| garbled().caused_by(error))?;
    let Action::Bootstrap { .. } = &address.action else { return Err(garbled()) };
    if address.organization != *organization {
        return Err(garbled());
    }
    // A server behind a proxy may not know how it is reached.
    Ok(Address { server: server.clone(), ..address })
}
