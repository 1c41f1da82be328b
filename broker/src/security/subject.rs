//! A certificate's subject as text: RFC 2253 in the very form in which Java prints it, since that text is what Kafka's mapping
//! rules and ACLs are written against.
//!
//! ```text
//!  CN=alice,OU=a\,b,C=DE,1.2.840.113549.1.9.1=#160b616c69636540622e6364
//!  last relative name first; the parts of one joined by +; names Java has no keyword for as #hex of their DER
//! ```

use std::fmt::Write as _;

use x509_cert::{
    Certificate,
    attr::AttributeTypeAndValue,
    der::{Decode, Encode, Tag, Tagged, asn1::Any},
};

/// The bytes are no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read")]
pub struct SubjectError;

/// The keywords that RFC 2253 knows; other types are printed as numbers.
const KEYWORDS: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// The subject of the certificate `der`; empty if it has none.
///
/// # Errors
/// [`SubjectError`].
pub fn subject_text(der: &[u8]) -> Result<String, SubjectError> {
    let certificate = Certificate::from_der(der).map_err(|_| SubjectError)?;
    let names = certificate.tbs_certificate().subject().iter_rdn().collect::<Vec<_>>();
    let printed = names.iter().rev().map(|name| {
        let parts: Result<Vec<String>, SubjectError> = name.iter().map(part).collect();
        parts.map(|parts| parts.join("+"))
    });
    Ok(printed.collect::<Result<Vec<String>, SubjectError>>()?.join(","))
}

fn part(part: &AttributeTypeAndValue) -> Result<String, SubjectError> {
    let oid = part.oid.to_string();
    let keyword = KEYWORDS.iter().find(|(known, _)| *known == oid).map(|(_, keyword)| *keyword);
    match keyword.and_then(|keyword| Some((keyword, directory_string(&part.value)?))) {
        Some((keyword, text)) => Ok(format!("{keyword}={}", escaped(&text))),
        None => {
            let mut out = format!("{}=#", keyword.unwrap_or(&oid));
            for byte in part.value.to_der().map_err(|_| SubjectError)? {
                let _ = write!(out, "{byte:02x}");
            }
            Ok(out)
        }
    }
}

/// The text of the string types that Java prints as text.
fn directory_string(value: &Any) -> Option<String> {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String => Some(String::from_utf8_lossy(bytes).into_owned()),
        // T.61 is read as Latin-1, as everybody does.
        Tag::PrintableString | Tag::Ia5String | Tag::TeletexString => {
            Some(bytes.iter().map(|byte| char::from(*byte)).collect())
        }
        Tag::BmpString => {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            Some(String::from_utf16_lossy(&units))
        }
        _ => None,
    }
}

/// Special characters, NUL, and blanks at both ends, escaped as Java does.
fn escaped(text: &str) -> String {
    let mut characters: Vec<String> = Vec::with_capacity(text.len());
    for character in text.chars() {
        characters.push(match character {
            ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\' => format!("\\{character}"),
            '\0' => "\\00".to_owned(),
            other => other.to_string(),
        });
    }
    let is_blank = |character: &String| character == " " || character == "\r";
    let leading = characters.iter().take_while(|character| is_blank(character)).count();
    let trailing = characters.iter().rev().take_while(|character| is_blank(character)).count();
    let end = characters.len().saturating_sub(trailing);
    let place = |(at, character): (usize, String)| match at < leading || at >= end {
        true => format!("\\{character}"),
        false => character,
    };
    characters.into_iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    #[test]
    fn a_subject_reads_as_java_prints_it() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let mut put = |kind: DnType, value: DnValue| params.distinguished_name.push(kind, value);
        let text = |value: &str| DnValue::Utf8String(value.to_owned());
        put(DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap()));
        put(DnType::StateOrProvinceName, text("B=W"));
        put(DnType::LocalityName, text(" x "));
        put(DnType::OrganizationName, text("Varve, Inc"));
        put(DnType::OrganizationalUnitName, text("a\"b<c>;d\\e#f+g"));
        put(DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]), text("u1"));
        put(DnType::CommonName, text("älice"));
        put(DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]), DnValue::Ia5String("a@b.cd".try_into().unwrap()));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        // What X500Principal.getName() of OpenJDK 17 makes of it.
        assert_eq!(
            subject_text(certificate.der()).unwrap(),
            "1.2.840.113549.1.9.1=#16066140622e6364,CN=älice,UID=u1,OU=a\\\"b\\<c\\>\\;d\\\\e\\#f\\+g,O=Varve\\, Inc,\
             L=\\ x\\ ,ST=B\\=W,C=DE"
        );
        assert_eq!(subject_text(b"no certificate"), Err(SubjectError));
    }
}
