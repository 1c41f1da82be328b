//! Names and ids of brokers, topics and partitions.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A broker's `node.id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BrokerId(pub u32);

impl BrokerId {
    /// `None` for -1, the protocol's "no broker".
    pub fn from_wire(raw: i32) -> Option<BrokerId> {
        u32::try_from(raw).ok().map(BrokerId)
    }

    /// The protocol's signed form.
    pub const fn to_wire(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a topic for its whole life (KIP-516): a topic deleted and made again under its name is another topic.
/// Written as Kafka writes it: 22 characters of unpadded base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(Uuid);

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl TopicId {
    /// `None` for the nil id and for 1, which the protocol reserves (the metadata topic of KRaft).
    pub fn from_wire(raw: Uuid) -> Option<TopicId> {
        (raw.as_u128() > 1).then_some(TopicId(raw))
    }

    /// A new random id whose text does not start with `-`, so that command lines take it (as Kafka does).
    pub fn random() -> TopicId {
        loop {
            let id = TopicId(Uuid::new_v4());
            if !id.to_string().starts_with('-') {
                return id;
            }
        }
    }

    /// The id as the wire carries it.
    pub const fn to_wire(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.as_u128();
        // 128 bits are 21 sextets and 2 bits, which fill the high end of a last sextet.
        let text: String = (0..22)
            .map(|place| {
                let sextet = if place < 21 { bits >> (122 - 6 * place) } else { bits << 4 };
                char::from(BASE64_URL[(sextet & 63) as usize])
            })
            .collect();
        f.pad(&text)
    }
}

impl FromStr for TopicId {
    type Err = TopicNameError;

    fn from_str(text: &str) -> Result<TopicId, TopicNameError> {
        let refused = || TopicNameError::NotAnId(text.to_owned());
        if text.len() != 22 {
            return Err(refused());
        }
        let mut bits: u128 = 0;
        for (place, byte) in text.bytes().enumerate() {
            let sextet = BASE64_URL.iter().position(|&letter| letter == byte).ok_or_else(refused)? as u128;
            bits |= if place < 21 { sextet << (122 - 6 * place) } else { sextet >> 4 };
        }
        TopicId::from_wire(Uuid::from_u128(bits)).ok_or_else(refused)
    }
}

/// A topic's name: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..` (Kafka's rule).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicName(Arc<str>);

/// Why a text is no topic name or id. The texts are those that Kafka's users search for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// The name has no characters.
    #[error("Topic name is invalid: the empty string is not allowed")]
    Empty,
    /// The name is `.` or `..`.
    #[error("Topic name is invalid: '{0}' is not allowed")]
    Dots(String),
    /// More than 249 characters.
    #[error("Topic name is invalid: the length of '{0}' is longer than the max allowed length 249")]
    TooLong(String),
    /// A character outside the allowed set.
    #[error(
        "Topic name is invalid: '{0}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    )]
    Characters(String),
    /// Not 22 characters of base64url, or a reserved id.
    #[error("'{0}' is not a topic id (22 characters of base64url)")]
    NotAnId(String),
}

impl TopicName {
    /// Longest name that a directory `<topic>-<partition>` can hold.
    pub const MAX_LENGTH: usize = 249;

    /// Checks `name` against Kafka's rule.
    ///
    /// # Errors
    /// [`TopicNameError`] says which part of the rule `name` breaks.
    pub fn parse(name: &str) -> Result<TopicName, TopicNameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        match name {
            "" => Err(TopicNameError::Empty),
            "." | ".." => Err(TopicNameError::Dots(name.to_owned())),
            _ if name.len() > TopicName::MAX_LENGTH => Err(TopicNameError::TooLong(name.to_owned())),
            _ if !name.bytes().all(allowed) => Err(TopicNameError::Characters(name.to_owned())),
            _ => Ok(TopicName(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `other` would share this name's metrics: Kafka refuses names that differ only in `.` against `_`.
    pub fn collides_with(&self, other: &TopicName) -> bool {
        self.0.len() == other.0.len()
            && self.0.bytes().zip(other.0.bytes()).all(|(a, b)| {
                let fold = |byte| if byte == b'.' { b'_' } else { byte };
                fold(a) == fold(b)
            })
    }
}

/// So that maps by name can be asked with plain text; `Ord` and `Hash` of the two agree.
impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for TopicName {
    type Error = TopicNameError;

    fn try_from(name: String) -> Result<TopicName, TopicNameError> {
        TopicName::parse(&name)
    }
}

impl From<TopicName> for String {
    fn from(name: TopicName) -> String {
        name.0.as_ref().to_owned()
    }
}

/// Number of a partition within its topic, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionIndex(pub u32);

impl PartitionIndex {
    /// `None` for a negative number.
    pub fn from_wire(raw: i32) -> Option<PartitionIndex> {
        u32::try_from(raw).ok().map(PartitionIndex)
    }

    /// The protocol's signed form.
    pub const fn to_wire(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Display for PartitionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one topic, for ever: survives renames and re-creation under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The topic's id.
    pub topic: TopicId,
    /// Number within the topic.
    pub index: PartitionIndex,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_id_is_written_as_kafka_writes_it() {
        // Recorded from Kafka: the id of KRaft's metadata topic is ...0001, a reserved one.
        let reserved = Uuid::from_u128(1);
        assert_eq!(TopicId::from_wire(reserved), None);
        assert_eq!(TopicId(reserved).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }

    #[test]
    fn a_topic_id_survives_its_text() {
        for _ in 0..100 {
            let id = TopicId::random();
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!("AAAAAAAAAAAAAAAAAAAAAQ".parse::<TopicId>().is_err());
        assert!("short".parse::<TopicId>().is_err());
    }

    #[test]
    fn topic_names_follow_kafkas_rule() {
        assert!(TopicName::parse("web.clicks_2-x").is_ok());
        assert_eq!(TopicName::parse(""), Err(TopicNameError::Empty));
        assert!(matches!(TopicName::parse(".."), Err(TopicNameError::Dots(_))));
        assert!(matches!(TopicName::parse("a b"), Err(TopicNameError::Characters(_))));
        assert!(matches!(TopicName::parse(&"x".repeat(250)), Err(TopicNameError::TooLong(_))));
    }

    #[test]
    fn names_that_differ_in_dot_and_underscore_collide() {
        let name = |text| TopicName::parse(text).expect("valid");
        assert!(name("a.b_c").collides_with(&name("a_b.c")));
        assert!(!name("a.b").collides_with(&name("a-b")));
    }
}
