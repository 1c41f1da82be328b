//! Being one of several brokers: a place among the others for one life of this process, and leaving it in order.

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;
use varve_log::local::LogDirError;
use varve_metadata::{
    cluster::{ClusterMetadata, Joining, Member},
    controller::FoundLogs,
    image::BrokerImage,
    model::BrokerId,
};

use super::{
    StartError,
    last_life::{self, LastLife},
};
use crate::{config::BrokerConfig, partition::Storage};

/// How often a node looks whether its disks are full.
const ROOM_CHECK: Duration = Duration::from_millis(500);
/// Longest wait for others to know of it: a stop waits as long.
const ASIDE_LIMIT: Duration = Duration::from_secs(2);

/// What the last life of this node left. Before any directory is opened.
pub(super) fn look_at_last_life(config: &BrokerConfig) -> Result<LastLife, StartError> {
    LastLife::look(&config.data_dir, &config.logs.dirs).map_err(|source| unwritten(config, source))
}

/// The directories are ours.
pub(super) fn note_life(config: &BrokerConfig, last_life: &LastLife) -> Result<(), StartError> {
    last_life.opened().map_err(|source| unwritten(config, source))
}

/// The logs with which this life begins. Before any is opened, made or set aside, others know which are gone, and which there are that a
/// restored state does not know of: whoever opens one goes by that.
pub(super) async fn look_at_logs(
    us: (BrokerId, Uuid),
    storage: &Arc<Storage>,
    metadata: &ClusterMetadata,
) -> Result<Arc<FoundLogs>, StartError> {
    let (storage, image) = (storage.clone(), metadata.image());
    let found = spawn_blocking(move || storage.found_logs(&image)).await;
    let found = found.map_err(|panic| LogDirError::from(io::Error::other(panic)))?;
    metadata.tell_strays(us.0, &found).await?;
    metadata.tell_lost_logs(us, &found).await?;
    Ok(Arc::new(found))
}

fn unwritten(config: &BrokerConfig, source: io::Error) -> StartError {
    StartError::File { file: last_life::file(&config.data_dir).display().to_string(), source }
}

/// What a life that leaves the others has to tell the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastWord {
    /// The logs are closed, and all that they held is on disk.
    Closed,
    /// Records may be lost.
    MayHaveLost,
    /// The same, and it could not be written: others do not wait for the disk once more.
    Unheard,
}

/// Logged for whoever starts the next life.
const UNHEARD: &str = "the next start will not know that records may be lost: give this node an empty disk";

/// This life among the other brokers.
pub(super) struct Membership {
    member: Member,
    id: BrokerId,
    life: Uuid,
    hands_over: bool,
    last_life: LastLife,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("id", &self.id).field("life", &self.life).finish_non_exhaustive()
    }
}

impl Membership {
    /// Registers. Leads nothing before [`admitted`](Self::admitted) returns.
    pub(super) async fn join(
        metadata: Arc<ClusterMetadata>,
        config: &BrokerConfig,
        broker: BrokerImage,
        last_life: LastLife,
        (storage, found): (&Storage, Arc<FoundLogs>),
    ) -> Result<Membership, StartError> {
        let (id, life) = (broker.id, broker.incarnation);
        if !storage.failed_dirs().is_empty() {
            // Others hear of it with the registration: until then it may be the next life that has to tell them.
            last_life.in_time(LastLife::failed).await.map_err(|source| unwritten(config, source))?;
        }
        let may_have_lost_records = last_life.may_have_lost_records() || !storage.failed_dirs().is_empty();
        let joining = Joining { broker, lease: config.replication.session, may_have_lost_records, found };
        let member = Member::join(metadata, joining).await?;
        last_life.joined().map_err(|source| unwritten(config, source))?;
        Ok(Membership { member, id, life, hands_over: config.replication.hands_over, last_life })
    }

    /// Waits until others have let this node in.
    ///
    /// # Errors
    /// [`StartError::Replaced`], and [`StartError::File`] if a log directory fails and the next life cannot be told.
    pub(super) async fn admitted(&self, storage: &Storage) -> Result<(), StartError> {
        let mut is_replaced = self.member.is_replaced();
        tokio::select! {
            () = self.member.admitted(self.id, self.life) => Ok(()),
            Ok(_) = is_replaced.wait_for(|is_so| *is_so) => Err(StartError::Replaced { node: self.id }),
            unnoted = self.note_failures(storage) => Err(unnoted),
        }
    }

