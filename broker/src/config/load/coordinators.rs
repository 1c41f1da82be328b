//! The settings of groups and transactions.

use std::time::Duration;

use varve_metadata::config::Codec;

use crate::{
    config::{
        broker::{
            ConsumerGroupConfig, GroupConfig, GroupLimit, GroupTime, ShareGroupConfig, ShareStateTopicConfig,
            StreamsGroupConfig, TransactionConfig,
        },
        settings::Reader,
    },
    coordinator::{MigrationPolicy, assignor::Assignor},
};

pub(super) fn groups(reader: &mut Reader<'_>) -> GroupConfig {
    let min_session_timeout = reader.millis("group.min.session.timeout.ms");
    let max_session_timeout = reader.millis("group.max.session.timeout.ms");
    if min_session_timeout > max_session_timeout {
        reader.invalid("group.min.session.timeout.ms", "no more than group.max.session.timeout.ms");
    }
    let codec = u8::try_from(reader.int("offsets.topic.compression.codec")).ok().and_then(Codec::from_wire);
    GroupConfig {
        initial_rebalance_delay: reader.millis("group.initial.rebalance.delay.ms"),
        min_session_timeout,
        max_session_timeout,
        max_size: reader.count("group.max.size"),
        offsets_partitions: reader.count("offsets.topic.num.partitions"),
        offsets_replication_factor: reader.count("offsets.topic.replication.factor"),
        offsets_segment_bytes: reader.count("offsets.topic.segment.bytes"),
        offsets_codec: codec.unwrap_or_default(),
        offsets_retention: Duration::from_secs(60 * reader.size("offsets.retention.minutes")),
        offsets_retention_check_interval: reader.millis("offsets.retention.check.interval.ms"),
        lag_interval: reader.millis("varve.group.lag.interval.ms"),
        offset_metadata_max_bytes: reader.count("offset.metadata.max.bytes"),
        offsets_load_bytes: reader.count("offsets.load.buffer.size"),
        consumer: consumer_groups(reader),
        share: share_groups(reader),
        streams: streams_groups(reader),
    }
}

