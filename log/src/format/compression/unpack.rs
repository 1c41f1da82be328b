//! Compressed records a piece at a time, for who looks at them in order and keeps none: a payload of a megabyte may unpack to
//! gigabytes.

use std::io::Read;

use varve_metadata::config::Codec;

use super::{CodecError, lz4, reserve, snappy};

/// Bytes that are unpacked at a time where the codec leaves the choice.
const PIECE_BYTES: usize = 16 * 1024;

/// What a payload unpacks to, as far as it was asked for.
///
/// Holds a piece and what the codec must look back at: 64 KiB and a block of at most 4 MiB for lz4, a block for snappy (32 KiB
/// in what Kafka writes, and never more than 32 times the payload), the window for zstd (8 MiB in what Kafka writes, at most
/// 128 MiB).
pub(in crate::format) struct Unpacking<'a> {
    codec: Codec,
    source: Source<'a>,
    unpacked: Vec<u8>,
    /// Where in `unpacked` that begins which nobody took.
    start: usize,
}

enum Source<'a> {
    Plain(&'a [u8]),
    Stream(Box<dyn Read + 'a>),
    Lz4(lz4::Blocks<'a>),
    Snappy(snappy::Blocks<'a>),
}

impl<'a> Unpacking<'a> {
    /// # Errors
    /// [`CodecError`] if the payload does not begin as the codec's do.
    pub(in crate::format) fn new(codec: Codec, payload: &'a [u8]) -> Result<Unpacking<'a>, CodecError> {
        let source = match codec {
            Codec::None => Source::Plain(payload),
            Codec::Gzip => Source::Stream(Box::new(flate2::read::MultiGzDecoder::new(payload))),
            Codec::Snappy => Source::Snappy(snappy::Blocks::open(payload)?),
            Codec::Lz4 => Source::Lz4(lz4::Blocks::open(payload)?),
            Codec::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(payload);
                Source::Stream(Box::new(decoder.map_err(|_| CodecError::Compressor(codec))?))
            }
        };
        Ok(Unpacking { codec, source, unpacked: Vec::new(), start: 0 })
    }

    /// The next bytes: `wanted` of them and maybe more, or fewer at the end.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not the codec's.
    pub(in crate::format) fn peek(&mut self, wanted: usize) -> Result<&[u8], CodecError> {
        if let Source::Plain(rest) = self.source {
            return Ok(rest);
        }
        while self.unpacked.len() - self.start < wanted && self.unpack()? {}
        Ok(&self.unpacked[self.start..])
    }

    /// Steps over `bytes`; `false` if there are fewer.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not the codec's.
    pub(in crate::format) fn skip(&mut self, mut bytes: usize) -> Result<bool, CodecError> {
        if let Source::Plain(rest) = &mut self.source {
            let there = rest.len() >= bytes;
            *rest = rest.get(bytes..).unwrap_or_default();
            return Ok(there);
        }
        loop {
            let here = bytes.min(self.unpacked.len() - self.start);
            self.start += here;
            bytes -= here;
            if bytes == 0 {
                return Ok(true);
            }
            if !self.unpack()? {
                return Ok(false);
            }
        }
    }

    /// Appends a piece to `unpacked`, less what nobody needs any more; `false` at the end.
    fn unpack(&mut self) -> Result<bool, CodecError> {
        let looked_back_at = if let Source::Lz4(_) = self.source { lz4::WINDOW_BYTES } else { 0 };
        let gone = self.start.saturating_sub(looked_back_at);
        self.unpacked.drain(..gone);
        self.start -= gone;
        match &mut self.source {
            Source::Plain(_) => Ok(false),
            Source::Lz4(blocks) => blocks.next(&mut self.unpacked, usize::MAX),
            Source::Snappy(blocks) => blocks.next(&mut self.unpacked, usize::MAX),
            Source::Stream(stream) => {
                let before = self.unpacked.len();
                reserve(&mut self.unpacked, PIECE_BYTES, self.codec)?;
                let mut piece = stream.take(PIECE_BYTES as u64);
                piece
                    .read_to_end(&mut self.unpacked)
                    .map_err(|_| CodecError::Corrupt { codec: self.codec, reason: "stream does not decode" })?;
                Ok(self.unpacked.len() > before)
            }
        }
    }
}
