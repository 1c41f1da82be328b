//! Nothing is silently ignored: every topic setting that is honoured changes what a topic does, given to the topic or to
//! the broker.

use std::collections::BTreeMap;

use super::{
    definition::{ConfigDef, Kind, Treatment, Unit},
    topic::TopicConfig,
    topic_defaults::TopicDefaults,
    topic_definitions::topic_table,
};

/// What must stand beside a setting, or be its value, for a difference to be seen or allowed.
const BESIDE: &[(&str, &[(&str, &str)])] = &[
    ("compression.gzip.level", &[("compression.type", "gzip")]),
    ("compression.lz4.level", &[("compression.type", "lz4")]),
    ("compression.zstd.level", &[("compression.type", "zstd")]),
    ("remote.log.delete.on.disable", &[("remote.storage.enable", "false")]),
    ("local.retention.bytes", &[("retention.bytes", "1000")]),
];

/// A valid value that is not the default.
fn another(definition: &ConfigDef) -> String {
    let default = definition.default.unwrap_or_default();
    let number = |min: i64, max: i64| {
        let default = default.parse::<i64>().unwrap_or(min).max(min);
        if default < max { default + 1 } else { default - 1 }.to_string()
    };
    match definition.name {
        "local.retention.ms" | "local.retention.bytes" => return "7".to_owned(),
        "min.compaction.lag.ms" => return "5".to_owned(),
        _ => {}
    }
    match definition.kind {
        Kind::Bool => (default != "true").to_string(),
        Kind::Int { min, max } => number(min.into(), max.into()),
        Kind::Long { min, max } => number(min, max),
        Kind::Levels { min, max, .. } => (if default == min.to_string() { max } else { min }).to_string(),
        Kind::Double { .. } => "0.25".to_owned(),
        Kind::Replicas => "0:1".to_owned(),
        Kind::Enum(words) | Kind::List(words) => (*words.iter().find(|word| **word != default).unwrap()).to_owned(),
        Kind::Text | Kind::Password | Kind::Class => "other".to_owned(),
    }
}

fn beside(name: &str) -> BTreeMap<String, String> {
    let found = BESIDE.iter().find(|(of, _)| *of == name).map_or(&[][..], |(_, beside)| *beside);
    found.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn honoured() -> impl Iterator<Item = &'static ConfigDef> {
    topic_table().iter().filter(|definition| definition.treatment == Treatment::Honoured && !definition.internal)
}

#[test]
fn every_honoured_setting_changes_a_topic_that_it_is_given_to() {
    for definition in honoured() {
        let without = beside(definition.name);
        let mut with = without.clone();
        with.insert(definition.name.to_owned(), another(definition));
        let resolve = |overrides| TopicConfig::resolve(&TopicDefaults::default(), overrides).unwrap();
        assert_ne!(resolve(&with), resolve(&without), "{with:?}");
    }
}

#[test]
fn every_honoured_setting_changes_topics_when_it_is_a_default_of_the_broker() {
    for definition in honoured() {
        for synonym in definition.synonyms.iter().filter(|synonym| synonym.unit == Unit::Same) {
            let overrides = beside(definition.name);
            let given = BTreeMap::from([(synonym.name.to_owned(), another(definition))]);
            let defaults = TopicDefaults::from_broker(&given).unwrap_or_else(|errors| panic!("{given:?}: {errors:?}"));
            let plain = TopicConfig::resolve(&TopicDefaults::default(), &overrides).unwrap();
            assert_ne!(TopicConfig::resolve(&defaults, &overrides).unwrap(), plain, "{given:?}");
        }
    }
}

#[test]
fn a_setting_that_is_not_honoured_says_why() {
    for definition in topic_table().iter().filter(|definition| definition.treatment != Treatment::Honoured) {
        let (Treatment::NoEffect { why } | Treatment::Refused { why }) = definition.treatment else { continue };
        assert!(why.len() > 20, "{}: {why}", definition.name);
    }
}
