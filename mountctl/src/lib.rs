//! The command line of parsecfs, and the background process that holds the mounts.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the grammar |
//! | [`exit`], [`failure`], [`output`] | how a command ends and what it prints |
//! | [`home`], [`devices`], [`password`], [`secret`], [`keyring`] | what is on this machine, and how it is unlocked |
//! | [`mountpoint`] | directories as mount points |
//! | [`rpc`], [`socket`], [`client`], [`agent`] | commands and the background process |
//! | [`keeper`] | what the mounts outlive the background process by |
//! | [`daemon`] | the wiring: storages, clock, runtime |
//! | `command` | what each command does, one file each |

pub mod address;
pub mod agent;
pub mod cli;
pub mod client;
mod command;
pub mod daemon;
pub mod devices;
pub mod exit;
pub mod failure;
pub mod home;
mod interrupt;
pub mod keeper;
pub mod keyring;
pub mod mountpoint;
pub mod output;
pub mod password;
pub mod rpc;
pub mod secret;
pub mod socket;

use std::{ffi::OsStr, process::ExitCode};

use clap::Parser;

use crate::{cli::Cli, exit::Kind, failure::Failure, output::Output};

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    daemon::keep_files_private();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let output = Output::new(cli.global.json, cli.global.quiet, cli.global.no_color);
    match command::run(cli, output) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.kind.code())
        }
    }
}

/// Arguments that make no sense, or a request for help.
fn refused(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|argument| argument == OsStr::new("--json"));
    if !error.use_stderr() || !json {
        // Nothing is left to do when the terminal is gone.
        let _ignored = error.print();
        return ExitCode::from(if error.use_stderr() { Kind::Usage.code() } else { exit::DONE });
    }
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let failure = Failure::new(Kind::Usage, first).hint("`mountctl --help` shows what there is");
    Output::new(true, false, true).failure(&failure);
    ExitCode::from(Kind::Usage.code())
}
