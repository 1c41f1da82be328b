//! The codecs of a record batch in the framings that Kafka's clients write and read.
//!
//! | codec | written | read as well |
//! |---|---|---|
//! | gzip | one member (RFC 1952) | several members one after another |
//! | snappy | xerial's framing, blocks of 32 KiB | bare snappy (librdkafka), several framed streams |
//! | lz4 | LZ4 frame, independent blocks of 64 KiB, no checksums | larger and linked blocks, block checksums, content size |
//! | zstd | one frame (RFC 8878) | several frames, with or without content size |
//!
//! Nothing here trusts a length that it finds in the bytes: output grows no further than what the input can yield and
//! never beyond the caller's limit.

mod lz4;
mod snappy;
mod unpack;

use std::{
    borrow::Cow,
    cell::RefCell,
    io::{ErrorKind, Read, Write},
};

pub(super) use unpack::Unpacking;
use varve_metadata::config::Codec;

/// Why a payload was not decompressed or compressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not what the codec writes. A producer gets CORRUPT_MESSAGE.
    #[error("{codec} data is corrupt: {reason}")]
    Corrupt {
        /// Codec that the batch claims.
        codec: Codec,
        /// What did not hold.
        reason: &'static str,
    },
    /// The records are larger than the caller allows.
    #[error("{codec} data holds more than {limit} bytes")]
    TooLarge {
        /// Codec that the batch claims.
        codec: Codec,
        /// Most bytes that the caller takes.
        limit: usize,
    },
    /// There is no memory for the records, which are within the limit.
    #[error("no memory for {bytes} bytes of decompressed {codec} data")]
    NoMemory {
        /// Codec that the batch claims.
        codec: Codec,
        /// What was asked for.
        bytes: usize,
    },
    /// The library did not compress, which only a lack of memory explains.
    #[error("{0} compressor failed")]
    Compressor(Codec),
}

/// The records within `payload`, which `codec` compressed; borrowed where there is nothing to do.
///
/// Takes no more than `limit` bytes of memory for the output and, beside it, the codec's fixed tables (at most 200 KiB).
///
/// # Errors
/// [`CodecError::TooLarge`] if the records exceed `limit` bytes; [`CodecError::Corrupt`] if the bytes are not the codec's;
/// [`CodecError::NoMemory`] if the allocator refuses what they need.
pub fn decompress(codec: Codec, payload: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, CodecError> {
    match codec {
        Codec::None if payload.len() > limit => Err(CodecError::TooLarge { codec, limit }),
        Codec::None => Ok(Cow::Borrowed(payload)),
        Codec::Gzip => gunzip(payload, limit).map(Cow::Owned),
        Codec::Snappy => snappy::decompress(payload, limit).map(Cow::Owned),
        Codec::Lz4 => lz4::decompress(payload, limit).map(Cow::Owned),
        Codec::Zstd => unzstd(payload, limit).map(Cow::Owned),
    }
}

/// `records` compressed as Kafka's producer would; a copy for [`Codec::None`].
///
/// `level`: that of `compression.<codec>.level`, the codec's default if `None`; brought into the codec's range.
///
/// # Errors
/// [`CodecError::Compressor`] if the library fails.
pub fn compress(codec: Codec, level: Option<i32>, records: &[u8]) -> Result<Vec<u8>, CodecError> {
    let level = match (codec.levels(), codec.default_level()) {
        (Some(range), Some(default)) => match level {
            Some(level) if level != default => level.clamp(*range.start(), *range.end()),
            _ => default,
        },
        _ => 0,
    };
    match codec {
        Codec::None => Ok(records.to_vec()),
        Codec::Gzip => gzip(records, level),
        Codec::Snappy => snappy::compress(records),
        Codec::Lz4 => lz4::compress(records, level),
        Codec::Zstd => zstd::bulk::compress(records, level).map_err(|_| CodecError::Compressor(codec)),
    }
}

/// First guess at the size of the output: enough for most record batches, and cheap when the guess is wrong, since
/// memory that is reserved and not touched costs address space only.
fn first_guess(payload: &[u8], limit: usize) -> usize {
    payload.len().saturating_mul(8).max(16 * 1024).min(limit)
}

/// Room for `bytes` more in `out`, or an error: a payload must not end the process, whatever it unpacks to.
fn reserve(out: &mut Vec<u8>, bytes: usize, codec: Codec) -> Result<(), CodecError> {
    out.try_reserve(bytes).map_err(|_| CodecError::NoMemory { codec, bytes: out.len().saturating_add(bytes) })
}

fn gunzip(payload: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let codec = Codec::Gzip;
    let mut out = Vec::new();
    reserve(&mut out, first_guess(payload, limit), codec)?;
    // One byte over the limit tells "exactly full" from "more to come".
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    match flate2::read::MultiGzDecoder::new(payload).take(most).read_to_end(&mut out) {
        Ok(_) if out.len() > limit => Err(CodecError::TooLarge { codec, limit }),
        Ok(_) => Ok(out),
        Err(error) if error.kind() == ErrorKind::OutOfMemory => Err(CodecError::NoMemory { codec, bytes: out.len() }),
        Err(_) => Err(CodecError::Corrupt { codec, reason: "not a gzip stream" }),
    }
}

fn gzip(records: &[u8], level: i32) -> Result<Vec<u8>, CodecError> {
    let level = u32::try_from(level).map_or(flate2::Compression::default(), flate2::Compression::new);
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(records.len() / 2 + 64), level);
    encoder.write_all(records).and_then(|()| encoder.finish()).map_err(|_| CodecError::Compressor(Codec::Gzip))
}

thread_local! {
    // A decompressor's tables are larger than most batches; setting them up anew for each one would dominate.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// In one step into one buffer: the streaming interface would allocate the window that the frame asks for.
fn unzstd(payload: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let codec = Codec::Zstd;
    let corrupt = |reason| CodecError::Corrupt { codec, reason };
    if payload.is_empty() {
        return Err(corrupt("no frame"));
    }
    // What the frames state where they do, else what their blocks can hold: a hint for the first guess, and nobody needs
    // more. A false one costs a retry or a refusal, not memory.
    let bound = zstd::zstd_safe::decompress_bound(payload).map_err(|_| corrupt("frame does not decode"))?;
    let bound = usize::try_from(bound).unwrap_or(usize::MAX);
    let most = bound.min(limit);
    let mut guess = first_guess(payload, most);
    ZSTD.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(zstd::bulk::Decompressor::new().map_err(|_| CodecError::Compressor(codec))?),
        };
        loop {
            let mut out = Vec::new();
            reserve(&mut out, guess, codec)?;
            match decompressor.decompress_to_buffer(payload, &mut out) {
                Ok(_) if out.len() > limit => return Err(CodecError::TooLarge { codec, limit }),
                Ok(_) => return Ok(out),
                // The library's error does not say in its type whether the buffer was too small; its text does.
                Err(error) if !error.to_string().contains("too small") => return Err(corrupt("frame does not decode")),
                Err(_) if guess < most => guess = guess.saturating_mul(4).min(most),
                Err(_) if bound <= limit => return Err(corrupt("holds more than a frame of its kind can")),
                Err(_) => return Err(CodecError::TooLarge { codec, limit }),
            }
        }
    })
}

#[cfg(test)]
mod tests;
