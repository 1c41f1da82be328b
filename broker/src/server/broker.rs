//! What every handler works on.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use varve_metadata::{cluster::ClusterMetadata, model::BrokerId};

use super::fetch_session::FetchSessions;
use crate::partition::Partitions;

/// The node: everything that a request may touch.
pub struct Broker {
    /// This node's `node.id`.
    pub node: BrokerId,
    /// Topics, partitions, brokers and settings of the cluster, and the way to change them.
    pub metadata: Arc<ClusterMetadata>,
    /// The partitions that this node leads.
    pub partitions: Arc<Partitions>,
    /// Cancelled when the node stops; long polls end then.
    pub shutdown: CancellationToken,
    /// Most bytes of one fetch response (`fetch.max.bytes`).
    pub(crate) fetch_max_bytes: u32,
    pub(crate) fetch_sessions: FetchSessions,
}

impl Broker {
    /// A node that leads `partitions`.
    pub fn new(node: BrokerId, metadata: Arc<ClusterMetadata>, partitions: Arc<Partitions>) -> Broker {
        Broker {
            node,
            metadata,
            partitions,
            shutdown: CancellationToken::new(),
            fetch_max_bytes: 55 * 1024 * 1024,
            fetch_sessions: FetchSessions::new(1000),
        }
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("node", &self.node).finish_non_exhaustive()
    }
}
