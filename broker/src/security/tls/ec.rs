//! EC keys as Java writes them: without their public half, without which they are not read here. The certificate has it.
//!
//! ```text
//!  PrivateKeyInfo { version, algorithm, OCTET STRING { ECPrivateKey } }            PKCS#8
//!  ECPrivateKey   { version 1, private key, [0] curve?, [1] public key? }           RFC 5915
//! ```

use pkcs8::{
    PrivateKeyInfoRef,
    der::{
        AnyRef, Decode, Encode, Reader, SliceReader, Tag, TagNumber, Tagged,
        asn1::{ContextSpecific, ObjectIdentifier, OctetStringRef},
    },
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_cert::{Certificate, der::TagMode};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PUBLIC_KEY: TagNumber = TagNumber(1);

/// `key`, or the same with the public half in `certificate` where that is all that it lacks.
pub(super) fn whole(key: PrivateKeyDer<'static>, certificate: Option<&CertificateDer<'_>>) -> PrivateKeyDer<'static> {
    let mended = match (&key, certificate) {
        (PrivateKeyDer::Pkcs8(key), Some(certificate)) => with_public_half(key.secret_pkcs8_der(), certificate),
        _ => None,
    };
    mended.map_or(key, |mended| PrivatePkcs8KeyDer::from(mended).into())
}

/// `None` if `key` is no EC key in PKCS#8, has its public half, or the certificate cannot be read.
fn with_public_half(key: &[u8], certificate: &[u8]) -> Option<Vec<u8>> {
    let info = PrivateKeyInfoRef::try_from(key).ok()?;
    let inner = AnyRef::from_der(info.private_key.as_bytes()).ok().filter(|inner| inner.tag() == Tag::Sequence)?;
    if info.algorithm.oid != EC_PUBLIC_KEY || has_public_half(inner.value())? {
        return None;
    }
    let certificate = Certificate::from_der(certificate).ok()?;
    let public = certificate.tbs_certificate().subject_public_key_info().subject_public_key.clone();
    let public = ContextSpecific { tag_number: PUBLIC_KEY, tag_mode: TagMode::Explicit, value: public };
    let inner = [inner.value(), public.to_der().ok()?.as_slice()].concat();
    let inner = AnyRef::new(Tag::Sequence, &inner).ok()?.to_der().ok()?;
    PrivateKeyInfoRef::new(info.algorithm, OctetStringRef::new(&inner).ok()?).to_der().ok()
}

fn has_public_half(parts: &[u8]) -> Option<bool> {
    let mut parts = SliceReader::new(parts).ok()?;
    while !parts.is_finished() {
        if parts.decode::<AnyRef<'_>>().ok()?.tag() == (Tag::ContextSpecific { constructed: true, number: PUBLIC_KEY })
        {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::testing::Authority;

    /// Bytes of `[1] { BIT STRING { 0, point } }` on P-256.
    const PUBLIC_BYTES: usize = 2 + 2 + 1 + 65;

    /// What Java would have written.
    fn as_java_writes(key: &[u8]) -> Vec<u8> {
        let info = PrivateKeyInfoRef::try_from(key).unwrap();
        let inner = AnyRef::from_der(info.private_key.as_bytes()).unwrap();
        let (kept, _) = inner.value().split_at(inner.value().len() - PUBLIC_BYTES);
        let inner = AnyRef::new(Tag::Sequence, kept).unwrap().to_der().unwrap();
        PrivateKeyInfoRef::new(info.algorithm, OctetStringRef::new(&inner).unwrap()).to_der().unwrap()
    }

    #[test]
    fn a_key_without_its_public_half_gets_that_of_the_certificate_and_others_stay_as_they_are() {
        let identity = Authority::new("ca").server();
        let (key, certificate) = (identity.key.serialize_der(), identity.certificate.der());
        let javas = as_java_writes(&key);
        let made = |key: &[u8]| match whole(PrivatePkcs8KeyDer::from(key.to_vec()).into(), Some(certificate)) {
            PrivateKeyDer::Pkcs8(made) => made.secret_pkcs8_der().to_vec(),
            other => panic!("{other:?}"),
        };
        assert!(javas.len() < key.len());
        assert_eq!(made(&javas), key);
        assert_eq!(made(&key), key);
        assert_eq!(made(b"nonsense"), b"nonsense");
    }
}
