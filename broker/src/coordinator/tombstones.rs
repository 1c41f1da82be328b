//! What ends at once may be very much: it goes to the log in batches that every topic takes.

/// Most bytes that the tombstones of one batch take up: much less than `max.message.bytes` usually allows.
const BATCH_BYTES: usize = 64 * 1024;
/// What a tombstone takes up beside its names.
const FRAME_BYTES: usize = 32;

/// Cuts `keys` into batches, in their order. `bytes` is the length of the names in a key; one that is longer than a batch is
/// alone in its own.
pub(super) fn batches<T>(keys: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::new();
    let mut room = 0;
    for key in keys {
        let needed = bytes(&key) + FRAME_BYTES;
        match batches.last_mut() {
            Some(batch) if needed <= room => batch.push(key),
            _ => {
                room = BATCH_BYTES;
                batches.push(vec![key]);
            }
        }
        room = room.saturating_sub(needed);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_full_before_the_next_begins_and_what_is_too_long_is_alone() {
        let half = BATCH_BYTES / 2 - FRAME_BYTES;
        let cut = batches(vec![half, half, 1, BATCH_BYTES, 1, half], |bytes| *bytes);
        assert_eq!(cut, [vec![half, half], vec![1], vec![BATCH_BYTES], vec![1, half]]);
        assert_eq!(batches(Vec::<usize>::new(), |bytes| *bytes), Vec::<Vec<usize>>::new());
    }
}
