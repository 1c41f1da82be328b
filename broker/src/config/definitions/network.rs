//! What requests may ask for, and the memory that they share.

use super::*;

const TASKS: &str = "requests are tasks, not items in a queue between pools of threads; varve.worker.threads sizes the \
                     runtime and varve.request.memory.bytes bounds what waits";
const NO_PURGATORY: &str = "a request that waits is woken by what it waits for and leaves nothing behind to purge";

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    high(def(
        "socket.request.max.bytes",
        POSITIVE_INT,
        "104857600",
        "The largest request that is read, in bytes. A larger one closes its connection before memory is taken for it.",
    )),
    high(def(
        "varve.request.memory.bytes",
        Kind::Long { min: 1_048_576, max: i64::MAX },
        "268435456",
        "Memory for all requests that have arrived and are not answered yet, in bytes. When it is used up, \
         connections are read more slowly.",
    )),
    def(
        "queued.max.request.bytes",
        LIMIT,
        "-1",
        "Kafka's name for a bound on the memory of waiting requests; if set, it replaces varve.request.memory.bytes.",
    ),
    high(def("queued.max.requests", POSITIVE_INT, "500", "Requests that may wait for a thread.")).no_effect(TASKS),
    high(def("num.network.threads", POSITIVE_INT, "3", "Threads that read and write sockets."))
        .dynamic()
        .no_effect(TASKS),
    high(def("num.io.threads", POSITIVE_INT, "8", "Threads that handle requests.")).dynamic().no_effect(TASKS),
    high(def(
        "request.timeout.ms",
        ANY_INT,
        "30000",
        "How long this node waits for another broker's answer, in milliseconds.",
    ))
    .no_effect("this node sends no requests to other brokers"),
    def(
        "fetch.max.bytes",
        Kind::Int { min: 1024, max: i32::MAX },
        "57671680",
        "The most bytes in the answer to one Fetch; less if the client asks for less.",
    ),
    def(
        "max.incremental.fetch.session.cache.slots",
        NATURAL_INT,
        "1000",
        "Fetch sessions (KIP-227) that are remembered. A client without one sends all its partitions each time.",
    ),
    def(
        "max.request.partition.size.limit",
        POSITIVE_INT,
        "2000",
        "The most partitions in one answer of DescribeTopicPartitions (KIP-966); the rest follows by cursor.",
    ),
    low(def(
        "fetch.purgatory.purge.interval.requests",
        ANY_INT,
        "1000",
        "Requests between two purges of waiting fetches.",
    ))
    .no_effect(NO_PURGATORY),
    low(def(
        "producer.purgatory.purge.interval.requests",
        ANY_INT,
        "1000",
        "Requests between two purges of waiting produces.",
    ))
    .no_effect(NO_PURGATORY),
    low(def(
        "delete.records.purgatory.purge.interval.requests",
        ANY_INT,
        "1",
        "Requests between two purges of waiting DeleteRecords.",
    ))
    .no_effect(NO_PURGATORY),
    low(def(
        "share.fetch.purgatory.purge.interval.requests",
        ANY_INT,
        "1000",
        "Requests between two purges of waiting share fetches.",
    ))
    .no_effect(NO_PURGATORY),
    low(def("quota.window.num", POSITIVE_INT, "11", "Samples kept for client quotas.")),
    low(def(
        "quota.window.size.seconds",
        POSITIVE_INT,
        "1",
        "The time span of one sample for client quotas, in seconds.",
    )),
    low(def("controller.quota.window.num", POSITIVE_INT, "11", "Samples kept for quotas on topic creation.")),
    low(def(
        "controller.quota.window.size.seconds",
        POSITIVE_INT,
        "1",
        "The time span of one such sample, in seconds.",
    )),
    low(unset("client.quota.callback.class", Kind::Class, "A Java class that decides which quota a client has."))
        .refused("no Java classes are loaded; quotas are set for users, client ids and addresses by kafka-configs.sh"),
];
