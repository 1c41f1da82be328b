//! WriteTxnMarkers (KIP-98, KIP-664): a coordinator, or an administrator, ends a transaction in partitions that are led here.

use futures::future;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        WriteTxnMarkersResponse,
        write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
        write_txn_markers_response::{
            WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
        },
    },
};
use varve_metadata::model::{PartitionIndex, ProducerEpoch, ProducerId};

use crate::{
    coordinator::{EndOfTransaction, transactions::TopicPartition},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        transaction_coordinator::MarkerError,
    },
    wire::later::write_txn_markers::Request,
};

/// Markers of producers whose epoch rises with every transaction say so (KIP-1228).
const RAISING: i8 = 2;

pub(crate) async fn handle(broker: &Broker, context: &RequestContext, request: Request) -> WriteTxnMarkersResponse {
    let access = broker.access(context);
    // An administrator's right is looked at first, without a word if it is missing.
    if !access.shows(Operation::Alter, Resource::Cluster)
        && let Err(refused) = access.require(Operation::ClusterAction, Resource::Cluster)
    {
        return refuse(&request, refused);
    }
    let mut results: Vec<WritableTxnMarkerResult> = Vec::with_capacity(request.markers.len());
    for (marker, version) in request.markers {
        let topics = write(broker, &marker, version).await;
        // Kafka collects outcomes by producer and topic.
        let place = results.iter().position(|result| result.producer_id == marker.producer_id).unwrap_or_else(|| {
            results.push(WritableTxnMarkerResult::default().with_producer_id(marker.producer_id));
            results.len() - 1
        });
        for topic in topics {
            let known = &mut results[place].topics;
            match known.iter_mut().find(|known| known.name == topic.name) {
                Some(known) => known.partitions.extend(topic.partitions),
                None => known.push(topic),
            }
        }
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

fn refuse(request: &Request, error: ResponseError) -> WriteTxnMarkersResponse {
    let of_topic = |topic: &WritableTxnMarkerTopic| {
        let partitions = topic.partition_indexes.iter().map(|&index| {
            WritableTxnMarkerPartitionResult::default().with_partition_index(index).with_error_code(error.code())
        });
        let partitions = partitions.collect();
        WritableTxnMarkerTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions)
    };
    let markers = request.markers.iter().map(|(marker, _)| {
        WritableTxnMarkerResult::default()
            .with_producer_id(marker.producer_id)
            .with_topics(marker.topics.iter().map(of_topic).collect())
    });
    WriteTxnMarkersResponse::default().with_markers(markers.collect())
}

async fn write(broker: &Broker, marker: &WritableTxnMarker, version: i8) -> Vec<WritableTxnMarkerTopicResult> {
    let producer = ProducerId::from_wire(marker.producer_id.0);
    let epoch = ProducerEpoch::from_wire(marker.producer_epoch);
    let end = producer.zip(epoch).map(|(producer, epoch)| EndOfTransaction {
        producer,
        epoch,
        coordinator_epoch: marker.coordinator_epoch,
        committed: marker.transaction_result,
        raises_epoch: version >= RAISING,
    });
    let of_topic = |topic: &WritableTxnMarkerTopic| {
        let name = topic.name.clone();
        let writes = topic.partition_indexes.clone().into_iter().map({
            let name = name.clone();
            move |index| {
                let at = PartitionIndex::from_wire(index)
                    .map(|partition| TopicPartition { topic: name.to_string(), partition });
                async move {
                    let outcome = match (end, at) {
                        (_, None) => Err(MarkerError::UnknownPartition),
                        // No log has a producer without a number.
                        (None, Some(_)) => Err(MarkerError::Refused),
                        (Some(end), Some(at)) => broker.transactions.markers().write(&at, &end).await,
                    };
                    WritableTxnMarkerPartitionResult::default()
                        .with_partition_index(index)
                        .with_error_code(outcome.map_or_else(|error| marker_code(error).code(), |()| 0))
                }
            }
        });
        async move {
            let partitions = future::join_all(writes).await;
            WritableTxnMarkerTopicResult::default().with_name(name).with_partitions(partitions)
        }
    };
    future::join_all(marker.topics.iter().map(of_topic)).await
}

/// The only place where a [`MarkerError`] becomes Kafka's.
fn marker_code(error: MarkerError) -> ResponseError {
    match error {
        MarkerError::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        MarkerError::NotLeader => ResponseError::NotLeaderOrFollower,
        MarkerError::Storage => ResponseError::KafkaStorageError,
        MarkerError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        MarkerError::CoordinatorFenced => ResponseError::TransactionCoordinatorFenced,
        MarkerError::Refused => ResponseError::UnknownServerError,
    }
}
