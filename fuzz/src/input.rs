//! Inputs of several parts.

/// One part of an input: what it is for, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Read by the target.
    pub kind: u8,
    /// At most 65535 of them.
    pub bytes: &'a [u8],
}

/// The pieces of an input, each `kind u8 │ length u16 │ bytes`; a length beyond the end takes what there is.
pub fn pieces(mut input: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    std::iter::from_fn(move || {
        let (&[kind, high, low], rest) = input.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        input = rest;
        Some(Piece { kind, bytes })
    })
}

/// The bytes of `pieces`, for a seed.
///
/// # Panics
/// If a piece is too long.
pub fn join(pieces: &[Piece<'_>]) -> Vec<u8> {
    let mut input = Vec::new();
    for piece in pieces {
        let length = u16::try_from(piece.bytes.len()).expect("a seed's pieces are small");
        input.push(piece.kind);
        input.extend(length.to_be_bytes());
        input.extend(piece.bytes);
    }
    input
}

/// A flag byte, and the rest. Without one all flags are off.
pub fn flags(input: &[u8]) -> (u8, &[u8]) {
    input.split_first().map_or((0, input), |(flags, rest)| (*flags, rest))
}

/// Files of a partition's directory that a segment input may hold: a piece's kind is a place in this list.
pub const SEGMENT_FILES: [&str; 17] = [
    "00000000000000000000.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000000.txnindex",
    "00000000000000000000.snapshot",
    "leader-epoch-checkpoint",
    "00000000000000000008.log",
    "00000000000000000008.index",
    "00000000000000000008.timeindex",
    "00000000000000000008.txnindex",
    "00000000000000000008.snapshot",
    "00000000004294967300.log",
    "00000000004294967300.snapshot",
    "00000000000000000000.log.swap",
    "00000000000000000000.index.swap",
    "00000000000000000008.log.cleaned",
    "partition.metadata",
];
