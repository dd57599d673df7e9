//! `umount`: one mount or all; says who keeps it busy.

use crate::{
    cli::Umount,
    command::{Context, pick_mount, sync::Progress},
    exit::Kind,
    failure::{Failure, Result},
    mountpoint,
    rpc::{MountView, Request},
};

pub(super) fn run(context: &Context, arguments: &Umount) -> Result<()> {
    let mounts = context.mounts()?;
    match &arguments.target {
        Some(name) => {
            let mount = match pick_mount(&mounts, name) {
                Err(failure) if failure.kind == Kind::NotMounted => return left_behind(context, name, failure),
                picked => picked?,
            };
            unmount(context, arguments, mount)?;
            context.output.answer(&mount, |mount| format!("{} is unmounted", mount.mount.display()))
        }
        None => all(context, arguments, &mounts),
    }
}

fn all(context: &Context, arguments: &Umount, mounts: &[MountView]) -> Result<()> {
    let mut done = Vec::new();
    let mut failures = Vec::new();
    for mount in mounts {
        match unmount(context, arguments, mount) {
            Ok(()) => done.push(mount),
            Err(failure) => failures.push(failure.context(format_args!("{}", mount.workspace))),
        }
    }
    context.output.answer(&done, |done| {
        if mounts.is_empty() {
            return "nothing is mounted".to_owned();
        }
        done.iter().map(|mount| format!("{} is unmounted", mount.mount.display())).collect::<Vec<_>>().join("\n")
    })?;
    match failures.len() {
        0 => Ok(()),
        1 if done.is_empty() => Err(failures.remove(0)),
        _ => {
            let kind = if done.is_empty() { failures[0].kind } else { Kind::Partly };
            let messages: Vec<_> = failures.iter().map(|failure| failure.message.as_str()).collect();
            let failure = Failure::new(kind, messages.join("; "));
            Err(match failures.into_iter().find_map(|failure| failure.hint) {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
    }
}

fn unmount(context: &Context, arguments: &Umount, mount: &MountView) -> Result<()> {
    let request =
        Request::Unmount { workspace: mount.workspace_id.clone(), flush: arguments.flush, force: arguments.force };
    let _progress = arguments.flush.then(|| Progress::start(context, mount));
    match context.client.call::<MountView>(&request) {
        Err(failure) if failure.kind == Kind::Busy => Err(mountpoint::busy(&mount.mount)),
        answer => answer.map(drop),
    }
}

/// A dead mount of a killed agent goes away when the next agent starts; nothing else is touched.
fn left_behind(context: &Context, name: &str, failure: Failure) -> Result<()> {
    let dir = mountpoint::resolve(std::path::Path::new(name))?;
    if !mountpoint::mounted_on(&dir)?.is_some_and(|entry| entry.is_ours()) {
        return Err(failure);
    }
    context.client.call::<Vec<MountView>>(&Request::Mounts)?;
    if mountpoint::mounted_on(&dir)?.is_some() {
        return Err(failure.hint("it was mounted by another home or user: unmount it there"));
    }
    context.output.answer(&dir, |dir| format!("{} is unmounted", dir.display()))
}
