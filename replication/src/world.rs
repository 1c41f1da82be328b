//! A cluster of one partition in which everything that can happen is an [`Action`]: for the model, which tries all of them
//! in every order, and for the simulation, which lets chance choose.
//!
//! Leaders, followers and elections are the real ones. Brokers, the store, the controller and the network are as simple as they
//! can be without being kinder than the real ones: messages come late, twice, in any order or never; images lag; the store's
//! answers get lost; who restarts may have lost what was not yet on disk.

use std::{collections::BTreeSet, time::Duration};

use varve_log::local::EpochCache;
use varve_metadata::{
    controller::in_sync::{self, Circumstances},
    image::PartitionImage,
    model::{BrokerId, HighWatermark, LeaderEpoch, Offset},
};

use crate::{
    Effect, FollowerFetch, Incarnation, Input, Leader, Outcome, Proposal, Surroundings,
    follower::{Position, ReplicaLog, is_current, truncation},
};

/// `replica.lag.time.max.ms`, in ticks of the world's clocks.
pub(crate) const LAG: Duration = Duration::from_secs(10);

/// A rule that is broken on purpose. Each one must be noticed by [`World::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Break {
    /// The high watermark advances without a follower that is being added to the ISR.
    CommitsWithoutWhoJoins,
    /// An ISR is acted on before the store has answered.
    ActsBeforeTheAnswer,
    /// A proposal that was overtaken is taken as never made, though an earlier attempt may have succeeded.
    ForgetsLostAnswers,
    /// A new follower cuts its log at its high watermark instead of where the epochs parted (before KIP-101).
    TruncatesToHighWatermark,
    /// Neither side compares epochs when a follower fetches.
    ComparesNoEpochs,
    /// Anybody who lives may lead, in sync or not.
    ElectsOutsideTheIsr,
    /// A new leader leads in the old epoch.
    KeepsTheLeaderEpoch,
    /// Fetches and answers of other epochs count.
    TakesOtherEpochs,
    /// A fetch of an earlier life of a broker counts, and it may join the ISR by it (before KIP-903).
    CountsEarlierLives,
    /// A broker that may have lost records keeps its place.
    TrustsAfterPowerCuts,
    /// The store takes proposals for states that have passed.
    StoreComparesNothing,
    /// Records are committed by fewer replicas than `min.insync.replicas`.
    CommitsBelowTheMinimum,
    /// Who left an ISR below the minimum is not eligible (before KIP-966).
    ForgetsTheEligible,
    /// A follower joins as soon as it has what this leader knows to be committed.
    JoinsBeforeTheEpochBegan,
    /// A restarted broker goes on as leader of an epoch of its life before.
    ResumesItsRole,
}

impl Break {
    pub(crate) const ALL: [Break; 15] = [
        Break::CommitsWithoutWhoJoins,
        Break::ActsBeforeTheAnswer,
        Break::ForgetsLostAnswers,
        Break::TruncatesToHighWatermark,
        Break::ComparesNoEpochs,
        Break::ElectsOutsideTheIsr,
        Break::KeepsTheLeaderEpoch,
        Break::TakesOtherEpochs,
        Break::CountsEarlierLives,
        Break::TrustsAfterPowerCuts,
        Break::StoreComparesNothing,
        Break::CommitsBelowTheMinimum,
        Break::ForgetsTheEligible,
        Break::JoinsBeforeTheEpochBegan,
        Break::ResumesItsRole,
    ];
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    pub(crate) appends: u8,
    /// A process ends; what it wrote is kept.
    pub(crate) crashes: u8,
    /// A machine loses what was not on disk.
    pub(crate) power_cuts: u8,
    /// The controller takes a living broker for dead.
    pub(crate) false_alarms: u8,
    /// More time passes than a follower may lag.
    pub(crate) lags: u8,
    /// Answers of the store that get lost.
    pub(crate) lost_answers: u8,
    /// Fetches that are given up and sent anew while the old one is still under way.
    pub(crate) refetches: u8,
    /// Messages that are delivered twice.
    pub(crate) duplicates: u8,
    /// Elections of the preferred replica.
    pub(crate) preferred: u8,
}

impl Budget {
    pub(crate) const NONE: Budget = Budget {
        appends: 0,
        crashes: 0,
        power_cuts: 0,
        false_alarms: 0,
        lags: 0,
        lost_answers: 0,
        refetches: 0,
        duplicates: 0,
        preferred: 0,
    };
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    epoch: LeaderEpoch,
    value: u16,
}

