//! Share groups (KIP-932).

use super::*;

const NO_THREADS: &str = "coordinators run on the node's own threads";
const NO_LINGER: &str = "what happens at once is written at once";
const NO_BUFFER: &str = "no buffers are kept between writes";
const NO_WAIT: &str = "a write is answered once it is committed, or the node stops leading";
const NO_CLASS: &str = "state is kept in __share_group_state, as by Kafka's default";

const fn share(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> ConfigDef {
    low(def(name, kind, default, doc))
}

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    share("group.share.assignors", ANY_LIST, "simple", "Assignor of share groups."),
    share("group.share.max.size", Kind::Int { min: 1, max: 1000 }, "200", "The most members of one share group."),
    share("group.share.max.share.sessions", POSITIVE_INT, "2000", "The most share sessions of this node."),
    share(
        "group.share.delivery.count.limit",
        Kind::Int { min: 2, max: 10 },
        "5",
        "How often a record is delivered at most.",
    ),
    share(
        "group.share.min.delivery.count.limit",
        Kind::Int { min: 2, max: 5 },
        "2",
        "The smallest such limit that a group may set.",
    ),
    share(
        "group.share.max.delivery.count.limit",
        Kind::Int { min: 5, max: 25 },
        "10",
        "The largest such limit that a group may set.",
    ),
    share(
        "group.share.record.lock.duration.ms",
        Kind::Int { min: 1000, max: 3_600_000 },
        "30000",
        "How long a record is one member's, in milliseconds.",
    ),
    share(
        "group.share.min.record.lock.duration.ms",
        Kind::Int { min: 1000, max: 30_000 },
        "15000",
        "The shortest such time that a group may set, in milliseconds.",
    ),
    share(
        "group.share.max.record.lock.duration.ms",
        Kind::Int { min: 30_000, max: 3_600_000 },
        "60000",
        "The longest such time that a group may set, in milliseconds.",
    ),
    share(
        "group.share.partition.max.record.locks",
        Kind::Int { min: 100, max: 10_000 },
        "2000",
        "Records of one partition that are out at one time.",
    ),
    share(
        "group.share.min.partition.max.record.locks",
        Kind::Int { min: 100, max: 2000 },
        "100",
        "The smallest such number that a group may set.",
    ),
    share(
        "group.share.max.partition.max.record.locks",
        Kind::Int { min: 2000, max: 10_000 },
        "4000",
        "The largest such number that a group may set.",
    ),
    share(
        "group.share.assignment.interval.ms",
        NATURAL_INT,
        "1000",
        "Time between two assignments of a share group, in milliseconds.",
    )
    .dynamic(),
    share(
        "group.share.min.assignment.interval.ms",
        NATURAL_INT,
        "0",
        "The shortest such time that a group may set, in milliseconds.",
    ),
    share(
        "group.share.max.assignment.interval.ms",
        NATURAL_INT,
        "15000",
        "The longest such time that a group may set, in milliseconds.",
    ),
    share(
        "group.share.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        "Heartbeat interval of share groups, in milliseconds.",
    ),
    share(
        "group.share.min.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        "The shortest heartbeat interval that a group may set, in milliseconds.",
    ),
    share(
        "group.share.max.heartbeat.interval.ms",
        POSITIVE_INT,
        "15000",
        "The longest heartbeat interval that a group may set, in milliseconds.",
    ),
    share("group.share.session.timeout.ms", POSITIVE_INT, "45000", "Session timeout of share groups, in milliseconds."),
    share(
        "group.share.min.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        "The shortest session timeout that a group may set, in milliseconds.",
    ),
    share(
        "group.share.max.session.timeout.ms",
        POSITIVE_INT,
        "60000",
        "The longest session timeout that a group may set, in milliseconds.",
    ),
    share(
        "group.share.initialize.retry.interval.ms",
        POSITIVE_INT,
        "30000",
        "Pause before the state of a share group is set up again, in milliseconds.",
    )
    .internal(),
    share(
        "group.share.persister.class.name",
        Kind::Class,
        "org.apache.kafka.server.share.persister.DefaultStatePersister",
        "The Java class that keeps the state of share groups.",
    )
    .no_effect(NO_CLASS)
    .internal(),
    share("share.coordinator.threads", POSITIVE_INT, "1", "Threads of the share coordinator.").no_effect(NO_THREADS),
    share(
        "share.coordinator.write.timeout.ms",
        POSITIVE_INT,
        "5000",
        "The longest that the share coordinator waits for its replicas, in milliseconds.",
    )
    .no_effect(NO_WAIT),
    share(
        "share.coordinator.append.linger.ms",
        Kind::Int { min: -1, max: i32::MAX },
        "-1",
        "How long the share coordinator gathers writes, in milliseconds.",
    )
    .no_effect(NO_LINGER),
    share(
        "share.coordinator.cached.buffer.max.bytes",
        Kind::Int { min: 524_288, max: i32::MAX },
        "1048588",
        "The largest write buffer that the share coordinator keeps, in bytes.",
    )
    .no_effect(NO_BUFFER)
    .dynamic(),
    share(
        "share.coordinator.load.buffer.size",
        POSITIVE_INT,
        "5242880",
        "Bytes read at once when the share coordinator loads.",
    ),
    share(
        "share.coordinator.snapshot.update.records.per.snapshot",
        Kind::Int { min: 0, max: 500 },
        "500",
        "Updates between two snapshots of share state.",
    ),
    share(
        "share.coordinator.cold.partition.snapshot.interval.ms",
        POSITIVE_INT,
        "300000",
        "Time between snapshots of quiet share state, in milliseconds.",
    )
    .internal(),
    share(
        "share.coordinator.state.topic.num.partitions",
        POSITIVE_INT,
        "50",
        "Partitions of the topic of share state.",
    ),
    share(
        "share.coordinator.state.topic.replication.factor",
        POSITIVE_SHORT,
        "3",
        "Replicas of the topic of share state.",
    ),
    share(
        "share.coordinator.state.topic.min.isr",
        POSITIVE_SHORT,
        "2",
        "Replicas of the topic of share state that must be in sync.",
    ),
    share(
        "share.coordinator.state.topic.segment.bytes",
        POSITIVE_INT,
        "104857600",
        "Segment size of the topic of share state, in bytes.",
    ),
    share(
        "share.coordinator.state.topic.compression.codec",
        ANY_INT,
        "0",
        "Codec of the topic of share state, by number.",
    ),
    share(
        "share.coordinator.state.topic.prune.interval.ms",
        POSITIVE_INT,
        "300000",
        "How often share state that nobody needs is removed, in milliseconds.",
    )
    .internal(),
];
