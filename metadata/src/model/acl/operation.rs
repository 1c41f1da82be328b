//! What can be done with a resource.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that a principal may or may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// Every operation. Only rules name it; nobody asks for it.
    All,
    /// Read.
    Read,
    /// Write.
    Write,
    /// Create.
    Create,
    /// Delete.
    Delete,
    /// Change.
    Alter,
    /// See that it is there, and how it is.
    Describe,
    /// What brokers do with each other.
    ClusterAction,
    /// See its settings.
    DescribeConfigs,
    /// Change its settings.
    AlterConfigs,
    /// Write with a producer id; Kafka from 2.8 on takes the right to write to any topic as well.
    IdempotentWrite,
    /// Make delegation tokens for a user.
    CreateTokens,
    /// See delegation tokens of a user.
    DescribeTokens,
    /// Prepare a transaction that somebody else commits (KIP-939).
    TwoPhaseCommit,
}

impl Operation {
    /// Every operation, in the order of Kafka's numbers.
    pub const EVERY: [Operation; 14] = [
        Operation::All,
        Operation::Read,
        Operation::Write,
        Operation::Create,
        Operation::Delete,
        Operation::Alter,
        Operation::Describe,
        Operation::ClusterAction,
        Operation::DescribeConfigs,
        Operation::AlterConfigs,
        Operation::IdempotentWrite,
        Operation::CreateTokens,
        Operation::DescribeTokens,
        Operation::TwoPhaseCommit,
    ];

    /// `None` for numbers that name no operation: UNKNOWN, ANY, and those that Kafka does not know.
    pub fn from_wire(raw: i8) -> Option<Operation> {
        let place = usize::try_from(raw).ok()?.checked_sub(2)?;
        Operation::EVERY.get(place).copied()
    }

    /// Kafka's number.
    pub const fn to_wire(self) -> i8 {
        self as i8 + 2
    }

    /// Operations of which an allowing rule grants this one: who may change or use a thing may see it. A denying rule
    /// denies nothing but what it names.
    pub const fn granted_by(self) -> Operations {
        use Operation::*;
        match self {
            Describe => Operations::of(&[All, Describe, Read, Write, Delete, Alter]),
            DescribeConfigs => Operations::of(&[All, DescribeConfigs, AlterConfigs]),
            exact => Operations::of(&[All, exact]),
        }
    }

    /// Operations of which a denying rule denies this one: it, and everything.
    pub const fn denied_by(self) -> Operations {
        Operations::of(&[Operation::All, self])
    }
}

/// A set of operations.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Operation>", into = "Vec<Operation>")]
pub struct Operations(u16);

impl Operations {
    /// These operations.
    pub const fn of(operations: &[Operation]) -> Operations {
        let mut bits = 0;
        let mut place = 0;
        while place < operations.len() {
            bits |= 1 << operations[place] as u16;
            place += 1;
        }
        Operations(bits)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether `operation` is one of them.
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & (1 << operation as u16) != 0
    }

    /// Whether the two have one in common.
    pub const fn meets(self, other: Operations) -> bool {
        self.0 & other.0 != 0
    }

    /// Adds one.
    pub const fn insert(&mut self, operation: Operation) {
        self.0 |= 1 << operation as u16;
    }

    /// Takes one away.
    pub const fn remove(&mut self, operation: Operation) {
        self.0 &= !(1 << operation as u16);
    }

    /// In the order of Kafka's numbers.
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::EVERY.into_iter().filter(move |operation| self.contains(*operation))
    }

    /// As the protocol's fields of authorized operations carry them (KIP-430): one bit at each operation's number.
    pub const fn to_wire(self) -> i32 {
        (self.0 as i32) << 2
    }
}

impl From<Vec<Operation>> for Operations {
    fn from(operations: Vec<Operation>) -> Operations {
        Operations::of(&operations)
    }
}

impl From<Operations> for Vec<Operation> {
    fn from(operations: Operations) -> Vec<Operation> {
        operations.iter().collect()
    }
}

impl FromIterator<Operation> for Operations {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Operations {
        operations.into_iter().fold(Operations::default(), |mut all, operation| {
            all.insert(operation);
            all
        })
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::acl::ResourceType;

    #[test]
    fn operations_have_kafkas_numbers() {
        let numbers: Vec<i8> = Operation::EVERY.into_iter().map(Operation::to_wire).collect();
        assert_eq!(numbers, (2..=15).collect::<Vec<i8>>());
        for operation in Operation::EVERY {
            assert_eq!(Operation::from_wire(operation.to_wire()), Some(operation));
        }
        for raw in [-1, 0, 1, 16, i8::MIN, i8::MAX] {
            assert_eq!(Operation::from_wire(raw), None, "{raw}");
        }
    }

    #[test]
    fn authorized_operations_are_those_that_kafka_sends_without_an_authorizer() {
        // Recorded from Apache Kafka.
        assert_eq!(ResourceType::Topic.operations().to_wire(), 3576);
        assert_eq!(ResourceType::Group.operations().to_wire(), 3400);
        assert_eq!(ResourceType::Cluster.operations().to_wire(), 8096);
    }
}
