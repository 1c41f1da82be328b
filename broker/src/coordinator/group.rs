//! One classic group: who belongs to it, in which state it is, what its members agree on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use varve_metadata::model::Timestamp;

use super::{
    Generation, GroupError, JoinedMember, MemberIdentity, RequestId,
    records::{GroupMetadata, MemberMetadata},
    subscription,
};

/// Where a group is in its life; drawn in the module above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// No members; perhaps offsets.
    Empty,
    /// Members are called to join the next generation.
    PreparingRebalance,
    /// The generation is formed; its leader assigns.
    CompletingRebalance,
    /// Every member has, or may fetch, its assignment.
    Stable,
    /// Being deleted.
    Dead,
}

impl GroupState {
    /// Kafka's name for it, as requests and tools show it.
    pub const fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// A protocol that a member supports, and what it wants to tell the others under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// For example `range`.
    pub name: String,
    /// For consumers: the subscription.
    pub metadata: Bytes,
}

/// One member of a group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout: Duration,
    pub(super) session_timeout: Duration,
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// The join that waits for the generation to be formed.
    pub(super) awaiting_join: Option<RequestId>,
    /// The sync that waits for the leader's assignment.
    pub(super) awaiting_sync: Option<RequestId>,
    /// Has not completed a join yet: its session runs although its join waits, since its client may be gone.
    pub(super) is_new: bool,
}

impl Member {
    /// What the member sent for `protocol`; empty if it does not support it.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|offered| offered.name == protocol).map_or_else(Bytes::new, |p| p.metadata.clone())
    }

    /// Whether the coordinator, not the member, is the one that keeps the other waiting.
    pub(super) fn owes_no_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }
}

/// A classic group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: String,
    pub(super) state: GroupState,
    pub(super) previous_state: GroupState,
    /// Unknown for groups loaded from records before version 2.
    pub(super) state_since: Option<Timestamp>,
    pub(super) generation: Generation,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol_name: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Instance id to member id (KIP-345).
    pub(super) static_members: HashMap<String, String>,
    /// Ids given out and not used yet (KIP-394).
    pub(super) pending_join: BTreeSet<String>,
    /// Members of this generation that have not asked for their assignment yet.
    pub(super) pending_sync: BTreeSet<String>,
    /// Known if the members are consumers whose subscriptions could be read.
    pub(super) subscribed_topics: Option<BTreeSet<String>>,
    /// Someone joined while the first rebalance waits, so it waits on (KIP-134).
    pub(super) new_member_added: bool,
    /// How many members have a join waiting.
    pub(super) awaiting_join: usize,
    /// How many members support each protocol.
    supporters: HashMap<String, usize>,
}

impl Group {
    pub(super) fn new(id: String, now: Timestamp) -> Group {
        Group {
            id,
            state: GroupState::Empty,
            previous_state: GroupState::Dead,
            state_since: Some(now),
            generation: Generation(0),
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            subscribed_topics: None,
            new_member_added: false,
            awaiting_join: 0,
            supporters: HashMap::new(),
        }
    }

    /// A group of consumers that comes from elsewhere with its members and what each of them has.
    pub(super) fn formed(id: String, generation: Generation, now: Timestamp, members: Vec<Member>) -> Group {
        let mut group = Group::new(id, now);
        group.state = GroupState::Stable;
        group.generation = generation;
        group.protocol_type = Some(subscription::CONSUMER.to_owned());
        members.into_iter().for_each(|member| group.add(member));
        group.protocol_name = group.select_protocol();
        group.subscribed_topics = group.read_subscriptions();
        group
    }

