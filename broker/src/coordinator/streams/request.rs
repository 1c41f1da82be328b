//! What a member says (StreamsGroupHeartbeat), checked as far as it can be without its group.

use std::collections::BTreeSet;

use varve_metadata::model::PartitionIndex;

use super::{
    configure::Configured,
    member::{Endpoint, StreamsMember},
    tasks::{TaskSet, Tasks},
    topology::Topology,
};
use crate::coordinator::{GroupError, MemberEpoch, ModernGroupError, membership::is_valid_group_id};

/// A member's request.
#[derive(Clone, Debug, Default)]
pub struct StreamsHeartbeat {
    /// The group.
    pub group_id: String,
    /// Chosen by the member.
    pub member_id: String,
    /// Where it stands.
    pub epoch: MemberEpoch,
    /// The newest [`StreamsAnswer::endpoint_epoch`](super::StreamsAnswer::endpoint_epoch) that it heard of.
    pub endpoint_epoch: i32,
    /// Static membership, which is refused.
    pub instance_id: Option<String>,
    /// `client.rack`; absent if it did not change.
    pub rack_id: Option<String>,
    /// How long it may take to give tasks up, in milliseconds; absent if it did not change.
    pub rebalance_timeout_ms: Option<i32>,
    /// Of the application; present in the first request, and in no other.
    pub topology: Option<Topology>,
    /// Active tasks that it has; absent if they did not change.
    pub active: Option<OwnedKind>,
    /// Standby tasks that it has; absent if they did not change.
    pub standby: Option<OwnedKind>,
    /// Warm-up tasks that it has; absent if they did not change.
    pub warmup: Option<OwnedKind>,
    /// Shared by all members of one process; absent if it did not change.
    pub process_id: Option<String>,
    /// Where its process answers queries; absent if it did not change.
    pub endpoint: Option<Endpoint>,
    /// For assignors that know racks; absent if they did not change.
    pub tags: Option<Vec<(String, String)>>,
    /// It tells how far its tasks are, which is refused.
    pub has_task_offsets: bool,
    /// It tells where the changelogs of its tasks end, which is refused.
    pub has_task_end_offsets: bool,
    /// All members shall end.
    pub shuts_down: bool,
    /// From the request header.
    pub client_id: String,
    /// The client's address, as descriptions show it.
    pub client_host: String,
}

/// Tasks of one kind that a member says it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedKind {
    /// Those that could be some.
    pub tasks: TaskSet,
    /// The first whose number could be none.
    pub impossible: Option<(String, i32)>,
}

impl OwnedKind {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.impossible.is_none()
    }
}

/// Tasks that a member says it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnedTasks {
    /// Those that could be some.
    pub(super) tasks: Tasks,
    /// The first whose number could be none.
    pub(super) impossible: Option<(String, i32)>,
}

impl OwnedTasks {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.impossible.is_none()
    }

    /// # Errors
    /// There is no such task.
    pub(super) fn check(&self, configured: &Configured) -> Result<(), ModernGroupError> {
        let count = |subtopology: &str| {
            configured.subtopologies.get(subtopology).map(|found| found.tasks).ok_or_else(|| {
                ModernGroupError::invalid(format!("Subtopology {subtopology} does not exist in the topology."))
            })
        };
        let no_task = |task: i64, subtopology: &str, count: u32| {
            Err(ModernGroupError::invalid(format!(
                "Task {task} for subtopology {subtopology} is invalid. Number of tasks for this subtopology: {count}"
            )))
        };
        for kind in [&self.tasks.active, &self.tasks.standby, &self.tasks.warmup] {
            for (subtopology, tasks) in kind {
                let count = count(subtopology)?;
                if let Some(PartitionIndex(task)) = tasks.iter().find(|task| task.0 >= count) {
                    return no_task(i64::from(*task), subtopology, count);
                }
            }
        }
        match &self.impossible {
            Some((subtopology, task)) => no_task(i64::from(*task), subtopology, count(subtopology)?),
            None => Ok(()),
        }
    }
}

impl StreamsHeartbeat {
    pub(super) fn leaves(&self) -> bool {
        matches!(self.epoch, MemberEpoch::LEAVING | MemberEpoch::LEAVING_FOR_A_WHILE)
    }

