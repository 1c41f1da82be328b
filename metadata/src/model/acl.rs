//! Who may do what, in Kafka's words: operations on resources, and rules that allow or deny them to principals.
//!
//! An [`Acl`] is one rule: *principal P, coming from host H, is allowed (or denied) operation O on the resources that
//! pattern R names*. The decision itself, over all rules, is [`AclImage`](crate::image::AclImage)'s.

mod filter;
mod operation;

pub use filter::{AclFilter, PatternFilter};
pub use operation::{Operation, Operations};

use serde::{Deserialize, Serialize};

/// The name under which the cluster is a resource.
pub const CLUSTER_NAME: &str = "kafka-cluster";

/// The name that matches every resource of its type, if the pattern is literal.
pub const WILDCARD: &str = "*";

/// The principal of rules that are for everybody.
pub const WILDCARD_PRINCIPAL: &str = "User:*";

/// A kind of thing that access is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceType {
    /// A topic, by name.
    Topic,
    /// A group of any type, by `group.id`.
    Group,
    /// The cluster as a whole, under [`CLUSTER_NAME`].
    Cluster,
    /// A transactional producer, by `transactional.id`.
    TransactionalId,
    /// A delegation token, by its id.
    DelegationToken,
    /// A user whose tokens are made or listed for them (KIP-373), by its principal.
    User,
}

impl ResourceType {
    /// Every type, in the order of Kafka's numbers.
    pub const ALL: [ResourceType; 6] = [
        ResourceType::Topic,
        ResourceType::Group,
        ResourceType::Cluster,
        ResourceType::TransactionalId,
        ResourceType::DelegationToken,
        ResourceType::User,
    ];

    /// `None` for numbers that name no type: UNKNOWN, ANY, and those that Kafka does not know.
    pub fn from_wire(raw: i8) -> Option<ResourceType> {
        ResourceType::ALL.into_iter().find(|kind| kind.to_wire() == raw)
    }

    /// Kafka's number.
    pub const fn to_wire(self) -> i8 {
        match self {
            ResourceType::Topic => 2,
            ResourceType::Group => 3,
            ResourceType::Cluster => 4,
            ResourceType::TransactionalId => 5,
            ResourceType::DelegationToken => 6,
            ResourceType::User => 7,
        }
    }

    /// The word for it in the keys of stored rules.
    pub const fn word(self) -> &'static str {
        match self {
            ResourceType::Topic => "topic",
            ResourceType::Group => "group",
            ResourceType::Cluster => "cluster",
            ResourceType::TransactionalId => "transactional-id",
            ResourceType::DelegationToken => "delegation-token",
            ResourceType::User => "user",
        }
    }

    /// What can be done with such a resource: what DescribeCluster, Metadata and DescribeGroups tell a client it may do
    /// is a part of it (KIP-430).
    pub const fn operations(self) -> Operations {
        use Operation::*;
        match self {
            ResourceType::Topic => {
                Operations::of(&[Read, Write, Create, Describe, Delete, Alter, DescribeConfigs, AlterConfigs])
            }
            ResourceType::Group => Operations::of(&[Read, Describe, Delete, DescribeConfigs, AlterConfigs]),
            ResourceType::Cluster => Operations::of(&[
                Create,
                ClusterAction,
                DescribeConfigs,
                AlterConfigs,
                IdempotentWrite,
                Alter,
                Describe,
            ]),
            ResourceType::TransactionalId => Operations::of(&[Describe, Write, TwoPhaseCommit]),
            ResourceType::DelegationToken => Operations::of(&[Describe]),
            ResourceType::User => Operations::of(&[CreateTokens, DescribeTokens]),
        }
    }
}

/// How a rule's name is compared with that of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatternType {
    /// The whole name, or every name if it is [`WILDCARD`].
    Literal,
    /// What the name begins with.
    Prefixed,
}

impl PatternType {
    /// `None` for numbers that name no type of pattern: UNKNOWN, ANY, MATCH, and those that Kafka does not know.
    pub fn from_wire(raw: i8) -> Option<PatternType> {
        match raw {
            3 => Some(PatternType::Literal),
            4 => Some(PatternType::Prefixed),
            _ => None,
        }
    }

    /// Kafka's number.
    pub const fn to_wire(self) -> i8 {
        match self {
            PatternType::Literal => 3,
            PatternType::Prefixed => 4,
        }
    }

    /// The word for it in the keys of stored rules.
    pub const fn word(self) -> &'static str {
        match self {
            PatternType::Literal => "literal",
            PatternType::Prefixed => "prefixed",
        }
    }
}

/// Which way a rule decides. A rule that denies wins over every one that allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// No.
    Deny,
    /// Yes.
    Allow,
}

impl Permission {
    /// `None` for numbers that name no permission: UNKNOWN, ANY, and those that Kafka does not know.
    pub fn from_wire(raw: i8) -> Option<Permission> {
        match raw {
            2 => Some(Permission::Deny),
            3 => Some(Permission::Allow),
            _ => None,
        }
    }

    /// Kafka's number.
    pub const fn to_wire(self) -> i8 {
        match self {
            Permission::Deny => 2,
            Permission::Allow => 3,
        }
    }
}

/// The resources that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourcePattern {
    /// Their type.
    pub resource_type: ResourceType,
    /// How `name` is compared.
    pub pattern_type: PatternType,
    /// Their name, or what it begins with. Never empty.
    pub name: String,
}

impl ResourcePattern {
    /// Whether the pattern names the resource of this type called `name`.
    pub fn matches(&self, resource_type: ResourceType, name: &str) -> bool {
        self.resource_type == resource_type
            && match self.pattern_type {
                PatternType::Literal => self.name == name || self.name == WILDCARD,
                PatternType::Prefixed => name.starts_with(&self.name),
            }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// What it is about.
    pub pattern: ResourcePattern,
    /// For whom it is, as `Type:name`; [`WILDCARD_PRINCIPAL`] is everybody. A text and not a
    /// [`Principal`](super::Principal), because Kafka keeps rules whose principal nobody can have (`User:`).
    pub principal: String,
    /// The address it is for, [`WILDCARD`] for every one. Anything else that is no address matches nobody, as in Kafka.
    pub host: String,
    /// What it allows or denies.
    pub operation: Operation,
    /// Which of the two.
    pub permission: Permission,
}
