//! Snappy in the framing of xerial's Java library, and bare.
//!
//! ```text
//! 82 'S' 'N' 'A' 'P' 'P' 'Y' 00 | version (4, BE) | lowest compatible version (4, BE)
//! block: bytes (4, BE) | bare snappy      … repeated; another header may stand where a block's length would
//! ```

use varve_metadata::config::Codec;

use super::CodecError;

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const HEADER_BYTES: usize = 16;
const VERSION: u32 = 1;
const BLOCK_BYTES: usize = 32 * 1024;
/// Snappy cannot expand by more: a copy of 64 bytes takes 2 or 3 bytes of input.
const MOST_EXPANSION: usize = 32;

const fn corrupt(reason: &'static str) -> CodecError {
    CodecError::Corrupt { codec: Codec::Snappy, reason }
}

pub(super) fn decompress(payload: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    if payload.is_empty() {
        return Err(corrupt("empty"));
    }
    let mut out = Vec::new();
    if payload.len() < HEADER_BYTES || !payload.starts_with(&MAGIC) {
        decompress_block(payload, &mut out, limit)?;
        return Ok(out);
    }
    super::reserve(&mut out, super::first_guess(payload, limit), Codec::Snappy)?;
    let mut input = take_header(payload)?;
    while let Some((bytes, rest)) = input.split_first_chunk::<4>() {
        if *bytes == MAGIC[..4] {
            input = take_header(input)?;
            continue;
        }
        let bytes = u32::from_be_bytes(*bytes) as usize;
        let (block, rest) = rest.split_at_checked(bytes).ok_or(corrupt("block ends early"))?;
        decompress_block(block, &mut out, limit)?;
        input = rest;
    }
    if input.is_empty() { Ok(out) } else { Err(corrupt("bytes after the last block")) }
}

fn take_header(input: &[u8]) -> Result<&[u8], CodecError> {
    let (header, rest) = input.split_first_chunk::<HEADER_BYTES>().ok_or(corrupt("header ends early"))?;
    if !header.starts_with(&MAGIC) || header[8..12] < VERSION.to_be_bytes()[..] {
        return Err(corrupt("unknown header"));
    }
    Ok(rest)
}

fn decompress_block(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), CodecError> {
    let stated = snap::raw::decompress_len(block).map_err(|_| corrupt("no length"))?;
    if stated > block.len().saturating_mul(MOST_EXPANSION) {
        return Err(corrupt("states more bytes than it can hold"));
    }
    let start = out.len();
    if stated > limit - start {
        return Err(CodecError::TooLarge { codec: Codec::Snappy, limit });
    }
    super::reserve(out, stated, Codec::Snappy)?;
    out.resize(start + stated, 0);
    let written =
        snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(|_| corrupt("block does not decode"))?;
    out.truncate(start + written);
    Ok(())
}

pub(super) fn compress(records: &[u8]) -> Result<Vec<u8>, CodecError> {
    let failed = |_| CodecError::Compressor(Codec::Snappy);
    let mut out = Vec::with_capacity(HEADER_BYTES + records.len() / 2 + 64);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    let mut buffer = vec![0; snap::raw::max_compress_len(BLOCK_BYTES.min(records.len()))];
    for block in records.chunks(BLOCK_BYTES) {
        let written = encoder.compress(block, &mut buffer).map_err(failed)?;
        // A block of 32 KiB grows by less than a quarter.
        out.extend_from_slice(&(written as u32).to_be_bytes());
        out.extend_from_slice(&buffer[..written]);
    }
    Ok(out)
}