    /// Until [`Directories`](super::directories::Directories) do that: registering has vouched for all of them.
    async fn note_failures(&self, storage: &Storage) -> StartError {
        let mut known = 0;
        loop {
            storage.more_failed(known).await;
            known = storage.failed_dirs().len();
            if let Err(source) = self.last_life.in_time(LastLife::failed).await {
                return StartError::File { file: self.last_life.file().display().to_string(), source };
            }
        }
    }

    /// What the next life is told of this one.
    pub(super) fn last_life(&self) -> LastLife {
        self.last_life.clone()
    }

    /// Becomes true when another process has registered as this node.
    pub(super) fn is_replaced(&self) -> watch::Receiver<bool> {
        self.member.is_replaced()
    }

    /// Hands over what this node leads, while it still serves.
    pub(super) async fn hand_over(&self, limit: Duration) {
        if !self.hands_over {
            return;
        }
        match self.member.drain(self.id, self.life, limit).await {
            Ok(0) => info!("others have taken over what was led here"),
            Ok(left) => warn!(
                partitions = left,
                "nobody else can lead some partitions: they are offline until this node is back"
            ),
            Err(error) => warn!(%error, "leadership is not handed over"),
        }
    }

    /// Before this node refuses connections to end: others may take it for dead from then on.
    pub(super) fn ends(&self) {
        self.member.ends();
    }

    /// Leaves the next life its word, and gives the lease back.
    pub(super) async fn leave(self, word: LastWord) {
        match word {
            LastWord::Closed => {
                if let Err(error) = self.last_life.in_time(LastLife::closed).await {
                    warn!(%error, "a restart of this machine will look as if records may be lost");
                }
            }
            LastWord::MayHaveLost => {
                if let Err(error) = self.last_life.in_time(LastLife::failed).await {
                    error!(%error, "{UNHEARD}");
                }
            }
            LastWord::Unheard => error!("{UNHEARD}"),
        }
        self.member.leave().await;
    }
}

/// The place of this node among others, until somebody gives it up.
pub(super) type Place = Arc<tokio::sync::Mutex<Option<Membership>>>;

/// Has others lead, and be in sync without this node, while a disk of it has no room: what it leads would take nothing, and what
/// it follows would wait for it. It comes back by itself.
pub(super) async fn step_aside_while_full(place: Place, storage: Arc<Storage>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ROOM_CHECK) => {}
        }
        let looking = storage.clone();
        let is_full = tokio::task::spawn_blocking(move || looking.has_full_disk()).await.unwrap_or(false);
        let place = place.lock().await;
        // It was given up.
        let Some(membership) = &*place else { return };
        let (id, life) = (membership.id, membership.life);
        match timeout(ASIDE_LIMIT, membership.member.step_aside(id, life, is_full)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) if is_full => {
                warn!("a disk is full: others lead and are in sync where they can, until there is room")
            }
            Ok(Ok(true)) => info!("there is room on every disk: this node takes part again"),
            Ok(Err(error)) => warn!(%error, is_full, "others do not know whether a disk is full here, trying again"),
            Err(_) => warn!(is_full, "others do not know in time whether a disk is full here, trying again"),
        }
    }
}

