//! Families of names that are open: a known prefix, then what a listener, a plugin or a provider is called.

use varve_metadata::config::{ConfigDef, Treatment};

use super::broker_table;

/// One family of names.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    /// What the names begin with, with the last dot.
    pub prefix: &'static str,
    /// What stands behind it, for the reference.
    pub pattern: &'static str,
    /// What the family is for.
    pub doc: &'static str,
    /// What Varve does with it.
    pub treatment: Treatment,
}

const NO_PLUGIN: Treatment = Treatment::NoEffect {
    why: "tiered storage is built in and loads no plugin; the archive's settings are varve.object.store.* and \
          varve.archive.*",
};

/// All families.
pub const fn prefixes() -> &'static [Prefix] {
    &[
        Prefix {
            prefix: LISTENER,
            pattern: "listener.name.<listener>.<setting>",
            doc: "A setting for one listener only, with the listener's name in lower case: those of TLS and SASL, \
                  max.connections and max.connection.creation.rate. What \
                  is said of one SASL mechanism has that between the two: `listener.name.<listener>.<mechanism>.<setting>`.",
            treatment: Treatment::Honoured,
        },
        Prefix {
            prefix: "rsm.config.",
            pattern: "rsm.config.<setting>",
            doc: "A setting of a plugin for tiered storage.",
            treatment: NO_PLUGIN,
        },
        Prefix {
            prefix: "rlmm.config.",
            pattern: "rlmm.config.<setting>",
            doc: "A setting of the topic of remote segments.",
            treatment: Treatment::NoEffect {
                why: "what is archived stands in manifests in the object store, not in a topic",
            },
        },
        Prefix {
            prefix: "config.providers.",
            pattern: "config.providers.<provider>.<setting>",
            doc: "A setting of a Java class that replaces parts of values.",
            treatment: Treatment::Refused {
                why: "no Java classes are loaded, and values with ${...} would be taken literally; use environment \
                      variables",
            },
        },
    ]
}

/// The family that an open name belongs to.
pub(in crate::config) fn prefix_of(name: &str) -> Option<&'static Prefix> {
    let family = prefixes().iter().find(|family| name.starts_with(family.prefix))?;
    match family.prefix {
        LISTENER => listener_setting(name).map(|_| family),
        _ => (name.len() > family.prefix.len()).then_some(family),
    }
}

const LISTENER: &str = "listener.name.";

/// The setting that stands behind `listener.name.<listener>.`, and behind `<mechanism>.` if that follows.
pub(crate) fn listener_setting(name: &str) -> Option<&'static ConfigDef> {
    let (_listener, setting) = name.strip_prefix(LISTENER)?.split_once('.')?;
    let behind_mechanism = || broker_table().get(setting.split_once('.')?.1);
    broker_table().get(setting).or_else(behind_mechanism)
}

/// The definition that tells the type of a listener's own setting, as Kafka has it: that of what follows the listener's name, or
/// of what ends it for the few that are said of one mechanism. `None` for others: nobody knows what is in them.
pub(crate) fn typed_as(name: &str) -> Option<&'static ConfigDef> {
    const OF_ONE_MECHANISM: [&str; 5] = [
        "sasl.jaas.config",
        "sasl.login.callback.handler.class",
        "sasl.login.class",
        "sasl.server.callback.handler.class",
        "connections.max.reauth.ms",
    ];
    let (_listener, setting) = name.strip_prefix(LISTENER)?.split_once('.')?;
    let of_one_mechanism = OF_ONE_MECHANISM.into_iter().find(|known| setting.ends_with(known));
    broker_table().get(of_one_mechanism.unwrap_or(setting))
}

/// Whether a listener can have a setting of its own under this name. Others hold for all listeners.
pub(crate) fn is_of_listeners(name: &str) -> bool {
    let named = [
        "connections.max.reauth.ms",
        "max.connection.creation.rate",
        "max.connections",
        "num.network.threads",
        "principal.builder.class",
    ];
    name.starts_with("ssl.") || name.starts_with("sasl.") || named.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_names_belong_to_a_family_only_if_what_follows_makes_sense() {
        for (name, expected) in [
            ("listener.name.internal.ssl.keystore.location", Some("listener.name.")),
            ("listener.name.internal.scram-sha-256.sasl.jaas.config", Some("listener.name.")),
            ("listener.name.internal.max.connections", Some("listener.name.")),
            ("listener.name.internal.max.connection.creation.rate", Some("listener.name.")),
            ("listener.name.internal.ssl.keystore.loc", None),
            ("listener.name.internal", None),
            ("rsm.config.chunk.size", Some("rsm.config.")),
            ("rsm.config.", None),
            ("log.dirs", None),
        ] {
            assert_eq!(prefix_of(name).map(|family| family.prefix), expected, "{name}");
        }
    }
}
