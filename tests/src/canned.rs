//! A server that answers each request with the next of some prepared answers, and remembers what it was asked.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use parsecfs_core::url::ServerAddr;

/// What a server was asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Method and path.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// An answer: status, headers, body.
pub type Answer = (u16, Vec<(String, String)>, Vec<u8>);

/// A server of prepared answers; what comes after the last is hung up on.
pub struct Canned {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Canned {
    /// Starts one.
    pub fn new(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&asked);
        thread::spawn(move || {
            for answer in answers {
                let Ok((stream, _)) = listener.accept() else { return };
                if let Some(request) = read(&stream) {
                    // Before the answer: whoever has it may look.
                    remembered.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                    // Who asked may be gone.
                    let _ = reply(stream, &answer);
                }
            }
        });
        Self { port, asked }
    }

    /// Where it is.
    pub fn address(&self) -> ServerAddr {
        ServerAddr::parse(&format!("parsec3://127.0.0.1:{}?no_ssl=true", self.port)).expect("an address")
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut asked = Asked::default();
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    asked.line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        asked.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    asked.body.resize(length, 0);
    reader.read_exact(&mut asked.body).ok()?;
    Some(asked)
}

fn reply(mut stream: TcpStream, (status, headers, body): &Answer) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
