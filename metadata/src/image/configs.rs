//! Settings that were given while running (KIP-226, KIP-339), other than those of topics.

use std::{collections::BTreeMap, sync::Arc};

use crate::{config::topic_table, model::BrokerId};

/// What a set of settings belongs to. Topics carry theirs themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// One broker.
    Broker(BrokerId),
    /// Every broker that does not say otherwise.
    BrokerDefaults,
    /// A consumer group (KIP-848).
    Group(String),
    /// A client metrics subscription (KIP-714).
    ClientMetrics(String),
}

/// Settings by what they belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigImage(pub(crate) BTreeMap<ConfigResource, Arc<BTreeMap<String, String>>>);

impl ConfigImage {
    /// The settings given to `resource`; `None` if none were.
    pub fn get(&self, resource: &ConfigResource) -> Option<&BTreeMap<String, String>> {
        self.0.get(resource).map(Arc::as_ref)
    }

    /// Every resource that was given settings.
    pub fn iter(&self) -> impl Iterator<Item = (&ConfigResource, &BTreeMap<String, String>)> {
        self.0.iter().map(|(resource, settings)| (resource, settings.as_ref()))
    }

    /// All settings of one broker: its own dynamic ones over those of all brokers over its static ones.
    pub fn of_broker(&self, id: BrokerId, static_settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut settings = static_settings.clone();
        for resource in [ConfigResource::BrokerDefaults, ConfigResource::Broker(id)] {
            if let Some(above) = self.get(&resource) {
                overlay(&mut settings, above);
            }
        }
        settings
    }
}

/// Puts `above` over `settings`. A name takes its synonyms with it: `log.retention.hours` given while running beats
/// `log.retention.ms` from the file, although within one source milliseconds win.
pub fn overlay(settings: &mut BTreeMap<String, String>, above: &BTreeMap<String, String>) {
    for name in above.keys() {
        for definition in topic_table().iter() {
            if definition.synonyms.iter().any(|synonym| synonym.name == name) {
                definition.synonyms.iter().for_each(|synonym| drop(settings.remove(synonym.name)));
            }
        }
    }
    settings.extend(above.iter().map(|(name, value)| (name.clone(), value.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_setting_beats_the_synonyms_of_the_file() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let mut configs = ConfigImage::default();
        configs.0.insert(ConfigResource::BrokerDefaults, Arc::new(map(&[("log.retention.hours", "2"), ("x", "1")])));
        configs.0.insert(ConfigResource::Broker(BrokerId(1)), Arc::new(map(&[("x", "2")])));
        let file = map(&[("log.retention.ms", "5"), ("y", "3")]);
        assert_eq!(configs.of_broker(BrokerId(1), &file), map(&[("log.retention.hours", "2"), ("x", "2"), ("y", "3")]));
    }
}
