//! A certificate of nobody's around a made-up subject.

/// One value of DER.
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ ..0x80 => out.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    out.extend(content);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    value(0x30, &parts.concat())
}

/// A certificate whose subject consists of the relative names `names`, whatever these are. Nothing else in it can be wrong.
pub fn around(names: &[u8]) -> Vec<u8> {
    // ecdsa-with-SHA256; ecPublicKey on P-256.
    let algorithm = sequence(&[&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]);
    let kind = sequence(&[&[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1], &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]]);
    let (key, signature) = (value(3, &[0, 4]), value(3, &[0, 1]));
    let times = sequence(&[&value(0x17, b"200101000000Z"), &value(0x17, b"300101000000Z")]);
    let subject = sequence(&[names]);
    let version_and_serial = [0xa0, 3, 2, 1, 2, 2, 1, 1];
    let body =
        sequence(&[&version_and_serial, &algorithm, &sequence(&[]), &times, &subject, &sequence(&[&kind, &key])]);
    sequence(&[&body, &algorithm, &signature])
}

/// A relative name of one part: its type as DER has it, the tag of its value, and the value.
pub fn relative_name(kind: &[u8], tag: u8, text: &[u8]) -> Vec<u8> {
    value(0x31, &sequence(&[&value(6, kind), &value(tag, text)]))
}
