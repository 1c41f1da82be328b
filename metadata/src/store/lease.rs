//! Leases of stores that keep their own time: which keys each one holds, and when it ends.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{LeaseId, Write};

/// The leases of one store and the keys bound to them. The store guards it by the lock that orders its transactions.
#[derive(Debug, Default)]
pub(super) struct Leases {
    granted: HashMap<LeaseId, Lease>,
    bound: HashMap<String, LeaseId>,
    last: u64,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
    /// Its keys are being removed: nothing renews it any more.
    is_over: bool,
    keys: HashSet<String>,
}

impl Leases {
    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        self.last += 1;
        let id = LeaseId(self.last);
        self.granted.insert(id, Lease { ttl, ends: now + ttl, is_over: false, keys: HashSet::new() });
        id
    }

    /// `false` if it has ended.
    pub(super) fn renew(&mut self, id: LeaseId, now: Instant) -> bool {
        let Some(lease) = self.granted.get_mut(&id).filter(|lease| !lease.is_over) else { return false };
        lease.ends = now + lease.ttl;
        true
    }

    /// Whether every lease that `writes` name is alive.
    pub(super) fn cover(&self, writes: &[Write]) -> bool {
        let is_alive = |id: &LeaseId| self.granted.get(id).is_some_and(|lease| !lease.is_over);
        writes.iter().all(|write| !matches!(write, Write::PutLeased(.., id) if !is_alive(id)))
    }

    /// Follows a transaction that was taken.
    pub(super) fn note(&mut self, writes: &[Write]) {
        if self.granted.is_empty() {
            return;
        }
        for write in writes {
            if let Some(before) = self.bound.remove(write.key())
                && let Some(lease) = self.granted.get_mut(&before)
            {
                lease.keys.remove(write.key());
            }
            if let Write::PutLeased(key, _, id) = write
                && let Some(lease) = self.granted.get_mut(id)
            {
                lease.keys.insert(key.clone());
                self.bound.insert(key.clone(), *id);
            }
        }
    }

    /// When the lease ends; `None` once it has, and its keys are gone.
    pub(super) fn ends(&self, id: LeaseId) -> Option<Instant> {
        Some(self.granted.get(&id)?.ends)
    }

    /// Ends the lease: removes its keys, after which the store [forgets](Self::forget) it.
    pub(super) fn end(&mut self, id: LeaseId) -> Vec<Write> {
        let Some(lease) = self.granted.get_mut(&id) else { return Vec::new() };
        lease.is_over = true;
        let mut keys: Vec<String> = lease.keys.iter().cloned().collect();
        keys.sort_unstable();
        keys.into_iter().map(Write::Delete).collect()
    }

    pub(super) fn forget(&mut self, id: LeaseId) {
        let Some(lease) = self.granted.remove(&id) else { return };
        for key in lease.keys {
            self.bound.remove(&key);
        }
    }
}
