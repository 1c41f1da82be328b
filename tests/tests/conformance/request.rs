//! Short words for the parts of requests.

use kafka_protocol::{
    messages::{GroupId, TopicName},
    protocol::StrBytes,
};
use uuid::Uuid;
use varve_tests::differential::Side;

pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(crate) fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

pub(crate) fn versions(min: i16, max: i16) -> Vec<i16> {
    (min..=max).collect()
}

/// The id that this broker gave to the topic.
pub(crate) fn id_of(side: &Side, topic: &str) -> Uuid {
    Uuid::parse_str(side.value(&format!("id of {topic}"))).unwrap_or_default()
}

/// An id that no topic has.
pub(crate) const NOBODYS_ID: Uuid = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);
