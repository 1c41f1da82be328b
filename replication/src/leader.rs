//! The leader's side: how far each follower is, who is in sync, what is committed.

use std::{collections::BTreeMap, time::Duration};

use varve_metadata::{
    controller::in_sync::{effective_min, with_proposed_isr},
    image::PartitionImage,
    model::{BrokerId, HighWatermark, LeaderEpoch, Offset},
};

/// One life of a broker process, as its registration and its fetches name it (Kafka's broker epoch, KIP-903).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// What decisions depend on besides the leader's own state.
pub struct Surroundings<'a> {
    /// Monotonic time since the broker started.
    pub now: Duration,
    /// The incarnation of a broker that is registered, not fenced and not about to stop, as the image shows it.
    pub active: &'a dyn Fn(BrokerId) -> Option<Incarnation>,
    /// The incarnation of a broker that is registered, whether it may join an ISR or not.
    pub registered: &'a dyn Fn(BrokerId) -> Option<Incarnation>,
    /// The topic's `min.insync.replicas`.
    pub min_in_sync: usize,
    /// `replica.lag.time.max.ms`.
    pub lag_max: Duration,
}

/// A follower's fetch, from which it follows what that follower has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    /// Who fetches.
    pub replica: BrokerId,
    /// Which life of it; `None` from a caller that does not say.
    pub incarnation: Option<Incarnation>,
    /// It has everything below, in the leader's version.
    pub end: Offset,
    /// Its first offset, also after it restarts.
    pub log_start: Offset,
    /// The leader's first offset when the fetch was read.
    pub leader_start: Offset,
    /// The leader's log end then.
    pub leader_end: Offset,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The leader's log ends here now.
    Appended(Offset),
    /// A follower fetched in this leader's epoch, and its log agrees with the leader's.
    Fetched(FollowerFetch),
    /// The store, or the image that follows it, shows the partition so.
    Shown(&'a PartitionImage),
    /// What became of the proposal that replaces the partition epoch `base`. It may be late: the image has shown the outcome before.
    Answered {
        /// As in [`Proposal::base`].
        base: u32,
        /// What the store said.
        outcome: Outcome,
    },
    /// Time passed.
    Tick,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The store took it.
    Taken,
    /// The store did not take it and never will; read after that, the partition is still as the proposal found it.
    Refused,
    /// Somebody else changed the partition: what it is like now comes by [`Input::Shown`].
    Overtaken,
    /// Nobody knows: to be proposed again.
    Unknown,
    /// This attempt did not reach the store: as [`Refused`](Self::Refused), unless one before it was [`Unknown`](Self::Unknown).
    Unsent,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Everything below is committed.
    AdvanceHighWatermark(HighWatermark),
    /// Put the proposal to the store, and answer with its [`Outcome`].
    Propose(Box<Proposal>),
}

/// Another ISR for the partition. Counts if the partition is still at `base` and the joining broker in the same life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// Partition epoch that it replaces.
    pub base: u32,
    /// The partition as it shall be.
    pub next: PartitionImage,
    /// The follower that joins, in the life in which it caught up.
    pub joins: Option<(BrokerId, Incarnation)>,
}

/// Why a produce with acks=all is not accepted, or not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckError {
    /// Replicas in sync.
    pub in_sync: usize,
    /// Replicas that have to be.
    pub required: usize,
}

/// How far one follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FollowerState {
    /// Everything below is there; `None` until it fetches in this epoch.
    pub end: Option<Offset>,
    /// Its first offset.
    pub log_start: Offset,
    /// When it last had everything that the leader had; `None` if it never had since it is a replica, or this leader leads.
    pub caught_up: Option<Duration>,
    incarnation: Option<Incarnation>,
    /// Of the fetch before: having that much now, it was caught up then.
    last_fetch: Duration,
    last_leader_end: Offset,
}

/// Leadership of one partition in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leader {
    node: BrokerId,
    /// As the store last confirmed it.
    pub(crate) partition: PartitionImage,
    /// What was proposed and is not settled: it may be in force already.
    pub(crate) pending: Option<Proposal>,
    retry: bool,
    /// An attempt to put it to the store may still be under way, though another one was not sent.
    is_doubtful: bool,
    /// The store refused a follower that would join: asked again when time has passed, not with its next fetch.
    pauses: bool,
    /// Where this epoch began: below, the log may hold records that others committed and this leader does not know of.
    pub(crate) epoch_start: Offset,
    followers: BTreeMap<BrokerId, FollowerState>,
    /// Where the leader's log starts, as it was last told: who joins has deleted what lies before.
    pub(crate) log_start: Offset,
    log_end: Offset,
    high_watermark: Offset,
}

