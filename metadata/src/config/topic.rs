//! The settings of a topic as types.

use std::collections::BTreeMap;
use std::time::Duration;

use super::codec::Codec;
use super::compression::TopicCompression;
use super::error::ConfigError;
use super::throttled::ThrottledReplicas;
use super::topic_defaults::TopicDefaults;
use super::topic_definitions::topic_table;
use super::value::ConfigValue;

/// What removes old records. Neither set: nothing ever is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Segments are dropped by retention time and size.
    pub delete: bool,
    /// Only the last record of each key is kept.
    pub compact: bool,
}

/// Which clock a record's timestamp comes from (KIP-32).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's, at the append.
    LogAppendTime,
}

/// What archived segments become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// Parquet tables, after verification against the raw segment.
    #[default]
    Parquet,
    /// They stay as they were uploaded.
    Raw,
}

/// How batches that were rebuilt from Parquet go out to consumers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FetchCompression {
    /// Uncompressed.
    #[default]
    None,
    /// With the codec that their producer used.
    Producer,
}

/// Everything that a topic's settings decide, defaults applied. `Default` gives Kafka 4.3's defaults, with the archive on.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// What removes old records.
    pub cleanup: CleanupPolicy,
    /// How long records are kept over both tiers; `None`: for ever.
    pub retention_time: Option<Duration>,
    /// Bytes of a partition over both tiers, each record counted once; `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// How long archived records stay on the local disk, `-2` already replaced by `retention_time`; `None`: for ever.
    pub local_retention_time: Option<Duration>,
    /// Bytes of a partition on the local disk, `-2` already replaced by `retention_bytes`; `None`: no limit.
    pub local_retention_bytes: Option<u64>,
    /// Largest size of a segment file. At least 1 MiB unless a test says otherwise.
    pub segment_bytes: u32,
    /// Largest age of an active segment.
    pub segment_time: Duration,
    /// Upper bound of the random part that is taken off `segment_time`.
    pub segment_jitter: Duration,
    /// Bytes of records between two index entries.
    pub index_interval_bytes: u32,
    /// Room for each index of a segment.
    pub segment_index_bytes: u32,
    /// Largest record batch accepted, as it arrives.
    pub max_message_bytes: u32,
    /// The codec in which batches are kept.
    pub compression: TopicCompression,
    /// Which clock timestamps come from.
    pub timestamp_type: TimestampType,
    /// How far a CreateTime may lie before the broker's clock.
    pub timestamp_before_max: Duration,
    /// How far a CreateTime may lie after the broker's clock.
    pub timestamp_after_max: Duration,
    /// Records after which the log is forced to disk; `u64::MAX / 2` (Kafka's `Long.MAX_VALUE`) is never.
    pub flush_messages: u64,
    /// Time after which the log is forced to disk; Kafka's `Long.MAX_VALUE` milliseconds is never.
    pub flush_interval: Duration,
    /// How long a tombstone of a compacted topic is kept.
    pub delete_retention: Duration,
    /// Share of uncleaned bytes from which a compacted log is cleaned; 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// How long a record stays uncompacted at least.
    pub min_compaction_lag: Duration,
    /// How long a record stays uncompacted at most.
    pub max_compaction_lag: Duration,
    /// How long the files of a removed segment stay.
    pub file_delete_delay: Duration,
    /// Replicas that must be in sync for a write with acks=all; at least 1.
    pub min_insync_replicas: u32,
    /// Leaders that send to replicas out of sync at a limited rate.
    pub leader_throttled: ThrottledReplicas,
    /// Replicas that fetch at a limited rate while they are out of sync.
    pub follower_throttled: ThrottledReplicas,
    /// Whether a replica that was not in sync may lead.
    pub unclean_leader_election: bool,
    /// Whether the disk space of a segment is reserved at its start.
    pub preallocate: bool,
    /// Whether sealed segments are archived.
    pub remote_storage: bool,
    /// Whether archiving is paused, with the archive still readable.
    pub remote_copy_disable: bool,
    /// Whether turning `remote_storage` off deletes the archive.
    pub remote_delete_on_disable: bool,
    /// How soon after its append a record must be in the archive; `None`: when its segment is sealed anyway.
    pub archive_lag: Option<Duration>,
    /// What archived segments become.
    pub archive_format: ArchiveFormat,
    /// How batches from Parquet go out.
    pub archive_fetch_compression: FetchCompression,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig::resolve(&TopicDefaults::default(), &BTreeMap::new())
            .expect("the defaults are valid: a test reads them")
    }
}

