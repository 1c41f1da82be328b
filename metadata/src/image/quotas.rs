//! Client quotas, by whom they are set for.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{QuotaEntity, QuotaKey, QuotaName};

/// The quotas of one entity.
pub type Quotas = BTreeMap<QuotaKey, f64>;

/// Quotas by entity; none without a quota.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuotaImage(pub(crate) BTreeMap<QuotaEntity, Arc<Quotas>>);

/// Which entities are asked for (KIP-546). At most one match for each type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaFilter {
    /// What the entity's parts must be, by type (`user`, `client-id`, `ip`).
    pub parts: BTreeMap<&'static str, QuotaMatch>,
    /// Whether the entity must have no other parts.
    pub strict: bool,
}

/// What one part of an entity must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaMatch {
    /// Exactly this.
    Exact(QuotaName),
    /// Anything, so long as the entity has the part.
    Any,
}

impl QuotaFilter {
    fn takes(&self, entity: &QuotaEntity) -> bool {
        let parts = entity.parts();
        let matches = |(kind, wanted): (&&str, &QuotaMatch)| {
            let part = parts.iter().find(|(part, _)| part == kind);
            part.is_some_and(|(_, name)| match wanted {
                QuotaMatch::Exact(wanted) => wanted == *name,
                QuotaMatch::Any => true,
            })
        };
        (!self.strict || parts.len() == self.parts.len()) && self.parts.iter().all(matches)
    }
}

impl QuotaImage {
    /// An image of these quotas and no others.
    pub fn of(quotas: impl IntoIterator<Item = (QuotaEntity, QuotaKey, f64)>) -> QuotaImage {
        let mut image = QuotaImage::default();
        for (entity, key, limit) in quotas {
            Arc::make_mut(image.0.entry(entity).or_default()).insert(key, limit);
        }
        image
    }

    /// The quotas of exactly this entity.
    pub fn get(&self, entity: &QuotaEntity) -> Option<&Quotas> {
        self.0.get(entity).map(Arc::as_ref)
    }

    /// Everything that is set.
    pub fn iter(&self) -> impl Iterator<Item = (&QuotaEntity, &Quotas)> {
        self.0.iter().map(|(entity, quotas)| (entity, quotas.as_ref()))
    }

    /// What `filter` asks for, in the order of entities.
    pub fn matching<'a>(&'a self, filter: &'a QuotaFilter) -> impl Iterator<Item = (&'a QuotaEntity, &'a Quotas)> {
        self.iter().filter(|(entity, _)| filter.takes(entity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_entities_by_their_parts() {
        let named = |name: &str| QuotaName::Named(name.to_owned());
        let entities = [
            QuotaEntity::User(named("alice")),
            QuotaEntity::User(QuotaName::Default),
            QuotaEntity::ClientId(named("app")),
            QuotaEntity::UserClient(named("alice"), named("app")),
        ];
        let image = QuotaImage(entities.iter().map(|entity| (entity.clone(), Arc::default())).collect());
        let found = |parts: &[(&'static str, QuotaMatch)], strict| -> Vec<String> {
            let filter = QuotaFilter { parts: parts.iter().cloned().collect(), strict };
            image.matching(&filter).map(|(entity, _)| entity.to_string()).collect()
        };
        let alice = (QuotaEntity::USER, QuotaMatch::Exact(named("alice")));
        assert_eq!(found(&[], false).len(), 4);
        assert_eq!(found(&[], true).len(), 0);
        assert_eq!(found(std::slice::from_ref(&alice), false), ["user alice", "user alice client-id app"]);
        assert_eq!(found(&[alice], true), ["user alice"]);
        assert_eq!(found(&[(QuotaEntity::USER, QuotaMatch::Exact(QuotaName::Default))], false), ["user <default>"]);
        assert_eq!(
            found(&[(QuotaEntity::CLIENT_ID, QuotaMatch::Any)], false),
            ["client-id app", "user alice client-id app"]
        );
    }
}
