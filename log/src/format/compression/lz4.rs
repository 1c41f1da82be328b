//! LZ4 frames.
//!
//! ```text
//! magic 04 22 4D 18 | FLG | BD | content size (8, if FLG bit 3) | HC = byte 1 of xxh32(FLG..)
//! block: size (4, LE; bit 31 = stored) | data | xxh32 of data (4, if FLG bit 4)      … repeated
//! end:   00 00 00 00 | xxh32 of content (4, if FLG bit 2)
//! FLG: version 01 (bits 7-6) | independent blocks (5) | block checksums (4) | content size (3) | content checksum (2)
//! BD:  largest block (bits 6-4): 4 = 64 KiB, 5 = 256 KiB, 6 = 1 MiB, 7 = 4 MiB
//! ```
//! As Kafka's consumers do, the checksum of the content is not verified: the batch's CRC-32C has vouched for the bytes.

use twox_hash::XxHash32;
use varve_metadata::config::Codec;

use super::CodecError;

const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
const STORED: u32 = 1 << 31;
/// How far back a match may reach.
pub(super) const WINDOW_BYTES: usize = 64 * 1024;
/// LZ4 cannot expand by more: 255 bytes of output for one byte of a run length.
const MOST_EXPANSION: usize = 255;

const WRITTEN_BLOCK_BYTES: usize = 64 * 1024;
/// Version 1, independent blocks, no checksums, no content size.
const WRITTEN_FLG: u8 = 0x60;
/// Blocks of 64 KiB.
const WRITTEN_BD: u8 = 0x40;

const fn corrupt(reason: &'static str) -> CodecError {
    CodecError::Corrupt { codec: Codec::Lz4, reason }
}

fn take<'a>(input: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], CodecError> {
    let (taken, rest) = input.split_at_checked(bytes).ok_or(corrupt("frame ends early"))?;
    *input = rest;
    Ok(taken)
}

fn take_u32(input: &mut &[u8]) -> Result<u32, CodecError> {
    let (taken, rest) = input.split_first_chunk::<4>().ok_or(corrupt("frame ends early"))?;
    *input = rest;
    Ok(u32::from_le_bytes(*taken))
}

/// What a frame's descriptor says about its blocks.
struct Descriptor {
    independent: bool,
    block_checksums: bool,
    most_block_bytes: usize,
}

impl Descriptor {
    fn take(input: &mut &[u8]) -> Result<Descriptor, CodecError> {
        if take(input, 4)? != MAGIC {
            return Err(corrupt("no frame magic"));
        }
        let descriptor = *input;
        let [flg, bd] = *take(input, 2)? else { return Err(corrupt("frame ends early")) };
        if flg >> 6 != 1 || flg & 0b11 != 0 {
            return Err(corrupt("unknown version or flags"));
        }
        if flg & 0x08 != 0 {
            take(input, 8)?;
        }
        let hashed = &descriptor[..descriptor.len() - input.len()];
        if take(input, 1)?[0] != header_checksum(hashed) {
            return Err(corrupt("descriptor checksum"));
        }
        let size = bd >> 4;
        if !(4..=7).contains(&size) || bd & 0x0F != 0 {
            return Err(corrupt("unknown block size"));
        }
        Ok(Descriptor {
            independent: flg & 0x20 != 0,
            block_checksums: flg & 0x10 != 0,
            most_block_bytes: 1 << (2 * size + 8),
        })
    }
}

fn header_checksum(descriptor: &[u8]) -> u8 {
    (XxHash32::oneshot(0, descriptor) >> 8) as u8
}

/// The content of the first frame; what follows it is ignored, as Kafka's reader does.
pub(super) fn decompress(payload: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut blocks = Blocks::open(payload)?;
    let mut out = Vec::new();
    super::reserve(&mut out, super::first_guess(payload, limit), Codec::Lz4)?;
    while blocks.next(&mut out, limit)? {}
    Ok(out)
}

