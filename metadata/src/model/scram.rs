//! What a cluster keeps of a password (RFC 5802): enough to check whoever claims to know it, and not the password.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The two hash functions that Kafka has SCRAM with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScramMechanism {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl ScramMechanism {
    /// Both.
    pub const ALL: [ScramMechanism; 2] = [ScramMechanism::Sha256, ScramMechanism::Sha512];
    /// The fewest rounds of hashing that a credential may have.
    pub const MIN_ITERATIONS: u32 = 4096;
    /// The most: every login costs a client that many.
    pub const MAX_ITERATIONS: u32 = 16_384;

    /// The name in SASL.
    pub const fn name(self) -> &'static str {
        match self {
            ScramMechanism::Sha256 => "SCRAM-SHA-256",
            ScramMechanism::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// By its name in SASL.
    pub fn parse(name: &str) -> Option<ScramMechanism> {
        ScramMechanism::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// By Kafka's number (KIP-554).
    pub fn from_wire(number: i8) -> Option<ScramMechanism> {
        ScramMechanism::ALL.into_iter().find(|mechanism| mechanism.to_wire() == number)
    }

    /// Kafka's number (KIP-554).
    pub const fn to_wire(self) -> i8 {
        match self {
            ScramMechanism::Sha256 => 1,
            ScramMechanism::Sha512 => 2,
        }
    }
}

/// One user's password in one mechanism, hashed. It prints without what is in it: who has it can guess at the password, and
/// pass for the server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramCredential {
    /// What the password was hashed with.
    pub salt: Vec<u8>,
    /// Hash of the key that a client proves to have.
    pub stored_key: Vec<u8>,
    /// The key by which the server proves that it knows the user.
    pub server_key: Vec<u8>,
    /// Rounds of hashing.
    pub iterations: u32,
}

impl fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_prints_nothing_of_itself() {
        let credential = ScramCredential { salt: vec![1], stored_key: vec![2], server_key: vec![3], iterations: 4096 };
        assert_eq!(format!("{credential:?}"), "[hidden]");
    }

    #[test]
    fn mechanisms_have_kafkas_names_and_numbers() {
        for mechanism in ScramMechanism::ALL {
            assert_eq!(ScramMechanism::parse(mechanism.name()), Some(mechanism));
            assert_eq!(ScramMechanism::from_wire(mechanism.to_wire()), Some(mechanism));
        }
        assert_eq!((ScramMechanism::parse("PLAIN"), ScramMechanism::from_wire(0)), (None, None));
    }
}
