//! A cluster of one partition in which everything that can happen is an [`Action`]: for the model, which tries all of them
//! in every order, and for the simulation, which lets chance choose.
//!
//! Leaders, followers, elections, moves to other brokers and what the controller does for a partition are the real ones. Brokers, the store
//! and the network are as simple as they can be without being kinder than the real ones: messages come late, twice, in any order or never;
//! images lag, the controller's too; the store is away, its answers get lost, and what was put to it arrives later; brokers step aside;
//! who restarts may have lost what was not yet on disk, or come with another disk; the store is restored from a backup; the log directory fails under a broker that goes on; who
//! is no replica any more has deleted its log.

mod act;
mod breaks;
mod check;
mod control;
mod disks;
mod lead;
mod log;
mod network;
mod put_back;
mod store;

use std::{collections::BTreeSet, time::Duration};

use varve_metadata::{
    image::PartitionImage,
    model::{BrokerId, LeaderEpoch, Offset},
};

pub(crate) use self::breaks::{Break, Budget};
use self::{
    disks::{Disk, Shelved},
    log::Log,
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
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Broker {
    up: bool,
    incarnation: Incarnation,
    /// Its image has shown that the controller let it in, in this life. Until then it takes no part, whatever the partition
    /// says: it may say that this broker leads, in an epoch of its life before, with records that are lost.
    admitted: bool,
    lost_records: bool,
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
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Answer {
    Records { records: Vec<(u32, u16)>, high_watermark: Offset },
    Diverged { epoch: LeaderEpoch, end: Offset },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Message {
    from: BrokerId,
    to: BrokerId,
    incarnation: Incarnation,
    epoch: LeaderEpoch,
    position: Position,
    /// `None`: a fetch.
    answer: Option<Answer>,
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

/// One thing that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Append(BrokerId),
    /// The broker's image catches up with the store.
    Show(BrokerId),
    Fetch(BrokerId),
    /// The message at that place arrives.
    Deliver(usize),
    /// It arrives, and will do so again.
    Duplicate(usize),
    /// It never arrives.
    Drop(usize),
    /// The proposal or answer at that place arrives.
    Store(usize),
    /// The proposal at that place gets no answer. It is on its way.
    LoseAnswer(usize),
    /// The proposal at that place cannot be sent.
    SendNothing(usize),
    /// What was put to the store without an answer arrives there.
    Arrive(usize),
    /// A leader looks at its followers.
    Review(BrokerId),
    /// So much time passes for all.
    Lag,
    Crash(BrokerId),
    /// The last records of its log are lost, so many of them.
    PowerCut(BrokerId, usize),
    /// The log directory fails, and when it comes back it lacks so many of the last records. The broker goes on.
    FailDirectory(BrokerId, usize),
    /// The broker has the store take it that its replica is offline.
    TellOffline(BrokerId),
    /// The broker, in another life, has the store take it that its replica is there again.
    TellOnline(BrokerId),
    Restart(BrokerId),
    /// The broker ends, and gets an empty disk.
    TakeDisk(BrokerId),
    /// The broker ends, and gets the disk at that place of the shelf.
    ReturnDisk(BrokerId, usize),
    /// A broker with another disk than before has the store take it that its log is gone; then it lives.
    Enter(BrokerId),
    /// A broker that was let in has the store take it that it has again the log that was gone.
    TellFound(BrokerId),
    /// The controller fences a broker whose lease has ended.
    Fence(BrokerId),
    /// The controller lets a registered broker take part.
    Unfence(BrokerId),
    /// The controller, which is that broker, does what is due: who is gone leaves, somebody leads, a move ends.
    Tend(BrokerId),
    /// A broker says that others shall lead.
    Aside(BrokerId),
    /// It may lead again.
    Return(BrokerId),
    /// The partition is sent to the brokers whose bits are set.
    Reassign(u8),
    /// It stays where it was.
    Cancel,
    /// The preferred replica leads again.
    Prefer,
    /// `min.insync.replicas` becomes one less.
    LowerMinimum,
    /// Somebody keeps a copy of what the store holds.
    BackUp,
    /// Every broker ends, and the store holds what the copy has.
    PutBack,
    /// The broker has the store take it how far its log goes.
    TellLog(BrokerId),
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
    acknowledged: BTreeSet<(Offset, u16)>,
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
        let view = View { partition: partition.clone(), registrations: registrations.clone(), min_in_sync };
        let broker = |_: &BrokerId| Broker {
            up: true,
            incarnation: Incarnation(0),
            admitted: true,
            lost_records: false,
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
            acknowledged: BTreeSet::new(),
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
        View { partition, registrations, min_in_sync: self.min_in_sync }
    }
}
