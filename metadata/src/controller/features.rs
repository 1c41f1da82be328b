//! Changes of feature levels (KIP-584), with the rules and texts of Kafka's `FeatureControlManager`.

use super::Decision;
use crate::{
    image::{
        BrokerImage, ClusterImage,
        record::{self, FeatureRecord, Key},
    },
    model::{BrokerId, Feature, FeatureLevels},
};

/// Which way a level may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureMove {
    /// Up only.
    Upgrade,
    /// Down, if nothing is lost by it.
    SafeDowngrade,
    /// Down, whatever is lost by it.
    UnsafeDowngrade,
    /// A kind that Kafka does not know.
    Unknown,
}

/// One level to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// The feature's name.
    pub name: String,
    /// The level that it shall have.
    pub level: i16,
    /// Which way it may move.
    pub direction: FeatureMove,
}

/// Why no level changes. The text names the feature and the level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// The level cannot be set.
    #[error("Invalid update version {level} for feature {name}. {why}")]
    Level {
        /// The feature.
        name: String,
        /// The level asked for.
        level: i16,
        /// What is wrong with it.
        why: String,
    },
    /// Kafka keeps `metadata.version` from going down where that would lose what is stored.
    #[error(
        "Unsupported metadata.version downgrade from {from} to {to}. Refusing to perform the requested downgrade because \
         it might delete metadata information."
    )]
    MetadataDowngrade {
        /// The level now.
        from: u16,
        /// The level asked for.
        to: u16,
    },
    /// The same, asked for in spite of the loss.
    #[error(
        "Unsupported metadata.version downgrade from {from} to {to}. Unsafe metadata downgrade is not supported in this \
         version."
    )]
    UnsafeMetadataDowngrade {
        /// The level now.
        from: u16,
        /// The level asked for.
        to: u16,
    },
}

/// Sets levels, all of them or none. `node` decides.
pub fn update_features(
    image: &ClusterImage,
    updates: &[FeatureUpdate],
    node: BrokerId,
) -> (Result<(), FeatureError>, Decision) {
    let mut decision = Decision::default();
    for update in updates {
        match check(image, update, node) {
            Ok(level) => {
                let key = Key::Feature(update.name.clone());
                if image.feature_level(&update.name) != level {
                    decision.put(&key, record::encode(FeatureRecord { level }));
                    decision.rewrites.push(key);
                }
            }
            Err(error) => return (Err(error), Decision::default()),
        }
    }
    (Ok(()), decision)
}

/// The level to set.
fn check(image: &ClusterImage, update: &FeatureUpdate, node: BrokerId) -> Result<u16, FeatureError> {
    let refuse = |why: String| FeatureError::Level { name: update.name.clone(), level: update.level, why };
    if update.direction == FeatureMove::Unknown {
        return Err(refuse("The controller does not support the given upgrade type.".into()));
    }
    let level = u16::try_from(update.level).map_err(|_| refuse("A feature version cannot be less than 0.".into()))?;
    let now = image.feature_level(&update.name);
    match Feature::named(&update.name) {
        Some(feature) if feature.serves(level) => {
            if let Some(why) = unserved_by_others(image, feature, level) {
                return Err(refuse(why));
            }
        }
        Some(Feature { min, max, .. }) => {
            return Err(refuse(format!("Local controller {node} only supports versions {min}-{max}")));
        }
        // As in Kafka, off is a level that no feature lacks; a name that nobody knows then has no other.
        None if level == 0 => return Err(refuse(format!("Feature {} not found.", update.name))),
        None => return Err(refuse(format!("Local controller {node} does not support this feature."))),
    }
    match update.direction {
        FeatureMove::Upgrade if level < now => {
            let why = "Can't downgrade the version of this feature without setting the upgrade type to either safe or \
                       unsafe downgrade.";
            return Err(refuse(why.into()));
        }
        FeatureMove::SafeDowngrade | FeatureMove::UnsafeDowngrade if level > now => {
            return Err(refuse("Can't downgrade to a newer version.".into()));
        }
        _ => {}
    }
    if update.name == Feature::METADATA_VERSION.name && level < now {
        return Err(match update.direction {
            FeatureMove::UnsafeDowngrade => FeatureError::UnsafeMetadataDowngrade { from: now, to: level },
            _ => FeatureError::MetadataDowngrade { from: now, to: level },
        });
    }
    Ok(level)
}

/// Which broker keeps a level from being set, also one that is down: it could not come back.
fn unserved_by_others(image: &ClusterImage, feature: Feature, level: u16) -> Option<String> {
    image.brokers().values().find_map(|broker| match served_by(broker, feature) {
        Some(served) if (served.min..=served.max).contains(&level) => None,
        Some(FeatureLevels { min, max }) => Some(format!("Broker {} only supports versions {min}-{max}", broker.id)),
        // As for the controller itself, off is a level that nobody lacks.
        None if level == 0 => None,
        None => Some(format!("Broker {} does not support this feature.", broker.id)),
    })
}

/// The levels of a feature that a broker serves, if it knows it.
fn served_by(broker: &BrokerImage, feature: Feature) -> Option<FeatureLevels> {
    if broker.features.is_empty() {
        // Its version is from before brokers said what they serve: whatever it knows has no need to be said in a cluster either.
        return (feature.unsaid > 0).then_some(FeatureLevels { min: feature.min, max: feature.unsaid });
    }
    broker.features.get(feature.name).copied()
}
