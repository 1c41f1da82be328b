//! Copies of a partition on other nodes.

use super::*;

const AT_ONCE: &str = "a partition without a leader is looked at whenever something changes";
const BY_THE_SYSTEM: &str = "the operating system chooses it";
const CHECKPOINTS: &str = "they are written with the recovery points: log.flush.offset.checkpoint.interval.ms";
const ALWAYS: &str = "a follower always begins where its leader's local log does";
const BUCKET: &str = "a rate is kept over one second, whose bytes may go at once";

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    high(def(
        "replica.lag.time.max.ms",
        POSITIVE_LONG,
        "30000",
        "A follower that is behind for longer than this leaves the in-sync replicas, in milliseconds.",
    )),
    high(def(
        "replica.high.watermark.checkpoint.interval.ms",
        ANY_LONG,
        "5000",
        "How often high watermarks are written to disk, in milliseconds.",
    ))
    .no_effect(CHECKPOINTS),
    high(def(
        "replica.fetch.wait.max.ms",
        NATURAL_INT,
        "500",
        "The longest that a follower's fetch waits, in milliseconds.",
    )),
    high(def("replica.fetch.min.bytes", NATURAL_INT, "1", "Bytes that a follower's fetch waits for.")),
    def("replica.fetch.max.bytes", NATURAL_INT, "1048576", "Bytes per partition that a follower fetches at once."),
    def(
        "replica.fetch.response.max.bytes",
        NATURAL_INT,
        "10485760",
        "Bytes that a follower fetches at once, over all partitions.",
    ),
    def("replica.fetch.backoff.ms", NATURAL_INT, "1000", "Pause of a follower after a failed fetch, in milliseconds."),
    high(def(
        "replica.socket.timeout.ms",
        POSITIVE_INT,
        "30000",
        "How long a follower waits for its leader, in milliseconds.",
    )),
    high(def(
        "replica.socket.receive.buffer.bytes",
        ANY_INT,
        "65536",
        "Receive buffer of a follower's connection, in bytes.",
    ))
    .no_effect(BY_THE_SYSTEM),
    high(
        def(
            "num.replica.fetchers",
            POSITIVE_INT,
            "1",
            "Connections with which a follower fetches from one leader. May change while the broker runs, by at most twice \
             or half at a time.",
        )
        .dynamic(),
    ),
    unset(
        "replica.selector.class",
        Kind::Enum(&[
            "org.apache.kafka.common.replica.RackAwareReplicaSelector",
            "org.apache.kafka.common.replica.LeaderSelector",
        ]),
        "Where consumers are sent to read: to a replica in sync that is in their rack (client.rack, broker.rack), or to the \
         leader, also if unset.",
    ),
    def(
        "follower.fetch.last.tiered.offset.enable",
        Kind::Bool,
        "false",
        "Let an empty follower begin where the archive ends.",
    )
    .dynamic()
    .no_effect(ALWAYS),
    high(def(
        "auto.leader.rebalance.enable",
        Kind::Bool,
        "true",
        "Give leadership back to preferred replicas by itself.",
    )),
    high(def(
        "leader.imbalance.check.interval.seconds",
        POSITIVE_LONG,
        "300",
        "How often leadership is compared with the preferred one, in seconds.",
    )),
    low(def(
        "unclean.leader.election.interval.ms",
        POSITIVE_LONG,
        "300000",
        "How often partitions without a leader are looked at, in milliseconds.",
    ))
    .no_effect(AT_ONCE)
    .internal(),
    def("controlled.shutdown.enable", Kind::Bool, "true", "Hand leadership over before stopping."),
    low(def(
        "leader.replication.throttled.rate",
        NATURAL_LONG,
        LONG_MAX,
        "Bytes per second that this broker, as the leader of replicas that are throttled \
         (leader.replication.throttled.replicas of topics), sends to such that are not in sync.",
    )
    .dynamic()),
    low(def(
        "follower.replication.throttled.rate",
        NATURAL_LONG,
        LONG_MAX,
        "Bytes per second that this broker fetches for replicas that are throttled \
         (follower.replication.throttled.replicas of topics) while they are not in sync.",
    )
    .dynamic()),
    low(def(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        NATURAL_LONG,
        LONG_MAX,
        "Bytes per second of moves between log directories.",
    )
    .dynamic()),
    low(def("replication.quota.window.num", POSITIVE_INT, "11", "Samples kept for replication rates."))
        .no_effect(BUCKET),
    low(def(
        "replication.quota.window.size.seconds",
        POSITIVE_INT,
        "1",
        "The time span of one such sample, in seconds.",
    ))
    .no_effect(BUCKET),
    low(def(
        "alter.log.dirs.replication.quota.window.num",
        POSITIVE_INT,
        "11",
        "Samples kept for the rate of moves between log directories.",
    ))
    .no_effect(BUCKET),
    low(def(
        "alter.log.dirs.replication.quota.window.size.seconds",
        POSITIVE_INT,
        "1",
        "The time span of one such sample, in seconds.",
    ))
    .no_effect(BUCKET),
];
