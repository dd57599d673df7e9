//! Stands in front of a server and lets through, or not: what a network, a proxy or a hostile server does to it.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// What happens to who comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Passes on both ways.
    Open,
    /// Hangs up at once.
    Closed,
    /// Listens and says nothing.
    Silent,
    /// Says this, whatever was asked, and hangs up.
    Says(Vec<u8>),
    /// Passes on, but hangs up instead of bringing the answer to a request that holds this.
    LosesAnswerTo(&'static str),
}

impl Behaviour {
    /// An HTTP answer with this status line and body.
    pub fn answers(status: &str, kind: &str, body: &[u8]) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        Self::Says([head.as_bytes(), body].concat())
    }
}

/// A door; dropped, it stays closed.
pub struct Door {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    server: SocketAddr,
    behaviour: Mutex<Behaviour>,
    open: Mutex<Vec<TcpStream>>,
    asked: AtomicUsize,
    ended: AtomicBool,
}

impl Door {
    /// In front of the server on this port of this machine, and open.
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            server: SocketAddr::from(([127, 0, 0, 1], port)),
            behaviour: Mutex::new(Behaviour::Open),
            open: Mutex::default(),
            asked: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { shared, port: own }
    }

    /// Where it is.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Behaves like this from now on, to those who are there too.
    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
        self.shared.hang_up();
    }

    /// How many connections came while it was not open.
    pub fn asked_in_vain(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.behave(Behaviour::Closed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let behaviour = lock(&self.behaviour).clone();
        if !matches!(behaviour, Behaviour::Open | Behaviour::LosesAnswerTo(_)) {
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.open).extend(stream.try_clone());
        match behaviour {
            Behaviour::Open => self.pass(stream, None),
            Behaviour::LosesAnswerTo(words) => self.pass(stream, Some(words)),
            // What is kept to hang up later would keep it open.
            Behaviour::Closed => drop(stream.shutdown(Shutdown::Both)),
            Behaviour::Silent => while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {},
            Behaviour::Says(bytes) => {
                // The beginning of the request is enough to have been asked.
                if matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
                    let _gone = stream.write_all(&bytes);
                    let _gone = stream.shutdown(Shutdown::Write);
                    while matches!(stream.read(&mut [0; 4096]), Ok(1..)) {}
                }
            }
        }
    }

    fn pass(&self, stream: TcpStream, lost: Option<&str>) {
        let Ok(server) = TcpStream::connect(self.server) else { return };
        lock(&self.open).extend(server.try_clone());
        let (Ok(mut from), Ok(mut to)) = (stream.try_clone(), server.try_clone()) else { return };
        let heard = Arc::new(AtomicBool::new(false));
        let listening = lost.map(|words| (words.as_bytes().to_vec(), Arc::clone(&heard)));
        let up = thread::spawn(move || {
            match listening {
                None => drop(std::io::copy(&mut from, &mut to)),
                Some((words, heard)) => copy_and_listen(&mut from, &mut to, &words, &heard),
            }
            let _gone = to.shutdown(Shutdown::Both);
        });
        let (mut from, mut to) = (server, stream);
        match lost {
            None => drop(std::io::copy(&mut from, &mut to)),
            Some(_) => copy_unless(&mut from, &mut to, &heard),
        }
        let _gone = to.shutdown(Shutdown::Both);
        let _ended = up.join();
    }

    fn hang_up(&self) {
        for stream in lock(&self.open).drain(..) {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Copies, and notes before passing it on that the words came by.
fn copy_and_listen(from: &mut TcpStream, to: &mut TcpStream, words: &[u8], heard: &AtomicBool) {
    let (mut piece, mut said) = (vec![0; 64 << 10], Vec::new());
    while let Ok(count @ 1..) = from.read(&mut piece) {
        said.extend_from_slice(&piece[..count]);
        if said.windows(words.len()).any(|window| window == words) {
            heard.store(true, Ordering::SeqCst);
        }
        if to.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

/// Copies until something was heard.
fn copy_unless(from: &mut TcpStream, to: &mut TcpStream, heard: &AtomicBool) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if heard.load(Ordering::SeqCst) || to.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
