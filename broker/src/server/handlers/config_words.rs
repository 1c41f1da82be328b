//! What is wrong with a setting's value, in the words of Kafka's `ConfigDef`.

use varve_metadata::config::{Kind, topic_table};

use crate::{
    config::broker_table,
    server::broker_rules::{client_metrics_table, group_table},
};

/// Largest value of Kafka's SHORT, which is an INT here.
const SHORT_MAX: i32 = 32_767;

/// The whole message for a value that `allowed` excludes.
pub(super) fn of_invalid(name: &str, value: &str, allowed: &str) -> String {
    // A rule beyond type and range says what it wants itself.
    let kind = kind_of(name).filter(|kind| kind.allowed() == allowed && *kind != Kind::Password);
    kind.and_then(|kind| of_kind(name, value, kind))
        .unwrap_or_else(|| format!("Invalid value {value} for configuration {name}: Value must be {allowed}"))
}

fn kind_of(name: &str) -> Option<Kind> {
    let tables = [topic_table(), broker_table(), group_table(), client_metrics_table()];
    tables.iter().find_map(|table| table.get(name)).map(|definition| definition.kind)
}

/// `None` for a value that this kind allows.
fn of_kind(name: &str, value: &str, kind: Kind) -> Option<String> {
    let trimmed = value.trim();
    let refused = |shown: &str, why: &str| Some(format!("Invalid value {shown} for configuration {name}: {why}"));
    let not_a = |kind: &str| refused(value, &format!("Not a number of type {kind}"));
    match kind {
        Kind::Bool => refused(value, "Expected value to be either true or false"),
        Kind::Int { min, max } => {
            let kind = if max == SHORT_MAX { "SHORT" } else { "INT" };
            let number: Option<i32> = trimmed.parse().ok().filter(|number| kind == "INT" || *number <= SHORT_MAX);
            match number {
                None => not_a(kind),
                Some(number) => refused(trimmed, &out_of_range(number, min, max)?),
            }
        }
        Kind::Long { min, max } => match trimmed.parse::<i64>() {
            Err(_) => not_a("LONG"),
            Ok(number) => refused(trimmed, &out_of_range(number, min, max)?),
        },
        Kind::Levels { usual, min, max } => match trimmed.parse::<i32>() {
            Err(_) => not_a("INT"),
            Ok(number) if (min..=max).contains(&usual) => refused(trimmed, &out_of_range(number, min, max)?),
            Ok(_) => refused(trimmed, &format!("Value must be between {min} and {max} or equal to {usual}")),
        },
        Kind::Double { min, max } => match trimmed.parse::<f64>() {
            Err(_) => not_a("DOUBLE"),
            Ok(number) => refused(&format!("{number:?}"), &out_of_range(number, min, max)?),
        },
        Kind::Enum(words) => refused(trimmed, &format!("String must be one of: {}", words.join(", "))),
        Kind::List([]) | Kind::Text | Kind::Password | Kind::Class => None,
        Kind::List(words) => {
            let list: Vec<&str> = trimmed.split(',').map(str::trim).collect();
            let is_again = |(at, word): (usize, &&str)| list[..at].contains(word);
            if list.iter().enumerate().any(is_again) {
                return Some(format!("Configuration '{name}' values must not be duplicated."));
            }
            let unknown = list.into_iter().find(|word| !words.contains(word))?;
            refused(unknown, &format!("String must be one of: {}", words.join(", ")))
        }
        Kind::Replicas => {
            let list: Vec<&str> = trimmed.split(',').map(str::trim).collect();
            let form = "[partitionId]:[brokerId],[partitionId]:[brokerId],...";
            let why = format!("{name} must be the literal '*' or a list of replicas in the following format: {form}");
            refused(&format!("[{}]", list.join(", ")), &why)
        }
    }
}

fn out_of_range<N: PartialOrd + std::fmt::Display>(number: N, min: N, max: N) -> Option<String> {
    if number < min {
        Some(format!("Value must be at least {min}"))
    } else if number > max {
        Some(format!("Value must be no more than {max}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_values_are_told_in_kafkas_words() {
        for (name, value, expected) in [
            ("retention.ms", "x", "Invalid value x for configuration retention.ms: Not a number of type LONG"),
            ("retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"),
            (
                "preallocate",
                "",
                "Invalid value  for configuration preallocate: Expected value to be either true or false",
            ),
            (
                "min.cleanable.dirty.ratio",
                "2",
                "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                "compression.gzip.level",
                "77",
                "Invalid value 77 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                "cleanup.policy",
                "delete,shred",
                "Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            ("cleanup.policy", "delete,delete", "Configuration 'cleanup.policy' values must not be duplicated."),
        ] {
            let definition = topic_table().get(name).unwrap();
            let error = definition.parse(value).unwrap_err();
            assert_eq!(super::super::admin_errors::config_text(&error), expected);
        }
    }
}
