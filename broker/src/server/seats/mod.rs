//! Coordinators at work: which partitions of an internal topic this node leads, and the state machine of each.
//!
//! ```text
//!   handler ─► Seats::find(key) ─► Seat ─► Machine (pure) ─► Effect::Append ─► Partition ─► Machine::appended
//!      ▲                                                                                          │
//!      └────────────────────────── oneshot ◄──────────────── Effect::Answer ◄──────────────────────┘
//! ```
//!
//! A [`Seat`] is one such partition with its machine, loaded from its log before it serves; until then it answers that it
//! is loading. What is coordinated is the machine's business: groups, transactions.

mod load;
mod seat;

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Weak},
    time::Instant,
};

use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use varve_metadata::{
    cluster::ClusterMetadata,
    config::Codec,
    image::{ClusterImage, TopicChange},
    model::{PartitionId, PartitionIndex},
};

pub(crate) use seat::{Seat, SeatError, append_failure, marker_bytes};

use crate::{
    coordinator::{Machine, partition_for},
    partition::{Partition, Partitions},
};

/// Partitions loaded at the same time: each holds a buffer of `load_bytes`.
const PARALLEL_LOADS: usize = 4;

/// What makes one kind of coordinator of a machine.
pub(crate) trait Office: Send + Sync + 'static {
    /// What it runs.
    type Machine: Machine;

    /// A machine for `partition`, ready to be loaded.
    fn machine(&self, partition: &Partition) -> Self::Machine;

    /// Tells a machine that is loaded what changed around it meanwhile. Called with the seat locked, right before it serves.
    fn refresh(&self, _machine: &mut Self::Machine) {}

    /// Performs what the machine orders. Called with the seat locked: it may start work, and waits for none.
    fn perform(self: &Arc<Self>, seat: &Arc<Seat<Self>>, order: <Self::Machine as Machine>::Order);

    /// What is counted is loaded, for the log.
    fn loaded(&self, partition: PartitionIndex, machine: &Self::Machine);
}

/// How the topic that holds the state is made, written and read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicTerms {
    /// Its name.
    pub(crate) name: &'static str,
    /// Partitions it will have once it is made.
    pub(crate) partitions: u32,
    /// The codec of its batches.
    pub(crate) codec: Codec,
    /// Bytes read at once when a partition is loaded.
    pub(crate) load_bytes: u32,
}

/// Every seat of one kind of coordinator on this node.
pub(crate) struct Seats<O: Office + ?Sized> {
    terms: TopicTerms,
    office: Arc<O>,
    partitions: Arc<Partitions>,
    /// `None` once the node stops: nobody takes a seat again.
    seats: RwLock<Option<HashMap<PartitionId, Arc<Seat<O>>>>>,
    loads: Arc<Semaphore>,
    /// Where every machine's clock starts.
    started: Instant,
}

impl<O: Office> Seats<O> {
    /// Seats for the partitions of the topic that are, or will be, among `partitions`.
    pub(crate) fn new(terms: TopicTerms, office: Arc<O>, partitions: Arc<Partitions>) -> Seats<O> {
        Seats {
            terms,
            office,
            partitions,
            seats: RwLock::new(Some(HashMap::new())),
            loads: Arc::new(Semaphore::new(PARALLEL_LOADS)),
            started: Instant::now(),
        }
    }

    /// What makes coordinators of its machines.
    pub(crate) fn office(&self) -> &Arc<O> {
        &self.office
    }

    /// How the topic is made, written and read.
    pub(crate) fn terms(&self) -> TopicTerms {
        self.terms
    }