impl Leader {
    /// Leads `partition`, whose `leader` is `node`, with a log that ends at `log_end`. What is committed beyond
    /// `high_watermark` shows as soon as the followers fetch.
    pub fn new(
        node: BrokerId,
        partition: PartitionImage,
        log_end: Offset,
        high_watermark: HighWatermark,
        now: Duration,
    ) -> Leader {
        let mut leader = Leader {
            node,
            partition,
            pending: None,
            retry: false,
            is_doubtful: false,
            pauses: false,
            epoch_start: log_end,
            followers: BTreeMap::new(),
            log_start: Offset::ZERO,
            log_end,
            high_watermark: high_watermark.0.min(log_end),
        };
        leader.follow_assignment(now);
        leader
    }

    /// The epoch of this leadership.
    pub fn epoch(&self) -> LeaderEpoch {
        self.partition.leader_epoch
    }

    /// Everything below is committed.
    pub fn high_watermark(&self) -> HighWatermark {
        HighWatermark(self.high_watermark)
    }

    /// Whether the high watermark has reached where this epoch began: before, earlier leaders may have told of more.
    pub fn knows_what_is_committed(&self) -> bool {
        self.high_watermark >= self.epoch_start
    }

    /// The partition as the store last confirmed it.
    pub fn partition(&self) -> &PartitionImage {
        &self.partition
    }

    /// How far the followers are.
    pub fn followers(&self) -> &BTreeMap<BrokerId, FollowerState> {
        &self.followers
    }

    /// Whether `broker` is one of the followers: only they may fetch as such.
    pub fn has_follower(&self, broker: BrokerId) -> bool {
        self.followers.contains_key(&broker)
    }

    /// Whether a produce with acks=all may be appended (NOT_ENOUGH_REPLICAS).
    ///
    /// # Errors
    /// [`AckError`]: too few replicas are in sync.
    pub fn check_append(&self, min_in_sync: usize) -> Result<(), AckError> {
        self.check(self.partition.isr.len(), min_in_sync)
    }

    /// Whether records that are committed now may be acknowledged (NOT_ENOUGH_REPLICAS_AFTER_APPEND).
    ///
    /// # Errors
    /// [`AckError`]: too few replicas are in sync.
    pub fn check_committed(&self, min_in_sync: usize) -> Result<(), AckError> {
        let joining = self.pending.as_ref().map_or(0, |pending| usize::from(pending.joins.is_some()));
        self.check(self.partition.isr.len() + joining, min_in_sync)
    }

    fn check(&self, in_sync: usize, min_in_sync: usize) -> Result<(), AckError> {
        let required = effective_min(&self.partition, min_in_sync);
        if in_sync < required { Err(AckError { in_sync, required }) } else { Ok(()) }
    }

    /// Where the log starts on that replica which has deleted least, of those that may come to lead: the active ones, and those that an
    /// election may choose though they do not seem to live. Not one whose directory failed: it has to join anew, and who does starts at
    /// `log_start`, the leader's own, or later.
    pub fn low_watermark(&mut self, around: &Surroundings<'_>, log_start: Offset) -> Offset {
        self.log_start = self.log_start.max(log_start);
        let may_lead = |id: BrokerId| {
            let is_there = (around.active)(id).is_some() && !self.partition.offline.contains(&id);
            is_there || self.may_be_in_sync(id) || self.partition.elr.contains(&id)
        };
        let followers = self.followers.iter().filter(|(id, _)| may_lead(**id));
        followers.map(|(_, follower)| follower.log_start).fold(log_start, Offset::min)
    }

    /// Takes in what happened. Inputs come in the order in which they happened; the effects are to be performed in theirs.
    pub fn step(&mut self, around: &Surroundings<'_>, input: Input<'_>, effects: &mut Vec<Effect>) {
        match input {
            Input::Appended(end) => self.log_end = end,
            Input::Fetched(fetch) => self.note_fetch(around, fetch, effects),
            Input::Shown(partition) => self.confirm(around, partition),
            Input::Answered { base, outcome } => self.settle(around, base, outcome),
            Input::Tick => self.review(around, effects),
        }
        self.advance_high_watermark(around, effects);
    }

