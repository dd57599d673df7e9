//! One HTTP request and its answer: bounded in time and bytes, and never sent on to another place.
//!
//! Every status but 200 is an error here; the table is [`refusal`]. A connection that the server closed while it was
//! idle is replaced once without anybody noticing: every command may be repeated.

use std::{error::Error as _, time::Duration};

use parsecfs_core::storage::{Barred, Error, ErrorKind, Result};
use reqwest::{
    Client, Response, StatusCode,
    header::{HeaderMap, HeaderValue},
    redirect,
};

/// A reply of a poll that lists much, or of a batch that reads much.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// Room that is made for an answer before it comes.
const ANNOUNCED_BYTES_MAX: usize = 2 << 20;
/// A list of versions that is worth telling.
const VERSIONS_BYTES_MAX: usize = 60;
/// Below the server's 5 s, so that a pooled connection is rarely dead.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// A line of 256 kbit/s, shared by as many blocks as go up at once.
const SLOWEST_BYTES_PER_S: u64 = 32_000 / super::BLOCK_WRITES_MAX as u64;

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a connection.
    pub connect: Duration,
    /// For the first byte of an answer once the request is up, and for each further one.
    pub silence: Duration,
    /// For a whole exchange.
    pub exchange: Duration,
    /// Longest wait between two attempts to listen for events.
    pub listen_again_max: Duration,
}

impl Limits {
    /// For the first byte of the answer to a request of this size, from its first byte on: how far it is up cannot be
    /// seen from here, so what the slowest line takes is added.
    fn first_byte(&self, request_bytes: usize) -> Duration {
        self.silence + Duration::from_secs(request_bytes as u64 / SLOWEST_BYTES_PER_S)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(60),
            exchange: Duration::from_secs(300),
            listen_again_max: Duration::from_secs(60),
        }
    }
}

/// An answer that is not 200, as far as it can be told without knowing the command.
#[derive(Debug)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// Versions that the server speaks, where it said so.
    pub versions: Option<String>,
    /// The server's time, where it said so: `Date` in seconds since the epoch.
    pub date: Option<i64>,
}

/// Sends requests to one server.
pub struct Http {
    client: Client,
    limits: Limits,
    root: String,
}