impl TopicConfig {
    /// The settings of a topic with these overrides on a broker with these defaults.
    ///
    /// # Errors
    /// The first override, by name, that is unknown, invalid, or contradicts another.
    pub fn resolve(
        broker_defaults: &TopicDefaults,
        overrides: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, ConfigError> {
        for (name, value) in overrides {
            topic_table().get(name).ok_or_else(|| topic_table().unknown(name))?.parse(value)?;
        }
        let settings = Settings { broker_defaults, overrides };
        settings.check_pairs()?;
        Ok(settings.typed())
    }

    /// Whether defaults that are valid one by one go together.
    ///
    /// # Errors
    /// The first pair that contradicts each other.
    pub(super) fn check_defaults(defaults: &TopicDefaults) -> Result<(), ConfigError> {
        Settings { broker_defaults: defaults, overrides: &BTreeMap::new() }.check_pairs()
    }

    /// How long an active segment may grow: `segment_time`, or the compaction lag of a compacted topic if that is less.
    pub fn max_segment_time(&self) -> Duration {
        if self.cleanup.compact { self.segment_time.min(self.max_compaction_lag) } else { self.segment_time }
    }
}

/// Overrides over defaults, all of them parseable.
struct Settings<'a> {
    broker_defaults: &'a TopicDefaults,
    overrides: &'a BTreeMap<String, String>,
}

