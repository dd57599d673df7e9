//! `agent restart`: this program goes on with what the running one serves.

use serde::{Deserialize, Serialize};

use crate::{
    command::Context,
    failure::{Failure, Result},
    rpc::MountView,
};

/// What the restart came to.
#[derive(Debug, Serialize, Deserialize)]
struct RestartView {
    /// The process that serves now; absent when none did.
    pid: Option<u32>,
    /// What is mounted.
    mounts: Vec<MountView>,
}

pub(super) fn restart(context: &Context) -> Result<()> {
    let program = std::env::current_exe().map_err(|error| Failure::io("cannot tell which program this is", &error))?;
    let view = match context.client.restart(program)? {
        Some((pid, mounts)) => RestartView { pid: Some(pid), mounts },
        None => RestartView { pid: None, mounts: Vec::new() },
    };
    context.output.answer(&view, |view| match (view.pid, view.mounts.len()) {
        (None, _) => "no agent runs: the next command starts this program".to_owned(),
        (Some(pid), 0) => format!("process {pid} serves now"),
        (Some(pid), 1) => format!("process {pid} serves now, one mount"),
        (Some(pid), many) => format!("process {pid} serves now, {many} mounts"),
    })
}
