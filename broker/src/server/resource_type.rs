//! What settings can belong to, by Kafka's numbers.

use super::authorizer::Resource;

/// A kind of resource in the configuration requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ResourceType {
    /// A topic.
    Topic,
    /// A broker, or all of them under the empty name.
    Broker,
    /// The loggers of a broker (KIP-412).
    BrokerLogger,
    /// A client metrics subscription (KIP-714).
    ClientMetrics,
    /// A consumer group (KIP-848).
    Group,
}

impl ResourceType {
    /// Whose right it takes to see or change the settings of the resource called `name`: what is not a topic's or a
    /// group's own is the cluster's.
    pub(crate) fn guarded_by(self, name: &str) -> Resource<'_> {
        match self {
            ResourceType::Topic => Resource::Topic(name),
            ResourceType::Group => Resource::Group(name),
            ResourceType::Broker | ResourceType::BrokerLogger | ResourceType::ClientMetrics => Resource::Cluster,
        }
    }

    /// `None` for a number that Kafka does not know.
    pub(crate) fn from_wire(raw: i8) -> Option<ResourceType> {
        match raw {
            2 => Some(ResourceType::Topic),
            4 => Some(ResourceType::Broker),
            8 => Some(ResourceType::BrokerLogger),
            16 => Some(ResourceType::ClientMetrics),
            32 => Some(ResourceType::Group),
            _ => None,
        }
    }

    /// Its number.
    pub(crate) fn to_wire(self) -> i8 {
        match self {
            ResourceType::Topic => 2,
            ResourceType::Broker => 4,
            ResourceType::BrokerLogger => 8,
            ResourceType::ClientMetrics => 16,
            ResourceType::Group => 32,
        }
    }
}
