//! `doctor`: what is wrong on this machine, with the devices, and with the workspaces.

use std::{
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    agent,
    cli::Doctor,
    command::Context,
    devices::Devices,
    exit::Kind,
    failure::{Failure, Result},
    keeper, mountpoint,
    rpc::{DeviceCall, Finding, MountView, Verdict},
};

/// The first Linux version that has all that the mount uses.
const KERNEL_MIN: (u32, u32) = (5, 4);

/// 2024-01-01: a clock before it was never set, and every signature it makes would be refused.
const CLOCK_MIN_S: u64 = 1_704_067_200;

/// How long another home's mount may take to answer. A healthy one takes microseconds.
const ANSWER_MAX: Duration = Duration::from_secs(2);

pub(super) fn run(context: &Context, arguments: &Doctor) -> Result<()> {
    // Before an agent is started, which then begins anew.
    let gave_up = keeper::gave_up(context.home.agent_folder());
    let devices = devices(context, arguments.deep)?;
    // After the agent was asked, and started for that if need be: a starting agent takes away what a killed one left.
    let mounts = context.mounts()?;
    let mut findings = vec![kernel(), fuse_device(), fusermount(), stale_mounts(&mounts), clock()];
    if let Some(why) = gave_up {
        findings.push(finding("agent", Verdict::Problem, format!("mounts have ended: {why}")));
    }
    findings.extend(devices);
    if findings.iter().any(|finding| finding.verdict == Verdict::Problem) {
        findings.push(finding("log", Verdict::Ok, agent::log_path(&context.home).display().to_string()));
    }
    let problems = findings.iter().filter(|finding| finding.verdict == Verdict::Problem).count();
    context.output.answer(&findings, |findings| text(context, findings))?;
    match problems {
        0 => Ok(()),
        1 => Err(Failure::new(Kind::Problems, "the doctor found a problem")),
        many => Err(Failure::new(Kind::Problems, format!("the doctor found {many} problems"))),
    }
}

fn text(context: &Context, findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let text = format!("{}  {}: {}", context.output.verdict(finding.verdict), finding.check, finding.message);
        match &finding.hint {
            Some(hint) => format!("{text}\n         {hint}"),
            None => text,
        }
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn finding(check: &str, verdict: Verdict, message: impl Into<String>) -> Finding {
    Finding { check: check.to_owned(), verdict, message: message.into(), hint: None }
}

fn failed(check: &str, verdict: Verdict, failure: Failure) -> Finding {
    Finding::failed(check, verdict, failure)
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match kernel_version(&release) {
        Some(version) if version >= KERNEL_MIN => finding("kernel", Verdict::Ok, release),
        Some(_) => {
            finding("kernel", Verdict::Problem, format!("{release} is older than {}.{}", KERNEL_MIN.0, KERNEL_MIN.1))
        }
        None => finding("kernel", Verdict::Warning, format!("{release} is not a version that is known")),
    }
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn fuse_device() -> Finding {
    match mountpoint::check_device() {
        Ok(()) => finding("fuse_device", Verdict::Ok, "/dev/fuse opens"),
        Err(failure) => failed("fuse_device", Verdict::Problem, failure),
    }
}

fn fusermount() -> Finding {
    match mountpoint::fusermount() {
        Some(path) => finding("fusermount3", Verdict::Ok, path.display().to_string()),
        None if rustix::process::geteuid().is_root() => {
            finding("fusermount3", Verdict::Ok, "not installed; root does not need it")
        }
        None => Finding {
            hint: Some("install it: apt-get install fuse3".into()),
            ..finding("fusermount3", Verdict::Problem, "not installed, and only root can mount without it")
        },
    }
}

/// Those that a killed agent of this home left went when the agent was asked. What is left is of other homes, perhaps of
/// other people: worth a word, but no illness of this one.
fn stale_mounts(mounts: &[MountView]) -> Finding {
    let table = match mountpoint::mounted() {
        Ok(table) => table,
        Err(failure) => return failed("stale_mounts", Verdict::Skipped, failure),
    };
    let silent: Vec<_> = table
        .iter()
        .filter(|entry| entry.is_ours() && !mounts.iter().any(|mount| mount.mount == entry.dir))
        .filter(|entry| is_silent(&entry.dir))
        .map(|entry| entry.dir.display().to_string())
        .collect();
    if silent.is_empty() {
        return finding("stale_mounts", Verdict::Ok, "none");
    }
    Finding {
        hint: Some("mounting again in the home they belong to takes them away, or: fusermount3 -uz DIR".into()),
        ..finding("stale_mounts", Verdict::Warning, format!("nobody answers behind {}", silent.join(", ")))
    }
}

/// Whether the process behind this mount is gone or hangs. The question to one that hangs may never return.
fn is_silent(dir: &Path) -> bool {
    let (answer, answered) = mpsc::channel();
    let dir = dir.to_owned();
    thread::spawn(move || answer.send(mountpoint::is_dead(&dir)));
    answered.recv_timeout(ANSWER_MAX).unwrap_or(true)
}

fn clock() -> Finding {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now >= CLOCK_MIN_S {
        return finding("clock", Verdict::Ok, "plausible");
    }
    Finding {
        hint: Some("set the clock; changes signed with this time are refused by others".into()),
        ..finding("clock", Verdict::Problem, "the clock of this machine was never set")
    }
}

fn devices(context: &Context, deep: bool) -> Result<Vec<Finding>> {
    let devices = Devices::of(&context.home)?;
    let mut findings: Vec<_> = devices
        .unreadable()
        .iter()
        .map(|path| Finding {
            hint: Some("put a copy back, or make a new device with `mountctl device recovery import FILE`".into()),
            ..finding("device_file", Verdict::Problem, format!("{path} is damaged or of a newer version"))
        })
        .collect();
    for device in devices.all() {
        match context.ask_as::<Vec<Finding>>(device, DeviceCall::Check { deep }) {
            Ok(more) => findings.extend(more),
            Err(failure) => {
                // Nobody gave the password: that is no illness.
                let verdict = if failure.kind == Kind::Locked { Verdict::Skipped } else { Verdict::Problem };
                findings.push(failed("organization", verdict, failure));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert_eq!(kernel_version("6.18.2-amd64"), Some((6, 18)));
        assert!(kernel_version("5.10.0").unwrap() > KERNEL_MIN);
        assert!(kernel_version("4.19.0").unwrap() < KERNEL_MIN);
        assert_eq!(kernel_version("strange"), None);
    }
}
