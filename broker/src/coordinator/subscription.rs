//! The consumer protocol, as far as the coordinator reads and writes it: what members of classic groups subscribe to and
//! are assigned. Elsewhere these are bytes that only members understand.
//!
//! ```text
//!   subscription  int16 version │ topics: string[] │ user data: bytes? │ 1+: owned: { string topic │ int32[] }[] │
//!                 2+: int32 generation │ 3+: string? rack
//!   assignment    int16 version │ { string topic │ int32[] partitions }[] │ user data: bytes?
//! ```
//! A count is an int32, a string int16 length and UTF-8. Each version is the prefix of every later one (KIP-429, KIP-792,
//! KIP-881), so a later version is read as the newest that is known.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use varve_metadata::model::PartitionIndex;

/// The protocol type of ordinary consumers; only its metadata is understood here.
pub(super) const CONSUMER: &str = "consumer";

/// The newest version of both.
const NEWEST: i16 = 3;

/// Partitions by the topic's name.
pub(super) type NamedPartitions = BTreeMap<String, BTreeSet<PartitionIndex>>;

/// What a member subscribes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) topics: BTreeSet<String>,
    /// What it has, if it says so (cooperative rebalancing).
    pub(super) owned: NamedPartitions,
    pub(super) rack: Option<String>,
}

/// What a member was assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MemberAssignment {
    pub(super) partitions: NamedPartitions,
    /// The assignor of the members keeps something of its own in it.
    pub(super) has_user_data: bool,
}

/// Adds the topics of one member's subscription to `topics`. `None` if `metadata` is not a subscription.
pub(super) fn collect_topics(metadata: &[u8], topics: &mut BTreeSet<String>) -> Option<()> {
    let mut reader = Reader(metadata);
    reader.int16()?;
    topics.extend(reader.names()?);
    Some(())
}

/// The version in which something is written. `None` if there is none.
pub(super) fn version_of(bytes: &[u8]) -> Option<i16> {
    Reader(bytes).int16().filter(|version| *version >= 0)
}

impl Subscription {
    /// `None` if `metadata` is not a subscription.
    pub(super) fn parse(metadata: &[u8]) -> Option<Subscription> {
        let mut reader = Reader(metadata);
        let version = reader.int16().filter(|version| *version >= 0)?;
        let mut subscription = Subscription { topics: reader.names()?, ..Subscription::default() };
        reader.bytes()?;
        if version >= 1 {
            subscription.owned = reader.partitions()?;
        }
        if version >= 2 {
            reader.int32()?;
        }
        if version >= 3 {
            subscription.rack = reader.nullable_string()?;
        }
        Some(subscription)
    }
}

impl MemberAssignment {
    /// `None` if `bytes` are not an assignment. No bytes are an empty one.
    pub(super) fn parse(bytes: &[u8]) -> Option<MemberAssignment> {
        if bytes.is_empty() {
            return Some(MemberAssignment::default());
        }
        let mut reader = Reader(bytes);
        reader.int16().filter(|version| *version >= 0)?;
        let partitions = reader.partitions()?;
        Some(MemberAssignment { partitions, has_user_data: reader.bytes()?.is_some_and(|data| !data.is_empty()) })
    }
}

/// An assignment without user data, for a member that subscribed in `version`.
pub(super) fn encode_assignment(version: i16, partitions: &NamedPartitions) -> Bytes {
    let mut bytes = version.min(NEWEST).to_be_bytes().to_vec();
    bytes.extend((partitions.len() as i32).to_be_bytes());
    for (topic, partitions) in partitions {
        // Names of topics have 249 characters at most.
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
        bytes.extend((partitions.len() as i32).to_be_bytes());
        partitions.iter().for_each(|partition| bytes.extend(partition.to_wire().to_be_bytes()));
    }
    bytes.extend((-1i32).to_be_bytes());
    bytes.into()
}

/// Takes fields off the front; `None` where the bytes end early or make no sense. Nothing is allocated by a count: each
/// element must be there before it is taken.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn int16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn int32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn nullable_string(&mut self) -> Option<Option<String>> {
        match self.int16()? {
            -1 => Some(None),
            length => {
                let text = self.take(usize::try_from(length).ok()?)?;
                Some(Some(std::str::from_utf8(text).ok()?.to_owned()))
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        self.nullable_string()?
    }

    fn bytes(&mut self) -> Option<Option<&'a [u8]>> {
        match self.int32()? {
            -1 => Some(None),
            length => self.take(usize::try_from(length).ok()?).map(Some),
        }
    }

    fn names(&mut self) -> Option<BTreeSet<String>> {
        (0..self.int32()?.max(0)).map(|_| self.string()).collect()
    }

    fn partitions(&mut self) -> Option<NamedPartitions> {
        let mut partitions = NamedPartitions::new();
        for _ in 0..self.int32()?.max(0) {
            let of_topic = partitions.entry(self.string()?).or_default();
            for _ in 0..self.int32()?.max(0) {
                of_topic.insert(PartitionIndex::from_wire(self.int32()?)?);
            }
        }
        Some(partitions)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subscription(topics: &[&str]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend((topics.len() as i32).to_be_bytes());
        for topic in topics {
            bytes.extend((topic.len() as i16).to_be_bytes());
            bytes.extend(topic.as_bytes());
        }
        bytes.extend([0xff; 4]); // user data: null
        bytes
    }

    #[test]
    fn topics_of_a_later_version_are_read_through_its_prefix() {
        let mut topics = BTreeSet::new();
        collect_topics(&subscription(&["a", "b"]), &mut topics).unwrap();
        assert_eq!(topics, ["a".to_owned(), "b".to_owned()].into());
    }

    #[test]
    fn a_subscription_cut_short_is_no_subscription() {
        let bytes = subscription(&["orders"]);
        assert_eq!(collect_topics(&bytes[..10], &mut BTreeSet::new()), None);
    }

    #[test]
    fn what_a_member_of_the_cooperative_protocol_says_is_read() {
        let mut bytes = subscription(&["a"]);
        bytes[1] = 3;
        bytes.extend([0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4]); // owned: a-0, a-4
        bytes.extend([0, 0, 0, 7]); // generation
        bytes.extend([0, 2, b'r', b'1']);
        let parsed = Subscription::parse(&bytes).unwrap();
        assert_eq!(parsed.owned, [("a".to_owned(), [PartitionIndex(0), PartitionIndex(4)].into())].into());
        assert_eq!(parsed.rack.as_deref(), Some("r1"));
        assert_eq!(Subscription::parse(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn an_assignment_comes_back() {
        let partitions: NamedPartitions = [("orders".to_owned(), [PartitionIndex(1), PartitionIndex(3)].into())].into();
        let bytes = encode_assignment(1, &partitions);
        assert_eq!(MemberAssignment::parse(&bytes), Some(MemberAssignment { partitions, has_user_data: false }));
        assert_eq!(MemberAssignment::parse(&[]), Some(MemberAssignment::default()));
    }

    proptest! {
        #[test]
        fn arbitrary_metadata_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = collect_topics(&bytes, &mut BTreeSet::new());
            let _ = Subscription::parse(&bytes);
            let _ = MemberAssignment::parse(&bytes);
        }
    }
}
