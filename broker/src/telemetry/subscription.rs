//! Which clients are asked for which metrics, with the rules and texts of Kafka's `ClientMetricsConfigs`.

use std::{collections::BTreeMap, time::Duration};

use regex::Regex;

/// How often clients push unless a subscription says otherwise.
pub(super) const USUAL_INTERVAL: Duration = Duration::from_secs(300);

/// What is known of a client; subscriptions choose by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// `client.id`.
    pub client_id: String,
    /// Name of its library (KIP-511); `unknown` if it did not say.
    pub software_name: String,
    /// The library's version.
    pub software_version: String,
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
}

/// `match` of a subscription cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Illegal client matching pattern: {0}")]
pub struct PatternError(String);

/// What to match a pattern against.
const PARAMETERS: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// One subscription.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub(super) metrics: Vec<String>,
    pub(super) interval: Duration,
    patterns: BTreeMap<&'static str, Regex>,
}

impl Subscription {
    /// The subscription that these settings describe: `metrics`, `interval.ms`, `match`.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn parse(settings: &BTreeMap<String, String>) -> Result<Subscription, PatternError> {
        let list = |name: &str| {
            let text = settings.get(name).map(String::as_str).unwrap_or_default();
            text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let interval = settings.get("interval.ms").and_then(|text| text.trim().parse().ok());
        Ok(Subscription {
            metrics: list("metrics"),
            interval: interval.map_or(USUAL_INTERVAL, Duration::from_millis),
            patterns: list("match").iter().map(|text| parse_pattern(text)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the client is meant.
    pub(super) fn matches(&self, id: &str, client: &ClientInfo) -> bool {
        let port = client.port.to_string();
        self.patterns.iter().all(|(parameter, pattern)| {
            let value = match *parameter {
                "client_instance_id" => id,
                "client_id" => &client.client_id,
                "client_software_name" => &client.software_name,
                "client_software_version" => &client.software_version,
                "client_source_address" => &client.address,
                _ => &port,
            };
            pattern.is_match(value)
        })
    }
}

fn parse_pattern(text: &str) -> Result<(&'static str, Regex), PatternError> {
    let illegal = || PatternError(text.to_owned());
    let (name, pattern) = text.split_once('=').filter(|(_, pattern)| !pattern.contains('=')).ok_or_else(illegal)?;
    let name = PARAMETERS.into_iter().find(|known| *known == name.trim()).ok_or_else(illegal)?;
    // The whole value, as in Kafka.
    let whole = Regex::new(&format!("^(?:{})$", pattern.trim())).map_err(|_| illegal())?;
    if pattern.trim().is_empty() { Err(illegal()) } else { Ok((name, whole)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Subscription, PatternError> {
        Subscription::parse(&BTreeMap::from([("match".to_owned(), text.to_owned())]))
    }

    #[test]
    fn a_client_is_meant_if_every_pattern_fits_all_of_its_value() {
        let client =
            ClientInfo { client_id: "app-1".into(), software_name: "librdkafka".into(), ..ClientInfo::default() };
        for (text, is_meant) in [
            ("", true),
            ("client_id=app-.*", true),
            ("client_id=app", false),
            ("client_id=app-.*,client_software_name=apache-kafka-java", false),
            ("client_id=app-.* , client_software_name=lib.*", true),
        ] {
            assert_eq!(of(text).unwrap().matches("x", &client), is_meant, "{text}");
        }
        for text in ["client_id", "client_id=", "user=alice", "client_id=(", "client_id=a=b"] {
            let refused = of(text).unwrap_err();
            assert_eq!(refused.to_string(), format!("Illegal client matching pattern: {text}"));
        }
    }
}
