//! Brokers that come back with another log directory than the one that was counted on: a disk was replaced, or is not mounted
//! (KIP-858, KIP-966).
//!
//! ```text
//! registered with directories [x] ─ its disk is lost ─► begins its next life with [y]
//!    1. registered anew: another life, fenced, still with [x], without a lease: nobody lets it in or takes it into an ISR
//!    2. its replicas that lay in x are emptied: in neither ISR nor ELR, and not the last leader any more
//!    3. registered with [y] and a lease: let in, follows, catches up
//! a later life begins with [x] again ─► where nobody has led meanwhile, it leads with what it has there
//! ```
//! A process that ends before 3 begins again at 1, since what is registered says still which directories are missing. The broker
//! itself does 2 by these rules, as with a directory that fails ([`offline_replicas`](super::offline_replicas)): only it knows
//! which log was where. A controller of an older version needs to know nothing of it.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::{
    Decision,
    in_sync::{with_emptied, with_found},
    tend::{Batches, circumstances, expect},
};
use crate::{
    image::{BrokerImage, ClusterImage, PartitionImage, TopicImage, record::Key},
    model::{BrokerId, PartitionId, PartitionIndex, TopicName},
};

/// The logs with which a life of a broker begins, before it opens or makes any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundLogs {
    /// Ids of its log directories that can be read.
    pub dirs: BTreeSet<String>,
    /// Those of them that had no id before: whatever is in them was not put there under another one.
    pub new_dirs: BTreeSet<String>,
    /// Another directory cannot be read, and nobody knows what is in it.
    pub some_failed: bool,
    /// In which of the directories a partition has a log: as a rule in one.
    pub logs: HashMap<PartitionId, Vec<String>>,
}

impl FoundLogs {
    /// The directories to be registered after those of `before`. One that cannot be read is still counted on.
    pub fn registered_after(&self, before: Option<&BrokerImage>) -> BTreeSet<String> {
        let known = before.filter(|_| self.some_failed).map(|before| &before.log_dir_ids);
        self.dirs.iter().chain(known.into_iter().flatten()).cloned().collect()
    }

    /// Whether logs may be missing that the broker had in the life of `before`.
    pub fn may_lack_logs(&self, before: &BrokerImage) -> bool {
        self.lost_its_dir(before) || self.dirs.iter().any(|dir| !self.is_trusted(dir, before))
    }

    /// A directory that was counted on is not there. A version before this one registered none: then one that is new took the
    /// place of another, or was added.
    fn lost_its_dir(&self, before: &BrokerImage) -> bool {
        match before.log_dir_ids.is_empty() {
            true => !self.new_dirs.is_empty(),
            false => self.missing(before).next().is_some(),
        }
    }

    fn missing<'a>(&'a self, before: &'a BrokerImage) -> impl Iterator<Item = &'a String> {
        before.log_dir_ids.iter().filter(|dir| !self.dirs.contains(*dir))
    }

    /// Whether logs in it are those that were counted on, and not those of another time.
    fn is_trusted(&self, dir: &str, before: &BrokerImage) -> bool {
        before.log_dir_ids.is_empty() || before.log_dir_ids.contains(dir) || self.new_dirs.contains(dir)
    }

    /// Whether the log that the broker had of a partition is not here.
    fn lacks(&self, id: PartitionId, before: &BrokerImage) -> bool {
        match self.logs.get(&id) {
            Some(dirs) => !dirs.iter().any(|dir| self.is_trusted(dir, before)),
            // With a directory that failed it is offline, which the broker tells by itself.
            None => !self.some_failed && self.lost_its_dir(before),
        }
    }
}

/// What the cluster is to be told of logs that are gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmptiedReplicas {
    /// Each is independent of the others.
    pub decisions: Vec<Decision>,
    /// Partitions that nobody leads after that: only the log that is gone is known to have all that was acknowledged.
    pub leaderless: Vec<(TopicName, PartitionIndex)>,
}

/// What there is to tell before `node` counts as alive in its present `life`, which began with the logs `found`; `before` is what it
/// had registered in the one before. `None`: another life has registered.
pub fn emptied_replicas(
    image: &ClusterImage,
    (node, life): (BrokerId, Uuid),
    before: &BrokerImage,
    found: &FoundLogs,
) -> Option<EmptiedReplicas> {
    image.brokers().get(&node).filter(|broker| broker.incarnation == life && broker.fenced)?;
    let dirs: Vec<String> = found.missing(before).cloned().collect();
    let in_service = |id: BrokerId| image.in_service(id).is_some();
    let (mut batches, mut leaderless) = (Batches::default(), Vec::new());
    for (topic, index, partition) in replicas_of(image, node) {
        let id = PartitionId { topic: topic.id, index: PartitionIndex(index) };
        // In recovery a log counts wherever it lies: what is registered is as old as the rest of the backup.
        if !found.lacks(id, before) || partition.recovery.is_some() && found.logs.contains_key(&id) {
            continue;
        }
        if let Some(next) = with_emptied(partition, node, &dirs, &circumstances(topic, &in_service)) {
            batches.put(topic, index, &next);
            if next.leader.is_none() {
                leaderless.push((topic.name.clone(), id.index));
            }
        }
    }
    Some(EmptiedReplicas { decisions: of_this_life(image, node, batches), leaderless })
}

