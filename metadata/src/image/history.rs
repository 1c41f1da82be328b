//! Whether one image can be of the same history as another that was seen before it.

use super::{ClusterImage, TopicImage};
use crate::store::{PutBack, Revision};

impl ClusterImage {
    /// Whether this image, read anew from the store, can have become of `before`. Revisions only grow, those of every single key as
    /// well; a topic that is gone was deleted, which is written down (`deleted/ID`); and partitions only become more.
    ///
    /// # Errors
    /// How the store shows that it was put back to an older state, or is another one.
    pub(super) fn goes_on_from(&self, before: &ClusterImage) -> Result<(), PutBack> {
        let seen = before.revision;
        if self.revision < seen {
            return Err(PutBack::Behind { seen, now: self.revision });
        }
        if self.cluster_id != before.cluster_id && !before.cluster_id.is_empty() {
            return Err(PutBack::OtherCluster);
        }
        let registered = |image: &ClusterImage, id| image.membership.registered(id);
        let is_older = |now: Option<Revision>, then: Option<Revision>| now.is_some_and(|now| Some(now) < then);
        let brokers = self.brokers.keys().any(|id| is_older(registered(self, *id), registered(before, *id)));
        let older_topic =
            |then: &TopicImage, now: &TopicImage| now.written.iter().zip(&then.written).any(|(now, then)| now < then);
        let topics = before.by_id.values().any(|then| match self.by_id.get(&then.id) {
            Some(now) => {
                now.partitions.len() < then.partitions.len()
                    || (!std::sync::Arc::ptr_eq(then, now) && older_topic(then, now))
            }
            // Also where a deletion was forgotten, or is of a version that wrote none down: a start sets logs aside, and no more.
            None => !self.deleted.contains_key(&then.id),
        });
        if brokers || topics { Err(PutBack::Older { seen }) } else { Ok(()) }
    }
}
