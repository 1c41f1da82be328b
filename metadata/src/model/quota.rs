//! What client quotas are set for, and what they limit (KIP-13, KIP-55, KIP-124, KIP-599, KIP-612).

use std::fmt;

use serde::{Deserialize, Serialize};

/// One part of an entity: a name, or everybody who has no quota under their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Option<String>", into = "Option<String>")]
pub enum QuotaName {
    /// Everybody else; null on the wire, `<default>` on command lines.
    Default,
    /// A user, a client id, or an address.
    Named(String),
}

impl From<Option<String>> for QuotaName {
    fn from(name: Option<String>) -> QuotaName {
        name.map_or(QuotaName::Default, QuotaName::Named)
    }
}

impl From<QuotaName> for Option<String> {
    fn from(name: QuotaName) -> Option<String> {
        match name {
            QuotaName::Default => None,
            QuotaName::Named(name) => Some(name),
        }
    }
}

impl QuotaName {
    /// The name; `None` for everybody else.
    pub fn as_deref(&self) -> Option<&str> {
        match self {
            QuotaName::Default => None,
            QuotaName::Named(name) => Some(name),
        }
    }
}

/// Whom a quota is set for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaEntity {
    /// Everything that a user's clients do, together.
    User(QuotaName),
    /// Everything that is done under a client id, by whomever.
    ClientId(QuotaName),
    /// What a user does under a client id.
    UserClient(QuotaName, QuotaName),
    /// Connections from an address.
    Ip(QuotaName),
}

impl QuotaEntity {
    /// Kafka's word for the user of an entity.
    pub const USER: &'static str = "user";
    /// Kafka's word for its client id.
    pub const CLIENT_ID: &'static str = "client-id";
    /// Kafka's word for its address.
    pub const IP: &'static str = "ip";

    /// The parts, as the wire lists them: type and name.
    pub fn parts(&self) -> Vec<(&'static str, &QuotaName)> {
        match self {
            QuotaEntity::User(user) => vec![(Self::USER, user)],
            QuotaEntity::ClientId(client) => vec![(Self::CLIENT_ID, client)],
            QuotaEntity::UserClient(user, client) => vec![(Self::USER, user), (Self::CLIENT_ID, client)],
            QuotaEntity::Ip(ip) => vec![(Self::IP, ip)],
        }
    }

    /// Whether a quota of this kind can be set for it.
    pub fn can_have(&self, key: QuotaKey) -> bool {
        matches!(self, QuotaEntity::Ip(_)) == (key == QuotaKey::ConnectionRate)
    }
}

impl fmt::Display for QuotaEntity {
    /// As log lines name it: `user alice client-id <default>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (kind, name)) in self.parts().into_iter().enumerate() {
            let space = if place == 0 { "" } else { " " };
            write!(f, "{space}{kind} {}", name.as_deref().unwrap_or("<default>"))?;
        }
        Ok(())
    }
}

/// What a quota limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum QuotaKey {
    /// Bytes of produce requests per second.
    #[serde(rename = "producer_byte_rate")]
    ProducerByteRate,
    /// Bytes of fetch answers per second.
    #[serde(rename = "consumer_byte_rate")]
    ConsumerByteRate,
    /// Time spent on requests, in percent of one thread (KIP-124).
    #[serde(rename = "request_percentage")]
    RequestPercentage,
    /// Partitions created and deleted per second (KIP-599).
    #[serde(rename = "controller_mutation_rate")]
    ControllerMutationRate,
    /// New connections per second (KIP-612).
    #[serde(rename = "connection_creation_rate")]
    ConnectionRate,
}

impl QuotaKey {
    /// Every kind of quota.
    pub const ALL: [QuotaKey; 5] = [
        QuotaKey::ProducerByteRate,
        QuotaKey::ConsumerByteRate,
        QuotaKey::RequestPercentage,
        QuotaKey::ControllerMutationRate,
        QuotaKey::ConnectionRate,
    ];

    /// Kafka's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            QuotaKey::ProducerByteRate => "producer_byte_rate",
            QuotaKey::ConsumerByteRate => "consumer_byte_rate",
            QuotaKey::RequestPercentage => "request_percentage",
            QuotaKey::ControllerMutationRate => "controller_mutation_rate",
            QuotaKey::ConnectionRate => "connection_creation_rate",
        }
    }

    /// `None` if Kafka has no such quota.
    pub fn from_name(name: &str) -> Option<QuotaKey> {
        QuotaKey::ALL.into_iter().find(|key| key.name() == name)
    }

    /// The type that the value must fit, and its largest value; `None` where fractions are allowed.
    pub const fn whole_number(self) -> Option<(&'static str, f64)> {
        match self {
            QuotaKey::ProducerByteRate | QuotaKey::ConsumerByteRate => Some(("LONG", i64::MAX as f64)),
            QuotaKey::ConnectionRate => Some(("INT", i32::MAX as f64)),
            QuotaKey::RequestPercentage | QuotaKey::ControllerMutationRate => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_quotas_survive_their_names() {
        for key in QuotaKey::ALL {
            assert_eq!(QuotaKey::from_name(key.name()), Some(key));
            assert_eq!(serde_json::to_string(&key).unwrap(), format!("\"{}\"", key.name()));
        }
    }

    #[test]
    fn only_addresses_have_connection_rates_and_nothing_else() {
        let ip = QuotaEntity::Ip(QuotaName::Default);
        let user = QuotaEntity::User(QuotaName::Named("alice".into()));
        assert!(ip.can_have(QuotaKey::ConnectionRate) && !ip.can_have(QuotaKey::ProducerByteRate));
        assert!(user.can_have(QuotaKey::ProducerByteRate) && !user.can_have(QuotaKey::ConnectionRate));
        let both = QuotaEntity::UserClient(QuotaName::Named("alice".into()), QuotaName::Default);
        assert_eq!(both.to_string(), "user alice client-id <default>");
    }
}
