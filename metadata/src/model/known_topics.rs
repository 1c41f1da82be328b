//! What a cluster knows of topics, for who removes what belongs to none of them.

use std::collections::HashSet;

use super::TopicId;

/// The topics of a cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownTopics {
    /// Those that are there.
    pub alive: HashSet<TopicId>,
    /// Those that somebody deleted, as long as something of them may be left in the archive.
    pub deleted: HashSet<TopicId>,
}

impl KnownTopics {
    /// Whether somebody deleted that topic. Absence tells nothing: cluster state that was put back to an older one lacks every topic
    /// that was made since.
    pub fn is_deleted(&self, id: TopicId) -> bool {
        self.deleted.contains(&id) && !self.alive.contains(&id)
    }

    /// Whether nothing is known of that topic.
    pub fn is_unknown(&self, id: TopicId) -> bool {
        !self.alive.contains(&id) && !self.deleted.contains(&id)
    }
}
