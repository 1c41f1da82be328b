//! The part of the consumer protocol that the coordinator reads: the topics a member subscribes to.
//!
//! ```text
//!   version: int16 │ topics: int32 count, then int16 length + UTF-8 each │ … (not read)
//! ```
//! Version 0 is the prefix of every later version, so one reading serves all (KIP-429, KIP-792).

use std::collections::BTreeSet;

/// The protocol type of ordinary consumers; only its metadata is understood here.
pub(super) const CONSUMER: &str = "consumer";

/// Adds the topics of one member's subscription to `topics`. `None` if `metadata` is not a subscription.
pub(super) fn collect_topics(metadata: &[u8], topics: &mut BTreeSet<String>) -> Option<()> {
    let (_version, rest) = metadata.split_first_chunk::<2>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    // Nothing is allocated by this number: each topic must be there before it is taken.
    for _ in 0..i32::from_be_bytes(*count).max(0) {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (topic, tail) = tail.split_at_checked(length)?;
        topics.insert(std::str::from_utf8(topic).ok()?.to_owned());
        rest = tail;
    }
    Some(())
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

    proptest! {
        #[test]
        fn arbitrary_metadata_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = collect_topics(&bytes, &mut BTreeSet::new());
        }
    }
}
