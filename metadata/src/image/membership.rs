//! Who takes part in the cluster at the moment.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::{model::BrokerId, store::Revision};

/// Brokers that hold a lease, and what the controller has to know about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipImage {
    pub(crate) live: BTreeMap<BrokerId, Uuid>,
    pub(crate) distrusted: BTreeSet<BrokerId>,
    pub(crate) leaving: BTreeMap<BrokerId, Uuid>,
    pub(crate) registered: BTreeMap<BrokerId, Revision>,
    pub(crate) compactors: BTreeSet<Uuid>,
    pub(crate) controller: Option<BrokerId>,
}

impl MembershipImage {
    /// The life of a broker whose lease has not ended.
    pub fn live(&self, id: BrokerId) -> Option<Uuid> {
        self.live.get(&id).copied()
    }

    /// Whether a broker may have lost records before its present life, and has not yet left every ISR since.
    pub fn is_distrusted(&self, id: BrokerId) -> bool {
        self.distrusted.contains(&id)
    }

    /// The life of a broker that is about to stop: it leads only where nobody else can, and leaves every ISR.
    pub fn leaving(&self, id: BrokerId) -> Option<Uuid> {
        self.leaving.get(&id).copied()
    }

    /// The broker that decides who leads.
    pub fn controller(&self) -> Option<BrokerId> {
        self.controller
    }

    /// Processes that only rewrite the archive.
    pub fn compactors(&self) -> &BTreeSet<Uuid> {
        &self.compactors
    }

    /// The revision that wrote a broker's registration last.
    pub(crate) fn registered(&self, id: BrokerId) -> Option<Revision> {
        self.registered.get(&id).copied()
    }
}
