//! `completions` and `man`: what follows from the grammar alone.

use std::{fmt::Write as _, io};

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;

use crate::{
    cli::Cli,
    failure::{Failure, Result},
};

/// Appended to what the grammar tells.
const EXIT_STATUS: &str = "\
.SH \"EXIT STATUS\"
0 done, 1 failed, 2 usage or an ambiguous name, 3 partly done, 10 no such thing, 11 cannot unlock the device,
12 trust failure or damaged data, 13 storage offline, 14 role or medium does not allow it, 15 mount point unusable or no
FUSE, 16 not mounted or already mounted, 17 refused: unsynced changes, 18 check found problems, 130 interrupted.
";

/// What a shell reads.
pub(super) fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mountctl", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// One page for all commands, since whoever reads it looks for a word and not for a page.
pub(super) fn manual() -> Result<String> {
    let mut root = Cli::command();
    root.build();
    let mut page = Vec::new();
    head(&root, &mut page).map_err(|error| Failure::io("cannot write the manual page", &error))?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    page.push_str(".SH COMMANDS\n");
    commands(root, &mut page);
    page.push_str(EXIT_STATUS);
    Ok(page)
}

fn head(root: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(root.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)
}

/// Those that do something, each with its usage and what its own arguments mean.
fn commands(command: Command, page: &mut String) {
    for mut one in command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help").cloned() {
        if one.has_subcommands() {
            commands(one, page);
            continue;
        }
        let usage = one.render_usage().to_string();
        let about = one.get_about().map(ToString::to_string).unwrap_or_default();
        paragraph(page, ".SS", usage.trim_start_matches("Usage: "));
        line(page, &about);
        for argument in one.get_arguments().filter(|argument| !argument.is_global_set() && !is_own(argument)) {
            page.push_str(".TP\n");
            line(page, &argument.to_string());
            line(page, &argument.get_help().map(ToString::to_string).unwrap_or_default());
        }
    }
}

/// `--help` and `--version`, which every command has.
fn is_own(argument: &Arg) -> bool {
    ["help", "version"].contains(&argument.get_id().as_str())
}

fn paragraph(page: &mut String, request: &str, text: &str) {
    writeln!(page, "{request} \"{}\"", escaped(text).replace('"', "\\(dq")).expect("a string takes everything");
}

fn line(page: &mut String, text: &str) {
    // A dot or quote at the beginning would be a request.
    writeln!(page, "\\&{}", escaped(text)).expect("a string takes everything");
}

/// Text as roff prints it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Kind;

    #[test]
    fn the_manual_has_every_command_argument_and_exit_code() {
        let page = manual().unwrap();
        for words in ["mountctl quickstart", "mountctl org create", "mountctl device recovery import"] {
            assert!(page.contains(&format!(".SS \"{words}")), "{words}");
        }
        assert!(page.contains("\\-\\-read\\-only") && page.contains("\\-\\-password\\-file"));
        assert!(page.contains("mountctl agent restart"));
        let started = ["mountctl agent keep", "mountctl agent serve"];
        assert!(!started.iter().any(|words| page.contains(words)), "what commands start is not for people");
        let (_, codes) = page.split_once("EXIT STATUS").unwrap();
        for kind in Kind::ALL {
            let code = kind.code().to_string();
            assert!(codes.split(|c: char| !c.is_ascii_digit()).any(|word| word == code), "{code}");
        }
    }

    #[test]
    fn no_line_of_the_manual_is_a_request_by_accident() {
        assert_eq!(escaped("a-b\\c"), "a\\-b\\ec");
        let mut page = String::new();
        line(&mut page, ".hidden");
        assert_eq!(page, "\\&.hidden\n");
    }
}