/// Gives leadership back to preferred replicas now and then, while this node is the controller.
pub(super) async fn rebalance_every(
    interval: Duration,
    metadata: Arc<ClusterMetadata>,
    node: BrokerId,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        if metadata.image().membership().controller() != Some(node) {
            continue;
        }
        match metadata.prefer_leaders().await {
            Ok(true) => info!("preferred replicas lead again"),
            Ok(false) => {}
            Err(error) => warn!(%error, "leadership is not given back to preferred replicas"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        path::PathBuf,
        sync::mpsc::{RecvTimeoutError, Sender, channel},
        thread::{self, JoinHandle},
    };

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tokio::time::advance;
    use varve_log::local::LogDirOwner;
    use varve_metadata::store::{MemoryStore, MetadataStore};

    use super::{
        super::{directories::Directories, last_life::WRITE_LIMIT},
        *,
    };
    use crate::{
        http::Health,
        partition::{NoKeeper, Partitions, StorageSettings},
    };

    const NODE: BrokerId = BrokerId(1);
    /// Much longer than the test.
    const LEASE: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    /// Real time, after which a test that waits for a disk has failed.
    const PATIENCE: Duration = Duration::from_secs(120);

    /// A file that whoever wants to write it waits for, as on a disk that hangs. When dropped it hangs no more, so that the runtime,
    /// which waits for its threads, leaves none behind; at the latest after [`PATIENCE`], where the test itself waits.
    struct Hanging(Option<(Sender<()>, JoinHandle<bool>)>);

    impl Hanging {
        fn in_place_of(file: PathBuf) -> Hanging {
            fs::remove_file(&file).unwrap();
            mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            let (until, ended) = channel();
            let watchdog = thread::spawn(move || {
                let is_late = ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
                std::mem::forget(OpenOptions::new().read(true).write(true).open(&file));
                is_late
            });
            Hanging(Some((until, watchdog)))
        }

        /// Hangs no more. Whether somebody had to wait for too long before that.
        fn end(&mut self) -> bool {
            let Some((until, watchdog)) = self.0.take() else { return false };
            drop(until);
            watchdog.join().unwrap()
        }
    }

    impl Drop for Hanging {
        fn drop(&mut self) {
            self.end();
        }
    }

    fn storage(root: &std::path::Path, partitions: &Arc<Partitions>) -> Arc<Storage> {
        let owner = LogDirOwner { cluster_id: "c".to_owned(), node: NODE };
        let settings = StorageSettings {
            dirs: vec![root.join("a"), root.join("b")],
            recovery_threads: 1,
            producer_expiry: LEASE,
            max_transaction_timeout: LEASE,
            verify_transactions: true,
        };
        Storage::open(&owner, partitions.clone(), settings, Arc::new(NoKeeper)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_whose_data_directory_hangs_leaves_the_others_and_can_be_stopped() {
        // It lies in the directory that fails, or elsewhere.
        for dirs in [vec!["a"], vec![]] {
            leaves_in_time(&dirs).await;
        }
    }

    async fn leaves_in_time(indispensable: &[&str]) {
        let root = tempfile::tempdir().unwrap();
        let partitions = Arc::new(Partitions::default());
        let storage = storage(root.path(), &partitions);
        let last_life = LastLife::look(root.path(), &[]).unwrap();
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let metadata = ClusterMetadata::start(store, NODE, Default::default()).await.unwrap();
        let life = Uuid::new_v4();
        let broker = BrokerImage { id: NODE, incarnation: life, ..BrokerImage::default() };
        let joining = Joining { broker, lease: LEASE, may_have_lost_records: false, found: Arc::default() };
        let member = Member::join(metadata.clone(), joining).await.unwrap();
        member.admitted(NODE, life).await;
        let membership = Membership { member, id: NODE, life, hands_over: true, last_life: last_life.clone() };
        let place: Place = Arc::new(tokio::sync::Mutex::new(Some(membership)));
        let mut hanging = Hanging::in_place_of(last_life.file().to_owned());

        let directories = Directories {
            storage,
            metadata: metadata.clone(),
            health: Health::starting(),
            us: (NODE, life),
            indispensable: indispensable.iter().map(|name| root.path().join(name)).collect(),
            among_others: Some((place.clone(), last_life)),
            found: Arc::default(),
        };
        let watch = tokio::spawn(directories.watch(CancellationToken::new()));
        partitions.log_dirs()[0].fail(&io::Error::other("gone"));
        let mut passed = Duration::ZERO;
        while !watch.is_finished() && passed < MINUTE {
            advance(WRITE_LIMIT / 10).await;
            passed += WRITE_LIMIT / 10;
            // Who stops it does not wait.
            assert!(place.try_lock().is_ok(), "after {passed:?}");
        }
        assert!(watch.is_finished() && place.lock().await.is_none());
        assert_eq!(metadata.image().membership().live(NODE), None);
        assert!(passed < 2 * WRITE_LIMIT, "others wait for the disk only once: {passed:?}");
        assert!(!hanging.end(), "nobody waits for the disk where others wait for it");
    }
}
