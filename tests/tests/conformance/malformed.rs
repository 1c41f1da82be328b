//! Every request in every version that was asked, cut short in its body.

use anyhow::Result;
use varve_tests::differential::{Pair, raw_frame};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
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
    }
    Ok(())
}