    /// The partition of the topic that holds `key`: of the topic as it is, or as it will be made.
    pub(crate) fn partition_of(&self, image: &ClusterImage, key: &str) -> PartitionIndex {
        let made = image.topic(self.terms.name).map(|topic| topic.partitions.len() as u32);
        let count = made.unwrap_or(self.terms.partitions);
        partition_for(key, NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN))
    }

    /// The seat that coordinates `key`. One that is not loaded yet is found, and says so itself.
    ///
    /// # Errors
    /// [`SeatError::NotHere`] if this node does not lead the partition.
    pub(crate) fn find(&self, image: &ClusterImage, key: &str) -> Result<Arc<Seat<O>>, SeatError> {
        self.at(self.partition_of(image, key))
    }

    /// The seat of that partition.
    ///
    /// # Errors
    /// [`SeatError::NotHere`] if this node does not lead it.
    pub(crate) fn at(&self, index: PartitionIndex) -> Result<Arc<Seat<O>>, SeatError> {
        let partition = self.partitions.led(self.terms.name, index).map_err(|_| SeatError::NotHere)?;
        self.take(partition).ok_or(SeatError::NotHere)
    }

    /// Every seat of this node; those that were not asked for yet start to load.
    pub(crate) fn all(&self) -> Vec<Arc<Seat<O>>> {
        let Ok(topic) = self.partitions.topic_named(self.terms.name) else { return Vec::new() };
        let led = topic.partitions().into_iter().filter(|partition| partition.is_leader());
        led.filter_map(|partition| self.take(partition)).collect()
    }

    /// Reads from every machine that serves.
    pub(crate) fn read_each<R>(&self, mut read: impl FnMut(&O::Machine) -> R) -> Vec<R> {
        let seats = self.seats.read();
        seats.iter().flat_map(HashMap::values).filter_map(|seat| seat.read(&mut read).ok()).collect()
    }

    fn take(&self, partition: Arc<Partition>) -> Option<Arc<Seat<O>>> {
        let id = partition.id();
        if let Some(seat) = self.seats.read().as_ref()?.get(&id)
            && seat.epoch() == partition.leader_epoch()
        {
            return Some(seat.clone());
        }
        let mut seats = self.seats.write();
        let seats = seats.as_mut()?;
        if let Some(seat) = seats.get(&id) {
            if seat.epoch() == partition.leader_epoch() {
                return Some(seat.clone());
            }
            // Of an earlier leadership: another one coordinated meanwhile.
            seat.close();
        }
        let seat = Seat::new(partition, self.office.clone(), self.terms.codec, self.started);
        tokio::spawn(load::load(seat.clone(), self.loads.clone(), self.terms.load_bytes));
        seats.insert(id, seat.clone());
        Some(seat)
    }

    /// Follows the cluster until `stop`: takes a seat wherever this node comes to lead, gives up those that are gone, tells
    /// `changed` what happened to topics, and answers everyone who still waits when the node stops.
    pub(crate) async fn follow(
        self: Arc<Self>,
        metadata: Arc<ClusterMetadata>,
        stop: CancellationToken,
        changed: impl Fn(&Seats<O>, &[TopicChange]),
    ) {
        let seats = Arc::downgrade(&self);
        drop(self);
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow(seats.clone(), metadata, changed) => {}
        }
        if let Some(seats) = seats.upgrade() {
            seats.seats.write().take().unwrap_or_default().values().for_each(|seat| seat.close());
        }
    }

    async fn show(&self, image: &ClusterImage) {
        self.partitions.caught_up(image.revision()).await;
        if let Some(seats) = self.seats.write().as_mut() {
            seats.retain(|id, seat| {
                let is_ours = self.partitions.get(*id).is_ok() && seat.stands();
                if !is_ours {
                    seat.close();
                }
                is_ours
            });
        }
        self.all();
    }
}

async fn follow<O: Office>(
    seats: Weak<Seats<O>>,
    metadata: Arc<ClusterMetadata>,
    changed: impl Fn(&Seats<O>, &[TopicChange]),
) {
    let mut images = metadata.subscribe();
    let mut before: Option<Arc<ClusterImage>> = None;
    loop {
        let image = images.borrow_and_update().clone();
        let Some(seats) = seats.upgrade() else { return };
        seats.show(&image).await;
        changed(&seats, &before.map(|before| image.changes_since(&before)).unwrap_or_default());
        before = Some(image);
        drop(seats);
        if images.changed().await.is_err() {
            return;
        }
    }
}

impl<O: Office> std::fmt::Debug for Seats<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seats")
            .field("topic", &self.terms.name)
            .field("seats", &self.seats.read().as_ref().map(HashMap::len))
            .finish_non_exhaustive()
    }
}
