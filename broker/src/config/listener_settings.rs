//! Settings as one listener sees them (KIP-103): what `listener.name.<listener>.` says of it goes before what holds for all,
//! and what is said of one SASL mechanism (`listener.name.<listener>.<mechanism>.`) holds for that one alone.

use std::{collections::BTreeMap, path::PathBuf};

use varve_metadata::config::{ConfigDef, ConfigError, ConfigValue};

use super::definitions::broker_table;
use crate::security::Secret;

/// What the names of a listener's own settings begin with.
pub(crate) fn listener_prefix(listener: &str) -> String {
    format!("listener.name.{}.", listener.to_ascii_lowercase())
}

/// Reads the settings of one listener, and remembers what is wrong with them.
#[derive(Debug)]
pub(crate) struct ListenerSettings<'a> {
    texts: &'a BTreeMap<String, String>,
    prefix: String,
    errors: Vec<ConfigError>,
}

impl<'a> ListenerSettings<'a> {
    /// The view of `listener` on `texts`, the settings of the node.
    pub(crate) fn of(texts: &'a BTreeMap<String, String>, listener: &str) -> ListenerSettings<'a> {
        ListenerSettings { texts, prefix: listener_prefix(listener), errors: Vec::new() }
    }

    /// Everything that was wrong.
    pub(crate) fn into_errors(self) -> Vec<ConfigError> {
        self.errors
    }

    /// The name under which `setting` is given, and its value; the listener's own name if it is not given at all.
    fn given(&self, setting: &str) -> (String, Option<&'a str>) {
        let own = format!("{}{setting}", self.prefix);
        match (self.texts.get(&own), self.texts.get(setting)) {
            (None, Some(general)) => (setting.to_owned(), Some(general)),
            (value, _) => (own, value.map(String::as_str)),
        }
    }

    /// As [`given`](Self::given), for one mechanism of SASL: only its own name counts.
    fn given_to(&self, mechanism: &str, setting: &str) -> (String, Option<&'a str>) {
        let name = format!("{}{}.{setting}", self.prefix, mechanism.to_ascii_lowercase());
        let value = self.texts.get(&name).map(String::as_str);
        (name, value)
    }

    /// Notes that what is given for `setting` is not allowed.
    pub(crate) fn invalid(&mut self, setting: &str, allowed: impl Into<String>) {
        let (name, value) = self.given(setting);
        self.note(setting, name, value.unwrap_or_default(), allowed.into());
    }

    /// As [`invalid`](Self::invalid), for one mechanism.
    pub(crate) fn invalid_for(&mut self, mechanism: &str, setting: &str, allowed: impl Into<String>) {
        let (name, value) = self.given_to(mechanism, setting);
        self.note(setting, name, value.unwrap_or_default(), allowed.into());
    }

    fn note(&mut self, setting: &str, name: String, value: &str, allowed: String) {
        self.errors.push(definition(setting).invalid(value, allowed).named(&name));
    }

    fn read(&mut self, setting: &str, (name, value): (String, Option<&str>)) -> Option<ConfigValue> {
        let definition = definition(setting);
        let text = value.or(definition.default)?;
        match definition.kind.parse(text) {
            Ok(value) => Some(value),
            Err(allowed) => {
                self.note(setting, name, text, allowed);
                definition.kind.parse(definition.default?).ok()
            }
        }
    }

    /// Text; `None` if unset or empty.
    pub(crate) fn text(&mut self, setting: &str) -> Option<String> {
        let given = self.given(setting);
        as_text(self.read(setting, given))
    }

    /// Text given to this listener, and not to all of them.
    pub(crate) fn own_text(&mut self, setting: &str) -> Option<String> {
        let name = format!("{}{setting}", self.prefix);
        let value = self.texts.get(&name)?;
        as_text(self.read(setting, (name, Some(value))))
    }

    /// Text given to one mechanism, or else to the listener or all of them.
    pub(crate) fn text_of(&mut self, mechanism: &str, setting: &str) -> Option<String> {
        let own = self.given_to(mechanism, setting);
        match own.1 {
            Some(_) => as_text(self.read(setting, own)),
            None => self.text(setting),
        }
    }

    /// Text given to one mechanism and nobody else.
    pub(crate) fn own_text_of(&mut self, mechanism: &str, setting: &str) -> Option<String> {
        let own = self.given_to(mechanism, setting);
        own.1?;
        as_text(self.read(setting, own))
    }

    /// A password; `None` if unset. An empty one is one, as in Java.
    pub(crate) fn secret(&mut self, setting: &str) -> Option<Secret> {
        let given = self.given(setting);
        given.1.map(Secret::new)
    }

    /// A file.
    pub(crate) fn path(&mut self, setting: &str) -> Option<PathBuf> {
        self.text(setting).map(PathBuf::from)
    }

    /// Words.
    pub(crate) fn list(&mut self, setting: &str) -> Vec<String> {
        let given = self.given(setting);
        match self.read(setting, given) {
            Some(ConfigValue::List(words)) => words.into_iter().filter(|word| !word.is_empty()).collect(),
            _ => Vec::new(),
        }
    }

    /// A flag; false if unset.
    pub(crate) fn flag(&mut self, setting: &str) -> bool {
        let given = self.given(setting);
        self.read(setting, given) == Some(ConfigValue::Bool(true))
    }

    /// A number with a default.
    pub(crate) fn int(&mut self, setting: &str) -> i64 {
        let given = self.given(setting);
        as_int(self.read(setting, given))
    }

    /// A number given to one mechanism, or else to the listener or all of them.
    pub(crate) fn int_of(&mut self, mechanism: &str, setting: &str) -> i64 {
        let own = self.given_to(mechanism, setting);
        match own.1 {
            Some(_) => as_int(self.read(setting, own)),
            None => self.int(setting),
        }
    }

    /// A number with a fraction, given to one mechanism, or else to the listener or all of them.
    pub(crate) fn double_of(&mut self, mechanism: &str, setting: &str) -> f64 {
        let own = self.given_to(mechanism, setting);
        let given = if own.1.is_some() { own } else { self.given(setting) };
        match self.read(setting, given) {
            Some(ConfigValue::Double(number)) => number,
            _ => 0.0,
        }
    }
}

fn as_text(value: Option<ConfigValue>) -> Option<String> {
    match value {
        Some(ConfigValue::Text(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn as_int(value: Option<ConfigValue>) -> i64 {
    match value {
        Some(ConfigValue::Int(number)) => number,
        _ => 0,
    }
}

fn definition(setting: &str) -> &'static ConfigDef {
    broker_table().get(setting).unwrap_or_else(|| unreachable!("{setting} is read, so it is defined"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listeners_own_setting_goes_before_the_general_one_and_a_mechanisms_before_both() {
        let texts: BTreeMap<String, String> = [
            ("ssl.client.auth", "requested"),
            ("listener.name.external.ssl.client.auth", "required"),
            ("connections.max.reauth.ms", "1"),
            ("listener.name.external.plain.connections.max.reauth.ms", "3"),
            ("listener.name.external.scram-sha-256.sasl.jaas.config", "x required;"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let mut external = ListenerSettings::of(&texts, "EXTERNAL");
        assert_eq!(external.text("ssl.client.auth").as_deref(), Some("required"));
        assert_eq!(external.int_of("PLAIN", "connections.max.reauth.ms"), 3);
        assert_eq!(external.int_of("SCRAM-SHA-256", "connections.max.reauth.ms"), 1);
        assert!(external.own_text_of("SCRAM-SHA-256", "sasl.jaas.config").is_some());
        assert!(external.own_text_of("PLAIN", "sasl.jaas.config").is_none());
        let mut internal = ListenerSettings::of(&texts, "INTERNAL");
        assert_eq!(internal.text("ssl.client.auth").as_deref(), Some("requested"));
        assert!(internal.into_errors().is_empty());
    }

    #[test]
    fn an_error_names_the_setting_as_it_was_given_and_hides_secrets() {
        let texts = BTreeMap::from([
            ("listener.name.a.ssl.client.auth".to_owned(), "maybe".to_owned()),
            ("ssl.keystore.key".to_owned(), "hunter2".to_owned()),
        ]);
        let mut settings = ListenerSettings::of(&texts, "A");
        assert_eq!(settings.text("ssl.client.auth").as_deref(), Some("none"));
        settings.invalid("ssl.keystore.key", "PEM");
        let errors: Vec<String> = settings.into_errors().iter().map(ToString::to_string).collect();
        assert!(errors[0].contains("listener.name.a.ssl.client.auth"), "{errors:?}");
        assert!(errors[1].contains("ssl.keystore.key") && !errors[1].contains("hunter2"), "{errors:?}");
    }
}
