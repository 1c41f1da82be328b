//! What this broker is to a partition: its only replica, the leader of others, or one of those.
//!
//! ```text
//!                 ┌──────────► Follower ◄──────────┐       an image shows another leader, or none
//!                 │               │                │
//!   opened ─► Follower ───────────┼─► Leader ◄──► Alone    an image shows us; with or without other replicas
//! ```
//! Whoever appends holds the role for as long as that takes: a leader that is deposed writes nothing behind that.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tracing::{debug, error};
use varve_metadata::{
    image::PartitionImage,
    model::{BrokerId, HighWatermark, LeaderEpoch, LogEndOffset, LogStartOffset, Offset},
};
use varve_replication::{AckError, Effect, FollowerFetch, Incarnation, Input, Leader, Outcome, Surroundings};

use super::{Partition, Peers};

/// What this broker is to the partition.
pub(super) enum Role {
    /// The only replica: what is in the log is committed.
    Alone,
    /// Others follow.
    Leader(Box<Leading>),
    /// Takes over what `leader` has; nothing while nobody leads.
    Follower {
        /// Who leads.
        leader: Option<BrokerId>,
    },
}

/// Leadership with followers.
pub(super) struct Leading {
    leader: Mutex<Leader>,
    /// How much of the log counts as here: all, or what was forced to disk where `flush.messages` asks for that.
    kept: AtomicU64,
    peers: Arc<dyn Peers>,
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Role::Alone => f.write_str("Alone"),
            Role::Leader(leading) => f.debug_tuple("Leader").field(&leading.leader.lock().partition()).finish(),
            Role::Follower { leader } => f.debug_struct("Follower").field("leader", leader).finish(),
        }
    }
}

/// What is asked of a partition once its image changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Nothing is fetched.
    None,
    /// Fetch from `leader`, in `epoch`.
    Follow {
        /// Who leads.
        leader: BrokerId,
        /// Since which change of leader.
        epoch: LeaderEpoch,
    },
}

/// A fetch of a follower, as far as the leader's state is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Who fetches.
    pub id: BrokerId,
    /// Which life of it, if it says.
    pub incarnation: Option<Incarnation>,
}

impl Partition {
    /// Whether clients are served here.
    pub fn is_leader(&self) -> bool {
        !matches!(*self.role().read(), Role::Follower { .. })
    }

    /// Whether this broker has the partition, whoever leads it.
    pub fn is_replica(&self) -> bool {
        !self.is_retired()
    }

    /// The follower to send a reader to that wants `from`, of those that are `near`: in sync, since one that lags would keep the
    /// reader behind for as long as it is sent there; the one that has most, or else that was last seen to have all.
    pub fn follower_near(&self, from: Offset, near: &dyn Fn(BrokerId) -> bool) -> Option<BrokerId> {
        let role = self.role().read();
        let Role::Leader(leading) = &*role else { return None };
        let leader = leading.leader.lock();
        let isr = &leader.partition().isr;
        let has = |end: Option<Offset>, start: Offset| start <= from && end.is_some_and(|end| end >= from);
        let fit = leader
            .followers()
            .iter()
            .filter(|(id, follower)| isr.contains(id) && has(follower.end, follower.log_start) && near(**id));
        fit.max_by_key(|(id, follower)| (follower.end, follower.caught_up, **id)).map(|(id, _)| *id)
    }

    /// Whether this broker leads, and has since `epoch`.
    pub fn leads_in(&self, epoch: LeaderEpoch) -> bool {
        let role = self.role().read();
        !matches!(*role, Role::Follower { .. }) && self.leader_epoch() == epoch
    }