/// A replica's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    records: Vec<Record>,
    epochs: Vec<(LeaderEpoch, Offset)>,
}

fn offset(place: usize) -> Offset {
    Offset::new(place as u64).expect("a small number")
}

impl Log {
    fn cache(&self) -> EpochCache {
        self.epochs.iter().copied().collect()
    }

    /// Notes where `epoch` begins, as a new leader does before its first record.
    fn begin_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        let mut cache = self.cache();
        cache.assign(epoch, start);
        self.epochs = cache.entries().to_vec();
    }

    fn append(&mut self, record: Record) {
        self.begin_epoch(record.epoch, self.end());
        self.records.push(record);
    }

    fn truncate(&mut self, end: Offset) {
        self.records.truncate(end.get() as usize);
        let mut cache = self.cache();
        // Also where the log ends there already: an epoch without records may stand at its end.
        cache.truncate_from_end(end);
        self.epochs = cache.entries().to_vec();
    }
}

impl ReplicaLog for Log {
    fn end(&self) -> Offset {
        offset(self.records.len())
    }
    fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.last().map(|(epoch, _)| *epoch)
    }
    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.cache().end_offset_for(epoch, self.end())
    }
}

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
}

/// The store as one broker's image shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct View {
    partition: PartitionImage,
    registrations: Vec<Registration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Broker {
    up: bool,
    incarnation: Incarnation,
    /// Its image has shown that the controller let it in, in this life. Until then it takes no part, whatever the partition
    /// says: it may say that this broker leads, in an epoch of its life before, with records that are lost.
    admitted: bool,
    lost_records: bool,
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
    outcome: Option<Outcome>,
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
    /// The store takes a proposal, if it does, and its answer is lost.
    LoseAnswer(usize),
    /// A leader looks at its followers.
    Review(BrokerId),
    /// So much time passes for all.
    Lag,
    Crash(BrokerId),
    /// The last records of its log are lost, so many of them.
    PowerCut(BrokerId, usize),
    Restart(BrokerId),
    /// The controller fences a broker whose lease has ended.
    Fence(BrokerId),
    /// The controller takes a fenced broker out of the partition.
    Remove(BrokerId),
    /// The controller lets a registered broker take part.
    Unfence(BrokerId),
    /// The controller elects a leader where there is none.
    Elect,
    /// The preferred replica leads again.
    Prefer,
}

