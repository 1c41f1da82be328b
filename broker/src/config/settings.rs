//! Settings as text with where they came from, and typed access that remembers what was wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use varve_metadata::config::{ConfigDef, ConfigError, ConfigValue, Kind};

use super::definitions::broker_table;

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a properties file.
    File {
        /// The file, as it was named.
        path: String,
        /// Line number, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// The variable.
        variable: String,
    },
    /// `--override` on the command line.
    CommandLine,
    /// Given while running.
    Dynamic,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{path}, line {line}"),
            Origin::Environment { variable } => write!(f, "environment variable {variable}"),
            Origin::CommandLine => f.write_str("--override"),
            Origin::Dynamic => f.write_str("given while running"),
        }
    }
}

/// A setting that was given. Its value may be a secret, so it is not printed with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its value, as text.
    pub value: String,
    /// Where it was given.
    pub origin: Origin,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}]", self.origin)
    }
}

/// The settings that were given, by name; of several layers the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, Setting>);

impl Settings {
    /// Sets `name`, replacing what an earlier layer said.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>, origin: Origin) -> Option<Setting> {
        self.0.insert(name.into(), Setting { value: value.into(), origin })
    }

    /// `node.id` and `broker.id` both given where one of them was: they are two names of one number, and tools ask for
    /// either.
    pub(super) fn with_both_ids(mut self) -> Settings {
        match (self.0.get("node.id").cloned(), self.0.get("broker.id").cloned()) {
            (Some(node), None) => self.0.insert("broker.id".into(), node),
            (None, Some(broker)) if broker.value != "-1" => self.0.insert("node.id".into(), broker),
            _ => None,
        };
        self
    }

    /// What was given for `name`.
    pub fn given(&self, name: &str) -> Option<&Setting> {
        self.0.get(name)
    }

    /// The value in force: what was given, or else the default. `None` for an unset name without one.
    pub fn value(&self, name: &str) -> Option<&str> {
        let given = self.given(name).map(|setting| setting.value.as_str());
        given.or_else(|| broker_table().get(name)?.default)
    }

    /// Everything that was given, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    /// Names and values alone.
    pub fn texts(&self) -> BTreeMap<String, String> {
        self.iter().map(|(name, setting)| (name.to_owned(), setting.value.clone())).collect()
    }
}

/// Typed access to settings. An invalid value is noted, and its default stands in, so that all errors come out at once.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    settings: &'a Settings,
    errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings) -> Reader<'a> {
        Reader { settings, errors: Vec::new() }
    }

    pub(super) fn settings(&self) -> &'a Settings {
        self.settings
    }

    pub(super) fn refuse(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    /// Notes that the value of `name` is not allowed.
    pub(super) fn invalid(&mut self, name: &str, allowed: impl Into<String>) {
        let value = self.settings.value(name).unwrap_or_default();
        self.errors.push(definition(name).invalid(value, allowed));
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }

    /// The value of `name`, or `None` if it is unset or (noted elsewhere) invalid and has no default.
    fn read(&mut self, name: &str) -> Option<ConfigValue> {
        let definition = definition(name);
        let parsed = self.settings.value(name).map(|text| definition.kind.parse(text));
        match parsed {
            Some(Ok(value)) => Some(value),
            // Invalid: reported when all given settings are checked. The default lets the rest be checked too.
            Some(Err(_)) | None => definition.kind.parse(definition.default?).ok(),
        }
    }

    pub(super) fn int(&mut self, name: &str) -> i64 {
        match self.read(name) {
            Some(ConfigValue::Int(number)) => number,
            other => unreachable!("{name} is an integer with a default, not {other:?}"),
        }
    }

    pub(super) fn maybe_int(&mut self, name: &str) -> Option<i64> {
        match self.read(name) {
            Some(ConfigValue::Int(number)) => Some(number),
            _ => None,
        }
    }

    /// A number that its definition keeps within `u32`.
    pub(super) fn count(&mut self, name: &str) -> u32 {
        u32::try_from(self.int(name)).unwrap_or_else(|_| unreachable!("{name} is defined from 0 within 32 bits"))
    }

    /// Bytes, or another 64-bit number that its definition keeps from being negative.
    pub(super) fn size(&mut self, name: &str) -> u64 {
        u64::try_from(self.int(name)).unwrap_or_else(|_| unreachable!("{name} is defined from 0"))
    }

    /// A number where Kafka says "no limit" with a negative one or with the largest of its type.
    pub(super) fn limit(&mut self, name: &str) -> Option<u64> {
        let largest = match definition(name).kind {
            Kind::Int { max, .. } => i64::from(max),
            _ => i64::MAX,
        };
        u64::try_from(self.int(name)).ok().filter(|number| *number != largest as u64)
    }

    pub(super) fn millis(&mut self, name: &str) -> Duration {
        Duration::from_millis(self.size(name))
    }

    pub(super) fn maybe_flag(&mut self, name: &str) -> Option<bool> {
        match self.read(name) {
            Some(ConfigValue::Bool(flag)) => Some(flag),
            _ => None,
        }
    }

    pub(super) fn maybe_size(&mut self, name: &str) -> Option<u64> {
        match self.read(name) {
            Some(ConfigValue::Int(size)) => u64::try_from(size).ok(),
            _ => None,
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.read(name) == Some(ConfigValue::Bool(true))
    }

    pub(super) fn number(&mut self, name: &str) -> f64 {
        match self.read(name) {
            Some(ConfigValue::Double(number)) => number,
            other => unreachable!("{name} is a number with a default, not {other:?}"),
        }
    }

    /// Text; `None` if unset or empty.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.read(name) {
            Some(ConfigValue::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        match self.read(name) {
            Some(ConfigValue::List(words)) => words,
            _ => Vec::new(),
        }
    }
}

fn definition(name: &str) -> &'static ConfigDef {
    broker_table().get(name).unwrap_or_else(|| unreachable!("{name} is read, so it is defined"))
}
