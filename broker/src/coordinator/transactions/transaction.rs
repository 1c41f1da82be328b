//! One transactional id: what the log says of it, and the change that is on its way there.

use std::collections::BTreeSet;

use varve_metadata::model::{ProducerEpoch, ProducerId, Timestamp};

use super::{
    ProducerIdentity, TopicPartition, TransactionError, TransactionState, TransactionVersion,
    records::TransactionMetadata,
};

/// The largest epoch. Only the coordinator uses it, for the last marker of a producer id.
pub(super) const LAST_EPOCH: ProducerEpoch = ProducerEpoch(i16::MAX as u16);
/// From this epoch on a producer needs a new id: there must always be one left to fence it with.
pub(super) const EXHAUSTED_EPOCH: ProducerEpoch = ProducerEpoch(i16::MAX as u16 - 1);

/// One transactional id.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    /// As the log has it; only partitions that have their marker are taken out at once.
    pub(super) metadata: TransactionMetadata,
    /// The epoch that the producer had before; `None` if it was another producer. Not in the log.
    pub(super) last_epoch: Option<ProducerEpoch>,
    /// What the log is being told, or will be once markers are written. Nothing else may begin meanwhile.
    pub(super) pending: Option<Transition>,
}

/// A change of a transactional id.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transition {
    pub(super) to: TransactionMetadata,
    pub(super) last_epoch: Option<ProducerEpoch>,
}

/// How a transaction is to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) commit: bool,
    pub(super) version: TransactionVersion,
    /// Nothing was ever added: the transaction begins where it ends.
    pub(super) is_empty: bool,
    /// Who takes over if epochs are used up.
    pub(super) next_producer: Option<ProducerId>,
}

impl Transaction {
    /// A transactional id that was never heard of.
    pub(super) fn new(producer: ProducerId, timeout_ms: i32, now: Timestamp) -> Transaction {
        Transaction::loaded(TransactionMetadata {
            producer,
            previous_producer: None,
            next_producer: None,
            epoch: None,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            updated: now,
            started: None,
            version: TransactionVersion::Fixed,
        })
    }

    /// A transactional id as the log describes it.
    pub(super) fn loaded(metadata: TransactionMetadata) -> Transaction {
        Transaction { metadata, last_epoch: None, pending: None }
    }

    pub(super) fn state(&self) -> TransactionState {
        self.metadata.state
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.metadata.epoch >= Some(EXHAUSTED_EPOCH)
    }

    /// What the producer writes under, once its first epoch is known.
    pub(super) fn identity(&self) -> Option<ProducerIdentity> {
        identity(&self.metadata)
    }

    fn transition(&self, state: TransactionState, now: Timestamp) -> Transition {
        let to = TransactionMetadata {
            state,
            previous_producer: Some(self.metadata.producer),
            updated: now,
            ..self.metadata.clone()
        };
        Transition { to, last_epoch: self.last_epoch }
    }

    fn transition_to_empty(&self, timeout_ms: i32, now: Timestamp) -> Transition {
        let mut transition = self.transition(TransactionState::Empty, now);
        transition.to.partitions = BTreeSet::new();
        (transition.to.started, transition.to.timeout_ms) = (None, timeout_ms);
        transition
    }

    /// Whether a producer that names what it was before may go on: it is the one, or the one before it whose epochs were
    /// used up and which never heard of its new id.
    pub(super) fn knows(&self, expected: ProducerIdentity) -> bool {
        let metadata = &self.metadata;
        metadata.epoch.is_none()
            || metadata.producer == expected.id
            || (metadata.previous_producer == Some(expected.id) && expected.epoch >= EXHAUSTED_EPOCH)
    }

    /// Whether a producer that introduces itself needs a new id.
    pub(super) fn must_rotate(&self, expected: Option<ProducerIdentity>) -> bool {
        self.is_exhausted() && expected.is_none_or(|expected| Some(expected.epoch) == self.metadata.epoch)
    }