impl Settings<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.overrides.get(name).map(String::as_str).or_else(|| self.broker_defaults.value(name))
    }

    fn value(&self, name: &str) -> Option<ConfigValue> {
        topic_table().get(name)?.parse(self.text(name)?).ok()
    }

    fn int(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(ConfigValue::Int(number)) => number,
            other => unreachable!("{name} is a checked integer with a default, not {other:?}"),
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.value(name) == Some(ConfigValue::Bool(true))
    }

    fn ratio(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(ConfigValue::Double(number)) => number,
            other => unreachable!("{name} is a checked number with a default, not {other:?}"),
        }
    }

    fn word(&self, name: &str) -> String {
        match self.value(name) {
            Some(ConfigValue::Text(word)) => word,
            other => unreachable!("{name} is a checked word with a default, not {other:?}"),
        }
    }

    fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.int(name).max(0) as u64)
    }

    fn bytes(&self, name: &str) -> u32 {
        u32::try_from(self.int(name)).expect("the definition's range lies within i32, from 0")
    }

    /// `None` for Kafka's negative "no limit".
    fn limit(&self, name: &str) -> Option<u64> {
        u64::try_from(self.int(name)).ok()
    }

    /// A local limit, where -2 stands for the limit over both tiers.
    fn local_limit(&self, name: &str, total: &str) -> Option<u64> {
        if self.int(name) == -2 { self.limit(total) } else { self.limit(name) }
    }

    fn compression(&self) -> TopicCompression {
        let level = |name: &str| Some(self.int(name) as i32);
        match self.word("compression.type").as_str() {
            "uncompressed" => TopicCompression::Codec(Codec::None, None),
            "gzip" => {
                let level = level("compression.gzip.level").filter(|level| *level != -1);
                TopicCompression::Codec(Codec::Gzip, level)
            }
            "snappy" => TopicCompression::Codec(Codec::Snappy, None),
            "lz4" => TopicCompression::Codec(Codec::Lz4, level("compression.lz4.level")),
            "zstd" => TopicCompression::Codec(Codec::Zstd, level("compression.zstd.level")),
            _ => TopicCompression::Producer,
        }
    }

    fn cleanup(&self) -> CleanupPolicy {
        let words = match self.value("cleanup.policy") {
            Some(ConfigValue::List(words)) => words,
            _ => Vec::new(),
        };
        let has = |policy: &str| words.iter().any(|word| word == policy);
        CleanupPolicy { delete: has("delete"), compact: has("compact") }
    }

    fn typed(&self) -> TopicConfig {
        let segment =
            if self.text("internal.segment.bytes").is_some() { "internal.segment.bytes" } else { "segment.bytes" };
        TopicConfig {
            cleanup: self.cleanup(),
            retention_time: self.limit("retention.ms").map(Duration::from_millis),
            retention_bytes: self.limit("retention.bytes"),
            local_retention_time: self.local_limit("local.retention.ms", "retention.ms").map(Duration::from_millis),
            local_retention_bytes: self.local_limit("local.retention.bytes", "retention.bytes"),
            segment_bytes: self.bytes(segment),
            segment_time: self.millis("segment.ms"),
            segment_jitter: self.millis("segment.jitter.ms"),
            index_interval_bytes: self.bytes("index.interval.bytes"),
            segment_index_bytes: self.bytes("segment.index.bytes"),
            max_message_bytes: self.bytes("max.message.bytes"),
            compression: self.compression(),
            timestamp_type: match self.word("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max: self.millis("message.timestamp.before.max.ms"),
            timestamp_after_max: self.millis("message.timestamp.after.max.ms"),
            flush_messages: self.int("flush.messages").max(1) as u64,
            flush_interval: self.millis("flush.ms"),
            delete_retention: self.millis("delete.retention.ms"),
            min_cleanable_dirty_ratio: self.ratio("min.cleanable.dirty.ratio"),
            min_compaction_lag: self.millis("min.compaction.lag.ms"),
            max_compaction_lag: self.millis("max.compaction.lag.ms"),
            file_delete_delay: self.millis("file.delete.delay.ms"),
            min_insync_replicas: self.bytes("min.insync.replicas"),
            leader_throttled: ThrottledReplicas::of(self.value("leader.replication.throttled.replicas")),
            follower_throttled: ThrottledReplicas::of(self.value("follower.replication.throttled.replicas")),
            unclean_leader_election: self.flag("unclean.leader.election.enable"),
            preallocate: self.flag("preallocate"),
            remote_storage: self.flag("remote.storage.enable"),
            remote_copy_disable: self.flag("remote.log.copy.disable"),
            remote_delete_on_disable: self.flag("remote.log.delete.on.disable"),
            archive_lag: self.limit("varve.archive.lag.ms").map(Duration::from_millis),
            archive_format: match self.word("varve.archive.format").as_str() {
                "raw" => ArchiveFormat::Raw,
                _ => ArchiveFormat::Parquet,
            },
            archive_fetch_compression: match self.word("varve.archive.fetch.compression").as_str() {
                "producer" => FetchCompression::Producer,
                _ => FetchCompression::None,
            },
        }
    }

    /// The rules that bind two settings, as Kafka's `LogConfig` has them.
    fn check_pairs(&self) -> Result<(), ConfigError> {
        let (min, max) = ("min.compaction.lag.ms", "max.compaction.lag.ms");
        if self.int(min) > self.int(max) {
            return Err(self.conflict(min, max, "the minimum must not exceed the maximum"));
        }
        if !self.flag("remote.storage.enable") {
            return Ok(());
        }
        for (local, total) in [("local.retention.ms", "retention.ms"), ("local.retention.bytes", "retention.bytes")] {
            let (local_limit, total_limit) = (self.int(local), self.int(total));
            // -2 follows the total, whatever it is; without a total every local limit is within it.
            if local_limit == -2 {
                continue;
            }
            if total_limit >= 0 && (local_limit == -1 || local_limit > total_limit) {
                return Err(self.conflict(local, total, "the local part must not be kept longer than the whole"));
            }
            if self.flag("remote.log.copy.disable") && local_limit != total_limit {
                let rule = "with remote.log.copy.disable=true nothing leaves the local disk for the archive, so both \
                            must be equal";
                return Err(self.conflict(local, total, rule));
            }
        }
        Ok(())
    }

    fn conflict(&self, name: &str, other: &str, rule: &str) -> ConfigError {
        let value = |name: &str| self.text(name).unwrap_or_default().to_owned();
        ConfigError::Conflict {
            name: name.into(),
            value: value(name),
            other: other.into(),
            other_value: value(other),
            rule: rule.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn resolved(broker: &[(&str, &str)], topic: &[(&str, &str)]) -> Result<TopicConfig, ConfigError> {
        let defaults = TopicDefaults::from_broker(&map(broker)).expect("broker settings");
        TopicConfig::resolve(&defaults, &map(topic))
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn defaults_are_those_of_kafka() {
        let config = TopicConfig::default();
        assert_eq!(config.cleanup, CleanupPolicy { delete: true, compact: false });
        assert_eq!(config.retention_time, Some(7 * DAY));
        assert_eq!(config.retention_bytes, None);
        assert_eq!((config.local_retention_time, config.local_retention_bytes), (Some(7 * DAY), None));
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!((config.segment_time, config.segment_jitter), (7 * DAY, Duration::ZERO));
        assert_eq!((config.index_interval_bytes, config.segment_index_bytes), (4096, 10 << 20));
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.compression, TopicCompression::Producer);
        assert_eq!(config.timestamp_type, TimestampType::CreateTime);
        assert_eq!(config.timestamp_before_max, Duration::from_millis(i64::MAX as u64));
        assert_eq!(config.timestamp_after_max, Duration::from_secs(3600));
        assert_eq!(config.flush_messages, i64::MAX as u64);
        assert_eq!(config.delete_retention, DAY);
        assert_eq!((config.min_cleanable_dirty_ratio, config.min_insync_replicas), (0.5, 1));
        assert_eq!(config.file_delete_delay, Duration::from_secs(60));
        assert!(config.remote_storage && !config.remote_copy_disable && !config.unclean_leader_election);
        assert_eq!(config.archive_lag, Some(Duration::from_secs(900)));
    }

    #[test]
    fn every_default_is_a_valid_value_of_its_setting() {
        for definition in topic_table().iter() {
            if let Some(default) = definition.default {
                definition.parse(default).unwrap();
            }
        }
    }

    #[test]
    fn an_override_beats_the_broker_which_beats_the_built_in_default() {
        let broker = [("log.segment.bytes", "2097152"), ("message.max.bytes", "2000")];
        let config = resolved(&broker, &[("segment.bytes", "4194304")]).unwrap();
        assert_eq!((config.segment_bytes, config.max_message_bytes), (4_194_304, 2000));
    }

    #[test]
    fn milliseconds_beat_minutes_beat_hours() {
        let retention = |broker: &[(&str, &str)]| resolved(broker, &[]).unwrap().retention_time;
        let (ms, minutes, hours) =
            (("log.retention.ms", "1000"), ("log.retention.minutes", "2"), ("log.retention.hours", "3"));
        assert_eq!(retention(&[ms, minutes, hours]), Some(Duration::from_secs(1)));
        assert_eq!(retention(&[minutes, hours]), Some(Duration::from_secs(120)));
        assert_eq!(retention(&[hours]), Some(Duration::from_secs(3 * 3600)));
        assert_eq!(retention(&[("log.retention.hours", "-1")]), None);
        let roll = |broker: &[(&str, &str)]| resolved(broker, &[]).unwrap().segment_time;
        assert_eq!(roll(&[("log.roll.ms", "5"), ("log.roll.hours", "1")]), Duration::from_millis(5));
        assert_eq!(roll(&[("log.roll.hours", "1")]), Duration::from_secs(3600));
    }

    #[test]
    fn negative_numbers_become_no_limit() {
        let config = resolved(&[], &[("retention.ms", "-1"), ("varve.archive.lag.ms", "-1")]).unwrap();
        assert_eq!((config.retention_time, config.local_retention_time, config.archive_lag), (None, None, None));
        let config = resolved(&[], &[("retention.bytes", "100"), ("local.retention.ms", "50")]).unwrap();
        assert_eq!(config.local_retention_bytes, Some(100), "-2 follows the total");
        assert_eq!(config.local_retention_time, Some(Duration::from_millis(50)));
    }

    #[test]
    fn compression_levels_belong_to_the_chosen_codec() {
        let compression = |overrides: &[(&str, &str)]| resolved(&[], overrides).unwrap().compression;
        let level = ("compression.zstd.level", "7");
        assert_eq!(compression(&[level]), TopicCompression::Producer);
        assert_eq!(compression(&[level, ("compression.type", "zstd")]), TopicCompression::Codec(Codec::Zstd, Some(7)));
        assert_eq!(compression(&[("compression.type", "gzip")]), TopicCompression::Codec(Codec::Gzip, None));
        assert_eq!(compression(&[("compression.type", "uncompressed")]), TopicCompression::Codec(Codec::None, None));
    }

    #[test]
    fn tests_may_make_segments_smaller_than_operators_may() {
        assert_eq!(resolved(&[], &[("internal.segment.bytes", "1000")]).unwrap().segment_bytes, 1000);
        assert!(resolved(&[], &[("segment.bytes", "1000")]).is_err());
    }

    #[test]
    fn refused_overrides_say_what_is_allowed() {
        let cases = [
            (("retention.ms", "soon"), "invalid value \"soon\" for retention.ms: an integer of at least -1"),
            (("retension.ms", "1"), "unknown setting retension.ms; did you mean retention.ms?"),
            (("compression.type", "brotli"), "one of uncompressed, zstd, lz4, snappy, gzip, producer"),
            (("min.compaction.lag.ms", "9223372036854775807"), ""),
            (("local.retention.ms", "-1"), "local.retention.ms=-1 contradicts retention.ms=604800000"),
        ];
        for ((name, value), expected) in cases {
            match resolved(&[], &[(name, value)]) {
                Err(error) => assert!(error.to_string().contains(expected) && !expected.is_empty(), "{error}"),
                Ok(_) => assert!(expected.is_empty(), "{name}={value}"),
            }
        }
    }
}
