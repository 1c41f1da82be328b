//! Where the node listens, and how many may connect.

use super::*;

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    high(def(
        "listeners",
        ANY_LIST,
        "PLAINTEXT://127.0.0.1:9092",
        "Where clients connect: NAME://host:port, comma-separated. An empty host listens on all addresses; port 0 \
         takes a free one. Loopback only by default, unlike in Kafka. May change while the broker runs, for one broker: \
         listeners come, move and go. One that clients are told of by advertised.listeners (if that is not given: any) \
         cannot go, as in Kafka, nor can that of brokers.",
    )
    .dynamic()),
    high(unset(
        "advertised.listeners",
        ANY_LIST,
        "What clients are told to connect to, per listener name, where that differs from listeners: behind NAT, in \
         containers, through a load balancer.",
    )),
    low(def(
        "listener.security.protocol.map",
        Kind::Text,
        "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
        "The security protocol of each listener name, NAME:PROTOCOL, comma-separated: PLAINTEXT, SSL, SASL_PLAINTEXT or \
         SASL_SSL. May change while the broker runs, but not for a listener that there is.",
    )
    .dynamic()),
    unset(
        "inter.broker.listener.name",
        Kind::Text,
        "The listener that other brokers use. If unset, security.inter.broker.protocol says it, or else it is the first \
         one that speaks PLAINTEXT. Must be one of the advertised listeners.",
    ),
    def(
        "security.inter.broker.protocol",
        Kind::Enum(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]),
        "PLAINTEXT",
        "Another way to say which listener other brokers use: the one that is called like this protocol. Only one of \
         this and inter.broker.listener.name may be set.",
    ),
    high(unset("early.start.listeners", ANY_LIST, "Listeners that open before the authorizer is ready."))
        .no_effect("rules of who may do what are read before any listener opens"),
    def(
        "connections.max.idle.ms",
        ANY_LONG,
        "600000",
        "A connection without requests for this many milliseconds is closed; a negative number keeps it open.",
    ),
    def(
        "max.connections",
        NATURAL_INT,
        INT_MAX,
        "The most connections at one time, over all listeners. Beyond, whoever connects waits, as in Kafka. A listener may \
         have a limit of its own besides.",
    )
    .dynamic(),
    def("max.connections.per.ip", NATURAL_INT, INT_MAX, "The most connections at one time from one address.").dynamic(),
    def(
        "max.connections.per.ip.overrides",
        Kind::Text,
        "",
        "Other limits for some addresses: address:number, comma-separated.",
    )
    .dynamic(),
    def(
        "max.connection.creation.rate",
        NATURAL_INT,
        INT_MAX,
        "The most new connections per second, over all listeners but that of brokers, which may have as many where it is not \
         the only one; those above it wait. A listener may have a limit of its own besides.",
    )
    .dynamic(),
    def(
        "socket.listen.backlog.size",
        POSITIVE_INT,
        "50",
        "Connections that may wait to be accepted, within what the operating system allows.",
    ),
    high(def(
        "socket.send.buffer.bytes",
        Kind::Int { min: -1, max: i32::MAX },
        "102400",
        "Send buffer of a connection, in bytes; -1 leaves it to the operating system.",
    )),
    high(def(
        "socket.receive.buffer.bytes",
        Kind::Int { min: -1, max: i32::MAX },
        "102400",
        "Receive buffer of a connection, in bytes; -1 leaves it to the operating system.",
    )),
    def(
        "socket.connection.setup.timeout.ms",
        POSITIVE_LONG,
        "10000",
        "The longest wait for a connection to another broker, in milliseconds.",
    ),
    def(
        "socket.connection.setup.timeout.max.ms",
        ANY_LONG,
        "30000",
        "Longest wait for a connection to another broker, in milliseconds.",
    )
    .no_effect("each wait is as long as socket.connection.setup.timeout.ms says"),
];
