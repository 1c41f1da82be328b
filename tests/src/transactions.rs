//! Transactions as the wire has them: a producer that does one thing at a time, and a reader of committed records.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey,
        EndTxnRequest, EndTxnResponse, FetchRequest, FetchResponse, FindCoordinatorRequest, FindCoordinatorResponse,
        GroupId, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, TopicName,
        TransactionalId, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        fetch_request::{FetchPartition, FetchTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    },
    protocol::{Decodable, StrBytes},
};
use varve_log::format::{
    BatchBuilder, ControlRecord, RecordBatchView, RecordContent, compression::decompress, records,
};
use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

use crate::client::Client;

/// Longest time for reading a partition to its end.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(5);

/// What a producer writes under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// The broker's word against a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub ResponseError);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Refused {}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn check(code: i16) -> Result<()> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(Refused(error).into()),
    }
}

/// A leader that cannot ask the transaction's coordinator, which is moving, says so in the message alone: its code is one that older producers
/// know (KIP-890).
fn meant(code: i16, message: Option<&str>) -> i16 {
    let is_unverified = message.is_some_and(|message| message.starts_with("Unable to verify the partition"));
    let names = |name: &str| is_unverified && message.is_some_and(|message| message.ends_with(name));
    [
        ("NOT_COORDINATOR", ResponseError::NotCoordinator),
        ("COORDINATOR_NOT_AVAILABLE", ResponseError::CoordinatorNotAvailable),
        ("COORDINATOR_LOAD_IN_PROGRESS", ResponseError::CoordinatorLoadInProgress),
    ]
    .into_iter()
    .find_map(|(name, error)| names(name).then(|| error.code()))
    .unwrap_or(code)
}

