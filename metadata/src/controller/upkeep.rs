//! What is due for one partition: who is gone leaves it, somebody leads it, its move ends.

use super::{
    in_sync::{Circumstances, with_leader, without_broker, without_trust_in},
    moving::completed,
    recovery::with_recovered,
};
use crate::{image::PartitionImage, model::BrokerId};

/// How a broker stands with the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may lead and be in sync.
    InService,
    /// It lives, and is about to stop or has a full disk: others are to lead.
    Aside,
    /// It is fenced, or nobody knows it.
    Gone,
    /// It is fenced, and may have lost records before its present life.
    Distrusted,
}

/// What decides beside the partition itself.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The topic's `min.insync.replicas`.
    pub min_in_sync: usize,
    /// The topic allows that records are lost by an election.
    pub unclean: bool,
    /// Every broker that a restored state knows has looked for logs that it does not know of: nobody comes with another one, unless it
    /// is a broker that the state does not know either.
    pub all_have_looked: bool,
}

/// What is due for a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The partition as it is to be; `None`: it stays as it is.
    pub next: Option<PartitionImage>,
    /// Brokers that have to leave something: before, they are not to be let in.
    pub held: Vec<BrokerId>,
}

/// What is due for `partition`. One thing after the other: to be asked again when it is done.
pub fn due(partition: &PartitionImage, standing: &dyn Fn(BrokerId) -> Standing, rules: Rules) -> Due {
    let in_service = |id: BrokerId| standing(id) == Standing::InService;
    let Rules { min_in_sync, unclean, all_have_looked } = rules;
    let circumstances = Circumstances { is_active: &in_service, min_in_sync, unclean };
    let mut due = tended(partition, standing, &circumstances);
    if due.next.is_none() && all_have_looked {
        due.next = with_recovered(partition, &circumstances, false);
    }
    due.next = due.next.or_else(|| completed(partition, &circumstances));
    due
}

/// The partition without brokers that are not active, and with a leader.
fn tended(
    partition: &PartitionImage,
    standing: &dyn Fn(BrokerId) -> Standing,
    circumstances: &Circumstances<'_>,
) -> Due {
    let PartitionImage { replicas, isr, elr, leader, .. } = partition;
    let mut due = Due::default();
    if leader.is_some() && isr.iter().chain(elr).all(|id| (circumstances.is_active)(*id)) {
        return due;
    }
    for &broker in replicas {
        let now = due.next.as_ref().unwrap_or(partition);
        let without = match standing(broker) {
            Standing::InService | Standing::Aside => None,
            Standing::Gone => without_broker(now, broker, circumstances),
            Standing::Distrusted => without_trust_in(now, broker, circumstances),
        };
        if without.is_some() {
            due.held.push(broker);
            due.next = without;
        }
    }
    for &broker in replicas.iter().filter(|id| standing(**id) == Standing::Aside) {
        let now = due.next.as_ref().unwrap_or(partition);
        // Others take over while it is there. Where nobody can, it stays to its end.
        if now.isr.contains(&broker) && now.isr.iter().any(|member| (circumstances.is_active)(*member)) {
            due.next = without_broker(now, broker, circumstances).or(due.next);
        }
    }
    let now = due.next.as_ref().unwrap_or(partition);
    due.next = with_leader(now, circumstances).or(due.next);
    due
}
