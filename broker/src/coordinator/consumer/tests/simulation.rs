//! Random clients of both protocols against one coordinator whose log is slow, fails and restarts, while topics grow and
//! clients change their protocol; one seed, one run.
//!
//! Held to: no partition has two holders, after every step; a client has only what the coordinator says it has; what a
//! restart loads is what was there; an acknowledged commit is kept; and once the weather clears, every client works, and
//! together they have every partition once.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::coordinator::{
    Answer, AppendFailure, CommitAnswer, Generation, GroupError, GroupState, JoinAnswer, JoinRequest, RequestId,
    SyncAnswer,
    simulation::Random,
    subscription::{MemberAssignment, NamedPartitions, encode_assignment},
};

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    Out,
    Beating(RequestId),
    Joining(RequestId),
    Joined(Generation, Vec<(String, Bytes)>),
    Syncing(RequestId, Generation),
    Working,
}

#[derive(Debug)]
struct Client {
    name: String,
    instance: Option<String>,
    is_classic: bool,
    /// A member id; new with every start.
    member: Option<String>,
    epoch: i32,
    owned: PartitionSet,
    stage: Stage,
    commit: Option<(RequestId, i64)>,
    starts: u32,
}

struct World {
    seed: u64,
    random: Random,
    groups: Harness,
    clients: Vec<Client>,
    acknowledged: BTreeMap<String, i64>,
    next_offset: i64,
    partitions: u32,
    is_stormy: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let clients = (0..5).map(|number| Client {
            name: format!("client-{number}"),
            instance: (number == 1).then(|| "static".to_owned()),
            is_classic: number % 2 == 0,
            member: None,
            epoch: 0,
            owned: PartitionSet::new(),
            stage: Stage::Out,
            commit: None,
            starts: 0,
        });
        World {
            seed,
            random: Random(seed),
            groups: cluster_of(6),
            clients: clients.collect(),
            acknowledged: BTreeMap::new(),
            next_offset: 0,
            partitions: 6,
            is_stormy: true,
        }
    }

    fn step(&mut self) {
        let pause = self.random.below(if self.is_stormy { 6000 } else { 1000 });
        self.groups.pass(std::time::Duration::from_millis(pause));
        self.groups.holds_appends = self.is_stormy && self.random.one_in(2);
        if self.is_stormy && self.random.one_in(80) {
            self.restart_coordinator();
        }
        if self.is_stormy && self.random.one_in(100) && self.partitions < 10 {
            self.partitions += 1;
            self.groups.put_topic("orders", topic_id(ORDERS), self.partitions);
        }
        while !self.groups.held.is_empty() && (!self.is_stormy || self.random.one_in(2)) {
            let failure = (self.is_stormy && self.random.one_in(10)).then_some(AppendFailure::Unavailable);
            self.groups.release_one(failure);
        }
        for number in 0..self.clients.len() {
            self.read_answers(number);
            if self.random.one_in(2) {
                self.act(number);
            }
            self.check_holders();
        }
    }

    fn restart_coordinator(&mut self) {
        self.groups = self.groups.restarted();
        for client in &mut self.clients {
            client.commit = None;
            match client.stage {
                // A lost answer: asked again.
                Stage::Beating(_) => client.stage = Stage::Working,
                Stage::Joining(_) | Stage::Syncing(..) => client.stage = Stage::Out,
                _ => {}
            }
        }
        self.check_restart();
    }

    fn read_answers(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if let Some((request, offset)) = client.commit
            && let Some(Answer::Commit(CommitAnswer(outcome))) = self.groups.answers.remove(&request)
        {
            client.commit = None;
            if outcome.is_ok() {
                self.acknowledged.insert(client.name.clone(), offset);
            }
        }
        match client.stage.clone() {
            Stage::Beating(request) => {
                if let Some(Answer::Heartbeat(outcome)) = self.groups.answers.remove(&request) {
                    self.read_heartbeat(number, outcome);
                }
            }
            Stage::Joining(request) => {
                if let Some(Answer::Join(answer)) = self.groups.answers.remove(&request) {
                    self.read_join(number, answer);
                }
            }
            Stage::Syncing(request, generation) => {
                if let Some(Answer::Sync(SyncAnswer(outcome))) = self.groups.answers.remove(&request) {
                    self.read_sync(number, generation, outcome.map(|synced| synced.assignment));
                }
            }
            _ => {}
        }
    }

    fn read_heartbeat(&mut self, number: usize, outcome: Result<HeartbeatAnswer, ModernGroupError>) {
        let seed = self.seed;
        let client = &mut self.clients[number];
        client.stage = Stage::Working;
        match outcome {
            Ok(answer) => {
                client.epoch = answer.epoch.0;
                if let Some(assignment) = answer.assignment {
                    client.owned = assignment;
                }
            }
            Err(error) => match error.kind() {
                GroupError::CoordinatorNotAvailable => {}
                GroupError::UnknownMemberId | GroupError::FencedMemberEpoch | GroupError::GroupIdNotFound => {
                    (client.epoch, client.owned) = (0, PartitionSet::new());
                }
                GroupError::UnreleasedInstanceId | GroupError::FencedInstanceId => {
                    (client.epoch, client.owned) = (0, PartitionSet::new());
                }
                other => panic!("seed {seed}: {other}"),
            },
        }
    }

    fn read_join(&mut self, number: usize, answer: JoinAnswer) {
        let client = &mut self.clients[number];
        let joined = match answer.outcome {
            Ok(joined) => joined,
            Err(GroupError::MemberIdRequired) => {
                client.member = Some(answer.member_id);
                client.stage = Stage::Out;
                return;
            }
            Err(error) => return self.recover(number, error),
        };
        let mut parts = Vec::new();
        if joined.leader == answer.member_id && !joined.skip_assignment {
            let count = joined.members.len() as u32;
            parts.extend(joined.members.iter().zip(0..).map(|(member, place)| {
                let part = (0..self.partitions).filter(|partition| partition % count == place).map(PartitionIndex);
                let named: NamedPartitions = [("orders".to_owned(), part.collect())].into();
                (member.member_id.clone(), encode_assignment(1, &named))
            }));
        }
        client.member = Some(answer.member_id);
        client.stage = Stage::Joined(joined.generation, parts);
    }

    fn read_sync(&mut self, number: usize, generation: Generation, outcome: Result<Bytes, GroupError>) {
        match outcome {
            Ok(bytes) => {
                let client = &mut self.clients[number];
                let assigned = MemberAssignment::parse(&bytes).unwrap().partitions;
                client.owned = assigned.into_values().map(|partitions| (topic_id(ORDERS), partitions)).collect();
                client.owned.retain(|_, partitions| !partitions.is_empty());
                client.epoch = generation.to_wire();
                client.stage = Stage::Working;
            }
            Err(error) => self.recover(number, error),
        }
    }

    /// What client libraries do about an error of the classic protocol.
    fn recover(&mut self, number: usize, error: GroupError) {
        let seed = self.seed;
        let client = &mut self.clients[number];
        client.stage = Stage::Out;
        match error {
            GroupError::UnknownMemberId | GroupError::IllegalGeneration | GroupError::FencedInstanceId => {
                client.member = None;
                client.owned.clear();
            }
            GroupError::RebalanceInProgress | GroupError::CoordinatorNotAvailable => {}
            other => panic!("seed {seed}: {other}"),
        }
    }

    fn act(&mut self, number: usize) {
        if self.is_stormy {
            match self.random.below(100) {
                0..3 => return self.start_anew(number),
                3..5 => return self.leave(number),
                5..15 => return, // late
                _ => {}
            }
        }
        match self.clients[number].stage.clone() {
            Stage::Out if self.clients[number].is_classic => self.join(number),
            Stage::Working if self.clients[number].is_classic => self.work_classic(number),
            Stage::Out | Stage::Working => self.beat_as(number),
            Stage::Joined(generation, parts) => {
                let member = self.clients[number].member.clone().unwrap();
                let request = self.groups.sync_with(GROUP, &member, generation.0, parts);
                self.clients[number].stage = Stage::Syncing(request, generation);
            }
            Stage::Beating(_) | Stage::Joining(_) | Stage::Syncing(..) => {}
        }
    }

    /// The process ends without a word, and another one starts, perhaps with the other protocol.
    fn start_anew(&mut self, number: usize) {
        let other_protocol = self.random.one_in(3);
        let client = &mut self.clients[number];
        client.is_classic ^= other_protocol && client.instance.is_none();
        client.starts += 1;
        (client.member, client.epoch, client.owned, client.stage) = (None, 0, PartitionSet::new(), Stage::Out);
    }

    fn join(&mut self, number: usize) {
        let fresh_id = Uuid::from_u128(u128::from(self.random.next()));
        let client = &self.clients[number];
        let request = JoinRequest {
            member_id: client.member.clone(),
            instance_id: client.instance.clone(),
            fresh_id,
            ..join_request(GROUP)
        };
        let request = self.groups.join(request);
        self.clients[number].stage = Stage::Joining(request);
    }

    fn work_classic(&mut self, number: usize) {
        let client = &self.clients[number];
        let (member, generation) = (client.member.clone().unwrap(), client.epoch as u32);
        if let Err(error) = self.groups.heartbeat(GROUP, &member, generation) {
            return self.recover(number, error);
        }
        self.commit(number, &member);
    }

    fn beat_as(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let name = format!("{}-{}", client.name, client.starts);
        let member = client.member.get_or_insert(name).clone();
        let owned = Owned { partitions: client.owned.clone(), has_impossible: false };
        let request = ConsumerHeartbeat {
            epoch: MemberEpoch(client.epoch),
            owned: Some(owned),
            instance_id: client.instance.clone(),
            ..first(&member)
        };
        let epoch = client.epoch;
        let request = self.groups.heartbeat_consumer(request);
        self.clients[number].stage = Stage::Beating(request);
        if epoch > 0 {
            self.commit(number, &member);
        }
    }

    fn commit(&mut self, number: usize, member: &str) {
        let client = &self.clients[number];
        let Some(partition) = client.owned.values().flatten().next().copied().filter(|_| client.commit.is_none())
        else {
            return;
        };
        self.next_offset += 1;
        let mut request = member_commit(GROUP, member, client.epoch as u32, self.next_offset);
        // Each client to a name of its own, about a partition that it has.
        request.topics[0].name.clone_from(&client.name);
        request.topics[0].id = Some(topic_id(ORDERS));
        request.topics[0].partitions[0].partition = partition;
        let request = self.groups.commit(request);
        self.clients[number].commit = Some((request, self.next_offset));
    }

    fn leave(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(member) = client.member.take() else { return };
        let (is_classic, instance) = (client.is_classic, client.instance.clone());
        (client.epoch, client.owned, client.stage) = (0, PartitionSet::new(), Stage::Out);
        client.starts += 1;
        self.groups.holds_appends = false;
        while !self.groups.held.is_empty() {
            self.groups.release_one(None);
        }
        if is_classic {
            self.groups.leave(GROUP, &[identity(&member)]);
        } else {
            let for_a_while = instance.is_some() && self.random.one_in(2);
            let epoch = if for_a_while { MemberEpoch::LEAVING_FOR_A_WHILE } else { MemberEpoch::LEAVING };
            let request = ConsumerHeartbeat { epoch, instance_id: instance, ..next(&member, 0) };
            let _ = self.groups.beat(request);
        }
    }

    fn described_now(&self) -> Option<DescribedConsumerGroup> {
        self.groups.shard.describe_consumer(GROUP).ok()
    }

    /// No partition has two holders, and nobody thinks it has what it has not.
    fn check_holders(&mut self) {
        let Some(group) = self.described_now() else { return };
        let mut held = BTreeSet::new();
        for member in &group.members {
            for partition in member.assignment.values().flatten() {
                assert!(held.insert(*partition), "seed {}: two hold {partition}: {group:#?}", self.seed);
            }
        }
        for client in self.clients.iter().filter(|client| !client.is_classic && client.stage == Stage::Working) {
            let id = client.member.as_deref().unwrap_or_default();
            let Some(member) = group.members.iter().find(|member| member.member_id == id) else { continue };
            let has = client.owned.values().flatten();
            let known: BTreeSet<&PartitionIndex> = member.assignment.values().flatten().collect();
            if client.epoch == member.epoch.0 {
                assert!(has.into_iter().all(|partition| known.contains(partition)), "seed {}: {id}", self.seed);
            }
        }
    }

    fn check_restart(&self) {
        let restarted = self.groups.restarted();
        for (name, acknowledged) in &self.acknowledged {
            let committed = restarted.shard.committed(GROUP).and_then(|topics| topics.get(name));
            let newest = committed.and_then(|partitions| partitions.values().map(|committed| committed.offset).max());
            assert!(newest >= Some(*acknowledged), "seed {}: {name} lost {acknowledged}, has {newest:?}", self.seed);
        }
        if self.groups.held.is_empty() {
            assert_eq!(
                restarted.shard.describe_consumer(GROUP),
                self.groups.shard.describe_consumer(GROUP),
                "seed {}",
                self.seed
            );
        }
    }

    fn is_settled(&self) -> bool {
        if self.clients.iter().any(|client| client.stage == Stage::Out) {
            return false;
        }
        let (count, is_stable) = match self.described_now() {
            Some(group) => (group.members.len(), group.state == ConsumerGroupState::Stable),
            None => {
                let group = self.groups.shard.describe(GROUP);
                (
                    group.as_ref().map_or(0, |group| group.members.len()),
                    group.is_some_and(|group| group.state == GroupState::Stable),
                )
            }
        };
        let mut owned: Vec<PartitionIndex> =
            self.clients.iter().flat_map(|client| client.owned.values().flatten().copied()).collect();
        owned.sort();
        is_stable
            && count == self.clients.len()
            && owned == (0..self.partitions).map(PartitionIndex).collect::<Vec<_>>()
    }
}

fn run(seed: u64) -> (usize, BTreeMap<String, i64>) {
    let mut world = World::new(seed);
    for step in 0..300 {
        world.step();
        if step % 20 == 0 {
            world.check_restart();
        }
    }
    world.is_stormy = false;
    let settled = (0..1500).any(|_| {
        world.step();
        world.is_settled()
    });
    let group = world.described_now();
    assert!(settled, "seed {seed}: everyone works in the end: {:#?}\n{group:#?}", world.clients);
    world.check_restart();
    (world.groups.log.len(), world.acknowledged)
}

#[test]
fn members_of_both_protocols_share_without_overlap_whatever_happens() {
    for seed in 0..60 {
        run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(4242), run(4242));
}
