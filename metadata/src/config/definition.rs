//! The definition of one setting, and tables of them.

use std::collections::BTreeMap;

/// Type and range of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// 32-bit whole number (also Kafka's SHORT), bounds inclusive.
    Int {
        /// Smallest value allowed.
        min: i32,
        /// Largest value allowed.
        max: i32,
    },
    /// 64-bit whole number, bounds inclusive.
    Long {
        /// Smallest value allowed.
        min: i64,
        /// Largest value allowed.
        max: i64,
    },
    /// A compression level: `usual` stands for the codec's own default and may lie outside the range.
    Levels {
        /// The value that means "the codec's default".
        usual: i32,
        /// Smallest explicit level.
        min: i32,
        /// Largest explicit level.
        max: i32,
    },
    /// Floating point number, bounds inclusive; not NaN.
    Double {
        /// Smallest value allowed.
        min: f64,
        /// Largest value allowed.
        max: f64,
    },
    /// Any text.
    Text,
    /// Text that is never shown again: not in logs, errors or `DescribeConfigs`.
    Password,
    /// A Java class name. Varve loads no classes; the definition says what it does instead.
    Class,
    /// Exactly one of these words.
    Enum(&'static [&'static str]),
    /// Comma-separated words, each one of these and no more than once; any words if the slice is empty.
    List(&'static [&'static str]),
    /// Comma-separated pairs `partition:broker`, or `*` for all.
    Replicas,
}

impl Kind {
    /// What is allowed, as a phrase: "an integer of at least 1".
    pub fn allowed(&self) -> String {
        match self {
            Kind::Bool => "true or false".into(),
            Kind::Int { min, max } => range("an integer", *min, *max, i32::MIN, i32::MAX),
            Kind::Long { min, max } => range("an integer", *min, *max, i64::MIN, i64::MAX),
            Kind::Levels { usual, min, max } if (*min..=*max).contains(usual) => {
                format!("an integer from {min} to {max}")
            }
            Kind::Levels { usual, min, max } => format!("an integer from {min} to {max}, or {usual}"),
            Kind::Double { min, max } => range("a number", *min, *max, f64::MIN, f64::MAX),
            Kind::Text | Kind::Password => "text".into(),
            Kind::Class => "a class name".into(),
            Kind::Enum(words) => format!("one of {}", words.join(", ")),
            Kind::List([]) => "a comma-separated list".into(),
            Kind::List(words) => format!("a comma-separated list of {}", words.join(", ")),
            Kind::Replicas => "a comma-separated list of partition:broker, or *".into(),
        }
    }

    /// Kafka's name for the type, as `DescribeConfigs` (KIP-569) and its documentation print it.
    pub const fn kafka_type(&self) -> &'static str {
        match self {
            Kind::Bool => "boolean",
            Kind::Int { .. } | Kind::Levels { .. } => "int",
            Kind::Long { .. } => "long",
            Kind::Double { .. } => "double",
            Kind::Text | Kind::Enum(_) => "string",
            Kind::Password => "password",
            Kind::Class => "class",
            Kind::List(_) | Kind::Replicas => "list",
        }
    }
}

fn range<N: PartialEq + std::fmt::Display>(noun: &str, min: N, max: N, least: N, most: N) -> String {
    match (min == least, max == most) {
        (true, true) => noun.to_owned(),
        (false, true) => format!("{noun} of at least {min}"),
        (true, false) => format!("{noun} of at most {max}"),
        (false, false) => format!("{noun} from {min} to {max}"),
    }
}

/// How much a setting matters to most operators, in Kafka's three steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Importance {
    /// Look at it before going to production.
    High,
    /// Tune it when there is a reason.
    Medium,
    /// Leave it alone.
    Low,
}

/// What a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The node: properties file, environment, command line, `DescribeConfigs` of a broker.
    Broker,
    /// One topic: `CreateTopics`, `IncrementalAlterConfigs`.
    Topic,
}