    fn note_fetch(&mut self, around: &Surroundings<'_>, fetch: FollowerFetch, effects: &mut Vec<Effect>) {
        // Who was restarted meanwhile may not have any more what its earlier life had. Who is about to stop counts as long as it
        // is in the ISR, so what it has must count as well.
        if fetch.incarnation.is_some() && fetch.incarnation != (around.registered)(fetch.replica) {
            return;
        }
        self.log_start = self.log_start.max(fetch.leader_start);
        let Some(follower) = self.followers.get_mut(&fetch.replica) else { return };
        if fetch.end >= fetch.leader_end {
            follower.caught_up = follower.caught_up.max(Some(around.now));
        } else if fetch.end >= follower.last_leader_end && follower.end.is_some() {
            follower.caught_up = follower.caught_up.max(Some(follower.last_fetch));
        }
        follower.end = Some(fetch.end);
        follower.log_start = fetch.log_start;
        follower.incarnation = fetch.incarnation;
        follower.last_fetch = around.now;
        follower.last_leader_end = fetch.leader_end;
        if !self.pauses {
            self.propose_joining(around, fetch.replica, effects);
        }
    }

    /// A follower joins once it has what is committed, and everything that earlier leaders may have committed: that is below
    /// where this epoch began, but not necessarily below the high watermark that this leader knows of. And it has deleted what
    /// others were told is deleted: it may lead from then on, and its first offset is the partition's.
    fn propose_joining(&mut self, around: &Surroundings<'_>, replica: BrokerId, effects: &mut Vec<Effect>) {
        let Some(follower) = self.followers.get(&replica) else { return };
        let has_all = follower.end.is_some_and(|end| end >= self.high_watermark.max(self.epoch_start))
            && follower.log_start >= self.log_start;
        let active = (around.active)(replica).filter(|active| follower.incarnation.is_none_or(|of| of == *active));
        let Some(incarnation) = active.filter(|_| has_all) else { return };
        // What it fetched before its directory failed may come late.
        let is_offline = self.partition.offline.contains(&replica);
        if self.pending.is_some() || self.partition.isr.contains(&replica) || is_offline {
            return;
        }
        let isr: Vec<BrokerId> = self.partition.isr.iter().copied().chain([replica]).collect();
        self.propose(around, &isr, Some((replica, incarnation)), effects);
    }

    fn propose(
        &mut self,
        around: &Surroundings<'_>,
        isr: &[BrokerId],
        joins: Option<(BrokerId, Incarnation)>,
        effects: &mut Vec<Effect>,
    ) {
        let next = with_proposed_isr(&self.partition, isr, around.min_in_sync);
        let proposal = Proposal { base: self.partition.partition_epoch, next, joins };
        self.pending = Some(proposal.clone());
        (self.retry, self.is_doubtful) = (false, false);
        effects.push(Effect::Propose(Box::new(proposal)));
    }

    /// Takes over a newer state of the partition, if it is of this epoch: a later one ends this leadership.
    fn confirm(&mut self, around: &Surroundings<'_>, partition: &PartitionImage) {
        let is_ours = partition.leader_epoch == self.epoch() && partition.leader == Some(self.node);
        if !is_ours || partition.partition_epoch <= self.partition.partition_epoch {
            return;
        }
        self.partition = partition.clone();
        // Whatever was proposed for an older state is in it, or will never be.
        (self.pending, self.is_doubtful) = (None, false);
        self.pauses = false;
        self.follow_assignment(around.now);
    }

    fn settle(&mut self, around: &Surroundings<'_>, base: u32, outcome: Outcome) {
        // An image may have shown what became of that one, and another one is pending by now: it is not in force.
        if self.pending.as_ref().is_none_or(|pending| pending.base != base) {
            return;
        }
        match outcome {
            Outcome::Taken => {
                if let Some(taken) = self.pending.take() {
                    self.confirm(around, &taken.next);
                }
            }
            Outcome::Unsent if self.is_doubtful => self.retry = true,
            Outcome::Refused | Outcome::Unsent => {
                (self.pending, self.is_doubtful, self.pauses) = (None, false, true);
            }
            // It may have been taken before somebody changed the partition again, so it counts until that is shown.
            Outcome::Overtaken => {}
            Outcome::Unknown => (self.retry, self.is_doubtful) = (true, true),
        }
    }

