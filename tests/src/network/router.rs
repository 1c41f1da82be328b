//! Passes packets on between hosts, or does not.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{Read, Write},
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{tools, workload::Random};

/// Makes its standard input, which is /dev/net/tun, a device that carries IP packets and no header of the kernel's
/// (TUNSETIFF with IFF_TUN and IFF_NO_PI). That takes an ioctl, for which Rust has no safe function.
const NAME_DEVICE: &str = "
import fcntl, struct, sys
fcntl.ioctl(0, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1001))
";

/// Where the destination stands in an IPv4 header (RFC 791).
const DESTINATION: std::ops::Range<usize> = 16..20;
/// The first three parts of every address.
const NETWORK: [u8; 3] = [10, 7, 0];
/// Longest wait of the thread for late packets when there are none.
const IDLE: Duration = Duration::from_secs(3600);

/// The address of the host at a place.
pub(super) fn address(at: usize) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, u8::try_from(at + 1).expect("fewer hosts than a network has addresses"))
}

/// What becomes of packets from one host to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// None arrives.
    pub is_cut: bool,
    /// How many of a thousand are lost.
    pub lost_of_1000: u16,
    /// How long one is under way.
    pub delay: Duration,
    /// At most so much longer, by chance: packets overtake each other.
    pub jitter: Duration,
}

/// All paths.
pub struct Router {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    devices: Mutex<Vec<Arc<File>>>,
    is_over: AtomicBool,
}

struct State {
    /// By sender and receiver.
    paths: Vec<Vec<Path>>,
    random: Random,
}

/// A packet that arrives later: by time, then in the order of sending.
type Late = Reverse<(Instant, u64, usize, Vec<u8>)>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Router {
    pub(super) fn new(hosts: usize, seed: u64) -> Router {
        let state = State { paths: vec![vec![Path::default(); hosts]; hosts], random: Random(seed) };
        let shared = Shared { state: Mutex::new(state), devices: Mutex::default(), is_over: AtomicBool::new(false) };
        Router { shared: Arc::new(shared) }
    }

    /// Makes the device of the host at place `at`; to be called for one after the other.
    pub(super) fn connect(&self, at: usize, name: &str) -> Result<()> {
        let device = File::options().read(true).write(true).open("/dev/net/tun");
        let device = device.context("/dev/net/tun cannot be used (this wants root)")?;
        let mut python = Command::new(tools::folder()?.join("venv/bin/python"));
        let named = python.args(["-c", NAME_DEVICE, name]).stdin(Stdio::from(device.try_clone()?)).output()?;
        ensure!(named.status.success(), "no TUN device can be made: {}", String::from_utf8_lossy(&named.stderr));
        let mut devices = locked(&self.shared.devices);
        ensure!(devices.len() == at, "one after the other");
        devices.push(Arc::new(device));
        Ok(())
    }

    /// Passes packets on from now on, until this is [over](Self::end).
    pub(super) fn start(&self) -> Result<()> {
        let devices = locked(&self.shared.devices).clone();
        let (late, waiting) = mpsc::channel();
        let arriving = devices.clone();
        thread::Builder::new().name("late packets".to_owned()).spawn(move || deliver_late(&waiting, &arriving))?;
        for (device, from) in devices.iter().cloned().zip(0..) {
            let (shared, late, all) = (self.shared.clone(), late.clone(), devices.clone());
            let passing = move || pass_on(from, &device, &all, &shared, &late);
            thread::Builder::new().name(format!("packets of host {from}")).spawn(passing)?;
        }
        Ok(())
    }

    /// Leaves each device as soon as it is taken away: until then its name is in use.
    pub(super) fn end(&self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        locked(&self.shared.devices).clear();
    }

    /// Sets what becomes of packets from one host to another.
    pub fn set(&self, from: usize, to: usize, path: Path) {
        locked(&self.shared.state).paths[from][to] = path;
    }

    /// Sets it for both ways.
    pub fn set_between(&self, one: usize, other: usize, path: Path) {
        self.set(one, other, path);
        self.set(other, one, path);
    }

    /// Cuts both ways.
    pub fn cut(&self, one: usize, other: usize) {
        self.set_between(one, other, Path { is_cut: true, ..Path::default() });
    }

    /// Lets every packet arrive at once.
    pub fn heal(&self) {
        locked(&self.shared.state).paths.iter_mut().flatten().for_each(|path| *path = Path::default());
    }
}