    /// Takes over what an image shows, unless a newer one was taken over before. `may_lead`: this life of the broker was let
    /// in, so that an image that shows it as leader means it.
    pub(super) fn show(
        self: &Arc<Self>,
        now: &PartitionImage,
        node: BrokerId,
        may_lead: bool,
        peers: &Arc<dyn Peers>,
    ) -> Duty {
        let mut role = self.role().write();
        let epoch = self.leader_epoch();
        let led_before = !matches!(*role, Role::Follower { .. }) && now.leader_epoch == epoch;
        if now.leader_epoch < epoch {
            return self.duty(&role);
        }
        self.lead_in(now.leader_epoch);
        // Nobody begins to lead what it cannot read. Who led goes on refusing until others do.
        let may_begin = may_lead && !self.log_dir().is_failed();
        if now.leader != Some(node) || !(may_begin || led_before) {
            let leader = now.leader.filter(|leader| *leader != node);
            *role = Role::Follower { leader };
            drop(role);
            // Who waits for a commit learns that it will not come from here.
            self.wake_all();
            return leader.map_or(Duty::None, |leader| Duty::Follow { leader, epoch: now.leader_epoch });
        }
        let is_alone = now.replicas.len() <= 1;
        match &*role {
            Role::Leader(leading) if led_before && !is_alone => self.step(leading, Input::Shown(now)),
            Role::Alone if led_before && is_alone => {}
            _ if is_alone => {
                *role = Role::Alone;
                self.advance_high_watermark(self.log().end().0);
            }
            _ => {
                if let Err(error) = self.log().begin_epoch(now.leader_epoch) {
                    // Followers are told less exactly where to cut; what they have of that is compared again.
                    error!(topic = %self.topic(), partition = %self.id().index, %error, "a leader epoch is not on the disk");
                }
                let LogEndOffset(end) = self.log().end();
                let leader = Leader::new(node, now.clone(), end, self.high_watermark(), peers.now());
                let kept = AtomicU64::new(end.get());
                let leading = Leading { leader: Mutex::new(leader), kept, peers: peers.clone() };
                self.step(&leading, Input::Appended(end));
                *role = Role::Leader(Box::new(leading));
            }
        }
        drop(role);
        self.wake_all();
        Duty::None
    }

    fn duty(&self, role: &Role) -> Duty {
        match role {
            Role::Follower { leader: Some(leader) } => Duty::Follow { leader: *leader, epoch: self.leader_epoch() },
            Role::Follower { leader: None } | Role::Alone | Role::Leader(_) => Duty::None,
        }
    }

    /// Everything below `offset` is here, for good as far as the topic asks for that.
    pub(super) fn kept_below(self: &Arc<Self>, role: &Role, offset: Offset) {
        match role {
            Role::Alone => self.advance_high_watermark(offset),
            Role::Leader(leading) => {
                // Appended in an earlier epoch, it may have been cut since.
                let LogEndOffset(end) = self.log().end();
                leading.kept.fetch_max(offset.min(end).get(), Ordering::SeqCst);
                self.step_kept(leading);
            }
            Role::Follower { .. } => {}
        }
    }

    fn step_kept(self: &Arc<Self>, leading: &Leading) {
        let mut leader = leading.leader.lock();
        let kept = Offset::new(leading.kept.load(Ordering::SeqCst)).unwrap_or(Offset::MAX);
        let effects = self.stepped(leading, &mut leader, Input::Appended(kept));
        drop(leader);
        self.perform(leading, effects);
    }

    fn step(self: &Arc<Self>, leading: &Leading, input: Input<'_>) {
        let effects = self.stepped(leading, &mut leading.leader.lock(), input);
        self.perform(leading, effects);
    }

    fn stepped(&self, leading: &Leading, leader: &mut Leader, input: Input<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.around(leading, |around| leader.step(around, input, &mut effects));
        effects
    }

    fn around<T>(&self, leading: &Leading, act: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        act(&Surroundings {
            now: leading.peers.now(),
            active: &|id| leading.peers.active(id),
            registered: &|id| leading.peers.registered(id),
            min_in_sync: self.min_in_sync(),
            lag_max: leading.peers.lag_max(),
        })
    }

    fn perform(self: &Arc<Self>, leading: &Leading, effects: Vec<Effect>) {
        let has_failed = self.log_dir().is_failed();
        for effect in effects {
            match effect {
                Effect::AdvanceHighWatermark(HighWatermark(offset)) => self.advance_high_watermark(offset),
                // Followers seem to lag that are refused here: without them nobody who has the records could lead.
                Effect::Propose(_) if has_failed => {}
                Effect::Propose(proposal) => {
                    debug!(topic = %self.topic(), partition = %self.id().index, isr = ?proposal.next.isr, "proposing an ISR");
                    leading.peers.propose(self, *proposal);
                }
            }
        }
    }

    /// Whether enough replicas are in sync for records that all of them shall have.
    pub(super) fn check_in_sync(&self, role: &Role) -> Result<(), AckError> {
        match role {
            Role::Leader(leading) => leading.leader.lock().check_append(self.min_in_sync()),
            Role::Alone | Role::Follower { .. } => Ok(()),
        }
    }

