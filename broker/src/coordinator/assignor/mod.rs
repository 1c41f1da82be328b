//! Who reads which partitions: the assignors of consumer groups that run in the coordinator (KIP-848).
//!
//! Both are pure and deterministic. Whatever they are given, they hold to: a partition has one owner at most, an owner is
//! subscribed to the topic, and every partition that somebody is subscribed to has an owner.
//!
//! | Assignor | First | Then |
//! |---|---|---|
//! | `uniform` | members have the same number of partitions, give or take one | a partition stays where it is |
//! | `range` | of every topic a member has neighbouring partitions, of equal topics the same ones | static members keep their place |

mod mixed;
mod range;
mod shared;
#[cfg(test)]
mod tests;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::{PartitionIndex, TopicId};

pub use shared::share;

/// Some partitions, by topic.
pub type PartitionSet = BTreeMap<TopicId, BTreeSet<PartitionIndex>>;

/// An assignor, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Balanced and sticky.
    Uniform,
    /// Neighbouring partitions, and the same ones of equal topics.
    Range,
}

/// A member, as an assignor sees it.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    /// Static membership (KIP-345).
    pub instance_id: Option<String>,
    /// The topics that it subscribes to and that exist.
    pub topics: BTreeSet<TopicId>,
    /// What it was meant to have until now.
    pub target: PartitionSet,
}

/// What is to be divided among whom.
#[derive(Clone, Debug, Default)]
pub struct Division {
    /// By member id.
    pub members: BTreeMap<String, Candidate>,
    /// Partitions of every topic that a member subscribes to.
    pub topics: BTreeMap<TopicId, u32>,
}

impl Assignor {
    /// Its name in settings and requests.
    pub const fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// `None` for a name that is none of ours.
    pub fn from_name(name: &str) -> Option<Assignor> {
        [Assignor::Uniform, Assignor::Range].into_iter().find(|assignor| assignor.name() == name)
    }

    /// What every member shall have, members without partitions included.
    pub fn assign(self, division: &Division) -> BTreeMap<String, PartitionSet> {
        match self {
            Assignor::Range => range::assign(division),
            Assignor::Uniform if division.is_homogeneous() => uniform::assign(division),
            Assignor::Uniform => mixed::assign(division),
        }
    }
}

impl Division {
    /// Whether all members subscribe to the same topics.
    fn is_homogeneous(&self) -> bool {
        let mut members = self.members.values();
        let first = members.next();
        members.all(|member| Some(&member.topics) == first.map(|first| &first.topics))
    }

    fn partitions(&self, topic: TopicId) -> u32 {
        self.topics.get(&topic).copied().unwrap_or(0)
    }
}
