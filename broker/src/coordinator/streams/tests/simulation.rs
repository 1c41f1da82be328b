//! Random applications against one coordinator whose log is slow, fails and restarts, while topics come and grow, copies are
//! turned on and off, and clients end without a word; one seed, one run.
//!
//! Held to: no task has two that process it, and no process has a task twice, after every step; a client works on nothing but
//! what the coordinator says it has; what a restart loads is what was there; an acknowledged commit is kept; and once the
//! weather clears, every client works, together they process every task once, and every copy is kept.

use std::collections::BTreeMap;

use varve_simulation::seeds;

use super::*;
use crate::coordinator::{
    RequestId, TopicsChange,
    storm::{self, Commit, Storm, World as _, weather},
};

#[derive(Debug)]
struct Client {
    name: String,
    process: String,
    starts: u32,
    epoch: i32,
    owned: Tasks,
    beat: Option<RequestId>,
    commit: Option<Commit>,
}

impl Client {
    fn member(&self) -> String {
        format!("{}-{}", self.name, self.starts)
    }

    fn process(&self) -> String {
        format!("{}-{}", self.process, self.starts / 2)
    }
}

struct World {
    storm: Storm,
    clients: Vec<Client>,
}

/// Reads `orders`, keeps what it counts, and writes it to a topic of its own, which it reads again.
fn application() -> Topology {
    topology(&[
        Subtopology {
            changelogs: vec![internal("counts")],
            repartition_sinks: vec!["again".to_owned()],
            ..reads("0", &["orders"])
        },
        Subtopology { repartition_sources: vec![internal("again")], ..reads("1", &[]) },
    ])
}

impl World {
    fn new(seed: u64) -> World {
        let clients = (0..5).map(|number| Client {
            name: format!("client-{number}"),
            process: format!("process-{}", number / 2),
            starts: 0,
            epoch: 0,
            owned: Tasks::default(),
            beat: None,
            commit: None,
        });
        let mut cluster = TestCluster::default();
        cluster.streams = StreamsSettings { initial_rebalance_delay: Duration::from_secs(3), ..at_once() };
        let groups = Harness::on(GroupConfig::default(), cluster);
        World { storm: Storm::new(seed, groups), clients: clients.collect() }
    }

    /// The topic that is read is made, and in a storm grows or its topology's others lag behind; copies come and go.
    fn change_cluster(&mut self) {
        let partitions = self.storm.groups.cluster.partitions_of("orders");
        if partitions == 0 {
            return self.storm.groups.put_topic("orders", topic_id(1), 3);
        }
        if self.storm.is_stormy && self.storm.random.one_in(8) && partitions < 6 {
            // Whoever grows a topic of an application grows all of them.
            for (name, number) in [("orders", 1), ("counts", 2), ("again", 3)] {
                self.storm.groups.put_topic(name, topic_id(number), partitions + 1);
            }
        }
        if self.storm.is_stormy && self.storm.random.one_in(8) {
            self.storm.groups.cluster.streams.standby_replicas = self.storm.random.below(2) as u32;
            self.storm.groups.cluster.version += 1;
            self.storm.groups.show_cluster(&TopicsChange::default());
        }
    }

    fn restart_coordinator(&mut self) {
        self.storm.groups = self.storm.groups.restarted();
        for client in &mut self.clients {
            // Lost answers: asked again.
            (client.beat, client.commit) = (None, None);
        }
        self.check();
    }

