//! The definition of every broker setting: all names of Kafka 4.3, names of earlier Kafkas that still stand in
//! properties files, and Varve's own under `varve.`. One file per subject, one table over them.
//!
//! A checked-in list of Kafka's names (`kafka-4.3-names.txt`) is held against the table by a test.

mod archive;
mod groups;
mod listeners;
mod logs;
mod metadata;
mod network;
mod node;
mod past;
mod prefixes;
mod replication;
mod security;
mod share;
mod transactions;

use std::sync::LazyLock;

use varve_metadata::config::{ConfigDef, ConfigTable, Importance, Kind};

pub(super) use prefixes::prefix_of;
pub use prefixes::{Prefix, prefixes};
pub(crate) use prefixes::{is_of_listeners, listener_setting, typed_as};

/// The chapters of the reference: a title and its settings, in the order in which a newcomer meets them.
pub(super) const CHAPTERS: &[(&str, &[ConfigDef])] = &[
    ("The node", node::DEFINITIONS),
    ("Listeners and connections", listeners::DEFINITIONS),
    ("Requests and memory", network::DEFINITIONS),
    ("Topics and logs", logs::DEFINITIONS),
    ("Archive", archive::DEFINITIONS),
    ("Groups", groups::DEFINITIONS),
    ("Producers and transactions", transactions::DEFINITIONS),
    ("Replication", replication::DEFINITIONS),
    ("Metadata", metadata::DEFINITIONS),
    ("Security", security::DEFINITIONS),
    ("Share groups", share::DEFINITIONS),
    ("Names of earlier Kafkas", past::DEFINITIONS),
];

/// All broker settings, by name.
pub fn broker_table() -> &'static ConfigTable {
    static TABLE: LazyLock<ConfigTable> =
        LazyLock::new(|| ConfigTable::new(CHAPTERS.iter().flat_map(|(_, settings)| settings.iter().copied())));
    &TABLE
}

/// Whether Kafka's own table lacks the setting, because only earlier Kafkas knew it or because the authorizer reads it
/// for itself: it may stand in a file, and who does not set it is not shown it.
pub(crate) fn is_outside_kafkas_table(name: &str) -> bool {
    past::DEFINITIONS.iter().any(|past| past.name == name) || security::AUTHORIZERS_OWN.contains(&name)
}

/// Whether the setting is only described where it is given: Kafka keeps it in a table of its own, which has no defaults.
pub(crate) fn is_described_once_given(name: &str) -> bool {
    const RATES: [&str; 3] = [
        "leader.replication.throttled.rate",
        "follower.replication.throttled.rate",
        "replica.alter.log.dirs.io.max.bytes.per.second",
    ];
    RATES.contains(&name)
}

// Shorthand of the tables.
const ANY_SHORT: Kind = Kind::Int { min: -32_768, max: 32_767 };
const ANY_INT: Kind = Kind::Int { min: i32::MIN, max: i32::MAX };
const NATURAL_INT: Kind = Kind::Int { min: 0, max: i32::MAX };
const POSITIVE_INT: Kind = Kind::Int { min: 1, max: i32::MAX };
const POSITIVE_SHORT: Kind = Kind::Int { min: 1, max: 32_767 };
const ANY_LONG: Kind = Kind::Long { min: i64::MIN, max: i64::MAX };
const NATURAL_LONG: Kind = Kind::Long { min: 0, max: i64::MAX };
const POSITIVE_LONG: Kind = Kind::Long { min: 1, max: i64::MAX };
/// Milliseconds or bytes, where -1 means "none" or "no limit".
const LIMIT: Kind = Kind::Long { min: -1, max: i64::MAX };
const ANY_LIST: Kind = Kind::List(&[]);
/// Kafka's "no limit" for a number that cannot be unset.
const LONG_MAX: &str = "9223372036854775807";
const INT_MAX: &str = "2147483647";

const fn def(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> ConfigDef {
    ConfigDef::broker(name, kind, Some(default), doc)
}

const fn unset(name: &'static str, kind: Kind, doc: &'static str) -> ConfigDef {
    ConfigDef::broker(name, kind, None, doc)
}

const fn high(definition: ConfigDef) -> ConfigDef {
    definition.importance(Importance::High)
}

const fn low(definition: ConfigDef) -> ConfigDef {
    definition.importance(Importance::Low)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use varve_metadata::config::{Treatment, topic_table};

    const KAFKA_NAMES: &str = include_str!("../kafka-4.3-names.txt");

    #[test]
    fn every_broker_setting_of_kafka_has_a_definition() {
        let kafka: BTreeSet<&str> = KAFKA_NAMES.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(kafka.len(), 363);
        let missing: Vec<_> = kafka.iter().filter(|name| broker_table().get(name).is_none()).collect();
        assert!(missing.is_empty(), "no definition for {missing:#?}");
        let known_elsewhere = |definition: &&ConfigDef| {
            let elsewhere = is_outside_kafkas_table(definition.name);
            elsewhere || definition.name.starts_with("varve.") || kafka.contains(definition.name)
        };
        let invented: Vec<_> = broker_table().iter().filter(|d| !known_elsewhere(d)).map(|d| d.name).collect();
        assert!(invented.is_empty(), "neither Kafka's nor ours: {invented:?}");
    }

    #[test]
    fn every_default_is_a_valid_value_of_its_setting() {
        for definition in broker_table().iter() {
            if let Some(default) = definition.default {
                assert!(definition.parse(default).is_ok(), "{}={default}", definition.name);
            }
        }
    }

    #[test]
    fn every_broker_name_behind_a_topic_setting_is_defined_with_the_same_default() {
        for topic in topic_table().iter() {
            for synonym in topic.synonyms {
                let broker = broker_table().get(synonym.name);
                let broker = broker.unwrap_or_else(|| panic!("{} is not a broker setting", synonym.name));
                assert_eq!(broker.treatment, Treatment::Honoured, "{}", broker.name);
                let (Some(broker_default), Some(topic_default)) = (broker.default, topic.default) else { continue };
                let scaled = broker_default.parse::<i64>().map(|number| (number * synonym.unit.factor()).to_string());
                assert_eq!(scaled.as_deref().unwrap_or(broker_default), topic_default, "{}", broker.name);
            }
        }
    }

    #[test]
    fn every_setting_is_explained_in_a_sentence() {
        for definition in broker_table().iter().chain(topic_table().iter()) {
            assert!(
                definition.doc.ends_with('.') && definition.doc.len() > 12,
                "{}: {:?}",
                definition.name,
                definition.doc
            );
            let (Treatment::NoEffect { why } | Treatment::Refused { why }) = definition.treatment else { continue };
            assert!(!why.ends_with('.') && why.len() > 20, "{}: {why:?}", definition.name);
        }
    }
}
