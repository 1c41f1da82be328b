//! Who this node is, what it does, and how it shows itself.

use super::*;

const TASKS: &str = "work is not bound to pools of threads by kind: varve.worker.threads sizes the one runtime";
const NO_JMX: &str = "there is no JMX: metrics are served at /metrics of varve.http.listener in Prometheus' format";

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    high(def(
        "node.id",
        NATURAL_INT,
        "1",
        "The number of this node, unique in its cluster. Clients see it as the broker id.",
    )),
    high(def("broker.id", Kind::Int { min: -1, max: i32::MAX }, "-1", "Older name of node.id; -1 is not set.")),
    high(def(
        "varve.roles",
        Kind::List(&["broker", "tiering", "compactor"]),
        "broker,tiering,compactor",
        "What this process does: broker serves clients, tiering uploads its sealed segments, compactor rewrites them \
         in the archive. In a cluster a process may be compactor alone: it serves nobody, and as long as one such \
         process runs, brokers leave that work to it.",
    )),
    high(def(
        "varve.data.dir",
        Kind::Text,
        "./varve-data",
        "Where everything goes that has no place of its own: logs if neither log.dirs nor log.dir is set, embedded \
         metadata, the disk cache, and the archive if varve.object.store.url is not set. It is one node's alone, also \
         where log.dirs is set: what the node notes of its disks lies in it.",
    )),
    high(def(
        "process.roles",
        Kind::List(&["broker", "controller"]),
        "broker,controller",
        "Kafka's KRaft roles of a node.",
    ))
    .no_effect("every node here can decide on metadata; which parts run in it is varve.roles"),
    unset("broker.rack", Kind::Text, "The rack or zone of this node, told to clients."),
    low(def(
        "varve.worker.threads",
        NATURAL_INT,
        "0",
        "Threads that run the node's tasks; 0 means one per processor core.",
    )),
    low(def(
        "varve.shutdown.timeout.ms",
        POSITIVE_LONG,
        "30000",
        "How long a stop waits for requests and uploads that are under way, in milliseconds.",
    )),
    def(
        "varve.http.listener",
        Kind::Text,
        "127.0.0.1:9404",
        "Address and port of /metrics, /healthz, /readyz and /insyncz. They are served without authentication, so keep them off \
         public networks; empty turns them off.",
    ),
    def(
        "varve.log.format",
        Kind::Enum(&["text", "json"]),
        "text",
        "How the node writes its own log: lines for people, or one JSON object per line.",
    ),
    def(
        "varve.log.level",
        Kind::Text,
        "info",
        "What the node writes to its own log: error, warn, info, debug or trace, also per part, as in \
         info,varve_tiering=debug.",
    ),
    unset(
        "varve.trace.endpoint",
        Kind::Text,
        "Where traces of requests go: the URL of an OpenTelemetry collector that takes OTLP over HTTP, as in \
         http://127.0.0.1:4318/v1/traces. Unset: none are made. Headers that it wants are given in the environment variable \
         OTEL_EXPORTER_OTLP_HEADERS.",
    ),
    def(
        "varve.trace.sample.ratio",
        Kind::Double { min: 0.0, max: 1.0 },
        "0.01",
        "The share of requests that are traced, if varve.trace.endpoint is set. Work on the archive is traced whole.",
    ),
    low(def("background.threads", POSITIVE_INT, "10", "Threads for background work.").dynamic()).no_effect(TASKS),
    low(def(
        "server.max.startup.time.ms",
        NATURAL_LONG,
        LONG_MAX,
        "The longest that a start may take, in milliseconds.",
    ))
    .no_effect("a start takes as long as recovery needs, and says at /readyz when it is done")
    .internal(),
    low(def(
        "metric.reporters",
        ANY_LIST,
        "org.apache.kafka.common.metrics.JmxReporter",
        "Java classes that report metrics.",
    ))
    .no_effect(NO_JMX),
    low(def("kafka.metrics.reporters", ANY_LIST, "", "Java classes that report the older kind of metrics."))
        .no_effect(NO_JMX),
    low(def("kafka.metrics.polling.interval.secs", POSITIVE_INT, "10", "How often those reporters run, in seconds."))
        .no_effect(NO_JMX),
    low(def("metrics.num.samples", POSITIVE_INT, "2", "Samples kept per metric.")).no_effect(NO_JMX),
    low(def("metrics.recording.level", Kind::Text, "INFO", "How detailed the recorded metrics are.")).no_effect(NO_JMX),
    low(def(
        "metrics.sample.window.ms",
        POSITIVE_LONG,
        "30000",
        "The time span of one metric sample, in milliseconds.",
    ))
    .no_effect(NO_JMX),
    low(def("telemetry.max.bytes", POSITIVE_INT, "1048576", "The largest push of client metrics (KIP-714), in bytes.")),
    low(def(
        "config.providers",
        ANY_LIST,
        "",
        "Java classes that replace ${provider:path:key} in values by what they find elsewhere.",
    ))
    .refused("no Java classes are loaded, and values with ${...} would be taken literally; use environment variables"),
    low(def(
        "unstable.api.versions.enable",
        Kind::Bool,
        "false",
        "Serve versions of requests that are still in development.",
    ))
    .refused("only released versions of requests are served")
    .internal(),
    low(def(
        "unstable.feature.versions.enable",
        Kind::Bool,
        "false",
        "Allow feature levels that are still in development.",
    ))
    .refused("only released feature levels exist")
    .internal(),
];