/// What went wrong below an answer.
pub enum Failure {
    /// A status other than 200.
    Refused(Box<Refused>),
    /// No answer, or not a whole one.
    Broken(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl Http {
    /// Of the server whose address, with a `/` at the end, is `root`.
    pub fn new(root: String, limits: Limits) -> Result<Self> {
        // Another part of the process may have chosen one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(limits.connect)
            .pool_idle_timeout(IDLE_MAX)
            .tcp_nodelay(true)
            .user_agent(concat!("parsecfs/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::new(ErrorKind::Internal, "no HTTP client can be made").caused_by(error))?;
        Ok(Self { client, limits, root })
    }

    /// Sends `body` to `path` and returns the answer to it, of `answer_bytes_max` at most.
    pub async fn post(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Vec<u8>,
        answer_bytes_max: usize,
    ) -> std::result::Result<Vec<u8>, Failure> {
        let first_byte = self.limits.first_byte(body.len());
        let exchange = async {
            let request = self.client.post(format!("{}{path}", self.root)).headers(headers).body(body).build();
            let request = request.map_err(|error| broken(Some(error)))?;
            // Shares the body.
            let again = request.try_clone();
            let answer = match (in_time(first_byte, self.client.execute(request)).await, again) {
                (Err(error), Some(again)) if is_dead_connection(&error) => {
                    in_time(first_byte, self.client.execute(again)).await
                }
                (answer, _) => answer,
            };
            let answer = refuse(answer.map_err(broken)?)?;
            Ok(self.whole(answer, answer_bytes_max).await?)
        };
        tokio::time::timeout(self.limits.exchange, exchange).await.unwrap_or_else(|_| Err(silent().into()))
    }

    /// Opens a stream.
    pub async fn stream(&self, path: &str, headers: HeaderMap) -> std::result::Result<Response, Failure> {
        let asked = self.client.get(format!("{}{path}", self.root)).headers(headers).send();
        let answer = in_time(self.limits.silence, asked).await;
        refuse(answer.map_err(broken)?)
    }

    async fn whole(&self, mut answer: Response, max: usize) -> Result<Vec<u8>> {
        // What the server says about the length is a hint.
        let announced = answer.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut bytes = Vec::with_capacity(announced.min(ANNOUNCED_BYTES_MAX).min(max));
        while let Some(piece) = in_time(self.limits.silence, answer.chunk()).await.map_err(broken)? {
            if bytes.len() + piece.len() > max {
                let what = "the server answers more than was asked for";
                return Err(Error::new(ErrorKind::Corrupt, what).caused_by(Oversized(max)));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// The answer was larger than what was asked for can be: ask for less.
#[derive(Debug, thiserror::Error)]
#[error("over {0} bytes")]
pub struct Oversized(usize);

async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = reqwest::Result<T>>,
) -> std::result::Result<T, Option<reqwest::Error>> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer.map_err(Some),
        Err(_) => Err(None),
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::Offline, "the server does not answer in time")
}

/// A connection that broke before or while the answer came: the request may be repeated, as every command may.
fn is_dead_connection(error: &Option<reqwest::Error>) -> bool {
    error.as_ref().is_some_and(|error| error.is_request() && !error.is_connect() && !error.is_timeout())
}

/// No answer, or not a whole one.
fn broken(error: Option<reqwest::Error>) -> Error {
    let Some(error) = error else { return silent() };
    // The address is known to whoever asked, and has no place in a log.
    let error = error.without_url();
    let text = chain(&error);
    let what = if error.is_timeout() {
        "the server does not answer in time"
    } else if text.contains("certificate") {
        "the server cannot prove who it is: its TLS certificate does not verify"
    } else if error.is_connect() {
        "the server cannot be reached"
    } else {
        "the connection to the server broke"
    };
    Error::new(ErrorKind::Offline, what).caused_by(error)
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn refuse(answer: Response) -> std::result::Result<Response, Failure> {
    if answer.status() == StatusCode::OK {
        return Ok(answer);
    }
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Err(Failure::Refused(Box::new(Refused {
        status: answer.status().as_u16(),
        versions: header("supported-api-versions"),
        date: header("date").as_deref().and_then(seconds_of_date),
    })))
}

/// What a status means whoever asked what (protocol.md 3.5).
#[must_use]
pub fn refusal(refused: &Refused) -> Error {
    let barred = match refused.status {
        460 => Some(Barred::Expired),
        461 => Some(Barred::Revoked),
        462 => Some(Barred::Frozen),
        463 => Some(Barred::TermsOfService),
        _ => None,
    };
    let (kind, text) = meaning(refused);
    let error = Error::new(kind, text);
    match barred {
        Some(barred) => error.barred_by(barred),
        None => error,
    }
}

fn meaning(refused: &Refused) -> (ErrorKind, String) {
    let (kind, text) = match refused.status {
        300..=399 => {
            (ErrorKind::Offline, "the server sends elsewhere, which is not followed: is a log-in page between?")
        }
        401 => (ErrorKind::Internal, "the server does not understand who is asking"),
        403 => (ErrorKind::Denied, "the server does not know this device in this organization"),
        404 => (ErrorKind::NotFound, "there is no such organization on this server"),
        405 | 406 | 413 => (ErrorKind::Internal, "the server does not take this request"),
        410 => (ErrorKind::NotFound, "this invitation was used or cancelled"),
        415 => (ErrorKind::Unsupported, "the server does not understand this request: it may be of another version"),
        422 => {
            // Whatever it says ends up before a person.
            let versions = refused.versions.as_deref().filter(|versions| versions.len() <= VERSIONS_BYTES_MAX);
            let versions = versions.unwrap_or("none that is known here");
            return (ErrorKind::Unsupported, format!("the server speaks another version of the protocol ({versions})"));
        }
        429 => (ErrorKind::Throttled, "the server asks to slow down"),
        460 => (ErrorKind::Denied, "the organization has expired on its server: its operator can extend it"),
        461 => (ErrorKind::Denied, "this user is revoked and does not belong to the organization any more"),
        462 => (ErrorKind::Denied, "this user is frozen: the server's operator can lift it"),
        463 => (ErrorKind::Denied, "the organization's terms of service have to be accepted first"),
        464 => (ErrorKind::Denied, "the organization does not allow this kind of client"),
        507 => (ErrorKind::Full, "the server has no space left"),
        500 => (ErrorKind::Offline, "the server failed inside"),
        502..=504 => (ErrorKind::Offline, "the server is away for a moment"),
        status => {
            return (
                ErrorKind::Offline,
                format!("the server answers with HTTP status {status}, which means nothing here"),
            );
        }
    };
    (kind, text.to_owned())
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT`.
fn seconds_of_date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(jiff::Timestamp::as_second)
}

/// A header from text of our own.
#[must_use]
pub fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("hexadecimal, base64 and words are legal in headers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_servers_are_read() {
        assert_eq!(seconds_of_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds_of_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds_of_date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        assert_eq!(seconds_of_date("yesterday"), None);
    }

    #[test]
    fn a_slow_line_has_the_time_that_a_full_load_of_blocks_takes() {
        let limits = Limits::default();
        let block = 512 << 10;
        let all = Duration::from_secs((block * super::super::BLOCK_WRITES_MAX / 32_000) as u64);
        assert!(limits.first_byte(block) >= all);
        assert!(limits.first_byte(block) < limits.exchange);
        assert!(limits.first_byte(1000) <= limits.silence + Duration::from_secs(1));
    }

    #[test]
    fn an_endless_list_of_versions_is_not_repeated_to_the_person() {
        let refused = Refused { status: 422, versions: Some("5.5;".repeat(1000)), date: None };
        assert!(refusal(&refused).to_string().len() < 120);
    }

    #[test]
    fn every_status_has_a_kind_and_words() {
        let refused = |status| Refused { status, versions: None, date: None };
        for status in 300..600 {
            assert!(!refusal(&refused(status)).to_string().is_empty(), "{status}");
        }
        for status in [460, 461, 462, 463] {
            assert_eq!(refusal(&refused(status)).kind(), ErrorKind::Denied, "{status}");
            assert!(refusal(&refused(status)).barred().is_some(), "{status}");
        }
        for status in [302, 500, 502, 503, 504, 599] {
            assert_eq!(refusal(&refused(status)).kind(), ErrorKind::Offline, "{status}");
        }
    }
}
