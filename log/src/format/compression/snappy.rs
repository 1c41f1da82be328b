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
    let mut blocks = Blocks::open(payload)?;
    let mut out = Vec::new();
    if !blocks.bare {
        super::reserve(&mut out, super::first_guess(payload, limit), Codec::Snappy)?;
    }
    while blocks.next(&mut out, limit)? {}
    Ok(out)
}

/// The blocks of a payload, unpacked one at a time; of a bare one it is one.
pub(super) struct Blocks<'a> {
    input: &'a [u8],
    bare: bool,
}

impl<'a> Blocks<'a> {
    pub(super) fn open(payload: &'a [u8]) -> Result<Blocks<'a>, CodecError> {
        if payload.is_empty() {
            return Err(corrupt("empty"));
        }
        let bare = payload.len() < HEADER_BYTES || !payload.starts_with(&MAGIC);
        let input = if bare { payload } else { take_header(payload)? };
        Ok(Blocks { input, bare })
    }

    /// Appends the next block to `out`, which holds no more than `limit` bytes afterwards. `false` once there is none.
    pub(super) fn next(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<bool, CodecError> {
        if self.bare {
            let block = std::mem::take(&mut self.input);
            return if block.is_empty() { Ok(false) } else { decompress_block(block, out, limit).map(|()| true) };
        }
        while let Some((bytes, rest)) = self.input.split_first_chunk::<4>() {
            if *bytes == MAGIC[..4] {
                self.input = take_header(self.input)?;
                continue;
            }
            let bytes = u32::from_be_bytes(*bytes) as usize;
            let (block, rest) = rest.split_at_checked(bytes).ok_or(corrupt("block ends early"))?;
            self.input = rest;
            return decompress_block(block, out, limit).map(|()| true);
        }
        if self.input.is_empty() { Ok(false) } else { Err(corrupt("bytes after the last block")) }
    }
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
