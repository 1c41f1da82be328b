//! Transactions on this node: one [`Shard`] per partition of `__transaction_state` that it leads, the markers that end
//! transactions, and the question whether a partition may be written to in one.

mod admission;
mod markers;
mod metrics;
mod remote;

use std::sync::Arc;

use varve_metadata::{
    cluster::ClusterMetadata,
    config::Codec,
    image::ClusterImage,
    model::{BrokerId, PartitionIndex},
};

pub(crate) use admission::{Admission, Candidate, Denial, Generation, Verdict};
pub(crate) use markers::MarkerError;
pub(crate) use metrics::TransactionMetrics;

use super::{
    Broker, GroupCoordinator,
    producer_ids::ProducerIds,
    seats::{self, Office, SeatError, Seats, TopicTerms},
};
use crate::{
    config::TransactionConfig as Settings,
    coordinator::transactions::{
        AddPartitions, Answer, MarkerReport, Order, Shard, TRANSACTIONS_TOPIC, TransactionConfig, TransactionError,
    },
    links::Links,
    partition::{Partition, Partitions},
};
use markers::MarkerWriter;

/// A partition of `__transaction_state` that this node leads, and the transactional ids in it.
pub(crate) type Seat = seats::Seat<TransactionOffice>;

/// The transactions that this node coordinates.
#[derive(Debug)]
pub struct TransactionCoordinator {
    node: BrokerId,
    pub(crate) settings: Settings,
    seats: Arc<Seats<TransactionOffice>>,
    partitions: Arc<Partitions>,
    markers: Arc<MarkerWriter>,
    links: Arc<Links>,
}

/// What makes a coordinator of transactions of a seat.
pub(crate) struct TransactionOffice {
    rules: Arc<TransactionConfig>,
    producer_ids: Arc<ProducerIds>,
    metadata: Arc<ClusterMetadata>,
    markers: Arc<MarkerWriter>,
}

/// What the coordinator works with.
pub(crate) struct Surroundings {
    pub(crate) node: BrokerId,
    pub(crate) links: Arc<Links>,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) metadata: Arc<ClusterMetadata>,
    pub(crate) producer_ids: Arc<ProducerIds>,
    pub(crate) groups: Arc<GroupCoordinator>,
}

impl Office for TransactionOffice {
    type Machine = Shard;

    fn machine(&self, partition: &Partition) -> Shard {
        Shard::new(self.rules.clone(), partition.leader_epoch().to_wire())
    }

    fn perform(self: &Arc<Self>, seat: &Arc<Seat>, order: Order) {
        let seat = seat.clone();
        // A seat that is closed meanwhile needs no report: whoever coordinates next finds everything in the log.
        match order {
            Order::FetchProducerId => {
                let (producer_ids, metadata) = (self.producer_ids.clone(), self.metadata.clone());
                tokio::spawn(async move {
                    let fetched = producer_ids.next(&metadata).await;
                    let fetched = fetched.inspect_err(|error| tracing::warn!(%error, "no producer id to be had")).ok();
                    let _ = seat.step(|shard, now, effects| shard.producer_id_fetched(now, fetched, effects));
                });
            }
            Order::WriteMarkers(markers) => {
                let writer = self.markers.clone();
                tokio::spawn(async move {
                    let outcomes = writer.write_all(&markers).await;
                    let report =
                        MarkerReport { transactional_id: markers.transactional_id, end: markers.end, outcomes };
                    let _ = seat.step(|shard, now, effects| shard.markers_written(now, report, effects));
                });
            }
        }
    }

    fn loaded(&self, partition: PartitionIndex, machine: &Shard) {
        let stats = machine.stats();
        if stats.transactional_ids > 0 {
            let (ids, ongoing, completing) = (stats.transactional_ids, stats.ongoing, stats.completing);
            tracing::info!(%partition, transactional_ids = ids, ongoing, completing, "loaded transactions");
        }
    }
}

impl From<SeatError> for TransactionError {
    fn from(error: SeatError) -> TransactionError {
        match error {
            SeatError::Loading => TransactionError::LoadInProgress,
            SeatError::NotHere => TransactionError::NotCoordinator,
        }
    }
}

impl TransactionCoordinator {
    /// Coordinates the transactions whose partitions of `__transaction_state` are led here.
    pub(crate) fn new(settings: Settings, around: Surroundings) -> Arc<TransactionCoordinator> {
        let rules = TransactionConfig {
            id_expiration: settings.id_expiration,
            max_timeout: settings.max_timeout,
            abort_interval: settings.abort_interval,
            expiration_interval: settings.expiration_interval,
        };
        let terms = TopicTerms {
            name: TRANSACTIONS_TOPIC,
            partitions: settings.log_partitions,
            codec: Codec::None,
            load_bytes: settings.log_load_bytes,
        };
        let Surroundings { node, links, partitions, metadata, producer_ids, groups } = around;
        let markers = MarkerWriter {
            node,
            links: links.clone(),
            partitions: partitions.clone(),
            metadata: metadata.clone(),
            groups,
        };
        let markers = Arc::new(markers);
        let office =
            Arc::new(TransactionOffice { rules: Arc::new(rules), producer_ids, metadata, markers: markers.clone() });
        let seats = Arc::new(Seats::new(terms, office, partitions.clone()));
        Arc::new(TransactionCoordinator { node, settings, seats, partitions, markers, links })
    }

    /// The partition of `__transaction_state` that holds the transactional id: of the topic as it is, or as it will be made.
    pub(crate) fn partition_of(&self, image: &ClusterImage, transactional_id: &str) -> PartitionIndex {
        self.seats.partition_of(image, transactional_id)
    }

    /// The seat that coordinates the transactional id. One that is not loaded yet is found, and says so itself.
    ///
    /// # Errors
    /// [`TransactionError::NotCoordinator`] if this node does not lead the id's partition.
    pub(crate) fn seat(&self, broker: &Broker, transactional_id: &str) -> Result<Arc<Seat>, TransactionError> {
        Ok(self.seats.find(&broker.metadata.image(), transactional_id)?)
    }

    /// Adds partitions to a transaction, and begins it if there is none.
    ///
    /// # Errors
    /// What its coordinator says against it. An empty transactional id is nobody's.
    pub(crate) async fn add(&self, broker: &Broker, request: AddPartitions) -> Result<(), TransactionError> {
        if request.transactional_id.is_empty() {
            return Err(TransactionError::InvalidRequest);
        }
        let seat = self.seat(broker, &request.transactional_id)?;
        match seat.ask(|shard, now, id, effects| shard.add_partitions(now, id, request, effects)).await? {
            Answer::Added(outcome) => outcome,
            _ => Err(TransactionError::Unexpected),
        }
    }

    /// Every seat of this node; those that were not asked for yet start to load.
    pub(crate) fn all_seats(&self) -> Vec<Arc<Seat>> {
        self.seats.all()
    }

    /// Writes markers to partitions that are led here.
    pub(crate) fn markers(&self) -> &MarkerWriter {
        &self.markers
    }

    /// Follows the cluster until `broker` stops: loads what this node comes to lead, completes what was decided before, and
    /// answers everyone who still waits when the node stops.
    pub async fn follow(self: Arc<Self>, broker: Arc<Broker>) {
        let (metadata, stop, seats) = (broker.metadata.clone(), broker.shutdown.clone(), self.seats.clone());
        drop((broker, self));
        seats.follow(metadata, stop, |_, _| {}).await;
    }
}
