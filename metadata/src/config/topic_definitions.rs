//! The definition of every topic setting: those of Kafka 4.3, and Varve's own under `varve.`.

use std::sync::LazyLock;

use super::definition::{ConfigDef, ConfigTable, Kind, Synonym, Unit};

const POSITIVE_INT: Kind = Kind::Int { min: 1, max: i32::MAX };
const NATURAL_INT: Kind = Kind::Int { min: 0, max: i32::MAX };
const POSITIVE_LONG: Kind = Kind::Long { min: 1, max: i64::MAX };
const NATURAL_LONG: Kind = Kind::Long { min: 0, max: i64::MAX };
const ANY_LONG: Kind = Kind::Long { min: i64::MIN, max: i64::MAX };
/// Kafka's "no limit" for a number of milliseconds that cannot be unset.
const LONG_MAX: &str = "9223372036854775807";

const fn same(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Same }
}

const fn minutes(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Minutes }
}

const fn hours(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Hours }
}

/// All topic settings, by name.
pub fn topic_table() -> &'static ConfigTable {
    static TABLE: LazyLock<ConfigTable> =
        LazyLock::new(|| ConfigTable::new(SEGMENTS.iter().chain(RECORDS).chain(CLEANING).chain(TIERS).copied()));
    &TABLE
}

/// How the log is cut into segments and reaches the disk.
const SEGMENTS: &[ConfigDef] = &[
    ConfigDef::topic(
        "segment.bytes",
        Kind::Int { min: 1024 * 1024, max: i32::MAX },
        Some("1073741824"),
        "The active segment is sealed before it would grow beyond this many bytes.",
    )
    .synonyms(&[same("log.segment.bytes")]),
    ConfigDef::topic(
        "internal.segment.bytes",
        POSITIVE_INT,
        None,
        "Stands in for segment.bytes, and may be smaller than it: for tests.",
    )
    .internal(),
    ConfigDef::topic(
        "segment.ms",
        POSITIVE_LONG,
        Some("604800000"),
        "The active segment is sealed this many milliseconds after its first record, even if it is small, so that \
         retention, compaction and the archive can take it.",
    )
    .synonyms(&[same("log.roll.ms"), hours("log.roll.hours")]),
    ConfigDef::topic(
        "segment.jitter.ms",
        NATURAL_LONG,
        Some("0"),
        "A random part of up to this many milliseconds is taken off segment.ms, so that partitions do not all seal \
         their segments at once.",
    )
    .synonyms(&[same("log.roll.jitter.ms"), hours("log.roll.jitter.hours")]),
    ConfigDef::topic(
        "segment.index.bytes",
        Kind::Int { min: 4, max: i32::MAX },
        Some("10485760"),
        "Room for the offset index and for the time index of one segment, in bytes. A full index seals the segment.",
    )
    .synonyms(&[same("log.index.size.max.bytes")]),
    ConfigDef::topic(
        "index.interval.bytes",
        NATURAL_INT,
        Some("4096"),
        "An index entry is written after at least this many bytes of records. Smaller finds an offset with less \
         reading and makes larger indexes.",
    )
    .synonyms(&[same("log.index.interval.bytes")]),
    ConfigDef::topic(
        "flush.messages",
        POSITIVE_LONG,
        Some(LONG_MAX),
        "Records are forced to the disk after this many were written. 1 forces each append before it is acknowledged; \
         appends that arrive together share one flush.",
    )
    .synonyms(&[same("log.flush.interval.messages")]),
    ConfigDef::topic(
        "flush.ms",
        NATURAL_LONG,
        Some(LONG_MAX),
        "Records are forced to the disk at the latest after this many milliseconds.",
    )
    .synonyms(&[same("log.flush.interval.ms"), same("log.flush.scheduler.interval.ms")]),
    ConfigDef::topic(
        "file.delete.delay.ms",
        NATURAL_LONG,
        Some("60000"),
        "How long a removed segment's files stay on the disk, for readers that still use them, in milliseconds.",
    )
    .synonyms(&[same("log.segment.delete.delay.ms")]),
    ConfigDef::topic(
        "preallocate",
        Kind::Bool,
        Some("false"),
        "Reserve the disk space of a segment when it is created.",
    )
    .synonyms(&[same("log.preallocate")]),
];

