//! Names that Kafka 4 dropped but that old properties files still carry.

use super::*;

const NO_ZOOKEEPER: &str = "there is no ZooKeeper; set varve.metadata.url, to embedded:directory (or leave \
         it out) for one node";
const ZOOKEEPER_GONE: &str = "there is no ZooKeeper; cluster state lies in the store that varve.metadata.url names";
const FORMAT: &str = "records are always kept in message format 2, the only one that Kafka 4 knows";
const VERSION: &str = "requests are versioned one by one, and every released version that Kafka 4 serves is served";
const QUOTA: &str = "Kafka 4 sets it while running: kafka-configs.sh --entity-type clients --entity-default --alter";
const WRITTEN: &str = "a broker of Kafka 4 does not know it either";

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    high(unset("zookeeper.connect", Kind::Text, "ZooKeeper's addresses.")).refused(NO_ZOOKEEPER),
    low(unset("zookeeper.connection.timeout.ms", ANY_INT, "How long to wait for ZooKeeper, in milliseconds."))
        .no_effect(ZOOKEEPER_GONE),
    low(unset("zookeeper.session.timeout.ms", ANY_INT, "ZooKeeper's session timeout, in milliseconds."))
        .no_effect(ZOOKEEPER_GONE),
    low(unset("zookeeper.max.in.flight.requests", ANY_INT, "Requests to ZooKeeper at one time."))
        .no_effect(ZOOKEEPER_GONE),
    low(unset("zookeeper.set.acl", Kind::Bool, "Whether nodes in ZooKeeper were protected.")).no_effect(ZOOKEEPER_GONE),
    low(unset("zookeeper.metadata.migration.enable", Kind::Bool, "Move the cluster's state out of ZooKeeper."))
        .refused(NO_ZOOKEEPER),
    high(unset("host.name", Kind::Text, "Old form of listeners: the address to listen on.")),
    high(unset("port", Kind::Int { min: 0, max: 65_535 }, "Old form of listeners: the port to listen on.")),
    high(unset(
        "advertised.host.name",
        Kind::Text,
        "Old form of advertised.listeners: the host that clients are told.",
    )),
    high(unset(
        "advertised.port",
        Kind::Int { min: 1, max: 65_535 },
        "Old form of advertised.listeners: the port that clients are told.",
    )),
    unset("inter.broker.protocol.version", Kind::Text, "Version of Kafka that brokers spoke with each other.")
        .no_effect(VERSION),
    unset("log.message.format.version", Kind::Text, "Version of Kafka whose record format was written.")
        .no_effect(FORMAT),
    unset("log.message.downconversion.enable", Kind::Bool, "Whether records were converted for old consumers.")
        .no_effect(FORMAT),
    unset(
        "log.message.timestamp.difference.max.ms",
        NATURAL_LONG,
        "How far a record's timestamp may differ from the broker's clock, in milliseconds.",
    )
    .refused("Kafka 4 split it: set log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms"),
    unset("control.plane.listener.name", Kind::Text, "The listener for the controller's requests.").no_effect(WRITTEN),
    low(unset("broker.id.generation.enable", Kind::Bool, "Whether ZooKeeper gave out broker ids."))
        .no_effect(ZOOKEEPER_GONE),
    low(unset("reserved.broker.max.id", NATURAL_INT, "The largest id that ZooKeeper did not give out."))
        .no_effect(ZOOKEEPER_GONE),
    low(unset("controlled.shutdown.max.retries", ANY_INT, "How often a handover of leadership was tried."))
        .no_effect(WRITTEN),
    low(unset("controlled.shutdown.retry.backoff.ms", ANY_LONG, "Pause between such tries, in milliseconds."))
        .no_effect(WRITTEN),
    low(unset("leader.imbalance.per.broker.percentage", ANY_INT, "Share of foreign leadership that was put up with."))
        .no_effect(WRITTEN),
    low(unset("offsets.commit.required.acks", ANY_INT, "Acknowledgements that a commit waited for."))
        .no_effect(WRITTEN),
    low(unset("auto.include.jmx.reporter", Kind::Bool, "Whether metrics went to JMX."))
        .no_effect("there is no JMX: metrics are served at /metrics of varve.http.listener"),
    low(unset("group.coordinator.new.enable", Kind::Bool, "Whether the coordinator of KIP-848 was used."))
        .no_effect(WRITTEN),
    low(unset("password.encoder.secret", Kind::Password, "Secret that protected passwords in ZooKeeper."))
        .no_effect(ZOOKEEPER_GONE),
    low(unset("password.encoder.old.secret", Kind::Password, "The secret before that.")).no_effect(ZOOKEEPER_GONE),
    low(unset("delegation.token.master.key", Kind::Password, "Old name of delegation.token.secret.key."))
        .refused("Kafka 4 took the old name away: set delegation.token.secret.key"),
    unset("quota.producer.default", POSITIVE_LONG, "Bytes per second that a client may produce.").refused(QUOTA),
    unset("quota.consumer.default", POSITIVE_LONG, "Bytes per second that a client may consume.").refused(QUOTA),
];
