//! The levels of the node's own log, changed while it runs (KIP-412).
//!
//! A logger is a module path (`varve_broker::server`); `root` stands for everything that no other logger names. Kafka's levels
//! are mapped onto ours: FATAL and ERROR are one, OFF is none at all.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The name of the logger behind all others.
pub(crate) const ROOT: &str = "root";

/// Modules that can be set apart without having been set before.
const LOGGERS: [&str; 6] =
    ["varve_audit", "varve_broker", "varve_compactor", "varve_log", "varve_metadata", "varve_tiering"];

/// A level in Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What a developer wants to see.
    Debug,
    /// What an operator wants to see.
    Info,
    /// What may need a look.
    Warn,
    /// What needs a look.
    Error,
}

impl LogLevel {
    /// `None` if Kafka does not know it.
    pub(crate) fn from_kafka(name: &str) -> Option<LogLevel> {
        match name {
            "TRACE" => Some(LogLevel::Trace),
            "DEBUG" => Some(LogLevel::Debug),
            "INFO" => Some(LogLevel::Info),
            "WARN" => Some(LogLevel::Warn),
            "ERROR" | "FATAL" => Some(LogLevel::Error),
            _ => None,
        }
    }

    /// Kafka's name for it.
    pub(crate) fn kafka_name(self) -> &'static str {
        match self {
            LogLevel::Trace => "TRACE",
            LogLevel::Debug => "DEBUG",
            LogLevel::Info => "INFO",
            LogLevel::Warn => "WARN",
            LogLevel::Error => "ERROR",
        }
    }
}

/// What makes a change effective: it is given directives in the syntax of tracing's `EnvFilter`.
type Apply = Box<dyn Fn(&str) + Send + Sync>;

/// Levels by logger.
pub struct LogLevels {
    levels: Mutex<BTreeMap<String, LogLevel>>,
    apply: Apply,
}

impl std::fmt::Debug for LogLevels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogLevels").field("levels", &self.levels).finish_non_exhaustive()
    }
}

impl Default for LogLevels {
    /// INFO everywhere, for ever.
    fn default() -> LogLevels {
        LogLevels::new("info", Box::new(|_| {}))
    }
}

impl LogLevels {
    /// The levels that `directives` (tracing's `EnvFilter`) set, and what to call with new ones. Directives that are no plain
    /// `target=level` are left to the first setting.
    pub fn new(directives: &str, apply: Apply) -> LogLevels {
        let mut levels = BTreeMap::from([(ROOT.to_owned(), LogLevel::Info)]);
        for directive in directives.split(',') {
            let (logger, level) = directive.trim().split_once('=').unwrap_or((ROOT, directive.trim()));
            if let Some(level) = LogLevel::from_kafka(&level.to_ascii_uppercase()) {
                levels.insert(logger.to_owned(), level);
            }
        }
        LogLevels { levels: Mutex::new(levels), apply }
    }

    /// Every logger with the level that it has.
    pub(crate) fn list(&self) -> Vec<(String, LogLevel)> {
        let levels = self.levels.lock();
        let names: std::collections::BTreeSet<&str> =
            LOGGERS.into_iter().chain(levels.keys().map(String::as_str)).collect();
        names.into_iter().map(|name| (name.to_owned(), effective(&levels, name))).collect()
    }

    /// Whether there is such a logger, or could be: any module of ours.
    pub(crate) fn knows(&self, logger: &str) -> bool {
        let ours = |known: &&str| logger == *known || logger.starts_with(&format!("{known}::"));
        LOGGERS.iter().any(ours) || self.levels.lock().contains_key(logger)
    }

    /// Sets loggers (`None`: as the one above it), all at once.
    pub(crate) fn set(&self, changes: &[(String, Option<LogLevel>)]) {
        let directives = {
            let mut levels = self.levels.lock();
            for (logger, level) in changes {
                match level {
                    Some(level) => drop(levels.insert(logger.clone(), *level)),
                    None => drop(levels.remove(logger)),
                }
            }
            directives(&levels)
        };
        (self.apply)(&directives);
    }
}

fn effective(levels: &BTreeMap<String, LogLevel>, logger: &str) -> LogLevel {
    let mut name = logger;
    loop {
        if let Some(level) = levels.get(name) {
            return *level;
        }
        match name.rsplit_once("::") {
            Some((parent, _)) => name = parent,
            None => return levels.get(ROOT).copied().unwrap_or(LogLevel::Info),
        }
    }
}

fn directives(levels: &BTreeMap<String, LogLevel>) -> String {
    let directive = |(logger, level): (&String, &LogLevel)| match logger.as_str() {
        ROOT => level.kafka_name().to_ascii_lowercase(),
        logger => format!("{logger}={}", level.kafka_name().to_ascii_lowercase()),
    };
    levels.iter().map(directive).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_change_is_applied_with_all_that_holds() {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&applied);
        let levels =
            LogLevels::new("warn,varve_log=debug", Box::new(move |directives| sink.lock().push(directives.to_owned())));
        levels.set(&[("varve_tiering::tier".to_owned(), Some(LogLevel::Trace))]);
        levels.set(&[("varve_log".to_owned(), None)]);
        assert_eq!(
            *applied.lock(),
            ["warn,varve_log=debug,varve_tiering::tier=trace", "warn,varve_tiering::tier=trace"]
        );
    }

    #[test]
    fn a_logger_without_a_level_has_that_of_the_one_above() {
        let levels = LogLevels::new("error,varve_log=debug,varve_log::local=trace", Box::new(|_| {}));
        let listed: BTreeMap<_, _> = levels.list().into_iter().collect();
        assert_eq!(listed["root"], LogLevel::Error);
        assert_eq!(listed["varve_broker"], LogLevel::Error);
        assert_eq!(listed["varve_log"], LogLevel::Debug);
        assert!(levels.knows("varve_log::format") && !levels.knows("kafka.server") && levels.knows("root"));
    }
}
