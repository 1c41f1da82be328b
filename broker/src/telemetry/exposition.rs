//! What clients sent, in Prometheus' text format.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

use super::otlp::{Point, Temporality};

/// Most series of one client.
const MOST_SERIES: usize = 500;
/// Longest name or label that is kept, in bytes.
const MOST_TEXT: usize = 200;
/// What stands before every name, so that none can be mistaken for the node's own.
const PREFIX: &str = "kafka_client_";
/// What Kafka's clients put before every name.
const KAFKAS: &str = "org.apache.kafka.";

/// The newest values of one client.
#[derive(Clone, Debug, Default)]
pub struct Series {
    values: HashMap<Key, Value>,
}

/// Name and labels, written as they are shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    name: String,
    labels: String,
}

#[derive(Clone, Copy, Debug)]
struct Value {
    value: f64,
    is_counter: bool,
    /// To be added to the value before.
    is_delta: bool,
}

impl Series {
    /// Takes one value. A client that sends too many different ones keeps those that it began with.
    pub(super) fn take(&mut self, point: &Point<'_>) {
        let key = Key { name: name(point.name), labels: labels(&point.attributes) };
        let is_counter = point.temporality != Temporality::Gauge;
        let is_delta = point.temporality == Temporality::Delta;
        self.put(key, Value { value: point.value, is_counter, is_delta });
    }

    /// Takes all that the same client has `pushed` since.
    pub(super) fn merge(&mut self, pushed: Series) {
        for (key, value) in pushed.values {
            self.put(key, value);
        }
    }

    fn put(&mut self, key: Key, newer: Value) {
        if let Some(known) = self.values.get_mut(&key) {
            let sum = Value { value: known.value + newer.value, is_delta: known.is_delta, ..newer };
            *known = if newer.is_delta { sum } else { newer };
        } else if self.values.len() < MOST_SERIES {
            self.values.insert(key, newer);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

/// Whether a metric is a counter, and its series: labels and value.
type Family = (bool, Vec<(String, f64)>);

/// The series of all clients, each with the client's labels.
pub(super) fn write<'a>(clients: impl Iterator<Item = (String, &'a Series)>, out: &mut String) {
    let mut families: BTreeMap<&str, Family> = BTreeMap::new();
    for (client, series) in clients {
        for (Key { name, labels }, Value { value, is_counter, .. }) in &series.values {
            let family = families.entry(name).or_insert_with(|| (*is_counter, Vec::new()));
            family.1.push((format!("{{{client}{labels}}}"), *value));
        }
    }
    for (name, (is_counter, mut lines)) in families {
        lines.sort_by(|(left, _), (right, _)| left.cmp(right));
        let kind = if is_counter { "counter" } else { "gauge" };
        let _ = writeln!(out, "# HELP {name} Pushed by clients (KIP-714)\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    }
}

/// `org.apache.kafka.producer.record.send.rate` as `kafka_client_producer_record_send_rate`.
fn name(metric: &str) -> String {
    let metric = cut(metric.strip_prefix(KAFKAS).unwrap_or(metric));
    let legal = |letter: char| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '_' };
    PREFIX.chars().chain(metric.chars().map(legal)).collect()
}

fn labels(attributes: &[(&str, String)]) -> String {
    let mut shown: BTreeMap<String, &str> = BTreeMap::new();
    for (key, value) in attributes {
        let legal = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
        let key: String = cut(key).chars().map(legal).collect();
        // What the client says of itself must not be mistaken for what we know of it.
        let is_ours =
            key.starts_with("client_") || key.is_empty() || key.starts_with(|first: char| first.is_ascii_digit());
        shown.insert(if is_ours { format!("its_{key}") } else { key }, cut(value));
    }
    shown.iter().map(|(key, value)| format!(",{key}=\"{}\"", escaped(value))).collect()
}

/// A label's value, quoted for the text format.
pub(super) fn escaped(value: &str) -> String {
    cut(value).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MOST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point<'a>(name: &'a str, attributes: &[(&'a str, &str)], value: f64, temporality: Temporality) -> Point<'a> {
        let attributes = attributes.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Point { name, attributes, value, temporality }
    }

    #[test]
    fn gauges_are_replaced_and_differences_added_up() {
        let mut series = Series::default();
        for value in [1.0, 2.5] {
            series.take(&point("org.apache.kafka.producer.x-rate", &[("node_id", "a\"b")], value, Temporality::Gauge));
            series.take(&point("other.total", &[("client_id", "me")], value, Temporality::Delta));
        }
        let mut out = String::new();
        write([("client_id=\"app\"".to_owned(), &series)].into_iter(), &mut out);
        let expected = "# HELP kafka_client_other_total Pushed by clients (KIP-714)\n\
                        # TYPE kafka_client_other_total counter\n\
                        kafka_client_other_total{client_id=\"app\",its_client_id=\"me\"} 3.5\n\
                        # HELP kafka_client_producer_x_rate Pushed by clients (KIP-714)\n\
                        # TYPE kafka_client_producer_x_rate gauge\n\
                        kafka_client_producer_x_rate{client_id=\"app\",node_id=\"a\\\"b\"} 2.5\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn what_was_pushed_since_adds_to_what_is_known_or_replaces_it() {
        use Temporality::{Cumulative, Delta};
        let of = |values: &[(f64, Temporality)]| {
            let mut series = Series::default();
            values.iter().for_each(|(value, temporality)| series.take(&point("m", &[], *value, *temporality)));
            series
        };
        for (known, pushed, sum) in [
            (&[(10.0, Cumulative)][..], &[(2.0, Delta), (3.0, Delta)][..], 15.0),
            (&[(10.0, Delta)], &[(2.0, Cumulative), (3.0, Delta)], 5.0),
            (&[(10.0, Delta)], &[(2.0, Delta), (3.0, Cumulative)], 3.0),
            (&[], &[(2.0, Delta), (3.0, Delta)], 5.0),
        ] {
            let mut series = of(known);
            series.merge(of(pushed));
            assert_eq!(series.values.values().map(|value| value.value).collect::<Vec<_>>(), [sum]);
        }
    }

    #[test]
    fn one_client_has_a_bounded_number_of_series() {
        let mut series = Series::default();
        for number in 0..10 * MOST_SERIES {
            series.take(&point("m", &[("n", &number.to_string())], 1.0, Temporality::Gauge));
        }
        assert_eq!(series.len(), MOST_SERIES);
        series.take(&point(&"é".repeat(MOST_TEXT), &[], 1.0, Temporality::Gauge));
    }
}
