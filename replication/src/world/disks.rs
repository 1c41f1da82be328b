//! Disks that are taken out of brokers, and put back.

use varve_metadata::{
    controller::in_sync,
    image::PartitionImage,
    model::{BrokerId, Offset},
};

use super::{Action, Break, World, log::Log};

/// The id of a disk: no two disks have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Disk(pub(super) u8);

/// A disk on the shelf.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shelved {
    of: BrokerId,
    disk: Disk,
    log: Log,
    high_watermark: Offset,
}

impl Disk {
    /// As the partition has it.
    fn id(self) -> String {
        self.0.to_string()
    }
}

impl World {
    pub(super) fn add_disk_actions(&self, id: BrokerId, actions: &mut Vec<Action>) {
        let (broker, registration) = (self.broker(id), self.registrations[id.0 as usize]);
        if self.budget.swaps > 0 {
            actions.push(Action::TakeDisk(id));
            let its = self.shelf.iter().enumerate().filter(|(_, shelved)| shelved.of == id);
            actions.extend(its.map(|(place, _)| Action::ReturnDisk(id, place)));
        }
        if broker.incarnation != registration.incarnation {
            return;
        }
        if !broker.entered {
            actions.push(Action::Enter(id));
        }
        if !registration.fenced && self.found(id).is_some() {
            actions.push(Action::TellFound(id));
        }
    }

    pub(super) fn take_disk(&mut self, id: BrokerId) {
        self.budget.swaps -= 1;
        let newest = self.brokers.iter().map(|broker| broker.disk.0).chain(self.shelf.iter().map(|on| on.disk.0)).max();
        self.swap(id, Disk(newest.unwrap_or(0) + 1), Log::default(), Offset::ZERO);
    }

    pub(super) fn return_disk(&mut self, id: BrokerId, place: usize) {
        self.budget.swaps = self.budget.swaps.saturating_sub(1);
        let Shelved { disk, log, high_watermark, .. } = self.shelf.swap_remove(place);
        self.swap(id, disk, log, high_watermark);
    }

    fn swap(&mut self, id: BrokerId, disk: Disk, log: Log, high_watermark: Offset) {
        self.end(id);
        let broker = self.broker_mut(id);
        let shelved = Shelved {
            of: id,
            disk: std::mem::replace(&mut broker.disk, disk),
            log: std::mem::replace(&mut broker.log, log),
            high_watermark: std::mem::replace(&mut broker.high_watermark, high_watermark),
        };
        // Whatever it has, it is not what the store knows of.
        broker.lost_records = true;
        self.shelf.push(shelved);
    }

    pub(super) fn enter(&mut self, id: BrokerId) {
        // Another action: the process may end in between.
        if self.look(id) {
            return;
        }
        let (registered, disk) = (self.registrations[id.0 as usize].disk, self.broker(id).disk);
        if disk != registered && !self.is(Break::TrustsEmptyDisks) {
            let is_active = |id: BrokerId| self.in_service(id);
            let circumstances = self.circumstances(&is_active);
            if let Some(next) = in_sync::with_emptied(&self.partition, id, &[registered.id()], &circumstances) {
                self.partition = next;
                return;
            }
        }
        if disk != registered {
            let registration = &mut self.registrations[id.0 as usize];
            (registration.disk, registration.written) = (disk, registration.written + 1);
        }
        self.broker_mut(id).entered = true;
        // What is no replica here by now is set aside.
        self.show(id);
    }

    fn found(&self, id: BrokerId) -> Option<PartitionImage> {
        let is_active = |id: BrokerId| self.in_service(id);
        let circumstances = self.circumstances(&is_active);
        let (mut partition, disk) = (self.partition.clone(), self.broker(id).disk.id());
        if self.is(Break::TrustsOldDisks) {
            let its = partition.emptied.iter_mut().filter(|replica| replica.broker == id);
            its.for_each(|replica| replica.dirs = vec![disk.clone()]);
        }
        in_sync::with_found(&partition, id, &disk, &circumstances)
    }

    pub(super) fn tell_found(&mut self, id: BrokerId) {
        if let Some(next) = self.found(id) {
            self.partition = next;
        }
    }

    /// Whether nobody leads, and those who were the last to have everything are here without their disks.
    pub(super) fn waits_for_disks(&self) -> bool {
        let PartitionImage { isr, elr, leader, last_leader, emptied, .. } = &self.partition;
        leader.is_none()
            && isr.is_empty()
            && elr.is_empty()
            && last_leader.is_none()
            && emptied.iter().any(|replica| !replica.dirs.is_empty())
            && self.brokers.iter().all(|broker| broker.up && broker.entered && broker.admitted)
    }

    /// Whoever is waited for gets its disk back.
    pub(super) fn return_disks(&mut self) {
        for replica in self.partition.emptied.clone() {
            let is_it = |shelved: &Shelved| shelved.of == replica.broker && replica.dirs.contains(&shelved.disk.id());
            if let Some(place) = self.shelf.iter().position(is_it) {
                self.return_disk(replica.broker, place);
            }
        }
    }
}
