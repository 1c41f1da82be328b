//! ListTransactions (KIP-664, KIP-994, KIP-1152): the transactions that this broker coordinates.

use std::time::Duration;

use kafka_protocol::{
    error::ResponseError,
    messages::{ListTransactionsRequest, ListTransactionsResponse, list_transactions_response},
};
use regex::{Regex, RegexBuilder};

use super::{group_support::text, transaction_support::transaction_error};
use crate::{
    coordinator::transactions::{ListedTransaction, TransactionError, TransactionFilter, TransactionState},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        seats::SeatError,
    },
};

/// Most memory that a client's pattern may take once it is compiled, in bytes.
const PATTERN_BYTES: usize = 1 << 20;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let answer = ListTransactionsResponse::default();
    let pattern = request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty());
    let pattern = match pattern.map(whole_pattern).transpose() {
        Ok(pattern) => pattern,
        Err(_) => return answer.with_error_code(ResponseError::InvalidRegularExpression.code()),
    };
    let (states, unknown): (Vec<_>, Vec<_>) =
        request.state_filters.into_iter().partition(|name| TransactionState::from_name(name).is_some());
    let filter = TransactionFilter {
        states: states.iter().filter_map(|name| TransactionState::from_name(name)).collect(),
        has_unknown_states: !unknown.is_empty(),
        producers: request.producer_id_filters.iter().map(|id| id.0).collect(),
        // A negative one asks for all.
        longer_than: u64::try_from(request.duration_filter).ok().map(Duration::from_millis),
    };
    match list(broker, &filter) {
        Ok(transactions) => {
            let access = broker.access(context);
            let is_wanted = |transaction: &ListedTransaction| {
                let id = transaction.transactional_id.as_str();
                pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
                    && access.shows(Operation::Describe, Resource::TransactionalId(id))
            };
            let transactions = transactions.into_iter().filter(is_wanted).map(listed).collect();
            answer.with_unknown_state_filters(unknown).with_transaction_states(transactions)
        }
        Err(error) => answer.with_error_code(transaction_error(error).code()),
    }
}

/// A pattern that the whole transactional id has to match.
fn whole_pattern(pattern: &str) -> Result<Regex, regex::Error> {
    // By itself first, or a parenthesis too many could close ours.
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build()?;
    RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_BYTES).build()
}

fn list(broker: &Broker, filter: &TransactionFilter) -> Result<Vec<ListedTransaction>, TransactionError> {
    let mut all = Vec::new();
    for seat in broker.transactions.all_seats() {
        match seat.read_now(|shard, now| shard.list(now, filter)) {
            Ok(mut transactions) => all.append(&mut transactions),
            // Given up meanwhile.
            Err(SeatError::NotHere) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

fn listed(transaction: ListedTransaction) -> list_transactions_response::TransactionState {
    list_transactions_response::TransactionState::default()
        .with_transactional_id(text(transaction.transactional_id).into())
        .with_producer_id(transaction.producer.to_wire().into())
        .with_transaction_state(text(transaction.state.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_the_whole_id_and_nothing_that_it_could_break_out_of() {
        let pattern = whole_pattern("a|orders-.*").unwrap();
        assert!(pattern.is_match("orders-1") && pattern.is_match("a"));
        assert!(!pattern.is_match("my-orders-1") && !pattern.is_match("ab"));
        assert!(whole_pattern("a)|(b").is_err() && whole_pattern("[").is_err());
        assert!(whole_pattern("(a{1000}){1000}").is_err(), "too large to be compiled");
    }
}
