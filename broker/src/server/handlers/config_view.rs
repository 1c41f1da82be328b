//! Settings as DescribeConfigs shows them: value, where it comes from, and the names that stand behind it.
//!
//! Kafka lists the values that a setting has by source, strongest first: this broker's dynamic settings, those of all
//! brokers, the properties file, the built-in default; within a source by synonym (`log.retention.ms`, `.minutes`,
//! `.hours`). The value in force need not be the first of them (the list is by names, the value by meaning), and where the
//! first does not carry the setting's own name, Kafka shows none: so do we, tools print it.

use std::{collections::BTreeMap, sync::Arc};

use kafka_protocol::protocol::StrBytes;
use varve_metadata::{
    config::{ConfigDef, ConfigValue, Kind, topic_table},
    image::{ClusterImage, ConfigResource, TopicImage},
    model::BrokerId,
};

use super::cluster_view::text;
use crate::{
    config::{BrokerConfig, broker_table, is_described_once_given, is_outside_kafkas_table, typed_as},
    server::{Broker, broker_rules::changes_live},
};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Topic,
    DynamicBroker,
    DynamicDefault,
    Static,
    Default,
    BrokerLogger,
    ClientMetrics,
    Group,
}

impl Source {
    /// Kafka's number (KIP-226 and its successors).
    pub(super) fn id(self) -> i8 {
        match self {
            Source::Topic => 1,
            Source::DynamicBroker => 2,
            Source::DynamicDefault => 3,
            Source::Static => 4,
            Source::Default => 5,
            Source::BrokerLogger => 6,
            Source::ClientMetrics => 7,
            Source::Group => 8,
        }
    }
}

/// One name's value in one source.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layer {
    pub(super) name: StrBytes,
    pub(super) value: Option<StrBytes>,
    pub(super) source: Source,
}

/// One setting, shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) name: StrBytes,
    /// `None` if it has none, or if it is a secret.
    pub(super) value: Option<StrBytes>,
    pub(super) source: Source,
    pub(super) sensitive: bool,
    pub(super) read_only: bool,
    /// Kafka's number of the type (KIP-569).
    pub(super) config_type: i8,
    pub(super) layers: Vec<Layer>,
    pub(super) doc: Option<&'static str>,
}

/// Looks a name up in one source.
type Find<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All settings of this node at one moment.
pub(super) struct ConfigView<'a> {
    config: &'a BrokerConfig,
    image: Arc<ClusterImage>,
    node: BrokerId,
}

