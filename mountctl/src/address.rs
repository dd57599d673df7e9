//! Where an organization is kept, as people write it and as devices have it.

use std::path::Path;

use parsecfs_core::url::{Action, Address, ServerAddr, escape};

use crate::{
    exit::Kind,
    failure::{Failure, Result},
};

/// The address of an organization in its one form: a bare path becomes `file://` and absolute.
pub fn storage_url(text: &str) -> Result<String> {
    if text == "memory:" {
        return Ok(text.to_owned());
    }
    match text.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => directory_url(Path::new(path)),
        Some(("file", _)) => {
            Err(Failure::new(Kind::Usage, format!("{text} does not name a directory of this machine"))
                .hint("a file address has three slashes: file:///absolute/directory"))
        }
        Some(("parsec3" | "http" | "https", _)) => server_url(text),
        Some(("s3", _)) => {
            Err(Failure::new(Kind::Usage, format!("{text}: this kind of storage is not yet in this version"))
                .hint("use a server: parsec3://host, or a directory: file:///absolute/directory"))
        }
        Some(_) => Err(Failure::new(Kind::Usage, format!("{text}: there is no such kind of storage"))
            .hint("use a server: parsec3://host, or a directory: file:///absolute/directory")),
        None => directory_url(Path::new(text)),
    }
}

/// The address of a server as devices have it.
fn server_url(text: &str) -> Result<String> {
    let server = ServerAddr::parse(text).or_else(|_| ServerAddr::from_http(text));
    let wrong = |_| {
        Failure::new(Kind::Usage, "this is not the address of a server")
            .hint("a server is parsec3://host or parsec3://host:port, a directory file:///absolute/directory")
    };
    Ok(server.map_err(wrong)?.http_url())
}

/// Whether this is the address of a server, as devices have it.
#[must_use]
pub fn is_server(url: &str) -> bool {
    ServerAddr::from_http(url).is_ok()
}

/// `parsec3://host/ORG?...` stands for the server when the organization is named beside it.
#[must_use]
pub fn without_organization(backend: &str, organization: &str) -> String {
    let Some((scheme @ ("parsec3" | "http" | "https"), rest)) = backend.split_once("://") else {
        return backend.to_owned();
    };
    let (place, query) =
        rest.split_once('?').map_or((rest, String::new()), |(place, query)| (place, format!("?{query}")));
    let place = place.strip_suffix(&format!("/{}", escape(organization))).unwrap_or(place);
    format!("{scheme}://{place}{query}")
}

/// Which organization, and where, an address lets one found.
pub fn founding_address(url: &str) -> Result<(String, String)> {
    let address = Address::parse(url).map_err(|_| no_founding_address())?;
    match address.action {
        Action::Bootstrap { .. } => Ok((address.organization.as_str().to_owned(), address.server.http_url())),
        _ => Err(no_founding_address()),
    }
}

/// Says what such an address looks like.
pub(crate) fn no_founding_address() -> Failure {
    Failure::new(Kind::Usage, "this is not an address that founds an organization")
        .hint("it ends in ?a=bootstrap_organization&p=..., and belongs into quotes")
}

/// The address of an organization in a directory, the same for every way to write its path.
pub fn directory_url(dir: &Path) -> Result<String> {
    let dir = crate::mountpoint::resolve(dir)?;
    match dir.to_str() {
        Some(text) => Ok(format!("file://{text}")),
        None => Err(Failure::new(Kind::Usage, "the path of a storage directory must be UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let url = format!("file://{}", path.display());
        assert_eq!(storage_url(path.to_str().unwrap()).unwrap(), url);
        assert_eq!(storage_url(&url).unwrap(), url);
        assert_eq!(storage_url(&format!("{url}/../{}/", path.file_name().unwrap().display())).unwrap(), url);
    }

    #[test]
    fn addresses_of_other_kinds_are_refused_with_what_to_use_instead() {
        for text in ["s3://bucket/prefix", "ftp://x", "file://x"] {
            let failure = storage_url(text).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage, "{text}");
            assert!(failure.hint.unwrap().contains("file:///"), "{text}");
        }
    }

    #[test]
    fn a_server_has_one_address_with_or_without_its_organization() {
        for text in ["parsec3://Host", "parsec3://host/Org", "parsec3://host:443/Org", "https://host/"] {
            let url = storage_url(&without_organization(text, "Org")).unwrap();
            assert_eq!(url, "https://host/", "{text}");
            assert!(is_server(&url));
        }
        let open = storage_url(&without_organization("parsec3://host:81/Org?no_ssl=true", "Org")).unwrap();
        assert_eq!(open, "http://host:81/");
        for text in ["parsec3://host/Other", "parsec3://", "https://host/redirect/Other"] {
            assert_eq!(storage_url(&without_organization(text, "Org")).unwrap_err().kind, Kind::Usage, "{text}");
        }
    }
}
