//! `sync` and `wait --synced`.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    cli::{Sync, Wait},
    client::Client,
    command::{Context, pick_mount, status},
    exit::Kind,
    failure::{Failure, Result},
    output::bytes,
    rpc::{DeviceCall, MountView, Request, StatusView},
};

/// How often a person who waits is told how far it is.
const PROGRESS_STEP: Duration = Duration::from_millis(500);

pub(super) fn sync(context: &Context, arguments: &Sync) -> Result<()> {
    let mounts = context.mounts()?;
    let done: StatusView = match pick_mount(&mounts, &arguments.workspace) {
        Ok(mount) => {
            let _progress = Progress::start(context, mount);
            context.client.call(&Request::Sync { workspace: mount.workspace_id.clone() })?
        }
        Err(failure) if failure.kind == Kind::NotMounted => {
            context.ask_device(DeviceCall::SyncOnce { workspace: arguments.workspace.clone() })?
        }
        Err(failure) => return Err(failure),
    };
    context.output.answer(&done, status::text)
}

pub(super) fn wait(context: &Context, arguments: &Wait) -> Result<()> {
    let mounts = context.mounts()?;
    let deadline = arguments.timeout.map(deadline).transpose()?;
    let waited: Vec<&MountView> = match &arguments.target {
        Some(name) => vec![pick_mount(&mounts, name)?],
        None => mounts.iter().collect(),
    };
    let mut all: Vec<StatusView> = Vec::new();
    for mount in waited {
        let _progress = Progress::start(context, mount);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        all.push(context.client.call(&Request::WaitSynced { workspace: mount.workspace_id.clone(), timeout_ms })?);
    }
    context.output.answer(&all, |all| status::all_text(all))
}

fn deadline(seconds: f64) -> Result<Instant> {
    let limit = Duration::try_from_secs_f64(seconds).ok();
    limit.and_then(|limit| Instant::now().checked_add(limit)).ok_or_else(|| {
        Failure::new(Kind::Usage, "this is not a time to wait").hint("a number of seconds, like --timeout 30")
    })
}

/// Shows a person what still waits, until it is dropped.
pub(super) struct Progress {
    end: Option<Sender<()>>,
    shown: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts to show, if a person is looking.
    pub(super) fn start(context: &Context, mount: &MountView) -> Self {
        if !context.output.progress() {
            return Self { end: None, shown: None };
        }
        let (end, ended) = channel();
        let (client, workspace) = (context.client.clone(), mount.workspace_id.clone());
        let shown = std::thread::spawn(move || {
            let bar = bar();
            while ended.recv_timeout(PROGRESS_STEP) == Err(RecvTimeoutError::Timeout) {
                show(&bar, &client, &workspace);
            }
            bar.finish_and_clear();
        });
        Self { end: Some(end), shown: Some(shown) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(shown) = self.shown.take() {
            // It only draws; had it failed, there would be nothing to do about it.
            let _ignored = shown.join();
        }
    }
}

fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {bytes} of {total_bytes} ({binary_bytes_per_sec}, {eta} left) {msg}");
    ProgressBar::new(0).with_style(style.expect("the template is well formed"))
}

fn show(bar: &ProgressBar, client: &Client, workspace: &str) {
    let Ok(Some(status)) = client.call_running::<StatusView>(&Request::Status { workspace: workspace.to_owned() })
    else {
        return;
    };
    let left = status.upload.bytes + status.download.bytes;
    let most = bar.length().unwrap_or(0).max(left);
    bar.set_length(most);
    bar.set_position(most - left);
    bar.set_message(format!("{} entries, {} wait", status.upload.items + status.download.items, bytes(left)));
}