/// What Varve does with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It means here what it means in Kafka.
    Honoured,
    /// It is accepted, and one warning at start says why nothing changes.
    NoEffect {
        /// Why it has no effect.
        why: &'static str,
    },
    /// It stops the start, since ignoring it would break what it promises.
    Refused {
        /// Why, and what to set instead.
        why: &'static str,
    },
}

/// When a change of the setting takes effect (Kafka's dynamic update modes, KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Only at the next start.
    Restart,
    /// At once, by `IncrementalAlterConfigs`.
    Dynamic,
}

/// The unit of a synonym's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// As the setting itself.
    Same,
    /// Minutes, where the setting counts milliseconds.
    Minutes,
    /// Hours, where the setting counts milliseconds.
    Hours,
}

impl Unit {
    /// How many of the setting's units one of these is.
    pub const fn factor(self) -> i64 {
        match self {
            Unit::Same => 1,
            Unit::Minutes => 60_000,
            Unit::Hours => 3_600_000,
        }
    }
}

/// A broker-level name that gives a topic setting its default; the first one that is set wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker-level name.
    pub name: &'static str,
    /// The unit of its value.
    pub unit: Unit,
}

/// All that is to be said about one setting.
#[derive(Clone, Copy, Debug)]
pub struct ConfigDef {
    /// The name, as it stands in a properties file.
    pub name: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// The default, as text; `None` where unset is a state of its own (Kafka's `null`).
    pub default: Option<&'static str>,
    /// What it means, in one to three sentences.
    pub doc: &'static str,
    /// How much it matters.
    pub importance: Importance,
    /// What it belongs to.
    pub scope: Scope,
    /// Broker-level names behind a topic setting, highest priority first.
    pub synonyms: &'static [Synonym],
    /// What Varve does with it.
    pub treatment: Treatment,
    /// When a change takes effect.
    pub update: Update,
    /// Left out of the reference and of `DescribeConfigs`: for tests.
    pub internal: bool,
}

impl ConfigDef {
    /// A broker setting of middling importance, honoured, read at start. The other methods refine it.
    pub const fn broker(name: &'static str, kind: Kind, default: Option<&'static str>, doc: &'static str) -> ConfigDef {
        ConfigDef {
            name,
            kind,
            default,
            doc,
            importance: Importance::Medium,
            scope: Scope::Broker,
            synonyms: &[],
            treatment: Treatment::Honoured,
            update: Update::Restart,
            internal: false,
        }
    }

    /// A topic setting of middling importance, honoured at once.
    pub const fn topic(name: &'static str, kind: Kind, default: Option<&'static str>, doc: &'static str) -> ConfigDef {
        ConfigDef { scope: Scope::Topic, update: Update::Dynamic, ..ConfigDef::broker(name, kind, default, doc) }
    }

    /// With another importance.
    pub const fn importance(self, importance: Importance) -> ConfigDef {
        ConfigDef { importance, ..self }
    }

    /// With broker-level names behind it, highest priority first.
    pub const fn synonyms(self, synonyms: &'static [Synonym]) -> ConfigDef {
        ConfigDef { synonyms, ..self }
    }

    /// Accepted without effect, for the reason given.
    pub const fn no_effect(self, why: &'static str) -> ConfigDef {
        ConfigDef { treatment: Treatment::NoEffect { why }, ..self }
    }

    /// Refused, for the reason given.
    pub const fn refused(self, why: &'static str) -> ConfigDef {
        ConfigDef { treatment: Treatment::Refused { why }, ..self }
    }

    /// Changed while running, by `IncrementalAlterConfigs`.
    pub const fn dynamic(self) -> ConfigDef {
        ConfigDef { update: Update::Dynamic, ..self }
    }

    /// Left out of the reference: for tests.
    pub const fn internal(self) -> ConfigDef {
        ConfigDef { internal: true, ..self }
    }

    /// Reads a value of this setting.
    ///
    /// # Errors
    /// [`super::ConfigError::Invalid`] with what is allowed; the value of a password is not repeated.
    pub fn parse(&self, text: &str) -> Result<super::ConfigValue, super::ConfigError> {
        self.kind.parse(text).map_err(|allowed| self.invalid(text, allowed))
    }

