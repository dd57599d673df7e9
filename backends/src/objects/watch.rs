//! Hears of changes: bells of other devices in a watched directory, our own commits, and a slow poll.

use std::{path::Path, sync::Arc};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parsecfs_core::storage::{Event, LogId};
use tokio::sync::{broadcast, mpsc};

use super::{POLL, key};

/// Events that wait for a slow listener; when it misses some, the poll makes good.
const WAITING_MAX: usize = 256;

/// What may have changed when a log grew.
pub(super) fn events_of(log: LogId) -> Vec<Event> {
    match log {
        LogId::Organization => vec![Event::Certificates],
        LogId::Realm(realm) => vec![Event::Certificates, Event::Vlobs(realm)],
    }
}

/// Keeps the watch alive as long as the stream.
struct Watch(#[expect(dead_code, reason = "dropping it ends the watch")] Option<RecommendedWatcher>);

fn watch(root: &Path, own: [u8; 16], tell: mpsc::Sender<Event>) -> notify::Result<RecommendedWatcher> {
    let hints = root.join(key::HINTS);
    // A new organization has no hints yet; a read-only one is polled.
    let _ = std::fs::create_dir(&hints);
    let heard = move |event: notify::Result<notify::Event>| {
        let paths = event.map(|event| event.paths).unwrap_or_default();
        let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
        for (log, device) in names.filter_map(key::bell_of) {
            if device != own {
                for event in events_of(log) {
                    // Full: the listener has enough to do and asks for everything at the next poll.
                    let _ = tell.try_send(event);
                }
            }
        }
    };
    let mut watcher = notify::recommended_watcher(heard)?;
    watcher.watch(&hints, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// `Missed` at once and at every poll; bells in between.
pub(super) fn events(
    watched: Option<&Path>,
    own: [u8; 16],
    rung: broadcast::Receiver<Event>,
) -> BoxStream<'static, Event> {
    let (tell, heard) = mpsc::channel(WAITING_MAX);
    let watcher = watched.and_then(|root| watch(root, own, tell.clone()).ok());
    // The sender lives on in the stream, so that it never ends when there is no watch.
    let keep = Arc::new((Watch(watcher), tell));
    let others = stream::unfold(heard, |mut heard| async { heard.recv().await.map(|event| (event, heard)) });
    let own_commits = stream::unfold(rung, |mut rung| async {
        match rung.recv().await {
            Ok(event) => Some((event, rung)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some((Event::Missed, rung)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    });
    let polls = stream::unfold((), |()| async {
        tokio::time::sleep(POLL).await;
        Some((Event::Missed, ()))
    });
    let after = stream::select(stream::select(others, own_commits), polls);
    let after = after.inspect(move |_| {
        // Holds the watch as long as somebody listens.
        let _ = &keep;
    });
    stream::once(async { Event::Missed }).chain(after).boxed()
}