/// What there is to tell once `node` was let in with logs that it was missing in a life before. Nothing, if another life has registered.
pub fn returned_replicas(image: &ClusterImage, (node, life): (BrokerId, Uuid), found: &FoundLogs) -> Vec<Decision> {
    let broker = image.brokers().get(&node).filter(|broker| broker.incarnation == life && !broker.fenced);
    if broker.is_none() {
        return Vec::new();
    }
    let in_service = |id: BrokerId| image.in_service(id).is_some();
    let mut batches = Batches::default();
    for (topic, index, partition) in replicas_of(image, node) {
        let id = PartitionId { topic: topic.id, index: PartitionIndex(index) };
        let circumstances = circumstances(topic, &in_service);
        let mut dirs = found.logs.get(&id).into_iter().flatten();
        if let Some(next) = dirs.find_map(|dir| with_found(partition, node, dir, &circumstances)) {
            batches.put(topic, index, &next);
        }
    }
    of_this_life(image, node, batches)
}

fn replicas_of(image: &ClusterImage, node: BrokerId) -> impl Iterator<Item = (&TopicImage, u32, &PartitionImage)> {
    let topics = image.topics().values();
    let all = topics.flat_map(|topic| topic.partitions.iter().zip(0..).map(move |(now, index)| (&**topic, index, now)));
    all.filter(move |(_, _, partition)| partition.replicas.contains(&node))
}

/// None of them counts once the broker has registered anew.
fn of_this_life(image: &ClusterImage, node: BrokerId, batches: Batches) -> Vec<Decision> {
    let mut decisions = batches.done();
    for decision in &mut decisions {
        expect(decision, &Key::Broker(node), image.membership().registered(node));
    }
    decisions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicId;

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(ToString::to_string).collect()
    }

    fn before(dirs: &[&str]) -> BrokerImage {
        BrokerImage { log_dir_ids: ids(dirs), ..BrokerImage::default() }
    }

    /// With a log of the first partition in `dir`.
    fn found(dirs: &[&str], new_dirs: &[&str], dir: &str) -> FoundLogs {
        let logs = HashMap::from([(partition(0), vec![dir.to_owned()])]);
        FoundLogs { dirs: ids(dirs), new_dirs: ids(new_dirs), some_failed: false, logs }
    }

    fn partition(index: u32) -> PartitionId {
        PartitionId { topic: TopicId::from_wire(Uuid::from_u128(100)).unwrap(), index: PartitionIndex(index) }
    }

    /// Which of two partitions it lacks, of which it has a log of the first.
    fn lacks(found: &FoundLogs, before: &BrokerImage) -> [bool; 2] {
        let lacks = [0, 1].map(|index| found.lacks(partition(index), before));
        assert!(found.may_lack_logs(before) || lacks == [false, false], "{found:?} {before:?}");
        lacks
    }

    #[test]
    fn a_log_is_gone_with_its_directory_and_not_because_it_was_never_made() {
        assert_eq!(lacks(&found(&["a"], &[], "a"), &before(&["a"])), [false, false]);
        assert_eq!(lacks(&found(&["a", "b"], &["b"], "a"), &before(&["a"])), [false, false], "one more");
        assert_eq!(lacks(&found(&["a", "c"], &["c"], "a"), &before(&["a", "b"])), [false, true], "another one");
        assert_eq!(lacks(&found(&["a"], &[], "a"), &before(&["a", "b"])), [false, true], "one less");
    }

    #[test]
    fn a_log_in_a_directory_of_another_time_is_not_the_one_that_is_counted_on() {
        assert_eq!(lacks(&found(&["x"], &[], "x"), &before(&["a"])), [true, true]);
        // Somebody put it there, without what says whose directory it is.
        assert_eq!(lacks(&found(&["x"], &["x"], "x"), &before(&["a"])), [false, true]);
    }

    #[test]
    fn what_may_be_in_a_directory_that_failed_is_not_gone_and_still_counted_on_later() {
        let failed = FoundLogs { some_failed: true, ..found(&["a"], &[], "a") };
        assert_eq!(lacks(&failed, &before(&["a", "b"])), [false, false]);
        let registered = failed.registered_after(Some(&before(&["a", "b"])));
        assert_eq!(registered, ids(&["a", "b"]));
        let replaced = found(&["a", "c"], &["c"], "a");
        assert_eq!(lacks(&replaced, &before(&["a", "b"])), [false, true]);
        assert_eq!(replaced.registered_after(Some(&before(&["a", "b"]))), ids(&["a", "c"]));
    }

    #[test]
    fn of_a_version_that_registered_no_directories_a_new_one_tells_that_another_is_gone() {
        assert_eq!(lacks(&found(&["a"], &[], "a"), &before(&[])), [false, false]);
        assert_eq!(lacks(&found(&["a", "b"], &["b"], "a"), &before(&[])), [false, true]);
    }
}
