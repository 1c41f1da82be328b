//! Random clients of both protocols against one coordinator whose log is slow, fails and restarts, while topics grow and
//! clients change their protocol; one seed, one run.
//!
//! Held to: no partition has two holders, after every step; a client has only what the coordinator says it has; what a
//! restart loads is what was there; an acknowledged commit is kept; and once the weather clears, every client works, and
//! together they have every partition once.

use std::collections::BTreeMap;

use bytes::Bytes;
use varve_simulation::seeds;

use super::*;
use crate::coordinator::{
    Answer, Generation, GroupError, GroupState, JoinAnswer, JoinRequest, RequestId, SyncAnswer,
    storm::{self, Commit, Storm, World as _, weather},
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
    commit: Option<Commit>,
    starts: u32,
}

struct World {
    storm: Storm,
    clients: Vec<Client>,
    partitions: u32,
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
        World { storm: Storm::new(seed, cluster_of(6)), clients: clients.collect(), partitions: 6 }
    }

    fn restart_coordinator(&mut self) {
        self.storm.groups = self.storm.groups.restarted();
        for client in &mut self.clients {
            client.commit = None;
            match client.stage {
                // A lost answer: asked again.
                Stage::Beating(_) => client.stage = Stage::Working,
                Stage::Joining(_) | Stage::Syncing(..) => client.stage = Stage::Out,
                _ => {}
            }
        }
        self.check();
    }

    fn read_answers(&mut self, number: usize) {
        let client = &mut self.clients[number];
        self.storm.read_commit(&client.name, &mut client.commit);
        match client.stage.clone() {
            Stage::Beating(request) => {
                if let Some(Answer::Heartbeat(outcome)) = self.storm.groups.answers.remove(&request) {
                    self.read_heartbeat(number, outcome);
                }
            }
            Stage::Joining(request) => {
                if let Some(Answer::Join(answer)) = self.storm.groups.answers.remove(&request) {
                    self.read_join(number, answer);
                }
            }
            Stage::Syncing(request, generation) => {
                if let Some(Answer::Sync(SyncAnswer(outcome))) = self.storm.groups.answers.remove(&request) {
                    self.read_sync(number, generation, outcome.map(|synced| synced.assignment));
                }
            }
            _ => {}
        }
    }

    fn read_heartbeat(&mut self, number: usize, outcome: Result<HeartbeatAnswer, ModernGroupError>) {
        let seed = self.storm.seed;
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
        let seed = self.storm.seed;
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
        if self.storm.is_stormy {
            match self.storm.random.below(100) {
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
                let request = self.storm.groups.sync_with(GROUP, identity(&member), generation.0, parts);
                self.clients[number].stage = Stage::Syncing(request, generation);
            }
            Stage::Beating(_) | Stage::Joining(_) | Stage::Syncing(..) => {}
        }
    }

    /// The process ends without a word, and another one starts, perhaps with the other protocol.
    fn start_anew(&mut self, number: usize) {
        let other_protocol = self.storm.random.one_in(3);
        let client = &mut self.clients[number];
        client.is_classic ^= other_protocol && client.instance.is_none();
        client.starts += 1;
        (client.member, client.epoch, client.owned, client.stage) = (None, 0, PartitionSet::new(), Stage::Out);
    }

    fn join(&mut self, number: usize) {
        let fresh_id = Uuid::from_u128(u128::from(self.storm.random.next()));
        let client = &self.clients[number];
        let request = JoinRequest {
            member_id: client.member.clone(),
            instance_id: client.instance.clone(),
            fresh_id,
            ..join_request(GROUP)
        };
        let request = self.storm.groups.join(request);
        self.clients[number].stage = Stage::Joining(request);
    }

    fn work_classic(&mut self, number: usize) {
        let client = &self.clients[number];
        let (member, generation) = (client.member.clone().unwrap(), client.epoch as u32);
        if let Err(error) = self.storm.groups.heartbeat(GROUP, &member, generation) {
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
        let request = self.storm.groups.heartbeat_consumer(request);
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
        let commit = self.storm.commit(|offset| {
            let mut request = member_commit(GROUP, member, client.epoch as u32, offset);
            // Each client to a name of its own, about a partition that it has.
            request.topics[0].name.clone_from(&client.name);
            request.topics[0].id = Some(topic_id(ORDERS));
            request.topics[0].partitions[0].partition = partition;
            request
        });
        self.clients[number].commit = Some(commit);
    }

    fn leave(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(member) = client.member.take() else { return };
        let (is_classic, instance) = (client.is_classic, client.instance.clone());
        (client.epoch, client.owned, client.stage) = (0, PartitionSet::new(), Stage::Out);
        client.starts += 1;
        if is_classic {
            self.storm.leave(GROUP, &member);
        } else {
            self.storm.write_all();
            let for_a_while = instance.is_some() && self.storm.random.one_in(2);
            let epoch = if for_a_while { MemberEpoch::LEAVING_FOR_A_WHILE } else { MemberEpoch::LEAVING };
            let request = ConsumerHeartbeat { epoch, instance_id: instance, ..next(&member, 0) };
            let _ = self.storm.groups.beat(request);
        }
    }

    fn described_now(&self) -> Option<DescribedConsumerGroup> {
        self.storm.groups.shard.describe_consumer(GROUP).ok()
    }

    /// No partition has two holders, and nobody thinks it has what it has not.
    fn check_holders(&mut self) {
        let Some(group) = self.described_now() else { return };
        let mut held = BTreeSet::new();
        for member in &group.members {
            for partition in member.assignment.values().flatten() {
                assert!(held.insert(*partition), "seed {}: two hold {partition}: {group:#?}", self.storm.seed);
            }
        }
        for client in self.clients.iter().filter(|client| !client.is_classic && client.stage == Stage::Working) {
            let id = client.member.as_deref().unwrap_or_default();
            let Some(member) = group.members.iter().find(|member| member.member_id == id) else { continue };
            let has = client.owned.values().flatten();
            let known: BTreeSet<&PartitionIndex> = member.assignment.values().flatten().collect();
            if client.epoch == member.epoch.0 {
                assert!(has.into_iter().all(|partition| known.contains(partition)), "seed {}: {id}", self.storm.seed);
            }
        }
    }
}

