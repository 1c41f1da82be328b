//! Topics, where their logs lie, how those are flushed, kept and cleaned on the local disk.

use super::*;

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    high(unset(
        "log.dirs",
        ANY_LIST,
        "Directories for the logs of partitions, comma-separated, best one per disk. If unset, log.dir; if that is \
         unset too, the directory log in varve.data.dir.",
    )),
    high(unset("log.dir", ANY_LIST, "One directory for the logs of partitions; log.dirs replaces it.")),
    def(
        "cordoned.log.dirs",
        ANY_LIST,
        "",
        "Log directories that get no new partitions, out of log.dirs; * means all, and keeps the controller from placing \
         replicas on the broker.",
    )
    .dynamic(),
    high(def("num.partitions", POSITIVE_INT, "1", "Partitions of a topic that is created without saying how many.")),
    def(
        "default.replication.factor",
        POSITIVE_INT,
        "1",
        "Replicas of a topic that is created without saying how many.",
    ),
    high(def(
        "auto.create.topics.enable",
        Kind::Bool,
        "true",
        "Create a topic when a client that allows it asks for one that does not exist.",
    )),
    high(def("delete.topic.enable", Kind::Bool, "true", "Allow topics to be deleted.")),
    low(unset("create.topic.policy.class.name", Kind::Class, "A Java class that may forbid the creation of a topic."))
        .refused("no Java classes are loaded, and the rules that it enforces would be lost"),
    low(unset("alter.config.policy.class.name", Kind::Class, "A Java class that may forbid a change of settings."))
        .refused("no Java classes are loaded, and the rules that it enforces would be lost"),
    high(
        def(
            "num.recovery.threads.per.data.dir",
            POSITIVE_INT,
            "2",
            "Logs that are opened, recovered and closed at the same time, per log directory.",
        )
        .dynamic(),
    ),
    low(unset(
        "num.replica.alter.log.dirs.threads",
        POSITIVE_INT,
        "Logs that move between log directories at the same time; if unset, as many as there are directories.",
    )),
    low(def(
        "log.dir.failure.timeout.ms",
        POSITIVE_LONG,
        "30000",
        "How long a broker goes on that cannot report a failed log directory.",
    ))
    .no_effect("a failed log directory is told to the other brokers through etcd, which is tried for as long as it takes"),
    // Segments
    high(
        def(
            "log.segment.bytes",
            Kind::Int { min: 1_048_576, max: i32::MAX },
            "1073741824",
            "Default of segment.bytes.",
        )
        .dynamic(),
    ),
    high(unset("log.roll.ms", POSITIVE_LONG, "Default of segment.ms; if unset, log.roll.hours.").dynamic()),
    high(def("log.roll.hours", POSITIVE_INT, "168", "Default of segment.ms, in hours.")),
    high(
        unset("log.roll.jitter.ms", NATURAL_LONG, "Default of segment.jitter.ms; if unset, log.roll.jitter.hours.")
            .dynamic(),
    ),
    high(def("log.roll.jitter.hours", NATURAL_INT, "0", "Default of segment.jitter.ms, in hours.")),
    def("log.index.size.max.bytes", Kind::Int { min: 4, max: i32::MAX }, "10485760", "Default of segment.index.bytes.")
        .dynamic(),
    def("log.index.interval.bytes", NATURAL_INT, "4096", "Default of index.interval.bytes.").dynamic(),
    def("log.preallocate", Kind::Bool, "false", "Default of preallocate.").dynamic(),
    high(def("log.segment.delete.delay.ms", NATURAL_LONG, "60000", "Default of file.delete.delay.ms.").dynamic()),
    // Flushing
    high(def("log.flush.interval.messages", POSITIVE_LONG, LONG_MAX, "Default of flush.messages.").dynamic()),
    high(
        unset("log.flush.interval.ms", NATURAL_LONG, "Default of flush.ms; if unset, log.flush.scheduler.interval.ms.")
            .dynamic(),
    ),
    high(def(
        "log.flush.scheduler.interval.ms",
        NATURAL_LONG,
        LONG_MAX,
        "How often logs are looked at for records that are due to be forced to disk, in milliseconds.",
    )),
    high(def(
        "log.flush.offset.checkpoint.interval.ms",
        NATURAL_INT,
        "60000",
        "How often the recovery points are written that bound the work after a crash, in milliseconds.",
    )),
    high(def(
        "log.flush.start.offset.checkpoint.interval.ms",
        NATURAL_INT,
        "60000",
        "How often the log start offsets are written, in milliseconds.",
    ))
    .no_effect(
        "log start offsets are written together with the recovery points, as often as \
         log.flush.offset.checkpoint.interval.ms says",
    ),
    low(def(
        "log.initial.task.delay.ms",
        NATURAL_LONG,
        "30000",
        "How long background work on logs waits after the start, in milliseconds.",
    ))
    .no_effect("background work begins with the node and takes turns with what clients ask for")
    .internal(),
    // Records
    high(
        def("message.max.bytes", NATURAL_INT, "1048588", "Default of max.message.bytes: the largest record batch.")
            .dynamic(),
    ),
    high(
        def(
            "compression.type",
            Kind::Enum(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
            "producer",
            "Default of the topic setting compression.type.",
        )
        .dynamic(),
    ),
    def(
        "compression.gzip.level",
        Kind::Levels { usual: -1, min: 1, max: 9 },
        "-1",
        "Default of the topic setting compression.gzip.level.",
    )
    .dynamic(),
    def(
        "compression.lz4.level",
        Kind::Levels { usual: 9, min: 1, max: 17 },
        "9",
        "Default of the topic setting compression.lz4.level.",
    )
    .dynamic(),
    def(
        "compression.zstd.level",
        Kind::Levels { usual: 3, min: -131_072, max: 22 },
        "3",
        "Default of the topic setting compression.zstd.level.",
    )
    .dynamic(),
    def(
        "log.message.timestamp.type",
        Kind::Enum(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "Default of message.timestamp.type.",
    )
    .dynamic(),
    def("log.message.timestamp.before.max.ms", NATURAL_LONG, LONG_MAX, "Default of message.timestamp.before.max.ms.")
        .dynamic(),
    def("log.message.timestamp.after.max.ms", NATURAL_LONG, "3600000", "Default of message.timestamp.after.max.ms.")
        .dynamic(),
    high(def("min.insync.replicas", POSITIVE_INT, "1", "Default of the topic setting min.insync.replicas.").dynamic()),
    high(
        def(
            "unclean.leader.election.enable",
            Kind::Bool,
            "false",
            "Default of the topic setting unclean.leader.election.enable.",
        )
        .dynamic(),
    ),
    // Keeping and cleaning
    def("log.cleanup.policy", Kind::List(&["compact", "delete"]), "delete", "Default of cleanup.policy.").dynamic(),
    high(unset("log.retention.ms", LIMIT, "Default of retention.ms; if unset, log.retention.minutes.").dynamic()),
    high(unset(
        "log.retention.minutes",
        ANY_INT,
        "Default of retention.ms, in minutes; if unset, log.retention.hours.",
    )),
    high(def("log.retention.hours", ANY_INT, "168", "Default of retention.ms, in hours; -1 keeps records for ever.")),
    high(def("log.retention.bytes", ANY_LONG, "-1", "Default of retention.bytes, per partition.").dynamic()),
    def(
        "log.retention.check.interval.ms",
        POSITIVE_LONG,
        "300000",
        "How often logs are looked at for segments that are due to go, in milliseconds.",
    ),
    def(
        "log.cleaner.enable",
        Kind::Bool,
        "true",
        "Clean compacted topics. Consumer offsets live in one: turning it off lets that topic grow without \
         end.",
    ),
    def("log.cleaner.threads", NATURAL_INT, "1", "Logs that are cleaned at the same time.").dynamic(),
    def(
        "log.cleaner.backoff.ms",
        NATURAL_LONG,
        "15000",
        "How long the cleaner sleeps when nothing is dirty enough, in milliseconds.",
    )
    .dynamic(),
    def(
        "log.cleaner.dedupe.buffer.size",
        POSITIVE_LONG,
        "134217728",
        "The most memory for the keys of logs under cleaning, in bytes, shared by all cleaner threads; taken \
         when needed.",
    )
    .dynamic(),
    low(def(
        "log.cleaner.io.buffer.load.factor",
        Kind::Double { min: 0.0, max: 1.0 },
        "0.9",
        "How full the table of keys may get. Fuller cleans more per pass, with more collisions.",
    )
    .dynamic())
    .no_effect("the table of keys grows as it fills, up to three quarters, within log.cleaner.dedupe.buffer.size"),
    low(def(
        "log.cleaner.io.buffer.size",
        NATURAL_INT,
        "524288",
        "The cleaner's read and write buffers, in bytes, over all its threads.",
    )
    .dynamic())
    .no_effect("the cleaner reads through the page cache, one batch at a time"),
    def(
        "log.cleaner.io.max.bytes.per.second",
        Kind::Double { min: 0.0, max: f64::MAX },
        "1.7976931348623157E308",
        "The most bytes that the cleaner reads and writes per second.",
    )
    .dynamic(),
    def("log.cleaner.delete.retention.ms", NATURAL_LONG, "86400000", "Default of delete.retention.ms.").dynamic(),
    def("log.cleaner.min.compaction.lag.ms", NATURAL_LONG, "0", "Default of min.compaction.lag.ms.").dynamic(),
    def("log.cleaner.max.compaction.lag.ms", POSITIVE_LONG, LONG_MAX, "Default of max.compaction.lag.ms.").dynamic(),
    def(
        "log.cleaner.min.cleanable.ratio",
        Kind::Double { min: 0.0, max: 1.0 },
        "0.5",
        "Default of min.cleanable.dirty.ratio.",
    )
    .dynamic(),
];
