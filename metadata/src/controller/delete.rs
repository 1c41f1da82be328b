//! Deletion of topics.

use super::Decision;
use crate::{
    image::{
        ClusterImage,
        record::{self, DeletedTopicRecord, Key},
    },
    model::{PartitionId, PartitionIndex, TopicId},
    store::Revision,
};

/// Deleted topics that are remembered, at most: some hundred bytes each. Whoever sweeps the archive forgets them once nothing of
/// them is left there; where nothing is archived, nobody does.
const MAX_REMEMBERED: usize = 10_000;

/// Deletes topics; `false` for one that does not exist. Each id is given once. That they were deleted is remembered: what an archive
/// has of a topic that is merely missing is kept.
pub fn delete_topics(image: &ClusterImage, ids: &[TopicId]) -> (Vec<bool>, Decision) {
    let mut decision = Decision::default();
    let results: Vec<bool> = ids
        .iter()
        .map(|id| {
            let Some(topic) = image.topic_by_id(*id) else { return false };
            decision.put(&Key::DeletedTopic(*id), record::encode(DeletedTopicRecord { name: topic.name.clone() }));
            decision.rewrites.push(Key::Topic(*id));
            decision.delete(&Key::Topic(*id));
            decision.delete(&Key::TopicName(topic.name.clone()));
            for index in 0..topic.partitions.len() as u32 {
                let partition = PartitionId { topic: *id, index: PartitionIndex(index) };
                decision.delete(&Key::Partition(partition));
            }
            true
        })
        .collect();
    let added = results.iter().filter(|deleted| **deleted).count();
    for id in oldest(image, MAX_REMEMBERED.saturating_sub(added)) {
        decision.delete(&Key::DeletedTopic(id));
    }
    (results, decision)
}

/// Deleted topics beyond the newest `kept`.
fn oldest(image: &ClusterImage, kept: usize) -> Vec<TopicId> {
    let surplus = image.deleted_topics().len().saturating_sub(kept);
    if surplus == 0 {
        return Vec::new();
    }
    let mut by_age: Vec<(Revision, TopicId)> = image.deleted_topics().iter().map(|(id, at)| (*at, *id)).collect();
    by_age.sort_unstable();
    by_age.into_iter().take(surplus).map(|(_, id)| id).collect()
}
