//! Every request in every version that was asked, cut short in its body; and those that change nothing, with one byte
//! changed: whether it still is a request must be the same for both.

use anyhow::Result;
use kafka_protocol::messages::ApiKey;
use varve_tests::{
    differential::{Pair, raw_frame},
    workload::Random,
};

/// Requests that neither change much nor wait for something.
const HARMLESS: [ApiKey; 15] = [
    ApiKey::ListOffsets,
    ApiKey::OffsetFetch,
    ApiKey::OffsetCommit,
    ApiKey::FindCoordinator,
    ApiKey::Heartbeat,
    ApiKey::LeaveGroup,
    ApiKey::DescribeGroups,
    ApiKey::ListGroups,
    ApiKey::ApiVersions,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::DescribeConfigs,
    ApiKey::DescribeLogDirs,
    ApiKey::OffsetDelete,
    ApiKey::DescribeCluster,
    ApiKey::DescribeTopicPartitions,
];
/// Changes of each request and version.
const CHANGES: u64 = 24;

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    let mut random = Random(1);
    for ((key, version), [kafkas, varves]) in pair.samples.clone() {
        let head = raw_frame(key, version, &[])?.len();
        let shortest = kafkas.len().min(varves.len()).saturating_sub(head);
        // Nothing, half, and all but the last byte.
        let mut lengths = vec![0, shortest / 2, shortest.saturating_sub(1)];
        lengths.dedup();
        for length in lengths.into_iter().filter(|length| *length < shortest) {
            pair.ask_bytes(&format!("cut-{key}-v{version}-to-{length}"), |side| {
                let whole = if side.is_kafka() { &kafkas } else { &varves };
                raw_frame(key, version, &whole[head..head + length])
            })?;
            // Whoever took it for a whole one would mix the rest with the next.
            pair.hang_up();
        }
        if shortest == 0 || HARMLESS.iter().all(|harmless| *harmless as i16 != key) {
            continue;
        }
        for _ in 0..CHANGES {
            let at = random.below(shortest as u64) as usize;
            let was = kafkas[head + at];
            // Lengths and counts become nothing, small and large. Those below -1 are told apart, and so is what is no text.
            let becomes = [0, 1, b'~', 0x7f][random.below(4) as usize];
            if was == 0xff {
                continue;
            }
            pair.ask_outcome(&format!("changed-{key}-v{version}-at-{at}-from-{was:02x}-to-{becomes:02x}"), |side| {
                let mut frame = if side.is_kafka() { kafkas.clone() } else { varves.clone() };
                frame[head + at] = becomes;
                frame
            })?;
        }
    }
    Ok(())
}
