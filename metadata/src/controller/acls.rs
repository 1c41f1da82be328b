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
    changed.decide()
}

/// Deletes what `filters` ask for; returns it filter by filter.
///
/// # Errors
/// [`TooManyAcls`]: nothing is deleted. Here a rule counts once for every filter that asks for it.
pub fn delete_acls(image: &ClusterImage, filters: &[AclFilter]) -> Result<(Vec<Vec<Acl>>, Decision), TooManyAcls> {
    let mut changed = Changed::new(image);
    let mut deleted = Vec::with_capacity(filters.len());
    let mut answered = 0;
    for filter in filters {
        let found = image.acls().find(filter);
        answered += found.len();
        if answered > MAX_CHANGES {
            return Err(TooManyAcls);
        }
        for acl in &found {
            changed.note(acl, |rules| rules.remove(&acl.host, acl.operation, acl.permission));
        }
        deleted.push(found);
    }
    Ok((deleted, changed.decide()?))
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

    /// Has `change` change the rules that stand in one record with `acl`; it says whether it did.
    fn note(&mut self, acl: &Acl, change: impl FnOnce(&mut Rules) -> bool) {
        let key = (acl.pattern.clone(), acl.principal.clone());
        let (rules, touched) =
            self.records.entry(key).or_insert_with(|| (self.image.acls().rules(&acl.pattern, &acl.principal), false));
        if change(rules) {
            *touched = true;
            self.changes += 1;
        }
    }

    fn decide(self) -> Result<Decision, TooManyAcls> {
        if self.changes > MAX_CHANGES {
            return Err(TooManyAcls);
        }
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
        Ok(decision)
    }
}
