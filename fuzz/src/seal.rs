//! Checksums made to hold, so that what lies behind them is reached.

use varve_log::format::HEADER_BYTES;

/// Bytes of a batch before those that its length counts.
const BEFORE_LENGTH: usize = 12;
const BATCH_CRC: usize = 17;
/// Where the bytes begin that a batch's CRC covers.
const CRC_START: usize = 21;
/// Footer of a raw object: where its four section entries (length u64, CRC u32) begin, and where its own CRC lies.
const RAW_SECTIONS: usize = 44;
const RAW_CRC: usize = 94;

/// Gives each batch of a run its right CRC.
pub fn batches(mut run: &mut [u8]) {
    while run.len() >= HEADER_BYTES {
        let length = i32::from_be_bytes([run[8], run[9], run[10], run[11]]);
        let end = usize::try_from(length).unwrap_or(0).saturating_add(BEFORE_LENGTH);
        if end < HEADER_BYTES || end > run.len() {
            return;
        }
        let (batch, rest) = run.split_at_mut(end);
        let crc = crc32c::crc32c(&batch[CRC_START..]);
        batch[BATCH_CRC..CRC_START].copy_from_slice(&crc.to_be_bytes());
        run = rest;
    }
}

/// Gives a manifest or a leaf its right CRC: the last four bytes.
pub fn manifest(bytes: &mut [u8]) {
    if let Some((body, crc)) = bytes.split_last_chunk_mut() {
        *crc = crc32c::crc32c(body).to_be_bytes();
    }
}

/// Gives a producer snapshot its right CRC.
pub fn snapshot(bytes: &mut [u8]) {
    if let Some((head, rest)) = bytes.split_at_mut_checked(6) {
        head[2..].copy_from_slice(&crc32c::crc32c(rest).to_be_bytes());
    }
}

/// Gives a raw object's sections, as far as they lie in `tail`, and its footer their right CRCs.
pub fn raw_object(tail: &mut [u8]) {
    let Some(footer) = tail.len().checked_sub(varve_tiering::raw::FOOTER_BYTES) else { return };
    let entry = |at: usize| footer + RAW_SECTIONS + at * 12;
    let length =
        |tail: &[u8], at: usize| tail[entry(at)..].first_chunk().map_or(u64::MAX, |length| u64::from_be_bytes(*length));
    let mut end = footer as u64;
    for section in (0..4).rev() {
        let Some(start) = end.checked_sub(length(tail, section)) else { break };
        let crc = crc32c::crc32c(&tail[start as usize..end as usize]);
        tail[entry(section) + 8..entry(section) + 12].copy_from_slice(&crc.to_be_bytes());
        end = start;
    }
    let crc = crc32c::crc32c(&tail[footer..footer + RAW_CRC]);
    tail[footer + RAW_CRC..footer + RAW_CRC + 4].copy_from_slice(&crc.to_be_bytes());
}