    /// The group as its last record describes it. `None` if the record contradicts itself.
    pub(super) fn from_record(id: String, record: GroupMetadata) -> Option<Group> {
        let mut group = Group::new(id, Timestamp::default());
        group.state_since = record.state_since;
        group.generation = record.generation;
        if !record.members.is_empty() {
            group.state = GroupState::Stable;
            let protocol = record.protocol.as_deref()?;
            for member in record.members {
                group.add(Member {
                    id: member.member_id,
                    instance_id: member.instance_id,
                    client_id: member.client_id,
                    client_host: member.client_host,
                    rebalance_timeout: member.rebalance_timeout,
                    session_timeout: member.session_timeout,
                    // Only the chosen protocol was kept: members bring the others when they join again.
                    protocols: vec![Protocol { name: protocol.to_owned(), metadata: member.subscription }],
                    assignment: member.assignment,
                    awaiting_join: None,
                    awaiting_sync: None,
                    is_new: false,
                });
            }
            if record.leader.as_ref().is_some_and(|leader| group.members.contains_key(leader)) {
                group.leader = record.leader;
            }
        }
        group.protocol_type = Some(record.protocol_type).filter(|name| !name.is_empty());
        group.protocol_name = record.protocol;
        group.subscribed_topics = group.read_subscriptions();
        Some(group)
    }

    /// What has to be kept of the group, with `assignment` in place of what its members hold.
    pub(super) fn to_record(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupMetadata {
        let protocol = self.protocol_name.clone();
        GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            leader: self.leader.clone(),
            state_since: self.state_since,
            members: self
                .members
                .values()
                .map(|member| MemberMetadata {
                    member_id: member.id.clone(),
                    instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    rebalance_timeout: member.rebalance_timeout,
                    session_timeout: member.session_timeout,
                    subscription: protocol.as_deref().map_or_else(Bytes::new, |name| member.metadata(name)),
                    assignment: assignment(member),
                })
                .collect(),
            protocol,
        }
    }

    /// The record of a group that was only just made: whoever has joined is not part of any generation yet.
    pub(super) fn to_empty_record(&self) -> GroupMetadata {
        GroupMetadata {
            protocol_type: String::new(),
            generation: Generation(0),
            protocol: None,
            leader: None,
            state_since: self.state_since,
            members: Vec::new(),
        }
    }

    pub(super) fn transition(&mut self, to: GroupState, now: Timestamp) {
        self.previous_state = self.state;
        self.state = to;
        self.state_since = Some(now);
    }

    pub(super) fn can_rebalance(&self) -> bool {
        matches!(self.state, GroupState::Stable | GroupState::CompletingRebalance | GroupState::Empty)
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    pub(super) fn has_all_joined(&self) -> bool {
        self.members.len() == self.awaiting_join && self.pending_join.is_empty()
    }

    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    pub(super) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(subscription::CONSUMER)
    }

