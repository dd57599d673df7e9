//! Hears of changes made elsewhere (protocol.md 3.8).
//!
//! One task listens for all who ask, from the first who does until the storage is dropped. An event is a hint to ask;
//! whatever might have been lost is [`Event::Missed`]. Every attempt that fails says `Missed` too: the server may be
//! there and only its stream blocked on the way, and then this is what keeps changes coming.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use futures::{StreamExt, stream::BoxStream};
use parsecfs_core::storage::{Error, ErrorKind, Event, EventSource, Result, Signer};
use reqwest::Response;
use tokio::{sync::broadcast, task::JoinHandle, time::timeout};

use super::{
    ParsecStorage,
    command::Reply,
    server::Server,
    sse::{Parser, Record},
};

/// Events a slow listener may lag behind before it hears `Missed`.
const EVENTS_BEHIND_MAX: usize = 256;
/// Waits between attempts; the last one is repeated.
const LISTEN_AGAIN_S: [u64; 6] = [0, 1, 5, 10, 30, 60];
/// A stream that lasted so long was a good one: what ended it is asked about at once.
const STEADY: Duration = Duration::from_secs(10);

/// The task that listens, and those who hear it.
pub(super) struct Listener {
    shared: Arc<Shared>,
}

struct Shared {
    server: Arc<Server>,
    signer: Arc<dyn Signer>,
    heard: broadcast::Sender<Event>,
    task: OnceLock<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn new(server: Arc<Server>, signer: Arc<dyn Signer>) -> Self {
        let heard = broadcast::Sender::new(EVENTS_BEHIND_MAX);
        Self { shared: Arc::new(Shared { server, signer, heard, task: OnceLock::new() }) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = self.shared.task.get() {
            task.abort();
        }
    }
}

impl EventSource for ParsecStorage {
    fn events(&self) -> BoxStream<'static, Event> {
        let shared = Arc::clone(&self.listener.shared);
        let receiver = shared.heard.subscribe();
        let heard = futures::stream::unfold((shared, receiver), |(shared, mut receiver)| async {
            // Here, since only a stream that is polled is on a runtime for sure.
            shared.task.get_or_init(|| {
                let (server, signer) = (Arc::clone(&shared.server), Arc::clone(&shared.signer));
                tokio::spawn(listen(server, signer, shared.heard.clone()))
            });
            let event = match receiver.recv().await {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(_)) => Event::Missed,
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            Some((event, (shared, receiver)))
        });
        futures::stream::once(async { Event::Missed }).chain(heard).boxed()
    }
}

/// Listens for ever.
async fn listen(server: Arc<Server>, signer: Arc<dyn Signer>, heard: broadcast::Sender<Event>) {
    // Nobody listening just now is not a failure.
    let tell = |event| drop(heard.send(event));
    let mut session = Session { last_id: None, up: false };
    let mut attempts = 0;
    loop {
        let began = Instant::now();
        match session.run(&server, &*signer, &tell).await {
            Ok(()) => tracing::debug!("the stream of events ended"),
            Err(error) => tracing::debug!(%error, "no stream of events"),
        }
        let lasted = std::mem::take(&mut session.up).then(|| began.elapsed());
        tell(Event::Offline);
        tell(Event::Missed);
        let wait = pause(&mut attempts, lasted);
        tokio::time::sleep(wait.min(server.limits().listen_again_max)).await;
    }
}

/// How long to wait before the next attempt, by how long the stream lasted, if there was one. Whatever cuts it again
/// and again is not asked without a pause.
fn pause(attempts: &mut usize, lasted: Option<Duration>) -> Duration {
    *attempts = match lasted {
        Some(lasted) if lasted >= STEADY => 0,
        Some(_) => 1,
        None => *attempts + 1,
    };
    Duration::from_secs(LISTEN_AGAIN_S[(*attempts).min(LISTEN_AGAIN_S.len() - 1)])
}

struct Session {
    /// Of the last event that was heard: the server goes on behind it, or says that it cannot.
    last_id: Option<String>,
    /// Whether the stream came up since this was last looked at.
    up: bool,
}

impl Session {
    /// One connection, until it ends.
    async fn run(&mut self, server: &Server, signer: &dyn Signer, tell: &impl Fn(Event)) -> Result<()> {
        let stream = server.listen(signer, self.last_id.as_deref()).await?;
        let mut silence = server.limits().silence;
        let mut parser = Parser::default();
        let mut stream = stream;
        while let Some(piece) = next_piece(&mut stream, silence).await? {
            let records = parser.feed(&piece).map_err(|_| garbled("a line is too long"))?;
            for record in records {
                self.hear(record, &mut silence, tell)?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, record: Record, silence: &mut Duration, tell: &impl Fn(Event)) -> Result<()> {
        if !self.up {
            self.up = true;
            tell(Event::Online);
        }
        match record.event.as_str() {
            "keepalive" => return Ok(()),
            "missed_events" => {
                tell(Event::Missed);
                return Ok(());
            }
            _ => {}
        }
        let bytes = BASE64.decode(record.data.as_bytes()).map_err(|error| garbled("not base64").caused_by(error))?;
        let mut reply = Reply::read("events_listen", &bytes)?.ok()?;
        // Without a name it is of another version.
        match reply.get::<String>("event").unwrap_or_default().as_str() {
            "ORGANIZATION_CONFIG" => {
                // A fifth longer than the server promises means that it is not there any more.
                match reply.get::<Option<u64>>("sse_keepalive_seconds")? {
                    Some(seconds) => *silence = Duration::from_millis(seconds.clamp(1, 3600) * 1200),
                    None => *silence = Duration::MAX,
                }
            }
            "VLOB" => tell(Event::Vlobs(reply.get("realm_id")?)),
            "COMMON_CERTIFICATE" | "SEQUESTER_CERTIFICATE" | "SHAMIR_RECOVERY_CERTIFICATE" | "REALM_CERTIFICATE" => {
                tell(Event::Certificates);
            }
            // What is not known here, or concerns invitations, which are asked for.
            _ => {}
        }
        self.last_id = record.id.filter(|id| is_hex(id)).or(self.last_id.take());
        Ok(())
    }
}

fn is_hex(id: &str) -> bool {
    id.len() <= 36 && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

async fn next_piece(stream: &mut Response, silence: Duration) -> Result<Option<Vec<u8>>> {
    let broke = |what| Error::new(ErrorKind::Offline, what);
    match timeout(silence, stream.chunk()).await {
        Ok(Ok(piece)) => Ok(piece.map(|piece| piece.to_vec())),
        Ok(Err(error)) => Err(broke("the stream of events broke").caused_by(error.without_url())),
        Err(_) => Err(broke("the stream of events fell silent")),
    }
}

fn garbled(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the stream of events makes no sense: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_ends_at_once_is_not_asked_for_without_pause() {
        let mut attempts = 0;
        let mut waits = |lasted| [0; 6].map(|_| pause(&mut attempts, lasted).as_secs());
        assert_eq!(waits(Some(Duration::from_millis(1))), [1; 6]);
        assert_eq!(waits(Some(STEADY)), [0; 6]);
        assert_eq!(waits(None), [1, 5, 10, 30, 60, 60]);
    }
}
