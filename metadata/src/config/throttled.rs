//! Which replicas copy at a limited rate (KIP-73).

use std::collections::BTreeSet;

use super::value::ConfigValue;
use crate::model::{BrokerId, PartitionIndex};

/// The replicas of a topic that `leader.replication.throttled.replicas` or `follower.replication.throttled.replicas` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// `*`: of every partition, on every broker.
    All,
    /// These, as partition and broker.
    Listed(BTreeSet<(u32, u32)>),
}

impl ThrottledReplicas {
    /// Reads `partition:broker` pairs; what is none was refused before.
    pub(super) fn of(value: Option<ConfigValue>) -> ThrottledReplicas {
        let Some(ConfigValue::List(words)) = value else { return ThrottledReplicas::Listed(BTreeSet::new()) };
        if words == ["*"] {
            return ThrottledReplicas::All;
        }
        let pair = |word: &String| {
            let (partition, broker) = word.split_once(':')?;
            Some((partition.trim().parse().ok()?, broker.trim().parse().ok()?))
        };
        ThrottledReplicas::Listed(words.iter().filter_map(pair).collect())
    }

    /// Whether the replica of that partition on `broker` is one of them.
    pub fn contains(&self, partition: PartitionIndex, broker: BrokerId) -> bool {
        match self {
            ThrottledReplicas::All => true,
            ThrottledReplicas::Listed(replicas) => replicas.contains(&(partition.0, broker.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_named_by_partition_and_broker_or_all_at_once() {
        let of = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            ThrottledReplicas::of(Some(ConfigValue::List(words)))
        };
        let (one, two) = ((PartitionIndex(0), BrokerId(1)), (PartitionIndex(1), BrokerId(0)));
        let listed = of(&["0:1", " 7 : 2"]);
        assert!(listed.contains(one.0, one.1) && listed.contains(PartitionIndex(7), BrokerId(2)));
        assert!(!listed.contains(two.0, two.1));
        assert!(of(&["*"]).contains(two.0, two.1));
        assert!(!of(&[]).contains(one.0, one.1) && !ThrottledReplicas::of(None).contains(one.0, one.1));
    }
}