impl<'a> ConfigView<'a> {
    pub(super) fn of(broker: &'a Broker) -> ConfigView<'a> {
        ConfigView { config: &broker.config, image: broker.metadata.image(), node: broker.node }
    }

    pub(super) fn image(&self) -> &ClusterImage {
        &self.image
    }

    /// Every setting of a topic, by name.
    pub(super) fn topic(&self, topic: &TopicImage) -> Vec<Shown> {
        topic_table()
            .iter()
            .filter(|definition| !definition.internal)
            .map(|definition| {
                let mut layers = match definition.synonyms.first() {
                    Some(first) => {
                        let synonyms: Vec<&str> = definition.synonyms.iter().map(|synonym| synonym.name).collect();
                        self.broker_layers(first.name, &synonyms, is_sensitive(definition))
                    }
                    None => Vec::new(),
                };
                let given = topic.overrides.get(definition.name).map(String::as_str);
                let value = given.or_else(|| self.image.topic_defaults().value(definition.name));
                let value = shown_value(definition, value);
                if given.is_some() {
                    layers
                        .insert(0, Layer { name: text(definition.name), value: value.clone(), source: Source::Topic });
                }
                shown(definition, value, layers, false)
            })
            .collect()
    }

    /// Every setting of this broker, by name.
    pub(super) fn broker(&self) -> Vec<Shown> {
        let settings = self.image.configs().of_broker(self.node, &self.config.settings.texts());
        let is_kafkas = |definition: &ConfigDef| !is_outside_kafkas_table(definition.name);
        let listed = broker_table().iter().filter(|definition| {
            let is_shown = !is_described_once_given(definition.name) || settings.contains_key(definition.name);
            !definition.internal && is_kafkas(definition) && is_shown
        });
        let known = listed.map(|definition| {
            let value = settings.get(definition.name).map(String::as_str).or(definition.default);
            let layers =
                self.broker_layers(definition.name, &broker_synonyms(definition.name), is_sensitive(definition));
            shown(definition, shown_value(definition, value), layers, !changes_live(definition))
        });
        let others = settings.iter().filter(|(name, _)| broker_table().get(name).is_none_or(|known| !is_kafkas(known)));
        known.chain(others.map(|(name, value)| self.given(name, value))).collect()
    }

    /// A setting that stands in no table of Kafka's and is shown because it is given. Kafka calls it read-only, also where it
    /// changes while the node runs, and hides what has no type for it: it may be a secret.
    fn given(&self, name: &str, value: &str) -> Shown {
        let definition = typed_as(name);
        let sensitive = definition.is_none_or(is_sensitive);
        let synonyms: Vec<&str> = [Some(name), definition.map(|behind| behind.name)].into_iter().flatten().collect();
        let layers = self.broker_layers(name, &synonyms, sensitive);
        Shown {
            name: text(name),
            value: (!sensitive).then(|| text(value)),
            source: layers.first().map_or(Source::Default, |layer| layer.source),
            sensitive,
            read_only: true,
            config_type: definition.map_or(0, |definition| config_type(definition.kind)),
            layers,
            doc: None,
        }
    }

    /// The dynamic settings of all brokers, by name.
    pub(super) fn broker_defaults(&self) -> Vec<Shown> {
        let none = BTreeMap::new();
        let given = self.image.configs().get(&ConfigResource::BrokerDefaults).unwrap_or(&none);
        let shown = given.iter().map(|(name, value)| {
            let Some(definition) = broker_table().get(name) else {
                let mut shown = self.given(name, value);
                shown.layers.retain(|layer| layer.source == Source::DynamicDefault);
                return Shown { source: Source::DynamicDefault, ..shown };
            };
            let mut layers = self.broker_layers(name, &broker_synonyms(name), is_sensitive(definition));
            layers.retain(|layer| layer.source == Source::DynamicDefault);
            let read_only = !changes_live(definition);
            shown(definition, shown_value(definition, Some(value)), layers, read_only)
        });
        shown.collect()
    }

    /// Settings of a kind of their own, over the definitions of `table`; a definition's first synonym is the broker's setting
    /// that gives its default. Where there is none, Kafka shows a group's built-in default under its own name, and nothing
    /// for client metrics.
    pub(super) fn resource(
        &self,
        resource: &ConfigResource,
        table: impl Iterator<Item = &'static ConfigDef>,
        source: Source,
    ) -> Vec<Shown> {
        let given = self.image.configs().get(resource);
        table
            .map(|definition| {
                let mut layers = match definition.synonyms.first() {
                    Some(first) => self.broker_layers(first.name, &[first.name], is_sensitive(definition)),
                    None if source == Source::Group => {
                        let default = shown_value(definition, definition.default);
                        vec![Layer { name: text(definition.name), value: default, source: Source::Default }]
                    }
                    None => Vec::new(),
                };
                let own = given.and_then(|given| given.get(definition.name)).map(String::as_str);
                let behind = layers.first().and_then(|layer| layer.value.as_ref()).map(|value| value.to_string());
                let value = shown_value(definition, own.or(behind.as_deref()).or(definition.default));
                if own.is_some() {
                    layers.insert(0, Layer { name: text(definition.name), value: value.clone(), source });
                }
                shown(definition, value, layers, false)
            })
            .collect()
    }

    /// What stands behind the broker's setting `name`, strongest first; nothing if that does not begin with `name` itself.
    fn broker_layers(&self, name: &str, synonyms: &[&str], sensitive: bool) -> Vec<Layer> {
        let configs = self.image.configs();
        let own = configs.get(&ConfigResource::Broker(self.node));
        let all = configs.get(&ConfigResource::BrokerDefaults);
        let dynamic = |given: Option<&'_ BTreeMap<String, String>>, name: &str| given?.get(name).cloned();
        let sources: [(Source, Find<'_>); 4] = [
            (Source::DynamicBroker, &|name| dynamic(own, name)),
            (Source::DynamicDefault, &|name| dynamic(all, name)),
            (Source::Static, &|name| self.config.settings.given(name).map(|setting| setting.value.clone())),
            (Source::Default, &|name| {
                let definition = broker_table().get(name).filter(|known| !is_described_once_given(known.name))?;
                definition.default.map(str::to_owned)
            }),
        ];
        let layers = sources.iter().flat_map(|(source, find)| {
            synonyms.iter().filter_map(|synonym| {
                let value = find(synonym)?;
                let value = (!sensitive).then(|| StrBytes::from_string(value));
                Some(Layer { name: text(synonym), value, source: *source })
            })
        });
        layers.skip_while(|layer| layer.name.as_str() != name).collect()
    }
}

fn shown(definition: &ConfigDef, value: Option<StrBytes>, layers: Vec<Layer>, read_only: bool) -> Shown {
    Shown {
        name: text(definition.name),
        value,
        source: layers.first().map_or(Source::Default, |layer| layer.source),
        sensitive: is_sensitive(definition),
        read_only,
        config_type: config_type(definition.kind),
        layers,
        doc: Some(definition.doc),
    }
}

fn shown_value(definition: &ConfigDef, value: Option<&str>) -> Option<StrBytes> {
    if is_sensitive(definition) { None } else { value.map(|value| printed(definition, value)) }
}

/// A value as Kafka prints what it read. One that is none here, because a default is empty, stays as it is.
fn printed(definition: &ConfigDef, value: &str) -> StrBytes {
    let value = match definition.parse(value) {
        Ok(ConfigValue::Bool(is_true)) => is_true.to_string(),
        Ok(ConfigValue::Int(number)) => number.to_string(),
        Ok(ConfigValue::Text(text)) => text,
        Ok(ConfigValue::List(words)) => words.join(","),
        // Outside of these bounds Java writes exponents.
        Ok(ConfigValue::Double(number)) if number == 0.0 || (1e-3..1e7).contains(&number.abs()) => {
            format!("{number:?}")
        }
        Ok(ConfigValue::Double(_)) | Err(_) => value.to_owned(),
    };
    StrBytes::from_string(value)
}

fn is_sensitive(definition: &ConfigDef) -> bool {
    definition.kind == Kind::Password
}

/// The names that Kafka takes for one setting: those that a topic setting stands on together.
fn broker_synonyms(name: &str) -> Vec<&str> {
    let group = topic_table().iter().find(|definition| {
        definition.synonyms.len() > 1 && definition.synonyms.iter().any(|synonym| synonym.name == name)
    });
    group.map_or_else(|| vec![name], |definition| definition.synonyms.iter().map(|synonym| synonym.name).collect())
}

fn config_type(kind: Kind) -> i8 {
    match kind {
        Kind::Bool => 1,
        Kind::Text | Kind::Enum(_) => 2,
        // Kafka's SHORT is an INT that ends sooner.
        Kind::Int { max: 32_767, .. } => 4,
        Kind::Int { .. } | Kind::Levels { .. } => 3,
        Kind::Long { .. } => 5,
        Kind::Double { .. } => 6,
        Kind::List(_) | Kind::Replicas => 7,
        Kind::Class => 8,
        Kind::Password => 9,
    }
}
