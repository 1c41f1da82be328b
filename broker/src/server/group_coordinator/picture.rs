//! The cluster, as a coordinator sees it: one image of the metadata, and the settings of groups in it.

use std::{sync::Arc, time::Duration};

use varve_metadata::{
    cluster::ClusterMetadata,
    image::{ClusterImage, ConfigResource, TopicChange, TopicImage},
    model::{BrokerId, TopicId},
};

use crate::{
    config::{GroupConfig, GroupTime},
    coordinator::{ClusterView, ConsumerTimes, ShareTimes, StreamsSettings, TopicFacts, TopicsChange},
};

/// Where pictures come from.
pub(super) struct Surroundings {
    pub(super) node: BrokerId,
    pub(super) metadata: Arc<ClusterMetadata>,
    pub(super) settings: GroupConfig,
}

impl Surroundings {
    /// The cluster as it is now.
    pub(super) fn picture(self: &Arc<Self>) -> Arc<Picture> {
        Arc::new(Picture { image: self.metadata.image(), around: self.clone() })
    }
}

/// The cluster at one moment.
pub(super) struct Picture {
    image: Arc<ClusterImage>,
    around: Arc<Surroundings>,
}

impl Picture {
    /// The broker's setting, while it is not given anew in cluster state.
    fn dynamic(&self, name: &str) -> Option<Duration> {
        let of = |resource: &ConfigResource| parse(self.image.configs().get(resource)?.get(name)?);
        of(&ConfigResource::Broker(self.around.node)).or_else(|| of(&ConfigResource::BrokerDefaults))
    }

    /// The group's own time if it has one, as far as the broker allows; else the broker's.
    fn time(&self, group: &ConfigResource, name: &str, time: GroupTime, dynamic: Option<Duration>) -> Duration {
        let own = self.image.configs().get(group).and_then(|own| parse(own.get(name)?));
        own.or(dynamic).unwrap_or(time.usual).clamp(time.min, time.max)
    }
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("node", &self.node).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picture").field("revision", &self.image.revision()).finish_non_exhaustive()
    }
}

fn parse(millis: &str) -> Option<Duration> {
    millis.trim().parse().ok().map(Duration::from_millis)
}

impl ClusterView for Picture {
    fn topic(&self, name: &str) -> Option<TopicFacts> {
        let topic = self.image.topic(name)?;
        Some(TopicFacts { id: topic.id, partitions: topic.partitions.len() as u32 })
    }

    fn topic_name(&self, id: TopicId) -> Option<&str> {
        self.image.topic_by_id(id).map(|topic| topic.name.as_str())
    }

    fn topic_names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.image.topics().keys().map(|name| name.as_str()))
    }

    fn racks(&self, name: &str) -> Vec<Vec<String>> {
        let Some(topic) = self.image.topic(name) else { return Vec::new() };
        let rack = |id: &BrokerId| self.image.brokers().get(id)?.rack.clone();
        topic.partitions.iter().map(|partition| partition.replicas.iter().filter_map(rack).collect()).collect()
    }

    fn version(&self) -> i64 {
        i64::try_from(self.image.revision().0).unwrap_or(i64::MAX)
    }

    fn consumer_times(&self, group_id: &str) -> ConsumerTimes {
        let group = ConfigResource::Group(group_id.to_owned());
        let settings = &self.around.settings.consumer;
        let interval = self.dynamic("group.consumer.assignment.interval.ms");
        ConsumerTimes {
            session_timeout: self.time(&group, "consumer.session.timeout.ms", settings.session_timeout, None),
            heartbeat_interval: self.time(&group, "consumer.heartbeat.interval.ms", settings.heartbeat_interval, None),
            assignment_interval: self.time(
                &group,
                "consumer.assignment.interval.ms",
                settings.assignment_interval,
                interval,
            ),
        }
    }

    fn share_times(&self, group_id: &str) -> ShareTimes {
        let group = ConfigResource::Group(group_id.to_owned());
        let settings = &self.around.settings.share;
        let interval = self.dynamic("group.share.assignment.interval.ms");
        ShareTimes {
            session_timeout: self.time(&group, "share.session.timeout.ms", settings.session_timeout, None),
            heartbeat_interval: self.time(&group, "share.heartbeat.interval.ms", settings.heartbeat_interval, None),
            assignment_interval: self.time(
                &group,
                "share.assignment.interval.ms",
                settings.assignment_interval,
                interval,
            ),
        }
    }

    fn streams_settings(&self, group_id: &str) -> StreamsSettings {
        let group = ConfigResource::Group(group_id.to_owned());
        let usual = &self.around.settings.streams;
        let interval = self.dynamic("group.streams.assignment.interval.ms");
        let time = |name, time, dynamic| self.time(&group, name, time, dynamic);
        let own =
            |name: &str| self.image.configs().get(&group).and_then(|own| own.get(name)?.trim().parse::<u64>().ok());
        let delay = own("streams.initial.rebalance.delay.ms").map(Duration::from_millis);
        let standbys = own("streams.num.standby.replicas").and_then(|number| u32::try_from(number).ok());
        StreamsSettings {
            session_timeout: time("streams.session.timeout.ms", usual.session_timeout, None),
            heartbeat_interval: time("streams.heartbeat.interval.ms", usual.heartbeat_interval, None),
            assignment_interval: time("streams.assignment.interval.ms", usual.assignment_interval, interval),
            initial_rebalance_delay: delay.unwrap_or(usual.initial_rebalance_delay),
            standby_replicas: standbys.unwrap_or(usual.standby_replicas).min(usual.max_standby_replicas),
        }
    }
}

/// What `changes` mean for groups. Who leads a partition, and who is in sync, means nothing to them.
pub(super) fn topics_change(changes: &[TopicChange]) -> TopicsChange {
    let mut change = TopicsChange::default();
    for topic in changes {
        match topic {
            TopicChange::Created(topic) => {
                change.has_new = true;
                change.touched.push(topic.name.to_string());
            }
            TopicChange::Altered { before, now } if is_same_for_groups(before, now) => {}
            TopicChange::Altered { now, .. } => change.touched.push(now.name.to_string()),
            TopicChange::Deleted(topic) => {
                change.touched.push(topic.name.to_string());
                change.deleted.push((topic.name.to_string(), topic.id));
            }
        }
    }
    change
}

fn is_same_for_groups(before: &TopicImage, now: &TopicImage) -> bool {
    let replicas = |topic: &TopicImage| -> Vec<Vec<BrokerId>> {
        topic.partitions.iter().map(|partition| partition.replicas.clone()).collect()
    };
    before.partitions.len() == now.partitions.len() && replicas(before) == replicas(now)
}
