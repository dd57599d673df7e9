//! The real Parsec server for one test: in memory, or in a database of its own where `PARSECFS_POSTGRES` names a
//! PostgreSQL (`tests/server.sh`).
//!
//! Of the package in [`parsec_package`]: a machine without its Python says SKIP; CI fails instead.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use parsecfs_backends::parsec::{Limits, administration};
use parsecfs_core::{
    name::OrganizationId,
    url::{Action, Address, ServerAddr},
};

use crate::parsec_package;

/// What `--dev` sets.
pub const ADMINISTRATION_TOKEN: &str = "s3cr3t";
/// It imports for some seconds on a free machine.
const START_MAX: Duration = Duration::from_secs(120);

/// A server that runs; dropped, it ends and all that it held is gone.
pub struct ParsecServer {
    process: Option<Child>,
    port: u16,
    folder: tempfile::TempDir,
}

impl ParsecServer {
    /// Starts one, or says SKIP where this machine has no Python 3.12.
    pub fn start() -> Option<Self> {
        let program = parsec_package::programs()?.join("parsec");
        let database = std::env::var("PARSECFS_POSTGRES").ok().map(|postgres| new_database(&program, &postgres));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = File::create(folder.path().join("log")).expect("a log");
        let address = format!("parsec3://127.0.0.1:{port}?no_ssl=true");
        let mut command = Command::new(program);
        command.args(["run", "--dev", "--host", "127.0.0.1", "--sse-keepalive", "5", "--port", &port.to_string()]);
        command.args(["--server-addr", &address, "--log-level", "warning"]);
        if let Some(database) = &database {
            command.args(["--db", database, "--blockstore", "POSTGRESQL"]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let process = command.spawn().expect("the server starts");
        let mut server = Self { process: Some(process), port, folder };
        server.wait();
        Some(server)
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + START_MAX;
        while !answers(self.port) {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().expect("it can be asked"));
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "the server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its port on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn address(&self) -> ServerAddr {
        ServerAddr::parse(&format!("parsec3://127.0.0.1:{}?no_ssl=true", self.port)).expect("an address")
    }

    /// Makes an organization and returns the address that founds it.
    pub async fn create_organization(&self, name: &str) -> Address {
        let name = OrganizationId::new(name).expect("a name");
        let address = self.address();
        let made = administration::create_organization(&address, ADMINISTRATION_TOKEN, &name, Limits::default());
        made.await.expect("the server makes an organization")
    }

    /// The same and the token in it.
    pub async fn bootstrap_token(&self, name: &str) -> [u8; 16] {
        match self.create_organization(name).await.action {
            Action::Bootstrap { token: Some(token) } => token,
            _ => panic!("the server makes addresses that found an organization"),
        }
    }

    /// Changes an organization as its operator does; `body` is JSON.
    pub fn administer(&self, method: &str, path: &str, body: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server runs");
        let length = body.len();
        let request = format!(
            "{method} /administration/organizations/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Authorization: Bearer {ADMINISTRATION_TOKEN}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("the server listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the server answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for ParsecServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A database for one server, on a PostgreSQL that ends with the tests.
fn new_database(program: &Path, postgres: &str) -> String {
    let name = format!("test_{}", data_encoding::HEXLOWER.encode(&parsecfs_crypto::random_bytes::<8>()));
    let create = format!("CREATE DATABASE {name}");
    run(Command::new("psql").args(["--quiet", "--command", &create, &format!("{postgres}/postgres")]));
    let database = format!("{postgres}/{name}");
    run(Command::new(program).args(["migrate", "--db", &database]));
    database
}

fn run(command: &mut Command) {
    let ended = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(ended.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    asked.is_ok() && matches!(stream.read(&mut [0; 16]), Ok(read) if read > 0)
}