/// The blocks of the first frame, unpacked one at a time.
pub(super) struct Blocks<'a> {
    descriptor: Descriptor,
    input: &'a [u8],
    ended: bool,
}

impl<'a> Blocks<'a> {
    pub(super) fn open(payload: &'a [u8]) -> Result<Blocks<'a>, CodecError> {
        let mut input = payload;
        let descriptor = Descriptor::take(&mut input)?;
        Ok(Blocks { descriptor, input, ended: false })
    }

    /// Appends the next block to `out`, which ends with what came before it ([`WINDOW_BYTES`] of that do) and holds no more
    /// than `limit` bytes afterwards. `false` once there is none.
    pub(super) fn next(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<bool, CodecError> {
        if self.ended {
            return Ok(false);
        }
        let size = take_u32(&mut self.input)?;
        self.ended = size == 0;
        if self.ended {
            return Ok(false);
        }
        let bytes = (size & !STORED) as usize;
        if bytes > self.descriptor.most_block_bytes {
            return Err(corrupt("block larger than the frame allows"));
        }
        let block = take(&mut self.input, bytes)?;
        if size & STORED == 0 {
            decompress_block(block, &self.descriptor, out, limit)?;
        } else if out.len() + block.len() <= limit {
            super::reserve(out, block.len(), Codec::Lz4)?;
            out.extend_from_slice(block);
        } else {
            return Err(CodecError::TooLarge { codec: Codec::Lz4, limit });
        }
        if self.descriptor.block_checksums && take_u32(&mut self.input)? != XxHash32::oneshot(0, block) {
            return Err(corrupt("block checksum"));
        }
        Ok(true)
    }
}

fn decompress_block(block: &[u8], descriptor: &Descriptor, out: &mut Vec<u8>, limit: usize) -> Result<(), CodecError> {
    let start = out.len();
    let allowed = descriptor.most_block_bytes.min(block.len().saturating_mul(MOST_EXPANSION));
    let room = allowed.min(limit - start);
    super::reserve(out, room, Codec::Lz4)?;
    out.resize(start + room, 0);
    let (before, target) = out.split_at_mut(start);
    let written = if descriptor.independent {
        lz4_flex::block::decompress_into(block, target)
    } else {
        let window = &before[start.saturating_sub(WINDOW_BYTES)..];
        lz4_flex::block::decompress_into_with_dict(block, target, window)
    };
    match written {
        Ok(written) => out.truncate(start + written),
        Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if room < allowed => {
            return Err(CodecError::TooLarge { codec: Codec::Lz4, limit });
        }
        Err(_) => return Err(corrupt("block does not decode")),
    }
    Ok(())
}

/// As Kafka's Java producer: at its default level the fast compressor, at any other the high-compression one.
pub(super) fn compress(records: &[u8], level: i32) -> Result<Vec<u8>, CodecError> {
    let mode =
        (Some(level) != Codec::Lz4.default_level()).then_some(lz4::block::CompressionMode::HIGHCOMPRESSION(level));
    let failed = |_| CodecError::Compressor(Codec::Lz4);
    let mut out = Vec::with_capacity(records.len() / 2 + 64);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[WRITTEN_FLG, WRITTEN_BD, header_checksum(&[WRITTEN_FLG, WRITTEN_BD])]);
    let mut buffer = vec![0; lz4::block::compress_bound(WRITTEN_BLOCK_BYTES).map_err(failed)?];
    for block in records.chunks(WRITTEN_BLOCK_BYTES) {
        let written = lz4::block::compress_to_buffer(block, mode, false, &mut buffer).map_err(failed)?;
        // Both sizes are at most that of a block, far from bit 31.
        if written < block.len() {
            out.extend_from_slice(&(written as u32).to_le_bytes());
            out.extend_from_slice(&buffer[..written]);
        } else {
            out.extend_from_slice(&(block.len() as u32 | STORED).to_le_bytes());
            out.extend_from_slice(block);
        }
    }
    out.extend_from_slice(&[0; 4]);
    Ok(out)
}
