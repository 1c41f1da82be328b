//! What is due. Pure: settings and offsets go in.

use std::time::Duration;

use varve_metadata::{config::TopicConfig, image::TopicImage, model::Offset};

/// Whether the topic's segments go to an archive, if the node has one. The cluster's own topics never do: a node must be able
/// to read them before it can reach anything.
pub(super) fn is_archived(topic: &TopicImage, has_archive: bool) -> bool {
    has_archive && !topic.internal && topic.config.remote_storage
}

/// What a topic without archive keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retention {
    /// `retention.ms`; `None`: for ever.
    pub(super) time: Option<Duration>,
    /// `retention.bytes`; `None`: no limit.
    pub(super) bytes: Option<u64>,
}

impl Retention {
    /// Without `delete` in cleanup.policy nothing goes by time or size.
    pub(super) fn of(config: &TopicConfig) -> Retention {
        let deletes = config.cleanup.delete;
        Retention { time: config.retention_time.filter(|_| deletes), bytes: config.retention_bytes.filter(|_| deletes) }
    }

    pub(super) fn is_for_ever(&self) -> bool {
        self.time.is_none() && self.bytes.is_none()
    }
}

/// Where the log starts once the local log expired below `expired`; `None` if it stays. A topic that was archived once may
/// have older records in the archive: they are readable for as long as all of the local log is.
pub(super) fn start_after(local_start: Offset, expired: Offset) -> Option<Offset> {
    (expired > local_start).then_some(expired)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use varve_metadata::model::{TopicId, TopicName};

    use super::*;

    fn config(overrides: &[(&str, &str)]) -> TopicConfig {
        let overrides: BTreeMap<_, _> =
            overrides.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        TopicConfig::resolve(&Default::default(), &overrides).unwrap()
    }

    #[test]
    fn the_clusters_own_topics_and_those_that_say_so_have_no_archive() {
        let topic = |internal, overrides: &[(&str, &str)]| TopicImage {
            id: TopicId::random(),
            name: TopicName::parse("t").unwrap(),
            overrides: Arc::default(),
            config: Arc::new(config(overrides)),
            partitions: Vec::new(),
            written: Vec::new(),
            internal,
        };
        assert!(is_archived(&topic(false, &[]), true));
        assert!(!is_archived(&topic(false, &[]), false));
        assert!(!is_archived(&topic(true, &[]), true));
        assert!(!is_archived(&topic(false, &[("remote.storage.enable", "false")]), true));
    }

    #[test]
    fn only_the_policy_delete_lets_records_go() {
        let both = [("retention.ms", "5"), ("retention.bytes", "7")];
        let limits = Retention { time: Some(Duration::from_millis(5)), bytes: Some(7) };
        assert_eq!(Retention::of(&config(&both)), limits);
        assert!(Retention::of(&config(&[both[0], both[1], ("cleanup.policy", "compact")])).is_for_ever());
        assert!(Retention::of(&config(&[("retention.ms", "-1")])).is_for_ever());
    }

    #[test]
    fn what_was_archived_once_stays_readable_until_a_younger_local_record_goes() {
        let offset = |raw| Offset::new(raw).unwrap();
        assert_eq!(start_after(offset(50), offset(50)), None);
        assert_eq!(start_after(offset(50), offset(60)), Some(offset(60)));
    }
}