    /// Puts forward that laggards leave the ISR, and whatever else is due.
    fn review(&mut self, around: &Surroundings<'_>, effects: &mut Vec<Effect>) {
        self.pauses = false;
        if let Some(pending) = &self.pending {
            if std::mem::take(&mut self.retry) {
                effects.push(Effect::Propose(Box::new(pending.clone())));
            }
            return;
        }
        let in_sync = |member: &BrokerId| {
            *member == self.node
                || self.followers.get(member).is_some_and(|follower| self.is_caught_up(follower, around))
        };
        let isr: Vec<BrokerId> = self.partition.isr.iter().copied().filter(in_sync).collect();
        let required = effective_min(&self.partition, around.min_in_sync);
        if isr.len() < self.partition.isr.len() {
            self.propose(around, &isr, None, effects);
        } else if !self.partition.elr.is_empty() && isr.len() >= required {
            // min.insync.replicas was lowered: before anything is committed by fewer, the others stop being eligible.
            self.propose(around, &isr, None, effects);
        } else {
            let waiting: Vec<BrokerId> =
                self.followers.keys().copied().filter(|replica| !isr.contains(replica)).collect();
            for replica in waiting {
                self.propose_joining(around, replica, effects);
            }
        }
    }

    fn is_caught_up(&self, follower: &FollowerState, around: &Surroundings<'_>) -> bool {
        follower.end.is_some_and(|end| end >= self.log_end)
            || follower.caught_up.is_some_and(|at| around.now.saturating_sub(at) <= around.lag_max)
    }

    fn advance_high_watermark(&mut self, around: &Surroundings<'_>, effects: &mut Vec<Effect>) {
        // Below the minimum nothing is committed, so that those who leave the ISR have all that is (KIP-966).
        let required = effective_min(&self.partition, around.min_in_sync);
        if self.partition.isr.len() < required || !self.partition.elr.is_empty() {
            return;
        }
        let mut committed = self.log_end;
        for (replica, follower) in &self.followers {
            let end = follower.end.unwrap_or(Offset::ZERO);
            if end < committed && (self.may_be_in_sync(*replica) || self.is_about_to_join(*replica, follower, around)) {
                committed = end;
            }
        }
        if committed > self.high_watermark {
            self.high_watermark = committed;
            effects.push(Effect::AdvanceHighWatermark(HighWatermark(committed)));
        }
    }

    /// A replica *being added* counts too: the change may be recorded already, and a leader elected from that ISR must not
    /// lack a record that we called committed (KIP-497). One *being removed* counts until it is gone.
    fn may_be_in_sync(&self, replica: BrokerId) -> bool {
        let is_joining = |pending: &Proposal| pending.joins.is_some_and(|(joins, _)| joins == replica);
        self.partition.isr.contains(&replica) || self.pending.as_ref().is_some_and(is_joining)
    }

    /// Waiting for who is nearly there lets it join: a leader alone would else run ahead of it for ever.
    fn is_about_to_join(&self, replica: BrokerId, follower: &FollowerState, around: &Surroundings<'_>) -> bool {
        let active = (around.active)(replica);
        let same_life = active.is_some() && follower.incarnation.is_none_or(|of| active == Some(of));
        let is_offline = self.partition.offline.contains(&replica);
        same_life && !is_offline && follower.end.is_some() && self.is_caught_up(follower, around)
    }

    /// Followers are the other replicas. Members of the ISR begin as caught up: they get their time to fetch.
    fn follow_assignment(&mut self, now: Duration) {
        let PartitionImage { replicas, isr, .. } = &self.partition;
        let node = self.node;
        self.followers.retain(|replica, _| replicas.contains(replica));
        for &replica in replicas.iter().filter(|replica| **replica != node) {
            let caught_up = isr.contains(&replica).then_some(now);
            self.followers.entry(replica).or_insert(FollowerState {
                end: None,
                log_start: Offset::ZERO,
                caught_up,
                incarnation: None,
                last_fetch: Duration::ZERO,
                last_leader_end: Offset::ZERO,
            });
        }
    }
}

#[cfg(test)]
mod tests;
