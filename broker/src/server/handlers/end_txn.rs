//! EndTxn (KIP-98, KIP-890): commit or abort.

use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse};

use super::transaction_support::{producer, versioned_error};
use crate::{
    coordinator::transactions::{Answer, EndTransaction, ProducerIdentity, TransactionError, TransactionVersion},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// First version whose clients know PRODUCER_FENCED.
const FENCED_SINCE: i16 = 2;
/// First version of producers whose epoch rises with every transaction.
const RAISING_SINCE: i16 = 5;

pub(crate) async fn handle(broker: &Broker, context: &RequestContext, request: EndTxnRequest) -> EndTxnResponse {
    let answer = EndTxnResponse::default().with_producer_id((-1).into()).with_producer_epoch(-1);
    let id = Resource::TransactionalId(&request.transactional_id);
    if let Err(refused) = broker.access(context).require(Operation::Write, id) {
        return answer.with_error_code(refused.code());
    }
    match end(broker, context, request).await {
        Ok(Some(ProducerIdentity { id, epoch })) => {
            answer.with_producer_id(id.to_wire().into()).with_producer_epoch(epoch.to_wire())
        }
        Ok(None) => answer,
        Err(error) => answer.with_error_code(versioned_error(error, context.api_version, FENCED_SINCE).code()),
    }
}

async fn end(
    broker: &Broker,
    context: &RequestContext,
    request: EndTxnRequest,
) -> Result<Option<ProducerIdentity>, TransactionError> {
    let transactional_id = request.transactional_id.to_string();
    if transactional_id.is_empty() {
        return Err(TransactionError::InvalidRequest);
    }
    let (producer, epoch) = producer(request.producer_id.0, request.producer_epoch);
    let is_raising = context.api_version >= RAISING_SINCE;
    let version = if is_raising { TransactionVersion::Raising } else { TransactionVersion::Fixed };
    let seat = broker.transactions.seat(broker, &transactional_id)?;
    let request = EndTransaction { transactional_id, producer, epoch, commit: request.committed, version };
    match seat.ask(|shard, now, id, effects| shard.end(now, id, request, effects)).await? {
        Answer::Ended(outcome) => outcome,
        _ => Err(TransactionError::Unexpected),
    }
}
