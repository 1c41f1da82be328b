//! Which transactions a cleaning pass is inside of: aborted data goes at once, a marker only after all it decided about.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
};

use varve_metadata::model::{Offset, ProducerId};

use crate::{format::BatchHeader, local::AbortedTxn};

/// What a control batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Its producer's transaction is committed.
    Commit,
    /// Its producer's transaction is aborted.
    Abort,
    /// Nothing any more: its record went in an earlier pass.
    Emptied,
    /// Something else, which must not go.
    Other,
}

/// The transactions open at one point of a pass over a log, in offset order. Knows how they will end from the log's
/// transaction index.
#[derive(Debug, Default)]
pub struct CleanedTransactions {
    /// Aborted transactions ahead, by first offset.
    ahead: BinaryHeap<Reverse<Ahead>>,
    aborted: HashMap<ProducerId, OpenAborted>,
    /// Producers of whose open, finally committed transaction a batch was met.
    committed: HashSet<ProducerId>,
    retained: Vec<AbortedTxn>,
}

#[derive(Debug, PartialEq, Eq)]
struct Ahead(AbortedTxn);

impl Ord for Ahead {
    fn cmp(&self, other: &Ahead) -> std::cmp::Ordering {
        let key = |ahead: &Ahead| (ahead.0.first, ahead.0.last);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Ahead {
    fn partial_cmp(&self, other: &Ahead) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Debug)]
struct OpenAborted {
    txn: AbortedTxn,
    /// A batch of it was met: until none is left, readers need its marker and its index entry.
    has_data: bool,
}

impl CleanedTransactions {
    /// Announces aborted transactions that the pass is going to meet. One announced twice counts once.
    pub fn announce(&mut self, aborted: impl IntoIterator<Item = AbortedTxn>) {
        self.ahead.extend(aborted.into_iter().map(|txn| Reverse(Ahead(txn))));
    }

    /// The pass meets a data batch. Returns whether it belongs to an aborted transaction, so that all of it may go.
    pub fn meet_data(&mut self, batch: &BatchHeader) -> bool {
        self.reach(batch.last_offset());
        let Some(producer) = batch.producer_id.filter(|_| batch.attributes.is_transactional()) else { return false };
        match self.aborted.get_mut(&producer) {
            Some(open) => {
                open.has_data = true;
                true
            }
            None => {
                self.committed.insert(producer);
                false
            }
        }
    }

    /// The pass meets a control batch. Returns whether nothing of its transaction is left, so that it may go in its time.
    pub fn meet_marker(&mut self, batch: &BatchHeader, marker: Marker) -> bool {
        self.reach(batch.last_offset());
        match (marker, batch.producer_id) {
            (Marker::Abort, Some(producer)) => match self.aborted.remove(&producer) {
                Some(OpenAborted { txn, has_data: true }) => {
                    self.retained.push(txn);
                    false
                }
                _ => true,
            },
            (Marker::Commit, Some(producer)) => !self.committed.remove(&producer),
            (Marker::Emptied | Marker::Abort | Marker::Commit, _) => true,
            (Marker::Other, _) => false,
        }
    }

    /// The aborted transactions whose markers were met since the last call and of which data was left before this pass: the
    /// index of the rewritten segment. In the order of the markers.
    pub fn take_retained(&mut self) -> Vec<AbortedTxn> {
        std::mem::take(&mut self.retained)
    }

    fn reach(&mut self, offset: Offset) {
        while let Some(Reverse(Ahead(txn))) = self.ahead.peek()
            && txn.first <= offset
        {
            let txn = *txn;
            self.ahead.pop();
            self.aborted.entry(txn.producer).or_insert(OpenAborted { txn, has_data: false });
        }
    }
}
