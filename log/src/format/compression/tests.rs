use proptest::prelude::*;

use super::*;

const COMPRESSED: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

fn lines() -> Vec<u8> {
    (0..12).flat_map(|i| format!("varve keeps what it was told, line {i}\n").into_bytes()).collect()
}

/// Bytes that compress somewhat and span several blocks of every codec.
fn large() -> Vec<u8> {
    (0..200_000_i32).map(|i| (i.wrapping_mul(7919) as u32 >> 5) as u8 ^ (i % 97) as u8).collect()
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// What the Java client of Kafka 4.3.0 makes of [`lines`].
fn written_by_java(codec: Codec) -> Vec<u8> {
    hex(match codec {
        Codec::None => unreachable!("not compressed"),
        Codec::Gzip => {
            "1f8b08000000000000ff2b4b2c2a4b55c84e4d2d285628cf482c51c82c51284f2c5628c9cf49d151c8c9cc4b5530e02a23acc890184546\
             c4283226469109318a4c895164468c227362145910a3c892a8c0242ec80db90011d203b2be010000"
        }
        Codec::Snappy => {
            "82534e4150505900000000010000000100000061be03907661727665206b6565707320776861742069742077617320746f6c642c206c69\
             6e6520300a8a250004310a8a250000328e250000338e250000348e250000358e250000368e250000378e250000388e250000398e250000\
             3196730104310a"
        }
        Codec::Lz4 => {
            "04224d1860408262000000ff167661727665206b6565707320776861742069742077617320746f6c642c206c696e6520300a2500101f31\
             2500111f322500111f332500111f342500111f352500111f362500111f372500111f382500111f392500111f3173011050652031310a00\
             000000"
        }
        Codec::Zstd => {
            "28b52ffd005874020014037661727665206b6565707320776861742069742077617320746f6c642c206c696e6520300a31323334353637\
             383931310a0b00edd623017901c9025202f2029205a404e405240b485188544f010000"
        }
    })
}

#[test]
fn what_javas_client_compressed_is_read() {
    for codec in COMPRESSED {
        assert_eq!(decompress(codec, &written_by_java(codec), 1 << 20).as_deref(), Ok(&lines()[..]), "{codec}");
    }
}

#[test]
fn snappy_and_lz4_are_written_as_javas_client_writes_them() {
    let lz4 = compress(Codec::Lz4, None, &lines()).unwrap();
    assert_eq!(lz4, written_by_java(Codec::Lz4));
    let snappy = compress(Codec::Snappy, None, &lines()).unwrap();
    assert_eq!(snappy[..16], written_by_java(Codec::Snappy)[..16]);
}

#[test]
fn lz4_levels_other_than_the_default_use_the_thorough_compressor() {
    // Sizes recorded from Kafka 4.3.0's Java client.
    let bytes = |level| compress(Codec::Lz4, level, &large()).unwrap().len();
    assert_eq!(bytes(Some(12)), 93_382);
    assert!(bytes(Some(1)) < bytes(None), "level 1 is thorough, the default 9 is fast (as in Kafka)");
}

#[test]
fn bare_snappy_is_read() {
    let bare = snap::raw::Encoder::new().compress_vec(&lines()).unwrap();
    assert_eq!(decompress(Codec::Snappy, &bare, 1 << 20).as_deref(), Ok(&lines()[..]));
}

#[test]
fn streams_and_frames_one_after_another_are_read_as_one() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Zstd] {
        let twice = compress(codec, None, &lines()).unwrap().repeat(2);
        assert_eq!(decompress(codec, &twice, 1 << 20).as_deref(), Ok(&lines().repeat(2)[..]), "{codec}");
    }
}

#[test]
fn lz4_frames_with_linked_blocks_and_checksums_are_read() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    for (mode, size) in [
        (BlockMode::Linked, BlockSize::Max64KB),
        (BlockMode::Linked, BlockSize::Max256KB),
        (BlockMode::Independent, BlockSize::Max4MB),
    ] {
        let info = FrameInfo::new()
            .block_mode(mode)
            .block_size(size)
            .block_checksums(true)
            .content_checksum(true)
            .content_size(Some(200_000));
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&large()).unwrap();
        let frame = encoder.finish().unwrap();
        assert_eq!(decompress(Codec::Lz4, &frame, 200_000).as_deref(), Ok(&large()[..]));
    }
}

#[test]
fn zstd_frames_without_a_content_size_are_read() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(&[7; 3_000_000]).unwrap();
    let frame = encoder.finish().unwrap();
    assert_eq!(decompress(Codec::Zstd, &frame, 3_000_000).as_deref(), Ok(&[7; 3_000_000][..]));
}

