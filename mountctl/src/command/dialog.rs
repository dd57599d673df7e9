//! The questions of an invitation's dialog at the terminal: each answer is one line of standard input, so a script can
//! give it too.

use std::io::{BufRead, stdin};

use serde::de::DeserializeOwned;

use crate::{
    exit::Kind,
    failure::{Failure, Result},
    output::Output,
    rpc::{Said, Turn},
};

/// Asks and answers until it is done; `other` is what to call whoever sits at the other end.
pub(super) fn run<T: DeserializeOwned>(
    output: &Output,
    other: &str,
    ask: impl Fn(Said) -> Result<Turn<T>>,
) -> Result<T> {
    let mut said = Said::Nothing;
    loop {
        said = match ask(said)? {
            Turn::Tell(code) => {
                output.ask(&format!("Read this code to {other}:  {code}"));
                Said::Told
            }
            Turn::Choose(codes) => Said::Heard(choose(output, other, &codes)?),
            Turn::Given(given) => {
                let next = match given.missing {
                    0 => "that is enough".to_owned(),
                    missing => format!("{missing} more needed; call one of: {}", given.others.join(", ")),
                };
                output.note(&format!("{} gave: {next}.", given.by));
                Said::Nothing
            }
            Turn::Misled(by) => {
                output.note(&format!("warning: what {by} gave is of another recovery; the others' shares are enough."));
                Said::Nothing
            }
            Turn::Done(done) => return Ok(done),
        };
    }
}

fn choose(output: &Output, other: &str, codes: &[String]) -> Result<Option<String>> {
    let mut question = format!("Which of these does {other} read to you?\n");
    for (number, code) in codes.iter().enumerate() {
        question.push_str(&format!("  {}  {code}\n", number + 1));
    }
    question.push_str(&format!("  {}  none of these\nNumber:", codes.len() + 1));
    loop {
        output.ask(&question);
        let answer = line()?;
        match answer.parse::<usize>() {
            Ok(number) if number == codes.len() + 1 => return Ok(None),
            Ok(number) if (1..=codes.len()).contains(&number) => return Ok(Some(codes[number - 1].clone())),
            _ => {}
        }
        if let Some(code) = codes.iter().find(|code| code.eq_ignore_ascii_case(&answer)) {
            return Ok(Some(code.clone()));
        }
        output.ask("Type one of the numbers.");
    }
}

/// One line that a person types.
pub(super) fn line() -> Result<String> {
    let mut line = String::new();
    let read = stdin().lock().read_line(&mut line).map_err(|error| Failure::io("cannot read the answer", &error))?;
    if read == 0 {
        return Err(Failure::new(Kind::Interrupted, "nobody is here to answer").hint("run the command again to go on"));
    }
    Ok(line.trim().to_owned())
}
