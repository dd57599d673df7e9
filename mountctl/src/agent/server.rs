//! The listening side: who may ask, one request a connection, and when to stop.

use std::{
    fs::File,
    io,
    os::unix::net::UnixListener as StdListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use zeroize::Zeroizing;

use crate::{
    exit::Kind,
    failure::{Failure, Result},
    rpc::{Greeting, LINE_BYTES_MAX, Reply, Request},
    socket,
};

/// An agent with nothing mounted ends when nobody asked for so long.
const IDLE: Duration = Duration::from_secs(5);

/// What the server serves.
pub trait Answer: Send + Sync + 'static {
    /// Works on one request. Runs to its end even when the asking command has gone.
    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Result<Value>>;

    /// Whether there is a reason to stay although nobody asks.
    fn engaged(&self) -> bool;

    /// Ends everything in good order.
    fn close(self: Arc<Self>) -> BoxFuture<'static, ()>;

    /// Returns when another process is to go on in place of this one, with its program.
    fn restart_asked(self: Arc<Self>) -> BoxFuture<'static, File>;

    /// Stops in the middle of everything, in good order, for another process to go on. `false`: it cannot, and goes on.
    fn hand_over(self: Arc<Self>) -> BoxFuture<'static, bool>;
}

/// How serving ended.
#[derive(Debug)]
pub enum End {
    /// Everything has ended.
    Done,
    /// This program goes on with it.
    Restart(File),
}

/// Counts connections that are being worked on and tells when one ended.
#[derive(Default)]
struct Activity {
    open: AtomicUsize,
    ended: Notify,
}

struct ActivityGuard(Arc<Activity>);

impl ActivityGuard {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.open.fetch_add(1, Ordering::SeqCst);
        Self(activity.clone())
    }
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.ended.notify_waiters();
    }
}

/// Serves until nothing is engaged and nobody asked for a while, or until told to end by SIGTERM or SIGINT. `lock` says
/// whether the socket in `folder` is this one's.
pub async fn serve<A: Answer>(
    listener: StdListener,
    folder: &Path,
    lock: &socket::Lock,
    answer: Arc<A>,
) -> io::Result<End> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let activity = Arc::new(Activity::default());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let guard = ActivityGuard::new(&activity);
                    tokio::spawn(converse(stream, answer.clone(), guard));
                }
                // Out of descriptors: give those at work a moment to return theirs.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            program = answer.clone().restart_asked() => {
                if answer.clone().hand_over().await {
                    return Ok(End::Restart(program));
                }
            }
            () = idle(&*answer, &activity) => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    // Nobody new finds us from here on; whoever connected but was not greeted asks another agent.
    socket::remove(folder, lock)?;
    drop(listener);
    answer.close().await;
    Ok(End::Done)
}

async fn idle<A: Answer>(answer: &A, activity: &Activity) {
    loop {
        let ended = activity.ended.notified();
        // A mount can end without a command, so this looks again even when nobody asks.
        let quiet = tokio::time::timeout(IDLE, ended).await.is_err();
        if quiet && activity.open.load(Ordering::SeqCst) == 0 && !answer.engaged() {
            return;
        }
    }
}

async fn converse<A: Answer>(mut stream: UnixStream, answer: Arc<A>, guard: ActivityGuard) {
    let _guard = guard;
    if !same_user(&stream) {
        tracing::warn!("refused a connection of another user");
        return;
    }
    if let Err(error) = exchange(&mut stream, answer).await {
        tracing::debug!(%error, "connection ended early");
    }
}

fn same_user(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

async fn exchange<A: Answer>(stream: &mut UnixStream, answer: Arc<A>) -> io::Result<()> {
    let greeting = Greeting { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() };
    send(stream, &greeting).await?;
    // The line may hold a password.
    let mut line = Zeroizing::new(Vec::new());
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read.take(LINE_BYTES_MAX));
    read.read_until(b'\n', &mut line).await?;
    let reply = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => {
            let waits = request.waits();
            let work = tokio::spawn(answer.answer(request));
            let abort = work.abort_handle();
            let gone = async {
                // A command sends nothing more; the end of its side means that it has gone.
                let _end = read.read_u8().await;
            };
            tokio::select! {
                biased;
                result = work => result.unwrap_or_else(|error| Err(broken(&error))),
                () = gone, if waits => {
                    abort.abort();
                    return Ok(());
                }
            }
        }
        Err(_) => Err(Failure::new(Kind::Usage, "the agent does not understand this command")),
    };
    let reply = match reply {
        Ok(value) => Reply::Done(value),
        Err(failure) => Reply::Failed(failure),
    };
    let mut bytes = Zeroizing::new(serde_json::to_vec(&reply)?);
    bytes.push(b'\n');
    write.write_all(&bytes).await
}

fn broken(error: &tokio::task::JoinError) -> Failure {
    tracing::error!(%error, "a request broke");
    Failure::new(Kind::Failed, "the agent failed inside").hint("its log says more; see `mountctl doctor`")
}

async fn send(stream: &mut UnixStream, greeting: &Greeting) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(greeting)?;
    bytes.push(b'\n');
    stream.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::client;

    #[derive(Default)]
    struct Fake {
        engaged: AtomicBool,
        closed: AtomicBool,
    }

    impl Answer for Fake {
        fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Result<Value>> {
            Box::pin(async move {
                match request {
                    Request::Mounts => Ok(Value::from("mounts")),
                    Request::WaitUnmounted { .. } => futures::future::pending().await,
                    _ => panic!("not expected"),
                }
            })
        }

        fn engaged(&self) -> bool {
            self.engaged.load(Ordering::SeqCst)
        }

        fn close(self: Arc<Self>) -> BoxFuture<'static, ()> {
            Box::pin(async move { self.closed.store(true, Ordering::SeqCst) })
        }

        fn restart_asked(self: Arc<Self>) -> BoxFuture<'static, File> {
            Box::pin(futures::future::pending())
        }

        fn hand_over(self: Arc<Self>) -> BoxFuture<'static, bool> {
            Box::pin(async { false })
        }
    }

    #[tokio::test]
    async fn a_request_is_answered_and_a_broken_one_is_a_failure_not_a_silence() {
        let dir = tempfile::tempdir().unwrap();
        let lock = socket::Lock::take(dir.path()).unwrap().unwrap();
        let listener = socket::listen(dir.path()).unwrap();
        let folder = dir.path().to_owned();
        let server = tokio::spawn(async move { serve(listener, &folder, &lock, Arc::new(Fake::default())).await });
        let folder = dir.path().to_owned();
        let ask = |request: Request| {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || client::ask::<Value>(&folder, &request))
        };
        assert_eq!(ask(Request::Mounts).await.unwrap().unwrap().unwrap(), "mounts");
        let broken = ask(Request::Sync { workspace: String::new() }).await.unwrap().unwrap().unwrap_err();
        assert_eq!(broken.kind, Kind::Failed);
        server.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_idle_but_not_while_engaged() {
        let answer = Fake::default();
        answer.engaged.store(true, Ordering::SeqCst);
        let activity = Activity::default();
        let waited = tokio::time::timeout(IDLE * 10, idle(&answer, &activity)).await;
        assert!(waited.is_err(), "stays while engaged");
        answer.engaged.store(false, Ordering::SeqCst);
        tokio::time::timeout(IDLE * 2, idle(&answer, &activity)).await.unwrap();
    }
}