#[test]
fn records_may_fill_the_limit_and_not_one_byte_more() {
    for codec in Codec::ALL {
        for records in [lines(), large(), vec![0; 100_000]] {
            let payload = compress(codec, None, &records).unwrap();
            assert_eq!(decompress(codec, &payload, records.len()).as_deref(), Ok(&records[..]), "{codec}");
            let limit = records.len() - 1;
            assert_eq!(decompress(codec, &payload, limit), Err(CodecError::TooLarge { codec, limit }), "{codec}");
        }
    }
}

#[test]
fn a_stated_size_that_is_a_lie_allocates_nothing() {
    // Bare snappy that claims 4 GiB.
    let claim = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0x00];
    assert!(matches!(decompress(Codec::Snappy, &claim, usize::MAX), Err(CodecError::Corrupt { .. })));
    // A zstd frame whose header claims 2^62 bytes.
    let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0xE0];
    frame.extend_from_slice(&(1_u64 << 62).to_le_bytes());
    frame.extend_from_slice(&[1, 0, 0]);
    assert!(decompress(Codec::Zstd, &frame, 1 << 30).is_err());
}

#[test]
fn a_zstd_block_larger_than_blocks_can_be_is_corrupt() {
    // A run of one byte that claims 2 MiB - 1, where the format allows 128 KiB: four such bytes after four must not unpack to
    // gigabytes. Found by the fuzz target `segment`.
    let frame = |bytes: u32, blocks: usize| {
        let block = |last: u32| [&((bytes << 3) | (1 << 1) | last).to_le_bytes()[..3], b"v"].concat();
        // No content size, a window of 1 MiB.
        let header = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x50];
        [&header[..], &block(0).repeat(blocks - 1), &block(1)].concat()
    };
    let unpacked = |frame: &[u8]| decompress(Codec::Zstd, frame, 1 << 30).map(|records| records.len());
    assert_eq!(unpacked(&frame(128 << 10, 100)), Ok(100 * (128 << 10)));
    let outcome = unpacked(&frame((2 << 20) - 1, 100));
    assert!(matches!(outcome, Err(CodecError::Corrupt { .. })), "{outcome:?}");
}

#[test]
fn a_payload_cut_anywhere_is_corrupt() {
    for codec in COMPRESSED {
        let payload = compress(codec, None, &lines()).unwrap();
        for cut in 0..payload.len() {
            // Snappy in xerial's framing ends where the bytes end: a cut between blocks is not visible to it.
            if codec == Codec::Snappy && cut == 16 {
                continue;
            }
            let outcome = decompress(codec, &payload[..cut], 1 << 20);
            assert!(matches!(outcome, Err(CodecError::Corrupt { .. })), "{codec} cut at {cut}: {outcome:?}");
        }
    }
}

proptest! {
    #[test]
    fn records_survive_every_codec_and_level(
        records in proptest::collection::vec(0_u8..8, 0..70_000),
        level in proptest::option::of(-10..30),
    ) {
        for codec in Codec::ALL {
            let payload = compress(codec, level, &records).unwrap();
            prop_assert_eq!(&decompress(codec, &payload, records.len()).unwrap()[..], &records[..]);
        }
    }

    #[test]
    fn no_bytes_panic_or_exceed_the_limit(
        mut payload in proptest::collection::vec(any::<u8>(), 0..600),
        codec in proptest::sample::select(&COMPRESSED[..]),
        at in any::<proptest::sample::Index>(),
        disturb: bool,
    ) {
        if disturb {
            let mut real = compress(codec, None, &lines()).unwrap();
            let index = at.index(real.len());
            real[index] = payload.first().copied().unwrap_or(0);
            payload = real;
        }
        if let Ok(out) = decompress(codec, &payload, 1000) {
            prop_assert!(out.len() <= 1000);
        }
    }
}

#[test]
fn the_levels_of_gzip_and_zstd_change_what_is_written() {
    let words = ["ERROR", "WARN", "connection", "closed", "by", "peer", "after", "seconds"];
    let mut random = 7_u32;
    let mut next = |limit: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) % limit
    };
    // Phrases that come again at distances of all kinds: searching for longer matches pays.
    let phrases: Vec<String> =
        (0..300).map(|_| (0..6).map(|_| format!("{} {} ", words[next(8) as usize], next(1000))).collect()).collect();
    let text: String = (0..4000).map(|_| phrases[next(300) as usize].as_str()).collect();
    for codec in [Codec::Gzip, Codec::Zstd] {
        let size = |level| compress(codec, Some(level), text.as_bytes()).unwrap().len();
        assert!(size(9) < size(1), "{codec}: {} against {}", size(9), size(1));
    }
}
