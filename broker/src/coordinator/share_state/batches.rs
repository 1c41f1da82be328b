//! What became of records, in batches of equal fate.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::Offset;

/// What is kept of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeliveryState {
    /// It is to be delivered again.
    Available,
    /// A member accepted it.
    Acknowledged,
    /// Nobody will get it any more.
    Archived,
}

impl DeliveryState {
    /// `None` for what is never kept.
    pub fn from_wire(raw: i8) -> Option<DeliveryState> {
        match raw {
            0 => Some(DeliveryState::Available),
            2 => Some(DeliveryState::Acknowledged),
            4 => Some(DeliveryState::Archived),
            _ => None,
        }
    }

    /// Kafka's number.
    pub const fn to_wire(self) -> i8 {
        match self {
            DeliveryState::Available => 0,
            DeliveryState::Acknowledged => 2,
            DeliveryState::Archived => 4,
        }
    }
}

/// Neighbouring records with the same fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateBatch {
    /// The first.
    pub first: Offset,
    /// The last.
    pub last: Offset,
    /// What became of them.
    pub state: DeliveryState,
    /// How often they were delivered.
    pub deliveries: u16,
}

impl StateBatch {
    /// How far records have come. A record only goes on, so of two words about it this one is the newer.
    fn progress(&self) -> (u16, DeliveryState) {
        (self.deliveries, self.state)
    }
}

/// `older` with the changes of `newer`, from `start` on: in order, without overlaps, and with neighbours of the same fate as
/// one batch. Where several speak of a record, the furthest counts, as in Kafka.
pub fn combine(older: &[StateBatch], newer: &[StateBatch], start: Offset) -> Vec<StateBatch> {
    let all: Vec<StateBatch> = older
        .iter()
        .chain(newer)
        .filter(|batch| batch.last >= start && batch.first <= batch.last)
        .map(|batch| StateBatch { first: batch.first.max(start), ..*batch })
        .collect();
    // Where batches begin, and behind their last records.
    let edges: BTreeSet<Offset> = all.iter().flat_map(|batch| [batch.first, batch.last.plus(1)]).collect();
    let mut begins: BTreeMap<Offset, Vec<StateBatch>> = BTreeMap::new();
    for batch in all {
        begins.entry(batch.first).or_default().push(batch);
    }
    let mut open: BTreeMap<(u16, DeliveryState), Offset> = BTreeMap::new();
    let mut combined: Vec<StateBatch> = Vec::new();
    let ends: Vec<Offset> = edges.iter().skip(1).copied().collect();
    for (first, end) in edges.into_iter().zip(ends) {
        open.retain(|_, last| *last >= first);
        for batch in begins.remove(&first).unwrap_or_default() {
            let last = open.entry(batch.progress()).or_insert(batch.last);
            *last = (*last).max(batch.last);
        }
        let Some(((deliveries, state), _)) = open.last_key_value() else { continue };
        let last = Offset::new(end.get().saturating_sub(1)).unwrap_or(Offset::ZERO);
        match combined.last_mut() {
            Some(before)
                if before.last.plus(1) == first && (before.deliveries, before.state) == (*deliveries, *state) =>
            {
                before.last = last;
            }
            _ => combined.push(StateBatch { first, last, state: *state, deliveries: *deliveries }),
        }
    }
    combined
}
