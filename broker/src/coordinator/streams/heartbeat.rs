//! What a heartbeat of a member leads to: it joins, says what it has, hears what it shall have, or leaves.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    answer::{StreamsAnswer, StreamsStatus},
    configure::{Configured, configure},
    endpoints::endpoints,
    fence::delay_key,
    group::StreamsGroup,
    member::{StreamsMember, StreamsMemberState},
    plan::{Outcome, Plan, Soft},
    reconcile::Situation,
    request::{OwnedTasks, StreamsHeartbeat},
    target::{STANDBY_REPLICAS, Target},
    tasks::Tasks,
    topology::Topology,
};
use crate::coordinator::{
    Answer, Effect, GroupError, GroupState, GroupType, MemberEpoch, ModernGroupError, Now, RequestId, Shard,
    cluster::metadata_hash,
    locks::{Need, Task},
    modern::{TimerChange, check_epoch, revocation_key},
    rebalance::session_key,
    records::{CoordinatorRecord, StreamsGroupRecord, StreamsRecord},
    shard::{Completion, Step},
    timers::TimerAction,
};

impl Shard {
    /// A member of a streams group is heard of. Answered with [`Answer::StreamsHeartbeat`].
    pub fn streams_heartbeat(&mut self, now: Now, id: RequestId, request: StreamsHeartbeat, effects: &mut Vec<Effect>) {
        let mut step = Step { now, effects };
        if let Err(error) = request.check() {
            return step.answer(id, Answer::StreamsHeartbeat(Err(error)));
        }
        let group_id = request.group_id.clone();
        self.run_or_wait(&group_id, Need::Alone, Task::StreamsHeartbeat(id, Box::new(request)), &mut step);
    }

    pub(in crate::coordinator) fn heartbeat_streams(
        &mut self,
        id: RequestId,
        request: &StreamsHeartbeat,
        step: &mut Step<'_>,
    ) {
        let plan = if request.leaves() {
            self.note_shutdown(request);
            self.plan_streams_leave(id, request)
        } else {
            self.plan_streams_heartbeat(id, request, step.now)
        };
        match plan {
            Ok(plan) => self.carry_out(plan, Completion::Streams, step),
            Err(error) => step.answer(id, Answer::StreamsHeartbeat(Err(error))),
        }
    }

    /// Who leaves because of a fatal error may take all others with it, even if it is no member any more.
    fn note_shutdown(&mut self, request: &StreamsHeartbeat) {
        if let Some(group) = self.streams.get_mut(&request.group_id).filter(|_| request.shuts_down) {
            tracing::info!(group = group.id, member = request.member_id, "a member asked the application to end");
            group.shutdown_by.get_or_insert_with(|| request.member_id.clone());
        }
    }

