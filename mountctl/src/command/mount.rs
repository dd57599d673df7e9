//! `mount`: checks where and how, then lets the agent do it.

use std::path::{Path, PathBuf};

use crate::{
    cli::Mount,
    command::Context,
    exit::Kind,
    failure::{Failure, Result},
    interrupt, mountpoint,
    rpc::{DeviceCall, MountRequest, MountView, Request},
};

pub(super) fn run(context: &Context, arguments: Mount) -> Result<()> {
    let options = options(&arguments)?;
    let dir = arguments.dir.as_deref().map(|dir| prepare(context, dir)).transpose()?;
    mountpoint::check_machine()?;
    let mounted: MountView = context.ask_device(DeviceCall::Mount { workspace: arguments.workspace, dir, options })?;
    context
        .output
        .answer(&mounted, |mounted| format!("{} is mounted on {}", mounted.workspace, mounted.mount.display()))?;
    if arguments.foreground { stay(context, &mounted) } else { Ok(()) }
}

/// The directory without links, after a dead mount of ours was taken away, and proved usable.
pub(super) fn prepare(context: &Context, dir: &Path) -> Result<PathBuf> {
    let dir = mountpoint::resolve(dir)?;
    if mountpoint::mounted_on(&dir)?.is_some() {
        // A starting agent takes away what a killed one left; a running one answers for what is there.
        context.client.call::<Vec<MountView>>(&Request::Mounts)?;
    }
    mountpoint::check(&dir)?;
    Ok(dir)
}

/// Returns when it is unmounted; an interrupt unmounts.
fn stay(context: &Context, mounted: &MountView) -> Result<()> {
    let workspace = mounted.workspace_id.clone();
    let client = context.client.clone();
    let target = workspace.clone();
    interrupt::on_interrupt(move || {
        let request = Request::Unmount { workspace: target.clone(), flush: false, force: true };
        // When it cannot be unmounted, the command keeps waiting and the next interrupt tries again.
        let _ignored: Result<MountView> = client.call(&request);
    })?;
    context.client.call_running::<()>(&Request::WaitUnmounted { workspace })?;
    Ok(())
}

fn options(arguments: &Mount) -> Result<MountRequest> {
    let mut options = MountRequest { read_only: arguments.read_only, ..MountRequest::default() };
    for option in &arguments.options {
        match option.split_once('=').unwrap_or((option, "")) {
            ("ro", "") => options.read_only = true,
            ("rw", "") => options.read_only = false,
            ("allow_other", "") => options.allow_other = true,
            ("cache", size) => options.cache_bytes = Some(size_in_bytes(size)?),
            _ => {
                return Err(Failure::new(Kind::Usage, format!("there is no mount option {option:?}"))
                    .hint("those that are: ro, rw, allow_other, cache=SIZE"));
            }
        }
    }
    Ok(options)
}

/// `10G`, `512MiB`, `1000`: powers of 1024.
fn size_in_bytes(text: &str) -> Result<u64> {
    let unclear = || Failure::new(Kind::Usage, format!("{text:?} is not a size")).hint("like 512M or 10G");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(unclear()),
    };
    let count: u64 = digits.parse().map_err(|_| unclear())?;
    count.checked_mul(1 << shift).filter(|&bytes| bytes > 0).ok_or_else(unclear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("1000", 1000), ("1k", 1024), ("2MiB", 2 << 20), ("3GB", 3 << 30), ("1T", 1 << 40)] {
            assert_eq!(size_in_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "G", "1X", "0", "99999999T", "-1"] {
            assert_eq!(size_in_bytes(text).unwrap_err().kind, Kind::Usage, "{text}");
        }
    }
}
