//! The latest offset of each key, in bounded memory.

use twox_hash::XxHash3_128;
use varve_metadata::model::Offset;

/// 16 bytes that stand for a key. Two keys of one log with the same digest would be taken for one key; with 2^32 keys the
/// odds are below 1 in 10^19. Whoever may write the topic gains nothing from a collision: it may overwrite the key itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest(u128);

impl KeyDigest {
    /// The digest of `key`. It never leaves the process, so it may change between versions.
    pub fn of(key: &[u8]) -> KeyDigest {
        KeyDigest(XxHash3_128::oneshot(key))
    }

    /// The bare number, well mixed in every bit: for sharding and for filters.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl From<u128> for KeyDigest {
    /// The digest that [`KeyDigest::get`] gave.
    fn from(raw: u128) -> KeyDigest {
        KeyDigest(raw)
    }
}

/// One slot: the digest in two halves, and the offset plus one; 0 is a free slot.
type Slot = [u64; 3];
const SLOT_BYTES: usize = size_of::<Slot>();
const FIRST_SLOTS: usize = 1024;

/// Digest of key → latest offset: an open-addressing table that grows up to a bound and then says that it is full.
#[derive(Debug)]
pub struct OffsetMap {
    slots: Vec<Slot>,
    len: usize,
    most_slots: usize,
    end: Offset,
}

impl OffsetMap {
    /// An empty map that takes at most `memory_bytes`, growing included (`log.cleaner.dedupe.buffer.size`), but room for
    /// 768 keys in any case.
    pub fn new(memory_bytes: usize) -> OffsetMap {
        // While it grows, the old table of half the size lives beside the new one.
        let affordable = memory_bytes / SLOT_BYTES * 2 / 3;
        let most_slots = if affordable < FIRST_SLOTS { FIRST_SLOTS } else { 1 << affordable.ilog2() };
        OffsetMap { slots: vec![[0; 3]; FIRST_SLOTS], len: 0, most_slots, end: Offset::ZERO }
    }

    /// Notes that `key` occurs at `offset`, later than all noted before. Returns whether there was room.
    pub fn put(&mut self, key: KeyDigest, offset: Offset) -> bool {
        let mut place = self.find(key);
        if self.slots[place][2] == 0 {
            // At three quarters, probing is still short.
            if (self.len + 1) * 4 > self.slots.len() * 3 {
                if self.slots.len() >= self.most_slots {
                    return false;
                }
                self.grow();
                place = self.find(key);
            }
            self.len += 1;
        }
        let [low, high] = halves(key);
        self.slots[place] = [low, high, offset.get() + 1];
        true
    }

    /// The latest offset noted for `key`.
    pub fn get(&self, key: KeyDigest) -> Option<Offset> {
        self.slots[self.find(key)][2].checked_sub(1).and_then(Offset::new)
    }

    /// Notes that the map knows every key below `end`.
    pub fn cover(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// First offset whose key the map does not know.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot of `key`, or the free one where it belongs. There is a free one: at most three quarters are taken.
    fn find(&self, key: KeyDigest) -> usize {
        let [low, high] = halves(key);
        let mask = self.slots.len() - 1;
        let mut place = low as usize & mask;
        loop {
            let slot = &self.slots[place];
            if slot[2] == 0 || (slot[0] == low && slot[1] == high) {
                return place;
            }
            place = (place + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let larger = vec![[0; 3]; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, larger).into_iter().filter(|slot| slot[2] != 0) {
            let place = self.find(KeyDigest(u128::from(slot[1]) << 64 | u128::from(slot[0])));
            self.slots[place] = slot;
        }
    }
}

fn halves(key: KeyDigest) -> [u64; 2] {
    [key.0 as u64, (key.0 >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_map_refuses_new_keys_and_takes_known_ones() {
        let mut map = OffsetMap::new(0);
        let fits = (0..10_000_u64).take_while(|key| map.put(KeyDigest::of(&key.to_be_bytes()), Offset::ZERO)).count();
        assert_eq!((fits, map.len()), (768, 768));
        assert!(map.put(KeyDigest::of(&5_u64.to_be_bytes()), Offset::MAX));
        assert_eq!(map.get(KeyDigest::of(&5_u64.to_be_bytes())), Some(Offset::MAX));
    }

    #[test]
    fn growing_keeps_to_the_memory_allowed() {
        let memory = 1 << 20;
        let mut map = OffsetMap::new(memory);
        let fits =
            (0..1_000_000_u64).take_while(|key| map.put(KeyDigest::of(&key.to_be_bytes()), Offset::ZERO)).count();
        assert!(map.slots.len() * SLOT_BYTES * 3 / 2 <= memory);
        assert!(fits > 10_000);
    }

    proptest! {
        #[test]
        fn the_map_agrees_with_a_naive_one(keys in proptest::collection::vec(0_u32..3000, 0..5000)) {
            let (mut map, mut naive) = (OffsetMap::new(1 << 20), HashMap::new());
            for (at, key) in keys.iter().enumerate() {
                let offset = Offset::new(at as u64).unwrap();
                prop_assert!(map.put(KeyDigest::of(&key.to_be_bytes()), offset));
                naive.insert(*key, offset);
            }
            prop_assert_eq!(map.len(), naive.len());
            for key in 0..3000_u32 {
                prop_assert_eq!(map.get(KeyDigest::of(&key.to_be_bytes())), naive.get(&key).copied());
            }
        }
    }
}