    fn plan_streams_heartbeat(
        &self,
        id: RequestId,
        request: &StreamsHeartbeat,
        now: Now,
    ) -> Result<Plan, ModernGroupError> {
        let joins = request.epoch == MemberEpoch::JOINING;
        let mut records = Vec::new();
        let group = self.streams_group_to_join(&request.group_id, joins, &mut records)?;
        let (is_new, group) = (matches!(group, Cow::Owned(_)), group.as_ref());
        let owned = request.owned();
        let member = self.find_streams_member(group, request, owned.as_ref())?;
        let updated = request.update(&member);
        let changes_member = updated != member;
        if changes_member {
            let record = StreamsRecord::Member(group.id.clone(), updated.id.clone(), Some(updated.to_record()));
            records.push(record.into());
        }
        let topology = topology_of(group, request, &mut records)?;
        let mut status: Vec<StreamsStatus> = stale_status(group, &updated).into_iter().collect();
        let looked = self.look_at_topics(group, &topology)?;
        let configured = looked.configured.clone();
        if let Some(owned) = owned.as_ref().filter(|_| configured.is_ready()) {
            owned.check(&configured)?;
        }
        let configs = self.assignment_configs(&group.id);
        let validated = if configured.is_ready() { topology.epoch } else { -1 };
        let rises = changes_member
            || looked.is_other
            || validated != group.validated_topology_epoch
            || configs != group.assignment_configs;
        let mut epoch = group.epoch;
        if rises {
            epoch += 1;
            tracing::info!(group = group.id, epoch, validated, "the streams group enters a new epoch");
            let record = StreamsGroupRecord {
                epoch,
                metadata_hash: looked.hash,
                validated_topology_epoch: validated,
                assignment_configs: configs.clone(),
            };
            records.push(StreamsRecord::Group(group.id.clone(), Some(record)).into());
        }

        let mut outcome = Outcome::of(&group.id);
        let delay = self.cluster.streams_settings(&group.id).initial_rebalance_delay;
        let is_delayed = self.timers.is_set(&delay_key(&group.id));
        let begins = group.is_empty() && !delay.is_zero() && !is_delayed;
        if begins {
            outcome.timers.push(TimerChange::Set(delay_key(&group.id), delay, TimerAction::AssignFirst));
        }
        let target = if is_delayed || begins {
            let why = "Assignment delayed due to the configured initial rebalance delay.";
            status.push(StreamsStatus::AssignmentDelayed(why.to_owned()));
            Target { epoch: group.assignment_epoch, tasks: Tasks::default() }
        } else {
            let assigned =
                self.plan_streams_target(now, group, epoch, Some(&updated), &configured, &configs, &mut records);
            assigned.unwrap_or_else(|| {
                if group.assignment_epoch < epoch {
                    let why = "Assignment delayed due to the configured assignment interval.";
                    status.push(StreamsStatus::AssignmentDelayed(why.to_owned()));
                }
                Target { epoch: group.assignment_epoch, tasks: group.target_of(&updated.id) }
            })
        };
        let updated = plan_streams_step(group, &updated, &target, owned.as_ref(), &mut records, &mut outcome)?;

        let settings = self.cluster.streams_settings(&group.id);
        let session = session_key(&group.id, &updated.id);
        outcome.timers.push(TimerChange::Set(session, settings.session_timeout, TimerAction::ExpireSession));
        // Kafka 4.3 tells it only when it changes: were that answer lost, nobody would work on what it gave.
        let lacks_some = owned.as_ref().is_some_and(|owned| !updated.assigned.is_part_of(&owned.tasks));
        let has_other_tasks = joins || member.assigned != updated.assigned;
        let tells = has_other_tasks || lacks_some;
        let endpoint_epoch = group.endpoint_epoch + i32::from(has_other_tasks && updated.endpoint.is_some());
        let knows_endpoints = endpoint_epoch == request.endpoint_epoch;
        let shutdown_by = group.shutdown_by.clone().or_else(|| request.shuts_down.then(|| updated.id.clone()));
        status.extend(configured.problem.clone());
        status.extend(shutdown_by.as_ref().map(|member| {
            StreamsStatus::ShutdownApplication(format!(
                "Streams group member {member} encountered a fatal error and requested a shutdown for the entire \
                 application."
            ))
        }));
        let answer = StreamsAnswer {
            member_id: updated.id.clone(),
            epoch: updated.epoch,
            heartbeat_interval: settings.heartbeat_interval,
            status,
            tasks: tells.then(|| updated.assigned.without_epochs()),
            // As Kafka does: a group that comes into being has not counted yet.
            endpoint_epoch: if is_new { 0 } else { endpoint_epoch },
            endpoints: (!knows_endpoints).then(|| endpoints(group, &updated, &configured, self.cluster.as_ref())),
            missing_topics: configured.missing.values().cloned().collect(),
        };
        outcome.soft = Some(Soft {
            // As Kafka does: a group that comes into being shows its topology as it was said, until it is heard of again.
            configured: (!is_new).then_some(configured),
            looked_at: self.cluster.version(),
            endpoint_epoch: if is_new { 0 } else { endpoint_epoch },
            shutdown_by,
        });
        outcome.answer = Some((id, Answer::StreamsHeartbeat(Ok(answer))));
        Ok(Plan { records, outcome })
    }