    /// Whether enough replicas are in sync for records that were committed just now to be acknowledged by all.
    ///
    /// # Errors
    /// [`AckError`]: some left meanwhile.
    pub fn check_committed(&self) -> Result<(), AckError> {
        match &*self.role().read() {
            Role::Leader(leading) => leading.leader.lock().check_committed(self.min_in_sync()),
            Role::Alone | Role::Follower { .. } => Ok(()),
        }
    }

    /// How many replicas are in sync, and how many there should be, where this broker leads others.
    pub fn in_sync(&self) -> Option<(usize, usize)> {
        match &*self.role().read() {
            Role::Leader(leading) => {
                let leader = leading.leader.lock();
                Some((leader.partition().isr.len(), leader.partition().replicas.len()))
            }
            Role::Alone | Role::Follower { .. } => None,
        }
    }

    /// Where the log starts on that replica which has deleted least, of those that may come to lead. `None`: this broker does not lead
    /// in `epoch` any more.
    pub(super) fn low_watermark(&self, epoch: LeaderEpoch) -> Option<LogStartOffset> {
        let role = self.role().read();
        if self.leader_epoch() != epoch {
            return None;
        }
        match &*role {
            Role::Follower { .. } => None,
            Role::Alone => Some(self.log_start()),
            Role::Leader(leading) => {
                let mut leader = leading.leader.lock();
                let LogStartOffset(start) = self.log_start();
                Some(LogStartOffset(self.around(leading, |around| leader.low_watermark(around, start))))
            }
        }
    }

    /// Whether the high watermark tells no less than earlier leaders have (KIP-207).
    pub fn knows_what_is_committed(&self) -> bool {
        match &*self.role().read() {
            Role::Leader(leading) => leading.leader.lock().knows_what_is_committed(),
            Role::Alone | Role::Follower { .. } => true,
        }
    }

    /// Whether `replica` is in sync, where this broker leads.
    pub fn has_in_sync(&self, replica: BrokerId) -> bool {
        matches!(&*self.role().read(), Role::Leader(leading) if leading.leader.lock().partition().isr.contains(&replica))
    }

    /// Whether `replica` is one of those that follow this broker.
    pub(super) fn is_followed_by(&self, role: &Role, replica: BrokerId) -> bool {
        matches!(role, Role::Leader(leading) if leading.leader.lock().has_follower(replica))
    }

    /// A follower asked for what comes behind `end`, which it has in our version.
    pub(super) fn note_fetch(self: &Arc<Self>, role: &Role, replica: Replica, end: Offset, log_start: Offset) {
        let Role::Leader(leading) = role else { return };
        let (LogStartOffset(leader_start), LogEndOffset(leader_end)) = (self.log_start(), self.log().end());
        let Replica { id: replica, incarnation } = replica;
        let mut leader = leading.leader.lock();
        let has_deleted = leader.followers().get(&replica).is_some_and(|follower| follower.log_start < log_start);
        let fetch = FollowerFetch { replica, incarnation, end, log_start, leader_start, leader_end };
        let effects = self.stepped(leading, &mut leader, Input::Fetched(fetch));
        drop(leader);
        self.perform(leading, effects);
        if has_deleted {
            // Somebody may wait for all replicas to have deleted records.
            self.wake_all();
        }
    }

    /// Time passed: who lags behind is to leave the ISR.
    pub fn tick(self: &Arc<Self>) {
        if let Role::Leader(leading) = &*self.role().read() {
            self.step(leading, Input::Tick);
        }
    }

    /// What became of the proposal that was made in `epoch` to replace the partition epoch `base`, and how the partition is now, if
    /// somebody else changed it.
    pub fn answered(
        self: &Arc<Self>,
        (epoch, base): (LeaderEpoch, u32),
        outcome: Outcome,
        now: Option<&PartitionImage>,
    ) {
        let role = self.role().read();
        let Role::Leader(leading) = &*role else { return };
        if self.leader_epoch() != epoch {
            return;
        }
        self.step(leading, Input::Answered { base, outcome });
        if let Some(now) = now {
            self.step(leading, Input::Shown(now));
        }
    }
}

#[cfg(test)]
mod tests;