/// Does `work` again while the broker says that it will be possible soon, at most for `patience`.
fn patiently<T>(patience: Duration, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        let outcome = work();
        let refused = outcome.as_ref().err().and_then(|error| error.downcast_ref::<Refused>());
        let is_soon = matches!(
            refused.map(|refused| refused.0),
            Some(
                ResponseError::ConcurrentTransactions
                    | ResponseError::CoordinatorLoadInProgress
                    | ResponseError::CoordinatorNotAvailable
                    | ResponseError::NotCoordinator
                    | ResponseError::NotEnoughReplicas
                    | ResponseError::NotLeaderOrFollower
                    | ResponseError::UnknownTopicOrPartition
            )
        );
        if !is_soon || started.elapsed() > patience {
            return outcome;
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// A batch of one record of a transaction.
///
/// # Errors
/// It cannot be encoded.
pub fn batch(producer: Producer, sequence: i32, key: Option<&str>, value: &str) -> Result<Bytes> {
    let id = ProducerId::from_wire(producer.id).context("a producer id")?;
    let epoch = ProducerEpoch::from_wire(producer.epoch).context("a producer epoch")?;
    let builder = BatchBuilder::new(Offset::ZERO).producer(id, epoch, Sequence::from_wire(sequence));
    let mut batch = builder.transactional();
    let now = std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64;
    let (timestamp, key) = (Timestamp::from_wire(now), key.map(str::as_bytes));
    batch.push(RecordContent { timestamp, key, value: Some(value.as_bytes()), headers: &[] });
    Ok(batch.build()?.into())
}

impl Client {
    /// Finds the coordinators of a transactional id and of a group of that name; their topics are made if need be.
    ///
    /// # Errors
    /// The connection breaks, or the broker's error code.
    pub fn find_coordinators(&mut self, name: &str) -> Result<()> {
        for key_type in [0, 1] {
            let request = FindCoordinatorRequest::default().with_key_type(key_type).with_key(text(name));
            patiently(self.patience, || {
                let mut answer = self.call(ApiKey::FindCoordinator, 3, &request)?;
                check(FindCoordinatorResponse::decode(&mut answer, 3)?.error_code)
            })?;
        }
        Ok(())
    }

    /// Introduces a producer; waits for the transaction of the one before to be aborted.
    ///
    /// # Errors
    /// The connection breaks, or [`Refused`].
    pub fn init_producer(&mut self, transactional_id: &str, timeout_ms: i32) -> Result<Producer> {
        self.find_coordinators(transactional_id)?;
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(transactional_id))))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        patiently(self.patience, || {
            let mut answer = self.call(ApiKey::InitProducerId, 4, &request)?;
            let given = InitProducerIdResponse::decode(&mut answer, 4)?;
            check(given.error_code)?;
            Ok(Producer { id: given.producer_id.0, epoch: given.producer_epoch })
        })
    }

    /// Adds a partition to the transaction, as producers of the first generation do.
    ///
    /// # Errors
    /// The connection breaks, or [`Refused`].
    pub fn add_partition(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        topic: &str,
        partition: i32,
    ) -> Result<()> {
        let topic =
            AddPartitionsToTxnTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(transactional_id)))
            .with_v3_and_below_producer_id(producer.id.into())
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(vec![topic]);
        patiently(self.patience, || {
            let mut answer = self.call(ApiKey::AddPartitionsToTxn, 3, &request)?;
            let response = AddPartitionsToTxnResponse::decode(&mut answer, 3)?;
            let topic = response.results_by_topic_v3_and_below.first().context("one topic")?;
            check(topic.results_by_partition.first().context("one partition")?.partition_error_code)
        })
    }

    /// Sends one batch in a transaction, with acks=all; the offset of its first record.
    ///
    /// # Errors
    /// The connection breaks (the batch may have been written), or [`Refused`].
    pub fn produce_in_transaction(
        &mut self,
        topic: &str,
        partition: i32,
        version: i16,
        transactional_id: &str,
        batch: Bytes,
    ) -> Result<i64> {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
        let topic = TopicProduceData::default().with_name(TopicName(text(topic))).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(TransactionalId(text(transactional_id))))
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        patiently(self.patience, || {
            let mut answer = self.call(ApiKey::Produce, version, &request)?;
            let response = ProduceResponse::decode(&mut answer, version)?;
            let found = response.responses.first().and_then(|topic| topic.partition_responses.first());
            let found = found.context("one partition")?;
            check(meant(found.error_code, found.error_message.as_deref()))?;
            Ok(found.base_offset)
        })
    }

    /// Ends the transaction in the second generation's way; what the producer goes on with.
    ///
    /// # Errors
    /// The connection breaks (the transaction may have ended), or [`Refused`].
    pub fn end_transaction(&mut self, transactional_id: &str, producer: Producer, commit: bool) -> Result<Producer> {
        self.end_in(5, transactional_id, producer, commit)
    }

    /// The same in the first generation's way: the producer stays what it is.
    ///
    /// # Errors
    /// As [`end_transaction`](Self::end_transaction).
    pub fn end_old_transaction(&mut self, transactional_id: &str, producer: Producer, commit: bool) -> Result<()> {
        self.end_in(4, transactional_id, producer, commit).map(drop)
    }

    fn end_in(&mut self, version: i16, transactional_id: &str, producer: Producer, commit: bool) -> Result<Producer> {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(transactional_id)))
            .with_producer_id(producer.id.into())
            .with_producer_epoch(producer.epoch)
            .with_committed(commit);
        patiently(self.patience, || {
            let mut answer = self.call(ApiKey::EndTxn, version, &request)?;
            let response = EndTxnResponse::decode(&mut answer, version)?;
            check(response.error_code)?;
            Ok(Producer { id: response.producer_id.0, epoch: response.producer_epoch })
        })
    }

    /// Commits an offset of a group in the transaction; the first generation adds the group beforehand.
    ///
    /// # Errors
    /// The connection breaks, or [`Refused`].
    pub fn commit_in_transaction(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        is_old: bool,
        place: (&str, &str, i32),
        offset: i64,
    ) -> Result<()> {
        let (group, topic, partition) = place;
        let id = TransactionalId(text(transactional_id));
        if is_old {
            let request = AddOffsetsToTxnRequest::default()
                .with_transactional_id(id.clone())
                .with_producer_id(producer.id.into())
                .with_producer_epoch(producer.epoch)
                .with_group_id(GroupId(text(group)));
            patiently(self.patience, || {
                let mut answer = self.call(ApiKey::AddOffsetsToTxn, 3, &request)?;
                check(AddOffsetsToTxnResponse::decode(&mut answer, 3)?.error_code)
            })?;
        }
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("")));
        let topic =
            TxnOffsetCommitRequestTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(id)
            .with_group_id(GroupId(text(group)))
            .with_producer_id(producer.id.into())
            .with_producer_epoch(producer.epoch)
            .with_topics(vec![topic]);
        let version = if is_old { 3 } else { 5 };
        patiently(self.patience, || {
            let mut answer = self.call(ApiKey::TxnOffsetCommit, version, &request)?;
            let response = TxnOffsetCommitResponse::decode(&mut answer, version)?;
            let found = response.topics.first().and_then(|topic| topic.partitions.first()).context("one partition")?;
            check(found.error_code)
        })
    }
}

