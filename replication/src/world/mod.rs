//! A cluster of one partition in which everything that can happen is an [`Action`]: for the model, which tries all of them
//! in every order, and for the simulation, which lets chance choose.
//!
//! Leaders, followers, elections, moves to other brokers and what the controller does for a partition are the real ones. Brokers, the store
//! and the network are as simple as they can be without being kinder than the real ones: messages come late, twice, in any order or never;
//! images lag, the controller's too; the store is away, its answers get lost, and what was put to it arrives later; brokers step aside;
//! who restarts may have lost what was not yet on disk, or come with another disk; the store is restored from a backup; the log directory
//! fails under a broker that goes on; who is no replica any more has deleted its log. Where the partition is archived, records leave the
//! disks for one bucket; that is away, too, and gives no answers, and what a leader wrote to it arrives when others lead. Where elections may
//! lose records, an operator decides how an archive goes on that holds them. Clients have records deleted, retention lets them go, and what
//! is in no manifest is swept. Compactors rewrite what is archived.

mod act;
mod action;
mod archiver;
mod breaks;
mod bucket;
mod check;
mod compactor;
mod control;
mod deletion;
mod disks;
mod lead;
mod log;
mod network;
mod parting;
mod put_back;
mod retention;
mod scenes;
mod store;

use std::{collections::BTreeSet, time::Duration};

use varve_metadata::{
    image::PartitionImage,
    model::{BrokerId, LeaderEpoch, Offset},
};

pub(crate) use self::{
    action::Action,
    breaks::{Break, Budget},
    scenes::Scene,
};
use self::{
    archiver::Archiver,
    bucket::Bucket,
    compactor::Compactor,
    deletion::Deletions,
    disks::{Disk, Shelved},
    log::{Log, Record},
    parting::Parting,
    store::UnderWay,
};
use crate::{Incarnation, Leader, Outcome, Proposal, follower::Position};

/// `replica.lag.time.max.ms`, in ticks of the world's clocks.
pub(crate) const LAG: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    Nothing,
    Leader(Box<Leader>),
    Follower { leader: BrokerId, epoch: LeaderEpoch },
}

/// A broker's registration in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Registration {
    incarnation: Incarnation,
    fenced: bool,
    /// It may have lost records before this life, and has not yet left what promises otherwise.
    distrusted: bool,
    /// The disk whose log is counted on.
    disk: Disk,
    /// It lives, and is about to stop or has a full disk: others shall lead. Stands elsewhere in the store.
    aside: bool,
    /// How often it was written: who expects an earlier one expects in vain.
    written: u16,
}

