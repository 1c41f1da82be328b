//! What lies behind a row group for batches that the columns alone cannot give back: whole batches as they came, or the
//! timestamp deltas of a batch whose column holds other times.

use bytes::Bytes;

use crate::varint::{put_signed, take_signed};

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Longest varint of 64 bits.
const MAX_VARINT: usize = 10;

/// Timestamp deltas, one varint a record, compressed where that is shorter.
pub(crate) fn encode_deltas(deltas: &[i64]) -> Bytes {
    let mut plain = vec![PLAIN];
    deltas.iter().for_each(|delta| put_signed(&mut plain, *delta));
    let mut packed = vec![ZSTD];
    packed.extend(zstd::bulk::compress(&plain[1..], 1).expect("compressing memory into memory cannot fail"));
    if packed.len() < plain.len() { packed.into() } else { plain.into() }
}

/// The varints of `count` deltas; `None` if the bytes are damaged.
pub(crate) fn decode_deltas(encoded: &[u8], count: u32) -> Option<Vec<u8>> {
    let (form, rest) = encoded.split_first()?;
    let plain = match *form {
        PLAIN => rest.to_vec(),
        ZSTD => zstd::bulk::decompress(rest, count as usize * MAX_VARINT).ok()?,
        _ => return None,
    };
    let mut walk = &plain[..];
    (0..count).try_for_each(|_| take_signed(&mut walk).map(drop))?;
    walk.is_empty().then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_survive_whether_they_compress_or_not() {
        for deltas in [vec![3i64, -9, i64::MIN, i64::MAX], vec![7; 5000], vec![]] {
            let plain = decode_deltas(&encode_deltas(&deltas), deltas.len() as u32).expect("sound");
            let mut walk = &plain[..];
            assert!(deltas.iter().all(|delta| take_signed(&mut walk) == Some(*delta)));
            assert_eq!(decode_deltas(&encode_deltas(&deltas), deltas.len() as u32 + 1), None);
        }
    }
}
