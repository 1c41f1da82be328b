//! Rules of who may do what come and go (Kafka's `AclControlManager`).

use std::collections::BTreeMap;

use super::Decision;
use crate::{
    image::{
        ClusterImage, Rules,
        record::{self, AclRecord, Key},
    },
    model::acl::{Acl, AclFilter, ResourcePattern},
};

/// Rules that one request may change (Kafka's `MAX_RECORDS_PER_USER_OP`).
const MAX_CHANGES: usize = 10_000;

/// The request as a whole would change more than 10 000 rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Cannot change more than {MAX_CHANGES} acls in a single operation.")]
pub struct TooManyAcls;

/// Makes those of `acls` that do not exist.
///
/// # Errors
/// [`TooManyAcls`]: nothing is made.
pub fn create_acls(image: &ClusterImage, acls: &[Acl]) -> Result<Decision, TooManyAcls> {
    let mut changed = Changed::new(image);
    for acl in acls {
        changed.note(acl, |rules| rules.insert(&acl.host, acl.operation, acl.permission));
    }
    if changed.changes > MAX_CHANGES { Err(TooManyAcls) } else { Ok(changed.decide()) }
}

/// What `filters` ask for, filter by filter.
///
/// # Errors
/// [`TooManyAcls`]: more than one request may delete. Here a rule counts once for every filter that asks for it.
pub fn find_acls(image: &ClusterImage, filters: &[AclFilter]) -> Result<Vec<Vec<Acl>>, TooManyAcls> {
    let mut answered = 0;
    let find = |filter| {
        let found = image.acls().find(filter);
        answered += found.len();
        if answered > MAX_CHANGES { Err(TooManyAcls) } else { Ok(found) }
    };
    filters.iter().map(find).collect()
}

/// Deletes those of `acls` that exist, each named once; `false` for one that does not.
pub fn remove_acls(image: &ClusterImage, acls: &[Acl]) -> (Vec<bool>, Decision) {
    let mut changed = Changed::new(image);
    let remove = |acl: &Acl| changed.note(acl, |rules| rules.remove(&acl.host, acl.operation, acl.permission));
    let results = acls.iter().map(remove).collect();
    (results, changed.decide())
}

/// Records on their way to what they will be.
struct Changed<'a> {
    image: &'a ClusterImage,
    records: BTreeMap<(ResourcePattern, String), (Rules, bool)>,
    changes: usize,
}

impl Changed<'_> {
    fn new(image: &ClusterImage) -> Changed<'_> {
        Changed { image, records: BTreeMap::new(), changes: 0 }
    }

    /// Has `change` change the rules that stand in one record with `acl`; it says whether it did, and so does this.
    fn note(&mut self, acl: &Acl, change: impl FnOnce(&mut Rules) -> bool) -> bool {
        let key = (acl.pattern.clone(), acl.principal.clone());
        let (rules, touched) =
            self.records.entry(key).or_insert_with(|| (self.image.acls().rules(&acl.pattern, &acl.principal), false));
        let is_changed = change(rules);
        if is_changed {
            *touched = true;
            self.changes += 1;
        }
        is_changed
    }

    fn decide(self) -> Decision {
        let mut decision = Decision::default();
        for ((pattern, principal), (rules, _)) in self.records.into_iter().filter(|(_, (_, touched))| *touched) {
            let key = Key::Acls(pattern, principal);
            if rules.is_empty() {
                decision.delete(&key);
            } else {
                decision.put(&key, record::encode(AclRecord::of(&rules)));
            }
            decision.rewrites.push(key);
        }
        decision
    }
}