    fn read_answers(&mut self, number: usize) {
        let client = &mut self.clients[number];
        self.storm.read_commit(&client.name, &mut client.commit);
        let Some(request) = client.beat else { return };
        let Some(Answer::StreamsHeartbeat(outcome)) = self.storm.groups.answers.remove(&request) else { return };
        client.beat = None;
        match outcome {
            Ok(answer) => {
                client.epoch = answer.epoch.0;
                if let Some(tasks) = answer.tasks {
                    client.owned = tasks;
                }
                for topic in answer.missing_topics {
                    let number = if topic.name == "counts" { 2 } else { 3 };
                    // An answer that is late may ask for what has been made, and has grown since.
                    if self.storm.groups.cluster.partitions_of(&topic.name) == 0 {
                        self.storm.groups.put_topic(&topic.name, topic_id(number), topic.partitions);
                    }
                }
            }
            Err(error) => match error.kind() {
                GroupError::CoordinatorNotAvailable => {}
                GroupError::UnknownMemberId | GroupError::FencedMemberEpoch | GroupError::GroupIdNotFound => {
                    (client.epoch, client.owned) = (0, Tasks::default());
                }
                other => panic!("seed {}: {other} {error}", self.storm.seed),
            },
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
        if self.clients[number].beat.is_some() {
            return;
        }
        let client = &self.clients[number];
        let member = client.member();
        let owned = client.owned.clone();
        let mut request = owning(&member, client.epoch, owned);
        request.process_id = Some(client.process());
        if client.epoch == 0 {
            request.rebalance_timeout_ms = Some(60_000);
            request.topology = Some(application());
            let none = || Some(OwnedKind::default());
            (request.active, request.standby, request.warmup) = (none(), none(), none());
        }
        let epoch = client.epoch;
        self.clients[number].beat = Some(self.storm.groups.ask_streams(request));
        if epoch > 0 {
            self.commit(number, &member);
        }
    }

    /// The process ends without a word, and another one starts.
    fn start_anew(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.starts += 1;
        (client.epoch, client.owned, client.beat) = (0, Tasks::default(), None);
    }

    fn leave(&mut self, number: usize) {
        let member = self.clients[number].member();
        self.start_anew(number);
        self.storm.write_all();
        let _ = self.storm.groups.beat_streams(next(&member, -1));
    }

    /// Each client to a name of its own, about a task that it has.
    fn commit(&mut self, number: usize, member: &str) {
        let client = &self.clients[number];
        let task = client.owned.active.get("0").and_then(|tasks| tasks.first().copied());
        let Some(partition) = task.filter(|_| client.commit.is_none()) else { return };
        let commit = self.storm.commit(|offset| {
            let mut request = member_commit(GROUP, member, client.epoch as u32, offset);
            request.knows_group_id_not_found = true;
            request.topics[0].name.clone_from(&client.name);
            request.topics[0].partitions[0].partition = partition;
            request
        });
        self.clients[number].commit = Some(commit);
    }

    fn group_now(&self) -> Option<DescribedStreamsGroup> {
        self.storm.groups.shard.describe_streams(GROUP).ok()
    }

    fn check_holders(&mut self) {
        let Some(group) = self.storm.groups.shard.streams.get(GROUP) else { return };
        let mut processed = BTreeSet::new();
        let mut held = BTreeSet::new();
        for member in group.members.values() {
            for tasks in [&member.assigned, &member.pending_revocation] {
                for (subtopology, tasks) in &tasks.active {
                    for task in tasks.keys() {
                        assert!(processed.insert((subtopology, *task)), "seed {}: two process {task}", self.storm.seed);
                        held.insert((&member.process_id, subtopology, *task));
                    }
                }
            }
        }
        for member in group.members.values() {
            for tasks in [&member.assigned, &member.pending_revocation] {
                for (subtopology, tasks) in &tasks.standby {
                    for task in tasks {
                        let is_new = held.insert((&member.process_id, subtopology, *task));
                        assert!(is_new, "seed {}: a process has {task} twice: {group:#?}", self.storm.seed);
                    }
                }
            }
        }
        for client in self.clients.iter().filter(|client| client.beat.is_none() && client.epoch > 0) {
            let Some(member) = group.members.get(&client.member()) else { continue };
            if client.epoch == member.epoch.0 {
                let mut known = member.assigned.clone();
                for (subtopology, tasks) in member.pending_revocation.active.clone() {
                    known.active.entry(subtopology).or_default().extend(tasks);
                }
                for (subtopology, tasks) in member.pending_revocation.standby.clone() {
                    known.standby.entry(subtopology).or_default().extend(tasks);
                }
                assert!(client.owned.is_part_of(&known), "seed {}: {}", self.storm.seed, client.member());
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
        if self.storm.random.one_in(20) {
            self.change_cluster();
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
            // What is decided of topics is not kept, so the topology is shown as it was said.
            let shown = |groups: &Harness| {
                groups.shard.describe_streams(GROUP).ok().map(|group| {
                    (group.state, group.epoch, group.assignment_epoch, group.topology.epoch, group.members)
                })
            };
            assert_eq!(shown(&restarted), shown(&self.storm.groups), "seed {}", self.storm.seed);
        }
    }

    fn is_settled(&self) -> bool {
        let Some(group) = self.group_now() else { return false };
        let partitions = self.storm.groups.cluster.partitions_of("orders");
        let mut processed: Vec<(String, PartitionIndex)> = Vec::new();
        let mut copies = 0;
        for client in &self.clients {
            let tasks = client.owned.active.iter();
            processed.extend(tasks.flat_map(|(id, tasks)| tasks.iter().map(|task| (id.clone(), *task))));
            copies += client.owned.standby.values().map(BTreeSet::len).sum::<usize>();
        }
        processed.sort();
        let all: Vec<(String, PartitionIndex)> = ["0", "1"]
            .into_iter()
            .flat_map(|id| (0..partitions).map(|task| (id.to_owned(), PartitionIndex(task))))
            .collect();
        let processes: BTreeSet<String> = self.clients.iter().map(Client::process).collect();
        let wanted = (self.storm.groups.cluster.streams.standby_replicas as usize).min(processes.len() - 1);
        group.state == StreamsGroupState::Stable
            && group.members.len() == self.clients.len()
            && processed == all
            && copies == wanted * partitions as usize
    }
    fn shown(&self) -> String {
        format!("{:#?}\n{:#?}", self.clients, self.group_now())
    }
}

fn run(seed: u64) -> (usize, BTreeMap<String, i64>) {
    weather(World::new(seed), 300, 1500)
}

#[test]
fn applications_share_their_tasks_without_overlap_whatever_happens() {
    for seed in seeds(0..60) {
        run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(4242), run(4242));
}