/// A record that a reader of committed records was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it lies.
    pub offset: i64,
    /// Its key.
    pub key: Option<String>,
    /// Its value.
    pub value: String,
}

/// Reads one partition as a consumer with `isolation.level=read_committed` does.
#[derive(Debug)]
pub struct CommittedReader {
    topic: String,
    partition: i32,
    next: i64,
    skipping: BTreeSet<i64>,
}

impl CommittedReader {
    /// Starts at the first offset there is.
    ///
    /// # Errors
    /// The connection breaks.
    pub fn start(client: &mut Client, topic: &str, partition: i32) -> Result<CommittedReader> {
        let next = client.list_offset(topic, partition, -2)?;
        Ok(CommittedReader { topic: topic.to_owned(), partition, next, skipping: BTreeSet::new() })
    }

    /// What comes next; nothing if the reader has caught up with the last stable offset.
    ///
    /// # Errors
    /// The connection breaks, the broker refuses, or a batch is damaged.
    pub fn read(&mut self, client: &mut Client) -> Result<Vec<Seen>> {
        const VERSION: i16 = 12;
        let partition = FetchPartition::default()
            .with_partition(self.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(self.next)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(100_000);
        let topic = FetchTopic::default().with_topic(TopicName(text(&self.topic))).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(2000)
            .with_min_bytes(0)
            .with_max_bytes(50 << 20)
            .with_isolation_level(1)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let mut answer = client.call(ApiKey::Fetch, VERSION, &request)?;
        let response = FetchResponse::decode(&mut answer, VERSION)?;
        let found = response.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
        let found = found.context("one partition")?;
        check(found.error_code)?;
        let mut aborted: Vec<(i64, i64)> = found
            .aborted_transactions
            .iter()
            .flatten()
            .map(|aborted| (aborted.first_offset, aborted.producer_id.0))
            .collect();
        aborted.sort_unstable();
        let mut seen = Vec::new();
        let bytes = found.records.unwrap_or_default();
        let mut rest: &[u8] = &bytes;
        while !rest.is_empty() {
            let (batch, behind) = RecordBatchView::parse(rest)?;
            rest = behind;
            let header = batch.header();
            let last = header.last_offset().to_wire();
            ensure!(last < found.last_stable_offset, "{last} is not below the last stable offset");
            let producer = header.producer_id.map_or(-1, ProducerId::to_wire);
            aborted.retain(|(first, whose)| {
                let is_met = *first <= last;
                if is_met {
                    self.skipping.insert(*whose);
                }
                !is_met
            });
            let payload = decompress(header.attributes.compression(), batch.payload(), 64 << 20)?;
            for record in records(&payload, header.record_count) {
                let record = record?;
                let offset = header.base_offset.to_wire() + i64::from(record.offset_delta);
                if header.attributes.is_control() {
                    if let Some(ControlRecord::Abort { .. }) = ControlRecord::parse(&record)? {
                        self.skipping.remove(&producer);
                    }
                    continue;
                }
                let is_skipped = header.attributes.is_transactional() && self.skipping.contains(&producer);
                if offset >= self.next && !is_skipped {
                    let own = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let value = record.value.map(own).unwrap_or_default();
                    seen.push(Seen { offset, key: record.key.map(own), value });
                }
            }
            self.next = self.next.max(last + 1);
        }
        Ok(seen)
    }

    /// Everything up to `end`.
    ///
    /// # Errors
    /// As [`read`](Self::read), or a transaction stays open.
    pub fn read_to(&mut self, client: &mut Client, end: i64) -> Result<Vec<Seen>> {
        let started = Instant::now();
        let mut all = Vec::new();
        while self.next < end {
            all.extend(self.read(client)?);
            if started.elapsed() > PATIENCE {
                bail!("{}-{} stays at {} of {end}", self.topic, self.partition, self.next);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_cannot_ask_a_coordinator_on_the_move_means_that() {
        let few = ResponseError::NotEnoughReplicas.code();
        let why = "Unable to verify the partition has been added to the transaction. Underlying error: NOT_COORDINATOR";
        assert_eq!(meant(few, Some(why)), ResponseError::NotCoordinator.code());
        assert_eq!(meant(few, None), few, "too few are in sync");
        assert_eq!(meant(few, Some("NOT_COORDINATOR")), few);
        assert_eq!(meant(0, None), 0);
    }
}
