//! What the coordinator of groups is told by the configuration.

use std::time::Duration;

use super::assignor::Assignor;

/// The numbers that the coordinator needs, by Kafka's names.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout: Duration,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout: Duration,
    /// `group.initial.rebalance.delay.ms` (KIP-134)
    pub initial_rebalance_delay: Duration,
    /// `group.max.size` (KIP-389)
    pub max_size: usize,
    /// `offset.metadata.max.bytes`; counted in UTF-16 units, as Kafka does.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes` (KIP-211)
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval: Duration,
    /// `group.consumer.max.size`
    pub consumer_max_size: usize,
    /// `group.consumer.assignors`; the first is used where members do not ask for one. Never empty.
    pub consumer_assignors: Vec<Assignor>,
    /// `group.consumer.migration.policy`
    pub migration: MigrationPolicy,
    /// `group.consumer.regex.refresh.interval.ms`
    pub regex_refresh_interval: Duration,
    /// `group.share.max.size`
    pub share_max_size: usize,
    /// `group.share.initialize.retry.interval.ms`
    pub share_begin_retry: Duration,
    /// `group.streams.max.size`
    pub streams_max_size: usize,
}

/// Which groups may change their protocol while they have members (KIP-848).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Either way.
    #[default]
    Bidirectional,
    /// From classic to consumer.
    Upgrade,
    /// From consumer to classic.
    Downgrade,
    /// None.
    Disabled,
}

impl MigrationPolicy {
    pub(super) const fn upgrades(self) -> bool {
        matches!(self, MigrationPolicy::Bidirectional | MigrationPolicy::Upgrade)
    }

    pub(super) const fn downgrades(self) -> bool {
        matches!(self, MigrationPolicy::Bidirectional | MigrationPolicy::Downgrade)
    }
}

impl GroupConfig {
    /// How long a new member's join may wait before its client must ask again: its socket is not read meanwhile, so
    /// nothing else would tell that it is gone. Kafka's constant.
    pub(super) const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            min_session_timeout: Duration::from_secs(6),
            max_session_timeout: Duration::from_secs(1800),
            initial_rebalance_delay: Duration::from_secs(3),
            max_size: i32::MAX as usize,
            offset_metadata_max: 4096,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_retention_check_interval: Duration::from_secs(600),
            consumer_max_size: i32::MAX as usize,
            consumer_assignors: vec![Assignor::Uniform, Assignor::Range],
            migration: MigrationPolicy::default(),
            regex_refresh_interval: Duration::from_secs(600),
            share_max_size: 200,
            share_begin_retry: Duration::from_secs(30),
            streams_max_size: i32::MAX as usize,
        }
    }
}