    /// A producer starts under a new id, because the epochs of the old one are used up.
    pub(super) fn rotate(
        &self,
        producer: ProducerId,
        timeout_ms: i32,
        keep_last_epoch: bool,
        now: Timestamp,
    ) -> Transition {
        let mut transition = self.transition_to_empty(timeout_ms, now);
        transition.last_epoch = self.metadata.epoch.filter(|_| keep_last_epoch);
        (transition.to.producer, transition.to.epoch) = (producer, Some(ProducerEpoch(0)));
        transition
    }

    /// A producer starts, and fences whoever used the transactional id before.
    ///
    /// # Errors
    /// [`TransactionError::ProducerFenced`] if it says that it was here before, and another came after it.
    pub(super) fn raise_epoch(
        &self,
        timeout_ms: i32,
        expected: Option<ProducerEpoch>,
        now: Timestamp,
    ) -> Result<Transition, TransactionError> {
        let current = self.metadata.epoch;
        let raised = match current {
            None => Some(ProducerEpoch(0)),
            Some(epoch) if epoch < EXHAUSTED_EPOCH => Some(ProducerEpoch(epoch.0 + 1)),
            Some(_) => None,
        };
        let (epoch, last_epoch) = match expected {
            None => (raised, None),
            Some(_) if current.is_none() || expected == current => (raised, current),
            // It asks again, since it did not hear the answer. Nobody else came meanwhile: that would have cleared this.
            Some(_) if expected == self.last_epoch => (current, self.last_epoch),
            Some(_) => (None, None),
        };
        let epoch = epoch.ok_or(TransactionError::ProducerFenced)?;
        let mut transition = self.transition_to_empty(timeout_ms, now);
        (transition.to.epoch, transition.last_epoch) = (Some(epoch), last_epoch);
        Ok(transition)
    }

    pub(super) fn add(
        &self,
        partitions: BTreeSet<TopicPartition>,
        version: TransactionVersion,
        now: Timestamp,
    ) -> Transition {
        let mut transition = self.transition(TransactionState::Ongoing, now);
        if self.state() != TransactionState::Ongoing {
            transition.to.started = Some(now);
        }
        transition.to.partitions.extend(partitions);
        transition.to.version = version;
        transition
    }

    /// The decision how the transaction ends.
    pub(super) fn end(&self, ending: Ending, now: Timestamp) -> Transition {
        let state = if ending.commit { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort };
        let mut transition = self.transition(state, now);
        if ending.version == TransactionVersion::Raising {
            transition.last_epoch = self.metadata.epoch;
            // Never beyond the last one: it means that something was broken before, and an abort mends it.
            transition.to.epoch = self.metadata.epoch.map(|epoch| ProducerEpoch((epoch.0 + 1).min(LAST_EPOCH.0)));
        }
        if ending.is_empty {
            transition.to.started = Some(now);
        }
        (transition.to.version, transition.to.next_producer) = (ending.version, ending.next_producer);
        transition
    }

    /// The end of the transaction, once every marker is written.
    pub(super) fn complete(&self, now: Timestamp) -> Transition {
        let state = match self.state() {
            TransactionState::PrepareCommit => TransactionState::CompleteCommit,
            _ => TransactionState::CompleteAbort,
        };
        let mut transition = self.transition(state, now);
        if let (TransactionVersion::Raising, Some(next)) = (self.metadata.version, self.metadata.next_producer) {
            (transition.to.producer, transition.to.epoch) = (next, Some(ProducerEpoch(0)));
        }
        transition.to.next_producer = None;
        transition.to.partitions = BTreeSet::new();
        transition
    }

    /// Nobody used it for long: it ends.
    pub(super) fn forget(&self) -> Transition {
        self.transition(TransactionState::Dead, self.metadata.updated)
    }

    /// The log has what was pending.
    pub(super) fn apply(&mut self) {
        if let Some(Transition { to, last_epoch }) = self.pending.take() {
            (self.metadata, self.last_epoch) = (to, last_epoch);
        }
    }
}

pub(super) fn identity(metadata: &TransactionMetadata) -> Option<ProducerIdentity> {
    metadata.epoch.map(|epoch| ProducerIdentity { id: metadata.producer, epoch })
}