impl storm::World for World {
    fn storm(&mut self) -> &mut Storm {
        &mut self.storm
    }

    fn step(&mut self) {
        self.storm.pass(6000, 1000);
        if self.storm.strikes(80) {
            self.restart_coordinator();
        }
        if self.storm.strikes(100) && self.partitions < 10 {
            self.partitions += 1;
            self.storm.groups.put_topic("orders", topic_id(ORDERS), self.partitions);
        }
        self.storm.write(10);
        for number in 0..self.clients.len() {
            self.read_answers(number);
            if self.storm.random.one_in(2) {
                self.act(number);
            }
            self.check_holders();
        }
    }

    fn check(&self) {
        let restarted = self.storm.restarted(GROUP);
        if self.storm.groups.held.is_empty() {
            let described = |groups: &Harness| groups.shard.describe_consumer(GROUP);
            assert_eq!(described(&restarted), described(&self.storm.groups), "seed {}", self.storm.seed);
        }
    }

    fn is_settled(&self) -> bool {
        if self.clients.iter().any(|client| client.stage == Stage::Out) {
            return false;
        }
        let (count, is_stable) = match self.described_now() {
            Some(group) => (group.members.len(), group.state == ConsumerGroupState::Stable),
            None => {
                let group = self.storm.groups.shard.describe(GROUP);
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
    fn shown(&self) -> String {
        format!("{:#?}\n{:#?}", self.clients, self.described_now())
    }
}

fn run(seed: u64) -> (usize, BTreeMap<String, i64>) {
    weather(World::new(seed), 300, 1500)
}

#[test]
fn members_of_both_protocols_share_without_overlap_whatever_happens() {
    for seed in seeds(0..60) {
        run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(4242), run(4242));
}
