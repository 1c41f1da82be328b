//! The settings of a topic that its local log obeys.

use std::time::Duration;

use varve_metadata::config::{TimestampType, TopicCompression, TopicConfig};

/// What a local log needs to know of its topic's configuration. `Default` gives Kafka's defaults, for a log without
/// transaction coordinators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Largest size of a segment file in bytes (`segment.bytes`).
    pub segment_bytes: u32,
    /// Largest span of timestamps in an active segment (`segment.ms`, or `max.compaction.lag.ms` if that is less).
    pub segment_time: Duration,
    /// Upper bound of the random part taken off `segment_time`, so that segments do not all roll at once.
    pub segment_jitter: Duration,
    /// Bytes of records between two index entries.
    pub index_interval_bytes: u32,
    /// Largest size of an index file in bytes; a full index rolls its segment.
    pub segment_index_bytes: u32,
    /// Whether the disk space of a whole segment is reserved when it begins.
    pub preallocate: bool,
    /// Largest batch accepted, in bytes as it arrives.
    pub max_message_bytes: u32,
    /// The codec in which batches are kept.
    pub compression: TopicCompression,
    /// Which clock timestamps come from.
    pub timestamp_type: TimestampType,
    /// How far a CreateTime may lie before the broker's clock; `None`: any distance.
    pub timestamp_before_max: Option<Duration>,
    /// How far a CreateTime may lie after the broker's clock; `None`: any distance.
    pub timestamp_after_max: Option<Duration>,
    /// Whether every record must have a key (`cleanup.policy` includes compact).
    pub compacted: bool,
    /// Records after which the log must be forced to disk (`flush.messages`); `None`: never. Left to the caller, who can
    /// wait for the disk without holding a lock.
    pub flush_messages: Option<u64>,
    /// Time after which appended records are forced to disk; `None`: never.
    pub flush_interval: Option<Duration>,
    /// How long the state of a silent producer is kept (`producer.id.expiration.ms`).
    pub producer_expiry: Duration,
    /// Upper bound of a transaction's duration (`transaction.max.timeout.ms`), for hanging ones.
    pub max_transaction_timeout: Duration,
    /// Whether a producer may begin a transaction only with its coordinator's word
    /// (`transaction.partition.verification.enable`).
    pub verify_transactions: bool,
}

impl LogConfig {
    /// The part of `topic` that concerns the local log, with the broker's `producer.id.expiration.ms` and
    /// `transaction.max.timeout.ms`.
    pub fn new(topic: &TopicConfig, producer_expiry: Duration, max_transaction_timeout: Duration) -> LogConfig {
        // Kafka's way to say "never" is the largest signed number.
        let finite = |time: Duration| (time.as_millis() < i64::MAX as u128).then_some(time);
        LogConfig {
            segment_bytes: topic.segment_bytes,
            segment_time: topic.max_segment_time(),
            segment_jitter: topic.segment_jitter,
            index_interval_bytes: topic.index_interval_bytes,
            segment_index_bytes: topic.segment_index_bytes,
            preallocate: topic.preallocate,
            max_message_bytes: topic.max_message_bytes,
            compression: topic.compression,
            timestamp_type: topic.timestamp_type,
            timestamp_before_max: finite(topic.timestamp_before_max),
            timestamp_after_max: finite(topic.timestamp_after_max),
            compacted: topic.cleanup.compact,
            flush_messages: (topic.flush_messages < i64::MAX as u64).then_some(topic.flush_messages),
            flush_interval: finite(topic.flush_interval),
            producer_expiry,
            max_transaction_timeout,
            verify_transactions: false,
        }
    }

    /// The same with `transaction.partition.verification.enable`.
    #[must_use]
    pub fn verifying_transactions(self, verify_transactions: bool) -> LogConfig {
        LogConfig { verify_transactions, ..self }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig::new(&TopicConfig::default(), Duration::from_secs(24 * 60 * 60), Duration::from_secs(15 * 60))
    }
}
