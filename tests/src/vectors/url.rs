//! Addresses.

use anyhow::{Result, bail, ensure};
use parsecfs_core::{
    error::Result as Read,
    url::{Action, Address, ServerAddr, open_path, seal_path},
};
use parsecfs_crypto::SecretKey;
use serde_json::{Value, json};

use super::{hex_array, judge, text};

/// Runs a case of `urls`.
pub fn run(case: &Value) -> Result<()> {
    let url = text(case, "url")?;
    let is_server = case["class"] == "ParsecAddr" || (case["class"].is_null() && !case["http_url"].is_null());
    if is_server { server(case, url) } else { address(case, url) }
}

fn server(case: &Value, url: &str) -> Result<()> {
    let Some(server) = judge(case, ServerAddr::parse(url))? else { return Ok(()) };
    ensure!(server.to_string() == case["canonical"].as_str().unwrap_or(url), "written otherwise");
    if let Some(http) = case["http_url"].as_str() {
        ensure!(server.http_url() == http && ServerAddr::from_http(http)? == server, "another http form");
        same_server(&server, &case["fields"])?;
    }
    Ok(())
}

fn address(case: &Value, url: &str) -> Result<()> {
    let Some(address) = judge(case, parse(case, url))? else { return Ok(()) };
    ensure!(address.to_string() == url, "written otherwise");
    ensure!(address.http_redirection() == text(case, "http_redirection")?, "another redirection");
    ensure!(Address::parse(&address.http_redirection())? == address, "redirection read otherwise");
    same_server(&address.server, &case["fields"])?;
    same_action(&address, &case["fields"])
}

/// The reader of the vectors wants one kind; ours takes all.
fn parse(case: &Value, url: &str) -> Read<Address> {
    use parsecfs_core::error::{Error, ErrorKind};
    let address = Address::parse(url)?;
    let is_organization = matches!(address.action, Action::Organization { .. });
    let unwanted = match case["class"].as_str() {
        Some("ParsecOrganizationAddr") => !is_organization,
        Some("ParsecInvitationAddr") => is_organization,
        _ => false,
    };
    if unwanted { Err(Error::new(ErrorKind::Invalid, "another kind of address")) } else { Ok(address) }
}

fn same_server(server: &ServerAddr, fields: &Value) -> Result<()> {
    let found = [json!(server.host()), json!(server.port()), json!(server.tls())];
    ensure!(found == [&fields["hostname"], &fields["port"], &fields["use_ssl"]].map(Value::clone), "another server");
    Ok(())
}

fn same_action(address: &Address, fields: &Value) -> Result<()> {
    let encode = |bytes: &[u8]| json!(data_encoding::HEXLOWER.encode(bytes));
    ensure!(address.organization.as_str() == text(fields, "organization_id")?, "another organization");
    let same = match &address.action {
        Action::Organization { root_verify_key } => fields["root_verify_key"] == encode(root_verify_key.as_bytes()),
        Action::Bootstrap { token } => fields["token"] == token.map_or(Value::Null, |token| encode(&token)),
        Action::ClaimUser(token) | Action::ClaimDevice(token) | Action::ClaimShamirRecovery(token) => {
            fields["token"] == encode(token.as_bytes())
        }
        Action::Path { realm, key_index, encrypted_path } => {
            let key = SecretKey::from_bytes(hex_array(fields, "realm_key")?);
            let path = open_path(encrypted_path, &key)?;
            fields["workspace_id"] == encode(realm.as_bytes())
                && fields["key_index"] == *key_index
                && fields["encrypted_path"] == encode(encrypted_path)
                && fields["path"] == path.as_str()
                && open_path(&seal_path(&path, &key), &key)? == path
        }
        Action::AsyncEnrollment | Action::PkiEnrollment | Action::TotpReset { .. } => bail!("no vector has this"),
    };
    ensure!(same, "another action");
    Ok(())
}
