//! What is wrong with a setting, said so that its owner can mend it.

use std::fmt;

/// One refused setting. The text names the setting, its value, what is allowed, and the nearest known name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Neither Kafka nor Varve knows the name.
    #[error("unknown setting {name}{}", did_you_mean(.nearest))]
    Unknown {
        /// The name as it was given.
        name: String,
        /// The known name that looks most like it, if one comes near.
        nearest: Option<String>,
    },
    /// The value does not have the type or the range of the setting.
    #[error("invalid value {} for {name}: {allowed}", quoted(.value))]
    Invalid {
        /// The setting.
        name: String,
        /// The value as it was given; a password shows as `[hidden]`.
        value: String,
        /// What is allowed, as a phrase: "an integer of at least 1".
        allowed: String,
    },
    /// Kafka knows the setting, but ignoring it here would break what it promises.
    #[error("{name} is refused: {why}")]
    Refused {
        /// The setting.
        name: String,
        /// Why, and what to set instead.
        why: String,
    },
    /// Two settings contradict each other.
    #[error("{name}={value} contradicts {other}={other_value}: {rule}")]
    Conflict {
        /// The setting to mend.
        name: String,
        /// Its value.
        value: String,
        /// The setting that it contradicts.
        other: String,
        /// The value of that setting.
        other_value: String,
        /// The rule that binds the two.
        rule: String,
    },
    /// A line of a properties file cannot be read.
    #[error("{origin}, line {line}: {problem}")]
    Syntax {
        /// The file, or what else was read.
        origin: String,
        /// Line number, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
}

impl ConfigError {
    /// The same, said of another name: a listener's own setting is checked by the definition of the general one.
    #[must_use]
    pub fn named(self, name: &str) -> ConfigError {
        match self {
            ConfigError::Invalid { value, allowed, .. } => ConfigError::Invalid { name: name.into(), value, allowed },
            other => other,
        }
    }

    /// The setting that the error is about; `None` for a line that could not be read.
    pub fn name(&self) -> Option<&str> {
        match self {
            ConfigError::Unknown { name, .. }
            | ConfigError::Invalid { name, .. }
            | ConfigError::Refused { name, .. }
            | ConfigError::Conflict { name, .. } => Some(name),
            ConfigError::Syntax { .. } => None,
        }
    }
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

fn quoted(value: &str) -> String {
    format!("\"{value}\"")
}

/// Everything that is wrong with a configuration, so that it can be mended in one go. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        ConfigErrors(vec![error])
    }
}