    /// The group that a member wants to be in: as it is, or as the records to be appended make it.
    fn streams_group_to_join(
        &self,
        group_id: &str,
        joins: bool,
        records: &mut Vec<CoordinatorRecord>,
    ) -> Result<Cow<'_, StreamsGroup>, ModernGroupError> {
        if let Some(group) = self.streams.get(group_id) {
            return Ok(Cow::Borrowed(group));
        }
        let new = || Ok(Cow::Owned(StreamsGroup::new(group_id.to_owned())));
        if self.is_not_classic(group_id) {
            return Err(ModernGroupError::OtherType(GroupType::Streams, group_id.to_owned()));
        }
        match self.groups.get(group_id) {
            None if joins => new(),
            None => Err(ModernGroupError::NotMade(GroupType::Streams, group_id.to_owned())),
            // Nobody is in it: it ends, and this one takes its place.
            Some(classic) if joins && classic.state == GroupState::Empty => {
                records.push(CoordinatorRecord::Group(group_id.to_owned(), None));
                new()
            }
            Some(_) => Err(ModernGroupError::OtherType(GroupType::Streams, group_id.to_owned())),
        }
    }

    fn find_streams_member(
        &self,
        group: &StreamsGroup,
        request: &StreamsHeartbeat,
        owned: Option<&OwnedTasks>,
    ) -> Result<StreamsMember, ModernGroupError> {
        if request.epoch != MemberEpoch::JOINING {
            let member = group.known_member(&request.member_id)?;
            check_epoch(GroupType::Streams, request.epoch, (member.epoch, member.previous_epoch), || {
                owned.is_some_and(|owned| owned.impossible.is_none() && owned.tasks.is_part_of(&member.assigned))
            })?;
            return Ok(member.clone());
        }
        // A member that starts over counts as well, as in Kafka.
        if group.member_count() >= self.config.streams_max_size {
            return Err(ModernGroupError::Full(GroupType::Streams, self.config.streams_max_size));
        }
        let known = group.members.get(&request.member_id).cloned();
        Ok(known.unwrap_or_else(|| StreamsMember::new(request.member_id.clone())))
    }

    /// The topology beside the topics that exist, if there is a reason to look; else as it was found before.
    fn look_at_topics(&self, group: &StreamsGroup, topology: &Topology) -> Result<Looked, ModernGroupError> {
        let (hash, is_other) = match &group.configured {
            Some(configured) if group.topology.is_some() && !group.must_look_at_topics => {
                let configured = configured.clone();
                return Ok(Looked { configured, hash: group.metadata_hash, is_other: false });
            }
            _ => {
                let hash = metadata_hash(self.cluster.as_ref(), &topology.required_topics());
                (hash, hash != group.metadata_hash)
            }
        };
        let known = group.configured.as_ref().filter(|_| group.topology.is_some() && !is_other);
        let configured = match known {
            Some(configured) => configured.clone(),
            None => Arc::new(configure(topology, self.cluster.as_ref())?),
        };
        Ok(Looked { configured, hash, is_other })
    }

    /// The settings that tasks are assigned by, as the group's record keeps them.
    pub(super) fn assignment_configs(&self, group_id: &str) -> BTreeMap<String, String> {
        let standbys = self.cluster.streams_settings(group_id).standby_replicas;
        [(STANDBY_REPLICAS.to_owned(), standbys.to_string())].into()
    }

    fn plan_streams_leave(&self, id: RequestId, request: &StreamsHeartbeat) -> Result<Plan, ModernGroupError> {
        let group = self.existing_streams(&request.group_id)?;
        let member = group.known_member(&request.member_id)?;
        tracing::info!(group = group.id, member = member.id, "a member left the streams group");
        let answer = StreamsAnswer {
            member_id: member.id.clone(),
            epoch: request.epoch,
            heartbeat_interval: Duration::ZERO,
            status: Vec::new(),
            tasks: None,
            endpoint_epoch: 0,
            endpoints: None,
            missing_topics: Vec::new(),
        };
        Ok(group.plan_fence(&member.id, Some((id, Answer::StreamsHeartbeat(Ok(answer))))))
    }

    /// The streams group of that name.
    pub(super) fn existing_streams(&self, group_id: &str) -> Result<&StreamsGroup, ModernGroupError> {
        self.existing(&self.streams, GroupType::Streams, group_id)
    }
}

/// What a look at the topics found.
struct Looked {
    configured: Arc<Configured>,
    hash: i64,
    /// The topics are others than the group saw last.
    is_other: bool,
}

/// The group's topology: the one it has, or the one that the first member brings.
fn topology_of(
    group: &StreamsGroup,
    request: &StreamsHeartbeat,
    records: &mut Vec<CoordinatorRecord>,
) -> Result<Arc<Topology>, ModernGroupError> {
    if request.topology.as_ref().is_some_and(Topology::is_ambiguous) {
        return Err(GroupError::Unexpected.into());
    }
    match (&group.topology, &request.topology) {
        (None, Some(given)) => {
            tracing::info!(group = group.id, epoch = given.epoch, "the streams group has a topology");
            let given = Arc::new(given.clone());
            records.push(StreamsRecord::Topology(group.id.clone(), Some(given.clone())).into());
            Ok(given)
        }
        // An older one is told so, and works by the newer one.
        (Some(known), Some(given)) if known.epoch <= given.epoch && !known.is_same_as(given) => {
            Err(ModernGroupError::invalid("Topology updates are not supported yet."))
        }
        (Some(known), _) => Ok(known.clone()),
        (None, None) => Err(GroupError::Unexpected.into()),
    }
}

fn stale_status(group: &StreamsGroup, member: &StreamsMember) -> Option<StreamsStatus> {
    let newest = group.topology.as_ref()?.epoch;
    let own = member.topology_epoch;
    (own < newest).then(|| {
        let why = format!("The member's topology epoch {own} is behind the group's topology epoch {newest}.");
        StreamsStatus::StaleTopology(why)
    })
}

/// The member's next step toward its target.
fn plan_streams_step(
    group: &StreamsGroup,
    member: &StreamsMember,
    target: &Target,
    owned: Option<&OwnedTasks>,
    records: &mut Vec<CoordinatorRecord>,
    outcome: &mut Outcome,
) -> Result<StreamsMember, ModernGroupError> {
    if member.is_reconciled_to(target.epoch) {
        return Ok(member.clone());
    }
    let situation = Situation { epoch: target.epoch, target: &target.tasks, owned, holders: &group.holders() };
    let next = situation.step(member)?;
    if next != *member {
        let record = StreamsRecord::Current(group.id.clone(), next.id.clone(), Some(next.to_current()));
        records.push(record.into());
        let key = revocation_key(&group.id, &next.id);
        outcome.timers.push(match next.state {
            StreamsMemberState::UnrevokedTasks => {
                TimerChange::Set(key, next.rebalance_timeout(), TimerAction::ExpireRevocation(next.epoch))
            }
            _ => TimerChange::Cancel(key),
        });
    }
    Ok(next)
}
