//! May these partitions be written to in this transaction (KIP-890)? Asked before the first record of a transaction reaches a
//! partition: a record that the coordinator does not know of would open a transaction that nobody ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use varve_log::local::{ProducerError, TransactionBegin};
use varve_metadata::model::{BrokerId, ProducerEpoch, ProducerId, Sequence, VerificationGuard};

use super::{TransactionCoordinator, remote::ask_coordinator};
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
pub(super) type Verified = Vec<(TopicPartition, Result<(), TransactionError>)>;

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
            self.add_candidates(broker, admission, asked).await
        } else {
            self.verify(broker, admission, asked).await
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
        let partition: Arc<Partition> = self.partitions.led(&at.topic, at.partition).map_err(|error| match error {
            LookupError::UnknownTopic | LookupError::UnknownPartition | LookupError::NotLeader => Denial::NotHere,
            LookupError::Offline => Denial::Offline,
        })?;
        // What the log asks for is what is fetched: the two cannot disagree while `transaction.partition.verification.enable`
        // changes.
        if admission.generation != Generation::Adding && !partition.log().config().verify_transactions {
            return Ok(None);
        }
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
    ) -> Result<Verified, TransactionError> {
        if self.coordinating_seat(broker, admission.transactional_id)?.is_none() {
            return self.ask_elsewhere(broker, admission, partitions, false).await;
        }
        let request = AddPartitions {
            transactional_id: admission.transactional_id.to_owned(),
            producer: Some(admission.producer),
            epoch: Some(admission.epoch),
            partitions,
            version: TransactionVersion::Raising,
        };
        self.add(broker, request).await.map(|()| Vec::new())
    }

    async fn verify(
        &self,
        broker: &Broker,
        admission: Admission<'_>,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<Verified, TransactionError> {
        let Some(seat) = self.coordinating_seat(broker, admission.transactional_id)? else {
            return self.ask_elsewhere(broker, admission, partitions, true).await;
        };
        let (transactional_id, producer, epoch) = (admission.transactional_id, admission.producer, admission.epoch);
        seat.read(|shard| shard.verify(transactional_id, Some(producer), Some(epoch), partitions))?
    }

    /// The coordinator, if it is this node; without a leader there is none.
    fn coordinating_seat(
        &self,
        broker: &Broker,
        transactional_id: &str,
    ) -> Result<Option<Arc<super::Seat>>, TransactionError> {
        match self.coordinator(broker, transactional_id) {
            None => Err(TransactionError::CoordinatorNotAvailable),
            Some(leader) if leader == self.node => self.seat(broker, transactional_id).map(Some),
            Some(_) => Ok(None),
        }
    }

    fn coordinator(&self, broker: &Broker, transactional_id: &str) -> Option<BrokerId> {
        let image = broker.metadata.image();
        let topic = image.topic(self.seats.terms().name)?;
        topic.partition(self.partition_of(&image, transactional_id))?.1.leader
    }

    async fn ask_elsewhere(
        &self,
        broker: &Broker,
        admission: Admission<'_>,
        partitions: BTreeSet<TopicPartition>,
        verify_only: bool,
    ) -> Result<Verified, TransactionError> {
        let coordinator = self.coordinator(broker, admission.transactional_id);
        let coordinator = coordinator.ok_or(TransactionError::CoordinatorNotAvailable)?;
        ask_coordinator(&self.links, coordinator, admission, &partitions, verify_only).await
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
