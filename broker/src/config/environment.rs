//! Settings from environment variables: `VARVE_` and the name in upper case, dots as underscores. The prefix of
//! Varve's own settings may be left out: `varve.object.store.url` is `VARVE_OBJECT_STORE_URL`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use varve_metadata::config::{ConfigError, ConfigTable};

use super::definitions::broker_table;

/// What all variables begin with.
pub(super) const PREFIX: &str = "VARVE_";

/// Read by the command line, not settings.
const RESERVED: &[&str] = &["VARVE_CONFIG"];

/// The variables for a setting, the shortest first.
pub(super) fn variables(name: &str) -> Vec<String> {
    let long = format!("{PREFIX}{}", name.to_ascii_uppercase().replace('.', "_"));
    let short =
        name.strip_prefix("varve.").map(|own| format!("{PREFIX}{}", own.to_ascii_uppercase().replace('.', "_")));
    short.into_iter().chain([long]).collect()
}

fn names_by_variable(table: &'static ConfigTable) -> BTreeMap<String, &'static str> {
    table
        .iter()
        .flat_map(|setting| variables(setting.name).into_iter().map(|variable| (variable, setting.name)))
        .collect()
}

/// The settings among these environment variables. Variables that do not begin with `VARVE_` are none of ours.
///
/// # Errors
/// [`ConfigError::Unknown`] for each `VARVE_` variable that names no setting.
pub(super) fn settings(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<(&'static str, String, String)>, Vec<ConfigError>> {
    static NAMES: LazyLock<BTreeMap<String, &'static str>> = LazyLock::new(|| names_by_variable(broker_table()));
    let mut found = Vec::new();
    let mut errors = Vec::new();
    for (variable, value) in environment {
        if !variable.starts_with(PREFIX) || RESERVED.contains(&variable.as_str()) || is_service_link(&variable, &value)
        {
            continue;
        }
        match NAMES.get(&variable) {
            Some(name) => found.push((*name, value, variable)),
            None => errors.push(unknown(&variable, NAMES.keys())),
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

fn unknown<'a>(variable: &str, known: impl Iterator<Item = &'a String>) -> ConfigError {
    let nearest = known
        .map(|candidate| (strsim::damerau_levenshtein(variable, candidate), candidate))
        .min()
        .filter(|(edits, candidate)| *edits * 3 <= candidate.len() - PREFIX.len());
    ConfigError::Unknown { name: variable.into(), nearest: nearest.map(|(_, candidate)| candidate.clone()) }
}

/// Kubernetes puts variables into every container for each service of the namespace. A service called `varve` (or
/// `varve-…`) gives `VARVE_PORT=tcp://10.0.0.1:9092`, `VARVE_SERVICE_HOST` and more, which are not meant for us.
fn is_service_link(variable: &str, value: &str) -> bool {
    let service_port = variable.ends_with("_SERVICE_PORT") || variable.contains("_SERVICE_PORT_");
    let protocol_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let port_of_protocol = variable.split("_PORT_").nth(1).is_some_and(|rest| {
        let (number, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        let protocols = ["TCP", "UDP", "SCTP"];
        number.parse::<u16>().is_ok() && protocols.iter().any(|known| protocol.starts_with(known))
    });
    variable.ends_with("_SERVICE_HOST")
        || service_port
        || port_of_protocol
        || (variable.ends_with("_PORT") && protocol_url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Vec<(&'static str, String)>, Vec<String>> {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        settings(environment)
            .map(|found| found.into_iter().map(|(name, value, _)| (name, value)).collect())
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn no_two_settings_share_a_variable() {
        let mut seen = BTreeMap::new();
        for setting in broker_table().iter() {
            for variable in variables(setting.name) {
                assert_eq!(seen.insert(variable, setting.name), None, "{}", setting.name);
            }
        }
    }

    #[test]
    fn variables_name_settings() {
        for (variable, name) in [
            ("VARVE_NODE_ID", "node.id"),
            ("VARVE_LOG_RETENTION_MS", "log.retention.ms"),
            ("VARVE_OBJECT_STORE_URL", "varve.object.store.url"),
            ("VARVE_VARVE_OBJECT_STORE_URL", "varve.object.store.url"),
        ] {
            assert_eq!(read(&[(variable, "1")]), Ok(vec![(name, "1".into())]), "{variable}");
        }
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_nearest() {
        let errors = read(&[("VARVE_LOG_RETENSION_MS", "1"), ("PATH", "/bin"), ("VARVE_CONFIG", "f")]).unwrap_err();
        assert_eq!(errors, ["unknown setting VARVE_LOG_RETENSION_MS; did you mean VARVE_LOG_RETENTION_MS?"]);
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_called_varve_is_not_a_setting() {
        let links = [
            ("VARVE_SERVICE_HOST", "10.0.0.1"),
            ("VARVE_SERVICE_PORT", "9092"),
            ("VARVE_SERVICE_PORT_KAFKA", "9092"),
            ("VARVE_PORT", "tcp://10.0.0.1:9092"),
            ("VARVE_PORT_9092_TCP", "tcp://10.0.0.1:9092"),
            ("VARVE_PORT_9092_TCP_ADDR", "10.0.0.1"),
            ("VARVE_HEADLESS_SERVICE_HOST", "10.0.0.2"),
        ];
        assert_eq!(read(&links), Ok(vec![]));
        assert_eq!(read(&[("VARVE_PORT", "9092")]), Ok(vec![("port", "9092".into())]));
    }
}
