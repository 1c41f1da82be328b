//! Idempotent producers and transactions.

use super::*;

pub(super) const DEFINITIONS: &[ConfigDef] = &[
    low(def(
        "producer.id.expiration.ms",
        POSITIVE_INT,
        "86400000",
        "How long a partition remembers an idempotent producer that is silent, in milliseconds.",
    )
    .dynamic()),
    low(def(
        "producer.id.expiration.check.interval.ms",
        POSITIVE_INT,
        "600000",
        "How often silent producers are looked for, in milliseconds.",
    ))
    .internal(),
    high(def(
        "transactional.id.expiration.ms",
        POSITIVE_INT,
        "604800000",
        "How long an unused transactional id is remembered, in milliseconds.",
    )),
    high(def(
        "transaction.max.timeout.ms",
        POSITIVE_INT,
        "900000",
        "The longest transaction that a producer may ask for, in milliseconds.",
    )),
    low(def(
        "transaction.partition.verification.enable",
        Kind::Bool,
        "true",
        "Check that a partition belongs to the transaction before records are written to it.",
    )
    .dynamic()),
    low(def(
        "transaction.two.phase.commit.enable",
        Kind::Bool,
        "false",
        "Let an outside coordinator decide on transactions.",
    ))
    .refused("two-phase commit is not served"),
    low(def(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        POSITIVE_INT,
        "10000",
        "How often overdue transactions are aborted, in milliseconds.",
    )),
    low(def(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        POSITIVE_INT,
        "3600000",
        "How often unused transactional ids are looked for, in milliseconds.",
    )),
    high(def("transaction.state.log.num.partitions", POSITIVE_INT, "50", "Partitions of the topic of transactions.")),
    high(def(
        "transaction.state.log.replication.factor",
        POSITIVE_SHORT,
        "3",
        "Replicas of the topic of transactions.",
    )),
    high(def(
        "transaction.state.log.min.isr",
        POSITIVE_INT,
        "2",
        "Replicas of the topic of transactions that must be in sync.",
    )),
    high(def(
        "transaction.state.log.segment.bytes",
        POSITIVE_INT,
        "104857600",
        "Segment size of the topic of transactions, in bytes.",
    )),
    high(def(
        "transaction.state.log.load.buffer.size",
        POSITIVE_INT,
        "5242880",
        "Bytes read at once when a coordinator loads its transactions.",
    )),
    low(def(
        "add.partitions.to.txn.retry.backoff.ms",
        POSITIVE_INT,
        "20",
        "Pause before a partition is added to a transaction again, in milliseconds.",
    )),
    low(def(
        "add.partitions.to.txn.retry.backoff.max.ms",
        NATURAL_INT,
        "100",
        "The longest such pause in all, in milliseconds.",
    )),
];