    /// While subscriptions cannot be read, a group of consumers counts as subscribed to everything.
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let by_all = |protocol: &Protocol| {
            self.supporters.get(&protocol.name).copied().unwrap_or_default() == self.members.len()
        };
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(by_all)
    }

    pub(super) fn add(&mut self, member: Member) {
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), member.id.clone());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.pending_join.remove(&member.id);
        self.count_protocols(&member.protocols, true);
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        if let Some(replaced) = self.members.insert(member.id.clone(), member) {
            self.forget(&replaced);
        }
    }

    /// Takes the member out; whoever waits in its name must still be answered.
    pub(super) fn remove(&mut self, member_id: &str) -> Option<Member> {
        let removed = self.members.remove(member_id);
        if let Some(member) = &removed {
            self.forget(member);
            if let Some(instance) = &member.instance_id {
                self.static_members.remove(instance);
            }
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_join.remove(member_id);
        self.pending_sync.remove(member_id);
        removed
    }

    fn forget(&mut self, member: &Member) {
        self.count_protocols(&member.protocols, false);
        self.awaiting_join -= usize::from(member.awaiting_join.is_some());
    }

    fn count_protocols(&mut self, protocols: &[Protocol], added: bool) {
        // A name given twice counts once, or it would seem to be supported by more members than there are.
        let names: BTreeSet<&str> = protocols.iter().map(|protocol| protocol.name.as_str()).collect();
        for name in names {
            if added {
                *self.supporters.entry(name.to_owned()).or_default() += 1;
            } else if let Some(count) = self.supporters.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.supporters.remove(name);
                }
            }
        }
    }

    /// Gives the member of a static instance a new id; all else stays. The old one, with its waiting requests, comes back.
    pub(super) fn replace_static(&mut self, instance: &str, old_id: &str, new_id: &str) -> Option<Member> {
        let old = self.members.remove(old_id)?;
        self.awaiting_join -= usize::from(old.awaiting_join.is_some());
        let new =
            Member { id: new_id.to_owned(), awaiting_join: None, awaiting_sync: None, is_new: false, ..old.clone() };
        self.members.insert(new_id.to_owned(), new);
        if self.is_leader(old_id) {
            self.leader = Some(new_id.to_owned());
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(new_id.to_owned());
        }
        self.static_members.insert(instance.to_owned(), new_id.to_owned());
        Some(old)
    }

    /// Takes over what the member's newest join says. The join it had waiting before, if any, comes back.
    pub(super) fn update(
        &mut self,
        member_id: &str,
        protocols: Vec<Protocol>,
        rebalance_timeout: Duration,
        session_timeout: Duration,
        join: Option<RequestId>,
    ) -> Option<RequestId> {
        let member = self.members.get_mut(member_id)?;
        let before = std::mem::replace(&mut member.protocols, protocols.clone());
        member.rebalance_timeout = rebalance_timeout;
        member.session_timeout = session_timeout;
        let superseded = std::mem::replace(&mut member.awaiting_join, join);
        self.awaiting_join -= usize::from(superseded.is_some());
        self.awaiting_join += usize::from(join.is_some());
        self.count_protocols(&before, false);
        self.count_protocols(&protocols, true);
        superseded
    }

    pub(super) fn take_join(&mut self, member_id: &str) -> Option<RequestId> {
        let waiting = self.members.get_mut(member_id)?.awaiting_join.take()?;
        self.awaiting_join -= 1;
        Some(waiting)
    }

    /// The protocol that most members prefer among those that all support; the first by name where votes are equal.
    /// `None` without members.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let by_all = |name: &str| self.supporters.get(name).is_some_and(|count| *count == self.members.len());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some(protocol) = member.protocols.iter().find(|protocol| by_all(&protocol.name)) {
                *votes.entry(&protocol.name).or_default() += 1;
            }
        }
        let most = *votes.values().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
    }

    pub(super) fn start_generation(&mut self, now: Timestamp) {
        self.generation = self.generation.next();
        self.protocol_name = self.select_protocol();
        self.subscribed_topics = self.read_subscriptions();
        self.pending_sync.clear();
        let next = if self.members.is_empty() { GroupState::Empty } else { GroupState::CompletingRebalance };
        self.transition(next, now);
    }

    /// Makes a member that joined the leader, if the one before did not. False if nobody joined.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let Some(leader) = &self.leader else { return false };
        if self.members.get(leader).is_some_and(|member| member.awaiting_join.is_some()) {
            return true;
        }
        let joined = self.members.values().find(|member| member.awaiting_join.is_some());
        let Some(joined) = joined else { return false };
        self.leader = Some(joined.id.clone());
        true
    }

    pub(super) fn members_for_leader(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        self.members
            .values()
            .map(|member| JoinedMember {
                member_id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(protocol),
            })
            .collect()
    }

    /// Whether `identity` names a member of the group, and is not fenced by another with its instance id.
    pub(super) fn check_member(&self, identity: &MemberIdentity) -> Result<(), GroupError> {
        if let Some(instance) = &identity.instance_id {
            let holder = self.static_members.get(instance).ok_or(GroupError::UnknownMemberId)?;
            if *holder != identity.member_id {
                return Err(GroupError::FencedInstanceId);
            }
        }
        if self.members.contains_key(&identity.member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    fn read_subscriptions(&self) -> Option<BTreeSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        let mut topics = BTreeSet::new();
        if !self.members.is_empty() {
            let protocol = self.protocol_name.as_deref()?;
            for member in self.members.values() {
                subscription::collect_topics(&member.metadata(protocol), &mut topics)?;
            }
        }
        Some(topics)
    }
}
