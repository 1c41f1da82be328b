//! What one append would change, checked before it is written.

use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Sequence};

use super::{
    AppendOrigin, BatchMetadata, CompletedTxn, EndMarker, ProducerBatch, ProducerEntry, ProducerError, ProducerState,
    Verdict,
};
use crate::local::verification::Admission;

/// The changes that one append will make. Only [`ProducerState::apply`] makes them.
#[derive(Debug)]
pub struct ProducerUpdate {
    pub(super) origin: AppendOrigin,
    pub(super) changed: Vec<Change>,
    pub(super) started: Vec<(Offset, ProducerId)>,
    pub(super) completed: Vec<CompletedTxn>,
}

#[derive(Debug)]
pub(super) struct Change {
    pub(super) producer: ProducerId,
    /// The state knew the producer before this append: its sequence is checked.
    pub(super) known: bool,
    pub(super) entry: ProducerEntry,
}

impl ProducerUpdate {
    /// Checks a data batch: against `state`, and against what this append brought before.
    ///
    /// # Errors
    /// [`ProducerError`]: give up the append.
    pub fn data(&mut self, state: &ProducerState, batch: &ProducerBatch) -> Result<Verdict, ProducerError> {
        self.data_in(state, batch, &Admission::default())
    }

    /// The same where a transaction may have to be vouched for before it begins.
    pub(in crate::local) fn data_in(
        &mut self,
        state: &ProducerState,
        batch: &ProducerBatch,
        admission: &Admission,
    ) -> Result<Verdict, ProducerError> {
        if self.origin == AppendOrigin::Client
            && let Some(known) = state.get(batch.producer).and_then(|entry| entry.find_duplicate(batch))
        {
            return Ok(Verdict::Duplicate(known));
        }
        let origin = self.origin;
        let Change { known, entry, .. } = self.change(state, batch.producer, batch.epoch);
        if origin != AppendOrigin::Replication && batch.epoch < entry.epoch {
            return Err(ProducerError::InvalidEpoch {
                producer: batch.producer,
                offset: batch.first,
                found: batch.epoch.to_wire(),
                current: entry.epoch.to_wire(),
            });
        }
        let is_open = entry.open_since.is_some() && entry.epoch == batch.epoch;
        if batch.transactional && !is_open && origin != AppendOrigin::Replication && !admission.allows() {
            return Err(ProducerError::NoTransaction { producer: batch.producer, offset: batch.first });
        }
        if origin == AppendOrigin::Client {
            check_first_sequence(entry, batch, admission)?;
            if *known {
                check_sequence(entry, batch)?;
            }
        }
        if entry.open_since.is_some() && !batch.transactional {
            return Err(ProducerError::NotTransactional { producer: batch.producer, offset: batch.first });
        }
        let offset_delta = u32::try_from(batch.last.since(batch.first)).unwrap_or(u32::MAX);
        entry.enter_epoch(batch.epoch);
        entry.push(BatchMetadata {
            last_sequence: batch.base_sequence.map(|base| base.plus(offset_delta)),
            last: batch.last,
            offset_delta,
            timestamp_ms: batch.timestamp_ms,
        });
        if batch.transactional && entry.open_since.is_none() {
            entry.open_since = Some(batch.first);
            self.started.push((batch.first, batch.producer));
        }
        Ok(Verdict::Fresh)
    }

    /// Checks a transaction marker. A marker that ends nothing is taken all the same: the coordinator may repeat itself.
    ///
    /// # Errors
    /// [`ProducerError`]: give up the append.
    pub fn marker(&mut self, state: &ProducerState, marker: &EndMarker) -> Result<(), ProducerError> {
        let trusted = self.origin == AppendOrigin::Replication;
        let Change { known, entry, .. } = self.change(state, marker.producer, marker.epoch);
        let late = if marker.raises_epoch { marker.epoch <= entry.epoch } else { marker.epoch < entry.epoch };
        // The same marker again, after the transaction has ended, or an epoch that cannot rise any further (KAFKA-19999).
        let repeated = marker.raises_epoch
            && marker.epoch == entry.epoch
            && (entry.open_since.is_none() || marker.epoch.to_wire() == i16::MAX);
        if late && *known && !repeated && !trusted {
            return Err(ProducerError::InvalidEpoch {
                producer: marker.producer,
                offset: marker.offset,
                found: marker.epoch.to_wire(),
                current: entry.epoch.to_wire(),
            });
        }
        if let Some(current) = entry.coordinator_epoch.filter(|current| *current > marker.coordinator_epoch && !trusted)
        {
            return Err(ProducerError::CoordinatorFenced {
                producer: marker.producer,
                offset: marker.offset,
                found: marker.coordinator_epoch,
                current,
            });
        }
        entry.enter_epoch(marker.epoch);
        entry.coordinator_epoch = Some(marker.coordinator_epoch);
        entry.last_timestamp_ms = marker.timestamp_ms;
        let first = entry.open_since.take();
        self.completed.extend(first.map(|first| CompletedTxn {
            producer: marker.producer,
            first,
            last: marker.offset,
            aborted: marker.aborted,
        }));
        Ok(())
    }

    /// The changed entry of `producer`, begun from the state's. An append seldom has more than one producer.
    fn change(&mut self, state: &ProducerState, producer: ProducerId, epoch: ProducerEpoch) -> &mut Change {
        let index = self.changed.iter().position(|change| change.producer == producer).unwrap_or_else(|| {
            let known = state.get(producer);
            let entry = known.cloned().unwrap_or(ProducerEntry::new(epoch));
            self.changed.push(Change { producer, known: known.is_some(), entry });
            self.changed.len() - 1
        });
        &mut self.changed[index]
    }
}

/// A producer whose transaction is about to begin may have several batches under way: the first of them comes first. One
/// whose epoch rises with every transaction begins each at 0.
fn check_first_sequence(
    entry: &ProducerEntry,
    batch: &ProducerBatch,
    admission: &Admission,
) -> Result<(), ProducerError> {
    let Some(beginning) = admission.beginning else { return Ok(()) };
    let found = batch.base_sequence.map_or(-1, Sequence::to_wire);
    let is_unknown_start = beginning.raises_epoch && found != 0 && entry.last_batch().is_none();
    if is_unknown_start || found > beginning.lowest_sequence {
        let last = if is_unknown_start { -1 } else { beginning.lowest_sequence };
        return Err(ProducerError::OutOfOrderSequence { producer: batch.producer, offset: batch.first, found, last });
    }
    Ok(())
}

/// Whether the batch's first sequence follows the last one known. A new epoch starts at 0. A producer that is not known is
/// not checked: its records may all have been deleted by retention.
fn check_sequence(entry: &ProducerEntry, batch: &ProducerBatch) -> Result<(), ProducerError> {
    let last = if batch.epoch == entry.epoch { entry.last_batch().and_then(|known| known.last_sequence) } else { None };
    let expected = last.map_or(Sequence::default(), |last| last.plus(1));
    if batch.base_sequence == Some(expected) {
        return Ok(());
    }
    let wire = |sequence: Option<Sequence>| sequence.map_or(-1, Sequence::to_wire);
    Err(ProducerError::OutOfOrderSequence {
        producer: batch.producer,
        offset: batch.first,
        found: wire(batch.base_sequence),
        last: wire(last),
    })
}
