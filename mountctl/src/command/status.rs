//! `status`: of everything mounted, of one workspace, or of one path.

use std::{os::unix::fs::MetadataExt, path::Path};

use crate::{
    cli::Status,
    command::{Context, names, pick_mount},
    exit::Kind,
    failure::{Failure, Result},
    keeper,
    output::bytes,
    rpc::{MountView, PathView, Request, StatusView},
};

pub(super) fn run(context: &Context, arguments: &Status) -> Result<()> {
    let mounts = context.mounts()?;
    if let Some(why) = keeper::gave_up(context.home.agent_folder()).filter(|_| mounts.is_empty()) {
        return Err(Failure::new(Kind::NotMounted, format!("the mounts have ended: {why}"))
            .hint("nothing that was acknowledged is lost: mount again; the log tells more, see `mountctl doctor`"));
    }
    let Some(name) = &arguments.target else {
        let all: Vec<StatusView> = mounts.iter().map(|mount| of_workspace(context, mount)).collect::<Result<_>>()?;
        return context.output.answer(&all, |all| all_text(all));
    };
    let mount = pick_mount(&mounts, name)?;
    let path = Path::new(name);
    let whole = names(mount, name) || crate::mountpoint::resolve(path)? == mount.mount;
    if whole {
        return context.output.answer(&of_workspace(context, mount)?, text);
    }
    let view = of_path(context, mount, path)?;
    context.output.answer(&view, |view| format!("{}  {}", view.state, view.path.display()))
}

fn of_workspace(context: &Context, mount: &MountView) -> Result<StatusView> {
    context.client.call(&Request::Status { workspace: mount.workspace_id.clone() })
}

fn of_path(context: &Context, mount: &MountView, path: &Path) -> Result<PathView> {
    let meta = std::fs::symlink_metadata(path)
        .map_err(|error| Failure::io(format_args!("cannot look at {}", path.display()), &error))?;
    let request = Request::PathStatus { workspace: mount.workspace_id.clone(), inode: meta.ino() };
    let view: PathView = context.client.call(&request)?;
    Ok(PathView { path: path.to_owned(), ..view })
}

/// How everything that is mounted is, for people.
pub(super) fn all_text(all: &[StatusView]) -> String {
    match all {
        [] => "nothing is mounted".to_owned(),
        all => all.iter().map(text).collect::<Vec<_>>().join("\n\n"),
    }
}

/// A status for people.
pub(super) fn text(status: &StatusView) -> String {
    let mount = status.mount.as_ref().map_or_else(|| "not mounted".to_owned(), |dir| dir.display().to_string());
    let access = match (status.read_only, &status.read_only_reason) {
        (true, Some(reason)) => format!("read-only: {reason}"),
        (true, None) => "read-only".to_owned(),
        (false, _) => "read and write".to_owned(),
    };
    let state = match (status.synced, status.online) {
        (true, true) => "synced".to_owned(),
        (true, false) => "synced, offline".to_owned(),
        (false, true) => format!("{} to upload", amount(status.upload)),
        (false, false) => format!("{} to upload, offline", amount(status.upload)),
    };
    let mut lines = vec![
        format!("{}  {mount}", status.workspace),
        format!("  {state}"),
        format!("  role {}, {access}", status.role),
        format!("  cache {} of {}", bytes(status.cache_used), bytes(status.cache_limit)),
    ];
    if status.download.items > 0 {
        lines.push(format!("  {} to download", amount(status.download)));
    }
    for waiting in &status.waiting {
        let next = waiting.next_try.as_ref().map_or_else(String::new, |time| format!(", next try {time}"));
        lines.push(format!("  waits: {}{next}", waiting.reason));
    }
    if let (Some(time), Some(reason)) = (&status.agent.last_restart, &status.agent.restart_reason) {
        lines.push(format!("  agent restarted {} times, last at {time}: {reason}", status.agent.restarts));
    }
    if !status.agent.kept {
        lines.push("  the agent has no keeper: the mount ends with it; mount again when you can".to_owned());
    }
    if !status.corrupt.is_empty() {
        lines.push(format!("  {} damaged; see `mountctl doctor`", status.corrupt.len()));
    }
    lines.join("\n")
}

fn amount(amount: crate::rpc::Amount) -> String {
    let entries = if amount.items == 1 { "entry" } else { "entries" };
    format!("{} {entries}, {}", amount.items, bytes(amount.bytes))
}