pub(super) fn transactions(reader: &mut Reader<'_>) -> TransactionConfig {
    TransactionConfig {
        id_expiration: reader.millis("transactional.id.expiration.ms"),
        max_timeout: reader.millis("transaction.max.timeout.ms"),
        verify_partitions: reader.flag("transaction.partition.verification.enable"),
        abort_interval: reader.millis("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
        expiration_interval: reader.millis("transaction.remove.expired.transaction.cleanup.interval.ms"),
        log_partitions: reader.count("transaction.state.log.num.partitions"),
        log_replication_factor: reader.count("transaction.state.log.replication.factor"),
        log_min_in_sync: reader.count("transaction.state.log.min.isr"),
        log_segment_bytes: reader.count("transaction.state.log.segment.bytes"),
        log_load_bytes: reader.count("transaction.state.log.load.buffer.size"),
        add_retry_pause: reader.millis("add.partitions.to.txn.retry.backoff.ms"),
        add_retry_max: reader.millis("add.partitions.to.txn.retry.backoff.max.ms"),
    }
}

fn consumer_groups(reader: &mut Reader<'_>) -> ConsumerGroupConfig {
    let protocols = reader.list("group.coordinator.rebalance.protocols");
    if !protocols.iter().any(|protocol| protocol == "classic") {
        reader.invalid("group.coordinator.rebalance.protocols", "a list with classic in it");
    }
    let assignors: Vec<Assignor> =
        reader.list("group.consumer.assignors").iter().filter_map(|name| Assignor::from_name(name)).collect();
    if assignors.is_empty() {
        reader.invalid("group.consumer.assignors", "a list that is not empty");
    }
    let policy = reader.text("group.consumer.migration.policy").unwrap_or_default();
    let migration = match policy.to_ascii_lowercase().as_str() {
        "bidirectional" => MigrationPolicy::Bidirectional,
        "upgrade" => MigrationPolicy::Upgrade,
        "downgrade" => MigrationPolicy::Downgrade,
        "disabled" => MigrationPolicy::Disabled,
        _ => {
            reader.invalid("group.consumer.migration.policy", "one of bidirectional, upgrade, downgrade, disabled");
            MigrationPolicy::Disabled
        }
    };
    let session_timeout = group_time(reader, "group.consumer.", "session.timeout.ms");
    let heartbeat_interval = group_time(reader, "group.consumer.", "heartbeat.interval.ms");
    if heartbeat_interval.usual >= session_timeout.usual {
        reader.invalid("group.consumer.heartbeat.interval.ms", "less than group.consumer.session.timeout.ms");
    }
    ConsumerGroupConfig {
        enabled: protocols.iter().any(|protocol| protocol == "consumer"),
        max_size: reader.count("group.consumer.max.size"),
        assignors,
        migration,
        session_timeout,
        heartbeat_interval,
        assignment_interval: group_time(reader, "group.consumer.", "assignment.interval.ms"),
        regex_refresh_interval: reader.millis("group.consumer.regex.refresh.interval.ms"),
    }
}

fn share_groups(reader: &mut Reader<'_>) -> ShareGroupConfig {
    const PREFIX: &str = "group.share.";
    if reader.list("group.share.assignors") != ["simple"] {
        reader.invalid("group.share.assignors", "simple, which is all there is");
    }
    let session_timeout = group_time(reader, PREFIX, "session.timeout.ms");
    let heartbeat_interval = group_time(reader, PREFIX, "heartbeat.interval.ms");
    if heartbeat_interval.usual >= session_timeout.usual {
        reader.invalid("group.share.heartbeat.interval.ms", "less than group.share.session.timeout.ms");
    }
    let max_size = reader.count("group.share.max.size");
    let max_sessions = reader.count("group.share.max.share.sessions");
    if max_sessions < max_size {
        reader.invalid("group.share.max.share.sessions", "no less than group.share.max.size");
    }
    let codec = u8::try_from(reader.int("share.coordinator.state.topic.compression.codec")).ok();
    let codec = codec.and_then(Codec::from_wire).unwrap_or_else(|| {
        reader.invalid("share.coordinator.state.topic.compression.codec", "the number of a codec");
        Codec::None
    });
    ShareGroupConfig {
        max_size,
        max_sessions,
        delivery_limit: group_limit(reader, "delivery.count.limit"),
        lock_duration: group_time(reader, PREFIX, "record.lock.duration.ms"),
        max_locks: group_limit(reader, "partition.max.record.locks"),
        session_timeout,
        heartbeat_interval,
        assignment_interval: group_time(reader, PREFIX, "assignment.interval.ms"),
        begin_retry: reader.millis("group.share.initialize.retry.interval.ms"),
        state: ShareStateTopicConfig {
            partitions: reader.count("share.coordinator.state.topic.num.partitions"),
            replication_factor: reader.count("share.coordinator.state.topic.replication.factor"),
            min_in_sync: reader.count("share.coordinator.state.topic.min.isr"),
            segment_bytes: reader.count("share.coordinator.state.topic.segment.bytes"),
            codec,
            load_bytes: reader.count("share.coordinator.load.buffer.size"),
            updates_per_snapshot: reader.count("share.coordinator.snapshot.update.records.per.snapshot"),
            cold_after: reader.millis("share.coordinator.cold.partition.snapshot.interval.ms"),
            prune_interval: reader.millis("share.coordinator.state.topic.prune.interval.ms"),
        },
    }
}

/// `group.share.<name>` between `group.share.min.<name>` and `group.share.max.<name>`.
fn group_limit(reader: &mut Reader<'_>, name: &str) -> GroupLimit {
    let [usual, min, max] = ["", "min.", "max."].map(|which| format!("group.share.{which}{name}"));
    let limit = GroupLimit { usual: reader.count(&usual), min: reader.count(&min), max: reader.count(&max) };
    if limit.max < limit.min {
        reader.invalid(&max, format!("no less than {min}"));
    }
    if limit.usual < limit.min || limit.usual > limit.max {
        reader.invalid(&usual, format!("between {min} and {max}"));
    }
    limit
}

fn streams_groups(reader: &mut Reader<'_>) -> StreamsGroupConfig {
    let protocols = reader.list("group.coordinator.rebalance.protocols");
    let session_timeout = group_time(reader, "group.streams.", "session.timeout.ms");
    let heartbeat_interval = group_time(reader, "group.streams.", "heartbeat.interval.ms");
    if heartbeat_interval.usual >= session_timeout.usual {
        reader.invalid("group.streams.heartbeat.interval.ms", "less than group.streams.session.timeout.ms");
    }
    let standby_replicas = reader.count("group.streams.num.standby.replicas");
    let max_standby_replicas = reader.count("group.streams.max.standby.replicas");
    if standby_replicas > max_standby_replicas {
        reader.invalid("group.streams.num.standby.replicas", "no more than group.streams.max.standby.replicas");
    }
    StreamsGroupConfig {
        enabled: protocols.iter().any(|protocol| protocol == "streams"),
        max_size: reader.count("group.streams.max.size"),
        standby_replicas,
        max_standby_replicas,
        initial_rebalance_delay: reader.millis("group.streams.initial.rebalance.delay.ms"),
        session_timeout,
        heartbeat_interval,
        assignment_interval: group_time(reader, "group.streams.", "assignment.interval.ms"),
    }
}

/// `<prefix><name>` between `<prefix>min.<name>` and `<prefix>max.<name>`.
fn group_time(reader: &mut Reader<'_>, prefix: &str, name: &str) -> GroupTime {
    let [usual, min, max] = ["", "min.", "max."].map(|which| format!("{prefix}{which}{name}"));
    let time = GroupTime { usual: reader.millis(&usual), min: reader.millis(&min), max: reader.millis(&max) };
    if time.max < time.min {
        reader.invalid(&max, format!("no less than {min}"));
    }
    if time.usual < time.min || time.usual > time.max {
        reader.invalid(&usual, format!("between {min} and {max}"));
    }
    time
}