/// What must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    brokers: Vec<Broker>,
    partition: PartitionImage,
    registrations: Vec<Registration>,
    messages: Vec<Message>,
    asks: Vec<Ask>,
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
        let registration = Registration { incarnation: Incarnation(0), fenced: false, distrusted: false };
        let registrations = vec![registration; ids.len()];
        let view = View { partition: partition.clone(), registrations: registrations.clone() };
        let broker = |_: &BrokerId| Broker {
            up: true,
            incarnation: Incarnation(0),
            admitted: true,
            lost_records: false,
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
            partition,
            registrations,
            messages: Vec::new(),
            asks: Vec::new(),
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
        for id in self.ids() {
            self.broker_mut(id).view.partition.isr.truncate(1);
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
            if self.budget.lost_answers > 0 && self.asks[place].outcome.is_none() {
                actions.push(Action::LoseAnswer(place));
            }
        }
        if self.budget.lags > 0 {
            actions.push(Action::Lag);
        }
        let active = |id: BrokerId| self.is_active(id);
        if in_sync::with_leader(&self.partition, &self.circumstances(&active)).is_some() {
            actions.push(Action::Elect);
        }
        if self.budget.preferred > 0
            && in_sync::with_preferred_leader(&self.partition, &self.circumstances(&active)).is_some()
        {
            actions.push(Action::Prefer);
        }
        actions
    }

    fn add_broker_actions(&self, id: BrokerId, actions: &mut Vec<Action>) {
        let broker = self.broker(id);
        if !broker.up {
            actions.push(Action::Restart(id));
            return;
        }
        if broker.view.partition != self.partition || broker.view.registrations != self.registrations {
            actions.push(Action::Show(id));
        }
        match &broker.role {
            Role::Leader(leader) => {
                if self.budget.appends > 0 && leader.check_append(self.minimum()).is_ok() {
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
    }

    fn add_controller_actions(&self, id: BrokerId, actions: &mut Vec<Action>) {
        let (broker, registration) = (self.broker(id), self.registrations[id.0 as usize]);
        let is_gone = !broker.up || broker.incarnation != registration.incarnation;
        if !registration.fenced && (is_gone || self.budget.false_alarms > 0) {
            actions.push(Action::Fence(id));
        }
        if registration.fenced && self.removed(id).is_some() {
            actions.push(Action::Remove(id));
        }
        let is_back = broker.up && broker.incarnation == registration.incarnation;
        if registration.fenced && is_back && self.removed(id).is_none() {
            actions.push(Action::Unfence(id));
        }
    }

    fn is_active(&self, id: BrokerId) -> bool {
        !self.registrations[id.0 as usize].fenced
    }

    fn circumstances<'a>(&self, is_active: &'a dyn Fn(BrokerId) -> bool) -> Circumstances<'a> {
        let unclean = self.is(Break::ElectsOutsideTheIsr);
        Circumstances { is_active, min_in_sync: self.min_in_sync, unclean }
    }

    /// The partition without a fenced broker, if that changes anything.
    fn removed(&self, id: BrokerId) -> Option<PartitionImage> {
        let is_active = |other: BrokerId| self.is_active(other);
        let circumstances = self.circumstances(&is_active);
        let distrusted = self.registrations[id.0 as usize].distrusted && !self.is(Break::TrustsAfterPowerCuts);
        let next = match distrusted {
            true => in_sync::without_trust_in(&self.partition, id, &circumstances),
            false if self.is(Break::TrustsAfterPowerCuts) && self.broker(id).up => None,
            false => in_sync::without_broker(&self.partition, id, &circumstances),
        };
        next.map(|next| self.tampered(next))
    }

    /// What the controller writes, with the rule broken that is to be broken.
    fn tampered(&self, mut next: PartitionImage) -> PartitionImage {
        if self.is(Break::KeepsTheLeaderEpoch) {
            next.leader_epoch = self.partition.leader_epoch;
        }
        if self.is(Break::ForgetsTheEligible) && !next.elr.is_empty() {
            next.elr.clear();
            if next.isr.is_empty() {
                next.last_leader = self.partition.leader.or(self.partition.last_leader);
            }
        }
        next
    }

    /// The minimum that leaders go by.
    fn minimum(&self) -> usize {
        if self.is(Break::CommitsBelowTheMinimum) { 1 } else { self.min_in_sync }
    }

    /// Does what `action` says.
    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Append(id) => self.append(id),
            Action::Show(id) => self.show(id),
            Action::Fetch(id) => self.fetch(id),
            Action::Deliver(place) => {
                let message = self.messages.swap_remove(place);
                self.deliver(message);
            }
            Action::Duplicate(place) => {
                self.budget.duplicates -= 1;
                self.deliver(self.messages[place].clone());
            }
            Action::Drop(place) => drop(self.messages.swap_remove(place)),
            Action::Store(place) => self.store(place),
            Action::LoseAnswer(place) => {
                self.budget.lost_answers -= 1;
                self.take_proposal(place);
                self.asks[place].outcome = Some(Outcome::Unknown);
            }
            Action::Review(id) => self.step(id, &Input::Tick),
            Action::Lag => {
                self.budget.lags -= 1;
                self.pass(LAG + Duration::from_secs(1));
            }
            Action::Crash(id) => {
                self.budget.crashes -= 1;
                self.end(id);
            }
            Action::PowerCut(id, lost) => {
                self.budget.power_cuts -= 1;
                self.end(id);
                let broker = self.broker_mut(id);
                let left = broker.log.records.len() - lost;
                broker.log.truncate(offset(left));
                broker.high_watermark = broker.high_watermark.min(offset(left));
                broker.lost_records = true;
            }
            Action::Restart(id) => self.restart(id),
            Action::Fence(id) => {
                let broker = self.broker(id);
                if broker.up && broker.incarnation == self.registrations[id.0 as usize].incarnation {
                    self.budget.false_alarms -= 1;
                }
                self.registrations[id.0 as usize].fenced = true;
            }
            Action::Remove(id) => {
                if let Some(next) = self.removed(id) {
                    self.partition = next;
                }
            }
            Action::Unfence(id) => {
                let registration = &mut self.registrations[id.0 as usize];
                (registration.fenced, registration.distrusted) = (false, false);
                self.broker_mut(id).lost_records = false;
            }
            Action::Elect => self.elect(),
            Action::Prefer => {
                self.budget.preferred -= 1;
                let is_active = |id: BrokerId| self.is_active(id);
                let next = in_sync::with_preferred_leader(&self.partition, &self.circumstances(&is_active));
                if let Some(next) = next {
                    self.partition = self.tampered(next);
                }
            }
        }
        self.messages.sort_unstable();
    }

    /// Lets time pass for every broker.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.brokers.iter_mut().for_each(|broker| broker.clock += time);
    }

    /// Lets one broker's clock jump ahead.
    pub(crate) fn jump(&mut self, id: BrokerId, time: Duration) {
        self.broker_mut(id).clock += time;
    }

    fn elect(&mut self) {
        let is_active = |id: BrokerId| self.is_active(id);
        if let Some(next) = in_sync::with_leader(&self.partition, &self.circumstances(&is_active)) {
            self.partition = self.tampered(next);
        }
    }

    fn append(&mut self, id: BrokerId) {
        self.budget.appends -= 1;
        let value = self.next_value;
        self.next_value += 1;
        let broker = self.broker_mut(id);
        let Role::Leader(leader) = &broker.role else { return };
        let at = broker.log.end();
        broker.log.append(Record { epoch: leader.epoch(), value });
        broker.waiting.push((at, value));
        let end = broker.log.end();
        self.step(id, &Input::Appended(end));
    }

    /// The broker's image shows what is in the store now.
    fn show(&mut self, id: BrokerId) {
        let view = View { partition: self.partition.clone(), registrations: self.registrations.clone() };
        let broker = self.broker_mut(id);
        let before = std::mem::replace(&mut broker.view, view);
        let own = broker.view.registrations[id.0 as usize];
        broker.admitted |= own.incarnation == broker.incarnation && !own.fenced;
        let now = &broker.view.partition;
        let same = now.leader == before.partition.leader && now.leader_epoch == before.partition.leader_epoch;
        if same && broker.role != Role::Nothing {
            let shown = now.clone();
            self.step(id, &Input::Shown(&shown));
        } else {
            self.take_role(id);
        }
    }

    /// Leads or follows as the image says.
    fn take_role(&mut self, id: BrokerId) {
        let (to_high_watermark, from_the_start) =
            (self.is(Break::TruncatesToHighWatermark), self.is(Break::JoinsBeforeTheEpochBegan));
        let broker = self.broker_mut(id);
        let partition = broker.view.partition.clone();
        broker.waiting.clear();
        broker.fetching = false;
        broker.role = match partition.leader {
            _ if !broker.admitted => Role::Nothing,
            Some(leader) if leader == id => {
                let epoch = partition.leader_epoch;
                let end = broker.log.end();
                broker.log.begin_epoch(epoch, end);
                let high_watermark = HighWatermark(broker.high_watermark);
                let mut leader = Leader::new(id, partition, end, high_watermark, broker.clock);
                if from_the_start {
                    leader.epoch_start = Offset::ZERO;
                }
                Role::Leader(Box::new(leader))
            }
            Some(leader) => {
                if to_high_watermark {
                    let cut = broker.high_watermark;
                    broker.log.truncate(cut);
                }
                Role::Follower { leader, epoch: partition.leader_epoch }
            }
            None => Role::Nothing,
        };
        let broker = self.broker(id);
        if let Role::Leader(leader) = &broker.role {
            let led = (leader.epoch(), id, broker.incarnation);
            self.led.insert(led);
            self.step(id, &Input::Tick);
        }
    }

    fn fetch(&mut self, id: BrokerId) {
        let broker = self.broker_mut(id);
        let Role::Follower { leader, epoch } = broker.role else { return };
        let again = std::mem::replace(&mut broker.fetching, true);
        let position = Position::of(&broker.log);
        let incarnation = broker.incarnation;
        let message = Message { from: id, to: leader, incarnation, epoch, position, answer: None };
        if again {
            self.budget.refetches -= 1;
        }
        self.messages.push(message);
    }

    fn deliver(&mut self, message: Message) {
        if !self.broker(message.to).up {
            return;
        }
        match &message.answer {
            None => self.serve(message),
            Some(answer) => self.take_answer(&message, answer),
        }
    }

    /// A leader reads for a follower.
    fn serve(&mut self, message: Message) {
        let compares_epochs = !self.is(Break::ComparesNoEpochs);
        let any_epoch = self.is(Break::TakesOtherEpochs);
        let broker = self.broker(message.to);
        let Role::Leader(leader) = &broker.role else { return };
        let log = &broker.log;
        if leader.epoch() != message.epoch && !any_epoch {
            return;
        }
        let from = message.position.from;
        let parted = message.position.last_epoch.filter(|_| compares_epochs).and_then(|last| {
            let known = if last == leader.epoch() { Some((last, log.end())) } else { log.end_of_epoch(last) };
            let (epoch, end) = known.unwrap_or((LeaderEpoch(0), Offset::ZERO));
            (epoch < last || end < from).then_some((epoch, end))
        });
        let answer = match parted {
            Some((epoch, end)) => Answer::Diverged { epoch, end },
            None => {
                let rest = log.records.get(from.get() as usize..).unwrap_or(&[]);
                let records = rest.iter().take(2).map(|record| (record.epoch.0, record.value)).collect();
                Answer::Records { records, high_watermark: leader.high_watermark().0 }
            }
        };
        let fetch = FollowerFetch {
            replica: message.from,
            incarnation: Some(message.incarnation).filter(|_| !self.is(Break::CountsEarlierLives)),
            end: from.min(log.end()),
            log_start: Offset::ZERO,
            leader_end: log.end(),
        };
        let (to, from) = (message.to, message.from);
        if parted.is_none() {
            self.step(to, &Input::Fetched(fetch));
        }
        self.messages.push(Message { from: to, to: from, answer: Some(answer), ..message });
    }

    /// A follower takes its leader's answer.
    fn take_answer(&mut self, message: &Message, answer: &Answer) {
        let any_epoch = self.is(Break::TakesOtherEpochs);
        let broker = self.broker_mut(message.to);
        let Role::Follower { epoch, leader } = broker.role else { return };
        // Answers come over a connection of the process that asked.
        if broker.incarnation != message.incarnation || leader != message.from && !any_epoch {
            return;
        }
        broker.fetching = false;
        let (asked, now) = ((message.epoch, message.position), (epoch, Position::of(&broker.log)));
        let counts = is_current(asked, now) || any_epoch && asked.1.from == now.1.from;
        if !counts {
            return;
        }
        match answer {
            Answer::Records { records, high_watermark } => {
                for &(epoch, value) in records {
                    broker.log.append(Record { epoch: LeaderEpoch(epoch), value });
                }
                broker.high_watermark = broker.high_watermark.max((*high_watermark).min(broker.log.end()));
            }
            Answer::Diverged { epoch, end } => {
                let cut = truncation(&broker.log, *epoch, *end);
                broker.log.truncate(cut);
                broker.high_watermark = broker.high_watermark.min(cut);
            }
        }
    }

    /// A proposal reaches the store, or the store's answer reaches the leader.
    fn store(&mut self, place: usize) {
        match self.asks[place].outcome {
            None => self.take_proposal(place),
            Some(outcome) => {
                let ask = self.asks.swap_remove(place);
                self.take_outcome(ask, outcome);
            }
        }
    }

    fn take_proposal(&mut self, place: usize) {
        let ask = self.asks[place].clone();
        let blind = self.is(Break::StoreComparesNothing);
        let same_life = ask.proposal.joins.is_none_or(|(id, incarnation)| {
            let registration = self.registrations[id.0 as usize];
            registration.incarnation == incarnation && !registration.fenced || self.is(Break::CountsEarlierLives)
        });
        let unchanged = self.partition.partition_epoch == ask.proposal.base;
        let outcome = if blind || unchanged && same_life {
            let mut next = ask.proposal.next.clone();
            if self.is(Break::ForgetsTheEligible) {
                next.elr.clear();
            }
            self.partition = next;
            Outcome::Taken
        } else if unchanged {
            Outcome::Refused
        } else if ask.repeated && self.partition == ask.proposal.next {
            // Read after the conflict: the attempt without an answer was taken.
            Outcome::Taken
        } else {
            Outcome::Overtaken
        };
        self.asks[place].outcome = Some(outcome);
    }

    fn take_outcome(&mut self, ask: Ask, outcome: Outcome) {
        let broker = self.broker(ask.from);
        if !broker.up || broker.incarnation != ask.incarnation {
            return;
        }
        let Role::Leader(leader) = &broker.role else { return };
        if leader.pending.as_ref() != Some(&ask.proposal) {
            return;
        }
        let forgets = self.is(Break::ForgetsLostAnswers) && outcome == Outcome::Overtaken;
        let outcome = if forgets { Outcome::Refused } else { outcome };
        self.step(ask.from, &Input::Answered(outcome));
        // What was overtaken is read from the store at once.
        if outcome == Outcome::Overtaken {
            let shown = self.partition.clone();
            self.step(ask.from, &Input::Shown(&shown));
        }
    }

    fn effects_of_review(&self, id: BrokerId) -> Vec<Effect> {
        let Role::Leader(leader) = &self.broker(id).role else { return Vec::new() };
        let mut leader = leader.clone();
        let mut effects = Vec::new();
        self.around(id, |around| leader.step(around, Input::Tick, &mut effects));
        effects
    }

    fn around<T>(&self, id: BrokerId, act: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let broker = self.broker(id);
        let active = |other: BrokerId| {
            let registration = broker.view.registrations[other.0 as usize];
            (!registration.fenced).then_some(registration.incarnation)
        };
        act(&Surroundings { now: broker.clock, active: &active, min_in_sync: self.minimum(), lag_max: LAG })
    }

    /// Tells a leader what happened and does what it says.
    fn step(&mut self, id: BrokerId, input: &Input<'_>) {
        let Role::Leader(leader) = &self.broker(id).role else { return };
        let mut leader = leader.clone();
        let mut effects = Vec::new();
        self.around(id, |around| leader.step(around, input.clone(), &mut effects));
        for effect in &effects {
            if let Effect::Propose(proposal) = effect {
                self.propose(id, &mut leader, proposal);
            }
        }
        if self.is(Break::CommitsWithoutWhoJoins) && leader.pending.is_some() {
            leader.pending = None;
            self.around(id, |around| leader.step(around, Input::Tick, &mut Vec::new()));
        }
        let minimum = self.minimum();
        let HighWatermark(high_watermark) = leader.high_watermark();
        let may_acknowledge = leader.check_committed(minimum).is_ok();
        let broker = self.broker_mut(id);
        broker.high_watermark = broker.high_watermark.max(high_watermark);
        broker.role = Role::Leader(leader);
        if may_acknowledge {
            let (done, waiting): (Vec<_>, Vec<_>) =
                broker.waiting.drain(..).partition(|(offset, _)| *offset < high_watermark);
            broker.waiting = waiting;
            self.acknowledge(done);
        }
    }

    fn propose(&mut self, id: BrokerId, leader: &mut Leader, proposal: &Proposal) {
        let incarnation = self.broker(id).incarnation;
        let same = |ask: &&mut Ask| ask.from == id && ask.proposal == *proposal;
        let repeated = self.asks.iter_mut().any(|ask| same(&ask)) || self.was_lost(proposal);
        let ask = Ask { from: id, incarnation, proposal: proposal.clone(), repeated, outcome: None };
        self.asks.push(ask);
        if self.is(Break::ActsBeforeTheAnswer) {
            self.around(id, |around| leader.step(around, Input::Answered(Outcome::Taken), &mut Vec::new()));
        }
    }

    /// Whether the store holds the proposal already, though nobody told its leader.
    fn was_lost(&self, proposal: &Proposal) -> bool {
        self.partition == proposal.next
    }

    fn acknowledge(&mut self, records: Vec<(Offset, u16)>) {
        for (at, value) in records {
            if let Some((_, other)) = self.acknowledged.iter().find(|(known, other)| *known == at && *other != value) {
                self.violation = Some(format!("offset {at} was acknowledged as {other} and as {value}"));
            }
            self.acknowledged.insert((at, value));
        }
    }

    fn end(&mut self, id: BrokerId) {
        let broker = self.broker_mut(id);
        broker.up = false;
        broker.role = Role::Nothing;
        broker.waiting.clear();
        broker.fetching = false;
    }

    fn restart(&mut self, id: BrokerId) {
        let incarnation = Incarnation(self.broker(id).incarnation.0 + 1);
        let distrusted = self.broker(id).lost_records || self.registrations[id.0 as usize].distrusted;
        self.registrations[id.0 as usize] = Registration { incarnation, fenced: true, distrusted };
        if self.is(Break::TrustsAfterPowerCuts) {
            self.registrations[id.0 as usize].fenced = false;
        }
        let view = View { partition: self.partition.clone(), registrations: self.registrations.clone() };
        let resumes = self.is(Break::ResumesItsRole) || self.is(Break::TrustsAfterPowerCuts);
        let broker = self.broker_mut(id);
        broker.up = true;
        broker.admitted = resumes;
        broker.incarnation = incarnation;
        broker.view = view;
        self.take_role(id);
    }
}

