//! An HTTP proxy in front of a server, which fails on demand: before the request reaches it, after it was done, or in the
//! middle of the answer.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// Largest request head and body that are taken.
const MAX_HEAD: u64 = 64 << 10;
const MAX_BODY: u64 = 64 << 20;
/// A server that does not answer within this time has failed by itself.
const SERVER_TIMEOUT: Duration = Duration::from_secs(60);

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is served.
    None,
    /// The server never sees it, and the client gets this status.
    Refuse(u16),
    /// The server never sees it, and the connection ends.
    CutBefore,
    /// The server does it, and the client gets this status instead of the answer.
    DoneButAnswered(u16),
    /// The server does it, and the connection ends without an answer.
    DoneButCut,
    /// The answer ends after its head and this many bytes of its body.
    CutBody(usize),
    /// It is served after this time.
    Slow(Duration),
    /// The server never sees it, and nothing comes back until the client gives up.
    Stall,
}

/// What a fault is decided by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number, from 0, in the order of arrival.
    pub number: u64,
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path and query.
    pub target: String,
}

/// A running proxy; it ends when dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    decide: Box<dyn Fn(&Request) -> Fault + Send + Sync>,
    arrived: AtomicU64,
    faults: AtomicU64,
    stop: AtomicBool,
}

impl FaultProxy {
    /// Listens on a free port of the loopback, in front of `server`; `decide` is asked for every request.
    ///
    /// # Errors
    /// No port can be bound.
    pub fn start(
        server: SocketAddr,
        decide: impl Fn(&Request) -> Fault + Send + Sync + 'static,
    ) -> io::Result<FaultProxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            server,
            decide: Box::new(decide),
            arrived: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stop.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(client) = client else { continue };
                let shared = Arc::clone(&accepting);
                // One request per connection; a connection that fails is the client's to judge.
                std::thread::spawn(move || drop(shared.serve(client)));
            }
        });
        Ok(FaultProxy { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that arrived.
    pub fn requests(&self) -> u64 {
        self.shared.arrived.load(Ordering::SeqCst)
    }

    /// Requests that met a fault.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which then sees the flag.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let head = read_head(&mut reader)?;
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let number = self.arrived.fetch_add(1, Ordering::SeqCst);
        let request = Request { number, method: word(), target: word() };
        let fault = (self.decide)(&request);
        if fault != Fault::None {
            self.faults.fetch_add(1, Ordering::SeqCst);
        }
        let body = read_body(&mut reader, &head)?;
        match fault {
            Fault::None => self.forward(&head, &body, &mut client)?,
            Fault::Slow(time) => {
                std::thread::sleep(time);
                self.forward(&head, &body, &mut client)?;
            }
            Fault::Refuse(status) => answer(&mut client, status)?,
            Fault::CutBefore => {}
            Fault::DoneButAnswered(status) => {
                self.forward(&head, &body, &mut io::sink())?;
                answer(&mut client, status)?;
            }
            Fault::DoneButCut => self.forward(&head, &body, &mut io::sink())?,
            Fault::CutBody(bytes) => {
                let mut whole = Vec::new();
                self.forward(&head, &body, &mut whole)?;
                let head_end =
                    whole.windows(4).position(|end| end == b"\r\n\r\n").context("answer without a head")? + 4;
                client.write_all(&whole[..whole.len().min(head_end + bytes)])?;
            }
            Fault::Stall => drop(reader.read(&mut [0])),
        }
        client.shutdown(Shutdown::Both)?;
        Ok(())
    }

    /// Has the server do the request, and copies its answer to `to`.
    fn forward(&self, head: &str, body: &[u8], to: &mut impl Write) -> Result<()> {
        let mut server = TcpStream::connect(self.server)?;
        server.set_read_timeout(Some(SERVER_TIMEOUT))?;
        // The end of the answer is then the end of the connection, whatever its encoding.
        let kept =
            head.lines().filter(|line| !line.is_empty() && !line.to_ascii_lowercase().starts_with("connection:"));
        let kept: Vec<&str> = kept.collect();
        server.write_all(format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n")).as_bytes())?;
        server.write_all(body)?;
        io::copy(&mut server, to)?;
        Ok(())
    }
}

fn read_head(reader: &mut impl BufRead) -> Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let before = head.len();
        reader.take(MAX_HEAD).read_line(&mut head)?;
        if head.len() == before || head.len() as u64 > MAX_HEAD {
            bail!("no whole request head");
        }
    }
    Ok(head)
}