/// The store as one broker's image shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct View {
    partition: PartitionImage,
    registrations: Vec<Registration>,
    /// The topic's `min.insync.replicas`.
    min_in_sync: usize,
    /// Who has not looked for logs since the store was put back.
    awaited: BTreeSet<BrokerId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Broker {
    up: bool,
    incarnation: Incarnation,
    /// Its image has shown that the controller let it in, in this life. Until then it takes no part, whatever the partition
    /// says: it may say that this broker leads, in an epoch of its life before, with records that are lost.
    admitted: bool,
    lost_records: bool,
    /// There was a log when this life began.
    found_log: bool,
    /// The log cannot be reached in this life.
    failed: bool,
    /// The store has taken it that the log cannot be reached.
    told: bool,
    /// It lives, as far as the store knows: what is gone with a disk was told before.
    entered: bool,
    disk: Disk,
    log: Log,
    high_watermark: Offset,
    role: Role,
    view: View,
    clock: Duration,
    /// A fetch is under way.
    fetching: bool,
    /// Offsets and values that wait for acks=all, of this leadership.
    waiting: Vec<(Offset, u16)>,
    /// Clients of this leadership wait for everything below to be deleted.
    deleting: Vec<Offset>,
    archiver: Archiver,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Answer {
    Records {
        records: Vec<(u32, u16)>,
        high_watermark: Offset,
        log_start: Offset,
    },
    Diverged {
        epoch: LeaderEpoch,
        end: Offset,
    },
    /// What was asked for is in the archive only, or outside of the log.
    NotHere,
    /// The leader's disk has records from here on, and the log starts there or before.
    Start {
        local: Offset,
        log_start: Offset,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Body {
    /// By a follower whose log starts there.
    Fetch {
        log_start: Offset,
    },
    /// A follower asks where the leader's local log begins, to begin there.
    WhereStart,
    Answer(Answer),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Message {
    from: BrokerId,
    to: BrokerId,
    incarnation: Incarnation,
    epoch: LeaderEpoch,
    position: Position,
    body: Body,
}

/// A proposal on its way to the store, or the store's answer on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ask {
    from: BrokerId,
    incarnation: Incarnation,
    proposal: Proposal,
    /// Whether an earlier attempt's answer was lost.
    repeated: bool,
    attempt: Attempt,
    outcome: Option<Outcome>,
}

/// What the store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Attempt {
    /// To take the proposal, if the registration of who joins is still the one that was written so often.
    Write { registered: Option<u16> },
    /// What became of the proposal, which cannot be taken any more.
    Read,
}

/// What must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    brokers: Vec<Broker>,
    /// Disks that were taken out, and what is on them.
    shelf: Vec<Shelved>,
    partition: PartitionImage,
    registrations: Vec<Registration>,
    messages: Vec<Message>,
    asks: Vec<Ask>,
    under_way: Vec<UnderWay>,
    /// What the store held when somebody kept a copy.
    backup: Option<View>,
    /// How often it was put back to that.
    restored: u8,
    awaited: BTreeSet<BrokerId>,
    acknowledged: BTreeSet<(Offset, u16)>,
    deletions: Deletions,
    /// Where the partition is archived.
    bucket: Option<Bucket>,
    compactors: Vec<Compactor>,
    /// What an operator is about to decide.
    under_decision: Option<Parting>,
    /// Everything that was below a leader's high watermark, in order of its offsets. Noted where there is a bucket.
    committed: Vec<Record>,
    /// How many records both tiers retain together; `None`: all.
    retention: Option<u64>,
    /// The topic allows that records are lost by an election.
    unclean: bool,
    next_value: u16,
    min_in_sync: usize,
    pub(crate) budget: Budget,
    broken: Option<Break>,
    /// Epochs in which somebody led, by whom.
    led: BTreeSet<(LeaderEpoch, BrokerId, Incarnation)>,
    violation: Option<String>,
}

impl World {
    /// `brokers` brokers that all hold the partition and have seen it led by the first of them.
    pub(crate) fn new(brokers: u32, min_in_sync: usize, budget: Budget, broken: Option<Break>) -> World {
        let ids: Vec<BrokerId> = (0..brokers).map(BrokerId).collect();
        let partition = PartitionImage {
            replicas: ids.clone(),
            isr: ids.clone(),
            leader: Some(BrokerId(0)),
            ..PartitionImage::default()
        };
        let registration = Registration {
            incarnation: Incarnation(0),
            fenced: false,
            distrusted: false,
            disk: Disk(0),
            aside: false,
            written: 0,
        };
        let registrations = vec![registration; ids.len()];
        let awaited = BTreeSet::new();
        let view = View {
            partition: partition.clone(),
            registrations: registrations.clone(),
            min_in_sync,
            awaited: awaited.clone(),
        };
        let broker = |_: &BrokerId| Broker {
            up: true,
            incarnation: Incarnation(0),
            admitted: true,
            lost_records: false,
            found_log: true,
            failed: false,
            told: false,
            entered: true,
            disk: Disk(0),
            log: Log::default(),
            high_watermark: Offset::ZERO,
            role: Role::Nothing,
            view: view.clone(),
            clock: LAG * 10,
            fetching: false,
            waiting: Vec::new(),
            deleting: Vec::new(),
            archiver: Archiver::default(),
        };
        let mut world = World {
            brokers: ids.iter().map(broker).collect(),
            shelf: Vec::new(),
            partition,
            registrations,
            messages: Vec::new(),
            asks: Vec::new(),
            under_way: Vec::new(),
            backup: None,
            restored: 0,
            awaited,
            acknowledged: BTreeSet::new(),
            deletions: Deletions::default(),
            bucket: None,
            compactors: Vec::new(),
            under_decision: None,
            committed: Vec::new(),
            retention: None,
            unclean: false,
            next_value: 0,
            min_in_sync,
            budget,
            broken,
            led: BTreeSet::new(),
            violation: None,
        };
        ids.into_iter().for_each(|id| world.take_role(id));
        world
    }

    /// The same with only the first broker in sync.
    pub(crate) fn led_alone(mut self) -> World {
        self.partition.isr.truncate(1);
        self.shown_to_all()
    }

    /// The same with only the first so many brokers as replicas.
    pub(crate) fn held_by_first(mut self, count: usize) -> World {
        self.partition.replicas.truncate(count);
        self.partition.isr.truncate(count);
        self.shown_to_all()
    }

    fn shown_to_all(mut self) -> World {
        for id in self.ids() {
            self.broker_mut(id).view = self.now();
            self.take_role(id);
        }
        self
    }

    fn is(&self, broken: Break) -> bool {
        self.broken == Some(broken)
    }

    fn broker(&self, id: BrokerId) -> &Broker {
        &self.brokers[id.0 as usize]
    }

    fn broker_mut(&mut self, id: BrokerId) -> &mut Broker {
        &mut self.brokers[id.0 as usize]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = BrokerId> + use<> {
        (0..self.brokers.len() as u32).map(BrokerId)
    }

    /// Everything that can happen next.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for id in self.ids() {
            self.add_broker_actions(id, &mut actions);
            self.add_controller_actions(id, &mut actions);
        }
        for place in 0..self.messages.len() {
            actions.push(Action::Deliver(place));
            if self.budget.duplicates > 0 {
                actions.push(Action::Duplicate(place));
            }
        }
        for place in 0..self.asks.len() {
            actions.push(Action::Store(place));
            if self.asks[place].outcome.is_none() {
                if self.budget.lost_answers > 0 {
                    actions.push(Action::LoseAnswer(place));
                }
                if self.budget.outages > 0 {
                    actions.push(Action::SendNothing(place));
                }
            }
        }
        actions.extend((0..self.under_way.len()).map(Action::Arrive));
        self.add_bucket_actions(&mut actions);
        self.add_sweep_actions(&mut actions);
        self.add_compactor_actions(&mut actions);
        self.add_parting_actions(&mut actions);
        if self.budget.lags > 0 {
            actions.push(Action::Lag);
        }
        self.add_operators_actions(&mut actions);
        self.add_backup_actions(&mut actions);
        actions
    }

    fn add_broker_actions(&self, id: BrokerId, actions: &mut Vec<Action>) {
        let broker = self.broker(id);
        if !broker.up {
            actions.push(Action::Restart(id));
            return;
        }
        if broker.view != self.now() {
            actions.push(Action::Show(id));
        }
        match &broker.role {
            // Nothing is written or read any more.
            _ if broker.failed => {}
            Role::Leader(leader) => {
                if self.budget.appends > 0 && leader.check_append(self.minimum_of(id)).is_ok() {
                    actions.push(Action::Append(id));
                }
                if !self.effects_of_review(id).is_empty() {
                    actions.push(Action::Review(id));
                }
            }
            Role::Follower { .. } if !broker.fetching || self.budget.refetches > 0 => {
                actions.push(Action::Fetch(id));
            }
            Role::Follower { .. } | Role::Nothing => {}
        }
        if self.budget.crashes > 0 {
            actions.push(Action::Crash(id));
        }
        if self.budget.power_cuts > 0 {
            for lost in 1..=broker.log.records.len().min(2) {
                actions.push(Action::PowerCut(id, lost));
            }
        }
        self.add_archive_actions(id, actions);
        self.add_deletion_actions(id, actions);
        self.add_retention_actions(id, actions);
        self.add_directory_actions(id, actions);
        self.add_recovery_actions(id, actions);
        self.add_disk_actions(id, actions);
    }

    fn add_directory_actions(&self, id: BrokerId, actions: &mut Vec<Action>) {
        let (broker, registration) = (self.broker(id), self.registrations[id.0 as usize]);
        if !broker.failed && self.budget.power_cuts > 0 {
            for lost in 0..=broker.log.records.len().min(2) {
                actions.push(Action::FailDirectory(id, lost));
            }
        } else if !broker.failed && self.budget.failures > 0 {
            actions.push(Action::FailDirectory(id, 0));
        }
        if broker.incarnation != registration.incarnation {
            return;
        }
        let is_known = self.partition.offline.contains(&id);
        if broker.failed && !is_known {
            actions.push(Action::TellOffline(id));
        }
        if !broker.failed && is_known && !registration.fenced {
            actions.push(Action::TellOnline(id));
        }
    }

    /// The minimum that a leader goes by.
    fn minimum_of(&self, id: BrokerId) -> usize {
        if self.is(Break::CommitsBelowTheMinimum) { 1 } else { self.broker(id).view.min_in_sync }
    }

    /// What an image that follows the store shows now.
    fn now(&self) -> View {
        let (partition, registrations) = (self.partition.clone(), self.registrations.clone());
        View { partition, registrations, min_in_sync: self.min_in_sync, awaited: self.awaited.clone() }
    }
}