    pub(super) fn check(&self) -> Result<(), ModernGroupError> {
        self.check_features()?;
        let invalid = |why: &str| Err(ModernGroupError::invalid(why));
        let is_blank = |text: &str| text.trim().is_empty();
        if is_blank(&self.member_id) {
            return invalid("MemberId can't be empty.");
        }
        if is_blank(&self.group_id) {
            return invalid("GroupId can't be empty.");
        }
        if self.rack_id.as_deref().is_some_and(is_blank) {
            return invalid("RackId can't be empty.");
        }
        let kinds = [(&self.active, "ActiveTasks"), (&self.standby, "StandbyTasks"), (&self.warmup, "WarmupTasks")];
        match self.epoch {
            MemberEpoch::JOINING => {
                if self.rebalance_timeout_ms.is_none() {
                    return invalid("RebalanceTimeoutMs must be provided in first request.");
                }
                if let Some((_, name)) =
                    kinds.iter().find(|(kind, _)| kind.as_ref().is_some_and(|kind| !kind.is_empty()))
                {
                    return invalid(&format!("{name} must be empty when (re-)joining."));
                }
                let Some(topology) = &self.topology else {
                    return invalid("Topology must be non-null when (re-)joining.");
                };
                check_changelogs(topology)?;
            }
            MemberEpoch::LEAVING_FOR_A_WHILE => return invalid("InstanceId can't be null."),
            MemberEpoch(epoch) if epoch < MemberEpoch::LEAVING_FOR_A_WHILE.0 => {
                return invalid(&format!("MemberEpoch is {epoch}, but must be greater than or equal to -2."));
            }
            _ => {}
        }
        let said = kinds.iter().filter(|(kind, _)| kind.is_some()).count();
        if said != 0 && said != kinds.len() {
            return invalid("If one task-type is non-null, all must be non-null.");
        }
        if self.epoch != MemberEpoch::JOINING && self.topology.is_some() {
            return invalid("Topology can only be provided when (re-)joining.");
        }
        self.check_names()
    }

    /// What Kafka 4.3 does not serve either.
    fn check_features(&self) -> Result<(), ModernGroupError> {
        let uses_patterns = |topology: &Topology| {
            topology.subtopologies.iter().any(|subtopology| !subtopology.source_topic_regexes.is_empty())
        };
        let why = if self.instance_id.is_some() {
            "Static membership is not yet supported."
        } else if self.has_task_offsets {
            "TaskOffsets are not supported yet."
        } else if self.has_task_end_offsets {
            "TaskEndOffsets are not supported yet."
        } else if self.warmup.as_ref().is_some_and(|warmup| !warmup.is_empty()) {
            "WarmupTasks are not supported yet."
        } else if self.topology.as_ref().is_some_and(uses_patterns) {
            "Regular expressions for source topics are not supported yet."
        } else {
            return Ok(());
        };
        Err(ModernGroupError::invalid(why))
    }

    /// What does not fit into a record's key or field cannot be kept, nor can what is said twice.
    fn check_names(&self) -> Result<(), ModernGroupError> {
        let texts = [Some(&self.member_id), self.rack_id.as_ref(), self.process_id.as_ref()];
        let host = self.endpoint.as_ref().map(|endpoint| &endpoint.host);
        let tags = self.tags.iter().flatten().flat_map(|(key, value)| [key, value]);
        let of_topology = self.topology.iter().flat_map(Topology::names);
        let fits = |text: &String| text.len() <= i16::MAX as usize;
        let all_fit = texts.into_iter().flatten().chain(host).chain(tags).chain(of_topology).all(fits);
        let tags = self.tags.as_deref().unwrap_or_default();
        let repeats_tag = tags.iter().map(|(key, _)| key).collect::<BTreeSet<_>>().len() < tags.len();
        if !is_valid_group_id(&self.group_id) || !all_fit || repeats_tag {
            return Err(GroupError::Unexpected.into());
        }
        Ok(())
    }

    /// What the member says it has; `None` if it does not say.
    pub(super) fn owned(&self) -> Option<OwnedTasks> {
        let (active, standby, warmup) = (self.active.as_ref()?, self.standby.as_ref()?, self.warmup.as_ref()?);
        let impossible = [active, standby, warmup].into_iter().find_map(|kind| kind.impossible.clone());
        let of = |kind: &OwnedKind| kind.tasks.clone();
        let tasks = Tasks { active: of(active), standby: of(standby), warmup: of(warmup) };
        Some(OwnedTasks { tasks, impossible })
    }

    /// The member with what the request says of it.
    pub(super) fn update(&self, member: &StreamsMember) -> StreamsMember {
        StreamsMember {
            rack_id: self.rack_id.clone().or_else(|| member.rack_id.clone()),
            rebalance_timeout_ms: self.rebalance_timeout_ms.unwrap_or(member.rebalance_timeout_ms),
            topology_epoch: self.topology.as_ref().map_or(member.topology_epoch, |topology| topology.epoch),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            process_id: self.process_id.as_ref().unwrap_or(&member.process_id).clone(),
            endpoint: self.endpoint.clone().or_else(|| member.endpoint.clone()),
            tags: match &self.tags {
                Some(tags) => tags.iter().cloned().collect(),
                None => member.tags.clone(),
            },
            ..member.clone()
        }
    }
}

fn check_changelogs(topology: &Topology) -> Result<(), ModernGroupError> {
    let mut changelogs = topology.subtopologies.iter().flat_map(|subtopology| &subtopology.changelogs);
    match changelogs.find(|topic| topic.partitions != 0) {
        None => Ok(()),
        Some(topic) => Err(ModernGroupError::InvalidTopology(format!(
            "Changelog topic {} must have an undefined partition count, but it is set to {}.",
            topic.name, topic.partitions
        ))),
    }
}
