//! Families of names that are open: a known prefix, then what a listener, a plugin or a provider is called.

use varve_metadata::config::Treatment;

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
            prefix: "listener.name.",
            pattern: "listener.name.<listener>.<setting>",
            doc: "A setting for one listener only.",
            treatment: Treatment::NoEffect {
                why: "settings of single listeners are for TLS, SASL and connection limits of secured listeners, and \
                      those listeners are refused",
            },
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

/// The family that an open name belongs to. What stands behind `listener.name.<listener>.` must be a known setting, as
/// in Kafka; `<listener>.<mechanism>.` may stand before SASL's.
pub(in crate::config) fn prefix_of(name: &str) -> Option<&'static Prefix> {
    let family = prefixes().iter().find(|family| name.starts_with(family.prefix))?;
    let rest = &name[family.prefix.len()..];
    if family.prefix != "listener.name." {
        return (!rest.is_empty()).then_some(family);
    }
    let (_listener, setting) = rest.split_once('.')?;
    let known = |setting: &str| broker_table().get(setting).is_some();
    let behind_mechanism = || setting.split_once('.').is_some_and(|(_, setting)| known(setting));
    (known(setting) || behind_mechanism()).then_some(family)
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
