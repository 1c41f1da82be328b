//! Features whose level a cluster agrees on (KIP-584, KIP-1022). Who builds on one adds it to [`Feature::ALL`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A feature that this version of Varve knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Kafka's name for it.
    pub name: &'static str,
    /// The smallest level that is served; 0 is off.
    pub min: u16,
    /// The largest level that is served.
    pub max: u16,
    /// The level of a new cluster.
    pub initial: u16,
    /// The level of a cluster that says nothing of the feature, because it was made before there was one: 0 for every
    /// feature that is added from now on, so that no cluster gets it by an upgrade of its brokers alone.
    pub unsaid: u16,
}

/// The levels of a feature that a broker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureLevels {
    /// The smallest; 0 is off.
    pub min: u16,
    /// The largest.
    pub max: u16,
}

/// A level that a cluster has agreed on and this version does not serve (KIP-584, with the text of Kafka).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Unable to register because the broker does not support finalized version {finalized} of {name}. The broker wants a \
     version between {} and {}, inclusive.", served.min, served.max
)]
pub struct Unserved {
    /// The feature.
    pub name: String,
    /// The level of the cluster.
    pub finalized: u16,
    /// What this version serves; 0 to 0 if it does not know the feature.
    pub served: FeatureLevels,
}

impl Feature {
    /// `metadata.version`: from 3.3-IV3 to 4.3-IV0. Tools read from it which release of Kafka a broker corresponds to;
    /// Varve's own state carries its format in each value, so the level decides nothing else.
    pub const METADATA_VERSION: Feature =
        Feature { name: "metadata.version", min: 7, max: 30, initial: 30, unsaid: 30 };

    /// `transaction.version` (KIP-890). Producers read their generation from it: with 2 they raise their epoch with
    /// every transaction. The node serves each producer in the generation that its requests show.
    pub const TRANSACTION_VERSION: Feature =
        Feature { name: "transaction.version", min: 0, max: 2, initial: 2, unsaid: 2 };

    /// `group.version`: 1 serves groups of the consumer protocol (KIP-848).
    pub const GROUP_VERSION: Feature = Feature { name: "group.version", min: 0, max: 1, initial: 1, unsaid: 1 };

    /// `share.version`: 1 serves share groups (KIP-932).
    pub const SHARE_VERSION: Feature = Feature { name: "share.version", min: 0, max: 1, initial: 1, unsaid: 0 };

    /// `streams.version`: 1 serves groups of the streams protocol (KIP-1071).
    pub const STREAMS_VERSION: Feature = Feature { name: "streams.version", min: 0, max: 1, initial: 1, unsaid: 0 };

    /// Every feature, by name.
    pub const ALL: &'static [Feature] = &[
        Feature::GROUP_VERSION,
        Feature::METADATA_VERSION,
        Feature::SHARE_VERSION,
        Feature::STREAMS_VERSION,
        Feature::TRANSACTION_VERSION,
    ];

    /// The feature of that name.
    pub fn named(name: &str) -> Option<Feature> {
        Feature::ALL.iter().copied().find(|feature| feature.name == name)
    }

    /// What this version serves, as brokers register it.
    pub fn served() -> BTreeMap<String, FeatureLevels> {
        let levels = |feature: &Feature| FeatureLevels { min: feature.min, max: feature.max };
        Feature::ALL.iter().map(|feature| (feature.name.to_owned(), levels(feature))).collect()
    }

    /// Whether this version serves every level that a cluster has agreed on.
    ///
    /// # Errors
    /// [`Unserved`]: one that it does not.
    pub fn check_all<'a>(finalized: impl IntoIterator<Item = (&'a str, u16)>) -> Result<(), Unserved> {
        for (name, level) in finalized {
            let known = Feature::named(name);
            let served =
                known.map_or(FeatureLevels { min: 0, max: 0 }, |Feature { min, max, .. }| FeatureLevels { min, max });
            if !(served.min..=served.max).contains(&level) {
                return Err(Unserved { name: name.to_owned(), finalized: level, served });
            }
        }
        Ok(())
    }

    /// Whether that level is served.
    pub fn serves(&self, level: u16) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_starts_at_a_level_that_is_served() {
        for feature in Feature::ALL {
            assert!(feature.serves(feature.initial) && feature.serves(feature.unsaid), "{}", feature.name);
            assert_eq!(Feature::named(feature.name), Some(*feature), "each name once");
        }
        assert!(Feature::ALL.is_sorted_by_key(|feature| feature.name));
    }

    #[test]
    fn a_level_that_is_not_served_is_told_with_those_that_are() {
        let group = Feature::GROUP_VERSION.name;
        assert_eq!(Feature::check_all([(group, 1), ("of.tomorrow", 0)]), Ok(()));
        let newer = Feature::check_all([(group, 2)]).unwrap_err().to_string();
        assert!(newer.contains("version 2 of group.version") && newer.contains("between 0 and 1"), "{newer}");
        let unknown = Feature::check_all([("of.tomorrow", 1)]).unwrap_err().to_string();
        assert!(unknown.contains("version 1 of of.tomorrow") && unknown.contains("between 0 and 0"), "{unknown}");
    }
}