/// What records may look like, and who must have them.
const RECORDS: &[ConfigDef] = &[
    ConfigDef::topic(
        "max.message.bytes",
        NATURAL_INT,
        Some("1048588"),
        "The largest record batch that is taken, in bytes, after compression.",
    )
    .synonyms(&[same("message.max.bytes")]),
    ConfigDef::topic(
        "compression.type",
        Kind::Enum(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        Some("producer"),
        "The codec in which batches are kept. producer keeps what arrives; any other rewrites batches that use \
         another codec.",
    )
    .synonyms(&[same("compression.type")]),
    ConfigDef::topic(
        "compression.gzip.level",
        Kind::Levels { usual: -1, min: 1, max: 9 },
        Some("-1"),
        "Level for compression.type=gzip; -1 is zlib's own default.",
    )
    .synonyms(&[same("compression.gzip.level")]),
    ConfigDef::topic(
        "compression.lz4.level",
        Kind::Levels { usual: 9, min: 1, max: 17 },
        Some("9"),
        "Level for compression.type=lz4. The default is the fast encoder; every other level is that of the one that \
         compresses more.",
    )
    .synonyms(&[same("compression.lz4.level")]),
    ConfigDef::topic(
        "compression.zstd.level",
        Kind::Levels { usual: 3, min: -131_072, max: 22 },
        Some("3"),
        "Level for compression.type=zstd.",
    )
    .synonyms(&[same("compression.zstd.level")]),
    ConfigDef::topic(
        "message.timestamp.type",
        Kind::Enum(&["CreateTime", "LogAppendTime"]),
        Some("CreateTime"),
        "Whether a record carries the time at which its producer made it, or the time at which it was appended.",
    )
    .synonyms(&[same("log.message.timestamp.type")]),
    ConfigDef::topic(
        "message.timestamp.before.max.ms",
        NATURAL_LONG,
        Some(LONG_MAX),
        "A record whose timestamp is older than the broker's clock by more than this is refused, in milliseconds. \
         Does not apply to LogAppendTime.",
    )
    .synonyms(&[same("log.message.timestamp.before.max.ms")]),
    ConfigDef::topic(
        "message.timestamp.after.max.ms",
        NATURAL_LONG,
        Some("3600000"),
        "A record whose timestamp is ahead of the broker's clock by more than this is refused, in milliseconds. \
         Does not apply to LogAppendTime.",
    )
    .synonyms(&[same("log.message.timestamp.after.max.ms")]),
    ConfigDef::topic(
        "min.insync.replicas",
        POSITIVE_INT,
        Some("1"),
        "A write with acks=all is refused while fewer replicas than this are in sync. A partition with fewer replicas \
         than this needs all of them.",
    )
    .synonyms(&[same("min.insync.replicas")]),
    ConfigDef::topic(
        "unclean.leader.election.enable",
        Kind::Bool,
        Some("false"),
        "Let a replica lead that was not in sync when no other is left: available again, at the price of \
         acknowledged records.",
    )
    .synonyms(&[same("unclean.leader.election.enable")]),
    ConfigDef::topic(
        "leader.replication.throttled.replicas",
        Kind::Replicas,
        Some(""),
        "Leaders that send at leader.replication.throttled.rate to replicas that are not in sync, as partition:broker pairs or *.",
    ),
    ConfigDef::topic(
        "follower.replication.throttled.replicas",
        Kind::Replicas,
        Some(""),
        "Replicas that fetch at follower.replication.throttled.rate while they are not in sync, as partition:broker pairs or *.",
    ),
];

/// What is kept, and for how long.
const CLEANING: &[ConfigDef] = &[
    ConfigDef::topic(
        "cleanup.policy",
        Kind::List(&["compact", "delete"]),
        Some("delete"),
        "delete drops segments by retention; compact keeps the last record of each key; both may be combined. Empty \
         keeps everything.",
    )
    .synonyms(&[same("log.cleanup.policy")]),
    ConfigDef::topic(
        "retention.ms",
        Kind::Long { min: -1, max: i64::MAX },
        Some("604800000"),
        "Records are kept for at least this many milliseconds, counted over local disk and archive together; -1 keeps \
         them for ever.",
    )
    .synonyms(&[same("log.retention.ms"), minutes("log.retention.minutes"), hours("log.retention.hours")]),
    ConfigDef::topic(
        "retention.bytes",
        ANY_LONG,
        Some("-1"),
        "The oldest segments go when a partition is larger than this, counted over local disk and archive together, \
         each record once; -1 sets no limit.",
    )
    .synonyms(&[same("log.retention.bytes")]),
    ConfigDef::topic(
        "delete.retention.ms",
        NATURAL_LONG,
        Some("86400000"),
        "How long a compacted topic keeps a tombstone, so that readers can see that the key is gone, in milliseconds.",
    )
    .synonyms(&[same("log.cleaner.delete.retention.ms")]),
    ConfigDef::topic(
        "min.compaction.lag.ms",
        NATURAL_LONG,
        Some("0"),
        "A record stays uncompacted for at least this many milliseconds.",
    )
    .synonyms(&[same("log.cleaner.min.compaction.lag.ms")]),
    ConfigDef::topic(
        "max.compaction.lag.ms",
        POSITIVE_LONG,
        Some(LONG_MAX),
        "A record may stay uncompacted for at most this many milliseconds.",
    )
    .synonyms(&[same("log.cleaner.max.compaction.lag.ms")]),
    ConfigDef::topic(
        "min.cleanable.dirty.ratio",
        Kind::Double { min: 0.0, max: 1.0 },
        Some("0.5"),
        "A compacted log is cleaned when at least this share of its bytes has not been cleaned before.",
    )
    .synonyms(&[same("log.cleaner.min.cleanable.ratio")]),
];

/// Local disk and archive.
const TIERS: &[ConfigDef] = &[
    ConfigDef::topic(
        "remote.storage.enable",
        Kind::Bool,
        Some("true"),
        "Archive sealed segments in the object store. On by default, unlike in Kafka, and for compacted topics too.",
    )
    .synonyms(&[same("remote.log.storage.system.enable")]),
    ConfigDef::topic(
        "remote.log.copy.disable",
        Kind::Bool,
        Some("false"),
        "Archive nothing more; what is in the archive stays readable and expires as usual.",
    ),
    ConfigDef::topic(
        "remote.log.delete.on.disable",
        Kind::Bool,
        Some("false"),
        "When remote.storage.enable is turned off, delete the archived part of the topic.",
    ),
    ConfigDef::topic(
        "local.retention.ms",
        Kind::Long { min: -2, max: i64::MAX },
        Some("-2"),
        "Archived segments leave the local disk after this many milliseconds; -2 means as long as retention.ms, -1 \
         for ever.",
    )
    .synonyms(&[same("log.local.retention.ms")]),
    ConfigDef::topic(
        "local.retention.bytes",
        Kind::Long { min: -2, max: i64::MAX },
        Some("-2"),
        "Archived segments leave the local disk, oldest first, when a partition takes more than this many bytes \
         there; -2 means as much as retention.bytes, -1 sets no limit.",
    )
    .synonyms(&[same("log.local.retention.bytes")]),
    ConfigDef::topic(
        "varve.archive.lag.ms",
        Kind::Long { min: -1, max: i64::MAX },
        Some("900000"),
        "A record reaches the archive at the latest this many milliseconds after its append, even if its partition \
         is quiet and the segment small; -1 waits until the segment is sealed by size or segment.ms.",
    )
    .synonyms(&[same("varve.archive.lag.ms")]),
    ConfigDef::topic(
        "varve.archive.format",
        Kind::Enum(&["parquet", "raw"]),
        Some("parquet"),
        "parquet rewrites archived segments as tables that consumers and analysts read alike; raw leaves them as \
         they were uploaded.",
    )
    .synonyms(&[same("varve.archive.format")]),
    ConfigDef::topic(
        "varve.archive.fetch.compression",
        Kind::Enum(&["none", "producer"]),
        Some("none"),
        "How batches that come back from Parquet are sent: uncompressed, or compressed again with the codec they \
         were produced in, which costs about three times the CPU.",
    )
    .synonyms(&[same("varve.archive.fetch.compression")]),
];
