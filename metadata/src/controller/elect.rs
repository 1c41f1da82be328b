//! Elections that an administrator asks for (KIP-183, KIP-460).

use super::{
    Decision,
    in_sync::{Circumstances, with_leader, with_preferred_leader},
    recovery::with_recovered,
    tend::circumstances,
};
use crate::{
    image::{
        ClusterImage, PartitionImage,
        record::{self, Key, PartitionRecord},
    },
    model::{BrokerId, PartitionId, PartitionIndex},
};

/// Who may become leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The preferred replica, if it is in sync.
    Preferred,
    /// Any replica that lives, where there is no leader: acknowledged records may be lost.
    Unclean,
}

/// Why no leader was elected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectError {
    /// There is no such topic.
    #[error("No such topic as {0}")]
    UnknownTopic(String),
    /// It has no such partition.
    #[error("No such partition as {topic}-{index}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        index: i32,
    },
    /// The right one leads.
    #[error("Leader election not needed for topic partition.")]
    NotNeeded,
    /// The preferred replica is gone, or not in sync.
    #[error("The preferred leader was not available.")]
    PreferredNotAvailable,
    /// No replica lives.
    #[error("Eligible topic partition leaders are not available.")]
    NoneEligible,
}

/// Elects leaders of partitions, as asked by topic and number: one result for each, in order.
pub fn elect_leaders(
    image: &ClusterImage,
    election: Election,
    asked: &[(String, i32)],
) -> (Vec<Result<(), ElectError>>, Decision) {
    let mut decision = Decision::default();
    let mut seen = std::collections::HashSet::new();
    let results = asked
        .iter()
        .map(|(name, index)| {
            let (id, next) = elect(image, election, name, *index)?;
            if seen.insert(id) {
                decision.put(&Key::Partition(id), record::encode(PartitionRecord::of(&next)));
                decision.rewrites.push(Key::Partition(id));
            }
            Ok(())
        })
        .collect();
    (results, decision)
}

fn elect(
    image: &ClusterImage,
    election: Election,
    name: &str,
    index: i32,
) -> Result<(PartitionId, PartitionImage), ElectError> {
    let topic = image.topic(name).ok_or_else(|| ElectError::UnknownTopic(name.to_owned()))?;
    let found = PartitionIndex::from_wire(index).and_then(|index| topic.partition(index));
    let (id, now) = found.ok_or_else(|| ElectError::UnknownPartition { topic: name.to_owned(), index })?;
    match election {
        Election::Preferred if now.leader.is_some() && now.leader.as_ref() == now.replicas.first() => {
            Err(ElectError::NotNeeded)
        }
        Election::Unclean if now.leader.is_some() => Err(ElectError::NotNeeded),
        Election::Preferred => {
            let in_service = |id: BrokerId| image.in_service(id).is_some();
            let next = with_preferred_leader(now, &circumstances(topic, &in_service));
            next.map(|next| (id, next)).ok_or(ElectError::PreferredNotAvailable)
        }
        Election::Unclean => {
            let is_active = |id: BrokerId| image.is_active(id);
            let min_in_sync = topic.config.min_insync_replicas as usize;
            let circumstances = Circumstances { is_active: &is_active, min_in_sync, unclean: true };
            // Who has every committed record comes first all the same (KIP-966).
            let next = with_leader(now, &circumstances).or_else(|| with_recovered(now, &circumstances, true));
            next.map(|next| (id, next)).ok_or(ElectError::NoneEligible)
        }
    }
}
