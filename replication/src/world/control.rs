//! What the controller does, by its own rules, and what operators ask of it.
//!
//! The controller is some broker that is up, and decides by that broker's image: it may not have heard of everything, and there may
//! be two. What it decides counts if the partition is still as its image shows it.

use varve_metadata::{
    controller::{
        in_sync::{self, Circumstances},
        moving, recovery,
        upkeep::{Due, Rules, Standing, due},
    },
    image::PartitionImage,
    model::BrokerId,
};

use super::{Action, Break, Registration, View, World};

impl World {
    pub(super) fn add_controller_actions(&self, id: BrokerId, actions: &mut Vec<Action>) {
        let (broker, registration) = (self.broker(id), self.registrations[id.0 as usize]);
        let is_gone = !broker.up || broker.incarnation != registration.incarnation;
        if !registration.fenced && (is_gone || self.budget.false_alarms > 0) {
            actions.push(Action::Fence(id));
        }
        if registration.fenced && !is_gone && broker.entered && self.lets_in(id) {
            actions.push(Action::Unfence(id));
        }
        if self.tended_by(id).is_some() {
            actions.push(Action::Tend(id));
        }
        if self.budget.asides > 0 && !is_gone && !registration.aside {
            actions.push(Action::Aside(id));
        }
        if registration.aside && !is_gone {
            actions.push(Action::Return(id));
        }
    }

    pub(super) fn add_operators_actions(&self, actions: &mut Vec<Action>) {
        let in_service = |id: BrokerId| self.in_service(id);
        let circumstances = self.circumstances(&in_service);
        if self.budget.preferred > 0 && in_sync::with_preferred_leader(&self.partition, &circumstances).is_some() {
            actions.push(Action::Prefer);
        }
        if self.budget.moves > 0 {
            // Fewer replicas than the minimum would promise less; a single one leads with whatever disk it has.
            let has_its_disk = self.budget.swaps == 0 && self.shelf.is_empty();
            let fewest = self.min_in_sync.max(if has_its_disk { 1 } else { 2 });
            let targets = (1..1u8 << self.brokers.len()).filter(|target| target.count_ones() as usize >= fewest);
            let elsewhere = targets.filter(|target| self.members(*target) != self.partition.replicas);
            actions.extend(elsewhere.map(Action::Reassign));
        }
        let moves = !self.partition.adding.is_empty() || !self.partition.removing.is_empty();
        if self.budget.cancels > 0 && moves && self.cancelled().is_some() {
            actions.push(Action::Cancel);
        }
        if self.budget.lowered > 0 && self.min_in_sync > 1 {
            actions.push(Action::LowerMinimum);
        }
    }

    /// The brokers whose bits are set.
    fn members(&self, target: u8) -> Vec<BrokerId> {
        self.ids().filter(|id| (target >> id.0) & 1 == 1).collect()
    }

    pub(super) fn in_service(&self, id: BrokerId) -> bool {
        let registration = self.registrations[id.0 as usize];
        !registration.fenced && !registration.aside
    }