/// What must hold.
impl World {
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        if let Some(violation) = &self.violation {
            return Err(Violation(violation.clone()));
        }
        self.one_leader_per_epoch()?;
        self.who_is_trusted_has_what_was_acknowledged()?;
        self.logs_agree_below_their_high_watermarks()
    }

    fn one_leader_per_epoch(&self) -> Result<(), Violation> {
        let mut before: Option<&(LeaderEpoch, BrokerId, Incarnation)> = None;
        for led in &self.led {
            if before.is_some_and(|before| before.0 == led.0 && before.1 != led.1) {
                return Err(Violation(format!("two brokers led in epoch {}", led.0)));
            }
            before = Some(led);
        }
        Ok(())
    }

    /// Everybody whom an election may choose has every acknowledged record, unless it lost records and the controller has not
    /// heard of that yet; the leader has them in any case.
    fn who_is_trusted_has_what_was_acknowledged(&self) -> Result<(), Violation> {
        let knows_all = self.partition.isr.iter().chain(&self.partition.elr).copied();
        let leader = self.partition.leader.into_iter().filter(|leader| {
            let (broker, registration) = (self.broker(*leader), self.registrations[leader.0 as usize]);
            broker.up && broker.incarnation == registration.incarnation && matches!(broker.role, Role::Leader(_))
        });
        let trusted = knows_all.filter(|id| !self.broker(*id).lost_records).chain(leader);
        for id in trusted {
            let log = &self.broker(id).log;
            for (at, value) in &self.acknowledged {
                let found = log.records.get(at.get() as usize).map(|record| record.value);
                if found != Some(*value) {
                    return Err(Violation(format!("{id} may lead and has {found:?} at {at} instead of {value}")));
                }
            }
        }
        Ok(())
    }

    fn logs_agree_below_their_high_watermarks(&self) -> Result<(), Violation> {
        for (place, one) in self.brokers.iter().enumerate() {
            for other in &self.brokers[place + 1..] {
                let both = one.high_watermark.min(other.high_watermark).get() as usize;
                if one.log.records.get(..both) != other.log.records.get(..both) {
                    return Err(Violation(format!("logs differ below {both}: {:?} {:?}", one.log, other.log)));
                }
            }
        }
        Ok(())
    }
}

