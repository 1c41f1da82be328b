//! Notices the end of another broker's process before its lease does.
//!
//! ```text
//!            connected ──── it ends ────► connecting ◄──── cannot tell ────┐
//!                ▲                           │ │ └──── no answer ──────────┘  left to its lease
//!                └───────── accepted ────────┘ └── refused, and refused again ──► declared dead
//! ```
//! A machine that refuses connections where a broker has registered runs, and that broker's process does not listen there any
//! more: it was killed, or it has closed its listener to end. Silence says nothing: the process may hang, the network may be cut,
//! and the lease has to tell. Each broker watches a few others over a connection that carries nothing, so that everybody is
//! watched by several whatever it leads. Why being wrong does no harm is in docs/adr/0022.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, lookup_host},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;
use varve_metadata::{
    cluster::{ClusterMetadata, Verdict},
    image::{ClusterImage, Endpoint},
    model::BrokerId,
};

/// How many others a broker watches: it does not grow with the cluster.
const WATCHED: usize = 3;
/// Refusals in a row that tell.
const REFUSALS: u32 = 2;
/// Between them.
const AGAIN: Duration = Duration::from_millis(25);
/// Before a broker that cannot be reached, or was declared dead, is looked at again.
const LATER: Duration = Duration::from_secs(1);

/// Who watches, and how others are reached.
pub(super) struct Watcher {
    pub(super) metadata: Arc<ClusterMetadata>,
    pub(super) us: BrokerId,
    /// The listener that brokers connect to.
    pub(super) listener: String,
    /// `socket.connection.setup.timeout.ms`.
    pub(super) setup_limit: Duration,
}

/// Of those who are watched, whose connections stand.
type Standing = Arc<Mutex<BTreeMap<BrokerId, bool>>>;