    pub(super) fn circumstances<'a>(&self, is_active: &'a dyn Fn(BrokerId) -> bool) -> Circumstances<'a> {
        let unclean = self.unclean || self.is(Break::ElectsOutsideTheIsr);
        Circumstances { is_active, min_in_sync: self.min_in_sync, unclean }
    }

    /// What is due for the partition by an image of it.
    fn due(&self, view: &View) -> Due {
        let standing = |id: BrokerId| {
            let registration = view.registrations[id.0 as usize];
            let trusts = self.is(Break::TrustsAfterPowerCuts);
            match registration {
                Registration { fenced: false, aside: false, .. } => Standing::InService,
                Registration { fenced: false, .. } => Standing::Aside,
                _ if trusts && self.broker(id).up => Standing::InService,
                Registration { distrusted: true, .. } if !trusts => Standing::Distrusted,
                Registration { .. } => Standing::Gone,
            }
        };
        let mut partition = view.partition.clone();
        if self.is(Break::ElectsWhoIsOffline) {
            partition.offline.clear();
        }
        let rules = Rules {
            min_in_sync: view.min_in_sync,
            unclean: self.unclean || self.is(Break::ElectsOutsideTheIsr),
            all_have_looked: view.awaited.is_empty() || self.is(Break::RecoversBeforeAllHaveLooked),
        };
        let mut all = due(&partition, &standing, rules);
        if self.is(Break::KeepsWhatWasTold)
            && let (Some(next), Some(before)) = (&mut all.next, &partition.recovery)
            && let Some(recovery) = &mut next.recovery
        {
            recovery.told.clone_from(&before.told);
        }
        if self.is(Break::RecoversBeforeAllHaveTold) && all.next.is_none() {
            let in_service = |id: BrokerId| standing(id) == Standing::InService;
            let circumstances = Circumstances { is_active: &in_service, min_in_sync: view.min_in_sync, unclean: false };
            let has_told = partition.recovery.as_ref().is_some_and(|recovery| !recovery.told.is_empty());
            all.next = has_told.then(|| recovery::with_recovered(&partition, &circumstances, true)).flatten();
        }
        if all.next.is_none() {
            let mut lenient = view.min_in_sync;
            if self.is(Break::CompletesWithoutWhoIsAdded) {
                let added = partition.adding.iter().filter(|id| !partition.isr.contains(id)).copied();
                let added: Vec<BrokerId> = added.collect();
                partition.isr.extend(added);
            }
            if self.is(Break::CompletesBelowTheMinimum) {
                lenient = 1;
            }
            let in_service = |id: BrokerId| standing(id) == Standing::InService;
            let circumstances = Circumstances { is_active: &in_service, min_in_sync: lenient, unclean: false };
            all.next = moving::completed(&partition, &circumstances);
        }
        all.next = all.next.map(|next| self.tampered(next));
        all
    }

    /// What the controller that `id` may be does for the partition. A broker with the same image would do the same.
    pub(super) fn tended_by(&self, id: BrokerId) -> Option<PartitionImage> {
        let knows = |id: BrokerId| {
            let broker = self.broker(id);
            broker.up && broker.entered && broker.view.partition == self.partition
        };
        let view = &self.broker(id).view;
        let is_first = |id: BrokerId| {
            self.ids().take_while(|other| *other != id).all(|other| !knows(other) || self.broker(other).view != *view)
        };
        if !knows(id) || !is_first(id) {
            return None;
        }
        self.due(view).next
    }

    /// Whether some controller lets the broker in. It compares the registration.
    fn lets_in(&self, id: BrokerId) -> bool {
        let written = self.registrations[id.0 as usize].written;
        self.brokers.iter().any(|controller| {
            let view = &controller.view;
            controller.up
                && controller.entered
                && view.registrations[id.0 as usize].written == written
                && !self.due(view).held.contains(&id)
        })
    }

    /// What the controller writes, with the rule broken that is to be broken.
    pub(super) fn tampered(&self, mut next: PartitionImage) -> PartitionImage {
        if self.is(Break::ElectsWhoIsOffline) {
            next.offline.clone_from(&self.partition.offline);
            next.offline.retain(|id| next.replicas.contains(id));
        }
        let kept = next.leader == self.partition.leader && self.is(Break::KeepsTheEpochOfWhoLeft);
        if self.is(Break::KeepsTheLeaderEpoch) || kept {
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

    /// The partition without a replica whose directory failed.
    pub(super) fn offline(&self, id: BrokerId) -> Option<PartitionImage> {
        if self.is(Break::TrustsAfterDirectoriesFailed) {
            let (mut offline, partition_epoch) = (self.partition.offline.clone(), self.partition.partition_epoch + 1);
            offline.push(id);
            return Some(PartitionImage { offline, partition_epoch, ..self.partition.clone() });
        }
        let in_service = |id: BrokerId| self.in_service(id);
        in_sync::with_offline(&self.partition, id, &self.circumstances(&in_service))
    }

    pub(super) fn prefer(&mut self) {
        let in_service = |id: BrokerId| self.in_service(id);
        if let Some(next) = in_sync::with_preferred_leader(&self.partition, &self.circumstances(&in_service)) {
            self.partition = self.tampered(next);
        }
    }

    pub(super) fn reassign(&mut self, target: u8) {
        let in_service = |id: BrokerId| self.in_service(id);
        let next = moving::towards(&self.partition, &self.members(target), &self.circumstances(&in_service));
        if let Some(next) = next {
            self.write(self.tampered(next));
        }
    }

    pub(super) fn cancelled(&self) -> Option<PartitionImage> {
        let in_service = |id: BrokerId| self.in_service(id);
        let mut circumstances = self.circumstances(&in_service);
        if self.is(Break::CancelsBelowTheMinimum) {
            circumstances.min_in_sync = 1;
        }
        moving::cancelled(&self.partition, &circumstances).ok().map(|next| self.tampered(next))
    }

    /// The partition becomes `next`. Where replicas leave, no fewer may have every record than records are acknowledged by.
    pub(super) fn write(&mut self, next: PartitionImage) {
        let have_all = |partition: &PartitionImage| partition.isr.len() + partition.elr.len();
        let has_left = self.partition.replicas.iter().any(|id| !next.replicas.contains(id));
        if has_left && have_all(&next) < self.min_in_sync.min(have_all(&self.partition)) {
            self.violation = Some(format!("too few have every record after a move: {:?} {next:?}", self.partition));
        }
        self.partition = next;
    }

    /// The controller lets a broker in, or keeps it out.
    pub(super) fn fence(&mut self, id: BrokerId, fenced: bool) {
        let registration = &mut self.registrations[id.0 as usize];
        // Its word that others shall lead goes with its lease.
        let (aside, distrusted) = (registration.aside && !fenced, registration.distrusted && fenced);
        *registration = Registration { fenced, aside, distrusted, written: registration.written + 1, ..*registration };
    }

    pub(super) fn set_aside(&mut self, id: BrokerId, aside: bool) {
        self.registrations[id.0 as usize].aside = aside;
    }
}
