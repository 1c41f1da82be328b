//! What is followed goes from one number of connections to another.

use std::collections::{BTreeMap, BTreeSet};

use varve_log::local::{LogConfig, LogDir, LogDirOwner};
use varve_metadata::{
    model::{PartitionIndex, Timestamp, TopicId, TopicName},
    store::MemoryStore,
};

use super::*;
use crate::{
    config::{BrokerConfig, Sources},
    links::LinkOptions,
    metrics::Metrics,
    partition::LogDirHealth,
};

const LEADER: BrokerId = BrokerId(2);
const PARTITIONS: u32 = 24;

struct Node {
    replicas: Arc<Replicas>,
    partitions: Vec<Arc<Partition>>,
    _dir: tempfile::TempDir,
}

/// A node that follows partitions of a leader whom it does not know.
async fn node() -> Node {
    let us = BrokerId(1);
    let config = BrokerConfig::load(&Sources::default()).unwrap().config;
    let metadata = ClusterMetadata::start(Arc::new(MemoryStore::new()), us, BTreeMap::new()).await.unwrap();
    let second = Duration::from_secs(1);
    let options = LinkOptions { listener: "PLAINTEXT".into(), node: us, setup_limit: second, answer_limit: second };
    let links = Arc::new(Links::new(metadata.clone(), options));
    let throttles = Arc::new(Throttles::new(&config.replication));
    let reach = (links, throttles, IsrMetrics::new(Metrics::new().registry()));
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let replicas = Replicas::new((us, Uuid::nil()), metadata, config.replication.clone(), reach, tasks, stop);
    let dir = tempfile::tempdir().unwrap();
    let owner = LogDirOwner { cluster_id: "c".to_owned(), node: us };
    let files = LogDir::open(dir.path(), &owner).unwrap();
    // A fixed one: how partitions are spread follows from it.
    let (name, topic) = (TopicName::parse("t").unwrap(), TopicId::from_wire(Uuid::from_u128(7)).unwrap());
    let open = |index| {
        let id = PartitionId { topic, index: PartitionIndex(index) };
        let log = files.open_log(&name, topic, id.index, Arc::new(LogConfig::default()), Timestamp::default());
        let health = LogDirHealth::new(dir.path().to_owned());
        Partition::new(id, name.clone(), log.unwrap().0, health, LeaderEpoch(1))
    };
    let partitions: Vec<_> = (0..PARTITIONS).map(open).collect();
    for partition in &partitions {
        replicas.follow(partition, LEADER, LeaderEpoch(1));
    }
    Node { replicas, partitions, _dir: dir }
}

impl Node {
    /// The numbers of the connections, each with how many partitions are fetched over it.
    fn spread(&self) -> BTreeMap<u64, usize> {
        let followed = self.replicas.followed.lock();
        followed.tasks.iter().map(|(lane, task)| (lane.number, task.followed().len())).collect()
    }

    fn is_arranged(&self, fetchers: u32) -> bool {
        let followed = self.replicas.followed.lock();
        let is_right = |(id, (lane, _)): (&PartitionId, &(Lane, LeaderEpoch))| *lane == lane_of(LEADER, *id, fetchers);
        let numbers: BTreeSet<u64> = followed.tasks.keys().map(|lane| lane.number).collect();
        followed.places.iter().all(is_right) && numbers == (0..u64::from(fetchers)).collect()
    }

    async fn until(&self, is_so: impl Fn(&Node) -> bool) {
        for _ in 0..100_000 {
            if is_so(self) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{:?}", self.spread());
    }

    /// Each partition is fetched once, over the connection where it is known to be.
    fn check(&self) {
        let followed = self.replicas.followed.lock();
        let mut all = Vec::new();
        for (lane, task) in &followed.tasks {
            for id in task.followed() {
                assert_eq!(followed.places[&id], (*lane, LeaderEpoch(1)));
                all.push(id);
            }
        }
        assert_eq!(all.len(), self.partitions.len());
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), self.partitions.len());
    }
}

#[tokio::test]
async fn every_partition_goes_over_one_connection_however_their_number_changes() {
    let node = node().await;
    for fetchers in [2, 4, 3, 1, 2] {
        node.replicas.set_fetchers(fetchers);
        // An image that shows the same does not move anything by itself.
        node.partitions.iter().for_each(|partition| node.replicas.follow(partition, LEADER, LeaderEpoch(1)));
        node.until(|node| node.is_arranged(fetchers)).await;
        node.check();
        let spread = node.spread();
        assert!(spread.values().all(|partitions| *partitions > 0), "{spread:?}");
    }
    node.partitions.iter().for_each(|partition| node.replicas.forget(partition.id()));
    assert!(node.spread().values().all(|partitions| *partitions == 0));
    node.replicas.stop.cancel();
}

#[tokio::test]
async fn a_partition_stays_while_its_connection_is_busy_with_it() {
    let node = node().await;
    let task = node.replicas.followed.lock().tasks[&Lane { leader: LEADER, number: 0 }].clone();
    let goes = |partition: &&Arc<Partition>| lane_of(LEADER, partition.id(), 2).number == 1;
    let partition = node.partitions.iter().find(goes).unwrap().clone();
    let (done, wait) = tokio::sync::oneshot::channel::<()>();
    let step = task.do_beside(&node.replicas, partition.clone(), LeaderEpoch(1), async move {
        let _ = wait.await;
        Ok(())
    });
    node.replicas.set_fetchers(2);
    let others = node.partitions.iter().filter(goes).count() - 1;
    node.until(|node| node.spread().get(&1) == Some(&others)).await;
    node.check();
    assert!(task.followed().contains(&partition.id()));
    done.send(()).unwrap();
    step.await.unwrap();
    node.until(|node| node.is_arranged(2)).await;
    node.check();
    node.replicas.stop.cancel();
}
