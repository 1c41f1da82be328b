//! May these partitions be written to in this transaction (KIP-890)? Asked before the first record of a transaction reaches a
//! partition: a record that the coordinator does not know of would open a transaction that nobody ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use varve_log::local::{ProducerError, TransactionBegin};
use varve_metadata::model::{ProducerEpoch, ProducerId, Sequence, VerificationGuard};

use super::TransactionCoordinator;
use crate::{
    coordinator::transactions::{AddPartitions, TopicPartition, TransactionError, TransactionVersion},
    partition::{LookupError, Partition},
    server::{Broker, wall_clock},
};

/// How much the client knows of the second generation of the protocol, by the version of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// It has added its partitions before, and does not know TRANSACTION_ABORTABLE.
    First,
    /// It has added its partitions before.
    Abortable,
    /// Writing to a partition adds it.
    Adding,
}

/// A partition that a producer wants to write to.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) at: TopicPartition,
    /// Of the first record; `None` for committed offsets, which have none.
    pub(crate) base_sequence: Option<Sequence>,
}

/// Who wants to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission<'a> {
    pub(crate) transactional_id: &'a str,
    pub(crate) producer: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    pub(crate) generation: Generation,
}

/// What the coordinator says of each partition.
type Verified = Vec<(TopicPartition, Result<(), TransactionError>)>;

/// Why a partition may not be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    #[error("the partition is not here")]
    NotHere,
    #[error("the partition's log directory is offline")]
    Offline,
    /// A newer epoch of the producer is known to the partition or to the coordinator.
    #[error("the producer's epoch is not the newest")]
    InvalidEpoch,
    /// The coordinator's word.
    #[error(transparent)]
    Coordinator(#[from] TransactionError),
}

/// What an append to the partition has to show, if anything.
pub(crate) type Verdict = Result<Option<VerificationGuard>, Denial>;

impl TransactionCoordinator {
    /// Decides on each of `candidates`. Partitions in which the transaction has begun need no word of the coordinator; the
    /// others are added to the transaction, or have to be part of it.
    pub(crate) async fn admit(
        &self,
        broker: &Broker,
        admission: Admission<'_>,
        candidates: Vec<Candidate>,
    ) -> BTreeMap<TopicPartition, Verdict> {
        let is_adding = admission.generation == Generation::Adding;
        if !is_adding && !self.settings.verify_partitions {
            return candidates.into_iter().map(|candidate| (candidate.at, Ok(None))).collect();
        }
        let mut verdicts = BTreeMap::new();
        for Candidate { at, base_sequence } in candidates {
            let verdict = self.begin(&at, base_sequence, admission);
            verdicts.insert(at, verdict);
        }
        let awaits_word = |verdict: &Verdict| matches!(verdict, Ok(Some(_)));
        let asked = verdicts.iter().filter(|(_, verdict)| awaits_word(verdict));
        let asked: BTreeSet<TopicPartition> = asked.map(|(at, _)| at.clone()).collect();
        if asked.is_empty() {
            return verdicts;
        }
        let answer = if is_adding {
            self.add_candidates(broker, admission, asked).await.map(|()| Vec::new())
        } else {
            self.verify(broker, admission, asked)
        };
        match answer {
            Ok(words) => {
                for (at, word) in words {
                    if let (Some(verdict), Err(error)) = (verdicts.get_mut(&at), word) {
                        *verdict = Err(denial(error, admission.generation));
                    }
                }
            }
            Err(error) => {
                for verdict in verdicts.values_mut().filter(|verdict| awaits_word(verdict)) {
                    *verdict = Err(denial(error, admission.generation));
                }
            }
        }
        verdicts
    }

    fn begin(&self, at: &TopicPartition, base_sequence: Option<Sequence>, admission: Admission<'_>) -> Verdict {
        let partition: Arc<Partition> = self.partitions.find(&at.topic, at.partition).map_err(|error| match error {
            LookupError::UnknownTopic | LookupError::UnknownPartition => Denial::NotHere,
            LookupError::Offline => Denial::Offline,
        })?;
        let begin = TransactionBegin {
            producer: admission.producer,
            epoch: admission.epoch,
            base_sequence,
            raises_epoch: admission.generation == Generation::Adding,
            now: wall_clock(),
        };
        partition.log().begin_transaction(&begin).map_err(|error| match error {
            ProducerError::InvalidEpoch { .. } => Denial::InvalidEpoch,
            _ => Denial::Coordinator(TransactionError::InvalidState),
        })
    }

    async fn add_candidates(
        &self,
        broker: &Broker,
        admission: Admission<'_>,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<(), TransactionError> {
        let request = AddPartitions {
            transactional_id: admission.transactional_id.to_owned(),
            producer: Some(admission.producer),
            epoch: Some(admission.epoch),
            partitions,
            version: TransactionVersion::Raising,
        };
        self.check_is_made(broker)?;
        self.add(broker, request).await
    }

    fn verify(
        &self,
        broker: &Broker,
        admission: Admission<'_>,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<Verified, TransactionError> {
        self.check_is_made(broker)?;
        let seat = self.seat(broker, admission.transactional_id)?;
        let (transactional_id, producer, epoch) = (admission.transactional_id, admission.producer, admission.epoch);
        seat.read(|shard| shard.verify(transactional_id, Some(producer), Some(epoch), partitions))?
    }

    /// Without its topic there is no coordinator.
    fn check_is_made(&self, broker: &Broker) -> Result<(), TransactionError> {
        let has_topic = broker.metadata.image().topic(self.seats.terms().name).is_some();
        if has_topic { Ok(()) } else { Err(TransactionError::CoordinatorNotAvailable) }
    }
}

/// What producers expect to be told.
fn denial(error: TransactionError, generation: Generation) -> Denial {
    match error {
        TransactionError::ProducerFenced => Denial::InvalidEpoch,
        TransactionError::Abortable if generation == Generation::First => {
            Denial::Coordinator(TransactionError::InvalidState)
        }
        error => Denial::Coordinator(error),
    }
}
