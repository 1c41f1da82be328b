//! What an object is made of beside its batches, and the knobs of the encoder.

use bytes::Bytes;
use varve_log::local::AbortedTxn;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionId};

/// What one object covers, and the state that goes with that range.
#[derive(Clone, Debug)]
pub struct TableMeta {
    /// Whose records these are.
    pub partition: PartitionId,
    /// First offset that the object answers for; the first batch may start later where compaction left a gap.
    pub base: Offset,
    /// The offset behind the last one that the object answers for.
    pub end: Offset,
    /// Leader epochs and their first offsets, ascending: those that overlap the range.
    pub leader_epochs: Vec<(LeaderEpoch, Offset)>,
    /// Aborted transactions that overlap the range.
    pub aborted: Vec<AbortedTxn>,
    /// Producer state at `end`, in Kafka's `.snapshot` format.
    pub producers: Option<Bytes>,
}

/// Sizes that shape an object. The defaults are those that were measured.
#[derive(Clone, Debug)]
pub struct EncodeOptions {
    /// Uncompressed record bytes after which a row group is closed, at a batch boundary.
    pub group_bytes: usize,
    /// Batches after which a row group is closed however small they are, so that its batch table stays small.
    pub group_batches: usize,
    /// Uncompressed bytes of a page.
    pub page_bytes: usize,
    /// Zstandard level of pages, 1 to 22.
    pub zstd_level: i32,
    /// Memory for the tag filter while it grows, in bytes; 0 leaves it out.
    pub tag_filter_max_bytes: usize,
    /// Expected share of false positives of the tag filter, above 0 and below 1.
    pub tag_filter_false_positives: f64,
}

impl Default for EncodeOptions {
    fn default() -> EncodeOptions {
        EncodeOptions {
            group_bytes: 16 << 20,
            group_batches: 1 << 16,
            page_bytes: 256 << 10,
            zstd_level: 1,
            tag_filter_max_bytes: 8 << 20,
            // The size comes in powers of two, so this is 0.5 to 3%, for 1 to 2% of an object of logs.
            tag_filter_false_positives: 0.03,
        }
    }
}
