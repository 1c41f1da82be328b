//! Groups by their names: those that are asked for, and those that records speak of.

use std::{collections::BTreeMap, time::Duration};

use varve_metadata::model::Timestamp;

use super::ModernGroupError;
use crate::coordinator::{GroupType, Now, Shard, group::Group};

impl Shard {
    /// The group of that name among `groups`, which are those of one type.
    pub(in crate::coordinator) fn existing<'a, G>(
        &self,
        groups: &'a BTreeMap<String, G>,
        kind: GroupType,
        group: &str,
    ) -> Result<&'a G, ModernGroupError> {
        match groups.get(group) {
            Some(group) => Ok(group),
            None if self.has_group(group) => Err(ModernGroupError::OtherType(kind, group.to_owned())),
            None => Err(ModernGroupError::NoGroup(group.to_owned())),
        }
    }
}

/// The group, of one type, that a record is about: made if there is none yet. `None` if the record only takes something back
/// from a group that is gone.
pub(in crate::coordinator) fn group_of_record<'a, G>(
    groups: &'a mut BTreeMap<String, G>,
    others: &mut BTreeMap<String, Group>,
    group_id: &str,
    is_tombstone: bool,
    new: fn(String) -> G,
) -> Option<&'a mut G> {
    if !groups.contains_key(group_id) {
        if is_tombstone {
            return None;
        }
        // Offsets may have come first, which make a group without a type; a group of another type ended before.
        others.remove(group_id);
        groups.insert(group_id.to_owned(), new(group_id.to_owned()));
    }
    groups.get_mut(group_id)
}

/// Whether a group whose members were last assigned something at `assigned_at` may be assigned anew.
pub(in crate::coordinator) fn is_due_for_assignment(
    assigned_at: Option<Timestamp>,
    interval: Duration,
    now: Now,
) -> bool {
    let interval = interval.as_millis();
    assigned_at.is_none_or(|at| {
        let passed = now.wall.to_wire().saturating_sub(at.to_wire());
        // No interval also helps where the wall clock went back.
        interval == 0 || u128::try_from(passed).is_ok_and(|passed| passed >= interval)
    })
}
