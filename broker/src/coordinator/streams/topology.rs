//! What an application says of itself: its subtopologies, the topics they read, and the topics that it needs made.

use std::collections::{BTreeMap, BTreeSet};

/// The topology of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Never negative. Kafka 4.3's clients always say 0: a topology does not change yet.
    pub epoch: i32,
    /// In the order of the request that brought them: the record keeps it.
    pub subtopologies: Vec<Subtopology>,
}

/// Operators that work on the same partitions together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subtopology {
    /// Its name within the topology.
    pub id: String,
    /// Topics that it reads and others make.
    pub source_topics: Vec<String>,
    /// Patterns of such topics; refused by the coordinator, and kept where a record has them.
    pub source_topic_regexes: Vec<String>,
    /// Topics that keep its state.
    pub changelogs: Vec<InternalTopic>,
    /// Repartition topics that it writes.
    pub repartition_sinks: Vec<String>,
    /// Repartition topics that it reads.
    pub repartition_sources: Vec<InternalTopic>,
    /// Which of its topics must have equally many partitions.
    pub copartition_groups: Vec<CopartitionGroup>,
}

/// A topic that is made for the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InternalTopic {
    /// Its name.
    pub name: String,
    /// 0 if others decide how many; always so for changelogs.
    pub partitions: i32,
    /// 0 for the broker's default.
    pub replication_factor: i16,
    /// Settings, in the order of the request.
    pub configs: Vec<(String, String)>,
}

/// Topics with equally many partitions, by their places in the subtopology's lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopartitionGroup {
    /// In [`Subtopology::source_topics`].
    pub source_topics: Vec<i16>,
    /// In [`Subtopology::source_topic_regexes`].
    pub source_topic_regexes: Vec<i16>,
    /// In [`Subtopology::repartition_sources`].
    pub repartition_sources: Vec<i16>,
}

impl Topology {
    /// Every topic that a task reads or keeps its state in.
    pub(in crate::coordinator) fn required_topics(&self) -> BTreeSet<String> {
        let of = |subtopology: &Subtopology| {
            let sources = subtopology.sources().map(str::to_owned);
            sources.chain(subtopology.changelogs.iter().map(|topic| topic.name.clone())).collect::<Vec<_>>()
        };
        self.subtopologies.iter().flat_map(of).collect()
    }

    pub(super) fn requires(&self, topic: &str) -> bool {
        self.subtopologies.iter().any(|subtopology| {
            subtopology.sources().any(|source| source == topic)
                || subtopology.changelogs.iter().any(|changelog| changelog.name == topic)
        })
    }

    /// The subtopology that reads the topic; the last one where several do.
    pub(super) fn reader_of(&self, topic: &str) -> Option<&Subtopology> {
        self.by_id().into_values().rfind(|subtopology| subtopology.sources().any(|source| source == topic))
    }

    /// Subtopologies in the order of their ids. Of two with one id, the last.
    pub(super) fn by_id(&self) -> BTreeMap<&str, &Subtopology> {
        self.subtopologies.iter().map(|subtopology| (subtopology.id.as_str(), subtopology)).collect()
    }

    /// Whether it is the same topology, in whatever order its subtopologies come.
    pub(super) fn is_same_as(&self, other: &Topology) -> bool {
        self.epoch == other.epoch && self.by_id() == other.by_id()
    }

    /// Whether it cannot be told apart from others, or its parts from one another.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.epoch < 0 || self.by_id().len() != self.subtopologies.len()
    }

    /// Whether something in it is named twice where a name may stand once, or points to nothing.
    pub(super) fn contradicts_itself(&self) -> bool {
        self.is_ambiguous() || self.subtopologies.iter().any(Subtopology::contradicts_itself)
    }

    /// All its names, to be checked for their length.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.subtopologies.iter().flat_map(|subtopology| {
            let topics = subtopology.changelogs.iter().chain(&subtopology.repartition_sources);
            let settings = topics.clone().flat_map(|topic| topic.configs.iter().flat_map(|(key, value)| [key, value]));
            let of_topics = topics.map(|topic| &topic.name);
            [&subtopology.id]
                .into_iter()
                .chain(&subtopology.source_topics)
                .chain(&subtopology.repartition_sinks)
                .chain(of_topics)
                .chain(settings)
        })
    }
}

impl Subtopology {
    /// The topics that its tasks read.
    pub(super) fn sources(&self) -> impl Iterator<Item = &str> {
        let external = self.source_topics.iter().map(String::as_str);
        external.chain(self.repartition_sources.iter().map(|topic| topic.name.as_str()))
    }

    fn contradicts_itself(&self) -> bool {
        let is_repeated = |topics: &[InternalTopic]| {
            topics.iter().map(|topic| &topic.name).collect::<BTreeSet<_>>().len() != topics.len()
        };
        let repeats_setting = |topic: &InternalTopic| {
            topic.configs.iter().map(|(key, _)| key).collect::<BTreeSet<_>>().len() != topic.configs.len()
        };
        let all = self.changelogs.iter().chain(&self.repartition_sources);
        is_repeated(&self.changelogs)
            || is_repeated(&self.repartition_sources)
            || all.clone().any(repeats_setting)
            || all.clone().any(|topic| topic.partitions < 0)
            || self.copartition_groups.iter().any(|group| self.copartitioned(group).is_none())
    }

    /// The topics of a group; `None` if a place in it is none.
    pub(super) fn copartitioned(&self, group: &CopartitionGroup) -> Option<BTreeSet<&str>> {
        let external = group.source_topics.iter().map(|place| {
            let place = usize::try_from(*place).ok()?;
            self.source_topics.get(place).map(String::as_str)
        });
        let internal = group.repartition_sources.iter().map(|place| {
            let place = usize::try_from(*place).ok()?;
            self.repartition_sources.get(place).map(|topic| topic.name.as_str())
        });
        external.chain(internal).collect()
    }
}
