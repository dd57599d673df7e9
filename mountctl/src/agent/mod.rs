//! The background process of a home: holds mounts and unlocked devices, answers commands over a unix socket.
//!
//! There is never more than one: it holds `agent.lock` for its whole life. It ends by itself when nothing is mounted
//! and nobody asked for a while. Its parent is the [`keeper`], which starts another one when it dies; that one goes on with
//! the mounts. It never touches a path inside its own mounts. Its log holds ids, never names or paths.

mod audit;
mod check;
mod deep;
mod dialogs;
mod invitations;
mod mounts;
mod people;
mod record;
mod recovery;
pub mod server;
mod session;
mod survival;
mod views;
mod work;

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use self::survival::Left;
use crate::{
    daemon,
    exit::Kind,
    failure::{Failure, Result},
    home::Home,
    keeper::{self, Kept},
    socket,
};

/// A log larger than this is set aside when the next agent starts; one old log is kept.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// First and only line that a starting agent writes to its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// It listens.
    Ready,
    /// Another agent holds the lock.
    Running,
    /// It could not start.
    Failed(Failure),
}

/// Where an agent writes what happens.
#[must_use]
pub fn log_path(home: &Home) -> PathBuf {
    home.agent_folder().join("agent.log")
}

/// Opens the log for an agent that is about to start.
pub fn open_log(home: &Home) -> io::Result<File> {
    let path = log_path(home);
    if std::fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        std::fs::rename(&path, path.with_extension("log.old"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Runs as the agent of `home` until it has nothing to do, or another one is to go on. Standard input is the keeper's socket,
/// standard output the pipe to the command that started the first one.
pub fn run(home: &Home, verbosity: u8) -> Result<()> {
    daemon::become_background();
    init_log(verbosity);
    let failed = |error: io::Error| Failure::io("cannot start the agent", &error);
    let (kept, things) = Kept::take().map_err(failed)?;
    let kept = Arc::new(kept);
    let mut left = Left::of(things).map_err(failed)?;
    let runtime = daemon::runtime()?;
    let place = match left.place.take() {
        Some(place) => Ok(place),
        None => start(home, &kept),
    };
    let (lock, listener) = match place {
        Ok(place) => place,
        Err(readiness) => return report(&readiness),
    };
    let work = Arc::new(work::Work::new(home.clone(), kept.clone()));
    let restored = runtime.block_on(work.restore(left))?;
    record::clean_stale(home.agent_folder(), &restored);
    keeper::forget_giving_up(home.agent_folder());
    report(&Readiness::Ready)?;
    tracing::info!(pid = std::process::id(), mounts = restored.len(), "agent started");
    let ended = runtime.block_on(server::serve(listener, home.agent_folder(), &lock, work));
    match &ended {
        // Unless somebody else goes on, nothing is left to keep.
        Ok(server::End::Restart(program)) => kept.next(program),
        Ok(server::End::Done) => kept.bye(),
        Err(_) => {}
    }
    // The lock goes last: whoever takes it next must find no socket and no mount of ours.
    drop(runtime);
    drop(lock);
    tracing::info!("agent ended");
    ended.map(drop).map_err(|error| Failure::io("the agent cannot listen", &error))
}

type Started = (socket::Lock, std::os::unix::net::UnixListener);

fn start(home: &Home, kept: &Kept) -> std::result::Result<Started, Readiness> {
    let failed = |error: io::Error| Readiness::Failed(Failure::io("cannot start the agent", &error));
    let lock = socket::Lock::take(home.agent_folder()).map_err(failed)?.ok_or(Readiness::Running)?;
    record::clean_stale(home.agent_folder(), &BTreeSet::new());
    let listener = socket::listen(home.agent_folder()).map_err(failed)?;
    survival::keep_place(kept, &lock, &listener);
    Ok((lock, listener))
}

fn report(readiness: &Readiness) -> Result<()> {
    let line = serde_json::to_string(readiness).expect("a readiness line is plain JSON");
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::io("cannot report readiness", &error).hint("do not start `agent` by hand"))
}

fn init_log(verbosity: u8) {
    let level = match verbosity {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    let ours = format!("warn,mountctl={level},parsecfs_vfs={level},parsecfs_backends={level}");
    let filter = tracing_subscriber::EnvFilter::new(ours);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
}

/// What commands say when an agent of another version answers.
#[must_use]
pub fn other_version(version: &str) -> Failure {
    Failure::new(Kind::Failed, format!("the background agent of this home is version {version}, this is another"))
        .hint("`mountctl agent restart` puts this version in its place; mounts stay")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_log_is_private_and_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(dir.path())).unwrap();
        open_log(&home).unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        let fresh = open_log(&home).unwrap().metadata().unwrap();
        assert_eq!((fresh.len(), fresh.mode() & 0o777), (0, 0o600));
    }
}
