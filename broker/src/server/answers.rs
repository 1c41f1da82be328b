//! Errors in answers, by what was asked and which error it was (Kafka: `ErrorsPerSec`).

use kafka_protocol::{error::ResponseError, messages::ProduceResponse};
use prometheus::{IntCounterVec, Opts};

use crate::{metrics::Registry, wire::fetch_response::FetchAnswer, wire::key::ApiKey};

/// Errors that producers and readers were told, for each partition that was asked for.
#[derive(Clone, Debug)]
pub(super) struct AnswerMetrics(IntCounterVec);

impl Default for AnswerMetrics {
    fn default() -> AnswerMetrics {
        let help = "Errors that answers to producers and readers told of partitions, by Kafka's name for the error";
        let errors = IntCounterVec::new(Opts::new("varve_partition_errors_total", help), &["api", "error"]);
        AnswerMetrics(errors.expect("name and labels are constant and valid"))
    }
}

impl AnswerMetrics {
    /// Shows them in `registry`.
    pub(super) fn register(&self, registry: &Registry) {
        registry.register(Box::new(self.0.clone())).expect("each name is declared once");
    }

    pub(super) fn note_produced(&self, response: &ProduceResponse) {
        let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        self.note(ApiKey::Produce, partitions.map(|partition| partition.error_code));
    }

    pub(super) fn note_fetched(&self, answer: &FetchAnswer) {
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        self.note(ApiKey::Fetch, partitions.map(|partition| partition.error).chain([answer.error]));
    }

    fn note(&self, api: ApiKey, codes: impl Iterator<Item = i16>) {
        for error in codes.filter_map(ResponseError::try_from_code) {
            self.0.with_label_values(&[&format!("{api:?}"), &kafkas_name(error)]).inc();
        }
    }
}

/// `NOT_LEADER_OR_FOLLOWER`, as Kafka's documentation has it.
fn kafkas_name(error: ResponseError) -> String {
    let mut name = String::new();
    for character in format!("{error:?}").chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    // Without the code of one that this version does not know.
    name.retain(|character| character.is_ascii_alphabetic() || character == '_');
    name
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};

    use super::*;

    #[test]
    fn errors_are_counted_by_api_and_kafkas_name_and_success_is_not() {
        let (answers, registry) = (AnswerMetrics::default(), Registry::new());
        answers.register(&registry);
        let partition = |code| PartitionProduceResponse::default().with_error_code(code);
        let topic = TopicProduceResponse::default().with_partition_responses([0, 6, 19, 6].map(partition).to_vec());
        answers.note_produced(&ProduceResponse::default().with_responses(vec![topic]));
        answers.note_fetched(&FetchAnswer { error: 70, ..FetchAnswer::default() });
        let text = registry.text();
        for line in [
            "varve_partition_errors_total{api=\"Produce\",error=\"NOT_LEADER_OR_FOLLOWER\"} 2\n",
            "varve_partition_errors_total{api=\"Produce\",error=\"NOT_ENOUGH_REPLICAS\"} 1\n",
            "varve_partition_errors_total{api=\"Fetch\",error=\"FETCH_SESSION_ID_NOT_FOUND\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 3, "{text}");
    }
}
