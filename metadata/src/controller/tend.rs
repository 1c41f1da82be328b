//! What the controller does unasked: brokers whose lease has ended are fenced and leave what they held, those that came back
//! are let in, partitions get leaders, reassignments end when those who were added are in sync.
//!
//! ```text
//! registered, fenced ─ lives, and is in no ISR that it may not be in ─► active
//!        ▲                                                               │
//!        └──────────── the lease has ended, or another life registered ──┘
//! ```
//! Every decision compares what it changes with the revision it was decided on, so that two controllers at once do no harm.

use std::collections::HashSet;

use super::{
    Decision,
    in_sync::{Circumstances, with_preferred_leader},
    upkeep::{Rules, Standing, due},
};
use crate::{
    image::{
        BrokerImage, ClusterImage, PartitionImage, TopicImage,
        record::{self, BrokerRecord, Key, PartitionRecord},
    },
    model::{BrokerId, PartitionId, PartitionIndex},
    store::{Expect, Revision},
};

/// Partitions that one decision changes: together they are one transaction of etcd.
const BATCH: usize = 100;

/// Everything that is due. To be called again when the image shows some of it.
pub fn tend(image: &ClusterImage) -> Vec<Decision> {
    let mut batches = Batches::default();
    // Brokers that are still in something they have to leave first.
    let mut held: HashSet<BrokerId> = HashSet::new();
    let standing = |id| standing(image, id);
    let all_have_looked = image.awaited().next().is_none();
    for topic in image.topics().values() {
        let min_in_sync = topic.config.min_insync_replicas as usize;
        let rules = Rules { min_in_sync, unclean: topic.config.unclean_leader_election, all_have_looked };
        for (partition, index) in topic.partitions.iter().zip(0..) {
            let due = due(partition, &standing, rules);
            held.extend(due.held);
            // One thing after the other: the next look shows what is left.
            if let Some(next) = due.next {
                batches.put(topic, index, &next);
            }
        }
    }
    let mut decisions = batches.done();
    for broker in image.brokers().values() {
        decisions.extend(tended_broker(image, broker, held.contains(&broker.id)));
    }
    decisions
}

/// Leaders that are not the preferred ones and could be (`auto.leader.rebalance.enable`).
pub fn prefer_leaders(image: &ClusterImage) -> Vec<Decision> {
    let mut batches = Batches::default();
    let in_service = |id: BrokerId| image.in_service(id).is_some();
    for topic in image.topics().values() {
        let circumstances = circumstances(topic, &in_service);
        for (partition, index) in topic.partitions.iter().zip(0..) {
            if let Some(next) = with_preferred_leader(partition, &circumstances) {
                batches.put(topic, index, &next);
            }
        }
    }
    batches.done()
}

pub(super) fn circumstances<'a>(topic: &TopicImage, is_active: &'a dyn Fn(BrokerId) -> bool) -> Circumstances<'a> {
    let min_in_sync = topic.config.min_insync_replicas as usize;
    Circumstances { is_active, min_in_sync, unclean: topic.config.unclean_leader_election }
}

fn standing(image: &ClusterImage, id: BrokerId) -> Standing {
    if image.in_service(id).is_some() {
        Standing::InService
    } else if image.is_active(id) {
        Standing::Aside
    } else if image.membership().is_distrusted(id) {
        Standing::Distrusted
    } else {
        Standing::Gone
    }
}

fn tended_broker(image: &ClusterImage, broker: &BrokerImage, is_held: bool) -> Option<Decision> {
    let lives = image.membership().live(broker.id) == Some(broker.incarnation);
    let fenced = match (broker.fenced, lives) {
        (false, false) => true,
        (true, true) if !is_held => false,
        _ => return None,
    };
    let mut decision = Decision::default();
    let key = Key::Broker(broker.id);
    expect(&mut decision, &key, image.membership().registered(broker.id));
    decision.put(&key, record::encode(BrokerRecord::of(&BrokerImage { fenced, ..broker.clone() })));
    if !fenced && image.membership().is_distrusted(broker.id) {
        decision.delete(&Key::Distrusted(broker.id));
    }
    Some(decision)
}

pub(super) fn expect(decision: &mut Decision, key: &Key, written: Option<Revision>) {
    decision.transaction.expect.push((key.text(), written.map_or(Expect::Absent, Expect::At)));
}

/// Changes of partitions, as many to a decision as a store takes at once.
#[derive(Default)]
pub(super) struct Batches(Vec<Decision>);

impl Batches {
    pub(super) fn put(&mut self, topic: &TopicImage, index: u32, next: &PartitionImage) {
        if self.0.last().is_none_or(|last| last.transaction.writes.len() >= BATCH) {
            self.0.push(Decision::default());
        }
        let Some(decision) = self.0.last_mut() else { return };
        let key = Key::Partition(PartitionId { topic: topic.id, index: PartitionIndex(index) });
        expect(decision, &key, topic.written.get(index as usize).copied());
        decision.put(&key, record::encode(PartitionRecord::of(next)));
    }

    pub(super) fn done(self) -> Vec<Decision> {
        self.0
    }
}
