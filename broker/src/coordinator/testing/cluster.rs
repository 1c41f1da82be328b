//! Topics at will, for tests.

use std::collections::BTreeMap;

use varve_metadata::model::TopicId;

use crate::coordinator::{ClusterView, ConsumerTimes, ShareTimes, StreamsSettings, TopicFacts};

/// Topics at will.
#[derive(Clone, Debug, Default)]
pub(in crate::coordinator) struct TestCluster {
    topics: BTreeMap<String, TopicFacts>,
    /// Of every topic's partitions.
    pub(in crate::coordinator) racks: Vec<Vec<String>>,
    pub(in crate::coordinator) version: i64,
    pub(in crate::coordinator) times: ConsumerTimes,
    pub(in crate::coordinator) streams: StreamsSettings,
}

impl TestCluster {
    pub(in crate::coordinator) fn put(&mut self, name: &str, id: TopicId, partitions: u32) {
        self.topics.insert(name.to_owned(), TopicFacts { id, partitions });
        self.version += 1;
    }

    /// How many partitions the topic has; none if there is no such topic.
    pub(in crate::coordinator) fn partitions_of(&self, name: &str) -> u32 {
        self.topics.get(name).map_or(0, |topic| topic.partitions)
    }

    pub(in crate::coordinator) fn remove(&mut self, name: &str) {
        self.topics.remove(name);
        self.version += 1;
    }
}

impl ClusterView for TestCluster {
    fn topic(&self, name: &str) -> Option<TopicFacts> {
        self.topics.get(name).copied()
    }

    fn topic_name(&self, id: TopicId) -> Option<&str> {
        self.topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name.as_str())
    }

    fn topic_names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.topics.keys().map(String::as_str))
    }

    fn racks(&self, _name: &str) -> Vec<Vec<String>> {
        self.racks.clone()
    }

    fn version(&self) -> i64 {
        self.version
    }

    fn consumer_times(&self, _group_id: &str) -> ConsumerTimes {
        self.times
    }

    fn share_times(&self, _group_id: &str) -> ShareTimes {
        ShareTimes::default()
    }

    fn streams_settings(&self, _group_id: &str) -> StreamsSettings {
        self.streams
    }
}