    /// The error that says that `text` is not allowed here.
    pub fn invalid(&self, text: &str, allowed: impl Into<String>) -> super::ConfigError {
        let value = if self.kind == Kind::Password { "[hidden]" } else { text };
        super::ConfigError::Invalid { name: self.name.into(), value: value.into(), allowed: allowed.into() }
    }
}

/// Definitions by name.
#[derive(Debug, Default)]
pub struct ConfigTable(BTreeMap<&'static str, ConfigDef>);

impl ConfigTable {
    /// The table of these definitions.
    ///
    /// # Panics
    /// If a name is defined twice: two definitions could disagree.
    pub fn new(definitions: impl IntoIterator<Item = ConfigDef>) -> ConfigTable {
        let mut table = BTreeMap::new();
        for definition in definitions {
            let before = table.insert(definition.name, definition);
            assert!(before.is_none(), "{} is defined twice", definition.name);
        }
        ConfigTable(table)
    }

    /// The definition of `name`.
    pub fn get(&self, name: &str) -> Option<&ConfigDef> {
        self.0.get(name)
    }

    /// All definitions, by name.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigDef> {
        self.0.values()
    }

    /// The error for a name that is not here, with the nearest one that is.
    pub fn unknown(&self, name: &str) -> super::ConfigError {
        let nearest = nearest(name, self.iter().filter(|known| !known.internal).map(|known| known.name));
        super::ConfigError::Unknown { name: name.into(), nearest: nearest.map(str::to_owned) }
    }
}

/// The known name that looks most like `name`, if any is near enough to be what was meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Jaro-Winkler alone favours long common prefixes ("log.retention.x"), so edits decide and it only breaks ties.
    let lower = name.to_ascii_lowercase();
    let chars = lower.chars().count();
    let near = |edits: usize, candidate: &str| edits * 3 <= candidate.len().max(chars);
    known
        // Counting edits takes memory and time of both lengths multiplied, and a name off a socket has any length.
        .filter(|candidate| near(chars.abs_diff(candidate.len()), candidate))
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate))
        .filter(|(edits, candidate)| near(*edits, candidate))
        .min_by(|(a, left), (b, right)| {
            let closer = strsim::jaro_winkler(&lower, right).total_cmp(&strsim::jaro_winkler(&lower, left));
            a.cmp(b).then(closer)
        })
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_megabytes_is_compared_with_nothing() {
        // Comparing would take a matrix of a gigabyte.
        let name = "ü".repeat(8 << 20);
        assert_eq!(nearest(&name, ["log.retention.ms", "node.id"].into_iter()), None);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_known_one() {
        let known = ["log.retention.ms", "log.retention.bytes", "log.dirs", "node.id", "num.partitions"];
        for (given, expected) in [
            ("log.retension.ms", Some("log.retention.ms")),
            ("log.retention.byte", Some("log.retention.bytes")),
            ("LOG.DIRS", Some("log.dirs")),
            ("log.dirz", Some("log.dirs")),
            ("nodeid", Some("node.id")),
            ("completely.different", None),
        ] {
            assert_eq!(nearest(given, known.into_iter()), expected, "{given}");
        }
    }

    #[test]
    fn what_is_allowed_reads_as_a_phrase() {
        assert_eq!(Kind::Int { min: 1, max: i32::MAX }.allowed(), "an integer of at least 1");
        assert_eq!(Kind::Long { min: i64::MIN, max: i64::MAX }.allowed(), "an integer");
        assert_eq!(Kind::Levels { usual: -1, min: 1, max: 9 }.allowed(), "an integer from 1 to 9, or -1");
        assert_eq!(Kind::Double { min: 0.0, max: 1.0 }.allowed(), "a number from 0 to 1");
        assert_eq!(Kind::Enum(&["a", "b"]).allowed(), "one of a, b");
    }

    #[test]
    fn a_refused_password_is_not_repeated() {
        let secret = ConfigDef::broker("secret", Kind::Password, None, "");
        assert!(!secret.invalid("hunter2", "text").to_string().contains("hunter2"));
    }
}
