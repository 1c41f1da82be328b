//! The tag filter: "was this key, or this header with this value, ever in this object?" from one 32-byte read.
//!
//! A split-block Bloom filter as Parquet defines it (xxHash64, eight 32-bit words a block, one bit in each), over tokens:
//!
//! ```text
//! key     'k' key
//! header  'h' length of the header's key (u32, little-endian) key value      null values have no token
//! ```
//! The blob is the blocks alone, their number a power of two, so that two neighbours can be folded into one: the filter
//! starts at its largest size and shrinks to what was inserted, without a count of distinct tokens up front.

use std::ops::Range;

use twox_hash::XxHash64;

/// Bytes of one block: what a probe reads.
pub const BLOCK_BYTES: u64 = 32;

const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Hash of one thing that can be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u64);

impl Tag {
    /// A record key.
    pub fn key(key: &[u8]) -> Tag {
        let mut hasher = XxHash64::with_seed(0);
        std::hash::Hasher::write(&mut hasher, b"k");
        std::hash::Hasher::write(&mut hasher, key);
        Tag(std::hash::Hasher::finish(&hasher))
    }

    /// A header with this key and value.
    pub fn header(key: &[u8], value: &[u8]) -> Tag {
        let mut hasher = XxHash64::with_seed(0);
        std::hash::Hasher::write(&mut hasher, b"h");
        std::hash::Hasher::write(&mut hasher, &(key.len() as u32).to_le_bytes());
        std::hash::Hasher::write(&mut hasher, key);
        std::hash::Hasher::write(&mut hasher, value);
        Tag(std::hash::Hasher::finish(&hasher))
    }

    /// The bytes, inside a filter blob of `filter_bytes`, that answer for this tag; `None` if that is no filter.
    pub fn block(self, filter_bytes: u64) -> Option<Range<u64>> {
        let blocks = filter_bytes / BLOCK_BYTES;
        if blocks == 0 || !blocks.is_power_of_two() || blocks > u64::from(u32::MAX) {
            return None;
        }
        let at = block_index(self.0, blocks) * BLOCK_BYTES;
        Some(at..at + BLOCK_BYTES)
    }

    /// Whether `block`, read from where [`block`](Self::block) said, may hold this tag. `false` is certain.
    pub fn may_be_in(self, block: &[u8; BLOCK_BYTES as usize]) -> bool {
        let words =
            block.chunks_exact(4).map(|word| word.iter().rev().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)));
        words.zip(mask(self.0)).all(|(word, bit)| word & bit != 0)
    }
}

fn block_index(hash: u64, blocks: u64) -> u64 {
    ((hash >> 32) * blocks) >> 32
}

fn mask(hash: u64) -> [u32; 8] {
    SALT.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
}

/// Gathers the tags of one object.
pub(crate) struct TagFilter {
    blocks: Vec<[u32; 8]>,
    /// Tags seen lately, by their low bits: most headers repeat, and a repeat costs no cache miss in `blocks`.
    recent: Vec<u64>,
}

const RECENT: usize = 4096;

impl TagFilter {
    /// A filter of at most `max_bytes` (rounded down to a power of two of blocks, one at least).
    pub(crate) fn new(max_bytes: usize) -> TagFilter {
        let blocks = (max_bytes / BLOCK_BYTES as usize).max(1);
        let blocks = if blocks.is_power_of_two() { blocks } else { blocks.next_power_of_two() / 2 };
        let mut recent = vec![0; RECENT];
        // Zero's own place must not look as if zero had been seen.
        recent[0] = 1;
        TagFilter { blocks: vec![[0; 8]; blocks], recent }
    }

    pub(crate) fn insert(&mut self, Tag(hash): Tag) {
        let recent = &mut self.recent[hash as usize % RECENT];
        if *recent == hash {
            return;
        }
        *recent = hash;
        let at = block_index(hash, self.blocks.len() as u64) as usize;
        for (word, bit) in self.blocks[at].iter_mut().zip(mask(hash)) {
            *word |= bit;
        }
    }

    /// The smallest filter whose expected rate of false positives is still at most `false_positives`; empty if nothing
    /// was inserted.
    pub(crate) fn finish(mut self, false_positives: f64) -> Vec<u8> {
        let set: u64 = self.blocks.iter().flatten().map(|word| u64::from(word.count_ones())).sum();
        if set == 0 {
            return Vec::new();
        }
        let mut empty = 1.0 - set as f64 / (self.blocks.len() as f64 * 256.0);
        // Folding two blocks into one leaves a bit empty where both were: the share of empty bits is squared.
        while self.blocks.len() > 1 && (1.0 - empty * empty).powi(8) <= false_positives {
            empty *= empty;
            self.blocks = self
                .blocks
                .chunks_exact(2)
                .map(|pair| std::array::from_fn(|word| pair[0][word] | pair[1][word]))
                .collect();
        }
        self.blocks.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(filter: &[u8], tag: Tag) -> bool {
        let block = tag.block(filter.len() as u64).expect("a filter");
        tag.may_be_in(filter[block.start as usize..block.end as usize].try_into().expect("32 bytes"))
    }

    #[test]
    fn what_was_inserted_is_always_found_and_little_else() {
        let mut filter = TagFilter::new(1 << 20);
        let tags = |from: u32, to: u32| (from..to).map(|n| Tag::header(b"trace", &n.to_be_bytes()));
        tags(0, 20_000).for_each(|tag| filter.insert(tag));
        let filter = filter.finish(0.01);
        assert!(tags(0, 20_000).all(|tag| found(&filter, tag)));
        let wrong = tags(20_000, 60_000).filter(|tag| found(&filter, *tag)).count();
        assert!(wrong < 800, "{wrong} of 40000 false positives");
        assert!(filter.len() < 64 << 10, "folded to {} bytes", filter.len());
    }

    #[test]
    fn a_key_and_a_header_of_the_same_bytes_are_different_tags() {
        assert_ne!(Tag::key(b"ab"), Tag::header(b"a", b"b"));
        assert_ne!(Tag::header(b"a", b"bc"), Tag::header(b"ab", b"c"));
    }

    #[test]
    fn nothing_inserted_is_no_filter() {
        assert!(TagFilter::new(1 << 10).finish(0.01).is_empty());
        assert_eq!(Tag::key(b"a").block(0), None);
    }
}
