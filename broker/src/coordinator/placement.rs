//! Which partition of `__consumer_offsets` a group belongs to.

use std::num::NonZeroU32;

use varve_metadata::model::PartitionIndex;

/// The partition of `__consumer_offsets` that holds `group_id`: Java's `String.hashCode`, made positive, modulo
/// `partitions`. A topic written by Kafka therefore keeps its groups where they are.
pub fn partition_for(group_id: &str, partitions: NonZeroU32) -> PartitionIndex {
    let hash = group_id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's abs: the one number without a positive counterpart counts as 0.
    let positive = hash.checked_abs().unwrap_or(0).unsigned_abs();
    PartitionIndex(positive % partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_fifty(group_id: &str) -> u32 {
        partition_for(group_id, NonZeroU32::new(50).unwrap()).0
    }

    #[test]
    fn groups_lie_where_kafka_puts_them() {
        // Computed with Java's String.hashCode.
        assert_eq!(of_fifty(""), 0);
        assert_eq!(of_fifty("my-group"), 12);
        assert_eq!(of_fifty("console-consumer-12345"), 6);
        assert_eq!(of_fifty("grüße"), 23);
    }

    #[test]
    fn the_smallest_hash_counts_as_zero() {
        // A well-known string whose Java hash is i32::MIN.
        assert_eq!(of_fifty("polygenelubricants"), 0);
    }

    #[test]
    fn characters_outside_the_basic_plane_count_as_two_units() {
        assert_eq!(of_fifty("\u{1F600}"), 49);
    }
}
