//! The codecs a record batch may be compressed with.

use std::{fmt, ops::RangeInclusive};

/// How the records of a batch are compressed (`compression.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Not compressed.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Blocks of snappy inside the framing of xerial's Java library.
    Snappy,
    /// LZ4 frame format (KIP-57).
    Lz4,
    /// RFC 8878 (KIP-110).
    Zstd,
}

impl Codec {
    /// Every codec, in the order of its number on the wire.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec with this number in the low three bits of a batch's attributes; `None` for 5 to 7, which are unused.
    pub fn from_wire(raw: u8) -> Option<Codec> {
        Codec::ALL.get(usize::from(raw)).copied()
    }

    /// Its number in a batch's attributes.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The codec of this name, as `compression.type` spells it (`none` is Kafka's `uncompressed` there).
    pub fn from_name(name: &str) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// The name that Kafka's configuration and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// Levels that `compression.<codec>.level` accepts beside the default (KIP-390, KIP-1029); `None` where there are none.
    pub const fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Codec::None | Codec::Snappy => None,
            Codec::Gzip => Some(1..=9),
            Codec::Lz4 => Some(1..=17),
            Codec::Zstd => Some(-131_072..=22),
        }
    }

    /// The level that Kafka uses when none is set. Gzip's -1 stands for the library's own choice (6).
    pub const fn default_level(self) -> Option<i32> {
        match self {
            Codec::None | Codec::Snappy => None,
            Codec::Gzip => Some(-1),
            Codec::Lz4 => Some(9),
            Codec::Zstd => Some(3),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_survives_its_number_and_its_name() {
        for codec in Codec::ALL {
            assert_eq!(Codec::from_wire(codec.to_wire()), Some(codec));
            assert_eq!(Codec::from_name(codec.name()), Some(codec));
        }
        assert_eq!(Codec::from_wire(5), None);
    }
}
