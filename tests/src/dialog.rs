//! Two people at two terminals who read codes to each other: `invite greet` on one side, `join` on the other.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use crate::cli::{CliHome, Said};

/// What a person does at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Person {
    /// Picks the code that was heard.
    Careful,
    /// Picks another one.
    Mishears,
    /// Sees that it is not there.
    FindsNone,
    /// Ends the command at the first question, and starts it again.
    ComesBack,
}

/// A command that asks, and the person who answers.
pub struct Terminal<'a> {
    home: &'a CliHome,
    arguments: Vec<&'a str>,
    person: Person,
}

impl<'a> Terminal<'a> {
    /// This person runs this command.
    pub fn new(home: &'a CliHome, arguments: &[&'a str], person: Person) -> Self {
        Self { home, arguments: arguments.to_vec(), person }
    }

    fn sit(self, says: &Sender<String>, hears: &Receiver<String>) -> Said {
        let mut command = self.home.command(&self.arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("mountctl runs");
        let stdin = child.stdin.take().expect("asked for as a pipe");
        let stderr = BufReader::new(child.stderr.take().expect("asked for as a pipe"));
        match answer(self.person, &mut child, stdin, stderr, (says, hears)) {
            Some(said) => said,
            None => Self { person: Person::Careful, ..self }.sit(says, hears),
        }
    }
}

/// Both at once; what each command said in the end.
pub fn call_each_other(one: Terminal<'_>, other: Terminal<'_>) -> (Said, Said) {
    let ((says, other_hears), (other_says, hears)) = (channel(), channel());
    thread::scope(|scope| {
        let one = scope.spawn(move || one.sit(&says, &hears));
        let other = other.sit(&other_says, &other_hears);
        (one.join().expect("a person does not panic"), other)
    })
}

/// One who talks to the others, one after the other, within one command.
pub fn call_in_turn(one: Terminal<'_>, others: Vec<Terminal<'_>>) -> (Said, Vec<Said>) {
    let ((says, other_hears), (other_says, hears)) = (channel(), channel());
    thread::scope(|scope| {
        let one = scope.spawn(move || one.sit(&says, &hears));
        let others = others.into_iter().map(|other| other.sit(&other_says, &other_hears)).collect();
        (one.join().expect("a person does not panic"), others)
    })
}

/// `None` when the person ended the command.
fn answer(
    person: Person,
    child: &mut Child,
    mut stdin: ChildStdin,
    stderr: impl BufRead,
    (says, hears): (&Sender<String>, &Receiver<String>),
) -> Option<Said> {
    let mut codes = Vec::new();
    let mut last = String::new();
    for line in stderr.lines() {
        let line = line.expect("mountctl writes UTF-8");
        if line.starts_with("Read this code to ") {
            // Those of the person before are of no use any more.
            codes.clear();
            // The other one may have ended its command.
            let _ = says.send(line.rsplit(' ').next().expect("a code").to_owned());
        } else if line == "Number:" {
            if person == Person::ComesBack {
                child.kill().expect("it runs");
                child.wait().expect("it ends");
                return None;
            }
            let number = pick(person, &codes, &hears.recv().expect("the other one reads a code"));
            // The exchange may be over by now.
            let _ = writeln!(stdin, "{number}");
        } else if let Some((number, code)) = line.trim().split_once("  ").filter(|_| line.starts_with("  ")) {
            codes.push((number.to_owned(), code.to_owned()));
        } else {
            last = line;
        }
    }
    drop(stdin);
    let mut stdout = String::new();
    child.stdout.take().expect("asked for as a pipe").read_to_string(&mut stdout).expect("mountctl writes UTF-8");
    let code = child.wait().expect("it ends").code();
    Some(Said { code, stdout, stderr: last })
}

fn pick(person: Person, codes: &[(String, String)], heard: &str) -> String {
    let fits = |code: &str| match person {
        Person::Careful | Person::ComesBack => code == heard,
        Person::Mishears => code != heard && code.len() == heard.len(),
        Person::FindsNone => code == "none of these",
    };
    codes.iter().find(|(_, code)| fits(code)).map(|(number, _)| number.clone()).expect("the code is among them")
}
