//! Where passwords come from: a file, standard input, or the person at the terminal. Never an argument or a variable.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
    path::{Path, PathBuf},
};

use zeroize::Zeroize;

use crate::{
    cli::Global,
    exit::Kind,
    failure::{Failure, Result},
    secret::Secret,
};

/// Longest password that is read.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// How to get a password when one is needed.
#[derive(Clone, Debug)]
pub struct Source {
    file: Option<PathBuf>,
    stdin: bool,
}

impl Source {
    /// As the global flags say.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        Self { file: global.password_file.clone(), stdin: global.password_stdin }
    }

    /// From this file only, or from the person.
    #[must_use]
    pub fn file_or_person(file: Option<PathBuf>) -> Self {
        Self { file, stdin: false }
    }

    /// The password that opens something.
    pub fn existing(&self, prompt: &str) -> Result<Secret> {
        self.given()?.map_or_else(|| ask(prompt), Ok)
    }

    /// A password for something new; a person types it twice.
    pub fn new_one(&self, prompt: &str) -> Result<Secret> {
        if let Some(secret) = self.given()? {
            return Ok(secret);
        }
        let first = ask(prompt)?;
        if first != ask("The same again: ")? {
            return Err(Failure::new(Kind::Usage, "the two passwords differ").hint("try again"));
        }
        Ok(first)
    }

    fn given(&self) -> Result<Option<Secret>> {
        match (&self.file, self.stdin) {
            (_, true) => first_line(io::stdin().lock()).map(Some),
            (Some(path), false) => from_file(path).map(Some),
            (None, false) => Ok(None),
        }
    }
}

fn from_file(path: &Path) -> Result<Secret> {
    let unreadable =
        |error: &io::Error| Failure::io(format_args!("cannot read the password file {}", path.display()), error);
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    first_line(BufReader::new(file))
}

fn first_line(from: impl BufRead) -> Result<Secret> {
    let mut line = String::new();
    let read = from.take(PASSWORD_BYTES_MAX).read_line(&mut line);
    if let Err(error) = read {
        line.zeroize();
        return Err(Failure::io("cannot read the password", &error));
    }
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    if line.is_empty() {
        return Err(Failure::new(Kind::Usage, "the password is empty"));
    }
    Ok(Secret::new(line))
}

fn ask(prompt: &str) -> Result<Secret> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Kind::Locked, "a password is needed and nobody is here to type it")
            .hint("use --password-file FILE or --password-stdin"));
    }
    let line = rpassword::prompt_password(prompt).map_err(|error| Failure::io("cannot read the password", &error))?;
    first_line(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        assert_eq!(first_line(&b"a b \r\nrest"[..]).unwrap().reveal(), "a b ");
        assert_eq!(first_line(&b"no newline"[..]).unwrap().reveal(), "no newline");
        assert_eq!(first_line(&b"\n"[..]).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn a_missing_password_file_is_named() {
        let failure = Source::file_or_person(Some("/nowhere/pw".into())).existing("").unwrap_err();
        assert_eq!(failure.kind, Kind::NotFound);
        assert!(failure.message.contains("/nowhere/pw"));
    }
}
