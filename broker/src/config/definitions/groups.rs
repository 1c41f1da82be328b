//! Consumer groups and their offsets.

use super::*;

const TASKS: &str = "groups are not bound to pools of threads; varve.worker.threads sizes the one runtime";

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    def(
        "group.initial.rebalance.delay.ms",
        NATURAL_INT,
        "3000",
        "How long an empty group waits for more members after its first, in milliseconds.",
    ),
    def(
        "group.min.session.timeout.ms",
        NATURAL_INT,
        "6000",
        "The shortest session timeout that a member may ask for, in milliseconds.",
    ),
    def(
        "group.max.session.timeout.ms",
        NATURAL_INT,
        "1800000",
        "The longest session timeout that a member may ask for, in milliseconds.",
    ),
    def("group.max.size", POSITIVE_INT, INT_MAX, "The most members of one group."),
    high(def(
        "offsets.topic.num.partitions",
        POSITIVE_INT,
        "50",
        "Partitions of the topic of committed offsets; leave it once that topic exists.",
    )),
    high(def(
        "offsets.topic.replication.factor",
        POSITIVE_SHORT,
        "3",
        "Replicas of the topic of committed offsets, or as many as there are nodes if those are fewer.",
    )),
    high(def(
        "offsets.topic.segment.bytes",
        POSITIVE_INT,
        "104857600",
        "Segment size of the topic of committed offsets, in bytes.",
    )),
    high(def(
        "offsets.topic.compression.codec",
        Kind::Int { min: 0, max: 4 },
        "0",
        "Codec of the topic of committed offsets, by number: none, gzip, snappy, lz4, zstd.",
    )),
    high(def(
        "offsets.retention.minutes",
        POSITIVE_INT,
        "10080",
        "How long the offsets of an empty group are kept, in minutes.",
    )),
    high(def(
        "offsets.retention.check.interval.ms",
        POSITIVE_LONG,
        "600000",
        "How often stale offsets are looked for, in milliseconds.",
    )),
    def(
        "varve.group.lag.interval.ms",
        POSITIVE_LONG,
        "30000",
        "How often it is looked how far groups are behind, for varve_group_lag_records at /metrics, in milliseconds.",
    ),
    high(def(
        "offset.metadata.max.bytes",
        NATURAL_INT,
        "4096",
        "The most text that a client may attach to a committed offset, in bytes.",
    )),
    high(def(
        "offsets.commit.timeout.ms",
        POSITIVE_INT,
        "5000",
        "The longest that a commit waits for its replicas, in milliseconds.",
    ))
    .no_effect("a commit waits for the replicas in sync as long as its client does"),
    high(def(
        "offsets.load.buffer.size",
        POSITIVE_INT,
        "5242880",
        "Bytes read at once when a coordinator loads its offsets.",
    )),
    high(def("group.coordinator.threads", POSITIVE_INT, "4", "Threads of the group coordinator.")).no_effect(TASKS),
    high(def(
        "group.coordinator.background.threads",
        POSITIVE_INT,
        "2",
        "Threads for the group coordinator's background work.",
    ))
    .no_effect(TASKS),
    low(def(
        "group.coordinator.append.linger.ms",
        Kind::Int { min: -1, max: i32::MAX },
        "-1",
        "How long the group coordinator gathers writes, in milliseconds; -1 adapts.",
    ))
    .no_effect("the group coordinator gathers what arrives while its last write is under way, and waits for no more"),
    low(def(
        "group.coordinator.cached.buffer.max.bytes",
        Kind::Int { min: 524_288, max: i32::MAX },
        "1048588",
        "The largest write buffer that the group coordinator keeps, in bytes.",
    )
    .dynamic())
    .no_effect("the group coordinator keeps no write buffers"),
    def(
        "group.coordinator.rebalance.protocols",
        Kind::List(&["classic", "consumer", "share", "streams"]),
        "classic,consumer,streams",
        "Group protocols that are served.",
    ),
    // KIP-848
    def(
        "group.consumer.assignors",
        Kind::List(&["uniform", "range"]),
        "uniform,range",
        "Assignors of consumer groups on the broker's side.",
    ),
    def("group.consumer.max.size", POSITIVE_INT, INT_MAX, "The most members of one consumer group."),
    def(
        "group.consumer.migration.policy",
        Kind::Text,
        "bidirectional",
        "Which groups may change their protocol while in use.",
    ),
    def(
        "group.consumer.assignment.interval.ms",
        NATURAL_INT,
        "1000",
        "Time between two assignments of a consumer group, in milliseconds.",
    )
    .dynamic(),
    def(
        "group.consumer.min.assignment.interval.ms",
        NATURAL_INT,
        "0",
        "The shortest such time that a group may set, in milliseconds.",
    ),
    def(
        "group.consumer.max.assignment.interval.ms",
        NATURAL_INT,
        "15000",
        "The longest such time that a group may set, in milliseconds.",
    ),
    def(
        "group.consumer.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        "Heartbeat interval of consumer groups, in milliseconds.",
    ),
    def(
        "group.consumer.min.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        "The shortest heartbeat interval that a group may set, in milliseconds.",
    ),
    def(
        "group.consumer.max.heartbeat.interval.ms",
        POSITIVE_INT,
        "15000",
        "The longest heartbeat interval that a group may set, in milliseconds.",
    ),
    def(
        "group.consumer.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        "Session timeout of consumer groups, in milliseconds.",
    ),
    def(
        "group.consumer.min.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        "The shortest session timeout that a group may set, in milliseconds.",
    ),
    def(
        "group.consumer.max.session.timeout.ms",
        POSITIVE_INT,
        "60000",
        "The longest session timeout that a group may set, in milliseconds.",
    ),
    low(def(
        "group.consumer.regex.refresh.interval.ms",
        Kind::Int { min: 10_000, max: i32::MAX },
        "600000",
        "How often subscriptions by pattern are resolved again, in milliseconds.",
    ))
    .internal(),
    // KIP-1071
    def("group.streams.max.size", POSITIVE_INT, INT_MAX, "The most members of one streams group."),
    def("group.streams.num.standby.replicas", NATURAL_INT, "0", "Standby copies of each streams task."),
    def("group.streams.max.standby.replicas", NATURAL_INT, "2", "The most standby copies that a group may set."),
    def(
        "group.streams.initial.rebalance.delay.ms",
        NATURAL_INT,
        "3000",
        "How long an empty streams group waits for more members, in milliseconds.",
    ),
    def(
        "group.streams.assignment.interval.ms",
        NATURAL_INT,
        "1000",
        "Time between two assignments of a streams group, in milliseconds.",
    )
    .dynamic(),
    def(
        "group.streams.min.assignment.interval.ms",
        NATURAL_INT,
        "0",
        "The shortest such time that a group may set, in milliseconds.",
    ),
    def(
        "group.streams.max.assignment.interval.ms",
        NATURAL_INT,
        "15000",
        "The longest such time that a group may set, in milliseconds.",
    ),
    def(
        "group.streams.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        "Heartbeat interval of streams groups, in milliseconds.",
    ),
    def(
        "group.streams.min.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        "The shortest heartbeat interval that a group may set, in milliseconds.",
    ),
    def(
        "group.streams.max.heartbeat.interval.ms",
        POSITIVE_INT,
        "15000",
        "The longest heartbeat interval that a group may set, in milliseconds.",
    ),
    def(
        "group.streams.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        "Session timeout of streams groups, in milliseconds.",
    ),
    def(
        "group.streams.min.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        "The shortest session timeout that a group may set, in milliseconds.",
    ),
    def(
        "group.streams.max.session.timeout.ms",
        POSITIVE_INT,
        "60000",
        "The longest session timeout that a group may set, in milliseconds.",
    ),
];
