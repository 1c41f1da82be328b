//! Offsets committed in transactions that have not ended yet (KIP-98): nobody sees them, and no restart loses them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use varve_metadata::model::{Offset, PartitionIndex, ProducerId};

use super::{CommittedOffset, records::OffsetKey};

/// Partitions of one group with the producers whose open transactions commit an offset for them.
type OpenPartitions = BTreeMap<(String, PartitionIndex), BTreeSet<ProducerId>>;

/// What open transactions will have committed if they commit.
///
/// The last record of the log wins, whenever its transaction ends: what becomes the committed offset takes older pending
/// ones of the same partition with it. Their transactions stay open for it all the same.
#[derive(Debug, Default)]
pub(super) struct OpenCommits {
    by_producer: HashMap<ProducerId, BTreeMap<OffsetKey, Pending>>,
    by_group: HashMap<String, OpenPartitions>,
}

#[derive(Debug)]
struct Pending {
    /// Where the log has it.
    record: Offset,
    /// `None`: a newer record of the partition counts in its place.
    offset: Option<CommittedOffset>,
}

/// An offset that became the committed one, and where the log has it.
#[derive(Debug, PartialEq)]
pub(super) struct Settled {
    pub(super) key: OffsetKey,
    pub(super) record: Offset,
    pub(super) offset: CommittedOffset,
}

impl OpenCommits {
    pub(super) fn add(&mut self, producer: ProducerId, key: OffsetKey, record: Offset, offset: CommittedOffset) {
        let partitions = self.by_group.entry(key.group.clone()).or_default();
        partitions.entry((key.topic.clone(), key.partition)).or_default().insert(producer);
        let pending = Pending { record, offset: Some(offset) };
        self.by_producer.entry(producer).or_default().insert(key, pending);
    }

    /// The transaction of `producer` ended; what it would have committed.
    pub(super) fn end(&mut self, producer: ProducerId) -> Vec<Settled> {
        let mut settled = Vec::new();
        for (key, Pending { record, offset }) in self.by_producer.remove(&producer).unwrap_or_default() {
            self.close(&key, Some(producer));
            settled.extend(offset.map(|offset| Settled { key, record, offset }));
        }
        settled
    }

    /// The record at `record` is the committed offset of `key`: older ones do not count any more.
    pub(super) fn supersede(&mut self, key: &OffsetKey, record: Offset) {
        let Some(partitions) = self.by_group.get(&key.group) else { return };
        let Some(producers) = partitions.get(&(key.topic.clone(), key.partition)) else { return };
        for producer in producers {
            let pending = self.by_producer.get_mut(producer).and_then(|keys| keys.get_mut(key));
            if let Some(pending) = pending.filter(|pending| pending.record < record) {
                pending.offset = None;
            }
        }
    }

    /// The offset of `key` is deleted, whoever committed it.
    pub(super) fn remove(&mut self, key: &OffsetKey) {
        for producer in self.close(key, None) {
            if let Some(keys) = self.by_producer.get_mut(&producer) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_producer.remove(&producer);
                }
            }
        }
    }

    /// Forgets that `producer`, or everybody, has a transaction open for `key`; returns who had.
    fn close(&mut self, key: &OffsetKey, producer: Option<ProducerId>) -> BTreeSet<ProducerId> {
        let Some(partitions) = self.by_group.get_mut(&key.group) else { return BTreeSet::new() };
        let place = (key.topic.clone(), key.partition);
        let Some(producers) = partitions.get_mut(&place) else { return BTreeSet::new() };
        let closed = match producer {
            Some(producer) => producers.take(&producer).into_iter().collect(),
            None => std::mem::take(producers),
        };
        if producers.is_empty() {
            partitions.remove(&place);
        }
        if partitions.is_empty() {
            self.by_group.remove(&key.group);
        }
        closed
    }

    /// Whether a transaction that would change the group's offsets is open.
    pub(super) fn concern_group(&self, group: &str) -> bool {
        self.by_group.contains_key(group)
    }

    /// Whether a transaction that would change this offset is open.
    pub(super) fn concern(&self, key: &OffsetKey) -> bool {
        let partitions = self.by_group.get(&key.group);
        partitions.is_some_and(|partitions| partitions.contains_key(&(key.topic.clone(), key.partition)))
    }

    /// The offsets of `group` that open transactions would change.
    pub(super) fn keys_of(&self, group: &str) -> impl Iterator<Item = OffsetKey> {
        let places = self.by_group.get(group).into_iter().flat_map(BTreeMap::keys);
        places.map(move |(topic, partition)| OffsetKey {
            group: group.to_owned(),
            topic: topic.clone(),
            partition: *partition,
        })
    }

    /// Every offset that an open transaction would change, with what it would become.
    pub(super) fn all(&self) -> impl Iterator<Item = (&OffsetKey, &CommittedOffset)> {
        let pending = self.by_producer.values().flatten();
        pending.filter_map(|(key, pending)| pending.offset.as_ref().map(|offset| (key, offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::testing::committed_offset;

    fn key(partition: u32) -> OffsetKey {
        OffsetKey { group: "g".into(), topic: "t".into(), partition: PartitionIndex(partition) }
    }

    fn at(offset: u64) -> Offset {
        Offset::new(offset).unwrap()
    }

    fn producer(id: i64) -> ProducerId {
        ProducerId::from_wire(id).unwrap()
    }

    #[test]
    fn the_last_record_of_the_log_wins_whenever_its_transaction_ends() {
        let mut open = OpenCommits::default();
        open.add(producer(1), key(0), at(3), committed_offset(30));
        open.add(producer(2), key(0), at(5), committed_offset(50));
        let settled = open.end(producer(2));
        assert_eq!(settled.len(), 1);
        open.supersede(&key(0), settled[0].record);
        assert!(open.concern(&key(0)), "the older transaction is still open");
        assert_eq!(open.end(producer(1)), []);
        assert!(!open.concern_group("g"));
    }

    #[test]
    fn an_offset_deleted_takes_pending_ones_with_it() {
        let mut open = OpenCommits::default();
        open.add(producer(1), key(0), at(3), committed_offset(30));
        open.add(producer(1), key(1), at(4), committed_offset(40));
        open.remove(&key(0));
        assert!(!open.concern(&key(0)) && open.concern(&key(1)));
        let settled: Vec<OffsetKey> = open.end(producer(1)).into_iter().map(|settled| settled.key).collect();
        assert_eq!(settled, [key(1)]);
    }
}