impl Shared {
    /// When a packet arrives, if it does; `None` in it: at once.
    fn fate(&self, from: usize, to: usize) -> Option<Option<Duration>> {
        let mut state = locked(&self.state);
        let path = state.paths[from][to];
        if path.is_cut || (path.lost_of_1000 > 0 && state.random.below(1000) < u64::from(path.lost_of_1000)) {
            return None;
        }
        let jitter = u64::try_from(path.jitter.as_micros()).unwrap_or(u64::MAX);
        let later = path.delay + Duration::from_micros(if jitter > 0 { state.random.below(jitter) } else { 0 });
        Some((later > Duration::ZERO).then_some(later))
    }
}

/// The place of the host to which a packet goes, if it is one of ours.
fn destination(packet: &[u8]) -> Option<usize> {
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    match packet.get(DESTINATION) {
        Some([a, b, c, host]) if is_v4 && [*a, *b, *c] == NETWORK => usize::from(*host).checked_sub(1),
        _ => None,
    }
}

fn pass_on(
    from: usize,
    mut device: &File,
    all: &[Arc<File>],
    shared: &Shared,
    late: &Sender<(Instant, usize, Vec<u8>)>,
) {
    let mut packet = vec![0; 1 << 16];
    loop {
        // An interface that is down has none, nor has one that was taken away.
        let Ok(length) = device.read(&mut packet) else {
            if shared.is_over.load(Ordering::Relaxed) {
                return;
            }
            thread::park_timeout(Duration::from_millis(1));
            continue;
        };
        let packet = &packet[..length];
        let Some(to) = destination(packet).filter(|to| *to < all.len()) else { continue };
        match shared.fate(from, to) {
            None => {}
            // What a full or absent interface does not take is lost, as in any network.
            Some(None) => drop(all[to].as_ref().write(packet)),
            Some(Some(later)) => drop(late.send((Instant::now() + later, to, packet.to_vec()))),
        }
    }
}

fn deliver_late(waiting: &Receiver<(Instant, usize, Vec<u8>)>, all: &[Arc<File>]) {
    let mut heap: BinaryHeap<Late> = BinaryHeap::new();
    let mut count = 0;
    loop {
        let now = Instant::now();
        while heap.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            if let Some(Reverse((_, _, to, packet))) = heap.pop() {
                drop(all[to].as_ref().write(&packet));
            }
        }
        let next = heap.peek().map_or(IDLE, |Reverse((due, ..))| due.saturating_duration_since(now));
        match waiting.recv_timeout(next) {
            Ok((due, to, packet)) => {
                count += 1;
                heap.push(Reverse((due, count, to, packet)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_loses_as_many_as_it_says_and_only_in_its_direction() {
        let router = Router::new(2, 7);
        router.set(0, 1, Path { lost_of_1000: 200, ..Path::default() });
        let arrived = |from, to| (0..1000).filter(|_| router.shared.fate(from, to).is_some()).count();
        let there = arrived(0, 1);
        assert!((740..860).contains(&there), "{there} of 1000");
        assert_eq!(arrived(1, 0), 1000);
        router.cut(0, 1);
        assert_eq!((arrived(0, 1), arrived(1, 0)), (0, 0));
        router.heal();
        assert_eq!(router.shared.fate(0, 1), Some(None));
    }

    #[test]
    fn a_delay_is_kept_and_jitter_only_adds_to_it() {
        let router = Router::new(2, 7);
        let (delay, jitter) = (Duration::from_millis(20), Duration::from_millis(5));
        router.set(0, 1, Path { delay, jitter, ..Path::default() });
        for _ in 0..100 {
            let later = router.shared.fate(0, 1).flatten().expect("it arrives later");
            assert!((delay..delay + jitter).contains(&later), "{later:?}");
        }
    }

    #[test]
    fn only_packets_of_our_network_have_a_destination() {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[DESTINATION].copy_from_slice(&address(3).octets());
        assert_eq!(destination(&packet), Some(3));
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None, "IPv6");
        assert_eq!(destination(&[0x45; 10]), None, "cut short");
    }
}