/// A task that ends with whoever holds this.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Watches until `stop`.
pub(super) async fn watch_neighbours(watcher: Watcher, stop: CancellationToken) {
    let watcher = Arc::new(watcher);
    let (mut images, standing) = (watcher.metadata.subscribe(), Standing::default());
    let mut watched: BTreeMap<(BrokerId, Uuid), Task> = BTreeMap::new();
    loop {
        let wanted = neighbours(&images.borrow_and_update(), watcher.us);
        watched.retain(|one, _| wanted.contains(one));
        standing.lock().retain(|id, _| wanted.iter().any(|(wanted, _)| wanted == id));
        for one in wanted {
            watched.entry(one).or_insert_with(|| {
                let (watcher, standing) = (watcher.clone(), standing.clone());
                Task(tokio::spawn(async move { watcher.watch(one, &standing).await }))
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = images.changed() => if changed.is_err() { return },
        }
    }
}

/// The lives of those who come next after `us`, in a ring by their ids: everybody is watched by as many.
fn neighbours(image: &ClusterImage, us: BrokerId) -> BTreeSet<(BrokerId, Uuid)> {
    let others = || image.brokers().values().filter(|broker| broker.id != us);
    let (before, after): (Vec<_>, Vec<_>) = others()
        .filter(|broker| image.membership().live(broker.id) == Some(broker.incarnation))
        .partition(|broker| broker.id < us);
    after.into_iter().chain(before).take(WATCHED).map(|broker| (broker.id, broker.incarnation)).collect()
}

/// What an attempt to connect tells.
enum Reached {
    Connected(TcpStream),
    /// Somebody is there, and says that nobody listens.
    Refused,
    /// Nothing.
    Unknown,
}

impl Watcher {
    async fn watch(&self, (whom, life): (BrokerId, Uuid), standing: &Standing) {
        let mut refusals = 0;
        loop {
            match self.reach(whom).await {
                Reached::Connected(stream) => {
                    refusals = 0;
                    standing.lock().insert(whom, true);
                    ended(stream).await;
                    standing.lock().insert(whom, false);
                    sleep(AGAIN).await;
                }
                Reached::Refused => {
                    refusals += 1;
                    standing.lock().insert(whom, false);
                    match refusals >= REFUSALS && is_believed(standing, whom) {
                        true => self.declare_dead(whom, life).await,
                        false => sleep(AGAIN).await,
                    }
                }
                Reached::Unknown => {
                    refusals = 0;
                    standing.lock().insert(whom, false);
                    sleep(LATER).await;
                }
            }
        }
    }

    async fn reach(&self, whom: BrokerId) -> Reached {
        let endpoint =
            self.metadata.image().brokers().get(&whom).and_then(|it| it.endpoints.get(&self.listener).cloned());
        let Some(Endpoint { host, port }) = endpoint else { return Reached::Unknown };
        let attempt = async {
            let mut refused = 0;
            let mut others = 0;
            for address in lookup_host((host.as_str(), port)).await? {
                match TcpStream::connect(address).await {
                    Ok(stream) => return Ok(Reached::Connected(stream)),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused += 1,
                    Err(_) => others += 1,
                }
            }
            // Where a name has several addresses, all of them have to refuse.
            Ok::<_, io::Error>(if refused > 0 && others == 0 { Reached::Refused } else { Reached::Unknown })
        };
        match timeout(self.setup_limit, attempt).await {
            Ok(Ok(reached)) => reached,
            Ok(Err(_)) | Err(_) => Reached::Unknown,
        }
    }

    async fn declare_dead(&self, whom: BrokerId, life: Uuid) {
        match self.metadata.declare_dead(whom, life).await {
            Ok(Verdict::Dead) => {
                warn!(broker = %whom, "it refuses connections: its process has ended, and others take over")
            }
            Ok(Verdict::Gone | Verdict::Doubted) => {}
            Err(error) => debug!(broker = %whom, %error, "it refuses connections, and is not declared dead yet"),
        }
        sleep(LATER).await;
    }
}

/// Whether a refusal of `whom` says more about it than about us: whoever is refused by all whom it watches does not know.
fn is_believed(standing: &Standing, whom: BrokerId) -> bool {
    let standing = standing.lock();
    let mut others = standing.iter().filter(|(id, _)| **id != whom).peekable();
    others.peek().is_none() || others.any(|(_, stands)| *stands)
}

/// Waits until the other side ends the connection. What it says meanwhile is nothing to us.
async fn ended(mut stream: TcpStream) {
    let mut said = [0; 64];
    while stream.read(&mut said).await.is_ok_and(|length| length > 0) {}
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use varve_metadata::{
        cluster::{Joining, Member},
        image::BrokerImage,
        store::{MemoryStore, MetadataStore},
    };

    use super::*;

    /// So long that no test sees its end.
    const LEASE: Duration = Duration::from_secs(3600);
    /// Longest wait for what is to happen.
    const LIMIT: Duration = Duration::from_secs(60);

    struct Peer {
        metadata: Arc<ClusterMetadata>,
        member: Member,
        listener: TcpListener,
        life: Uuid,
    }

    async fn join(store: &Arc<dyn MetadataStore>, id: u32) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let endpoints = BTreeMap::from([("B".to_owned(), endpoint)]);
        let (id, life) = (BrokerId(id), Uuid::new_v4());
        let metadata = ClusterMetadata::start(store.clone(), id, BTreeMap::new()).await.unwrap();
        let broker =
            BrokerImage { id, incarnation: life, endpoints, rack: None, fenced: false, ..BrokerImage::default() };
        let joining = Joining { broker, lease: LEASE, may_have_lost_records: false, found: Arc::default() };
        let member = Member::join(metadata.clone(), joining).await.unwrap();
        member.admitted(id, life).await;
        Peer { metadata, member, listener, life }
    }

    fn watch(peer: &Peer, us: u32, stop: &CancellationToken) {
        let watcher =
            Watcher { metadata: peer.metadata.clone(), us: BrokerId(us), listener: "B".to_owned(), setup_limit: LIMIT };
        tokio::spawn(watch_neighbours(watcher, stop.clone()));
    }

    async fn until(peer: &Peer, is_so: impl Fn(&ClusterImage) -> bool) {
        let mut images = peer.metadata.subscribe();
        let seen = timeout(LIMIT, images.wait_for(|image| is_so(image))).await;
        assert!(seen.is_ok(), "{:?}", peer.metadata.image().membership());
    }

    #[tokio::test]
    async fn a_broker_whose_process_ended_is_missed_long_before_its_lease_ends() {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let (one, two, three) = (join(&store, 1).await, join(&store, 2).await, join(&store, 3).await);
        let stop = CancellationToken::new();
        watch(&two, 2, &stop);
        // Somebody is connected when it ends.
        let connection = timeout(LIMIT, one.listener.accept()).await.unwrap().unwrap();
        timeout(LIMIT, three.listener.accept()).await.unwrap().unwrap();
        let Peer { member, listener, life, .. } = one;
        assert_eq!(two.metadata.image().membership().live(BrokerId(1)), Some(life));
        drop((member, listener, connection));
        until(&two, |image| image.membership().live(BrokerId(1)).is_none()).await;
        until(&two, |image| image.brokers()[&BrokerId(1)].fenced && image.membership().controller().is_some()).await;
        assert_eq!(two.metadata.image().in_service(BrokerId(3)), Some(three.life));
        stop.cancel();
    }

    #[tokio::test]
    async fn whom_everybody_else_refuses_has_no_say() {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let (one, two, three) = (join(&store, 1).await, join(&store, 2).await, join(&store, 3).await);
        drop((one.listener, three.listener, one.member, three.member));
        let stop = CancellationToken::new();
        watch(&two, 2, &stop);
        let is_missed = |image: &ClusterImage| [1, 3].iter().any(|id| image.membership().live(BrokerId(*id)).is_none());
        let mut images = two.metadata.subscribe();
        let missed = timeout(8 * AGAIN, images.wait_for(|image| is_missed(image))).await;
        assert!(missed.is_err(), "it may as well be us who cannot connect");
        // One who can be reached makes the difference: the controller was among those who are missed.
        let four = join(&store, 4).await;
        until(&two, |image| [1, 3].iter().all(|id| image.membership().live(BrokerId(*id)).is_none())).await;
        assert_eq!(two.metadata.image().in_service(BrokerId(4)), Some(four.life));
        stop.cancel();
    }

    #[tokio::test]
    async fn everybody_watches_those_who_come_next_and_only_those_who_live() {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let mut peers = Vec::new();
        for id in 1..=6 {
            peers.push(join(&store, id).await);
        }
        let image = |us: usize| peers[us - 1].metadata.clone();
        let ids = |image: &ClusterImage, us| -> Vec<u32> {
            neighbours(image, BrokerId(us)).into_iter().map(|(id, _)| id.0).collect()
        };
        until(&peers[1], |image| image.membership().live(BrokerId(6)).is_some()).await;
        assert_eq!(ids(&image(2).image(), 2), [3, 4, 5]);
        until(&peers[4], |image| image.membership().live(BrokerId(6)).is_some()).await;
        assert_eq!(ids(&image(5).image(), 5), [1, 2, 6]);
        assert_eq!(image(2).declare_dead(BrokerId(4), Uuid::new_v4()).await.unwrap(), Verdict::Gone);
        peers.remove(3).member.leave().await;
        until(&peers[1], |image| image.membership().live(BrokerId(4)).is_none()).await;
        assert_eq!(ids(&peers[1].metadata.image(), 2), [3, 5, 6]);
    }
}
