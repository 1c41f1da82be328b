//! Features whose level a cluster agrees on (KIP-584, KIP-1022). Who builds on one adds it to [`Feature::ALL`].

/// A feature that this version of Varve knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Kafka's name for it.
    pub name: &'static str,
    /// The smallest level that is served; 0 is off.
    pub min: u16,
    /// The largest level that is served.
    pub max: u16,
    /// The level of a cluster in which nobody set one.
    pub initial: u16,
}

impl Feature {
    /// `metadata.version`: from 3.3-IV3 to 4.3-IV0. Tools read from it which release of Kafka a broker corresponds to;
    /// Varve's own state carries its format in each value, so the level decides nothing else.
    pub const METADATA_VERSION: Feature = Feature { name: "metadata.version", min: 7, max: 30, initial: 30 };

    /// `transaction.version` (KIP-890). Producers read their generation from it: with 2 they raise their epoch with
    /// every transaction. The node serves each producer in the generation that its requests show.
    pub const TRANSACTION_VERSION: Feature = Feature { name: "transaction.version", min: 0, max: 2, initial: 2 };

    /// `group.version`: 1 serves groups of the consumer protocol (KIP-848).
    pub const GROUP_VERSION: Feature = Feature { name: "group.version", min: 0, max: 1, initial: 1 };

    /// Every feature, by name.
    pub const ALL: &'static [Feature] =
        &[Feature::GROUP_VERSION, Feature::METADATA_VERSION, Feature::TRANSACTION_VERSION];

    /// The feature of that name.
    pub fn named(name: &str) -> Option<Feature> {
        Feature::ALL.iter().copied().find(|feature| feature.name == name)
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
            assert!(feature.serves(feature.initial), "{}", feature.name);
            assert_eq!(Feature::named(feature.name), Some(*feature), "each name once");
        }
        assert!(Feature::ALL.is_sorted_by_key(|feature| feature.name));
    }
}
