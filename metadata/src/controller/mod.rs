//! What should change, decided from an image and a request alone: no store, no clock, no chance.
//!
//! Each function gives one result per thing asked, in the order asked, and one [`Decision`] that makes all of them happen
//! together. The rules and their texts are those of Kafka's `ReplicationControlManager` and
//! `ConfigurationControlManager`.

mod acls;
mod alter;
mod create;
mod credentials;
mod delete;
mod elect;
mod emptied;
mod features;
mod grow;
pub mod in_sync;
pub(crate) mod leftovers;
pub mod moving;
mod offline;
mod placement;
mod quotas;
mod reassign;
pub mod recovery;
mod stripes;
mod tend;
mod unregister;
pub mod upkeep;

#[cfg(test)]
mod tests;

use crate::{
    image::record::Key,
    store::{Expect, Transaction, TransactionLimits},
};

pub use acls::{TooManyAcls, create_acls, find_acls, remove_acls};
pub use alter::{AlterError, AlterRequest, AlterResource, Alteration, BrokerRules, ConfigOp, alter_configs};
pub use create::{
    CreateTopicError, CreationDefaults, NewTopic, TooManyPartitions, check_partition_count, create_topics,
};
pub use credentials::{ScramChange, TokenChange, alter_delegation_tokens, alter_scram_credentials};
pub use delete::delete_topics;
pub use elect::{ElectError, Election, elect_leaders};
pub use emptied::{EmptiedReplicas, FoundLogs, emptied_replicas, returned_replicas};
pub use features::{FeatureError, FeatureMove, FeatureUpdate, update_features};
pub use grow::{GrowError, GrowTopic, create_partitions};
pub use offline::{OfflineReplicas, ReplicaState, offline_replicas};
pub use placement::{AssignmentError, ManualPartition, Placement, PlacementError};
pub use quotas::{AlterQuota, QuotaError, alter_client_quotas};
pub use reassign::{ReassignError, Reassignment, reassign_partitions};
pub use recovery::{RecoveryLogs, RecoveryStart, recovery_logs, recovery_starts, strays};
pub use tend::{prefer_leaders, tend};
pub use unregister::{UnregisterError, unregister_broker};

/// Changes for the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub(crate) transaction: Transaction,
    /// Keys that were decided on as the image shows them: the change counts only if none was written since.
    pub(crate) rewrites: Vec<Key>,
    /// If the store takes this in several transactions only: what the first one writes first of all. The others count only while it is
    /// as that one left it, so that nobody goes on with what others cleared away meanwhile ([`leftovers`]).
    pub(crate) anchor: Option<Key>,
}

impl Decision {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.transaction.writes.is_empty()
    }

    /// Whether a store with these limits takes it in one transaction, with all that it has to compare.
    pub(crate) fn fits(&self, limits: TransactionLimits) -> bool {
        if limits == TransactionLimits::NONE {
            return true;
        }
        let mut whole = self.transaction.clone();
        whole.expect.extend(self.rewrites.iter().map(|key| (key.text(), Expect::Absent)));
        limits.allow(&whole)
    }

    pub(crate) fn put(&mut self, key: &Key, value: bytes::Bytes) {
        self.transaction.writes.push(crate::store::Write::Put(key.text(), value));
    }

    pub(crate) fn delete(&mut self, key: &Key) {
        self.transaction.writes.push(crate::store::Write::Delete(key.text()));
    }
}
