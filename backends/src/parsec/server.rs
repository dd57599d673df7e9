//! Commands of each family to one organization of a server, signed as the family asks (protocol.md 3.1 to 3.3).
//!
//! A further command is a [`Request`] with its fields, [`Server::call`] with the [`Family`] it belongs to, and
//! [`Reply::ok`] or a look at [`Reply::status`] for the refusals that mean something to the caller.

use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::{BASE64URL, HEXLOWER};
use parsecfs_core::{
    id::{DeviceId, InvitationToken},
    name::OrganizationId,
    storage::{Barred, Error, ErrorKind, Result, Signer},
    time::Timestamp,
    url::{ServerAddr, escape},
};
use reqwest::{
    Response,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};

use super::{
    clock_message,
    command::{Reply, Request},
    http::{Failure, Http, Limits, Refused, header, refusal},
    in_words,
};

/// The version that is spoken.
const API_VERSION: HeaderValue = HeaderValue::from_static("5.5");
const MICROSECONDS: i64 = 1_000_000;
/// What others may have signed is 300 s ahead of the server's clock at most, and ours is 320 s behind that at most.
const AHEAD_MAX_S: i64 = 900;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Who is asking.
#[derive(Clone, Copy)]
pub enum Family<'a> {
    /// Anybody.
    Anonymous,
    /// Whoever has an invitation to the organization.
    Invited(InvitationToken),
    /// A device of the organization.
    Authenticated(&'a dyn Signer),
    /// The same, for the terms of service that it has not accepted yet.
    Tos(&'a dyn Signer),
    /// Anybody, about the server itself.
    AnonymousServer,
}

/// A server, and mostly an organization on it.
pub struct Server {
    http: Http,
    organization: String,
    clock: Clock,
    limits: Limits,
    /// The last proof of who is asking: good for all requests of its second.
    proof: Mutex<Option<Proof>>,
}

struct Proof {
    device: DeviceId,
    second: i64,
    token: String,
}

impl Server {
    /// Makes ready to ask; nothing is sent yet.
    pub fn new(
        address: &ServerAddr,
        organization: Option<&OrganizationId>,
        clock: Clock,
        limits: Limits,
    ) -> Result<Self> {
        let organization = organization.map_or_else(String::new, |id| escape(id.as_str()));
        Ok(Self { http: Http::new(address.http_url(), limits)?, organization, clock, limits, proof: Mutex::default() })
    }

    /// Sends a command and returns its reply, whatever its status.
    pub async fn call(&self, family: Family<'_>, request: Request) -> Result<Reply> {
        let name = request.name();
        let path = match family {
            Family::Anonymous => format!("anonymous/{}", self.organization),
            Family::Invited(_) => format!("invited/{}", self.organization),
            Family::Authenticated(_) => format!("authenticated/{}", self.organization),
            Family::Tos(_) => format!("authenticated/{}/tos", self.organization),
            Family::AnonymousServer => "anonymous_server".to_owned(),
        };
        let mut headers = self.headers(family);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/msgpack"));
        let answer_bytes_max = request.answer_bytes_max();
        match self.http.post(&path, headers, request.into_bytes(), answer_bytes_max).await {
            Ok(bytes) => Reply::read(name, &bytes),
            Err(failure) => Err(self.failed(family, failure)),
        }
    }

    /// Opens the stream of events, after the one with `last_event_id`.
    pub(super) async fn listen(&self, signer: &dyn Signer, last_event_id: Option<&str>) -> Result<Response> {
        let family = Family::Authenticated(signer);
        let mut headers = self.headers(family);
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = last_event_id {
            headers.insert(HeaderName::from_static("last-event-id"), header(id));
        }
        let path = format!("authenticated/{}/events", self.organization);
        self.http.stream(&path, headers).await.map_err(|failure| self.failed(family, failure))
    }

    /// What a signature has to come after, if it is near: the server's own rule keeps it within minutes of its clock, and
    /// what is signed for a time far ahead would stand in the way of everybody for ever.
    pub(super) fn near(&self, after: Timestamp) -> Result<Timestamp> {
        let ahead = after.as_micros().saturating_sub((self.clock)().as_micros());
        if ahead <= AHEAD_MAX_S * MICROSECONDS {
            return Ok(after);
        }
        let what = format!("the server wants a signature for a time that is {} ahead", in_words(ahead));
        Err(Error::new(ErrorKind::Corrupt, what))
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    fn headers(&self, family: Family<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("api-version"), API_VERSION);
        let token = match family {
            Family::Anonymous | Family::AnonymousServer => return headers,
            Family::Invited(token) => HEXLOWER.encode(token.as_bytes()),
            Family::Authenticated(signer) | Family::Tos(signer) => self.device_token(signer),
        };
        let mut value = header(&format!("Bearer {token}"));
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        headers
    }

    fn failed(&self, family: Family<'_>, failure: Failure) -> Error {
        let refused = match failure {
            Failure::Broken(error) => return error,
            Failure::Refused(refused) => refused,
        };
        match (refused.status, family) {
            (498, _) => Error::new(ErrorKind::Denied, self.wrong_clock(&refused)).barred_by(Barred::WrongClock),
            (403, Family::Invited(_)) => {
                Error::new(ErrorKind::NotFound, "the server knows no such invitation to this organization")
            }
            _ => refusal(&refused),
        }
    }

    fn wrong_clock(&self, refused: &Refused) -> String {
        let servers = refused.date.and_then(|date| Timestamp::from_micros(date.checked_mul(MICROSECONDS)?));
        match servers {
            Some(servers) => clock_message((self.clock)(), servers),
            None => "the clock of this machine differs from the server's by minutes: set it".to_owned(),
        }
    }

    /// What proves for some minutes which device is asking. Not bound to a request.
    fn device_token(&self, signer: &dyn Signer) -> String {
        let (device, second) = (signer.device_id(), (self.clock)().as_micros().div_euclid(MICROSECONDS));
        let mut proof = self.proof.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = proof.as_ref().filter(|known| known.device == device && known.second == second) {
            return known.token.clone();
        }
        let signed = format!("PARSEC-SIGN-ED25519.{device}.{second}");
        let signature = BASE64URL.encode(&signer.sign(signed.as_bytes()));
        let token = format!("{signed}.{signature}");
        *proof = Some(Proof { device, second, token: token.clone() });
        token
    }
}
