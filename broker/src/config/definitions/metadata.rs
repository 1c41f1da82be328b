//! Agreement on cluster state. Kafka's KRaft settings have no counterpart: there is no metadata quorum here.

use super::*;

const NO_QUORUM: &str =
    "there is no KRaft quorum: cluster state is agreed on in the store that varve.metadata.url names";
const NO_LOG: &str = "there is no metadata log: cluster state lies in the store that varve.metadata.url names";
const NO_LEASE: &str = "brokers keep a lease in the store that varve.metadata.url names, which they renew three times in \
     broker.session.timeout.ms, and every 3 seconds at least";

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    high(unset(
        "varve.metadata.url",
        Kind::Text,
        "Where cluster state is agreed on: embedded:directory for one node, or etcd://host:port,host:port/prefix for a \
         cluster. If unset, embedded in the directory metadata in \
         varve.data.dir.",
    )),
    unset(
        "varve.metadata.etcd.user",
        Kind::Text,
        "User of etcd, where its authentication is enabled; varve.metadata.etcd.password is its password.",
    ),
    unset("varve.metadata.etcd.password", Kind::Password, "Password of varve.metadata.etcd.user."),
    def("varve.metadata.etcd.tls", Kind::Bool, "false", "Speak TLS with etcd."),
    unset(
        "varve.metadata.etcd.ca.file",
        Kind::Text,
        "PEM file of who signed etcd's certificates. If unset, whom the operating system trusts.",
    ),
    unset("varve.metadata.etcd.certificate.file", Kind::Text, "PEM file of this broker's own certificate for etcd."),
    unset("varve.metadata.etcd.key.file", Kind::Text, "PEM file of the key of varve.metadata.etcd.certificate.file."),
    def(
        "varve.metadata.etcd.request.timeout.ms",
        POSITIVE_INT,
        "5000",
        "How long one request to etcd may take, in milliseconds.",
    ),
    high(def(
        "controller.listener.names",
        ANY_LIST,
        "",
        "Listeners of Kafka's controllers; they are left out of listeners here.",
    ))
    .no_effect(NO_QUORUM),
    high(def("controller.quorum.voters", ANY_LIST, "", "Kafka's controllers, as id@host:port.")).no_effect(NO_QUORUM),
    high(def("controller.quorum.bootstrap.servers", ANY_LIST, "", "Kafka's controllers, as host:port."))
        .no_effect(NO_QUORUM),
    high(def(
        "controller.quorum.election.timeout.ms",
        NATURAL_INT,
        "1000",
        "How long controllers wait for their leader, in milliseconds.",
    ))
    .no_effect(NO_QUORUM),
    high(def(
        "controller.quorum.election.backoff.max.ms",
        NATURAL_INT,
        "1000",
        "The longest pause between elections of controllers, in milliseconds.",
    ))
    .no_effect(NO_QUORUM),
    high(def(
        "controller.quorum.fetch.timeout.ms",
        NATURAL_INT,
        "2000",
        "How long a controller goes without a fetch before an election, in milliseconds.",
    ))
    .no_effect(NO_QUORUM),
    def(
        "controller.quorum.request.timeout.ms",
        NATURAL_INT,
        "2000",
        "How long controllers wait for an answer, in milliseconds.",
    )
    .no_effect(NO_QUORUM),
    def(
        "controller.quorum.append.linger.ms",
        NATURAL_INT,
        "25",
        "How long controllers gather writes, in milliseconds.",
    )
    .no_effect(NO_QUORUM),
    low(def(
        "controller.quorum.retry.backoff.ms",
        NATURAL_INT,
        "20",
        "Pause between requests of controllers, in milliseconds.",
    ))
    .no_effect(NO_QUORUM),
    low(def("controller.quorum.auto.join.enable", Kind::Bool, "false", "Let a controller join the quorum by itself."))
        .no_effect(NO_QUORUM),
    low(def("controller.quorum.fetch.max.bytes", POSITIVE_INT, "1048576", "Bytes that a controller fetches at once."))
        .no_effect(NO_QUORUM),
    low(def(
        "controller.quorum.fetch.snapshot.max.bytes",
        POSITIVE_INT,
        "1048576",
        "Bytes of a snapshot that a controller fetches at once.",
    ))
    .no_effect(NO_QUORUM),
    def("controller.socket.timeout.ms", ANY_INT, "30000", "How long a broker waits for a controller, in milliseconds.")
        .no_effect(NO_QUORUM),
    low(def(
        "controller.performance.always.log.threshold.ms",
        NATURAL_LONG,
        "2000",
        "Controller events that take longer are logged, in milliseconds.",
    ))
    .no_effect(NO_QUORUM)
    .internal(),
    low(def(
        "controller.performance.sample.period.ms",
        Kind::Long { min: 100, max: i64::MAX },
        "60000",
        "Time between reports on controller events, in milliseconds.",
    ))
    .no_effect(NO_QUORUM)
    .internal(),
    def(
        "broker.heartbeat.interval.ms",
        ANY_INT,
        "2000",
        "Time between a broker's heartbeats to the controller, in milliseconds.",
    )
    .no_effect(NO_LEASE),
    def(
        "broker.session.timeout.ms",
        Kind::Int { min: 2000, max: i32::MAX },
        "9000",
        "A broker that gives etcd no sign of life for this long is taken for dead, in milliseconds. One node alone needs none.",
    ),
    def(
        "initial.broker.registration.timeout.ms",
        ANY_INT,
        "60000",
        "How long a broker that starts waits for an etcd that does not answer, or, before it makes a new cluster, for such a \
         bucket, in milliseconds; then it ends. To be let in by the other brokers it waits without end.",
    ),
    high(unset("metadata.log.dir", Kind::Text, "Directory of the metadata log.")).no_effect(NO_LOG),
    high(def(
        "metadata.log.segment.bytes",
        Kind::Int { min: 8_388_608, max: i32::MAX },
        "1073741824",
        "Segment size of the metadata log, in bytes.",
    ))
    .no_effect(NO_LOG),
    high(def("metadata.log.segment.ms", ANY_LONG, "604800000", "Segment age of the metadata log, in milliseconds."))
        .no_effect(NO_LOG),
    high(def(
        "metadata.log.max.record.bytes.between.snapshots",
        POSITIVE_LONG,
        "20971520",
        "Bytes of the metadata log after which a snapshot is made.",
    ))
    .no_effect(NO_LOG),
    high(def(
        "metadata.log.max.snapshot.interval.ms",
        NATURAL_LONG,
        "3600000",
        "Time after which a snapshot is made, in milliseconds.",
    ))
    .no_effect(NO_LOG),
    high(def(
        "metadata.max.retention.bytes",
        ANY_LONG,
        "104857600",
        "Size of metadata log and snapshots that is kept, in bytes.",
    ))
    .no_effect(NO_LOG),
    high(def(
        "metadata.max.retention.ms",
        ANY_LONG,
        "604800000",
        "Age of metadata log and snapshots that is kept, in milliseconds.",
    ))
    .no_effect(NO_LOG),
    low(def(
        "metadata.max.idle.interval.ms",
        NATURAL_INT,
        "500",
        "How often a quiet metadata log gets a record, in milliseconds.",
    ))
    .no_effect(NO_LOG),
    low(unset("internal.metadata.log.segment.bytes", ANY_INT, "Segment size of the metadata log in tests, in bytes."))
        .no_effect(NO_LOG)
        .internal(),
    low(def(
        "internal.metadata.max.batch.size.in.bytes",
        ANY_INT,
        "8388608",
        "Largest batch of the metadata log in tests, in bytes.",
    ))
    .no_effect(NO_LOG)
    .internal(),
    low(def(
        "internal.metadata.delete.delay.millis",
        ANY_LONG,
        "60000",
        "Delay of deletions in the metadata log in tests, in milliseconds.",
    ))
    .no_effect(NO_LOG)
    .internal(),
];
