//! What a topic asks of the codecs of its record batches.

use super::codec::Codec;

/// `compression.type` of a topic, with the level of the chosen codec (KIP-390).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicCompression {
    /// Batches are kept as the producer compressed them.
    #[default]
    Producer,
    /// Batches are rewritten with this codec unless they carry it already.
    /// The level is `None` where the codec has none, or where its own default was asked for (gzip's -1).
    Codec(Codec, Option<i32>),
}
