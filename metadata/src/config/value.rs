//! Text to value, by the kind that a definition names.

use super::definition::Kind;

/// A parsed value of a setting.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number: Kafka's SHORT, INT and LONG.
    Int(i64),
    /// A floating point number.
    Double(f64),
    /// Text, a class name, a password, or one word of a closed set.
    Text(String),
    /// Comma-separated words, trimmed.
    List(Vec<String>),
}

impl Kind {
    /// Reads `text` as Kafka's `ConfigDef.parseType` does: surrounding blanks do not count.
    ///
    /// # Errors
    /// The phrase that says what is allowed, to be shown to whoever wrote the value.
    pub fn parse(&self, text: &str) -> Result<ConfigValue, String> {
        let trimmed = text.trim();
        let refused = || Err(self.allowed());
        match self {
            Kind::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "true" => Ok(ConfigValue::Bool(true)),
                "false" => Ok(ConfigValue::Bool(false)),
                _ => refused(),
            },
            Kind::Int { min, max } => within(trimmed, i64::from(*min), i64::from(*max)).map_or_else(refused, Ok),
            Kind::Long { min, max } => within(trimmed, *min, *max).map_or_else(refused, Ok),
            Kind::Levels { usual, min, max } => match trimmed.parse::<i32>() {
                Ok(level) if level == *usual || (*min..=*max).contains(&level) => Ok(ConfigValue::Int(level.into())),
                _ => refused(),
            },
            Kind::Double { min, max } => match trimmed.parse::<f64>() {
                Ok(number) if number >= *min && number <= *max => Ok(ConfigValue::Double(number)),
                _ => refused(),
            },
            Kind::Text | Kind::Password | Kind::Class => Ok(ConfigValue::Text(trimmed.to_owned())),
            Kind::Enum(words) => {
                if words.contains(&trimmed) {
                    Ok(ConfigValue::Text(trimmed.to_owned()))
                } else {
                    refused()
                }
            }
            Kind::List(words) => {
                let list: Vec<String> = split_list(trimmed).map(str::to_owned).collect();
                let known = |(at, word): (usize, &String)| {
                    words.is_empty() || words.contains(&word.as_str()) && !list[..at].contains(word)
                };
                if list.iter().enumerate().all(known) { Ok(ConfigValue::List(list)) } else { refused() }
            }
            Kind::Replicas => {
                let list: Vec<String> = split_list(trimmed).map(str::to_owned).collect();
                if list.iter().all(|pair| is_replica(pair)) || list == ["*"] {
                    Ok(ConfigValue::List(list))
                } else {
                    refused()
                }
            }
        }
    }
}

fn within(text: &str, min: i64, max: i64) -> Option<ConfigValue> {
    text.parse::<i64>().ok().filter(|number| (min..=max).contains(number)).map(ConfigValue::Int)
}

fn is_replica(pair: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    pair.split_once(':').is_some_and(|(partition, broker)| is_number(partition) && is_number(broker))
}

/// The words of a comma-separated list, without blanks around them; empty text is an empty list.
fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_kafka_reads_them() {
        let int = Kind::Int { min: 1, max: i32::MAX };
        let cases: [(&Kind, &str, Option<ConfigValue>); 21] = [
            (&Kind::Bool, " TRUE ", Some(ConfigValue::Bool(true))),
            (&Kind::Bool, "yes", None),
            (&int, " 7 ", Some(ConfigValue::Int(7))),
            (&int, "0", None),
            (&int, "2147483648", None),
            (&int, "", None),
            (&Kind::Long { min: -1, max: i64::MAX }, "-1", Some(ConfigValue::Int(-1))),
            (&Kind::Long { min: -1, max: i64::MAX }, "-2", None),
            (&Kind::Double { min: 0.0, max: 1.0 }, "0.25", Some(ConfigValue::Double(0.25))),
            (&Kind::Double { min: 0.0, max: 1.0 }, "NaN", None),
            (&Kind::Enum(&["a", "b"]), "b", Some(ConfigValue::Text("b".into()))),
            (&Kind::Enum(&["a", "b"]), "B", None),
            (&Kind::List(&[]), " x , y,", Some(ConfigValue::List(vec!["x".into(), "y".into()]))),
            (&Kind::List(&["delete", "compact"]), "delete,shrink", None),
            (&Kind::List(&["delete", "compact"]), "delete,delete", None),
            (&Kind::Replicas, "0:1, 1:2", Some(ConfigValue::List(vec!["0:1".into(), "1:2".into()]))),
            (&Kind::Replicas, "*", Some(ConfigValue::List(vec!["*".into()]))),
            (&Kind::Replicas, "0:", None),
            (&Kind::Replicas, "all", None),
            (&Kind::Levels { usual: -1, min: 1, max: 9 }, "-1", Some(ConfigValue::Int(-1))),
            (&Kind::Levels { usual: -1, min: 1, max: 9 }, "0", None),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(kind.parse(text).ok(), expected, "{kind:?} {text:?}");
        }
    }
}
