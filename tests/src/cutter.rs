//! A way to a server that can be closed, and cut in the middle of a message.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
};

use anyhow::Result;

/// Passes bytes on in both directions, until it is told otherwise.
pub struct Cutter {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    closed: AtomicBool,
    /// Bytes that still pass before everything is cut once; negative: no cut is due.
    left: AtomicI64,
    open: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

impl State {
    fn cut(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether `bytes` more may pass.
    fn passes(&self, bytes: usize) -> bool {
        if self.left.load(Ordering::SeqCst) < 0 {
            return true;
        }
        let left = self.left.fetch_sub(bytes as i64, Ordering::SeqCst);
        left >= bytes as i64
    }
}

impl Cutter {
    /// Listens on a free loopback port and passes on to `server`.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn to(server: SocketAddr) -> Result<Cutter> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State { left: AtomicI64::new(-1), ..State::default() });
        let shared = state.clone();
        thread::spawn(move || accept(&listener, server, &shared));
        Ok(Cutter { address, state })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection and lets none be made.
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.state.cut();
    }

    /// Lets connections be made again.
    pub fn open(&self) {
        self.state.closed.store(false, Ordering::SeqCst);
    }

    /// Cuts every connection once, after so many more bytes have passed in either direction.
    pub fn cut_after_bytes(&self, bytes: u64) {
        self.state.left.store(bytes as i64, Ordering::SeqCst);
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.state.cut();
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, state: &Arc<State>) {
    while let Ok((client, _)) = listener.accept() {
        if state.ended.load(Ordering::SeqCst) {
            return;
        }
        if state.closed.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(upstream) = TcpStream::connect(server) else { continue };
        let pair = || -> io::Result<_> { Ok((client.try_clone()?, upstream.try_clone()?)) };
        let (Ok(there), Ok((kept_client, kept_upstream))) = (pair(), pair()) else { continue };
        state.open.lock().unwrap_or_else(PoisonError::into_inner).extend([kept_client, kept_upstream]);
        let (up, down) = (state.clone(), state.clone());
        thread::spawn(move || pump(there.0, there.1, &up));
        thread::spawn(move || pump(upstream, client, &down));
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        if !state.passes(count) {
            state.left.store(-1, Ordering::SeqCst);
            state.cut();
            break;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
