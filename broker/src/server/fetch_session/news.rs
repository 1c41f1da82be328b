//! What is new in the partitions of a follower's session. A follower asks again as soon as it has an answer, and a session may hold
//! thousands of partitions that rest: a fetch looks at those that it names, that had news or that were not finished with, and at all of
//! them only now and then, so that nothing depends on the news being complete.
//!
//! ```text
//! named ─┐
//! news ──┼─► look ─► told all there is ─► rests, watched, until there is news
//! unfinished ◄──┘ more than fits, held back, an error
//! ```

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use varve_metadata::model::PartitionId;

use super::PartitionKey;
use crate::{
    partition::{Partition, Replica, Waiter, Watch},
    wire::fetch_response::TopicKey,
};

/// Between two looks at everything.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a session knows of its partitions between two fetches.
#[derive(Debug)]
pub(super) struct News {
    replica: Replica,
    waiter: Waiter,
    watched: HashMap<PartitionKey, Watched>,
    unfinished: HashSet<PartitionKey>,
    looked_at_all: Option<Instant>,
}

#[derive(Debug)]
struct Watched {
    partition: Weak<Partition>,
    _watches: [Watch; 2],
}

/// What a fetch looks at, beside what it names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    All,
    These(HashSet<PartitionKey>),
}

impl News {
    pub(super) fn of(replica: Replica) -> News {
        let (waiter, watched, unfinished) = Default::default();
        News { replica, waiter, watched, unfinished, looked_at_all: None }
    }

    /// Whether whoever asks as `replica` now asks in another life: then nobody uses this session any more.
    pub(super) fn is_of_earlier_life(&self, replica: Replica) -> bool {
        self.replica.id == replica.id && self.replica.incarnation != replica.incarnation
    }

    pub(super) fn waiter(&self) -> Waiter {
        self.waiter.clone()
    }

    /// What is due now. Whoever asks looks at it, or ends the session.
    pub(super) fn take_due(&mut self, now: Instant) -> Due {
        let news = self.take();
        let unfinished = std::mem::take(&mut self.unfinished);
        if self.looked_at_all.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY) {
            self.looked_at_all = Some(now);
            return Due::All;
        }
        Due::These(news.chain(unfinished).collect())
    }

    /// What had news since that was last asked.
    pub(super) fn take(&self) -> impl Iterator<Item = PartitionKey> + use<> {
        let key = |id: PartitionId| PartitionKey { topic: TopicKey::Id(id.topic.to_wire()), index: id.index.to_wire() };
        self.waiter.take_news().into_iter().map(key)
    }

    /// To be called with each partition *before* it is looked at: what comes later is news.
    pub(super) fn watch(&mut self, key: &PartitionKey, partition: &Arc<Partition>, wakes_by_commits: bool) {
        let is_known = |known: &Watched| std::ptr::eq(known.partition.as_ptr(), Arc::as_ptr(partition));
        if !self.watched.get(key).is_some_and(is_known) {
            let watched = Watched {
                partition: Arc::downgrade(partition),
                _watches: partition.watch_news(&self.waiter, wakes_by_commits),
            };
            self.watched.insert(key.clone(), watched);
        }
    }

    /// There is more to tell of it than was.
    pub(super) fn unfinished(&mut self, key: PartitionKey) {
        self.unfinished.insert(key);
    }

    pub(super) fn forget(&mut self, key: &PartitionKey) {
        self.watched.remove(key);
        self.unfinished.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use varve_log::local::{AppendOrigin, LogConfig, LogDir, LogDirOwner};
    use varve_metadata::model::{BrokerId, LeaderEpoch, PartitionIndex, Timestamp, TopicId, TopicName};

    use super::*;
    use crate::{
        partition::LogDirHealth,
        server::{data_test::records, wall_clock},
    };

    struct Logs {
        topic: TopicId,
        files: LogDir,
        dir: tempfile::TempDir,
    }

    impl Logs {
        fn new() -> Logs {
            let dir = tempfile::tempdir().unwrap();
            let owner = LogDirOwner { cluster_id: "c".to_owned(), node: BrokerId(1) };
            Logs { topic: TopicId::random(), files: LogDir::open(dir.path(), &owner).unwrap(), dir }
        }

        fn partition(&self, index: u32) -> (PartitionKey, Arc<Partition>) {
            let (topic, index) = (TopicName::parse("t").unwrap(), PartitionIndex(index));
            let config = Arc::new(LogConfig::default());
            let (log, _) = self.files.open_log(&topic, self.topic, index, config, Timestamp::default()).unwrap();
            let (id, health) =
                (PartitionId { topic: self.topic, index }, LogDirHealth::new(self.dir.path().to_owned()));
            (self.key(index.0), Partition::new(id, topic, log, health, LeaderEpoch(1)))
        }

        fn key(&self, index: u32) -> PartitionKey {
            PartitionKey { topic: TopicKey::Id(self.topic.to_wire()), index: index as i32 }
        }
    }

    fn these(keys: impl IntoIterator<Item = PartitionKey>) -> Due {
        Due::These(keys.into_iter().collect())
    }

    #[test]
    fn everything_is_looked_at_now_and_then_and_else_what_is_new_or_unfinished() {
        let logs = Logs::new();
        let partitions = [0, 1, 2].map(|index| logs.partition(index));
        let (mut news, now) = (News::of(Replica { id: BrokerId(2), incarnation: None }), Instant::now());
        assert_eq!(news.take_due(now), Due::All);
        partitions.iter().for_each(|(key, partition)| news.watch(key, partition, false));
        assert_eq!(news.take_due(now), these([]));

        partitions[1].1.append(&records(&["a"]), AppendOrigin::Client, wall_clock()).unwrap();
        news.unfinished(logs.key(2));
        assert_eq!(news.take_due(now), these([logs.key(1), logs.key(2)]));
        assert_eq!(news.take_due(now), these([]), "once each");
        assert_eq!(news.take_due(now + LOOK_EVERY), Due::All);
        assert_eq!(news.take_due(now + LOOK_EVERY), these([]));
    }

    #[test]
    fn what_takes_the_place_of_a_partition_is_watched_and_what_is_forgotten_is_not() {
        let logs = Logs::new();
        let [(key, before), (other, forgotten)] = [0, 1].map(|index| logs.partition(index));
        let (mut news, now) = (News::of(Replica { id: BrokerId(2), incarnation: None }), Instant::now());
        news.take_due(now);
        news.watch(&key, &before, false);
        news.watch(&other, &forgotten, false);
        news.forget(&other);
        drop(before);
        let (_, after) = logs.partition(0);
        news.watch(&key, &after, false);
        for partition in [&after, &forgotten] {
            partition.append(&records(&["a"]), AppendOrigin::Client, wall_clock()).unwrap();
        }
        assert_eq!(news.take_due(now), these([key]));
    }
}
