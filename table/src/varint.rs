//! Variable-length integers: seven bits a byte, lowest first, signed ones zigzag. As in Kafka's records and in our tables.

/// Appends `value`.
#[inline]
pub(crate) fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` zigzag.
#[inline]
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Bytes that [`put_signed`] appends.
#[inline]
pub(crate) const fn signed_len(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (70 - (zigzag | 1).leading_zeros() as usize) / 7
}

/// Takes an unsigned number off the front of `buf`; `None` if it ends early or exceeds 64 bits.
#[inline]
pub(crate) fn take_unsigned(buf: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (place, &byte) in buf.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7f);
        if place == 9 && part > 1 {
            return None;
        }
        value |= part << (7 * place);
        if byte & 0x80 == 0 {
            *buf = &buf[place + 1..];
            return Some(value);
        }
    }
    None
}

/// Takes a zigzag number off the front of `buf`.
#[inline]
pub(crate) fn take_signed(buf: &mut &[u8]) -> Option<i64> {
    take_unsigned(buf).map(|raw| (raw >> 1) as i64 ^ -((raw & 1) as i64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_survive_and_their_length_is_foretold(unsigned: u64, signed: i64) {
            let mut out = Vec::new();
            put_signed(&mut out, signed);
            prop_assert_eq!(out.len(), signed_len(signed));
            put_unsigned(&mut out, unsigned);
            let mut rest = &out[..];
            prop_assert_eq!(take_signed(&mut rest), Some(signed));
            prop_assert_eq!(take_unsigned(&mut rest), Some(unsigned));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while take_unsigned(&mut rest).is_some() {}
        }
    }
}
