//! Changes of client quotas (KIP-546), with the rules and texts of Kafka's `ClientQuotaControlManager`.

use std::collections::{BTreeMap, BTreeSet};

use super::Decision;
use crate::{
    image::{
        ClusterImage, Quotas,
        record::{self, Key, QuotaRecord},
    },
    model::{QuotaEntity, QuotaKey, QuotaName},
};

/// The change of one entity's quotas, as asked.
#[derive(Clone, Debug, PartialEq)]
pub struct AlterQuota {
    /// The entity's parts by type; `None` is the default of that type.
    pub entity: BTreeMap<String, Option<String>>,
    /// What happens to each quota, in order; `None` removes it.
    pub changes: Vec<(String, Option<f64>)>,
}

/// Why quotas do not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// An entity without parts.
    #[error("Invalid empty client quota entity")]
    NoParts,
    /// A type of entity that Kafka does not know.
    #[error("Unhandled client quota entity type: {0}")]
    UnknownType(String),
    /// A part whose name is empty.
    #[error("Empty {0} not supported")]
    EmptyName(String),
    /// An address together with a user or a client id.
    #[error("Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId")]
    Combination,
    /// What is named as an address has none.
    #[error("{0} is not a valid IP or resolvable host.")]
    NoAddress(String),
    /// The entity stands in the request twice, or one of its quotas does.
    #[error("Ignoring duplicate entity {0}")]
    Repeated(String),
    /// A quota that such an entity cannot have.
    #[error("Invalid configuration key {0}")]
    UnknownKey(String),
    /// A quota of nothing, or of no number.
    #[error("Quota {0} must be greater than 0")]
    NotPositive(&'static str),
    /// A number beyond the type.
    #[error("Proposed value for {name} is too large for {article} {kind}.")]
    TooLarge {
        /// The quota.
        name: &'static str,
        /// Before the type's name.
        article: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// A part of a byte or of a connection.
    #[error("{0} cannot be a fractional value.")]
    Fraction(&'static str),
}

/// An entity as it is asked for: the name of each kind, `None` for the default.
type AskedEntity = BTreeMap<String, Option<String>>;

/// Changes quotas. One result for each *distinct* entity, as Kafka answers; of an entity that stands there twice, the first
/// change is made all the same. `unresolved`: names of addresses that have none.
pub fn alter_client_quotas(
    image: &ClusterImage,
    requests: &[AlterQuota],
    unresolved: &BTreeSet<String>,
) -> (BTreeMap<AskedEntity, Result<(), QuotaError>>, Decision) {
    let mut decision = Decision::default();
    let mut results = BTreeMap::new();
    for request in requests {
        let keys: BTreeSet<&str> = request.changes.iter().map(|(key, _)| key.as_str()).collect();
        let is_repeated = results.contains_key(&request.entity) || keys.len() < request.changes.len();
        let result = if is_repeated {
            Err(QuotaError::Repeated(kafka_text(&request.entity)))
        } else {
            alter(image, request, unresolved, &mut decision)
        };
        results.insert(request.entity.clone(), result);
    }
    (results, decision)
}

/// An entity as Kafka prints it.
fn kafka_text(entity: &BTreeMap<String, Option<String>>) -> String {
    let part = |(kind, name): (&String, &Option<String>)| format!("{kind}={}", name.as_deref().unwrap_or("null"));
    let parts: Vec<String> = entity.iter().map(part).collect();
    format!("ClientQuotaEntity(entries={{{}}})", parts.join(", "))
}

fn alter(
    image: &ClusterImage,
    request: &AlterQuota,
    unresolved: &BTreeSet<String>,
    decision: &mut Decision,
) -> Result<(), QuotaError> {
    let entity = parse_entity(&request.entity, unresolved)?;
    let before = image.quotas().get(&entity).cloned().unwrap_or_default();
    let mut quotas = before.clone();
    for (name, value) in &request.changes {
        change(&entity, name, *value, &mut quotas)?;
    }
    if quotas == before {
        return Ok(());
    }
    let key = Key::Quota(entity);
    if quotas.is_empty() {
        decision.delete(&key);
    } else {
        decision.put(&key, record::encode(QuotaRecord { quotas }));
    }
    decision.rewrites.push(key);
    Ok(())
}

fn parse_entity(
    parts: &BTreeMap<String, Option<String>>,
    unresolved: &BTreeSet<String>,
) -> Result<QuotaEntity, QuotaError> {
    if parts.is_empty() {
        return Err(QuotaError::NoParts);
    }
    for (kind, name) in parts {
        if ![QuotaEntity::USER, QuotaEntity::CLIENT_ID, QuotaEntity::IP].contains(&kind.as_str()) {
            return Err(QuotaError::UnknownType(kind.clone()));
        }
        if name.as_deref() == Some("") {
            return Err(QuotaError::EmptyName(kind.clone()));
        }
    }
    let part = |kind: &str| parts.get(kind).cloned().map(QuotaName::from);
    match (part(QuotaEntity::IP), part(QuotaEntity::USER), part(QuotaEntity::CLIENT_ID)) {
        (Some(QuotaName::Named(ip)), None, None) if unresolved.contains(&ip) => Err(QuotaError::NoAddress(ip)),
        (Some(ip), None, None) => Ok(QuotaEntity::Ip(ip)),
        (Some(_), ..) => Err(QuotaError::Combination),
        (None, Some(user), Some(client)) => Ok(QuotaEntity::UserClient(user, client)),
        (None, Some(user), None) => Ok(QuotaEntity::User(user)),
        (None, None, Some(client)) => Ok(QuotaEntity::ClientId(client)),
        (None, None, None) => Err(QuotaError::NoParts),
    }
}

fn change(entity: &QuotaEntity, name: &str, value: Option<f64>, quotas: &mut Quotas) -> Result<(), QuotaError> {
    let key = QuotaKey::from_name(name).filter(|key| entity.can_have(*key));
    match (key, value) {
        (Some(key), Some(value)) => {
            check_value(key, value)?;
            quotas.insert(key, value);
            Ok(())
        }
        (None, Some(_)) => Err(QuotaError::UnknownKey(name.to_owned())),
        // Removing what cannot be there is no error in Kafka.
        (Some(key), None) => {
            quotas.remove(&key);
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

fn check_value(key: QuotaKey, value: f64) -> Result<(), QuotaError> {
    let name = key.name();
    // Not-a-number is neither: Kafka takes it, and then never throttles.
    if value.is_nan() || value <= 0.0 {
        return Err(QuotaError::NotPositive(name));
    }
    match key.whole_number() {
        Some((kind, max)) if value > max => {
            Err(QuotaError::TooLarge { name, article: if kind == "INT" { "an" } else { "a" }, kind })
        }
        Some(_) if value % 1.0 > 1e-6 => Err(QuotaError::Fraction(name)),
        Some(_) => Ok(()),
        // Infinity cannot be stored, and means what no quota means.
        None if value.is_infinite() => Err(QuotaError::TooLarge { name, article: "a", kind: "DOUBLE" }),
        None => Ok(()),
    }
}