fn read_body(reader: &mut impl BufRead, head: &str) -> Result<Vec<u8>> {
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    if header("transfer-encoding").is_some() {
        bail!("only bodies of known length are proxied");
    }
    let length: u64 = header("content-length").map_or(Ok(0), |length| length.parse())?;
    if length > MAX_BODY {
        bail!("body of {length} bytes");
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    if body.len() as u64 == length { Ok(body) } else { bail!("body ended early") }
}

fn answer(client: &mut TcpStream, status: u16) -> io::Result<()> {
    let body = "<Error><Code>InternalError</Code><Message>a fault of the proxy</Message></Error>";
    let length = body.len();
    write!(client, "HTTP/1.1 {status} Fault\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// Random faults, the same for the same seed: about one request in `one_in` meets one of `kinds`.
pub fn weather(seed: u64, one_in: u64, kinds: &'static [Fault]) -> impl Fn(&Request) -> Fault + Send + Sync + 'static {
    move |request| {
        // SplitMix64 of seed and number.
        let mut mixed = seed.wrapping_add(request.number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        if mixed % one_in.max(1) == 0 { kinds[(mixed >> 32) as usize % kinds.len()] } else { Fault::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every connection with "hello", and counts them.
    fn server() -> (SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, served) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&served);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let mut reader = BufReader::new(client.try_clone().unwrap());
                let head = read_head(&mut reader).unwrap();
                let body = read_body(&mut reader, &head).unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                write!(client, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello {}", body.len()).unwrap();
            }
        });
        (address, served)
    }

    fn ask(proxy: &FaultProxy) -> String {
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        client.write_all(b"PUT /x HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        let mut answer = String::new();
        // A cut may come as a reset.
        let _ = client.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn each_fault_is_what_it_says() {
        for (fault, answered, served) in [
            (Fault::None, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello 3", 1),
            (Fault::Slow(Duration::from_millis(1)), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello 3", 1),
            (Fault::CutBefore, "", 0),
            (Fault::DoneButCut, "", 1),
            (Fault::CutBody(2), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhe", 1),
        ] {
            let (address, count) = server();
            let proxy = FaultProxy::start(address, move |_| fault).unwrap();
            assert_eq!((ask(&proxy).as_str(), count.load(Ordering::SeqCst)), (answered, served), "{fault:?}");
        }
        for (fault, served) in [(Fault::Refuse(503), 0), (Fault::DoneButAnswered(500), 1)] {
            let (address, count) = server();
            let proxy = FaultProxy::start(address, move |_| fault).unwrap();
            assert!(ask(&proxy).starts_with("HTTP/1.1 50"), "{fault:?}");
            assert_eq!(count.load(Ordering::SeqCst), served, "{fault:?}");
            assert_eq!((proxy.requests(), proxy.faults()), (1, 1));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_weather() {
        let (one, two) = (weather(5, 3, &[Fault::CutBefore]), weather(5, 3, &[Fault::CutBefore]));
        let of = |decide: &dyn Fn(&Request) -> Fault| -> Vec<Fault> {
            let request = |number| Request { number, method: String::new(), target: String::new() };
            (0..300).map(|number| decide(&request(number))).collect()
        };
        let faults = of(&one).iter().filter(|fault| **fault != Fault::None).count();
        assert!((60..140).contains(&faults), "{faults} of 300");
        assert_eq!(of(&one), of(&two));
    }
}
