//! From a topology and the topics that exist to the internal topics that are needed, and the number of tasks.
//!
//! A repartition topic has as many partitions as the topology says, or else as the largest topic that is read by a
//! subtopology which writes it; topics that are copartitioned are made equal; a changelog has as many as its subtopology has
//! tasks, which is as many as the largest topic that it reads.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    answer::StreamsStatus,
    topology::{InternalTopic, Subtopology, Topology},
};
use crate::coordinator::{GroupError, ModernGroupError, cluster::ClusterView};

/// How many names a status tells.
const NAMES_SHOWN: usize = 3;

/// An internal topic as it is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalTopicPlan {
    /// Its name.
    pub name: String,
    /// At least one.
    pub partitions: u32,
    /// `None` for the broker's default.
    pub replication_factor: Option<i16>,
    /// Settings, by name.
    pub configs: BTreeMap<String, String>,
}

/// A subtopology whose topics are decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConfiguredSubtopology {
    /// At least one.
    pub(super) tasks: u32,
    pub(super) source_topics: BTreeSet<String>,
    pub(super) repartition_sources: BTreeMap<String, InternalTopicPlan>,
    pub(super) repartition_sinks: BTreeSet<String>,
    pub(super) changelogs: BTreeMap<String, InternalTopicPlan>,
}

impl ConfiguredSubtopology {
    pub(super) fn is_stateful(&self) -> bool {
        !self.changelogs.is_empty()
    }

    /// The topics that its tasks read.
    pub(super) fn sources(&self) -> BTreeSet<&str> {
        let external = self.source_topics.iter().map(String::as_str);
        external.chain(self.repartition_sources.keys().map(String::as_str)).collect()
    }
}

/// A topology beside the topics that exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Configured {
    /// By id; empty if its topics do not let it be decided.
    pub(super) subtopologies: BTreeMap<String, ConfiguredSubtopology>,
    /// Topics that still have to be made.
    pub(super) missing: BTreeMap<String, InternalTopicPlan>,
    /// Why no tasks can be assigned; `None` if they can.
    pub(super) problem: Option<StreamsStatus>,
}

impl Configured {
    pub(super) fn is_ready(&self) -> bool {
        self.problem.is_none()
    }
}

/// Decides what the topology comes to.
///
/// # Errors
/// [`ModernGroupError::InvalidTopology`] if no topics that may come would help; [`GroupError::Unexpected`] if it contradicts
/// itself.
pub(super) fn configure(topology: &Topology, cluster: &dyn ClusterView) -> Result<Configured, ModernGroupError> {
    if topology.contradicts_itself() {
        return Err(GroupError::Unexpected.into());
    }
    match Decision::new(topology, cluster).decide() {
        Ok(configured) => Ok(configured),
        Err(Refusal::Topics(problem)) => {
            Ok(Configured { subtopologies: BTreeMap::new(), missing: BTreeMap::new(), problem: Some(problem) })
        }
        Err(Refusal::Topology(error)) => Err(error),
    }
}

/// Why nothing could be decided.
enum Refusal {
    /// Topics are missing or badly partitioned, which may change.
    Topics(StreamsStatus),
    /// It lies in the topology.
    Topology(ModernGroupError),
}

impl Refusal {
    fn partitioning(why: String) -> Refusal {
        Refusal::Topics(StreamsStatus::IncorrectlyPartitionedTopics(why))
    }

    fn topology(why: &str) -> Refusal {
        Refusal::Topology(ModernGroupError::InvalidTopology(why.to_owned()))
    }
}

struct Decision<'a> {
    subtopologies: BTreeMap<&'a str, &'a Subtopology>,
    cluster: &'a dyn ClusterView,
    /// Partitions of internal topics, whether they exist or not.
    decided: BTreeMap<&'a str, u32>,
}

