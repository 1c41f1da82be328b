//! What a broker's own configuration says about the settings of topics.

use std::collections::BTreeMap;

use super::definition::Synonym;
use super::error::ConfigError;
use super::topic::TopicConfig;
use super::topic_definitions::topic_table;

/// A broker's defaults for topics: what its own configuration says about topic settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicDefaults(BTreeMap<&'static str, BrokerDefault>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct BrokerDefault {
    synonym: &'static str,
    value: String,
}

impl TopicDefaults {
    /// Reads the topic defaults out of a broker's settings: for each topic setting the first synonym that is given wins,
    /// its number converted to the topic setting's unit (`log.retention.hours` is hours). Other names are left alone.
    ///
    /// # Errors
    /// Everything among the synonyms that is invalid or contradicts another.
    pub fn from_broker(settings: &BTreeMap<String, String>) -> Result<TopicDefaults, Vec<ConfigError>> {
        let mut defaults = TopicDefaults::default();
        let mut errors = Vec::new();
        for definition in topic_table().iter() {
            let mut given =
                definition.synonyms.iter().filter_map(|synonym| Some((synonym, settings.get(synonym.name)?)));
            let Some((synonym, text)) = given.next() else { continue };
            match convert(definition.name, synonym, text) {
                Ok(value) => drop(defaults.0.insert(definition.name, BrokerDefault { synonym: synonym.name, value })),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            errors.extend(TopicConfig::check_defaults(&defaults).err());
        }
        if errors.is_empty() { Ok(defaults) } else { Err(errors) }
    }

    /// The default of a topic setting on this broker, as text in the setting's own unit; `None` where it is unset.
    pub fn value(&self, name: &str) -> Option<&str> {
        let given = self.0.get(name).map(|given| given.value.as_str());
        given.or_else(|| topic_table().get(name)?.default)
    }

    /// The broker-level name that gave a topic setting its default, if one did.
    pub fn source(&self, name: &str) -> Option<&'static str> {
        self.0.get(name).map(|given| given.synonym)
    }
}

/// `text`, given under a broker-level synonym, as a value of the topic setting. Errors speak of the synonym.
fn convert(name: &str, synonym: &Synonym, text: &str) -> Result<String, ConfigError> {
    let definition = topic_table().get(name).ok_or_else(|| topic_table().unknown(name))?;
    let invalid = |allowed: String| ConfigError::Invalid { name: synonym.name.into(), value: text.into(), allowed };
    let factor = synonym.unit.factor();
    let value = match (factor, text.trim().parse::<i64>()) {
        (1, _) => text.trim().to_owned(),
        // Negative hours or minutes mean "for ever", as -1 milliseconds does.
        (_, Ok(number)) if number < 0 => "-1".to_owned(),
        (_, Ok(number)) => number.saturating_mul(factor).to_string(),
        (_, Err(_)) => return Err(invalid("an integer".into())),
    };
    definition.kind.parse(&value).map_err(invalid)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_wrong_broker_default_is_reported_under_its_own_name() {
        let errors = TopicDefaults::from_broker(&map(&[("log.retention.hours", "x"), ("log.segment.bytes", "1")]));
        let names: Vec<_> = errors.unwrap_err().iter().map(|error| error.name().map(str::to_owned)).collect();
        assert_eq!(names, [Some("log.retention.hours".into()), Some("log.segment.bytes".into())]);
    }

    #[test]
    fn a_default_knows_which_broker_setting_gave_it() {
        let defaults = TopicDefaults::from_broker(&map(&[("log.retention.hours", "1")])).unwrap();
        assert_eq!(
            (defaults.value("retention.ms"), defaults.source("retention.ms")),
            (Some("3600000"), Some("log.retention.hours"))
        );
        assert_eq!((defaults.value("segment.ms"), defaults.source("segment.ms")), (Some("604800000"), None));
    }
}