/// What shall come true in the end.
impl World {
    /// Which broker an action is at, and with whom it talks: for networks that are cut.
    pub(crate) fn route(&self, action: Action) -> Option<(BrokerId, BrokerId)> {
        match action {
            Action::Deliver(place) | Action::Duplicate(place) => {
                let message = &self.messages[place];
                Some((message.from, message.to))
            }
            _ => None,
        }
    }

    /// Nothing fails any more: everybody comes back, everything is delivered, until nothing is left to do.
    ///
    /// # Errors
    /// A rule is broken on the way, or the cluster does not become whole.
    pub(crate) fn heal(&mut self) -> Result<(), Violation> {
        self.budget = Budget::NONE;
        for _ in 0..400 {
            if self.is_whole() {
                return Ok(());
            }
            self.pass(Duration::from_secs(1));
            for id in self.ids() {
                let mut due = Vec::new();
                self.add_controller_actions(id, &mut due);
                self.add_broker_actions(id, &mut due);
                for action in due {
                    // What one action does may make the next one pointless; those are harmless.
                    self.act(action);
                    self.check()?;
                }
            }
            if self.partition.leader.is_none() {
                self.elect();
            }
            while !self.messages.is_empty() {
                self.act(Action::Deliver(0));
                self.check()?;
            }
            while !self.asks.is_empty() {
                self.act(Action::Store(0));
                self.check()?;
            }
            // An answer that is lost for good is given up.
            self.brokers.iter_mut().for_each(|broker| broker.fetching = false);
        }
        Err(Violation(format!("the cluster does not become whole: {:?}", self.partition)))
    }

    /// Whether every replica is in sync, has the same records, and knows that they are committed.
    fn is_whole(&self) -> bool {
        let first = &self.brokers[0];
        self.partition.leader.is_some()
            && self.partition.isr.len() == self.brokers.len()
            && self
                .brokers
                .iter()
                .all(|broker| broker.log.records == first.log.records && broker.high_watermark == broker.log.end())
    }
}