impl<'a> Decision<'a> {
    fn new(topology: &'a Topology, cluster: &'a dyn ClusterView) -> Decision<'a> {
        Decision { subtopologies: topology.by_id(), cluster, decided: BTreeMap::new() }
    }

    fn decide(mut self) -> Result<Configured, Refusal> {
        self.check_source_topics()?;
        self.decide_repartition_topics()?;
        self.copartition()?;
        let tasks = self.decide_changelogs()?;
        let subtopologies: BTreeMap<String, ConfiguredSubtopology> = tasks
            .into_iter()
            .filter_map(|(id, tasks)| Some((id.to_owned(), self.configured(self.subtopologies.get(id)?, tasks))))
            .collect();
        let missing = self.missing_topics(&subtopologies)?;
        let problem = (!missing.is_empty()).then(|| {
            let names = summary(missing.keys().map(String::as_str));
            StreamsStatus::MissingInternalTopics(format!("Internal topics are missing: {names}"))
        });
        Ok(Configured { subtopologies, missing, problem })
    }

    fn check_source_topics(&self) -> Result<(), Refusal> {
        let topics = self.subtopologies.values().flat_map(|subtopology| &subtopology.source_topics);
        let missing: BTreeSet<&str> =
            topics.map(String::as_str).filter(|topic| self.cluster.topic(topic).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names = summary(missing.iter().copied());
        Err(Refusal::Topics(StreamsStatus::MissingSourceTopics(format!("Source topics {names} are missing."))))
    }

    /// Partitions of the topic as it is, or else as it was decided.
    fn partitions_of(&self, topic: &str) -> Option<u32> {
        self.cluster.topic(topic).map(|facts| facts.partitions).or_else(|| self.decided.get(topic).copied())
    }

    fn repartition_sources(&self) -> impl Iterator<Item = &'a InternalTopic> {
        let all: Vec<&'a InternalTopic> =
            self.subtopologies.values().flat_map(|subtopology| &subtopology.repartition_sources).collect();
        all.into_iter()
    }

    fn decide_repartition_topics(&mut self) -> Result<(), Refusal> {
        let mut counts: BTreeMap<&'a str, u32> = BTreeMap::new();
        for topic in self.repartition_sources() {
            if let Some(fixed) = fixed_partitions(topic) {
                counts.insert(&topic.name, fixed);
            }
        }
        let sinks: Vec<(&'a Subtopology, &'a str)> = self
            .subtopologies
            .values()
            .flat_map(|subtopology| subtopology.repartition_sinks.iter().map(|sink| (*subtopology, sink.as_str())))
            .collect();
        // Each round decides at least one topic, or finds that none can be.
        loop {
            let open: Vec<_> = sinks.iter().filter(|(_, sink)| !counts.contains_key(sink)).collect();
            if open.is_empty() {
                break;
            }
            let mut has_decided = false;
            for (subtopology, sink) in open {
                if let Some(largest) = self.largest_source(subtopology, &counts) {
                    counts.entry(*sink).or_insert(largest);
                    has_decided = true;
                }
            }
            if !has_decided {
                return Err(Refusal::topology(
                    "Failed to compute number of partitions for all repartition topics. There may be loops in the \
                     topology that cannot be resolved.",
                ));
            }
        }
        if self.repartition_sources().any(|topic| !counts.contains_key(topic.name.as_str())) {
            return Err(Refusal::topology(
                "Failed to compute number of partitions for all repartition topics, because a repartition source topic \
                 is never used as a sink topic.",
            ));
        }
        self.decided.extend(counts);
        Ok(())
    }

    fn largest_source(&self, subtopology: &Subtopology, counts: &BTreeMap<&str, u32>) -> Option<u32> {
        let internal = subtopology.repartition_sources.iter().filter_map(|topic| counts.get(topic.name.as_str()));
        let external = subtopology.source_topics.iter().filter_map(|topic| self.partitions_of(topic));
        internal.copied().chain(external).max()
    }

    fn copartition(&mut self) -> Result<(), Refusal> {
        let fixed: BTreeSet<&str> = self
            .repartition_sources()
            .filter(|topic| fixed_partitions(topic).is_some())
            .map(|topic| topic.name.as_str())
            .collect();
        let internal: BTreeSet<&'a str> = self.repartition_sources().map(|topic| topic.name.as_str()).collect();
        for subtopology in self.subtopologies.clone().into_values() {
            for group in &subtopology.copartition_groups {
                let topics = subtopology.copartitioned(group).unwrap_or_default();
                if !topics.is_empty() {
                    self.make_equal(&topics, &internal, &fixed)?;
                }
            }
        }
        Ok(())
    }

    /// Gives all repartition topics of a group the number of partitions that its other topics have.
    fn make_equal(
        &mut self,
        topics: &BTreeSet<&'a str>,
        internal: &BTreeSet<&'a str>,
        fixed: &BTreeSet<&'a str>,
    ) -> Result<(), Refusal> {
        let mut made: BTreeMap<&'a str, u32> = BTreeMap::new();
        let mut others: BTreeMap<&'a str, u32> = BTreeMap::new();
        for topic in topics {
            let partitions = self.partitions_of(topic).ok_or(Refusal::Topology(GroupError::Unexpected.into()))?;
            let side = if internal.contains(topic) { &mut made } else { &mut others };
            side.insert(*topic, partitions);
        }
        let partitions = match others.values().next() {
            Some(first) if others.values().all(|partitions| partitions == first) => *first,
            Some(_) => return Err(unequal(&others)),
            // Kafka compares all fixed topics of the topology here, and not only those of the group.
            None if !fixed.is_empty() => {
                let counts: BTreeSet<Option<u32>> = fixed.iter().map(|topic| self.partitions_of(topic)).collect();
                match (counts.len(), counts.first()) {
                    (1, Some(Some(partitions))) => *partitions,
                    _ => return Err(unequal(&made)),
                }
            }
            None => made.values().copied().max().unwrap_or_default(),
        };
        for (topic, own) in &made {
            if fixed.contains(topic) && *own != partitions {
                return Err(Refusal::partitioning(format!(
                    "Number of partitions [{own}] of repartition topic [{topic}] doesn't match number of partitions \
                     [{partitions}] of the source topic."
                )));
            }
        }
        self.decided.extend(made.into_keys().map(|topic| (topic, partitions)));
        Ok(())
    }

    /// Decides the changelogs; returns how many tasks each subtopology has.
    fn decide_changelogs(&mut self) -> Result<BTreeMap<&'a str, u32>, Refusal> {
        let mut tasks = BTreeMap::new();
        for (id, subtopology) in self.subtopologies.clone() {
            let counts: Option<Vec<u32>> = subtopology.sources().map(|topic| self.partitions_of(topic)).collect();
            let counts = counts.ok_or(Refusal::Topology(GroupError::Unexpected.into()))?;
            let Some(largest) = counts.into_iter().max() else {
                return Err(Refusal::topology(&format!("No source topics found for subtopology {id}")));
            };
            tasks.insert(id, largest);
        }
        for (id, count) in &tasks {
            let changelogs = self.subtopologies.get(id).into_iter().flat_map(|subtopology| &subtopology.changelogs);
            let decided: Vec<(&'a str, u32)> = changelogs.map(|topic| (topic.name.as_str(), *count)).collect();
            self.decided.extend(decided);
        }
        Ok(tasks)
    }

    fn configured(&self, subtopology: &Subtopology, tasks: u32) -> ConfiguredSubtopology {
        let plans = |topics: &[InternalTopic]| -> BTreeMap<String, InternalTopicPlan> {
            topics.iter().map(|topic| (topic.name.clone(), self.plan(topic))).collect()
        };
        ConfiguredSubtopology {
            tasks,
            source_topics: subtopology.source_topics.iter().cloned().collect(),
            repartition_sources: plans(&subtopology.repartition_sources),
            repartition_sinks: subtopology.repartition_sinks.iter().cloned().collect(),
            changelogs: plans(&subtopology.changelogs),
        }
    }

    fn plan(&self, topic: &InternalTopic) -> InternalTopicPlan {
        let decided = self.decided.get(topic.name.as_str()).copied().unwrap_or_default();
        InternalTopicPlan {
            name: topic.name.clone(),
            partitions: fixed_partitions(topic).unwrap_or(decided),
            replication_factor: Some(topic.replication_factor).filter(|factor| *factor != 0),
            configs: topic.configs.iter().cloned().collect(),
        }
    }

    /// Internal topics that do not exist.
    fn missing_topics(
        &self,
        subtopologies: &BTreeMap<String, ConfiguredSubtopology>,
    ) -> Result<BTreeMap<String, InternalTopicPlan>, Refusal> {
        let mut missing = BTreeMap::new();
        let internal = subtopologies
            .values()
            .flat_map(|subtopology| subtopology.repartition_sources.values().chain(subtopology.changelogs.values()));
        for topic in internal {
            match self.cluster.topic(&topic.name) {
                None => drop(missing.insert(topic.name.clone(), topic.clone())),
                Some(facts) if facts.partitions == topic.partitions => {}
                Some(facts) => {
                    return Err(Refusal::partitioning(format!(
                        "Existing topic {} has different number of partitions: expected {}, found {}",
                        topic.name, topic.partitions, facts.partitions
                    )));
                }
            }
        }
        Ok(missing)
    }
}

/// How many partitions the topology itself asks for.
fn fixed_partitions(topic: &InternalTopic) -> Option<u32> {
    u32::try_from(topic.partitions).ok().filter(|partitions| *partitions > 0)
}

fn unequal(topics: &BTreeMap<&str, u32>) -> Refusal {
    let listed: Vec<String> = topics.iter().map(|(topic, partitions)| format!("{topic}={partitions}")).collect();
    Refusal::partitioning(format!(
        "Following topics do not have the same number of partitions: [{{{}}}]",
        listed.join(", ")
    ))
}

fn summary<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(NAMES_SHOWN).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMES_SHOWN) {
        Some(more) if more > 0 => format!("{shown} and {more} additional topics"),
        _ => shown,
    }
}
