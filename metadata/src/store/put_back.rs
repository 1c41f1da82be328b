//! A store that forgot what it had taken: whatever it lacks from then on was deleted by nobody.

use super::Revision;

/// How a store shows that it is not the one any more that was followed: it was put back to an older state, or another one answers
/// in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutBack {
    /// It has taken less than was seen of it.
    #[error("it stands at revision {}, and was followed up to revision {}", .now.0, .seen.0)]
    Behind {
        /// What was seen of it.
        seen: Revision,
        /// Where it stands.
        now: Revision,
    },
    /// Other members agree there, or the same ones after they were made anew.
    #[error("the etcd that answers is the cluster of members {now:x}, and was {before:x}")]
    Another {
        /// Etcd's name for the members that were followed.
        before: u64,
        /// For those that answer.
        now: u64,
    },
    /// Its history says otherwise: a revision never changes.
    #[error("what it took as revision {} was not what was seen as that", .revision.0)]
    Rewritten {
        /// The one that was seen last.
        revision: Revision,
    },
    /// A key was last written before the write that was seen of it.
    #[error("it holds older states of what was seen up to revision {}", .seen.0)]
    Older {
        /// What was seen of it.
        seen: Revision,
    },
    /// A broker that started has seen more of it than it finds.
    #[error("a broker that started has seen more of it than it holds now")]
    Noticed,
    /// It is empty, or another cluster's.
    #[error("it does not hold this cluster any more")]
    OtherCluster,
}
